"""`Classifier`: a network on a backend, with preprocessing and labels, that gives predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
from PIL import Image

from squeezekit.errors import GraphError, InputError, UnsupportedError
from squeezekit.runtime import backends
from squeezekit.runtime.backends import Backend, BackendName
from squeezekit.runtime.held import Array, axes_of, fitting
from squeezekit.runtime.images import ImageSource, prepare_file
from squeezekit.sqz.graph import attach
from squeezekit.sqz.network import Floats, Metadata, Network, Preprocessing

Precision = Literal["float", "int8"]
Source = TypeVar("Source", bound=Image.Image | ImageSource | Array)

Indices = np.ndarray[tuple[Any, ...], np.dtype[np.int64]]

_FLOAT_TYPES = ("float32", "float16")


@dataclass(frozen=True)
class Prediction:
    """One class that an image may show.

    Attributes:
        label: the class's name; its id or "class INDEX" if the network has no names.
        label_id: the class's id (a WordNet id for ImageNet), or empty.
        index: its position among the network's outputs.
        probability: 0 to 1.
    """

    label: str
    label_id: str
    index: int
    probability: float


class Classifier:
    """A network that is ready to classify; made by `loading.load` or `from_network`.

    Attributes:
        metadata: labels, preprocessing and provenance.
        precision: what the network computes in, "float" or "int8".
        file_bytes: size on disk of the file it was loaded from, or None.
        pixels: how many pixels an image may have; None is as many as Pillow decodes.
    """

    def __init__(
        self,
        backend: Backend,
        metadata: Metadata,
        precision: Precision = "float",
        file_bytes: int | None = None,
    ) -> None:
        self.metadata = metadata
        self.precision = precision
        self.file_bytes = file_bytes
        self.pixels: int | None = None
        self._backend = backend
        (image,) = backend.inputs
        self._input_type = np.dtype(image.type)
        self._fixed_batch = image.shape[0]

    @property
    def backend(self) -> BackendName:
        """What runs the network."""
        return self._backend.name

    @property
    def outputs(self) -> int | None:
        """How many classes the network has; None if its file does not say it."""
        sizes = self._backend.outputs[0].shape[1:]
        return math.prod(sizes) if sizes and all(sizes) else None  # type: ignore[arg-type]

    def __repr__(self) -> str:
        p, name = self.metadata.preprocessing, self.metadata.name
        return (
            f"Classifier({name!r}: {self.outputs or '?'} classes, images {p.channels} x {p.crop} x "
            f"{p.crop}, {self.precision} on {self.backend})"
        )

    def logits(self, batch: Floats) -> Floats:
        """Run the network.

        Args:
            batch: float32 (N, C, H, W), prepared as `metadata.preprocessing` says.

        Returns:
            float32 (N, classes). If the network gives probabilities, these are their logarithms, so
            that a softmax gives the probabilities back.

        Raises:
            GraphError: if the backend fails, the outputs are not one number for each class, or one
                of them is NaN.
        """
        outputs = self._run(batch)
        if self.metadata.output == "logits":
            return outputs
        with np.errstate(divide="ignore"):  # log 0 is -inf, and its softmax 0 again
            return np.log(outputs)

    def probabilities(self, batch: Floats) -> Floats:
        """The probability of every class, float32 (N, classes); see `logits`."""
        return self._as_probabilities(self._run(batch))

    def __call__(self, image: Image.Image | ImageSource | Array, top: int = 5) -> list[Prediction]:
        """Classify one image.

        Args:
            image: a path, an open binary file, the bytes of an image file, a PIL image, or an array
                or a tensor (C, H, W) of floats, already prepared for the network.
            top: how many classes to return, most probable first; all if there are fewer.

        Raises:
            InputError: if the image cannot be read (see `open_image`), or `top` is not positive.
            GraphError: see `logits`.
        """
        _check_top(top)
        return self._predictions([self._prepared(image)], top)[0]

    def predict_many(
        self, images: Iterable[Image.Image | ImageSource | Array], top: int = 5, batch: int = 16
    ) -> list[list[Prediction]]:
        """Classify images, `batch` at a time, while the next are decoded; see `__call__`."""
        from squeezekit.runtime.ahead import ahead

        _check_top(top)
        predictions: list[list[Prediction]] = []
        arrays: list[Floats] = []
        for _, array in ahead(self._prepared, images):
            arrays.append(array)
            if len(arrays) == batch:
                predictions += self._predictions(arrays, top)
                arrays = []
        return predictions + self._predictions(arrays, top)

    def predict_each(
        self, images: Iterable[Source], top: int = 5
    ) -> Iterator[tuple[Source, list[Prediction] | InputError]]:
        """Classify images as they come, one by one, while the next are decoded.

        Args:
            images: may be endless, and may be slow: an answer never waits for the next image.
            top: how many classes to return for each.

        Yields:
            Each image, in order, with its predictions, or with the reason why it has none.

        Raises:
            InputError: if `top` is not positive.
            GraphError: see `logits`.
        """
        _check_top(top)

        def decoded(image: Source) -> Floats | InputError:
            try:
                return self._prepared(image)
            except InputError as error:
                return error

        if isinstance(images, list) and len(images) == 1:  # nothing to do meanwhile
            decodings: Iterable[tuple[Source, Floats | InputError]] = [
                (images[0], decoded(images[0]))
            ]
        else:
            from squeezekit.runtime.ahead import ahead

            decodings = ahead(decoded, images)
        for image, array in decodings:
            if isinstance(array, InputError):
                yield image, array
            else:
                yield image, self._predictions([array], top)[0]

    def _prepared(self, image: Image.Image | ImageSource | Array) -> Floats:
        if isinstance(image, Array) and axes_of(image) is not None:
            return fitting(image, self.metadata.preprocessing)
        return prepare_file(
            cast("Image.Image | ImageSource", image), self.metadata.preprocessing, self.pixels
        )

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
        outputs = self._backend.run(padded.astype(self._input_type, copy=False))
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
            raise GraphError("the network answers with NaN: its weights are unusable")
        names = len(self.metadata.labels) or len(self.metadata.label_ids)
        if names and names != outputs.shape[1]:
            raise GraphError(
                f"the network has {outputs.shape[1]} outputs, but its file names {names} classes"
            )


def _check_top(top: int) -> None:
    if top < 1:
        raise InputError(f"top must be at least 1, not {top}")


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis, float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def ranked(scores: Floats, top: int) -> Indices:
    """The `top` classes of each row, best first; of equal scores, the first class first.

    Args:
        scores: (N, classes).
        top: how many; all if there are fewer classes.

    Returns:
        int64 (N, min(top, classes)).
    """
    return np.argsort(-scores, axis=1, kind="stable")[:, :top]


def prepare_imports(backend: str | None) -> None:
    """Import what the network will need, while its file is still being read."""
    if backend != "openvino":
        backends.load_onnxruntime()
    Image.preinit()  # the decoders of usual images


def from_network(
    network: Network,
    threads: int | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> Classifier:
    """A classifier that runs a network held in memory.

    Args:
        network: any network; shared weights are expanded.
        threads: see `loading.load`.
        backend: see `loading.load`.
        precision: see `loading.load`.

    Raises:
        InputError: see `loading.load`.
        GraphError: if the backend refuses the graph, or its input does not fit the preprocessing.
        UnsupportedError: see `loading.load`.
    """
    if precision is None:
        chosen: Precision = "int8" if network.metadata.activations else "float"
    elif precision in get_args(Precision):
        chosen = cast(Precision, precision)
    else:
        raise InputError(f"there is no precision {precision!r}: use float or int8")
    if chosen == "int8":
        from squeezekit.runtime.int8 import int8_model

        model = int8_model(network)
    else:
        model = attach(network.graph, network.values())
    running = _started(model, threads, backend or _quickest(chosen))
    _check_preprocessing(_input_size(running), network.metadata.preprocessing)
    return Classifier(running, network.metadata, chosen)


def _quickest(precision: Precision) -> BackendName:
    """The faster backend. OpenVINO is faster for int8 only, and starts more slowly."""
    return "openvino" if precision == "int8" and backends.installed("openvino") else "onnxruntime"


def _started(model: bytes, threads: int | None, backend: str) -> Backend:
    running = backends.start(backend, model, threads)
    output = running.outputs[0]
    if output.type not in _FLOAT_TYPES:
        raise UnsupportedError(f"the graph gives {output.type}: it must be float32")
    return running


@dataclass(frozen=True)
class _InputSize:
    """The size of the images that a graph takes; None if the graph leaves it open."""

    channels: int
    height: int | None
    width: int | None

    def fits(self, preprocessing: Preprocessing) -> bool:
        sides = (self.height, self.width)
        return self.channels == preprocessing.channels and all(
            side in (None, preprocessing.crop) for side in sides
        )


def _input_size(backend: Backend) -> _InputSize:
    if len(backend.inputs) != 1:
        raise UnsupportedError(
            f"the graph takes {len(backend.inputs)} inputs: it must be one, the images"
        )
    (image,) = backend.inputs
    if image.type not in _FLOAT_TYPES:
        raise UnsupportedError(f"the graph takes {image.type} images: they must be float32")
    if len(image.shape) != 4 or (image.shape[1] or 3) not in (1, 3):
        raise UnsupportedError(
            f"the graph takes images of shape {image.shape}: "
            "it must be (N, channels, height, width) with 1 or 3 channels"
        )
    channels, height, width = image.shape[1:]
    if height and width and height != width:
        raise UnsupportedError(f"the graph takes {height} x {width} images: they must be square")
    return _InputSize(channels or 3, height, width)


def _check_preprocessing(size: _InputSize, preprocessing: Preprocessing) -> None:
    crop, channels = preprocessing.crop, preprocessing.channels
    if not size.fits(preprocessing):
        raise GraphError(
            f"the graph takes {size.channels} x {size.height} x {size.width} images, but the "
            f"preprocessing gives {channels} x {crop} x {crop}"
        )
