"""Odd inputs by the command line: fine ones work, the others are one sentence before any work."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from squeezekit.cli import main
from squeezekit.interop import onnx_file
from squeezekit.models import catalogue
from squeezekit.models.builder import GraphBuilder
from squeezekit.runtime.images import default_preprocessing
from squeezekit.sqz import container
from squeezekit.sqz.network import CAFFE, Metadata, Preprocessing


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


def test_training_with_names_of_any_bytes(tmp_path, command, monkeypatch):
    """And with brackets, which rich would take for markup, in a terminal of ASCII."""
    photos = tmp_path / os.fsdecode(b"ph[/b]otos \xe9\n")
    for k, name in enumerate(ODD_NAMES):
        folder = photos / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i in range(5):
            Image.new("L", (8, 8), 40 * k + i).save(folder / f"{i}.png")
    run = tmp_path / os.fsdecode(b"run[/b]\xe8")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    code, _, err = command(
        "train", "--data", photos, "--model", "squeezenet-digits", "--out", run,
        "--set", "epochs=1", "--set", "batch=8", "--set", "precision=float32",
    )  # fmt: skip
    assert code == 0, err
    assert {path.name for path in run.iterdir()} >= {"report.html", "weights.safetensors"}
    (run / "report.html").read_bytes().decode()
    for name in ("x.sqz", "x.onnx", "x.html"):
        code, _, err = command("export", run, run / name)
        assert code == 0, err
    labels = container.read(run / "x.sqz").metadata.labels
    assert len(labels) == len(ODD_NAMES)
    assert "caf\\xe9" in labels
    listed = b"\n".join(name.replace(b"\n", b" ") for name in sorted(ODD_NAMES)) + b"\n"
    (tmp_path / "labels.txt").write_bytes(listed)
    code, _, err = command("export", run, run / "y.sqz", "--labels", tmp_path / "labels.txt")
    assert code == 0, err
    assert "caf\\xe9" in container.read(run / "y.sqz").metadata.labels
    monkeypatch.undo()


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


# ----------------------------------------------------------- preprocessing can be stated


def brightness(channels=3, size=32, classes=2):
    """A network whose output k is k + 1 times the mean of its input."""
    net = GraphBuilder(channels, size, size)
    x = net.flatten("flat", net.global_average_pool("pool", net.image))
    x = net.linear("fc", x, classes)
    network = net.build(x, Metadata("brightness", default_preprocessing(size, channels)))
    weight = np.outer(np.arange(1, classes + 1), np.ones(channels)).astype(np.float32) / channels
    return network.with_tensors({"fc.weight": weight, "fc.bias": np.zeros(classes, np.float32)})


def foreign(network, path, *, size=None):
    """The network as somebody else's .onnx: without metadata, perhaps of any size."""
    onnx_file.write(network, path)
    model = onnx.load(path)
    del model.metadata_props[:]
    if size is not None:
        for axis in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = size
    onnx.save(model, path)
    return path


CAFFES = [
    "--color", "BGR", "--scale", "1", "--mean", "104,117,123", "--std", "1", "--resize", "32",
    "--resize-mode", "warp",
]  # fmt: skip


def test_preprocessing_is_stated_and_kept(tmp_path, command):
    net = foreign(brightness(), tmp_path / "net.onnx")
    out = tmp_path / "net.sqz"
    code, _, err = command("export", net, out, *CAFFES)
    assert (code, err) == (0, "")
    kept = container.read(out).metadata.preprocessing
    assert (kept.mean, kept.color, kept.resize_mode) == (CAFFE.mean, "BGR", "warp")
    _, shown, _ = command("info", out)
    assert all(word in shown for word in ("BGR", "both sides", "32", "(104, 117, 123)"))


def test_what_is_assumed_is_said_once_and_kept(tmp_path, command, make_images):
    net = foreign(brightness(), tmp_path / "net.onnx")
    photos = make_images({"a": 1})
    for arguments in (
        ("export", net, tmp_path / "net.sqz"),
        ("predict", net, photos),
        ("predict", net, photos, "--backend", "onnxruntime"),
    ):
        code, _, err = command(*arguments)
        assert code == 0
        (line,) = err.splitlines()
        assert "assumed" in line
        assert "(0.485, 0.456, 0.406)" in line
    _, shown, err = command("info", tmp_path / "net.sqz")
    assert "assumed" in shown
    code, _, err = command("predict", tmp_path / "net.sqz", photos)
    assert (code, err) == (0, "")


