"""The race of the runtimes: the peers compute the same, and the report says what was measured."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from small_networks import small_networks, small_squeezenet

from squeezekit.errors import InputError
from squeezekit.report.tables import speed_table
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import prepare_file
from squeezekit.speed import peers
from squeezekit.speed.install_size import closure, install_bytes
from squeezekit.speed.prepare import write_forms
from squeezekit.speed.race import (
    CONTESTANTS,
    OURS,
    Contestant,
    Figures,
    RaceConfig,
    race,
    race_report,
    ratio,
    sample_image,
)
from squeezekit.sqz import container
from squeezekit.sqz.network import Preprocessing

MEASURES = {
    "file_bytes", "install_bytes", "cold_start_seconds", "load_seconds", "latency_p50_seconds",
    "latency_p99_seconds", "images_per_second", "peak_bytes",
}  # fmt: skip
BENCH = [sys.executable, "-c", "from squeezekit.cli import main; main()", "bench"]


@pytest.fixture
def sqz(tmp_path):
    path = tmp_path / "small.sqz"
    container.write(small_squeezenet(), path)
    return path


@pytest.mark.parametrize("name", small_networks())
def test_every_peer_gives_the_same_scores(name, tmp_path):
    """PyTorch's own modules and ONNX Runtime on the file: two implementations that are not ours."""
    network = small_networks()[name]
    container.write(network, tmp_path / "x.sqz")
    write_forms(str(tmp_path / "x.sqz"), tmp_path)
    peers.save_torch(tmp_path)
    p = network.metadata.preprocessing
    batch = np.random.default_rng(1).normal(size=(2, p.channels, p.crop, p.crop))
    batch = batch.astype(np.float32)
    expected = from_network(network)._run(batch)  # before any logarithm of probabilities
    installed = [peer for peer in peers.PEERS if find_spec(peers.PEERS[peer][0].split(".")[0])]
    for peer in set(installed) - {OURS, "torch-bf16"}:
        scores = peers.PEERS[peer][1](tmp_path, 1)(batch)
        close = 1e-2 if peer == "openvino" else 1e-4  # which computes in bf16 where it can
        np.testing.assert_allclose(scores.reshape(2, -1), expected, rtol=close, atol=close)


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(crop=24, resize=30),
        Preprocessing(crop=24, resize=24, resize_mode="warp", color="BGR", interpolation="bicubic"),
        Preprocessing(crop=20, resize=25, color="L", mean=(0.5,), std=(0.25,)),
    ],
)
def test_the_peers_prepare_the_same_pixels(how, tmp_path):
    path = tmp_path / "photo.jpg"
    sample_image().save(path)
    expected = prepare_file(path, how)
    got = peers.prepared(path, vars(how))
    assert got.shape == (1, *expected.shape)
    assert got.dtype == np.float32
    # Pillow alone may begin with the other pass, and is off by 1 of 255 then.
    assert abs(got[0] - expected).max() <= 1.01 * how.scale / min(how.std)


