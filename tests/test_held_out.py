"""Which photos are held out, which a network has seen, and that both are remembered."""

import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezekit.data.dataset import split, split_once
from squeezekit.data.fingerprints import copies_among, fingerprints, groups_of
from squeezekit.data.folders import scan
from squeezekit.data.held_out import Memory, memory_of
from squeezekit.errors import HeadError, InputError
from squeezekit.sqz.metadata_json import from_json, to_json
from squeezekit.sqz.network import Metadata, Preprocessing
from squeezekit.sqz.trained_on import MOST_MARKS, TrainedOn


def digests(count, seed=0):
    return np.random.default_rng(seed).integers(0, 1 << 64, count, np.uint64)


def photo(seed, size=(80, 60)):
    """A photo with large shapes in it: colours that change slowly, and some noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    noise = random.normal(0, 4, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Three classes of 10, 12 and 15 photos."""
    seed = 0
    for name, count in {"cat": 10, "dog": 12, "owl": 15}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            photo(seed := seed + 1).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def per_class(image_set):
    counts = np.bincount(image_set.targets, minlength=len(image_set.classes))
    return dict(zip(image_set.classes, counts.tolist(), strict=True))


def contents(image_set):
    return {path.read_bytes() for path in image_set.paths}


# --- marks -----------------------------------------------------------------------------------


@given(st.integers(0, 1200), st.integers(0, 400), st.integers(0, 99))
def test_marks_are_exact_on_what_was_split(trained, apart, seed):
    all_of_them = digests(trained + apart, seed)
    known = TrainedOn.of(all_of_them[:trained], all_of_them[trained:])
    told = known.told(all_of_them)
    np.testing.assert_array_equal(
        known.trained(all_of_them), told & (np.arange(trained + apart) < trained)
    )
    assert told.all() == (trained <= MOST_MARKS)


def test_marks_of_others_are_few_and_take_few_bytes():
    known = TrainedOn.of(digests(800), digests(200, seed=1))
    assert 0.04 < known.trained(digests(20_000, seed=2)).mean() < 0.09
    assert len(known.marks) + len(known.exceptions) < 620
    many = TrainedOn.of(digests(50_000), digests(10_000, seed=1))
    assert len(many.marks) + len(many.exceptions) < 1000


def test_marks_travel_in_the_metadata():
    known = TrainedOn.of(digests(90), digests(22, seed=1))
    many = TrainedOn.of(digests(5000), digests(22, seed=1))
    metadata = Metadata("net", Preprocessing(8, 8), trained_on=(known, many))
    assert from_json(to_json(metadata)) == metadata
    plain = dataclasses.replace(metadata, trained_on=())
    assert "trained_on" not in to_json(plain)


@pytest.mark.parametrize(
    "broken",
    [
        '{"photos":-1,"held_out":0,"marks":"","exceptions":""}',
        '{"photos":1,"held_out":0,"marks":"?","exceptions":""}',
        '{"photos":1,"held_out":0,"marks":"AAAAAAAA","exceptions":""}',
        '{"photos":1.5,"held_out":0,"marks":"","exceptions":""}',
        '{"photos":1,"held_out":0,"every":0,"marks":"","exceptions":""}',
        '{"photos":1,"held_out":0}',
        "[]",
    ],
)
def test_broken_marks_are_refused(broken):
    text = to_json(Metadata("net", Preprocessing(8, 8)))
    with pytest.raises(HeadError):
        from_json(text[:-1] + f',"trained_on":[{broken}]}}')


@given(st.binary(max_size=40))
def test_any_bytes_as_marks_do_no_harm(data):
    try:
        known = TrainedOn(3, 1, 1, data, data)
        found = known.trained(digests(10))
    except ValueError:
        return
    assert found.shape == (10,)


# --- copies ----------------------------------------------------------------------------------


