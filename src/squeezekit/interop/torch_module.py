"""`from_torch`: exports a torch module by torch's own exporter, and compares the two."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from squeezekit.errors import InputError, SqueezekitError, UnsupportedError
from squeezekit.interop import onnx_file
from squeezekit.progress import Note, silent_note
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.preprocessing import Given, as_stated, settled
from squeezekit.runtime.stated import described
from squeezekit.sqz.network import Floats, Network

_TOLERANCE = 1e-4
"""How much the answers of the two may differ, as a share of the range of the module's answers."""

_COMPARED = 4
"""On how many random images the two are compared."""


def from_torch(
    module: nn.Module,
    example: Tensor | npt.NDArray[Any],
    *,
    labels: Sequence[str] = (),
    preprocessing: Given = None,
    name: str = "",
    licence: str = "",
    note: Note = silent_note,
) -> Network:
    """Make a network of a torch module that classifies images.

        net = sk.from_torch(module, torch.zeros(1, 3, 64, 64), labels=["cat", "dog"],
                            preprocessing={"mean": (0.5,), "std": (0.5,)})

    The module is exported in eval mode by `torch.onnx.export`, and read as an `.onnx` file is
    (`onnx_file.read`). Then module and network run on the same random images. If they do not give
    the same answers, the module is refused. Its mode, buffers and device stay as they were.

    Args:
        module: takes images (N, C, H, W) and gives one number for each class, (N, classes).
        example: a batch of images (N, C, H, W) as the module takes them; only its shape matters.
        labels: names of the classes, in the order of the outputs.
        preprocessing: how a photo becomes such an image: a `Preprocessing`, or a mapping with those
            of its fields that you know. None assumes torchvision's at this size, and says so in a
            note.
        name: the network's name; if empty, the name of the module's class.
        licence: the licence of the weights.
        note: called with what is assumed.

    Raises:
        InputError: if the example is not a batch of square images, or the labels do not fit.
        UnsupportedError: if torch cannot export the module, squeezekit cannot read what torch
            exports, or the two give different answers.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"a {type(module).__name__} is not a torch module")
    name = name or type(module).__name__
    images = torch.as_tensor(example)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        shape = " x ".join(map(str, images.shape))
        raise InputError(
            f"the example must be a batch of square images (N, 1 or 3 channels, height, width), "
            f"not {shape}"
        )
    images = torch.randn(_COMPARED, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    with _in_eval_mode(module) as device, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        _exported(module, images.to(device), path, name)
        with torch.inference_mode():
            expected = _scores(module(images.to(device)), name)
        try:
            network = onnx_file.read(path, labels=labels if len(labels) <= 2 else ())
        except SqueezekitError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from None
    metadata = dataclasses.replace(network.metadata, name=name, licence=licence)
    metadata = settled(metadata, name, as_stated(preprocessing), foreign=False)
    if preprocessing is None:
        assumed = described(metadata.preprocessing)
        note(f"{name}: its preprocessing is assumed: {assumed}; state it if that is wrong")
    metadata = metadata.with_step(f"{name}, a module of torch")
    network = dataclasses.replace(network, metadata=metadata)
    _compare(network, images.numpy(), expected, name)
    return _labelled(network, tuple(labels), expected.shape[1])


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[torch.device]:
    """Put the module into eval mode inside the `with`; afterwards all of it is as before."""
    modes = {part: part.training for part in module.modules()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    first = next(iter([*module.parameters(), *module.buffers()]), None)
    module.eval()
    try:
        yield torch.device("cpu") if first is None else first.device
    finally:
        for part, mode in modes.items():
            part.training = mode
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])


def _exported(module: nn.Module, images: Tensor, path: Path, name: str) -> None:
    """Write the module as an ONNX file, for any number of images if torch can export that."""
    try:
        import onnxscript  # noqa: F401 - which torch's exporter works with
    except ImportError:
        raise InputError(
            "torch needs onnxscript to export modules: pip install 'squeezekit[train]'"
        ) from None
    any_number: Any = ({0: torch.export.Dim.DYNAMIC},)
    reason = ""
    for shapes, batch in ((any_number, images), (None, images[:1])):
        try:
            with _quiet():
                torch.onnx.export(
                    module, (batch,), path, dynamo=True, dynamic_shapes=shapes, verbose=False,
                    external_data=False,
                )  # fmt: skip
        except Exception as error:  # torch raises whatever the module raises, and its own
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in lines if "cause" not in line.lower()), "no reason")
        else:
            return
    raise UnsupportedError(f"{name} cannot be exported by torch ({reason})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's advice, which is about torch's internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _scores(given: object, name: str) -> Floats:
    """The module's answer, float32 (N, classes): the first tensor of several."""
    if isinstance(given, Mapping):
        given = given["logits"] if "logits" in given else next(iter(given.values()), None)
    if isinstance(given, (tuple, list)) and given:
        given = given[0]
    if not isinstance(given, Tensor) or given.shape[:1] != (_COMPARED,):
        raise UnsupportedError(f"{name} gives no tensor (N, classes)")
    return np.asarray(given.flatten(1).float().cpu().numpy(), np.float32)


def _compare(network: Network, images: Floats, expected: Floats, name: str) -> None:
    """Refuse a network whose answers differ from the module's."""
    classifier = from_network(network)
    ours = classifier.logits(images)  # (N, classes)
    if network.metadata.output == "probabilities":
        ours = classifier.probabilities(images)
    if expected.shape[1] == 1 and ours.shape[1] == 2:  # one output is two classes by a sigmoid
        ours = classifier.probabilities(images)[:, 1:]
        chances = np.asarray(1 / (1 + np.exp(-expected)), np.float32)
        # The module may end in that sigmoid itself.
        expected = min(expected, chances, key=lambda each: float(np.abs(ours - each).max()))
    if ours.shape != expected.shape or not np.isfinite(expected).all():
        raise UnsupportedError(f"{name} gives {expected.shape[1:]} numbers an image, not scores")
    span = float(expected.max() - expected.min()) or 1.0
    difference = float(np.abs(ours - expected).max()) / span
    if difference > _TOLERANCE:
        raise UnsupportedError(
            f"{name} gives other answers once it is exported (by {difference:.1%} of their range): "
            "something in it depends on more than the images"
        )


def _labelled(network: Network, labels: tuple[str, ...], outputs: int) -> Network:
    if not labels or network.metadata.labels:
        return network
    if len(labels) != outputs:
        raise InputError(f"there are {len(labels)} labels, but the module has {outputs} outputs")
    return dataclasses.replace(
        network, metadata=dataclasses.replace(network.metadata, labels=labels)
    )
