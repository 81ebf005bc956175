"""Checkpoints: a run that was stopped anywhere ends with the very weights of one that was not."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_loop import RECIPE, equal, small_network, weights

from squeezekit.data.folders import scan
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.sqz.network import Preprocessing
from squeezekit.trainable.network import TorchClassifier, TrainableNetwork
from squeezekit.training.batches import TrainingData
from squeezekit.training.checkpoint import Checkpoints
from squeezekit.training.loop import fit
from squeezekit.training.recipe import Augmentation

PREPROCESSING = Preprocessing(crop=6, resize=6, mean=(0.5,) * 3, std=(0.25,) * 3)


class PowerCut(BaseException):
    """Nothing catches it: the run ends as at a crash."""


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (root / name).mkdir()
        for i in range(10):
            pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return scan(root)


@pytest.fixture(scope="module")
def data(image_set):
    return TrainingData(image_set, PREPROCESSING, threads=1)


RECIPES = {
    "plain": RECIPE,
    "everything": dataclasses.replace(
        RECIPE, ema=0.8, accumulate=2, clip_norm=1.0, nesterov=True, keep="best", body_rate=0.5
    ),
    "augmented": dataclasses.replace(
        RECIPE, augmentation=Augmentation(resized_crop=0.3, randaugment=2, mixup=0.4)
    ),
    "adam": dataclasses.replace(RECIPE, optimizer="adam", learning_rate=0.01),
}


@pytest.mark.parametrize("name", RECIPES)
def test_any_interruption_is_without_consequence(data, image_set, tmp_path, name):
    recipe = RECIPES[name]

    def validate(net):
        return evaluate(TorchClassifier(net), image_set)

    whole = TrainableNetwork(small_network(batch_norm=True))
    expected = fit(whole, data, recipe, validate=validate)
    path = tmp_path / "checkpoint.pt"
    random = np.random.default_rng(7)
    results = None
    for _ in range(12):
        net = TrainableNetwork(small_network(batch_norm=True))
        stop = int(random.integers(1, 18))

        def cut(task, done, total, stop=stop):
            if task == "train" and done >= stop:
                raise PowerCut

        checkpoints = Checkpoints(path, seconds=float(random.choice([0, 1000])), resume=True)
        try:
            results = fit(
                net, data, recipe, validate=validate, checkpoints=checkpoints, progress=cut
            )
            break
        except PowerCut:
            continue
    if results is None:
        checkpoints = Checkpoints(path, resume=True)
        results = fit(net, data, recipe, validate=validate, checkpoints=checkpoints)
    assert equal(weights(net), weights(whole))
    same = [dataclasses.replace(result, seconds=0) for result in results]
    assert same == [dataclasses.replace(result, seconds=0) for result in expected]


INTERRUPTED = """
import signal, sys
from pathlib import Path
from test_checkpoint import PREPROCESSING
from test_loop import RECIPE, small_network
from squeezekit.data.folders import scan
from squeezekit.training.batches import TrainingData
from squeezekit.training.checkpoint import Checkpoints
from squeezekit.training.loop import fit
from squeezekit.trainable.network import TrainableNetwork

def interrupt(task, done, total):
    if done == 5:
        signal.raise_signal(signal.SIGINT)

data = TrainingData(scan(Path(sys.argv[1])), PREPROCESSING, threads=1)
before = signal.getsignal(signal.SIGINT)
try:
    fit(TrainableNetwork(small_network()), data, RECIPE,
        checkpoints=Checkpoints(Path(sys.argv[2]), seconds=1000), progress=interrupt)
except KeyboardInterrupt:
    sys.exit(7 if signal.getsignal(signal.SIGINT) is before else 8)
