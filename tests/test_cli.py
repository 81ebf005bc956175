"""The command line, run as a user runs it: what it prints, what it leaves, how it fails."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from squeezekit.models import catalogue
from squeezekit.sqz import container


def run(*arguments, code=0, env=None):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from squeezekit.cli import main; main()"]
        + [str(a) for a in arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def run_json(*arguments):
    result = run(*arguments, "--json")
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes that anyone can tell apart: bright and dark 8x8 grey noise."""
    folder = tmp_path_factory.mktemp("cli") / "photos"
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 128)):
        (folder / name).mkdir(parents=True)
        for i in range(40):
            pixels = random.integers(low, low + 128, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    result = run_json(
        "train", "--data", photos, "--model", "squeezenet-digits", "--out", out,
        "--set", "epochs=12", "--set", "batch=16", "--set", "precision=float32",
    )  # fmt: skip
    assert result["top1"] >= 90
    return out


def test_train_leaves_a_run(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"weights.safetensors", "recipe.json", "results.csv"} <= names
    assert {"report.html", "MODEL_CARD.md"} <= names
    assert json.loads((trained / "recipe.json").read_text())["epochs"] == 12
    assert len((trained / "results.csv").read_text().splitlines()) == 13


def test_the_whole_way(trained, photos, tmp_path):
    """Compress, look inside, evaluate, predict, export, and come back."""
    sqz = tmp_path / "small.sqz"
    page = tmp_path / "small.html"
    result = run_json(
        "compress", trained, "-o", sqz, "--data", photos, "--method", "deep", "--density", "0.4",
        "--epochs", "30", "--report", page,
    )  # fmt: skip
    assert f"{result['stages'][-1]['top1']:.1f}% right" in page.read_text(encoding="utf-8")
    assert result["file_bytes"] == sqz.stat().st_size == result["stages"][-1]["file_bytes"]
    assert [stage["stage"] for stage in result["stages"]] == [
        "float32", "pruned", "shared", "coded"
    ]  # fmt: skip
    assert result["stages"][0]["file_bytes"] > 8 * result["file_bytes"]
    assert result["stages"][-1]["top1"] >= 80  # 64 images to retrain on, 18 to tell

    info = run_json("info", sqz)
    tensors = sum(tensor["payload_bytes"] for tensor in info["tensors"])
    assert info["header_bytes"] + info["head_bytes"] + tensors == sqz.stat().st_size
    assert info["nonzero"] < 0.5 * info["parameters"]
    assert info["metadata"]["labels"] == ["bright", "dark"]

    held_out = run_json("evaluate", sqz, "--data", photos, "--part", "val")
    assert held_out["top1"] == result["stages"][-1]["top1"]
    assert held_out["file_bytes"] == sqz.stat().st_size
    by_torch = run_json("evaluate", sqz, "--data", photos, "--part", "val", "--backend", "torch")
    assert by_torch["top1"] == held_out["top1"]
    assert run_json("evaluate", sqz, "--data", photos)["images"] == 16  # those that it has not seen

    paths = [*sorted((photos / "dark").iterdir()), *sorted((photos / "bright").iterdir())]
    answer = run_json("predict", sqz, *paths)
    labels = [image["top"][0]["label"] for image in answer["predictions"]]
    right = sum(label == path.parent.name for label, path in zip(labels, paths, strict=True))
    assert right >= 64  # of 80
    everything = run_json("evaluate", sqz, "--data", photos, "--part", "all")
    assert right / 80 == everything["top1"] / 100

    onnx, safetensors, again = (tmp_path / f"x.{kind}" for kind in ("onnx", "safetensors", "sqz"))
    run("export", sqz, onnx)
    run("export", onnx, safetensors)
    run("export", safetensors, again)
    first, last = container.read(sqz), container.read(again)
    assert first.metadata == last.metadata
    for name, values in first.values().items():
        assert np.array_equal(values, last.values()[name])
    assert again.stat().st_size <= 1.02 * sqz.stat().st_size  # the codebooks were found again
    onnx_accuracy = run_json("evaluate", onnx, "--data", photos, "--part", "val")
    assert onnx_accuracy["top1"] == held_out["top1"]


def test_published_network(shared_data, tmp_path):
    """From the `.net` to the file and back out, without torch."""
    net = shared_data / "han-2016" / "compressed_SqueezeNet.net"
    sqz = tmp_path / "net.sqz"
    run("export", net, sqz, "--labels", shared_data / "imagenet-classes.tsv")
    assert sqz.stat().st_size <= 545_000
    result = run_json("evaluate", sqz, "--data", shared_data / "imagenet-500", "--limit", "10")
    assert result["images"] == 10
    info = run_json("info", sqz)
    assert info["nonzero"] == 419_897
    assert info["parameters"] == 1_248_424


def test_models_and_cost():
    models = run_json("models")
    assert models["squeezenet-1.0"]["parameters"] == 1_248_424
    cost = run_json("cost", "squeezenet-1.1")
    assert cost["parameters"] == 1_235_496
    table = run("cost", "squeezenet-1.0").stdout
    assert "1,248,424" in table
    assert "fire2" in table


@pytest.mark.parametrize("verb", [[], ["models"], ["cost", "alexnet"], ["--version"], ["-h"]])
def test_verbs_print_something(verb):
    result = run(*verb, code=2 if verb == [] else 0)
    assert (result.stdout + result.stderr).strip()


def test_torch_is_not_loaded(trained, tmp_path, photos):
    """`import squeezekit`, predict, info and evaluate work where torch cannot be imported."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    env = {"PYTHONPATH": str(tmp_path)}
    sqz = tmp_path / "x.sqz"
    run("export", trained, sqz)
    run("predict", sqz, photos / "dark" / "1.png", env=env)
    run("info", sqz, env=env)
    run("evaluate", sqz, "--data", photos, env=env)
    run("cost", "squeezenet-1.0", env=env)


# ------------------------------------------------------------------------------ int8 and streams


def test_int8(trained, photos, tmp_path):
    """Compressed with ranges it runs in int8, and in float as before; export adds ranges, too."""
    sqz, onnx, again = (tmp_path / name for name in ("small.sqz", "small.onnx", "again.sqz"))
    result = run_json(
        "compress", trained, "-o", sqz, "--data", photos, "--int8"
    )  # fmt: skip
    *_, coded, in_int8 = result["stages"]
    assert (coded["stage"], in_int8["stage"]) == ("coded", "int8")
    assert result["file_bytes"] == in_int8["file_bytes"] == sqz.stat().st_size
    assert 0 < in_int8["file_bytes"] - coded["file_bytes"] < 600
    assert abs(in_int8["top1"] - coded["top1"]) <= 10
    run("export", sqz, onnx, "--int8")
    by_all = {
        run_json("evaluate", file, "--data", photos, *options)["top1"]
        for file in (sqz, onnx)
        for options in ([], ["--backend", "onnxruntime"])
    }
    assert max(by_all) - min(by_all) <= 2.5
    in_float = run_json("evaluate", sqz, "--data", photos, "--precision", "float")
    assert in_float["top1"] >= 80
    run("export", trained, again, "--int8", "--data", photos)
    assert len(run_json("info", again)["metadata"]["activations"]) > 3


def test_predict_of_folders(tiny, photos):
    dark = sorted((photos / "dark").iterdir())
    answer = run_json("predict", tiny, photos, dark[0])
    assert len(answer["predictions"]) == 81
    assert [image["image"] for image in answer["predictions"][40:80]] == [str(p) for p in dark]
    one_by_one = run_json("predict", tiny, *dark)
    assert answer["predictions"][40:80] == one_by_one["predictions"]


def test_predict_answers_a_stream_as_it_comes(tiny, photos):
    """Each path is answered before the next is there, broken ones with a reason; Ctrl-C ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "squeezekit", "predict", tiny, "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    first, *rest = sorted((photos / "dark").iterdir())
    for path in (first, photos / "gone.png", rest[0]):
        print(path, file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline())
        assert answer["image"] == str(path)
        assert ("error" in answer) == (path.name == "gone.png")
        assert len(answer.get("top", [])) == (0 if "error" in answer else 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, -signal.SIGABRT)
    assert "Traceback" not in errors
    assert "Fatal" not in errors
    listed = "\n".join(map(str, [first, *rest])) + "\n"
    ended = subprocess.run(
        [sys.executable, "-m", "squeezekit", "predict", tiny, "--stdin"],
        input=listed, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line)["image"] for line in ended.stdout.splitlines()]
    assert lines == [str(path) for path in [first, *rest]]


