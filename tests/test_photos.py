"""Photos in every form give the same images, and what is no photo is one sentence."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from squeezekit.data.dataset import is_split, split
from squeezekit.data.folders import ImageSet
from squeezekit.data.labelling import matched
from squeezekit.data.photos import any_images, folder_or_set
from squeezekit.errors import InputError
from squeezekit.runtime.held import PreparedImage, pixels_of
from squeezekit.runtime.images import normalized, open_image, prepare_file
from squeezekit.sqz.network import CAFFE, TORCHVISION, Metadata, Preprocessing
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.recipe import Augmentation

COLOUR = Preprocessing(crop=8, resize=10)
GREY = Preprocessing(crop=8, resize=8, color="L", mean=(0.449,), std=(0.226,))
PETS = Metadata("pets", COLOUR, ("cat", "dog", "fox"))


def photos(count=6, seed=0):
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 256, (13, 17, 3), np.uint8)) for _ in range(count)]


def prepared(images, preprocessing=COLOUR):
    return np.stack([prepare_file(image, preprocessing) for image in images])


def given_back(image_set, preprocessing=COLOUR):
    return np.stack([prepare_file(path, preprocessing) for path in image_set.paths])


def forms(images):
    """The same photos, as a program may have them."""
    array = prepared(images)
    tensor = torch.tensor(array)
    return {
        "an array": array,
        "an array of doubles": array.astype(np.float64),
        "a tensor": tensor.requires_grad_(),
        "images": images,
        "a generator of images": iter(images),
        "batches of images": [images[:4], images[4:]],
        "batches of arrays": (array[i : i + 4] for i in (0, 4)),
        "a loader": DataLoader(TensorDataset(tensor.detach()), batch_size=4,
                               collate_fn=lambda rows: torch.stack([row[0] for row in rows])),
        "a list of tensors": list(tensor),
    }  # fmt: skip


@pytest.mark.parametrize("form", forms(photos()))
def test_photos_without_labels_are_the_same_in_every_form(form):
    found = any_images(forms(photos())[form], PETS)
    np.testing.assert_array_equal(given_back(found), prepared(photos()))
    assert found.classes == ("",)


def labelled_forms(images, targets, names):
    array = prepared(images)
    tensor, numbers = torch.tensor(array), torch.tensor(targets)
    return {
        "a loader": DataLoader(TensorDataset(tensor, numbers), batch_size=4),
        "one pair of arrays": (array, np.array(targets)),
        "one pair of lists": (images, targets),
        "pairs of image and number": zip(images, targets, strict=True),
        "pairs of image and name": [(i, names[t]) for i, t in zip(images, targets, strict=True)],
        "pairs of image and tensor": list(zip(images, numbers, strict=True)),
        "a data set of torch": TensorDataset(tensor, numbers),
        "batches of names": [(array[:4], [names[t] for t in targets[:4]]),
                             (array[4:], [names[t] for t in targets[4:]])],
    }  # fmt: skip


@pytest.mark.parametrize("form", labelled_forms(photos(), [0, 2, 1, 2, 2, 0], PETS.labels))
def test_labels_are_the_same_in_every_form(form):
    targets = [0, 2, 1, 2, 2, 0]
    given = labelled_forms(photos(), targets, PETS.labels)[form]
    found = matched(folder_or_set(given, PETS), PETS)
    np.testing.assert_array_equal(given_back(found), prepared(photos()))
    assert found.targets.tolist() == targets
    assert found.classes == PETS.labels


def test_folders_stay_folders(make_images):
    folder = make_images({"a": 2, "b": 1})
    assert folder_or_set(str(folder), PETS) == folder
    assert len(any_images(folder, PETS)) == 3
    flat = any_images(folder / "a", PETS)  # no class folders at all
    assert len(flat) == 2
    found = split(folder, "all")
    assert folder_or_set(found, PETS) is found
    by_path = folder_or_set(found.paths, PETS)
    assert [str(path) for path in by_path.paths] == [str(path) for path in found.paths]


def test_equal_labels_of_two_classes_are_told_apart_by_their_numbers():
    """ImageNet has two cranes: the number of a class says which, its name does not."""
    cranes = Metadata("cranes", COLOUR, ("crane", "crane"))
    found = matched(folder_or_set((photos(2), [1, 0]), cranes), cranes)
    assert found.targets.tolist() == [1, 0]


def test_photos_in_memory_are_split_alike_every_time():
    pairs = list(zip(photos(40), [0, 1] * 20, strict=True))
    found = folder_or_set(pairs, PETS)
    assert not is_split(found)
    train, val = split(found, "train"), split(found, "val")
    names = [str(path) for part in (train, val) for path in part.paths]
    assert sorted(names) == sorted(str(path) for path in found.paths)
    assert set(val.targets) == {0, 1}
    again = split(folder_or_set(pairs, PETS), "val")
    assert [str(path) for path in again.paths] == [str(path) for path in val.paths]
    assert len(split(found, "all")) == 40


@pytest.mark.parametrize("preprocessing", [COLOUR, GREY, CAFFE, TORCHVISION])
@given(seed=st.integers(0, 1000))
def test_prepared_values_give_their_pixels_back(preprocessing, seed):
    shape = (5, 7) if preprocessing.color == "L" else (5, 7, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    again = pixels_of(normalized(pixels, preprocessing), preprocessing)
    np.testing.assert_array_equal(again, pixels)


def test_training_sees_prepared_images_as_they_are():
    array = prepared(photos())
    data = TrainingData(folder_or_set((array, [0, 1, 2] * 2), PETS), COLOUR)
    unvaried = Augmentation(crop=False, mirror=False)
    still = dataclasses.replace(recipes.retrain(), batch=6, augmentation=unvaried)
    ((pixels, targets),) = data.epoch(0, still)
    inputs = data.inputs(pixels).numpy()
    for image, target in zip(array, [0, 1, 2] * 2, strict=True):
        (place,) = np.flatnonzero(np.abs(inputs - image).max(axis=(1, 2, 3)) < 1e-5)
        assert targets[place] == target


def test_an_image_of_pillows_is_seen_as_its_file_is(tmp_path):
    """Turned upright and put on white, whether it is opened here or by the caller."""
    turned = photos(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 11, 4), np.uint8))
    clear.save(tmp_path / "clear.png")
    for name in ("turned.png", "clear.png"):
        by_path = prepare_file(tmp_path / name, COLOUR)
        np.testing.assert_array_equal(prepare_file(Image.open(tmp_path / name), COLOUR), by_path)
        once = open_image(tmp_path / name)
        assert open_image(once).size == once.size  # not turned twice
        np.testing.assert_array_equal(prepare_file(once, COLOUR), by_path)
        (held,) = any_images([Image.open(tmp_path / name)], PETS).paths
        np.testing.assert_array_equal(prepare_file(held, COLOUR), by_path)
        np.testing.assert_array_equal(prepare_file(held.open("rb"), COLOUR), by_path)


REFUSED = {
    "of another size": (np.zeros((2, 3, 9, 9), np.float32), "3 x 8 x 8 .* holds 3 x 9 x 9"),
    "8-bit pixels": (np.zeros((2, 3, 8, 8), np.uint8), "uint8 is not prepared"),
    "not normalised": (np.full((2, 3, 8, 8), 255.0, np.float32), "values from 255 to 255, but"),
    "not numbers": (np.full((2, 3, 8, 8), np.nan, np.float32), "not finite"),
    "nothing": ([], "no photo"),
    "one number": (7, "int holds no photos"),
    "a dictionary": ({"image": 1}, "dict holds no photos"),
    "no images": ([object()], "object is not a photo"),
    "too few labels": ((np.zeros((2, 3, 8, 8), np.float32), [1]), "2 photos, but 1 labels"),
    "a class too many": ((photos(2), [0, 3]), "a label is 3, but the network has the classes 0 to"),
    "a negative class": ((photos(2), [0, -1]), "a label is -1"),
    "mixed labels": ([(photos(1)[0], 0), (photos(1)[0], "cat")], "all numbers of classes, or all"),
    "labels with fractions": ((photos(2), np.array([0.0, 1.0])), "a label must be"),
    "floating-point pixels": ([Image.new("F", (9, 9))], "floating-point pixels"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_photo_is_one_sentence(what):
    given, sentence = REFUSED[what]
    with pytest.raises(InputError, match=sentence) as told:
        folder_or_set(given, PETS)
    assert not re.search(r"\n|\.$", str(told.value))


def test_an_image_prepared_for_one_network_is_not_taken_for_anothers():
    image = PreparedImage("image 0", np.zeros((3, 8, 8), np.float32), COLOUR)
    with pytest.raises(InputError, match="prepared for a network with another preprocessing"):
        prepare_file(image, GREY)


def test_a_set_is_what_it_says():
    found = folder_or_set((photos(3), [2, 2, 0]), Metadata("bare", COLOUR), outputs=4)
    assert isinstance(found, ImageSet)
    assert found.classes == ("0", "1", "2", "3")