"""


def test_ctrl_c_saves_the_iteration_it_came_in(image_set, data, tmp_path):
    """In a process of its own: a signal would reach whatever else runs the tests."""
    path = tmp_path / "checkpoint.pt"
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(image_set.root), str(path)],
        cwd=Path(__file__).parent, check=False,
    )  # fmt: skip
    assert done.returncode == 7
    assert torch.load(path, weights_only=True)["done"] == 5
    whole = TrainableNetwork(small_network())
    fit(whole, data, RECIPE)
    net = TrainableNetwork(small_network())
    fit(net, data, RECIPE, checkpoints=Checkpoints(path, resume=True))
    assert equal(weights(net), weights(whole))


def test_a_finished_run_resumes_to_itself(data, tmp_path):
    path = tmp_path / "checkpoint.pt"
    net = TrainableNetwork(small_network())
    results = fit(net, data, RECIPE, checkpoints=Checkpoints(path))
    told = []
    again = TrainableNetwork(small_network())
    resumed = fit(
        again, data, RECIPE, checkpoints=Checkpoints(path, resume=True), on_epoch=told.append
    )
    assert resumed == results == told
    assert equal(weights(again), weights(net))


def test_a_crash_while_saving_costs_nothing(data, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoints = Checkpoints(path)
    checkpoints.save({"fingerprint": "x", "done": 1})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(PowerCut))
    with pytest.raises(PowerCut):
        checkpoints.save({"fingerprint": "x", "done": 2})
    monkeypatch.undo()
    checkpoints.resume = True
    state = checkpoints.load("x")
    assert state is not None
    assert state["done"] == 1


def test_another_run_or_a_broken_file_is_refused(data, tmp_path):
    path = tmp_path / "checkpoint.pt"
    fit(TrainableNetwork(small_network()), data, RECIPE, checkpoints=Checkpoints(path))
    other = dataclasses.replace(RECIPE, seed=1)
    with pytest.raises(InputError, match="another recipe"):
        fit(
            TrainableNetwork(small_network()), data, other,
            checkpoints=Checkpoints(path, resume=True),
        )  # fmt: skip
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a checkpoint"):
        fit(
            TrainableNetwork(small_network()), data, RECIPE,
            checkpoints=Checkpoints(path, resume=True),
        )  # fmt: skip


def test_early_stopping(data):
    scores = iter([10, 30, 20, 30, 25, 40])

    def validate(net):
        return type("Scored", (), {"top1": float(next(scores))})

    recipe = dataclasses.replace(RECIPE, patience=2, keep="best")
    results = fit(TrainableNetwork(small_network()), data, recipe, validate=validate)
    assert [result.val_top1 for result in results] == [10, 30, 20, 30]


def test_the_average_of_the_weights_is_that_of_the_formula(data):
    """One iteration an epoch, decay d: average = d * before + (1 - d) * after."""
    recipe = dataclasses.replace(RECIPE, batch=30, epochs=1, learning_rate=0.1)
    before = weights(TrainableNetwork(small_network(dropout=0.0)))
    plain = TrainableNetwork(small_network(dropout=0.0))
    fit(plain, data, recipe)
    averaged = TrainableNetwork(small_network(dropout=0.0))
    fit(averaged, data, dataclasses.replace(recipe, ema=0.75))
    for name, values in weights(averaged).items():
        expected = 0.75 * before[name] + 0.25 * weights(plain)[name]
        assert np.allclose(values, expected, atol=1e-6)


TWO_PROCESSES = """
import os, sys, dataclasses, json
sys.path.insert(0, {tests!r})
from test_loop import RECIPE, small_network
from test_checkpoint import PREPROCESSING
from squeezekit.data.folders import scan
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import fit
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.recipe import Augmentation
data = TrainingData(scan({root!r}), PREPROCESSING, threads=1)
losses = []
for recipe in (
    dataclasses.replace(RECIPE, epochs=17, batch=10),
    dataclasses.replace(RECIPE, epochs=17, batch=8, augmentation=Augmentation(mixup=1.0)),
):
    net = TrainableNetwork(small_network(dropout=0.0))
    losses.append([result.loss for result in fit(net, data, recipe)])
if os.environ.get("RANK", "0") == "0":
    print(json.dumps(losses))
try:
    fit(net, data, dataclasses.replace(recipe, batch=10))
except Exception as error:
    print(error, file=sys.stderr)
"""


def test_two_processes_train_as_one(image_set, tmp_path):
    """51 iterations by torchrun with gloo: the same losses as one process, same global batch.

    With mixup too, whose pairs of images must not be torn apart.
    """
    import json

    script = tmp_path / "train.py"
    script.write_text(
        TWO_PROCESSES.format(tests=os.path.dirname(__file__), root=str(image_set.root))  # noqa: PTH120
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=env, check=True
    )
    two = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         script],
        capture_output=True, text=True, env=env, check=True,
    )  # fmt: skip
    losses = [json.loads(run.stdout.splitlines()[-1]) for run in (one, two)]
    assert np.shape(losses[0]) == (2, 17)
    assert np.abs(np.subtract(*losses)).max() < 1e-4
    assert not one.stderr
    assert "mixup in 2 processes needs a batch that 4 divides, not 10" in two.stderr
