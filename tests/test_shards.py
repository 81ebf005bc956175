"""Shards as the webdataset library writes them, read as it reads them."""

import contextlib
import gc
import io
import json
import tarfile
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezekit.data import scan_cache, shards
from squeezekit.data.dataset import is_split, split
from squeezekit.data.folders import ImageSet, match, require_classes, scan
from squeezekit.data.shards import ShardMember, expanded, find_shards, scan_shards
from squeezekit.errors import InputError
from squeezekit.runtime.images import open_image


def image_bytes(level, kind="JPEG"):
    file = io.BytesIO()
    Image.new("L", (12, 10), level).save(file, kind)
    return file.getvalue()


def write_tar(path, files):
    """A plain tar of {name: bytes or str}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(classes, prefix=""):
    """Files of one sample a class; the image's level is 10 times its number."""
    files = {}
    for i, name in enumerate(classes):
        files[f"{prefix}{i:04}.jpg"] = image_bytes(10 * i)
        files[f"{prefix}{i:04}.cls"] = str(name)
    return files


def levels(image_set):
    return [round(np.asarray(open_image(path)).mean() / 10) for path in image_set.paths]


def sentence(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def read(path):
    return scan_shards([path], path.parent)


# --- against the library ---------------------------------------------------------------------


@pytest.fixture
def webdataset():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves shards open
        yield pytest.importorskip("webdataset")
        gc.collect()


def test_what_the_library_writes_is_what_it_reads_itself(webdataset, tmp_path):
    random = np.random.default_rng(0)
    with webdataset.ShardWriter(str(tmp_path / "photos-%04d.tar"), maxcount=7, verbose=0) as writer:
        for i in range(20):
            pixels = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
            label = {"cls": i % 3} if i % 2 else {"json": {"label": i % 3, "width": 11}}
            writer.write({"__key__": f"a/sample{i:03}", "png": pixels, **label})
    pattern = str(tmp_path / "photos-{0000..0002}.tar")
    theirs = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("rgb8"))
    ours = split(pattern, "all")
    assert len(ours) == len(theirs) == 20
    assert [path.key for path in ours.paths] == [sample["__key__"] for sample in theirs]
    for path, target, sample in zip(ours.paths, ours.targets, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(open_image(path)), sample["png"])
        assert target == sample.get("cls", sample.get("json", {}).get("label"))


@given(st.text("ab./_-", min_size=1, max_size=9))
def test_names_are_split_as_the_library_does(name):
    from webdataset.tariterators import base_plus_ext

    found = shards._NAME.fullmatch(name)
    theirs = base_plus_ext(name)
    if found is None:  # it takes the key of a file without any, such as ".jpg", from its folder
        assert theirs[0] is None or theirs[0].endswith("/")
    else:
        assert (found[1], found[2]) == (theirs[0].removeprefix("./"), theirs[1])


@pytest.mark.parametrize("pattern", [
    "a.tar", "a-{0..3}.tar", "a-{008..012}.tar", "{b,a}-{0..1}.tar", "{a-{0..2},b-{00..01}}.tar",
    "{a}.tar", "a-{1..x}.tar", "{train,val}/{000..001}.tar",
])  # fmt: skip
def test_patterns_are_those_of_braceexpand(pattern):
    braceexpand = pytest.importorskip("braceexpand")
    assert sorted(expanded(pattern)) == sorted(braceexpand.braceexpand(pattern))


# --- classes ---------------------------------------------------------------------------------


def test_classes_by_name_are_sorted(tmp_path):
    image_set = read(write_tar(tmp_path / "x.tar", samples(["dog", "ant", "dog", "cat"])))
    assert image_set.classes == ("ant", "cat", "dog")
    np.testing.assert_array_equal(image_set.targets, [2, 0, 2, 1])
    assert image_set.targets.dtype == np.int64
    assert levels(image_set) == [0, 1, 2, 3]
    assert image_set.root == tmp_path


def test_indices_without_a_labels_file_are_names_in_their_order(tmp_path):
    image_set = read(write_tar(tmp_path / "x.tar", samples([10, " 2\n", "010", 0])))
    assert image_set.classes == ("0", "2", "10")
    np.testing.assert_array_equal(image_set.targets, [2, 1, 2, 0])


@pytest.mark.parametrize("place", ["labels.txt", "data/classes.txt"])
def test_a_labels_file_beside_the_shards_or_above_names_the_indices(tmp_path, place):
    path = write_tar(tmp_path / "data" / "x.tar", samples([3, 1]))
    (tmp_path / place).write_text("ant\nbee\ncat\ndog\n")
    image_set = read(path)
    assert image_set.classes == ("bee", "dog")
    np.testing.assert_array_equal(image_set.targets, [1, 0])
    assert image_set.empty == ("ant", "cat")