def test_copies_are_found_whatever_was_done_to_them(tmp_path):
    images = [photo(i, (640, 480)) for i in range(30)]
    files = []
    for i, image in enumerate(images):
        files.append(tmp_path / f"{i}.png")
        image.save(files[-1])
    changed = {
        3: images[3].resize((320, 240)),
        5: images[5],
        8: images[8].convert("L"),
        13: images[13].resize((900, 700)),
    }
    for i, image in changed.items():
        files.append(tmp_path / f"copy of {i}.jpg")
        image.save(files[-1], quality=40)
    files.append(tmp_path / "same.png")
    shutil.copy(files[21], files[-1])
    groups = groups_of(fingerprints(files))
    expected = [*range(30), 3, 5, 8, 13, 21]
    np.testing.assert_array_equal(groups, expected)
    prints = fingerprints(files)
    known = prints.subset(np.array([3, 21]))
    found = np.flatnonzero(copies_among(prints, known))
    np.testing.assert_array_equal(found, [3, 21, 30, 34])


def test_flat_images_are_no_copies_of_one_another(tmp_path):
    for i in range(20):
        Image.new("RGB", (30, 30), (200 + i, 255, 255)).save(tmp_path / f"{i}.png")
    groups = groups_of(fingerprints(sorted(tmp_path.iterdir())))
    assert len(set(groups.tolist())) == 20


def test_digits_are_no_copies_of_one_another(tmp_path):
    from squeezekit.data.digits import write_digits

    write_digits(tmp_path, 0)
    images = scan(tmp_path / "train")
    groups = groups_of(fingerprints(images.paths))
    assert len(set(groups.tolist())) > 0.97 * len(images)


def test_photos_of_one_kind_are_no_copies(shared_data):
    images = split(shared_data / "imagenette-mini", "all")
    groups = groups_of(fingerprints(images.paths))
    assert len(set(groups.tolist())) > 0.99 * len(images)


# --- what is held out ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_of_each_class_is_held_out(folder, seed):
    assert per_class(split(folder, "val", seed)) == {"cat": 2, "dog": 2, "owl": 3}
    assert per_class(split(folder, "train", seed)) == {"cat": 8, "dog": 10, "owl": 12}


def test_the_side_of_a_photo_does_not_depend_on_its_name(folder, tmp_path):
    before = contents(split(folder, "val"))
    moved = tmp_path / "elsewhere"
    for path in folder.glob("*/*"):
        target = moved / path.parent.name / "deeper" / f"{abs(hash(path.name))}{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert contents(split(moved, "val")) == before


def test_copies_lie_on_one_side(folder):
    for name in ("cat", "dog", "owl"):
        for i in range(4):
            image = Image.open(folder / name / f"{i}.png")
            image.save(folder / name / f"{i} again.jpg", quality=70)
            shutil.copy(folder / name / f"{i}.png", folder / name / f"{i} twice.png")
    for seed in range(4):
        names = {
            part: {(p.parent.name, p.stem.split()[0]) for p in split(folder, part, seed).paths}
            for part in ("train", "val")
        }
        assert names["train"].isdisjoint(names["val"])
        assert {name for name, _ in names["val"]} == {"cat", "dog", "owl"}


def test_what_a_network_has_seen_is_never_held_out(folder):
    first = split_once(folder)
    memory = Memory((TrainedOn.of(*first.digests),))
    for i in range(9):
        photo(1000 + i).save(folder / "cat" / f"new{i}.png")
    for seed in range(5):
        later = split_once(folder, seed, memory=memory)
        assert contents(later.measuring).isdisjoint(contents(first.training))
        assert len(later.measuring) >= 6
    again = split_once(folder, memory=memory)
    assert contents(again.training) >= contents(first.training)


def test_the_same_folder_is_split_the_same_again(folder):
    first = split_once(folder, seed=3, chooses=True)
    for seed in (0, 3):
        for chooses in (False, True):
            again = split_once(
                folder, seed, memory=Memory((TrainedOn.of(*first.digests),)), chooses=chooses
            )
            assert contents(again.training) == contents(first.training)
            expected = contents(first.measuring)
            if not chooses:
                expected |= contents(first.choosing)
            assert contents(again.measuring) == expected


