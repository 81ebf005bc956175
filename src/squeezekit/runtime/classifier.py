"""From a network's file to predictions: one ONNX Runtime session, preprocessing and labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from squeezekit.errors import GraphError, InputError, UnsupportedError
from squeezekit.runtime.images import ImageSource, default_preprocessing, prepare, prepare_file
from squeezekit.sqz.graph import attach
from squeezekit.sqz.metadata_json import from_json
from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing

ONNX_METADATA_KEY = "squeezekit"
"""The key among an ONNX model's metadata_props under which `metadata_json.to_json` is kept."""

_FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_DEFAULT_CROP = 224
_SILENT = 4  # every error that ONNX Runtime would log is raised as well


@dataclass(frozen=True)
class Prediction:
    """One class that an image may show.

    Attributes:
        label: the class's name; its id or "class INDEX" where the network has no names.
        label_id: its id (a WordNet id for ImageNet), or empty.
        index: its place among the network's outputs.
        probability: 0 to 1.
    """

    label: str
    label_id: str
    index: int
    probability: float


class Classifier:
    """A network that is ready to classify images; made by `load` or `from_network`.

    Attributes:
        metadata: labels, preprocessing and provenance.
        file_bytes: size on disk of the file it was loaded from, or None.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        metadata: Metadata,
        file_bytes: int | None = None,
    ) -> None:
        self.metadata = metadata
        self.file_bytes = file_bytes
        self._session = session
        image = session.get_inputs()[0]
        self._input_name: str = image.name
        self._input_type = _FLOAT_TYPES[image.type]
        self._fixed_batch = _whole(image.shape[0])
        self._output_name: str = session.get_outputs()[0].name

    def logits(self, batch: Floats) -> Floats:
        """Run the network.

        Args:
            batch: float32 (N, C, H, W), prepared as `metadata.preprocessing` says.

        Returns:
            float32 (N, classes). Of a network that gives probabilities, their logarithms, so that
            a softmax gives them back.

        Raises:
            GraphError: where ONNX Runtime fails, the outputs are not one number a class, or one
                of them is not a number.
        """
        outputs = self._run(batch)
        if self.metadata.output == "logits":
            return outputs
        with np.errstate(divide="ignore"):  # log 0 is -inf, and its softmax 0 again
            return np.log(outputs)

    def probabilities(self, batch: Floats) -> Floats:
        """The probability of every class, float32 (N, classes); see `logits`."""
        return self._as_probabilities(self._run(batch))

    def __call__(self, image: Image.Image | ImageSource, top: int = 5) -> list[Prediction]:
        """Classify one image.

        Args:
            image: a path, an open binary file, the bytes of an image file, or an image that
                `open_image` gave.
            top: how many classes to return, most probable first; all where there are fewer.

        Raises:
            InputError: where the image cannot be read (see `open_image`), or `top` is not positive.
            GraphError: see `logits`.
        """
        return self.predict_many([image], top)[0]

    def predict_many(
        self, images: Iterable[Image.Image | ImageSource], top: int = 5, batch: int = 16
    ) -> list[list[Prediction]]:
        """Classify images, `batch` at a time; otherwise as calling the classifier with each."""
        if top < 1:
            raise InputError(f"top must be at least 1, not {top}")
        predictions: list[list[Prediction]] = []
        arrays: list[Floats] = []
        for image in images:
            arrays.append(self._prepared(image))
            if len(arrays) == batch:
                predictions += self._predictions(arrays, top)
                arrays = []
        return predictions + self._predictions(arrays, top)

    def _prepared(self, image: Image.Image | ImageSource) -> Floats:
        if isinstance(image, Image.Image):
            return prepare(image, self.metadata.preprocessing)
        return prepare_file(image, self.metadata.preprocessing)

    def _predictions(self, arrays: list[Floats], top: int) -> list[list[Prediction]]:
        if not arrays:
            return []
        outputs = self._run(np.stack(arrays))  # (N, classes)
        probabilities = self._as_probabilities(outputs)
        best = ranked(outputs, top)  # (N, top), told apart where probabilities round to 0
        return [
            [self._prediction(int(index), float(row[index])) for index in indices]
            for row, indices in zip(probabilities, best, strict=True)
        ]

    def _prediction(self, index: int, probability: float) -> Prediction:
        labels, label_ids = self.metadata.labels, self.metadata.label_ids
        label_id = label_ids[index] if label_ids else ""
        label = labels[index] if labels else label_id or f"class {index}"
        return Prediction(label, label_id, index, probability)

    def _as_probabilities(self, outputs: Floats) -> Floats:
        return softmax(outputs) if self.metadata.output == "logits" else outputs

    def _run(self, batch: Floats) -> Floats:
        """The network's own outputs, float32 (N, classes)."""
        size = self._fixed_batch or max(len(batch), 1)
        starts = range(0, max(len(batch), 1), size)
        parts = [self._run_part(batch[start : start + size]) for start in starts]
        outputs = np.concatenate(parts)
        self._check(outputs)
        return outputs

    def _run_part(self, images: Floats) -> Floats:
        padded = images
        if self._fixed_batch:
            missing = self._fixed_batch - len(images)
            padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        inputs = {self._input_name: padded.astype(self._input_type, copy=False)}
        try:
            (outputs,) = self._session.run([self._output_name], inputs)
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise GraphError(f"ONNX Runtime cannot run the graph ({_first_line(error)})") from None
        shape = outputs.shape
        classes = math.prod(shape[1:])
        if shape[:1] != (len(padded),) or classes == 0:
            raise GraphError(
                f"the graph turns {len(padded)} images into an output of shape {shape}"
            )
        flat = outputs.reshape(len(padded), classes)  # (N, classes)
        return np.asarray(flat[: len(images)], np.float32)

    def _check(self, outputs: Floats) -> None:
        if np.isnan(outputs).any():
            raise GraphError("the network gives values that are not numbers: its weights are unfit")
        names = len(self.metadata.labels) or len(self.metadata.label_ids)
        if names and names != outputs.shape[1]:
            raise GraphError(
                f"the network has {outputs.shape[1]} outputs, but its file names {names} classes"
            )


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis, float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def ranked(scores: Floats, top: int) -> npt.NDArray[np.int64]:
    """The `top` highest-scoring classes of each row, best first; of equals, the first class first.

    Args:
        scores: (N, classes).
        top: how many; all where there are fewer classes.

    Returns:
        int64 (N, min(top, classes)).
    """
    return np.argsort(-scores, axis=1, kind="stable")[:, :top]


