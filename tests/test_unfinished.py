"""A run that was interrupted can be used: its weights so far, and a sentence that says so."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import squeezekit as sk
from squeezekit.interop.weights import SO_FAR
from squeezekit.models.builder import GraphBuilder, he
from squeezekit.sqz.network import Metadata, Preprocessing
from squeezekit.training import recipe as recipes
from squeezekit.training.run import train_run
from squeezekit.training.start import start_of

RECIPE = dataclasses.replace(recipes.finetune(), precision="float32", batch=12, epochs=3)


def network():
    net = GraphBuilder(3, 8, 8)
    x = net.relu("relu1", net.conv("conv1", net.image, 12, 3, pad=1, init=he))
    x = net.conv("conv2", x, 2, 1, init=he)
    x = net.flatten("flatten", net.global_average_pool("pool", x))
    preprocessing = Preprocessing(crop=8, resize=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    return net.build(x, Metadata("small", preprocessing, labels=("x", "y")), seed=1)


@pytest.fixture
def colours(tmp_path):
    random = np.random.default_rng(0)
    for channel, name in enumerate(("green", "red")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(40):
            pixels = random.integers(0, 200, (8, 8, 3))
            pixels[..., channel] += 40
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_an_interrupted_run_is_used_with_a_note_and_resumes(colours, tmp_path, epochs):
    """Whenever it stops; and what it says is measured on photos that it has not seen."""
    out, start = tmp_path / "run", start_of(colours, RECIPE, init=network())

    def stop(task, done, total):
        if task == "train" and done > epochs * total // RECIPE.epochs:
            raise KeyboardInterrupt

    def run(**options):
        return train_run(
            start.network, colours, out, RECIPE, fresh_head=start.fresh_head, **options
        )

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    notes = []
    so_far = sk.read(out, note=notes.append)
    assert any("is not finished" in note for note in notes)
    assert so_far.metadata.labels == ("green", "red")
    measured = sk.evaluate(out, colours)
    assert measured.trained_on == 0
    assert 0 < measured.images < 80
    sk.write(so_far, tmp_path / "early.sqz")
    finished = run(resume=True)
    assert not (out / SO_FAR).exists()
    notes = []
    weights = sk.read(out, note=notes.append).values()
    assert notes == []
    assert all(np.array_equal(weights[n], v) for n, v in finished.network.values().items())
