"""Runs a network beside the model that it was made of: the same numbers, or no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto

from squeezekit.errors import GraphError, UnsupportedError
from squeezekit.interop.onnx_import.source import Array
from squeezekit.sqz.network import Floats

TOLERANCE = 1e-4
"""Of the range of an image's logits."""

COARSE_TOLERANCE = 2e-2
"""The same for models in float16, which round every number to 11 bits on the way, and for those in
int8, where a last bit of a sum may move a code by one: 0.4% of the range."""

COUNTS = (1, 3)
"""Numbers of images to compare."""


@dataclass
class Original:
    """The model as it was handed in.

    Attributes:
        model: with nothing in it but what the output needs.
        image, output: names.
        batch: of images that it takes at a time, or None for any, until it turns out otherwise.
        layout: turns images (N, C, H, W) float32 into what it takes.
    """

    model: ModelProto
    image: str
    output: str
    batch: int | None
    layout: Callable[[Floats], Array]
    _plain: Any = None

    def scores(self, images: Floats) -> Array:
        """The output for images in batches of its own size, (N, scores).

        Raises:
            GraphError: if ONNX Runtime does not run it.
        """
        try:
            output = self.run(images)[self.output]
        except GraphError:
            if self.batch is not None or len(images) == 1:
                raise
            self.batch = 1  # it leaves the number open, and takes one all the same
            output = self.run(images)[self.output]
        if output is None:
            raise GraphError("it does not give an output for each image")
        return output

    def run(self, images: Floats, also: Iterable[str] = ()) -> dict[str, Array | None]:
        """The output, and other values: one row an image, or None if there is none for each.

        Raises:
            GraphError: if ONNX Runtime does not run it.
        """
        names = [self.output, *(name for name in also if name != self.output)]
        size = self.batch or len(images)
        parts: list[list[Array | None]] = []
        if len(names) > 1:
            session = _session(_showing(self.model, names), optimised=False)
        else:
            session = self._plain = self._plain or _session(self.model, optimised=False)
        for start in range(0, len(images), size):
            part = images[start : start + size]
            filled = part[np.arange(size) % len(part)]
            results = _run(session, names, self.image, self.layout(filled))
            parts.append([_rows(result, size, len(part)) for result in results])
        joined: dict[str, Array | None] = {}
        for name, *rows in zip(names, *parts, strict=True):
            whole = [array for array in rows if array is not None]
            joined[name] = np.concatenate(whole) if len(whole) == len(rows) else None
        return joined


def random_images(count: int, channels: int, size: int, *, wide: bool = True) -> Floats:
    """Noise as preprocessing gives it: around 0, from 0 to 1, and of Caffe's scale.

    Args:
        count: N.
        channels: C.
        size: height and width.
        wide: whether those of Caffe's scale are among them.

    Returns:
        float32 (N, C, size, size).
    """
    rng = np.random.default_rng(20)
    shape = (channels, size, size)
    kinds = (
        lambda: rng.standard_normal(shape),
        lambda: rng.random(shape),
        lambda: rng.normal(0.0, 60.0 if wide else 1.0, shape),
    )
    return np.stack([kinds[i % 3]() for i in range(count)]).astype(np.float32)


def require_same(
    original: Original,
    expected: Callable[[Floats], Array],
    network: bytes,
    got: Callable[[Array], Array],
    images: Floats,
    tolerance: float = TOLERANCE,
) -> None:
    """Run both on one image and on three, and refuse a network that answers otherwise.

    Args:
        original: the model.
        expected: from images to its scores, (N, classes).
        network: the whole ONNX model that was made of it.
        got: from the network's output to the same kind of scores.
        images: float32 (3, C, H, W).
        tolerance: largest difference, as a share of the range of an image's scores.

    Raises:
        UnsupportedError: naming the first node that gives other numbers, and how far off they are.
    """
    try:
        session = _session(network)
    except GraphError as error:
        raise UnsupportedError(f"cannot be run after it is rewritten ({error})") from None
    names = [port.name for port in session.get_outputs()]
    image = session.get_inputs()[0].name
    single: Array | None = None
    for count in COUNTS:
        wanted = expected(images[:count])
        try:
            (output,) = _run(session, names, image, images[:count])
        except GraphError as error:
            raise UnsupportedError(f"cannot be run on {count} images at a time ({error})") from None
        if output.shape[:1] != (count,):
            raise UnsupportedError(
                f"turns {count} images into an output of shape {output.shape}: not supported"
            )
        scores = got(output.reshape(count, -1))
        if scores.shape != wanted.shape:
            raise UnsupportedError(
                f"gives {wanted.shape[1]} scores an image, and {scores.shape[1]} once imported"
            )
        off = difference(wanted, scores)
        if single is not None:
            off = max(off, difference(single, scores[:1]))
        single = scores if single is None else single
        if not off <= tolerance:
            raise UnsupportedError(_first_other(original, network, images[:count], tolerance, off))


