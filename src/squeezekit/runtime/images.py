"""From an image file to the array a network takes: the same pixels in training and in use."""

from __future__ import annotations

import dataclasses
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.sqz.network import TORCHVISION, Floats, Preprocessing

Pixels = npt.NDArray[np.uint8]
ImageSource = Path | str | bytes | BinaryIO

# An allowlist: some of Pillow's other readers start programs (EPS runs Ghostscript). The common
# ones come first, because Pillow loads every plugin it has before it tries another.
_COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM")
_OTHER_FORMATS = ("WEBP", "TIFF", "AVIF", "JPEG2000", "MPO", "DIB", "ICO", "TGA")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_quiet_lock = threading.Lock()
"""Python's warning filters are one for all threads."""

_MOST_RESIZED_PIXELS = 64_000_000
"""A sliver of an image (1 x 50,000) would grow to gigabytes when its short side is resized."""


def open_image(source: ImageSource) -> Image.Image:
    """Read an image as it is meant to be seen.

    The first frame, turned upright (EXIF), with 8 bits a channel: 16-bit greyscale is scaled by
    its range, CMYK is converted, and what is transparent is put on white.

    Args:
        source: a path, an open binary file, or the bytes of an image file.

    Returns:
        The decoded image, in mode "L" or "RGB".

    Raises:
        InputError: one sentence that names the file, where it is missing, empty, no image,
            damaged, cut short, larger than Pillow's decompression bomb limit (179 million pixels),
            or has floating-point or 32-bit pixels.
    """
    name = _name(source)
    try:
        with _stream(source) as stream:
            header = stream.read(16)
            if not header:
                raise InputError(f"{name} is empty")
            return _read(stream, name, header)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder, not an image") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror or error})") from None


def _name(source: ImageSource) -> str:
    if isinstance(source, Path | str):
        return str(source)
    return str(getattr(source, "name", "the image"))


def _stream(source: ImageSource) -> BinaryIO:
    if isinstance(source, Path | str):
        return Path(source).open("rb")
    return io.BytesIO(source if isinstance(source, bytes) else source.read())


