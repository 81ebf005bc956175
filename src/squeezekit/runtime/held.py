"""Images in memory that can be used in place of image files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np
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