def test_ids_are_surer_than_names(tmp_path):
    (tmp_path / "labels.tsv").write_text("0\tn1\tcrane\n1\tn2\tcrane\n2\tn3\tdog\n")
    image_set = read(write_tar(tmp_path / "x.tar", samples([1, 0])))
    assert image_set.classes == ("n1", "n2")
    matched = match(image_set, ["crane", "crane", "dog"], ["n1", "n2", "n3"])
    np.testing.assert_array_equal(matched.targets, [1, 0])


def test_an_index_beyond_the_labels_is_an_error(tmp_path):
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    path = write_tar(tmp_path / "x.tar", samples([1, 2]))
    assert "class 2, but" in sentence(read, path)
    assert "labels.txt has only 2 names" in sentence(read, path)


def test_two_labels_of_the_same_name_are_an_error(tmp_path):
    (tmp_path / "labels.txt").write_text("crane\ncrane\n")
    path = write_tar(tmp_path / "x.tar", samples([0, 1]))
    assert "'crane' twice" in sentence(read, path)


@pytest.mark.parametrize("field", shards.JSON_FIELDS)
def test_json_tells_the_class(tmp_path, field):
    files = {
        "1.jpg": image_bytes(0), "1.json": json.dumps({"width": 3, field: "cat"}),
        "2.jpg": image_bytes(0), "2.json": json.dumps({field: 7, "other": True}),
        "3.JPG": image_bytes(0), "3.json": json.dumps({field: "no"}), "3.cls": "cat",
    }  # fmt: skip
    image_set = read(write_tar(tmp_path / "x.tar", files))
    assert image_set.classes == ("7", "cat")
    np.testing.assert_array_equal(image_set.targets, [1, 0, 1])


def test_what_is_no_sample_does_not_count(tmp_path):
    files = {
        "__index__.json": "{}", "README": "x", "._1.jpg": b"mac", "./a/1.jpg": image_bytes(10),
        "./a/1.cls": "cat", "./a/1.txt": "a caption", "2.cls": "dog", "./a/1.seg.png": b"mask",
    }  # fmt: skip
    image_set = read(write_tar(tmp_path / "x.tar", files))
    assert [(path.key, path.name) for path in image_set.paths] == [("a/1", "1.jpg")]
    assert image_set.classes == ("cat",)
    assert str(image_set.paths[0]) == f"{tmp_path / 'x.tar'}/./a/1.jpg"
    assert "at least two" in sentence(require_classes, image_set)


def test_the_order_of_the_files_does_not_matter(tmp_path):
    files = samples(["b", "a", "c"])
    by_kind = dict(sorted(files.items(), key=lambda file: (file[0][-3:], file[0])))
    image_set = read(write_tar(tmp_path / "x.tar", by_kind))
    assert levels(image_set) == [0, 1, 2]
    np.testing.assert_array_equal(image_set.targets, [1, 0, 2])


# --- what is broken --------------------------------------------------------------------------


@pytest.mark.parametrize(("files", "words"), [
    ({}, "holds no image with its class"),
    ({"1.txt": "x"}, "holds no image with its class"),
    ({"1.jpg": b"x"}, "1.cls or 1.json is missing"),
    ({"1.jpg": b"x", "1.cls": ""}, "x.tar/1.cls tells no class"),
    ({"1.jpg": b"x", "1.cls": b"\xff"}, "x.tar/1.cls tells no class"),
    ({"1.jpg": b"x", "1.json": "{"}, "x.tar/1.json tells no class"),
    ({"1.jpg": b"x", "1.json": "[1]"}, "tells no class in any of cls, class, label, target"),
    ({"1.jpg": b"x", "1.json": '{"cls": true}'}, "tells no class"),
    ({"1.jpg": b"x", "1.json": "[" * 100_000}, "tells no class"),
    ({"1.jpg": b"x", "1.cls": b"1" * 2_000_000}, "1.cls is too large"),
])  # fmt: skip
def test_samples_that_cannot_be_used(tmp_path, files, words):
    assert words in sentence(read, write_tar(tmp_path / "x.tar", files))


