"""Odd inputs by the command line: fine ones work, the others are one sentence before any work."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from squeezekit.cli import main
from squeezekit.models import catalogue
from squeezekit.sqz import container


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process; gives exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["squeezekit", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.sqz"
    container.write(catalogue.create("squeezenet-digits", labels=("bright", "dark")), path)
    return path


def sentence(err):
    """The error: the last line of stderr; before it stands at most what had been done."""
    *before, last = err.splitlines()
    assert all(line.startswith("✓") for line in before), err
    assert last.startswith("squeezekit: ")
    return last


def files_in(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def add_apple_doubles(folder):
    """What macOS leaves beside each file on a foreign disk."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7Mac OS X        ")


# -------------------------------------------------------------------------- what is an image


def test_predict_and_training_skip_what_computers_leave(make_images, tiny, command):
    photos = make_images({"a": 2, "b": ["x.PNG", "in/y.jpg"]})
    add_apple_doubles(photos)
    (photos / "__MACOSX").mkdir()
    (photos / "__MACOSX" / "z.png").write_bytes(b"no image")
    code, out, err = command("predict", tiny, photos, "--json")
    assert (code, err) == (0, "")
    named = [Path(image["image"]).name for image in json.loads(out)["predictions"]]
    assert named == ["0.png", "1.png", "y.jpg", "x.PNG"]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_class_that_cannot_be_read_is_told_before_training(make_images, command, content):
    photos = make_images({"a": 3, "b": 3, "c": 3})
    for path in (photos / "b").iterdir():
        path.write_bytes(content)
    before = files_in(photos.parent)
    code, out, err = command("train", "--data", photos, "--out", photos.parent / "run")
    assert (code, out) == (2, "")
    assert "images of the class 'b'" in sentence(err)
    assert files_in(photos.parent) == before


# ----------------------------------------------------------------------------- text is bytes

ODD_NAMES = [
    b"caf\xe9",
    b"\xff\xfe",
    "Käse".encode(),
    b"line\nend",
    b"\x1b[31mred",
    "a\u202eb".encode(),
]


@pytest.fixture
def odd_photos(tmp_path):
    root = tmp_path / "photos"
    for name in ODD_NAMES:
        folder = os.path.join(os.fsencode(root), name)  # noqa: PTH118 - Path takes no bytes
        os.makedirs(folder)  # noqa: PTH103
        for i in range(2):
            Image.new("L", (8, 8), 30 * i).save(os.path.join(os.fsdecode(folder), f"{i}.png"))  # noqa: PTH118
    return root


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_predict_with_names_of_any_bytes(odd_photos, tiny, encoding):
    def predict(*arguments, given=None):
        return subprocess.run(
            [sys.executable, "-m", "squeezekit", "predict", tiny, *arguments],
            input=given, capture_output=True, check=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        ).stdout.decode(encoding)  # fmt: skip

    paths = sorted(odd_photos.rglob("*.png"))
    answer = json.loads(predict(odd_photos, "--json"))
    assert sorted(Path(image["image"]) for image in answer["predictions"]) == paths
    without_line_ends = [path for path in paths if "\n" not in str(path)]
    lines = b"".join(os.fsencode(path) + b"\n" for path in without_line_ends)
    answers = [json.loads(line) for line in predict("-", given=lines).splitlines()]
    assert [Path(image["image"]) for image in answers] == without_line_ends
    text = predict(odd_photos)
    assert len(text.splitlines()) == 3 * len(paths)  # the path, and two classes
    assert not any(c != "\n" and (ord(c) < 32 or c == "\u202e") for c in text)


def test_messages_carry_no_escapes(tmp_path, tiny, command):
    code, _, err = command("predict", tiny, tmp_path / "gone\x1b]0;title\x07\nsqueezekit: all fine")
    assert code == 2
    assert len(err.splitlines()) == 2  # of the image, and of the whole
    assert not set(err) & {"\x1b", "\x07"}


# --------------------------------------------------------------------- photos without labels


@pytest.fixture
def flat(make_images):
    return make_images({".": 4}, root="flat")


def as_tar(folder, path):
    with tarfile.open(path, "w") as tar:
        for image in sorted(folder.rglob("*.png")):
            info = tarfile.TarInfo(f"{image.parent.name}/{image.name}")
            data = image.read_bytes()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["flat", "nested", "class folders", "split", "tar", "split tars"])
def test_any_photos_do_for_calibration(make_images, tiny, command, kind, tmp_path):
    if kind == "flat":
        data = make_images({".": 4})
    elif kind == "nested":
        data = make_images({"2019/may": 2, "2020": 1})
    elif kind == "class folders":
        data = make_images({"cat": 2, "dog": 2})
    elif kind == "split":
        data = make_images({"train": 2, "val": 2})
    else:
        data = tmp_path / "shards"
        data.mkdir()
        names = ["photos.tar"] if kind == "tar" else ["a-train-0.tar", "a-val-0.tar"]
        for name in names:
            as_tar(make_images({".": 3}, root="to pack"), data / name)
    out = tmp_path / "out.sqz"
    code, _, err = command("export", tiny, out, "--int8", "--data", data)
    assert code == 0, err
    assert container.read(out).metadata.activations


@pytest.mark.parametrize("kind", ["empty", "missing", "no image", "empty tar"])
def test_no_photos_are_refused(tiny, command, kind, tmp_path):
    data = tmp_path / ("x.tar" if kind == "empty tar" else "data")
    if kind == "empty tar":
        tarfile.open(data, "w").close()
    elif kind != "missing":
        data.mkdir()
        (data / ("x.txt" if kind == "no image" else ".hidden.png")).write_text("x")
    out = tmp_path / "out.sqz"
    code, stdout, err = command("export", tiny, out, "--int8", "--data", data)
    assert (code, stdout) == (2, "")
    assert str(data) in sentence(err)
    assert not out.exists()