# ------------------------------------------------------------------------------------- bad input


def sentence(result):
    """The error: one line that starts with the program's name."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("squeezekit: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.sqz"
    network = catalogue.create("squeezenet-digits", labels=("bright", "dark"))
    container.write(network, path)
    return path


def test_damaged_file_in_time(tiny, tmp_path):
    data = tiny.read_bytes()
    broken = tmp_path / "broken.sqz"
    for damaged in (b"", data[:100], data[:-1], data[:5000] + b"!" + data[5001:], b"x" + data[1:]):
        broken.write_bytes(damaged)
        for verb in (["info", broken], ["predict", broken, tiny], ["evaluate", broken]):
            extra = ["--data", tmp_path] if verb[0] == "evaluate" else []
            if verb[0] == "evaluate":
                (tmp_path / "a").mkdir(exist_ok=True)
                Image.new("L", (8, 8)).save(tmp_path / "a" / "1.png")
            assert "broken.sqz" in sentence(run(*verb, *extra, code=2))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["info", "missing.sqz"], "no such file"),
        (["predict", "missing.sqz", "x.jpg"], "missing.sqz"),
        (["cost", "squeezenet-1.2"], "did you mean"),
        (["cost", "squeezenet-1.0", "--input-size", "10"], "small"),
        (["evaluate", "{tiny}", "--data", "{tmp}/none"], "no folder"),
        (["evaluate", "{tiny}", "--data", "{tmp}/empty"], "empty"),
        (["evaluate", "{tiny}", "--data", "{tmp}/strangers"], "fit no label"),
        (["evaluate", "{tiny}", "--data", "{tmp}/text"], "none of the"),
        (["evaluate", "{tmp}/empty", "--data", "{tmp}/one"], "not the folder of a training run"),
        (["evaluate", "{tiny}", "--data", "{tmp}/one", "--backend", "abacus"], "abacus"),
        (["evaluate", "{tiny}", "--data", "{tmp}/one", "--part", "most"], "most"),
        (["train", "--data", "{tmp}/one", "--out", "{tmp}/run"], "one class"),
        (["train", "--data", "{tmp}/two", "--out", "{tmp}/two"], "not an empty folder"),
        (["train", "--data", "{tmp}/two", "--out", "{tmp}/run", "--recipe", "pizza"], "pizza"),
        (["train", "--data", "{tmp}/two", "--out", "{tmp}/run", "--set", "epoch=3"], "epochs"),
        (["train", "--data", "{tmp}/two", "--out", "{tmp}/run", "--set", "epochs=x"], "whole"),
        (["compress", "{tiny}", "-o", "{tmp}/out.zip"], ".sqz"),
        (["compress", "{tiny}", "-o", "{tmp}/no/out.sqz"], "no folder"),
        (["compress", "{tiny}", "-o", "{tmp}/out.sqz", "--method", "deep", "--bits", "40"], "16"),
        (["compress", "{tiny}", "-o", "{tmp}/out.sqz", "--bits", "4"], "use it with deep"),
        (["compress", "{tiny}", "-o", "{tmp}/out.sqz", "--method", "deep", "--density", "2"], "1,"),
        (
            ["compress", "{tiny}", "-o", "{tmp}/x.sqz", "--method", "deep", "--density", "table1"],
            "Table 1",
        ),
        (["compress", "{tiny}", "-o", "{tmp}/out.sqz", "--method", "magic"], "magic"),
        (["compress", "{tiny}", "-o", "{tmp}/out.sqz", "--coder", "morse"], "morse"),
        (["compress", "{tiny}", "-o", "{tmp}/out.sqz", "--int8"], "int8 needs photos"),
        (["export", "{tiny}", "{tmp}/out.pdf"], "must end in"),
        (["export", "{tiny}", "{tmp}/out.onnx", "--int8"], "name some"),
        (["predict", "{tiny}"], "name images"),
        (["predict", "{tiny}", "-", "{tmp}/one/a/1.png"], "stands alone"),
        (["predict", "{tiny}", "{tmp}/one/a/1.png", "--stdin"], "name images"),
        (["predict", "{tiny}", "{tmp}/empty"], "no image"),
        (["predict", "{tiny}", "{tmp}/one/a/1.png", "--backend", "tensorrt"], "tensorrt"),
        (["predict", "{tiny}", "{tmp}/one/a/1.png", "--precision", "int8"], "no activation ranges"),
        (["export", "{tmp}/one/a/1.png", "{tmp}/out.sqz"], "not a file that squeezekit reads"),
    ],
)  # fmt: skip
def test_bad_input(tiny, tmp_path, arguments, word):
    for name in ("empty", "one/a", "two/bright", "two/dark", "strangers/cow", "text/dark"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("one/a", "two/bright", "two/dark", "strangers/cow"):
        for i in range(3):
            Image.new("L", (8, 8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "text/dark/1.jpg").write_text("this is no image")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    filled = [a.replace("{tiny}", str(tiny)).replace("{tmp}", str(tmp_path)) for a in arguments]
    assert word in sentence(run(*filled, code=2))
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_broken_images_are_named_skipped_and_counted(tiny, tmp_path):
    folder = tmp_path / "dark"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "grey.png")
    Image.new("CMYK", (8, 8)).save(folder / "cmyk.jpg")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "sixteen.png")
    (folder / "text.jpg").write_text("hello")
    Image.new("RGB", (64, 64)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:300])
    result = run("evaluate", tiny, "--data", tmp_path, "--json")
    answer = json.loads(result.stdout)
    assert answer["images"] == 3
    assert len(answer["skipped"]) == 2
    assert "text.jpg" in result.stderr
    assert "cut.jpg" in result.stderr
    failed = run("predict", tiny, folder / "grey.png", folder / "text.jpg", code=2)
    assert "dark" in failed.stdout  # the good one is answered all the same
    assert "1 of 2" in sentence(failed)


COMMAND = [sys.executable, "-c", "from squeezekit.cli import main; main()"]


def train_command(photos, out, epochs):
    return [
        *COMMAND, "train", "--data", photos, "--model", "squeezenet-digits", "--out", out,
        "--set", f"epochs={epochs}", "--set", "precision=float32", "--set", "batch=8",
    ]  # fmt: skip


def wait_for(path, process):
    for _ in range(1200):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)


def test_ctrl_c_leaves_a_run_that_goes_on(photos, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        train_command(photos, out, 500), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    wait_for(out / "results.csv", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert (out / "checkpoint.pt").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    sentence(run(*train_command(photos, out, 500)[3:], code=2))