def test_a_file_that_is_there_twice(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for _ in range(2):
            for name, data in samples(["a", "b"]).items():
                info = tarfile.TarInfo(name)
                info.size = len(data := data.encode() if isinstance(data, str) else data)
                tar.addfile(info, io.BytesIO(data))
    assert "holds 0000.jpg twice" in sentence(read, tmp_path / "x.tar")


def test_damaged_shards_are_named(tmp_path):
    path = write_tar(tmp_path / "x.tar", samples(["a", "b", "a", "b"]))
    good = path.read_bytes()
    header = good.index(b"0002.jpg")
    for bad in (
        b"", b"no tar file", good[:300], good[: header - 1], good[: header + 200],
        good[: header + 700], good[:header] + b"!" * 512 + good[header + 512 :],
    ):  # fmt: skip
        path.write_bytes(bad)
        assert sentence(read, path).startswith(f"{path} ")
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.add(path, "x")
    assert "not an uncompressed tar file" in sentence(read, tmp_path / "z.tar")
    assert "cannot be read (No such file" in sentence(read, tmp_path / "gone.tar")


@given(st.data())
def test_damage_anywhere_gives_images_or_a_sentence(tmp_path_factory, data):
    path = write_tar(tmp_path_factory.mktemp("damage") / "x.tar", samples(["a", "b", "a"]))
    good = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    path.write_bytes(good[: data.draw(st.integers(0, len(good)))])
    with contextlib.suppress(InputError):
        for image in read(path).paths:
            open_image(image)


def test_a_broken_image_is_named_by_shard_and_member(tmp_path):
    files = samples(["a", "b"]) | {"0001.jpg": image_bytes(3)[:-30]}
    image_set = read(write_tar(tmp_path / "x.tar", files))
    text = sentence(open_image, image_set.paths[1])
    assert text.startswith(f"{tmp_path / 'x.tar'}/0001.jpg is a damaged or truncated image")
    (tmp_path / "x.tar").unlink()
    assert "does not exist" in sentence(open_image, image_set.paths[0])


# --- data sets -------------------------------------------------------------------------------


def names(found):
    return {part: [path.name for path in paths] for part, paths in found.items()}


def test_shards_are_split_by_folders_or_by_their_names(tmp_path):
    for root, files in {
        "folders": ["train/0.tar", "train/1.tar", "valid/0.tar"],
        "names": ["imagenet-train-0.tar", "imagenet-train-1.tar", "imagenet_VAL.tar"],
        "flat": ["0.tar", "1.tar", "constraint.tar"],
    }.items():
        for i, name in enumerate(files):
            write_tar(tmp_path / root / name, samples(["ant", "bee"], prefix=f"{i}-"))
    (tmp_path / "flat" / "notes.txt").write_text("")
    assert names(find_shards(tmp_path / "folders")) == {
        "train": ["0.tar", "1.tar"], "val": ["0.tar"]
    }  # fmt: skip
    assert names(find_shards(str(tmp_path / "names"))) == {
        "train": ["imagenet-train-0.tar", "imagenet-train-1.tar"], "val": ["imagenet_VAL.tar"]
    }  # fmt: skip
    assert names(find_shards(tmp_path / "flat")) == {"all": ["0.tar", "1.tar", "constraint.tar"]}
    for root in ("folders", "names"):
        assert is_split(tmp_path / root)
        assert [len(split(tmp_path / root, part)) for part in ("train", "val", "all")] == [4, 2, 6]
        assert split(tmp_path / root, "test").paths == split(tmp_path / root, "val").paths
    assert not is_split(tmp_path / "flat")


def test_other_data_are_no_shards(make_images, tmp_path):
    root = make_images({"cat": 5, "dog": 5})
    write_tar(root / "backup.tar", samples(["a"]))
    assert find_shards(root) == {}
    assert find_shards(root / "cat" / "0.png") == {}
    assert find_shards(tmp_path / "gone") == {}
    assert not is_split(root)
    assert split(root, "all").paths == scan(root).paths
    assert len(split(root, "train")) + len(split(root, "val")) == 10
    assert "there is no folder" in sentence(split, tmp_path / "gone", "all")


def test_only_some_names_tell_a_part(tmp_path):
    for name in ("train-0.tar", "more.tar"):
        write_tar(tmp_path / name, samples(["a"]))
    assert "more.tar is not" in sentence(find_shards, tmp_path)


def test_patterns_and_single_files(tmp_path):
    for i in range(3):
        write_tar(tmp_path / f"x-{i:02}.tar", samples(["a", "b"]))
    assert names(find_shards(tmp_path / "x-{00..02}.tar")) == {
        "all": ["x-00.tar", "x-01.tar", "x-02.tar"]
    }
    assert len(split(tmp_path / "x-{00,02}.tar", "all")) == 4
    assert len(split(tmp_path / "x-01.tar", "all")) == 2
    assert f"no shard {tmp_path / 'x-03.tar'}" in sentence(
        split, tmp_path / "x-{00..03}.tar", "all"
    )


def test_a_seeded_share_of_each_class_is_held_out_by_key(tmp_path):
    for i in range(4):
        write_tar(tmp_path / f"{i}.tar", samples(["a", "b"] * 25, prefix=f"{i}-"))
    train, val = split(tmp_path, "train", 3), split(tmp_path, "val", 3)
    assert len(train) + len(val) == 200
    assert 20 <= len(val) <= 60
    keys = [{path.key for path in part.paths} for part in (train, val)]
    assert not keys[0] & keys[1]
    assert {path.key for path in split(tmp_path, "val", 4).paths} != keys[1]
    together = tmp_path / "resharded" / "all.tar"
    write_tar(
        together, {k: v for i in range(4) for k, v in samples(["a", "b"] * 25, f"{i}-").items()}
    )
    assert {path.key for path in split(together, "val", 3).paths} == keys[1]


def test_train_shards_alone_are_split(tmp_path):
    write_tar(tmp_path / "train-0.tar", samples(["a", "b"] * 10))
    assert is_split(tmp_path)
    assert len(split(tmp_path, "train")) + len(split(tmp_path, "val")) == 20
    (tmp_path / "train-0.tar").rename(tmp_path / "val-0.tar")
    assert "no shards for 'train'" in sentence(split, tmp_path, "train")
    assert len(split(tmp_path, "val")) == 20


def test_images_open_in_any_order_and_thread(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    image_set = read(write_tar(tmp_path / "x.tar", samples(range(25))))
    order = np.random.default_rng(0).permutation(np.tile(np.arange(25), 8))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: levels(image_set.subset([i]))[0], order))
    np.testing.assert_array_equal(found, order)