def difference(wanted: Array, got: Array) -> float:
    """The largest difference of two arrays (N, ...), each row as a share of its own range.

    A range counts as a tenth of the largest number at least: below that, float32 itself is coarse.
    """
    rows = np.asarray(wanted, np.float64).reshape(len(wanted), -1)
    others = np.asarray(got, np.float64).reshape(len(got), -1)
    ranges = rows.max(axis=1) - rows.min(axis=1)
    if rows.shape[1] == 1:  # one number an image: how the images differ
        ranges = np.full(len(rows), rows.max() - rows.min())
    scale = np.maximum(ranges, 1e-1 * np.abs(rows).max(axis=1)) + 1e-30
    return float((np.abs(rows - others).max(axis=1) / scale).max())


def _first_other(
    original: Original, network: bytes, images: Floats, tolerance: float, off: float
) -> str:
    """The sentence about a network that answers otherwise."""
    how = (
        f"the imported network gives other scores than the model for {len(images)} images at a "
        f"time (by {off:.1%} of their range)"
        if np.isfinite(off)
        else "its scores for random images are not numbers"
    )
    node = _first_node(original, network, images, tolerance)
    return how if node is None else f"node {node.name!r} ({node.op_type}) is the first where {how}"


def _first_node(
    original: Original, network: bytes, images: Floats, tolerance: float
) -> NodeProto | None:
    made = ModelProto()
    made.ParseFromString(network)
    theirs = {name for node in original.model.graph.node for name in node.output if name}
    common = [n.output[0] for n in made.graph.node if n.output[0] in theirs]
    try:
        wanted = original.run(images, common)
        session = _session(_showing(made, common), optimised=False)
        results = _run(session, common, session.get_inputs()[0].name, images)
    except GraphError:
        return None
    makers: dict[str, NodeProto] = {node.output[0]: node for node in made.graph.node}
    for name, got in zip(common, results, strict=True):
        expected = wanted[name]
        if got.dtype.kind != "f" or not got.size or expected is None:
            continue
        if got.size != expected.size or got.shape[:1] != (len(images),):
            return makers[name]
        if not difference(expected, got) <= tolerance:
            return makers[name]
    return None


def _rows(result: Array, size: int, count: int) -> Array | None:
    """A result as one row an image, the first `count`; for one image that axis may be left out."""
    if size != 1 and result.shape[:1] != (size,):
        return None
    return result.reshape(size, -1)[:count]


def _showing(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """The model with other values as its outputs."""
    shown = ModelProto()
    shown.CopyFrom(model)
    known = {value.name: value for value in model.graph.output}
    del shown.graph.output[:]
    shown.graph.output.extend(known.get(name, ValueInfoProto(name=name)) for name in names)
    return shown


def _session(model: ModelProto | bytes, optimised: bool = True) -> Any:  # noqa: ANN401
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:  # the model is a stranger's: nothing is computed but what it is asked for
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        whole = model if isinstance(model, bytes) else model.SerializeToString()
        return onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base class of its errors
        raise _reason(error) from None


def _run(session: Any, names: list[str], image: str, images: Array) -> list[Array]:  # noqa: ANN401
    try:
        return [np.asarray(result) for result in session.run(names, {image: images})]
    except Exception as error:  # ONNX Runtime has no common base class of its errors
        raise _reason(error) from None


def _reason(error: Exception) -> GraphError:
    line = " ".join(str(error).split())[:300] or type(error).__name__
    return GraphError(f"ONNX Runtime: {line}")
