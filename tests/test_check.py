"""What is wrong with photos: planted faults are found, each of its kind, and nothing else."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from small_networks import small_squeezenet
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.data.check import CheckConfig, check
from squeezekit.data.dataset import split_once
from squeezekit.data.mislabels import mislabels
from squeezekit.errors import InputError
from squeezekit.sqz import container

SIDE = 96
COPIES = 100


def crops():
    """Parts of two photographs that do not overlap; not those of nothing but sky."""
    for photo in load_sample_images().images:
        for top in range(0, photo.shape[0] - SIDE, SIDE):
            for left in range(0, photo.shape[1] - SIDE, SIDE):
                part = Image.fromarray(photo[top : top + SIDE, left : left + SIDE])
                if np.std(part.convert("L").resize((9, 9))) > 8:
                    yield part


@pytest.fixture
def photos(tmp_path):
    """Forty different photos of two classes, in train and val."""
    places = []
    for i, image in enumerate(list(crops())[:40]):
        place = tmp_path / "photos" / ("val" if i % 5 == 0 else "train") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        places.append(place / f"{i}.png")
        image.save(places[-1])
    return tmp_path / "photos", places


def test_nothing_is_wrong(photos):
    folder, places = photos
    found = check(folder, CheckConfig(rare_photos=1))
    assert found.photos == len(places)
    assert (found.copies, found.blank, found.tiny, found.unreadable) == ((), (), (), ())
    assert (found.rare, found.mislabelled) == ({}, None)


def test_every_copy_is_found(photos):
    """Resized, saved again and mirrored: with its original, in whatever part and class it is."""
    folder, places = photos
    random = np.random.default_rng(0)
    copies = {}
    for i in range(COPIES):
        original = places[i % len(places)]
        side = int(random.integers(32, 200))
        copy = Image.open(original).resize((side, round(side * random.uniform(0.95, 1.05))))
        copy = ImageOps.mirror(copy) if i % 2 else copy
        place = folder / ("train", "val")[i % 2] / ("a", "b")[i // 2 % 2] / f"copy-{i}"
        suffix, options = ((".jpg", {"quality": 50}), (".png", {}), (".webp", {"quality": 60}))[
            i % 3
        ]
        copy.save(place.with_suffix(suffix), **options)
        copies[place.with_suffix(suffix)] = original
    found = check(folder)
    groups = [{photo.file for photo in group} for group in found.copies]
    missed = [
        copy for copy, original in copies.items() if not any({copy, original} <= g for g in groups)
    ]
    assert missed == []
    assert len(groups) == len(places)  # and no two photos are taken for one
    assert {photo.part for group in found.across_parts for photo in group} == {"train", "val"}
    assert found.across_classes


def test_training_says_so(photos):
    """In one line, where a held-out photo is a training photo made smaller."""
    folder, places = photos
    assert split_once(folder).notes == ()
    smaller = Image.open(places[1]).resize((64, 64))
    smaller.save(folder / "val" / "b" / "copy.png")
    (note,) = split_once(folder).notes
    assert note.startswith("near copies of training photos")
    assert ": 1;" in note


def test_blank_tiny_and_broken(photos):
    folder, places = photos
    train = folder / "train" / "a"
    Image.new("RGB", (64, 64), (7, 99, 7)).save(train / "blank.png")
    Image.new("L", (64, 64)).save(train / "black.png")
    fine = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    Image.fromarray(fine).save(train / "fine texture.png")  # whose small copy is nearly flat
    Image.open(places[1]).resize((8, 8)).save(train / "tiny.png")
    (train / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (train / "empty.jpg").write_bytes(b"")
    found = check(folder)
    assert {photo.file.name for photo in found.blank} == {"blank.png", "black.png"}
    assert [photo.file.name for photo in found.tiny] == ["tiny.png"]
    broken = {photo.file.name: reason for photo, reason in found.unreadable}
    assert broken.keys() == {"broken.jpg", "empty.jpg"}
    assert "is empty" in broken["empty.jpg"]


def test_rare_classes(make_images):
    folder = make_images({"many": 60, "some": 40, "few": 11, "fewest": 2}, size=(40, 40))
    assert check(folder).rare == {"fewest": 2}
    assert check(folder, CheckConfig(rare_share=0.5)).rare == {"few": 11, "fewest": 2}


def test_planted_label_errors():
    """Seventy of a hundred are named, and half of what is named is one, of features with noise."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 1, (10, 64))
    truth = np.repeat(np.arange(10), 100)
    scores = (centres[truth] + random.normal(0, 1.3, (1000, 64))).astype(np.float32)
    labels = truth.copy()
    wrong = random.choice(1000, 50, replace=False)
    labels[wrong] = (labels[wrong] + random.integers(1, 10, 50)) % 10
    found = mislabels(scores, labels)
    right = {each.index for each in found} & set(wrong.tolist())
    assert len(right) >= 0.7 * len(wrong)
    assert len(right) >= 0.5 * len(found)
    suggested = {each.index: each.suggested for each in found}
    assert np.mean([suggested[i] == truth[i] for i in right]) > 0.9
    margins = [each.margin for each in found]
    assert margins == sorted(margins, reverse=True)


def test_labels_that_cannot_be_judged():
    """Too few of a class, or one class: nothing is said."""
    scores = np.zeros((6, 3), np.float32)
    assert mislabels(scores, np.zeros(6, np.int64)) == []
    assert mislabels(scores, np.array([0, 0, 0, 1, 1, 1])) == []
    assert mislabels(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)) == []


def test_from_the_command_line(photos, tmp_path):
    """A table, JSON, and a page with the photos; names are shown as text."""
    folder, places = photos
    network, page = tmp_path / "n.sqz", tmp_path / "page.html"
    container.write(small_squeezenet(), network)
    copy = folder / "val" / "b" / "<b>copy.png"
    Image.open(places[1]).save(copy)
    arguments = ["check", str(folder), "--weights", str(network), "--report", str(page)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["photos"] == len(places) + 1
    assert [set(group) for group in content["copies"]] == [{str(copy), str(places[1])}]
    assert content["mislabelled"] is not None
    html = page.read_text()
    assert "<b>copy" not in html
    assert "&lt;b&gt;copy" in html
    assert html.count("data:image/") >= 2
    table = CliRunner().invoke(app, arguments)
    assert "copies" in table.stdout
    missing = CliRunner().invoke(app, ["check", str(tmp_path / "none")])
    assert isinstance(missing.exception, InputError)