def _read(stream: BinaryIO, name: str, header: bytes) -> Image.Image:
    try:
        return _eight_bit(_upright(_decoded(stream)), name)
    except InputError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise InputError(
            f"{name} has too many pixels to be safely decoded: scale it down"
        ) from None
    except Exception as error:  # broken files make Pillow raise nearly everything
        if header[4:8] == b"ftyp" and header[8:12] in _HEIC_BRANDS:
            reason = "is a HEIC image, which is not supported: convert it to JPEG"
        elif isinstance(error, UnidentifiedImageError):
            reason = "is not an image that can be read (such as JPEG, PNG or WebP)"
        else:
            reason = f"is a damaged or truncated image ({error})"
        raise InputError(f"{name} {reason}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of what Pillow reads all the same, such as a broken EXIF block."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decoded(stream: BinaryIO) -> Image.Image:
    with _quiet():
        try:
            image = Image.open(stream, formats=_COMMON_FORMATS)
        except UnidentifiedImageError:
            Image.init()
            others = [name for name in _OTHER_FORMATS if name in Image.OPEN]
            image = Image.open(stream, formats=others)
    image.load()
    if 0 in image.size:
        raise ValueError("it has no pixels")
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        with _quiet():
            orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # the pixels are fine where only the EXIF block is broken
        return image
    method = _UPRIGHT.get(cast(int, orientation))
    return image if method is None else image.transpose(method)


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _sixteen_to_eight_bit(image, name)
    if image.mode == "F":
        raise InputError(f"{name} has floating-point pixels: convert it to 8 bits a channel")
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _sixteen_to_eight_bit(image: Image.Image, name: str) -> Image.Image:
    # Depending on its version, Pillow opens 16-bit files in mode "I;16" or in 32-bit mode "I".
    values = np.asarray(image).astype(np.int32)  # (H, W)
    if values.min() < 0 or values.max() > 65_535:
        raise InputError(f"{name} has 32-bit pixels: convert it to 8 bits a channel")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # round(value / 257)


def resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Convert and resize an image, as the first half of its preprocessing.

    Args:
        image: as `open_image` gives it.
        preprocessing: its `color`, `resize`, `resize_mode` and `interpolation` count here. With
            "short_side", the long side is truncated to whole pixels, as torchvision does.

    Returns:
        An image in mode "L" (for "L") or "RGB" (for "RGB" and "BGR"); both sides at least
        `preprocessing.crop`.

    Raises:
        InputError: where the image is so long and thin that the result would not fit in memory.
    """
    image = image.convert("L" if preprocessing.color == "L" else "RGB")
    size = preprocessing.resize
    width, height = image.size
    if preprocessing.resize_mode == "warp":
        width, height = size, size
    elif width <= height:
        width, height = size, size * height // width
    else:
        width, height = size * width // height, size
    if width * height > _MOST_RESIZED_PIXELS:
        raise InputError(
            f"an image of {image.width} x {image.height} pixels is too long and thin to be resized"
        )
    return image.resize((width, height), _RESAMPLING[preprocessing.interpolation])


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle `size` x `size` pixels; where they cannot be central, nearer to top and left."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def normalized(pixels: Pixels, preprocessing: Preprocessing) -> Floats:
    """Normalize: x = (pixel * scale - mean) / std, in the network's order of channels and axes.

    Args:
        pixels: uint8 (..., H, W, 3) in RGB order, or (..., H, W) for one channel.
        preprocessing: its `color`, `scale`, `mean` and `std` count here.

    Returns:
        float32 (..., C, H, W).
    """
    if preprocessing.color == "L":
        pixels = pixels[..., np.newaxis]
    elif preprocessing.color == "BGR":
        pixels = pixels[..., ::-1]
    planes = np.moveaxis(pixels, -1, -3)  # (..., C, H, W)
    x = np.multiply(planes, np.float32(preprocessing.scale), dtype=np.float32, order="C")
    x -= np.array(preprocessing.mean, np.float32)[:, np.newaxis, np.newaxis]
    x /= np.array(preprocessing.std, np.float32)[:, np.newaxis, np.newaxis]
    return x


def to_array(image: Image.Image, preprocessing: Preprocessing) -> Floats:
    """A resized and cropped image as the network takes it.

    Args:
        image: in mode "L" or "RGB", as `resized` gives it.
        preprocessing: see `normalized`.

    Returns:
        float32 (C, H, W) of the image's height and width.
    """
    return normalized(np.asarray(image), preprocessing)


def prepare(image: Image.Image, preprocessing: Preprocessing) -> Floats:
    """The whole preprocessing of an image that `open_image` gave.

    Returns:
        float32 (C, crop, crop).

    Raises:
        InputError: see `resized`.
    """
    cropped = centre_crop(resized(image, preprocessing), preprocessing.crop)
    return to_array(cropped, preprocessing)


def prepare_file(source: ImageSource, preprocessing: Preprocessing) -> Floats:
    """Open an image and prepare it.

    Returns:
        float32 (C, crop, crop).

    Raises:
        InputError: as `open_image` and `resized`; the sentence names the file.
    """
    image = open_image(source)
    try:
        return prepare(image, preprocessing)
    except InputError as error:
        raise InputError(f"{_name(source)} cannot be used: {error}") from None


def default_preprocessing(crop: int, channels: int) -> Preprocessing:
    """The ImageNet preprocessing of torchvision at another input size or number of channels.

    For networks that come without any: the resize keeps torchvision's ratio of 256 to 224, and
    one channel takes the mean over the three of their mean and std.

    Raises:
        UnsupportedError: where `channels` is neither 1 nor 3.
    """
    resize = crop * TORCHVISION.resize // TORCHVISION.crop
    three = dataclasses.replace(TORCHVISION, crop=crop, resize=resize)
    if channels == 3:
        return three
    if channels != 1:
        raise UnsupportedError(
            f"the network takes {channels} channels: only images of 1 or 3 channels are supported"
        )
    mean, std = float(np.mean(three.mean)), float(np.mean(three.std))
    return dataclasses.replace(three, color="L", mean=(mean,), std=(std,))