def test_predict_prepares_as_stated(tmp_path, command, make_images):
    """White photos: the mean of the inputs is (255 * scale - mean) / std, whatever the photo."""
    net = foreign(brightness(channels=1), tmp_path / "net.onnx")
    white = tmp_path / "white.png"
    Image.new("L", (40, 50), 255).save(white)
    code, out, _ = command(
        "predict", net, white, "--json", "--scale", "0.01", "--mean", "0.55", "--std", "2"
    )
    assert code == 0
    (answer,) = json.loads(out)["predictions"]
    assert [place["index"] for place in answer["top"]] == [1, 0]
    odds = answer["top"][0]["probability"] / answer["top"][1]["probability"]
    assert odds == pytest.approx(np.exp(1.0), rel=1e-4)  # outputs 1 and 2


def test_an_open_size_is_named_never_assumed(tmp_path, command, make_images):
    net = foreign(brightness(), tmp_path / "net.onnx", size="side")
    photos = make_images({"a": 1})
    for arguments in (("export", net, tmp_path / "net.sqz"), ("predict", net, photos)):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert "leaves its input size open" in sentence(err)
        code, _, err = command(*arguments, "--input-size", "48")
        assert code == 0, err
    assert container.read(tmp_path / "net.sqz").metadata.preprocessing.crop == 48


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--color", "CMYK"], "color must be one of"),
        (["--color", "L"], "takes 3 channels"),
        (["--resize-mode", "fit"], "resize_mode must be one of"),
        (["--interpolation", "lanczos"], "interpolation must be one of"),
        (["--resize", "16"], "smaller than the network's input"),
        (["--crop", "24"], "32 pixels"),
        (["--input-size", "24"], "32 pixels"),
        (["--scale", "0"], "scale must be"),
        (["--scale", "nan"], "scale must be"),
        (["--mean", "1,2"], "one number or three"),
        (["--mean", "a"], "one number, or one per channel"),
        (["--mean", "104,117,123"], "state scale 1 as well"),
        (["--std", "0"], "std must not be 0"),
    ],
)
@pytest.mark.parametrize("verb", ["export", "predict"])
def test_a_preprocessing_that_cannot_be(tmp_path, command, options, reason, verb, make_images):
    net = foreign(brightness(), tmp_path / "net.onnx")
    target = make_images({"a": 1}) if verb == "predict" else tmp_path / "net.sqz"
    before = files_in(tmp_path)
    code, out, err = command(verb, net, target, *options)
    assert (code, out) == (2, "")
    assert reason in sentence(err)
    assert files_in(tmp_path) == before


# ---------------------------------------------------- names of classes are never guessed in silence


def greys(root, names, images=2):
    """Class folders of plain photos, the k-th of the k-th brightness."""
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(images):
            Image.new("L", (32 + i, 32), 12 + 20 * k).save(root / name / f"{i}.png")
    return root


def grey_network(classes):
    """A network that tells the brightnesses of `greys` apart, darkest first."""
    net = GraphBuilder(1, 32, 32)
    x = net.flatten("flat", net.global_average_pool("pool", net.image))
    x = net.linear("fc", x, classes)
    how = Preprocessing(32, 32, "warp", "L", scale=1.0, mean=(0.0,), std=(1.0,))
    levels = 12.0 + 20.0 * np.arange(classes)
    # The nearest level by the largest of (2 x level - level^2) / 100.
    tensors = {"fc.weight": levels[:, None] / 50, "fc.bias": -(levels**2) / 100}
    network = net.build(x, Metadata("greys", how))
    return network.with_tensors({n: v.astype(np.float32) for n, v in tensors.items()})


@pytest.mark.parametrize(
    ("names", "how"),
    [
        ([str(i) for i in range(11)], "numbers of"),
        ([str(i) for i in range(1, 12)], "numbers (from 1) of"),
        (sorted(str(i) for i in range(11)), "alphabetical order"),  # as ImageFolder numbers them
        ([f"shade {c}" for c in "abcdefghijk"], "alphabetical order"),
    ],
)
def test_folders_in_the_order_of_the_outputs(tmp_path, command, names, how):
    data = greys(tmp_path / "data", names)
    net = tmp_path / "net.sqz"
    container.write(grey_network(11), net)
    code, out, err = command("evaluate", net, "--data", data, "--json")
    assert code == 0, err
    assert json.loads(out)["top1"] == 100
    assert how in err
    code, _, err = command(
        "compress", net, "--data", data, "-o", tmp_path / "small.sqz", "--method", "best"
    )
    assert code == 0, err
    assert how in err
    metadata = container.read(tmp_path / "small.sqz").metadata
    assert metadata.labels == tuple(names)
    assert any(how in step for step in metadata.provenance)


