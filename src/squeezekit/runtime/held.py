"""Images in memory that can be used in place of image files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from squeezekit.errors import InputError
from squeezekit.sqz.network import Floats, Preprocessing


@dataclass(frozen=True, eq=False)
class PilImage:
    """An image of Pillow's that can stand among files (it is a `runtime.images.ImageFile`).

    Attributes:
        name: what people call it.
        image: upright, in mode "L" or "RGB", as `runtime.images.open_image` gives it.
    """

    name: str
    image: Image.Image

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        """Its pixels as a PNG file."""
        return _png(self.image)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image that is prepared for a network already, and can stand among files.

    Attributes:
        name: what people call it.
        values: float32 (C, H, W), as the network takes it.
        preprocessing: the preprocessing that it went through; tells what pixels the values stand
            for.
    """

    name: str
    values: Floats
    preprocessing: Preprocessing

    @property
    def image(self) -> Image.Image:
        """The pixels that the values stand for, rounded to 8 bits: for training, and to look at."""
        return Image.fromarray(pixels_of(self.values, self.preprocessing))

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        """Its pixels as a PNG file."""
        return _png(self.image)

    def fitting(self, preprocessing: Preprocessing) -> Floats:
        """The values, for a network that takes such.

        Raises:
            InputError: if that network wants its images prepared in another way.
        """
        if preprocessing != self.preprocessing:
            raise InputError(f"{self.name} was prepared for a network with another preprocessing")
        return self.values

    def __str__(self) -> str:
        return self.name


@runtime_checkable
class Array(Protocol):
    """An array or a tensor of any library."""

    def __array__(self) -> npt.NDArray[Any]: ...


def axes_of(each: object) -> int | None:
    """The number of axes of an array or a tensor of any library; None if it is neither."""
    if isinstance(each, (Image.Image, str)) or not hasattr(each, "__array__"):
        return None
    axes = getattr(each, "ndim", None)
    return axes if isinstance(axes, int) else None


def as_array(each: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - of any library
    """An array or a tensor as a numpy array, on any device, with or without a gradient."""
    if hasattr(each, "detach"):
        each = each.detach().cpu()
    return np.asarray(each)


def fitting(array: object, preprocessing: Preprocessing) -> Floats:
    """An array or a tensor that is prepared for a network already, as the network takes it.

    Args:
        array: floats (C, H, W).
        preprocessing: how that network's images are prepared.

    Returns:
        float32 (C, H, W).

    Raises:
        InputError: if it has another shape, or its values cannot have been prepared like that.
    """
    p, values = preprocessing, as_array(array)
    expected = (p.channels, p.crop, p.crop)
    if values.shape != expected:
        shape = " x ".join(map(str, values.shape))
        raise InputError(
            f"the network takes images of {' x '.join(map(str, expected))} (channels, height, "
            f"width), but an array holds {shape}"
        )
    if values.dtype.kind != "f":
        raise InputError(
            f"an array of {values.dtype} is not prepared for the network: give floats, or PIL "
            "images, which squeezekit prepares"
        )
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        raise InputError("an array of images holds values that are not finite numbers")
    ends = np.sort([[0 - m, 255 * p.scale - m] for m in p.mean] / np.array(p.std)[:, None], axis=1)
    least, most = float(ends.min()), float(ends.max())
    span = most - least
    # Augmentation may leave the range a little; values far outside were prepared in another way.
    if values.min() < least - span or values.max() > most + span:
        raise InputError(
            f"an array of images has values from {values.min():.3g} to {values.max():.3g}, but "
            f"prepared for this network they lie between {least:.3g} and {most:.3g}: see its "
            "metadata.preprocessing, or give PIL images, which squeezekit prepares"
        )
    return values


def pixels_of(
    values: Floats, preprocessing: Preprocessing
) -> np.ndarray[tuple[Any, ...], np.dtype[np.uint8]]:
    """Undo `runtime.images.normalized`: the nearest 8-bit pixels.

    Args:
        values: float32 (C, H, W).
        preprocessing: its `color`, `scale`, `mean` and `std` count here.

    Returns:
        uint8 (H, W, 3) in RGB order, or (H, W) for one channel.
    """
    mean = np.array(preprocessing.mean)[:, np.newaxis, np.newaxis]
    std = np.array(preprocessing.std)[:, np.newaxis, np.newaxis]
    pixels = (values * std + mean) / preprocessing.scale
    pixels = np.moveaxis(np.rint(pixels).clip(0, 255).astype(np.uint8), 0, -1)  # (H, W, C)
    if preprocessing.color == "L":
        pixels = pixels[..., 0]
    elif preprocessing.color == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels, np.uint8)


def _png(image: Image.Image) -> IO[bytes]:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    stream.seek(0)
    return stream