def load(path: Path | str, threads: int | None = None) -> Classifier:
    """Open a `.sqz` or `.onnx` file.

    An ONNX file that squeezekit did not write has no labels, and is given torchvision's
    preprocessing at its own input size.

    Args:
        path: the file.
        threads: how many threads ONNX Runtime may use for one batch; all cores where None.

    Raises:
        InputError: where the file is missing or is neither.
        FormatError: where it is damaged.
        UnsupportedError: where its input is not one batch of square images.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a .sqz or .onnx file")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if suffix == ".sqz":
        from squeezekit.sqz.container import read

        network = read(path)
        return Classifier(_network_session(network, threads), network.metadata, _file_bytes(path))
    if suffix == ".onnx":
        return _load_onnx(path, threads)
    raise InputError(f"{path} is neither a .sqz nor an .onnx file")


def from_network(network: Network, threads: int | None = None) -> Classifier:
    """A classifier that runs a network held in memory.

    Args:
        network: any network; shared weights are expanded.
        threads: see `load`.

    Raises:
        GraphError: where ONNX Runtime does not take the graph, or its input does not fit the
            preprocessing.
        UnsupportedError: see `load`.
    """
    return Classifier(_network_session(network, threads), network.metadata)


def _network_session(network: Network, threads: int | None) -> onnxruntime.InferenceSession:
    session = _session(attach(network.graph, network.values()), threads)
    _check_preprocessing(_input_size(session), network.metadata.preprocessing)
    return session


def _load_onnx(path: Path, threads: int | None) -> Classifier:
    try:
        # By its path, so that ONNX Runtime finds weights kept in a file beside it.
        session = _session(str(path), threads)
    except GraphError as error:
        raise InputError(f"{path} is not a usable ONNX model: {error}") from None
    size = _input_size(session)
    text = session.get_modelmeta().custom_metadata_map.get(ONNX_METADATA_KEY)
    if text is None:
        metadata = Metadata(path.stem, default_preprocessing(size.crop, size.channels))
        if _gives_probabilities(Classifier(session, metadata)):
            metadata = dataclasses.replace(metadata, output="probabilities")
    else:
        metadata = from_json(text)
        _check_preprocessing(size, metadata.preprocessing)
    return Classifier(session, metadata, _file_bytes(path))


def _file_bytes(path: Path) -> int:
    """Bytes on disk, with those of the weights that PyTorch's exporter may put beside the file."""
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _session(model: bytes | str, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SILENT
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base class of its errors
        raise GraphError(f"ONNX Runtime cannot run the graph ({_first_line(error)})") from None
    output = session.get_outputs()[0]
    if output.type not in _FLOAT_TYPES:
        raise UnsupportedError(f"the graph gives {output.type}: it must be tensor(float)")
    return session


@dataclass(frozen=True)
class _InputSize:
    """What a graph takes; None where it leaves that open."""

    channels: int
    height: int | None
    width: int | None

    @property
    def crop(self) -> int:
        return self.height or self.width or _DEFAULT_CROP

    def fits(self, preprocessing: Preprocessing) -> bool:
        sides = (self.height, self.width)
        return self.channels == preprocessing.channels and all(
            side in (None, preprocessing.crop) for side in sides
        )


def _input_size(session: onnxruntime.InferenceSession) -> _InputSize:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise UnsupportedError(f"the graph takes {len(inputs)} inputs: it must be one, the images")
    (image,) = inputs
    if image.type not in _FLOAT_TYPES:
        raise UnsupportedError(f"the graph takes {image.type} images: they must be tensor(float)")
    if len(image.shape) != 4 or (_whole(image.shape[1]) or 3) not in (1, 3):
        raise UnsupportedError(
            f"the graph takes images of shape {image.shape}: "
            "it must be (N, channels, height, width) with 1 or 3 channels"
        )
    channels, height, width = (_whole(size) for size in image.shape[1:])
    if height and width and height != width:
        raise UnsupportedError(f"the graph takes {height} x {width} images: they must be square")
    return _InputSize(channels or 3, height, width)


def _whole(size: object) -> int | None:
    return size if isinstance(size, int) and size > 0 else None


def _check_preprocessing(size: _InputSize, preprocessing: Preprocessing) -> None:
    crop, channels = preprocessing.crop, preprocessing.channels
    if not size.fits(preprocessing):
        raise GraphError(
            f"the graph takes {size.channels} x {size.height} x {size.width} images, but the "
            f"preprocessing gives {channels} x {crop} x {crop}"
        )


def _gives_probabilities(classifier: Classifier) -> bool:
    """Whether the outputs for one noisy image are positive and sum to 1, as after a softmax.

    The graph itself would tell, but reading it takes the onnx package, which is slow to load.
    """
    preprocessing = classifier.metadata.preprocessing
    shape = (1, preprocessing.channels, preprocessing.crop, preprocessing.crop)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    outputs = classifier.logits(noise)
    return bool((outputs >= 0).all() and abs(float(outputs.sum()) - 1) < 1e-3)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