@pytest.mark.parametrize(
    "names",
    [
        [f"shade {c}" for c in "bcdefghijka"],
        [f"shade {c}" for c in "bacdefghijk"],
        [f"shade {c}" for c in "kjihgfedcba"],
        [str(i) for i in reversed(range(11))],
        [str(i) for i in range(2, 13)],
        [str(10 * i) for i in range(11)],
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "compress", "sensitivity"])
def test_folders_in_another_order_are_refused(tmp_path, command, names, verb):
    data = greys(tmp_path / "data", names)
    net = tmp_path / "net.sqz"
    container.write(grey_network(11), net)
    before = files_in(tmp_path)
    options = ["-o", tmp_path / "out.sqz", "--method", "svd", "--energy", "0.9"]
    code, out, err = command(verb, net, "--data", data, *(options if verb == "compress" else []))
    assert (code, out) == (2, "")
    assert "--labels" in sentence(err)
    assert files_in(tmp_path) == before


# ------------------------------------------------------------------------- what cannot be used


def text_file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def classes_in(folder, **counts):
    for name, count in counts.items():
        greys(folder, [name], count)
    return folder


def written(path, scaled):
    """A network that averages its channels, perhaps after scaling each: without any layer."""
    net = GraphBuilder(3, 8, 8)
    x = net.batch_norm("bn", net.image) if scaled else net.image
    x = net.flatten("flat", net.global_average_pool("pool", x))
    container.write(net.build(x, Metadata("bare", default_preprocessing(8, 3))), path)
    return path


DIGITS = ["--model", "squeezenet-digits"]
LONG = "n" * 260