# --- remembered ------------------------------------------------------------------------------


def test_shards_are_read_again_only_where_they_change(tmp_path, monkeypatch, own_cache):
    import time

    monkeypatch.setattr(scan_cache, "LEAST_NAMES", 0)
    monkeypatch.setattr(scan_cache, "_now_ns", lambda: time.time_ns() + 10**15)
    read_again = []
    really = shards._index
    monkeypatch.setattr(
        shards, "_index", lambda shard: read_again.append(shard.name) or really(shard)
    )
    for i in range(3):
        write_tar(tmp_path / "data" / f"{i}.tar", samples(["a", 7]))
    calls = []
    first = split(tmp_path / "data", "all", progress=lambda *call: calls.append(call))
    assert calls == [("scan", 1, 3), ("scan", 2, 3), ("scan", 3, 3)]
    assert read_again == ["0.tar", "1.tar", "2.tar"]
    second = split(tmp_path / "data", "all")
    assert read_again == ["0.tar", "1.tar", "2.tar"]
    assert second.paths == first.paths
    assert second.classes == first.classes
    np.testing.assert_array_equal(second.targets, first.targets)
    write_tar(tmp_path / "data" / "1.tar", samples(["b", 7, "c"]))
    assert split(tmp_path / "data", "all").classes == ("7", "a", "b", "c")
    assert read_again[3:] == ["1.tar"]
    for file in (own_cache / "scans").iterdir():
        file.write_text(file.read_text().replace('"0000"', "0"))
    assert len(split(tmp_path / "data", "all")) == 7
    assert read_again[4:] == ["0.tar", "1.tar", "2.tar"]


# --- used ------------------------------------------------------------------------------------


def test_shards_train_as_class_folders_do(tmp_path, make_images):
    torch = pytest.importorskip("torch")
    from squeezekit.sqz.network import Preprocessing
    from squeezekit.training.batches import TrainingData
    from squeezekit.training.recipe import Recipe

    folders = scan(make_images({"cat": 7, "dog": 6}, size=(14, 11)))
    files = {}
    for i, (path, target) in enumerate(zip(folders.paths, folders.targets, strict=True)):
        files |= {f"{i}.png": path.read_bytes(), f"{i}.cls": folders.classes[target]}
    image_set = read(write_tar(tmp_path / "x.tar", files | {"99.png": b"broken", "99.cls": "cat"}))
    assert image_set.classes == folders.classes
    recipe = Recipe(epochs=1, batch=4)
    ours = TrainingData(image_set, Preprocessing(crop=8, resize=10))
    theirs = TrainingData(folders, Preprocessing(crop=8, resize=10))
    (skipped,) = ours.skipped
    assert skipped.startswith(f"{tmp_path / 'x.tar'}/99.png is not an image")
    for one, other in zip(ours.epoch(0, recipe), theirs.epoch(0, recipe), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_shard_members_are_values(tmp_path):
    import pickle

    member = ShardMember(tmp_path / "x.tar", "a/1", "a/1.jpg", 512, 7)
    assert pickle.loads(pickle.dumps(member)) == member
    assert {member: 1}[ShardMember(tmp_path / "x.tar", "a/1", "a/1.jpg", 512, 7)] == 1
    assert isinstance(read(write_tar(tmp_path / "x.tar", samples("ab"))), ImageSet)
