"""Training batches: seeded, varied, the pixels of the preprocessing; broken images are skipped."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezekit.data.folders import scan
from squeezekit.errors import InputError
from squeezekit.runtime.images import centre_crop, normalized, open_image, prepare, resized
from squeezekit.sqz.network import CAFFE, TORCHVISION, Preprocessing
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData, varied
from squeezekit.training.recipe import Augmentation, Recipe

PREPROCESSING = Preprocessing(crop=8, resize=10)
PLAIN = Augmentation(crop=False, mirror=False)
RECIPE = Recipe(epochs=1, batch=4)


def epoch(data, recipe=RECIPE, number=0):
    return list(data.epoch(number, recipe))


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, two, strict=True)
    )


@pytest.fixture
def image_set(make_images):
    return scan(make_images({"cat": 7, "dog": 6}, size=(14, 11)))


@pytest.mark.parametrize("color", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("resize_mode", ["short_side", "warp"])
def test_without_augmentation_images_are_as_in_use(image_set, color, resize_mode):
    channels = 1 if color == "L" else 3
    preprocessing = Preprocessing(
        crop=8, resize=11, resize_mode=resize_mode, color=color, mean=(0.4,) * channels,
        std=(0.2,) * channels,
    )  # fmt: skip
    data = TrainingData(image_set, preprocessing)
    recipe = dataclasses.replace(RECIPE, batch=13, augmentation=PLAIN)
    ((pixels, targets),) = epoch(data, recipe)
    images = data.inputs(pixels)
    expected = {
        prepare(open_image(path), preprocessing).tobytes(): target
        for path, target in zip(image_set.paths, image_set.targets, strict=True)
    }
    found = {
        image.numpy().tobytes(): int(target) for image, target in zip(images, targets, strict=True)
    }
    assert found == expected
    assert images.shape == (13, channels, 8, 8)
    assert targets.dtype == torch.int64


@pytest.mark.parametrize("preprocessing", [CAFFE, TORCHVISION], ids=["caffe", "torchvision"])
def test_inputs_are_normalized_as_in_use_to_the_last_bit(image_set, preprocessing):
    """Each value of a pixel in each channel, and in an order that is not its own mirror."""
    pixels = np.random.default_rng(0).permuted(
        np.arange(6 * 256, dtype=np.uint8).reshape(6, 256), axis=1
    ).reshape(2, 32, 8, 3)  # fmt: skip
    inputs = TrainingData(image_set, preprocessing).inputs(torch.from_numpy(pixels))
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(inputs.numpy(), normalized(pixels, preprocessing))


def test_large_photos_are_decoded_quickly_unless_asked_otherwise(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (45, 47, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name / "photo.jpg", quality=95)
    recipe = dataclasses.replace(RECIPE, augmentation=PLAIN)
    exact, quick = (
        epoch(TrainingData(scan(tmp_path), PREPROCESSING, quick_decoding=quick), recipe)[0][0]
        for quick in (False, True)
    )
    whole = resized(open_image(tmp_path / "cat" / "photo.jpg"), PREPROCESSING)
    expected = np.asarray(centre_crop(whole, 8))
    assert np.array_equal(exact[0], expected)
    assert not np.array_equal(quick[0], expected)


def test_batches_are_full_and_each_image_comes_once(image_set):
    data = TrainingData(image_set, PREPROCESSING)
    recipe = dataclasses.replace(RECIPE, augmentation=PLAIN)
    batches = epoch(data, recipe)
    assert [len(images) for images, _ in batches] == [4, 4, 4]
    assert data.steps(4) == 3
    distinct = {image.numpy().tobytes() for images, _ in batches for image in images}
    assert len(distinct) == 12


def test_fewer_images_than_a_batch_make_one_batch(image_set):
    data = TrainingData(image_set, PREPROCESSING)
    ((images, _),) = epoch(data, dataclasses.replace(RECIPE, batch=64))
    assert len(images) == 13


@pytest.mark.parametrize("cache_bytes", [0, 5 * 10 * 12 * 3, 10**9])
def test_epochs_follow_from_the_seed_whatever_is_cached(image_set, cache_bytes):
    whole = TrainingData(image_set, PREPROCESSING, threads=1)
    data = TrainingData(image_set, PREPROCESSING, cache_bytes=cache_bytes, threads=3)
    for number in (0, 1):
        assert same(epoch(whole, RECIPE, number), epoch(data, RECIPE, number))
        assert same(epoch(whole, RECIPE, number), list(data.epoch(number, RECIPE, ahead=2)))
    assert not same(epoch(data, RECIPE, 0), epoch(data, RECIPE, 1))
    other = dataclasses.replace(RECIPE, seed=1)
    assert not same(epoch(data, RECIPE), epoch(data, other))


def test_the_cache_spares_the_files(image_set):
    data = TrainingData(image_set, PREPROCESSING)
    before = epoch(data)
    for path in image_set.paths:
        path.unlink()
    assert same(before, epoch(data))


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_broken_images_are_skipped_and_named(image_set, cache_bytes):
    image_set.paths[2].write_text("no image")
    image_set.paths[9].write_bytes(image_set.paths[9].read_bytes()[:60])
    data = TrainingData(image_set, PREPROCESSING, cache_bytes=cache_bytes)
    first = epoch(data, dataclasses.replace(RECIPE, batch=13))
    assert sum(len(images) for images, _ in first) == 11
    assert data.images == 11
    assert [str(image_set.paths[i]) in data.skipped[n] for n, i in enumerate((2, 9))] == [True] * 2
    # Two full batches of the 11; or three of all 13 less the broken ones, found too late to count.
    assert sum(len(images) for images, _ in epoch(data)) in ([8] if cache_bytes else [10, 11, 12])


def test_no_image_that_can_be_read_is_an_error(image_set):
    for path in image_set.paths:
        path.write_text("no image")
    with pytest.raises(InputError, match="none of the 13 images"):
        TrainingData(image_set, PREPROCESSING)


def test_stopping_early_leaves_nothing_running(image_set):
    data = TrainingData(image_set, PREPROCESSING)
    batches = data.epoch(0, dataclasses.replace(RECIPE, batch=1))
    next(batches)
    batches.close()


@given(
    st.integers(5, 12), st.integers(5, 12), st.integers(0, 3), st.booleans(), st.booleans(),
    st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3),
)  # fmt: skip
def test_a_varied_image_is_a_crop_of_the_padded_one(height, width, pad, crop, mirror, draw):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    cut = varied(pixels, 5, Augmentation(crop, mirror, pad), np.array(draw))
    assert cut.shape == (5, 5, 3)
    assert cut.dtype == np.uint8
    if mirror and draw[2] < 0.5:
        cut = cut[:, ::-1]
    pad = pad if crop else 0
    padded = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))
    where = np.argwhere((windows == cut.transpose(2, 0, 1)).all(axis=(2, 3, 4)))
    assert len(where)
    if not crop:
        assert [(height - 5) // 2, (width - 5) // 2] in where.tolist()


def test_every_crop_and_both_sides_occur():
    pixels = np.arange(9, dtype=np.uint8).reshape(3, 3)
    random = np.random.default_rng(0)
    cuts = {varied(pixels, 2, Augmentation(), random.random(3)).tobytes() for _ in range(200)}
    assert len(cuts) == 8


def test_the_papers_crops_and_mirrors():
    """227 of 256 pixels: 30 offsets each way and both sides, all of them equally likely."""
    pixels = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    random = np.random.default_rng(0)
    corners = []
    for _ in range(1500):
        cut = varied(pixels, 227, recipes.paper().augmentation, random.random(3)).astype(int)
        assert cut.shape == (227, 227)
        mirrored = cut[0, 0] > cut[0, -1]
        corners.append((*divmod(cut[0, -1 if mirrored else 0], 256), mirrored))
    top, left, mirrored = np.array(corners).T
    assert mirrored.mean() == pytest.approx(0.5, abs=0.04)
    for offsets in (top, left):
        counts = np.bincount(offsets, minlength=30)
        assert len(counts) == 30
        # Pearson's chi-squared of 29 degrees of freedom exceeds 58 once in a thousand seeds.
        assert ((counts - 50) ** 2 / 50).sum() < 58
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.08
    assert abs(np.corrcoef(top, mirrored)[0, 1]) < 0.08


STRONG = dataclasses.replace(
    RECIPE, augmentation=Augmentation(resized_crop=0.3, randaugment=2, magnitude=15.0)
)


def test_strong_augmentation_follows_from_seed_and_place_alone(image_set):
    data = TrainingData(image_set, PREPROCESSING, threads=3)
    whole = epoch(data, STRONG)
    assert same(whole, epoch(TrainingData(image_set, PREPROCESSING, threads=1), STRONG))
    assert same(whole[1:], list(data.epoch(0, STRONG, first=1)))
    shares = [list(data.epoch(0, STRONG, rank=rank, processes=2)) for rank in (0, 1)]
    for batch, one, two in zip(whole, *shares, strict=True):
        assert torch.equal(batch[0][0::2], one[0])
        assert torch.equal(batch[0][1::2], two[0])
        assert torch.equal(batch[1][1::2], two[1])
    assert not same(whole, epoch(data, STRONG, 1))
    assert whole[0][0].shape == (4, 8, 8, 3)


def test_progress_counts_the_decoded_images(image_set):
    told = []
    TrainingData(image_set, PREPROCESSING, progress=lambda *step: told.append(step))
    assert told == [("decode", i + 1, 13) for i in range(13)]


def test_grey_images_train_a_colour_network(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (12, 12), 128).save(tmp_path / name / "grey.png")
    ((pixels, _),) = epoch(TrainingData(scan(tmp_path), PREPROCESSING))
    assert pixels.shape == (2, 8, 8, 3)