def test_what_is_chosen_by_is_not_what_is_told(folder):
    parts = split_once(folder, chooses=True)
    assert parts.chooses
    assert contents(parts.choosing).isdisjoint(contents(parts.measuring))
    assert len(parts.choosing) + len(parts.measuring) == 7
    assert abs(len(parts.choosing) - len(parts.measuring)) <= 1
    assert not split_once(folder).chooses


def test_photos_in_train_and_val_are_left_out_and_said(folder, tmp_path):
    root = tmp_path / "split"
    for name in ("cat", "dog", "owl"):
        shutil.copytree(folder / name, root / "train" / name)
        (root / "val" / name).mkdir(parents=True)
        for i in range(3):
            photo(500 + 10 * ord(name[0]) + i).save(root / "val" / name / f"{i}.png")
        shutil.copy(root / "train" / name / "4.png", root / "val" / name / "other name.png")
    parts = split_once(root)
    assert len(parts.measuring) == 9
    assert contents(parts.measuring).isdisjoint(contents(parts.training))
    (note,) = parts.notes
    assert "3 photos" in note
    assert "training photos too" in note


def test_a_data_set_with_three_parts_is_taken_as_it_is(folder, tmp_path):
    for part in ("train", "val", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "three" / part / name).mkdir(parents=True)
    paths = sorted((folder / "owl").iterdir())
    for i, path in enumerate(paths):
        part = ("train", "val", "test")[i % 3]
        shutil.copy(path, tmp_path / "three" / part / ("cat", "dog")[i // 3 % 2])
    parts = split_once(tmp_path / "three", chooses=True)
    assert [p.root.name for p in (parts.training, parts.choosing, parts.measuring)] == [
        "train", "val", "test",
    ]  # fmt: skip


def test_single_images_are_trained_on_unless_labels_do_not_matter(make_images):
    root = make_images({f"c{i}": 1 for i in range(20)})
    with pytest.raises(InputError, match="single image in every class"):
        split_once(root)
    parts = split_once(root, whole=True)
    assert (len(parts.training), len(parts.measuring)) == (16, 4)


def test_the_list_of_a_run_knows_photos_that_were_saved_again(folder, tmp_path):
    parts = split_once(folder, chooses=True)
    run = tmp_path / "run"
    run.mkdir()
    parts.write_list(run)
    memory = memory_of((TrainedOn.of(*parts.digests),), run)
    path = parts.training.paths[0]
    Image.open(path).resize((300, 220)).save(tmp_path / "copy.jpg", quality=60)
    photo(77777).save(tmp_path / "new.png")
    files = [path, parts.measuring.paths[0], parts.choosing.paths[0]]
    files += [tmp_path / "copy.jpg", tmp_path / "new.png"]
    np.testing.assert_array_equal(memory.seen(fingerprints(files)), [1, 0, 0, 1, 0])
    (run / "photos.csv").write_text("part,digest\ntrain,xyz\n")
    with pytest.raises(InputError, match=r"photos\.csv is damaged"):
        memory_of((TrainedOn.of(*parts.digests),), run)


def test_of_many_photos_only_those_that_can_be_told_are_measured(tmp_path):
    trained, apart = digests(4000), digests(1000, seed=1)
    memory = Memory((TrainedOn.of(trained, apart),))

    class Prints:
        def __init__(self, digests):
            self.digests = digests

        def __len__(self):
            return len(self.digests)

    mixed = memory.seen(Prints(np.concatenate([trained, apart])))
    assert mixed[:4000].all()
    assert 200 < (~mixed[4000:]).sum() < 300  # every fourth
    assert memory.seen(Prints(digests(1000, seed=2))).mean() < 0.05
