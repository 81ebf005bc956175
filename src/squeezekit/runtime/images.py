"""Turns an image file into the array that a network takes, the same in training and in use."""

from __future__ import annotations

import dataclasses
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, Protocol, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from squeezekit.errors import InputError, TooManyPixelsError, UnsupportedError
from squeezekit.runtime.held import PilImage, PreparedImage
from squeezekit.sqz.limits import DEFAULT
from squeezekit.sqz.network import TORCHVISION, Floats, Preprocessing

Pixels = np.ndarray[tuple[Any, ...], np.dtype[np.uint8]]


class ImageFile(Protocol):
    """A stored image: a path, or what can be opened like one. `str` tells people where it is."""

    @property
    def name(self) -> str:
        """Without folders."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Open the image's bytes for reading."""


ImageSource = ImageFile | str | bytes | BinaryIO
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels that may be fractions."""

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

_ORIENTATION_IN = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_quiet_lock = threading.Lock()
"""A lock, because all threads share Python's warning filters."""

_MOST_RESIZED_PIXELS = 64_000_000
"""A sliver of an image (1 x 50,000) would grow to gigabytes when its short side is resized."""

NOTHING_TO_SPARE = 64
"""Images with fewer pixels per side are not enlarged and cropped."""

_DECODED_SIZE = 2
"""`resized_quickly` decodes to at least this many times the size that is asked for."""


def open_image(source: ImageSource | Image.Image, most_pixels: int | None = None) -> Image.Image:
    """Read an image as it is meant to be seen.

    The first frame, turned upright (EXIF), with 8 bits a channel: 16-bit greyscale is scaled by
    its range, CMYK is converted, and what is transparent is put on white.

    Args:
        source: a path or another stored image, an open binary file, the bytes of an image file, or
            an image of Pillow's.
        most_pixels: how many pixels a stored image may have; None is as many as Pillow decodes
            (179 million, unless `Image.MAX_IMAGE_PIXELS` is set: it is half of that).

    Returns:
        The decoded image, in mode "L" or "RGB". Opening that again changes nothing.

    Raises:
        TooManyPixelsError: if it has more pixels.
        InputError: one sentence that names the file, where it is missing, empty, no image,
            damaged, cut short, or has floating-point or 32-bit pixels.
    """
    if isinstance(source, (PilImage, PreparedImage)):
        return source.image
    if isinstance(source, Image.Image):
        image, name = source, "the image"
        return _explained(lambda: _eight_bit(_upright(_loaded(image)), name), name, b"")

    def read(stream: BinaryIO, name: str) -> Image.Image:
        return _eight_bit(_upright(_loaded(_identified(stream, most_pixels))), name)

    return _read(source, read)


def image_size(source: ImageSource) -> tuple[int, int]:
    """Width and height that a stored image states; it is not decoded.

    Raises:
        InputError: if it is missing, empty or no image.
    """
    if isinstance(source, (PilImage, PreparedImage)):
        return source.image.size
    return _read(source, lambda stream, name: _identified(stream)).size


def resized_quickly(source: ImageSource, preprocessing: Preprocessing) -> Image.Image:
    """Nearly `resized(open_image(source), preprocessing)`, for training.

    JPEGs of at least four times the size asked for are decoded at 1/2, 1/4 or 1/8 by their own
    cosine transform, to at least twice that size: photos of 12 megapixels take a quarter of the
    time. Values differ by 0.7 of 255 on average on sharp photos, and by up to 20 at some edges.
    All other images, and all that are resized by "nearest", are exactly the same.

    Raises:
        InputError: as `open_image` and `resized`.
    """
    if isinstance(source, (PilImage, PreparedImage)):
        return resized(source.image, preprocessing)

    def read(stream: BinaryIO, name: str) -> Image.Image:
        image = _identified(stream)
        box = _reduce_decoding(image, preprocessing)
        _loaded(image)
        if box is None:
            return resized(_eight_bit(_upright(image), name), preprocessing)
        return _turned(resized(_eight_bit(image, name), preprocessing, box), _turn(image))

    return _read(source, read)


def _read(source: ImageSource, read: Callable[[BinaryIO, str], Image.Image]) -> Image.Image:
    """What `read` makes of the opened source and its name; every failure is one sentence."""
    name = _name(source)
    try:
        with _stream(source) as stream:
            header = stream.read(16)
            if not header:
                raise InputError(f"{name} is empty")
            return _explained(lambda: read(stream, name), name, header)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder, not an image") from None
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror or error})") from None


