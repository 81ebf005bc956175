"""The built-in data set: scikit-learn's 1,797 handwritten digits, written as class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from squeezekit.errors import InputError
from squeezekit.runtime.images import Pixels

DIGITS_SIZE = 8
"""Height and width of a digit, in pixels."""

_VAL_SHARE = 0.2
_HIGHEST_VALUE = 16


def write_digits(directory: Path | str, seed: int = 0) -> None:
    """Write the digits as 8 x 8 greyscale PNGs into `train` and `val`, folders "0" to "9" each.

    The digits of Alpaydin and Kaynak (UCI, 1998), from `sklearn.datasets.load_digits`.
    A fifth of each class, rounded, goes to val.

    Args:
        directory: made where it does not exist.
        seed: the seed of the split.

    Raises:
        InputError: if scikit-learn is not installed, or the folder cannot be written.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "the built-in digits need scikit-learn: pip install squeezekit[train]"
        ) from None
    digits = load_digits()
    # The values are 0..16; a digit's number among all 1,797 names its file.
    pixels = np.rint(digits.images * (255 / _HIGHEST_VALUE)).astype(np.uint8)  # (1797, 8, 8)
    random = np.random.default_rng(seed)
    for target in range(10):
        members = random.permutation(np.flatnonzero(digits.target == target))
        held_out = round(len(members) * _VAL_SHARE)
        _write(Path(directory, "val", str(target)), members[:held_out], pixels)
        _write(Path(directory, "train", str(target)), members[held_out:], pixels)


def _write(folder: Path, numbers: npt.NDArray[np.int64], pixels: Pixels) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            Image.fromarray(pixels[number]).save(folder / f"{number:04d}.png")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error})") from None
