"""Image operations: torchvision's crops, RandAugment's operations by Pillow, mixup's shares."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from squeezekit.training.augment import (
    OPERATIONS,
    mixup_share,
    randaugment,
    random_box,
    random_resized_crop,
)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.01, 1), st.integers(0, 9))
def test_a_random_box_lies_in_the_image(width, height, smallest, seed):
    left, top, right, bottom = random_box(width, height, smallest, np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_random_boxes_are_distributed_as_torchvisions():
    """Where every draw fits: the area is uniform, the aspect log-uniform, and so is the place."""
    random = np.random.default_rng(0)
    boxes = np.array([random_box(4000, 4000, 0.05, random) for _ in range(4000)])
    boxes = boxes[(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) < 0.7 * 4000**2]
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares = w * h / 4000**2
    assert shares.min() == pytest.approx(0.05, abs=0.005)
    assert shares.mean() == pytest.approx((0.05 + 0.7) / 2, abs=0.01)
    aspects = np.log(w / h)
    assert np.abs(aspects).max() <= math.log(4 / 3) + 0.01
    assert aspects.std() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), rel=0.05)
    assert aspects.mean() == pytest.approx(0, abs=0.01)
    assert (boxes[:, 0] / (4000 - w)).mean() == pytest.approx(0.5, abs=0.02)
    assert (boxes[:, 1] / (4000 - h)).mean() == pytest.approx(0.5, abs=0.02)


def test_an_image_too_long_for_any_draw_gives_its_centre():
    box = random_box(1000, 10, 1.0, np.random.default_rng(0))
    assert box == (493, 0, 506, 10)


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)])
def test_a_resized_crop_is_pillows(shape):
    pixels = noise(*shape)
    cut = random_resized_crop(pixels, 16, 0.2, np.random.default_rng(5))
    left, top, right, bottom = random_box(30, 20, 0.2, np.random.default_rng(5))
    expected = Image.fromarray(pixels[top:bottom, left:right]).resize(
        (16, 16), Image.Resampling.BILINEAR
    )
    assert np.array_equal(cut, np.asarray(expected))
    assert cut.dtype == np.uint8


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(12, 9, 3), (12, 9)])
@pytest.mark.parametrize("level", [-1.0, 1.0, 0.3])
def test_every_operation_keeps_size_and_mode(name, shape, level):
    image = Image.fromarray(noise(*shape))
    changed = OPERATIONS[name](image, level)
    assert (changed.size, changed.mode) == (image.size, image.mode)


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ("autocontrast", "equalize")])
def test_level_zero_changes_nothing(name):
    pixels = noise(12, 9, 3)
    assert np.array_equal(np.asarray(OPERATIONS[name](Image.fromarray(pixels), 0.0)), pixels)


def test_operations_are_those_of_their_names():
    image = Image.fromarray(noise(20, 20, 3))
    expected = {
        "brightness": ImageEnhance.Brightness(image).enhance(1.9),
        "colour": ImageEnhance.Color(image).enhance(1.9),
        "posterize": ImageOps.posterize(image, 4),
        "equalize": ImageOps.equalize(image),
        "rotate": image.rotate(30, Image.Resampling.BILINEAR, fillcolor=(128,) * 3),
    }
    for name, result in expected.items():
        assert np.array_equal(np.asarray(OPERATIONS[name](image, 1.0)), np.asarray(result)), name
    shifted = np.asarray(OPERATIONS["translate_x"](image, 1.0))
    assert np.array_equal(shifted[:, :11], np.asarray(image)[:, 9:])
    assert (shifted[:, 11:] == 128).all()


def test_a_shear_leaves_the_middle_in_place():
    pixels = np.zeros((21, 21), np.uint8)
    pixels[:, 10] = 255
    sheared = np.asarray(OPERATIONS["shear_x"](Image.fromarray(pixels), 1.0))
    assert sheared[10].argmax() == 10
    assert sheared[3].argmax() == pytest.approx(10 + 0.3 * 7, abs=1)
    assert sheared[17].argmax() == pytest.approx(10 - 0.3 * 7, abs=1)


def test_randaugment_follows_from_its_generator():
    pixels = noise(16, 16, 3)
    one, two, other = (
        randaugment(pixels, 2, 9.0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.array_equal(randaugment(pixels, 0, 9.0, np.random.default_rng(0)), pixels)
    many = {randaugment(pixels, 1, 9.0, np.random.default_rng(s)).tobytes() for s in range(300)}
    assert len(many) >= 2 * 9 + 2  # two directions, but for posterize and the last two


def test_mixups_shares_are_beta_distributed():
    shares = np.array([mixup_share(1.0, 0, step) for step in range(3000)])
    assert shares.min() >= 0.5
    assert shares.max() <= 1.0
    assert shares.mean() == pytest.approx(0.75, abs=0.01)  # of a uniform number and its rest
    assert mixup_share(0.0, 0, 0) == 1.0
    assert mixup_share(0.2, 3, 7) == mixup_share(0.2, 3, 7) != mixup_share(0.2, 4, 7)