def test_bench(sqz, tmp_path):
    """Through the command line: every field, and one class whoever is asked."""
    out = tmp_path / "report.json"
    done = subprocess.run(
        [*BENCH, sqz, "--rounds", "1", "--seconds", "0.01", "--batch", "2", "--json", "-o", out],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads(out.read_text())
    assert set(report["contestants"]) == {c.name for c in CONTESTANTS if c.is_installed}
    assert set(report["contestants"]) >= {OURS, "onnxruntime", "torch", "torch-bf16"}
    assert report["same_top1"]
    for name, found in report["contestants"].items():
        # Memory is not told where the process that measures, or whatever started it, is larger.
        told = set(found) | {"peak_bytes"}
        assert told == MEASURES | {"top1", "latencies", "rounds"}, name
        assert all(found[measure] > 0 for measure in MEASURES & set(found))
        assert found["latencies"] >= 5
        assert all(len(values) == 1 for values in found["rounds"].values())
        assert found["latency_p50_seconds"] <= found["latency_p99_seconds"]
    assert report["contestants"][OURS]["file_bytes"] == sqz.stat().st_size
    torch, ours = report["contestants"]["torch"], report["contestants"][OURS]
    assert set(report["ratios"]) == set(report["contestants"]) - {OURS}
    times = report["ratios"]["torch"]["load_seconds"]
    assert times == torch["load_seconds"] / ours["load_seconds"]
    assert torch.get("peak_bytes", 1e9) > 100e6  # importing torch alone takes more


def test_a_peer_that_fails_says_why(sqz, tmp_path):
    """The others go on; without our own there is nothing to compare with."""
    nobody = Contestant("nobody", "Nobody", "model.onnx", ("numpy",))
    ours, found = race(sqz, RaceConfig(1, 1, 2, 0.0), contestants=[CONTESTANTS[0], nobody])
    assert "nobody" in found.as_json()["failed"]
    assert len(ours.cold_start_seconds) == 1
    # Memory is not told where this process, whose own counts with the child's, is larger.
    told = set(ours.summary()) - {"peak_bytes"}
    assert told == {"file_bytes", "install_bytes", "cold_start_seconds"}
    (tmp_path / "not.sqz").write_bytes(b"none")
    with pytest.raises(InputError, match=r"not a \.sqz file"):
        race(tmp_path / "not.sqz")
    with pytest.raises(InputError, match="no such file"):
        race(tmp_path / "missing.sqz")
    (tmp_path / "photo.jpg").write_bytes(b"none")
    with pytest.raises(InputError, match=r"could not be classified|not an image"):
        race(sqz, RaceConfig(1, 1, 2, 0.0), image=tmp_path / "photo.jpg")


def test_ctrl_c_leaves_nothing(sqz, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    process = subprocess.Popen(
        [*BENCH, sqz, "-o", tmp_path / "report.json"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    while not list(folder.glob("*/model.onnx")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not list(folder.iterdir())
    assert not (tmp_path / "report.json").exists()


def test_install_size():
    """Every file of the package itself, and requirements of requirements, but nothing optional."""
    import packaging

    names = set(closure(["squeezekit"]))
    assert {"squeezekit", "onnxruntime", "numpy", "protobuf", "wasmtime", "typer"} <= names
    assert not names & {"torch", "pytest", "matplotlib", "optuna"}
    assert {"torch", "sympy", "mpmath"} <= set(closure(["torch"]))
    root = next(iter(packaging.__path__))
    files = [os.path.join(at, n) for at, _, names in os.walk(root) for n in names]  # noqa: PTH118
    code = sum(os.path.getsize(f) for f in files if not f.endswith(".pyc"))  # noqa: PTH202
    assert code < install_bytes(["packaging"]) < code + 100_000  # its licence and records
    both = install_bytes(["packaging", "numpy"])
    assert both == install_bytes(["packaging"]) + install_bytes(["numpy"])


def test_ratio():
    """3 of 1, 2 of 2, 4 of 2: the medians are 3 and 2."""
    assert ratio([3.0, 2.0, 4.0], [1.0, 2.0, 2.0]) == {"of_medians": 1.5, "least": 1.0, "most": 3.0}


def test_sample_image_is_a_photo_in_size():
    assert sample_image().size == (500, 375)
    assert np.array_equal(np.asarray(sample_image()), np.asarray(sample_image()))
    assert isinstance(sample_image(), Image.Image)


def test_a_peak_of_ours_that_cannot_be_told_is_compared_to_nothing():
    """It cannot be where the process that races holds more memory than ours ever did."""
    ours, other = Figures(CONTESTANTS[0]), Figures(CONTESTANTS[1])
    for figures in (ours, other):
        figures.file_bytes, figures.install_bytes = 1, 1
        figures.cold_start_seconds = [1.0]
    other.peak_bytes = [250e6]
    report = race_report([ours, other], RaceConfig())
    assert "peak_bytes" not in report["ratios"][other.contestant.name]
    assert report["ratios"][other.contestant.name]["cold_start_seconds"] == 1.0
    summaries = {figures.contestant.about: figures.summary() for figures in (ours, other)}
    console = Console(width=140, file=io.StringIO())
    console.print(speed_table(summaries, ours.contestant.about))
    assert "250 MB" in console.file.getvalue()