def _name(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return "the image"
    return str(getattr(source, "name", "the image") if hasattr(source, "read") else source)


def _stream(source: ImageSource) -> BinaryIO:
    if isinstance(source, str):
        source = Path(source)
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if hasattr(source, "read"):
        return io.BytesIO(source.read())
    if not hasattr(source, "open"):
        raise InputError(f"a {type(source).__name__} is not an image: give a path or a PIL image")
    return cast(BinaryIO, source.open("rb"))


def _explained(read: Callable[[], Image.Image], name: str, header: bytes) -> Image.Image:
    try:
        return read()
    except InputError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise TooManyPixelsError(
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


def _identified(stream: BinaryIO, most_pixels: int | None = None) -> Image.Image:
    """The image with its header read, but no pixel."""
    with _quiet(), _bounded(most_pixels):
        try:
            image: Image.Image = Image.open(stream, formats=_COMMON_FORMATS)
        except UnidentifiedImageError:
            Image.init()
            others = [name for name in _OTHER_FORMATS if name in Image.OPEN]
            image = Image.open(stream, formats=others)
    if most_pixels is not None and image.width * image.height > most_pixels:
        raise Image.DecompressionBombError
    return image


@contextmanager
def _bounded(most_pixels: int | None) -> Iterator[None]:
    """Have Pillow open images of that many pixels, under the lock of `_quiet`."""
    pillows = Image.MAX_IMAGE_PIXELS
    if pillows is not None and most_pixels is not None and most_pixels > DEFAULT.pixels:
        Image.MAX_IMAGE_PIXELS = max(pillows, most_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = pillows


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    if 0 in image.size:
        raise ValueError("it has no pixels")
    return image


def _reduce_decoding(image: Image.Image, preprocessing: Preprocessing) -> Box | None:
    """Have a large JPEG decoded smaller; the box of what was the whole image, or None."""
    least = _DECODED_SIZE * preprocessing.resize
    if preprocessing.interpolation == "nearest" or min(image.size) < 2 * least:
        return None
    # The last row and column may stand for a fraction of a pixel only, so the box is not the size.
    drafted = image.draft(None, (least, least))
    return None if drafted is None else drafted[1]


def _upright(image: Image.Image) -> Image.Image:
    return _turned(image, _turn(image))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the image must be turned, as its EXIF block says."""
    try:
        with _quiet():
            orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # the pixels are fine where only the EXIF block is broken
        return None
    return _UPRIGHT.get(cast(int, orientation))


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    if turn is None:
        return image
    image = image.transpose(turn)
    for told in _ORIENTATION_IN:  # which Pillow keeps, and which is done now
        image.info.pop(told, None)
    return image


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


def resized(
    image: Image.Image, preprocessing: Preprocessing, box: Box | None = None
) -> Image.Image:
    """Convert and resize an image, as the first half of its preprocessing.

    Args:
        image: as `open_image` gives it.
        preprocessing: its `color`, `resize`, `resize_mode` and `interpolation` count here. With
            "short_side", the long side is truncated to whole pixels, as torchvision does.
        box: the part of the image to take; None is all of it.

    Returns:
        An image in mode "L" (for "L") or "RGB" (for "RGB" and "BGR"); both sides at least
        `preprocessing.crop`.

    Raises:
        InputError: if the image is so long and thin that the result would not fit in memory.
    """
    image = image.convert("L" if preprocessing.color == "L" else "RGB")
    size = preprocessing.resize
    left, top, right, bottom = box or (0, 0, *image.size)
    width, height = right - left, bottom - top
    if preprocessing.resize_mode == "warp":
        target = (size, size)
    elif width <= height:
        target = (size, int(size * height // width))
    else:
        target = (int(size * width // height), size)
    if target[0] * target[1] > _MOST_RESIZED_PIXELS:
        raise InputError(
            f"an image of {image.width} x {image.height} pixels is too long and thin to be resized"
        )
    # Across first, then down, with 8 bits in between: Pillow 13 begins with the other pass where an
    # image shrinks more in height, and the same file would not give the same answer everywhere.
    resampling = _RESAMPLING[preprocessing.interpolation]
    across = image.resize((target[0], image.height), resampling, (left, 0, right, image.height))
    return across.resize(target, resampling, (0, top, target[0], bottom))


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
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))  # (..., C, H, W), while it is small
    x = np.multiply(planes, np.float32(preprocessing.scale), dtype=np.float32)
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


def prepare_file(
    source: ImageSource | Image.Image,
    preprocessing: Preprocessing,
    most_pixels: int | None = None,
) -> Floats:
    """Open an image and prepare it; one that is prepared already is given as it is.

    Returns:
        float32 (C, crop, crop).

    Raises:
        InputError: as `open_image` and `resized`; the sentence names the file.
    """
    if isinstance(source, PreparedImage):
        return source.fitting(preprocessing)
    image = open_image(source, most_pixels)
    try:
        return prepare(image, preprocessing)
    except InputError as error:
        name = "the image" if isinstance(source, Image.Image) else _name(source)
        raise InputError(f"{name} cannot be used: {error}") from None


def default_preprocessing(crop: int, channels: int) -> Preprocessing:
    """The preprocessing of torchvision's ImageNet classifiers at another size or in grey.

    Networks without a stated preprocessing get it, and networks made here are trained with it. With
    this one rule a foreign network gives the same answers from its own file and from its `.sqz`.
    The resize keeps torchvision's ratio of 256 to 224, rounded. Images smaller than 64 pixels are
    not cropped, because their edges matter. One channel takes the mean over the three.

    Args:
        crop: height and width of the network's input, in pixels.
        channels: 3 for colour, 1 for grey.

    Raises:
        UnsupportedError: if `channels` is neither 1 nor 3.
    """
    ratio = TORCHVISION.resize / TORCHVISION.crop
    resize = crop if crop < NOTHING_TO_SPARE else round(crop * ratio)
    if channels == 3:
        return dataclasses.replace(TORCHVISION, crop=crop, resize=resize)
    if channels == 1:
        return Preprocessing(crop, resize, color="L", mean=(0.449,), std=(0.226,))
    raise UnsupportedError(
        f"the network takes {channels} channels: only images of 1 or 3 channels are supported"
    )
