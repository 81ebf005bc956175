"""A remembered scan must never differ from a scan that remembers nothing."""

import itertools
import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from squeezekit.data import scan_cache
from squeezekit.data.folders import scan
from squeezekit.errors import InputError

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def remembering(monkeypatch):
    """Everything is remembered, however little and new it is."""
    monkeypatch.setattr(scan_cache, "LEAST_NAMES", 0)
    monkeypatch.setattr(scan_cache, "_now_ns", lambda: time.time_ns() + DAY_NS)


@pytest.fixture
def listed(monkeypatch):
    """The names of the folders that were really listed since it was last cleared."""
    names = []
    really = scan_cache.listed

    def spy(folder):
        names.append(Path(folder).name)
        return really(folder)

    monkeypatch.setattr(scan_cache, "listed", spy)
    return names


def by_walking(root):
    """What `scan` must find, by another way: {class: relative paths}."""
    found = {}
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        parts = Path(place).relative_to(root).parts
        for name in names if parts else ():
            if name.endswith((".png", ".jpg")) and not name.startswith("."):
                found.setdefault(parts[0], []).append(str(Path(*parts, name)))
    return {name: sorted(paths) for name, paths in found.items()}


def by_scanning(root):
    try:
        image_set = scan(root)
    except InputError:
        return {}
    found = {name: [] for name in image_set.classes}
    for path, target in zip(image_set.paths, image_set.targets, strict=True):
        found[image_set.classes[target]].append(str(path.relative_to(root)))
    return {name: sorted(paths) for name, paths in found.items()}


