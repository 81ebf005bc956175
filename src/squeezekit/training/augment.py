"""Image operations that vary training images: random resized crops, RandAugment, mixup."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from squeezekit.runtime.images import Pixels

HIGHEST_MAGNITUDE = 30.0
"""The highest magnitude of RandAugment's operations."""

ASPECTS = (3 / 4, 4 / 3)
"""The smallest and the largest aspect ratio (width / height) of a random resized crop."""

_CROP_TRIES = 10
_FILL = 128  # of what a shifted or turned image leaves open
_MIXUP = 0x6D6978  # keeps its draws apart from others that follow from seed and iteration

_Operation = Callable[[Image.Image, float], Image.Image]


def random_resized_crop(
    pixels: Pixels, crop: int, smallest: float, random: np.random.Generator
) -> Pixels:
    """Cut out a random part of an image and resize it (Szegedy et al. 2015, section 6).

    Args:
        pixels: uint8 (H, W, 3) or (H, W).
        crop: height and width of the result.
        smallest: share of the area that is cut out at least.
        random: where the draws come from.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = random_box(width, height, smallest, random)
    part = Image.fromarray(pixels[top:bottom, left:right])
    return np.asarray(part.resize((crop, crop), Image.Resampling.BILINEAR))


def random_box(
    width: int, height: int, smallest: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random rectangle (left, top, right, bottom) in an image, in pixels.

    Its share of the area is uniform from `smallest` to 1, and so is the logarithm of its aspect
    ratio, as in torchvision's RandomResizedCrop. A rectangle that does not fit is drawn again;
    after ten tries it is the whole image, cut to the nearest allowed aspect ratio.
    """
    for _ in range(_CROP_TRIES):
        area = width * height * random.uniform(smallest, 1.0)
        aspect = math.exp(random.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * ASPECTS[1]))
    h = min(height, round(width / ASPECTS[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def randaugment(
    pixels: Pixels, operations: int, magnitude: float, random: np.random.Generator
) -> Pixels:
    """Apply some random operations of `OPERATIONS` (after Cubuk et al. 2020, RandAugment).

    Args:
        pixels: uint8 (H, W, 3) or (H, W).
        operations: how many, one after the other; the same may come twice.
        magnitude: 0 to 30; each goes in a random direction where it has two.
        random: where the draws come from.
    """
    image = Image.fromarray(pixels)
    names = list(OPERATIONS)
    for _ in range(operations):
        operation = OPERATIONS[names[random.integers(len(names))]]
        sign = 1.0 if random.random() < 0.5 else -1.0
        image = operation(image, sign * magnitude / HIGHEST_MAGNITUDE)
    return np.asarray(image)


def mixup_share(alpha: float, seed: int, step: int) -> float:
    """The share that an image has in its mixture with another one (Zhang et al. 2018, mixup).

    It is drawn from Beta(alpha, alpha). Of the two shares it is the larger one, so that the image's
    own label counts most. Images are mixed in pairs, so both choices would give the same mixtures.

    Args:
        alpha: the parameter of the distribution; 0 mixes nothing.
        seed: the seed of the run.
        step: number of the iteration; every process of a run draws the same share in it.

    Returns:
        A number from 0.5 to 1.
    """
    if alpha == 0.0:
        return 1.0
    drawn = np.random.default_rng((seed, step, _MIXUP)).beta(alpha, alpha)
    return float(max(drawn, 1.0 - drawn))


def _affine(image: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
    fill = _FILL if image.mode == "L" else (_FILL,) * 3
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        coefficients,
        resample=Image.Resampling.BILINEAR,
        fillcolor=fill,
    )


def _rotate(image: Image.Image, level: float) -> Image.Image:
    fill = _FILL if image.mode == "L" else (_FILL,) * 3
    return image.rotate(30.0 * level, Image.Resampling.BILINEAR, fillcolor=fill)


def _shear_x(image: Image.Image, level: float) -> Image.Image:
    shear = 0.3 * level
    return _affine(image, (1, shear, -shear * image.height / 2, 0, 1, 0))


def _shear_y(image: Image.Image, level: float) -> Image.Image:
    shear = 0.3 * level
    return _affine(image, (1, 0, 0, shear, 1, -shear * image.width / 2))


def _translate_x(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, (1, 0, 0.45 * level * image.width, 0, 1, 0))


def _translate_y(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, 0.45 * level * image.height))


def _posterize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * abs(level)))


# The ranges are those of the paper, as torchvision has them.
OPERATIONS: Mapping[str, _Operation] = {
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(1 + 0.9 * level),
    "contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(1 + 0.9 * level),
    "colour": lambda image, level: ImageEnhance.Color(image).enhance(1 + 0.9 * level),
    "sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level),
    "posterize": _posterize,
    "autocontrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
}
"""What `randaugment` draws from; each takes a level from -1 to 1, where 0 changes least."""
