"""Measures the ranges of a network's activations on images, which int8 needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.images import ImageFile, prepare_file
from squeezekit.runtime.int8 import needed_ranges, require_layers
from squeezekit.sqz.graph import attach, parse
from squeezekit.sqz.network import (
    LARGEST_RANGE,
    LEAST_RANGE,
    Floats,
    Network,
    Preprocessing,
    Range,
)

IMAGES = 100
"""How many images to use; more change nothing that could be measured."""

_SAMPLE = 200_000
"""How many values of a tensor are kept to choose its range."""

_CANDIDATES = np.geomspace(0.05, 1.0, 120)
"""The shares of a tensor's whole range that are tried."""

_ZERO = 32 * LEAST_RANGE
"""Values of a smaller range are all 0: not every share of it could be stored."""

_DIGITS = 4
"""How many digits of a bound are stored; more would only cost bytes."""


def calibration_images(
    paths: Sequence[ImageFile], preprocessing: Preprocessing, count: int = IMAGES
) -> Floats:
    """Up to that many images, evenly spread over those given, as a network takes them.

    Returns:
        float32 (N, C, H, W); images that are broken are left out, labels play no part.

    Raises:
        InputError: if none can be read.
    """
    paths = paths[:: max(len(paths) // count, 1)][:count]

    def prepared(path: ImageFile) -> Floats | None:
        try:
            return prepare_file(path, preprocessing)
        except InputError:
            return None

    with ThreadPoolExecutor() as pool:
        images = [image for image in pool.map(prepared, paths) if image is not None]
    if not images:
        raise InputError(f"none of {len(paths)} images can be read")
    return np.stack(images)


def calibrated(network: Network, images: Floats, progress: Progress = silent) -> Network:
    """The network with the ranges of its activations in `metadata.activations`.

    A range has the least mean squared error over the images, from rounding inside it and clipping
    outside it. So a few outliers do not make everything else coarse.

    Args:
        network: any, with batch norms folded (`models.fold`).
        images: float32 (N, C, H, W), prepared; a hundred are plenty, and labels play no part.
        progress: called for each image, as task "calibrate".

    Raises:
        InputError: if there are no images, the network has no layer to run in int8, or its
            activations are not finite.
        GraphError: if ONNX Runtime does not take the graph.
    """
    if not len(images):
        raise InputError("calibration needs at least one image")
    require_layers(network)
    needed = needed_ranges(network)
    ranges = {}
    samples = _sampled(network, sorted(set().union(*needed.values())), images, progress)
    for name, sources in needed.items():
        values = np.concatenate([samples[source] for source in sources])
        if not np.isfinite(values).all():
            raise InputError("the network gives values that are not finite on these images")
        if np.ptp(values.astype(np.float64)) > LARGEST_RANGE:
            raise InputError(f"the network gives values in {name} that are too large for int8")
        ranges[name] = best_range(values)
    metadata = dataclasses.replace(network.metadata, activations=ranges)
    return dataclasses.replace(network, metadata=metadata)


def best_range(values: Floats) -> Range:
    """The range for 256 codes with the least mean squared error; it holds 0.

    Rounding errors are taken as uniform, except of exact zeros, which have none.
    """
    whole = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if whole[1] - whole[0] < _ZERO:
        return 0.0, 1.0
    values = values[values != 0].astype(np.float64)

    def error(share: float) -> float:
        low, high = whole[0] * share, whole[1] * share
        outside = values - values.clip(low, high)
        return float(np.mean(outside**2) + ((high - low) / 255) ** 2 / 12)

    share = min(_CANDIDATES, key=error)
    return _short(whole[0] * share), _short(whole[1] * share)


def _short(bound: float) -> float:
    return float(f"{bound:.{_DIGITS}g}")


def _sampled(
    network: Network, names: list[str], images: Floats, progress: Progress
) -> dict[str, Floats]:
    """Some values of each tensor, of every image as many; the extremes are always among them."""
    session = _session(network, names)
    image_name = session.get_inputs()[0].name
    rng = np.random.default_rng(0)
    count = max(_SAMPLE // len(images), 2)
    kept: dict[str, list[Floats]] = {name: [] for name in names}
    progress("calibrate", 0, len(images))
    for done, image in enumerate(images):
        made = [name for name in names if name != image_name]
        outputs = dict(zip(made, session.run(made, {image_name: image[None]}), strict=True))
        for name in names:
            values = outputs.get(name, image).ravel()
            some = values if values.size <= count else rng.choice(values, count)
            kept[name].append(np.concatenate([some, [values.min(), values.max()]]))
        progress("calibrate", done + 1, len(images))
    return {name: np.concatenate(parts).astype(np.float32) for name, parts in kept.items()}


def _session(network: Network, names: list[str]) -> onnxruntime.InferenceSession:
    """A session that gives the named tensors as well."""
    model = parse(network.graph)
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    for name in names:
        if name not in inputs | outputs:
            model.graph.output.add(name=name)
    return onnxruntime.InferenceSession(
        attach(model.SerializeToString(), network.values()), providers=["CPUExecutionProvider"]
    )