def make(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_nothing_is_listed_twice_unless_it_changes(tmp_path, remembering, listed):
    root = tmp_path / "data"
    make(root, ["cat/1.jpg", "cat/deep/er/2.jpg", "dog/3.jpg", "dog/notes.txt", "fox/4.jpg"])
    first = scan(root)
    assert sorted(listed) == ["cat", "data", "deep", "dog", "er", "fox"]
    listed.clear()
    second = scan(str(root))
    assert listed == []
    assert second.paths == first.paths
    assert second.classes == first.classes == ("cat", "dog", "fox")
    make(root, ["cat/deep/er/5.jpg"])
    assert len(scan(root)) == 5
    assert listed == ["er"]
    listed.clear()
    (root / "fox").rename(root / "wolf")
    assert scan(root).classes == ("cat", "dog", "wolf")
    assert listed == ["data", "wolf"]
    listed.clear()
    scan(root)
    assert listed == []


class Life:
    """Changes a folder at random, as people and programs do, with a clock of its own."""

    def __init__(self, root, seed):
        self.root, self.random = root, random.Random(seed)
        self.numbers = itertools.count()
        make(root, [f"{name}/{i}.png" for name in ("a", "b", "c") for i in range(3)])

    def folders(self):
        return [Path(place) for place, _, _ in os.walk(self.root)][1:]

    def step(self):
        folders = self.folders()
        change = self.random.choice([
            self.add, self.add, self.remove, self.rename, self.hide, self.swap, self.grow,
            self.cut, self.move, self.link, self.relink,
        ])  # fmt: skip
        if not folders:
            change = self.grow
        parents = change(folders)
        # Each change is later than all before it, which real clocks see to in time.
        for place in {parent for parent in parents if parent.exists()}:
            number = next(self.numbers)
            os.utime(place, ns=(number, number))

    def any_file(self, folders):
        files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
        return self.random.choice(files) if files else None

    def name(self, ending=""):
        return f"{self.random.choice(['x', 'ü', '猫', ' '])}{next(self.numbers)}{ending}"

    def add(self, folders):
        folder = self.random.choice(folders)
        (folder / self.name(self.random.choice([".png", ".jpg", ".txt"]))).touch()
        return [folder]

    def remove(self, folders):
        if path := self.any_file(folders):
            path.unlink()
            return [path.parent]
        return []

    def rename(self, folders):
        if path := self.any_file(folders):
            target = self.random.choice(folders) / self.name(".png")
            path.rename(target)
            return [path.parent, target.parent]
        return []

    def hide(self, folders):
        if path := self.any_file(folders):
            path.rename(path.with_name(f".{path.name}"))
            return [path.parent]
        return []

    def swap(self, folders):
        one, other = self.random.choice(folders), self.random.choice(folders)
        if one in [other, *other.parents] or other in one.parents:
            return []
        between = self.root / self.name()
        one.rename(between)
        other.rename(one)
        between.rename(other)
        return [self.root, one.parent, other.parent]

    def grow(self, folders):
        parent = self.random.choice([self.root, *folders])
        make(parent, [f"{self.name()}/{self.name('.jpg')}"])
        return [parent]

    def cut(self, folders):
        folder = self.random.choice(folders)
        shutil.rmtree(folder)
        return [folder.parent]

    def move(self, folders):
        folder, target = self.random.choice(folders), self.random.choice([self.root, *folders])
        if folder in [target, *target.parents]:
            return []
        folder.rename(target / self.name())
        return [folder.parent, target]

    def link(self, folders):
        target = self.root.parent / f"elsewhere{next(self.numbers)}"
        make(target, ["1.png"])
        folder = self.random.choice(folders)
        (folder / self.name(".png")).symlink_to(target)
        return [folder]

    def relink(self, folders):
        """What links lead to changes, and nothing in the folder does."""
        for target in self.root.parent.glob("elsewhere*"):
            if target.is_dir():
                shutil.rmtree(target)
                target.touch()
            else:
                target.unlink()
                make(target, ["2.png", "3.png"])
        return []


@pytest.mark.parametrize("seed", range(5))
def test_any_change_is_noticed(tmp_path, remembering, listed, seed):
    life = Life(tmp_path / "data", seed)
    total = 0
    for step in range(60):
        life.step()
        assert by_scanning(life.root) == by_walking(life.root), step
        total += len(life.folders()) + 1
    assert 0 < len(listed) < total  # and much was remembered


def test_a_change_whose_time_is_set_back_is_noticed(tmp_path, remembering):
    root = tmp_path / "data"
    make(root, ["a/1.jpg", "b/1.jpg"])
    os.utime(root / "a", ns=(DAY_NS, DAY_NS))
    scan(root)
    time.sleep(0.05)  # longer than a tick of the file system's clock
    make(root, ["a/2.jpg"])
    os.utime(root / "a", ns=(DAY_NS, DAY_NS))
    assert len(scan(root)) == 3


def test_what_has_only_just_changed_is_not_trusted(tmp_path, monkeypatch, listed):
    monkeypatch.setattr(scan_cache, "LEAST_NAMES", 0)
    root = tmp_path / "data"
    make(root, ["a/1.jpg", "b/1.jpg"])
    for _ in range(2):
        scan(root)
    assert listed == ["data", "a", "b"] * 2


def test_small_folders_leave_nothing_behind(tmp_path, monkeypatch, own_cache):
    monkeypatch.setattr(scan_cache, "_now_ns", lambda: time.time_ns() + DAY_NS)
    make(tmp_path / "data", ["a/1.jpg", "b/1.jpg"])
    scan(tmp_path / "data")
    assert not own_cache.exists()


@pytest.mark.parametrize("damage", [
    lambda text: "", lambda text: text[:-10], lambda text: "null", lambda text: "[1, 2]",
    lambda text: text.replace('"format":1', '"format":2'),
    lambda text: text.replace('["1.jpg"]', "[1]"), lambda text: text.replace('["1.jpg"]', "7"),
    lambda text: json.dumps({**json.loads(text), "value": [1]}),
    lambda text: json.dumps({**json.loads(text), "value": {"a": 1}}),
    lambda text: json.dumps({**json.loads(text), "place": "/elsewhere"}),
    lambda text: "\0" * 100, lambda text: "[" * 100_000,
])  # fmt: skip
def test_a_damaged_cache_is_none(tmp_path, remembering, own_cache, damage):
    root = tmp_path / "data"
    make(root, ["a/1.jpg", "b/1.jpg", "b/2.jpg"])
    scan(root)
    (file,) = (own_cache / "scans").iterdir()
    text = file.read_text()
    assert damage(text) != text
    file.write_text(damage(text))
    assert by_scanning(root) == {"a": ["a/1.jpg"], "b": ["b/1.jpg", "b/2.jpg"]}
    assert file.read_text() == text


def test_a_cache_that_cannot_be_written_is_none(tmp_path, remembering, own_cache):
    own_cache.write_text("a file")
    make(tmp_path / "data", ["a/1.jpg", "b/1.jpg"])
    assert len(scan(tmp_path / "data")) == 2


def test_names_that_are_no_text_are_remembered(tmp_path, remembering, listed):
    root = tmp_path / "data"
    make(root, ["a/1.jpg", "b/1.jpg"])
    try:
        Path(os.fsdecode(os.fsencode(root / "a") + b"/\xff.jpg")).touch()
    except OSError:
        pytest.skip("the file system takes no such names")
    first = scan(root)
    assert scan(root).paths == first.paths
    assert len(first) == 3
    assert len(listed) == 3


def test_progress_counts_class_folders(tmp_path):
    make(tmp_path / "data", ["a/1.jpg", "b/1.jpg", "b/c/2.jpg", "empty/x.txt"])
    calls = []
    scan(tmp_path / "data", lambda *call: calls.append(call))
    assert calls == [("scan", 1, 3), ("scan", 2, 3), ("scan", 3, 3)]