BAD = {
    # what cannot be trained on
    "no data": (["train", "--data", "{tmp}/none", "--out", "{tmp}/run"], "no folder"),
    "data is a file": (["train", "--data", "{tiny}", "--out", "{tmp}/run"], "not a folder"),
    "empty": (["train", "--data", "{tmp}/empty", "--out", "{tmp}/run"], "is empty"),
    "flat": (["train", "--data", "{photos}/a", "--out", "{tmp}/run"], "no class folders"),
    "one class": (["train", "--data", "{tmp}/one", "--out", "{tmp}/run"], "one class only"),
    "no images": (["train", "--data", "{tmp}/texts", "--out", "{tmp}/run"], "no class folder with"),
    # what cannot be written in the end
    "run exists": (["train", "--data", "{photos}", "--out", "{tmp}/full", *DIGITS], "not an empty"),
    "out is a file": (["train", "--data", "{photos}", "--out", "{tiny}", *DIGITS], "not an empty"),
    "out in a file": (["train", "--data", "{photos}", "--out", "{tiny}/r", *DIGITS], "{tiny}"),
    "suffix": (["compress", "{tiny}", "-o", "{tmp}/x.onnx"], "must end in .sqz"),
    "no folder": (["compress", "{tiny}", "-o", "{tmp}/none/x.sqz"], "no folder"),
    "out is a folder": (["compress", "{tiny}", "-o", "{tmp}/folder.sqz"], "is a folder"),
    "long name": (["compress", "{tiny}", "-o", "{tmp}/" + LONG + ".sqz"], "cannot be written"),
    "no report": (
        ["compress", "{tiny}", "-o", "{tmp}/x.sqz", "--report", "{tmp}/none/x.html"], "no folder",
    ),
    "densities": (
        ["sensitivity", "{tiny}", "--data", "{photos}", "-o", "{tmp}/x.txt"], "must end in .json",
    ),
    "export suffix": (["export", "{tiny}", "{tmp}/x.xyz"], "must end in"),
    "export folder": (["export", "{tiny}", "{tmp}/none/x.sqz"], "no folder"),
    # options that would be ignored
    "int8 without photos": (["compress", "{tiny}", "-o", "{tmp}/x.sqz", "--int8"], "photos|images"),
    "photos without int8": (["export", "{tiny}", "{tmp}/x.sqz", "--data", "{photos}"], "for int8"),
    "int8 of no layer": (
        ["compress", "{bare}", "-o", "{tmp}/x.sqz", "--data", "{photos}", "--int8"], "no weights",
    ),
    "int8 of small layers": (
        ["compress", "{scaled}", "-o", "{tmp}/x.sqz", "--data", "{photos}", "--int8"], "in int8",
    ),
    "no weights": (
        ["compress", "{bare}", "-o", "{tmp}/x.sqz", "--data", "{photos}", "--method", "deep"],
        "no weights to make smaller",
    ),
    "preprocessing of no network": (
        ["check", "{photos}", "--mean", "0.5"], "that judges labels",
    ),
    "prototxt of another": (
        ["export", "{tiny}", "{tmp}/x.sqz", "--prototxt", "{tmp}/bad.prototxt"], "prototxt belongs",
    ),
    "preprocessing of nothing": (
        ["train", "--data", "{photos}", "--out", "{tmp}/run", "--mean", "0.5"],
        "the network to start from",
    ),
    # weights that are none
    "empty weights": (["evaluate", "{tmp}/empty.sqz", "--data", "{photos}"], "empty.sqz"),
    "a text": (["evaluate", "{tmp}/notes.txt", "--data", "{photos}"], "notes.txt"),
    "a folder": (["evaluate", "{tmp}/empty", "--data", "{photos}"], "training run"),
    "no onnx": (["export", "{tmp}/bad.onnx", "{tmp}/x.sqz"], "bad.onnx"),
    "no safetensors": (["export", "{tmp}/bad.safetensors", "{tmp}/x.sqz"], "bad.safetensors"),
    "no .net": (["export", "{tmp}/bad.net", "{tmp}/x.sqz"], "bad.net"),
    "no caffemodel": (["export", "{tmp}/bad.caffemodel", "{tmp}/x.sqz"], "bad.caffemodel"),
    # labels that do not fit
    "too few labels": (["export", "{tiny}", "{tmp}/x.sqz", "--labels", "{tmp}/3.txt"], "names 3"),
    "labels of UTF-16": (["export", "{tiny}", "{tmp}/x.sqz", "--labels", "{tmp}/16.txt"], "UTF-8"),
    "labels of a kind": (["export", "{tiny}", "{tmp}/x.sqz", "--labels", "{tmp}/a.csv"], "none of"),
    "no labels": (["export", "{tiny}", "{tmp}/x.sqz", "--labels", "{tmp}/no.txt"], "no.txt"),
    "nested labels": (["export", "{tiny}", "{tmp}/x.sqz", "--labels", "{tmp}/deep.json"], "deep"),
    "strangers": (["evaluate", "{tiny}", "--data", "{photos}"], "fit no label"),
    # photos that are none
    "no photo": (["predict", "{tiny}", "{tmp}/texts"], "no image"),
    "no such photo": (["predict", "{tiny}", "{tmp}/gone.png"], "gone.png|1 of 1"),
    "only a shadow": (["predict", "{tiny}", "{tmp}/shadows"], "no image"),
    "stdin and photos": (["predict", "{tiny}", "-", "{photos}"], "stands alone"),
    "a long name": (["predict", "{tiny}", "{tmp}/" + LONG], "too long"),
    "long weights": (["evaluate", "{tmp}/" + LONG, "--data", "{photos}"], "too long"),
    "long data": (["evaluate", "{tiny}", "--data", "{tmp}/" + LONG], "too long"),
    "nothing to predict": (["predict", "{tiny}"], "name images"),
    "calibrate on texts": (
        ["export", "{tiny}", "{tmp}/x.sqz", "--int8", "--data", "{tmp}/texts"], "no image",
    ),
    "unknown part": (
        ["evaluate", "{tiny}", "--data", "{photos}", "--part", "dev"], "no part 'dev'",
    ),
    "nothing to evaluate": (
        ["evaluate", "{named}", "--data", "{photos}", "--limit", "0"], "limit must be",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence_before_any_work(tmp_path, tiny, command, kind):
    photos = classes_in(tmp_path / "photos", a=4, b=4)
    classes_in(tmp_path / "one", a=3)
    bare, scaled = (
        written(tmp_path / f"{name}.sqz", name == "scaled") for name in ("bare", "scaled")
    )
    named = tmp_path / "named.sqz"
    container.write(catalogue.create("squeezenet-digits", labels=("a", "b")), named)
    for folder in ("empty", "folder.sqz"):
        (tmp_path / folder).mkdir()
    text_file(tmp_path / "texts" / "a" / "x.txt", "no image")
    text_file(tmp_path / "full" / "x.txt", "mine")
    text_file(tmp_path / "shadows" / "._cat.png", b"\0\5\x16\7")
    text_file(tmp_path / "empty.sqz", "")
    for name in ("notes.txt", "bad.onnx", "bad.safetensors", "bad.net", "bad.prototxt",
                 "bad.caffemodel"):  # fmt: skip
        text_file(tmp_path / name, "this is not what its name says\n" * 9)
    text_file(tmp_path / "3.txt", "a\nb\nc\n")
    text_file(tmp_path / "16.txt", "a\nb\n".encode("utf-16"))
    text_file(tmp_path / "a.csv", "a,b")
    text_file(tmp_path / "deep.json", "[" * 100_000)
    before = files_in(tmp_path)
    arguments, reason = BAD[kind]
    places = {"tmp": tmp_path, "tiny": tiny, "photos": photos, "named": named,
              "bare": bare, "scaled": scaled}  # fmt: skip
    code, out, err = command(*(argument.format(**places) for argument in arguments))
    assert (code, out) == (2, "")
    last = [line for line in err.splitlines() if not line.startswith("✓")]
    assert re.search(reason.format(**places), " ".join(last)), err
    assert sum(line.startswith("squeezekit: ") for line in last) == 1
    assert "✓ train" not in err
    assert files_in(tmp_path) == before
