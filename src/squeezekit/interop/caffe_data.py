"""What the data layers of a Caffe network do to its images: size, channels, mean and scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from google.protobuf.message import DecodeError

from squeezekit.errors import InputError
from squeezekit.files import read_bytes
from squeezekit.interop.caffe_schema import BlobProto, Message, layer_type
from squeezekit.runtime.images import NOTHING_TO_SPARE
from squeezekit.sqz.network import CAFFE, Preprocessing

DATA_LAYERS = ("Input", "Data", "ImageData", "MemoryData", "DummyData", "HDF5Data", "WindowData")

_SETTINGS = ("transform_param", "data_param", "image_data_param")
"""Where a data layer may say what it does; the last two before there was the first."""

_OTHER_SETTINGS = frozenset({"new_height", "new_width", "is_color"})


@dataclass(frozen=True)
class _Transform:
    """What a data layer says that it does to its images.

    Attributes:
        scale: factor on a pixel, after the mean is taken off.
        mean: one a channel, or one for all; empty if none is stated.
        mean_file: name of a mean image, or empty.
        crop_size: pixels a side, or 0.
        resize: pixels a side that images are warped to before, or 0.
    """

    scale: float
    mean: tuple[float, ...]
    mean_file: str
    crop_size: int
    resize: int


def crop_size(layer: Message) -> int:
    """Pixels a side that a data layer cuts out of its images; 0 where it does not say."""
    found = _transform([layer])
    return 0 if found is None else found.crop_size


def channels(
    image: str, size: int, layers: Sequence[Message], stored: Mapping[str, Message]
) -> int:
    """How many channels an image has, which no data layer says: by the weights that take it.

    Args:
        image: the blob.
        size: height and width in pixels.
        layers: the layers that run, in order.
        stored: layers with their weights, by name.
    """
    for layer in layers:
        blobs = stored[layer.name].blobs if layer.name in stored else ()
        if image not in layer.bottom or not blobs:
            continue
        dims = list(blobs[0].shape.dim) or [blobs[0].num, blobs[0].channels, 0, 0]
        if layer_type(layer) == "Convolution" and len(dims) == 4:
            return int(dims[1] * max(layer.convolution_param.group, 1))
        if layer_type(layer) == "InnerProduct":
            outputs = max(layer.inner_product_param.num_output, 1)
            return int(len(blobs[0].data) // (outputs * size * size))
    return 3


def prepared(
    path: Path, shape: tuple[int, int, int], layers: Iterable[Message]
) -> tuple[Preprocessing, bool]:
    """How images become inputs.

    Args:
        path: the path of the `.caffemodel`; a mean image is looked for beside it.
        shape: (C, H, W) of the input, H = W.
        layers: the first data layer among them that says something is believed.

    Returns:
        The preprocessing, and whether it is the one of the authors of AlexNet and SqueezeNet for
        want of any statement.

    Raises:
        InputError: if what is stated cannot be.
    """
    found = _transform(layers)
    count, size = shape[0], shape[2]
    # Data bases hold images as they were resized: digits as they are, photos to be cropped.
    resize = size if size < NOTHING_TO_SPARE else round(size * CAFFE.resize / CAFFE.crop)
    color: Literal["BGR", "L"] = "BGR" if count == 3 else "L"
    usual = CAFFE.mean if count == 3 else (0.0,)
    assumed, scale, mean = True, 1.0, usual
    if found is not None:
        scale, resize = found.scale, found.resize or resize
        taken = found.mean or _mean_image(path, found.mean_file, count)
        assumed = bool(found.mean_file) and not taken
        # Nothing is taken off where a data layer says what it does, and says no mean.
        mean = taken or (usual if assumed else (0.0,))
    if not all(map(math.isfinite, (scale, *mean))) or scale == 0.0:
        raise InputError(f"{path}: scales its images by an impossible number")
    if len(mean) not in (1, count):
        raise InputError(f"{path}: takes {len(mean)} means off images of {count} channels")
    if resize < size:
        raise InputError(f"{path}: resizes images to {resize} pixels and crops {size} out of them")
    # Caffe subtracts the mean before it scales.
    preprocessing = dataclasses.replace(
        CAFFE,
        crop=size,
        resize=resize,
        color=color,
        scale=scale,
        mean=tuple(scale * m for m in mean) * (count // len(mean)),
        std=(1.0,) * count,
    )
    return preprocessing, assumed


def _transform(layers: Iterable[Message]) -> _Transform | None:
    """What the first layer says that says anything."""
    for layer in layers:
        if layer_type(layer) not in DATA_LAYERS:
            continue
        for name in _SETTINGS:
            if not layer.HasField(name):
                continue
            settings = getattr(layer, name)
            said = {field.name for field, _ in settings.ListFields()} - _OTHER_SETTINGS
            if not said and name != "transform_param":
                continue
            resized = layer.image_data_param
            side = resized.new_height if resized.new_height == resized.new_width else 0
            mean = tuple(getattr(settings, "mean_value", ()))
            return _Transform(settings.scale, mean, settings.mean_file, settings.crop_size, side)
    return None


def _mean_image(path: Path, name: str, count: int) -> tuple[float, ...]:
    """The mean of each channel of a mean image (.binaryproto) beside the network, if there is."""
    beside = path.parent / PurePosixPath(name).name
    if not name or not beside.is_file():
        return ()
    blob = BlobProto()
    try:
        blob.ParseFromString(read_bytes(beside))
    except DecodeError:
        raise InputError(f"{beside}: is not a mean image, or damaged") from None
    values = np.array(blob.data, np.float64)
    if not len(values) or len(values) % count or not np.isfinite(values).all():
        raise InputError(f"{beside}: is not a mean image of {count} channels")
    return tuple(values.reshape(count, -1).mean(axis=1).tolist())
