"""What a training run and a compression leave to look at: honest, safe, and never in the way."""

import dataclasses
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.compression.stages import Stage
from squeezekit.evaluation import Evaluation, accuracy_interval
from squeezekit.files import read_bytes
from squeezekit.front import leave_report
from squeezekit.models import catalogue
from squeezekit.report.classes import class_results, confused_pairs
from squeezekit.report.compress_report import write_compress_report
from squeezekit.report.model_card import in_words, model_card, settings
from squeezekit.report.run_report import run_page, write_run_report
from squeezekit.sqz import container
from squeezekit.sqz.network import CAFFE, TORCHVISION, Preprocessing
from squeezekit.training import recipe as recipes
from squeezekit.training.run import train_run
from squeezekit.training.start import start_of

NASTY = "<script>alert(1)</script>|*x*"
QUICK = recipes.with_settings(recipes.plain(), ["epochs=1", "batch=4", "precision=float32"])


def trained(data, out, recipe=QUICK):
    network = start_of(data, recipe, model="squeezenet-digits").network
    return train_run(network, data, out, recipe)


@pytest.fixture
def run(make_images, tmp_path):
    data = make_images({"cat": 8, "dog": 10})
    (data / "dog" / "broken.png").write_bytes(b"no image")
    return trained(data, tmp_path / "run")


def renamed(run, *labels):
    metadata = dataclasses.replace(run.network.metadata, labels=labels)
    return dataclasses.replace(run, network=dataclasses.replace(run.network, metadata=metadata))


def evaluation(targets, predicted) -> Evaluation:
    targets, predicted = np.array(targets), np.array(predicted)
    right = 100 * float((targets == predicted).mean())
    return Evaluation(
        top1=right, top5=100.0, images=len(targets), skipped=(), seconds=1.0, targets=targets,
        ranked=predicted[:, np.newaxis], confidence=np.full(len(targets), 0.5, np.float32),
        paths=(),
    )  # fmt: skip


def asks_nothing_of_the_network(html):
    addresses = re.findall(r'(?:src|href|action)\s*=\s*"([^"]*)"', html)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "<script" not in html


# --------------------------------------------------------------------------------------- classes


def test_class_results_count_and_sort():
    found = class_results(
        evaluation([0, 0, 1, 1, 1], [0, 1, 1, 1, 1]), ["a", "b", "c"], np.array([5, 6, 7])
    )
    assert [(c.label, c.trained, c.images, c.right) for c in found] == [
        ("a", 5, 2, 1), ("b", 6, 3, 3), ("c", 7, 0, 0),
    ]  # fmt: skip
    assert [c.accuracy for c in found] == [50.0, 100.0, None]


def test_confused_pairs_come_worst_first():
    pairs = confused_pairs(evaluation([0, 0, 0, 1, 2, 2], [1, 1, 0, 0, 2, 1]), ["a", "b", "c"])
    assert [(p.truth, p.predicted, p.count, p.images) for p in pairs] == [
        ("a", "b", 2, 3), ("b", "a", 1, 1), ("c", "b", 1, 2),
    ]  # fmt: skip
    assert confused_pairs(evaluation([0, 1], [0, 1]), ["a", "b"]) == []


def test_accuracy_interval_is_wilson_s():
    # 81 of 263: the example of Newcombe 1998, "Two-sided confidence intervals", Table I.
    assert accuracy_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.005)
    assert accuracy_interval(0, 20) == pytest.approx((0, 16.11), abs=0.005)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_accuracy_interval_holds_the_accuracy(counts):
    right, images = counts
    low, high = accuracy_interval(right, images)
    assert 0 <= low <= 100 * right / images + 1e-9
    assert 100 * right / images - 1e-9 <= high <= 100


# ------------------------------------------------------------------------------------------ page


def test_run_folder_holds_what_people_look_at(run, tmp_path):
    out = tmp_path / "run"
    page = write_run_report(run, out, data=tmp_path / "data", command="squeezekit train")
    assert {path.name for path in out.iterdir()} >= {
        "weights.safetensors", "recipe.json", "results.csv", "report.html", "MODEL_CARD.md",
    }  # fmt: skip
    html = page.read_text(encoding="utf-8")
    asks_nothing_of_the_network(html)
    for part in ("learning", "mistakes", "classes", "sample", "recipe", "made", "next"):
        assert f'<h2 id="{part}">' in html
    assert f"{run.evaluation.top1:.1f}% right" in html
    assert html.count('alt="A training image of') == 4
    assert "batch=4" in html
    assert "broken.png" in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_hostile_names_are_escaped(run, tmp_path):
    bad = renamed(run, NASTY, "dog")
    html = run_page(bad, tmp_path / NASTY[:8], data=tmp_path / NASTY[:8], command=NASTY)
    asks_nothing_of_the_network(html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    card = model_card(bad, NASTY)
    assert "<script" not in card
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\|\*x\*" in card


def test_150_classes(make_images, tmp_path):
    names = [f"class {i}" for i in range(150)]
    data = make_images(dict.fromkeys(names, 2), size=(9, 9))
    run = trained(data, tmp_path / "run", dataclasses.replace(QUICK, batch=50))
    html = run_page(run, tmp_path / "run", data=data, command="")
    assert "Tells class 0, class 1, class 10," in html
    assert "and 138 more apart" in html
    assert "The most confused classes" in html
    assert "Confusion matrix" not in html
    assert "130 more classes" in html
    assert "top-5" in html
    assert all(f">{name}</th>" in html for name in names)
    card = model_card(run, "photos")
    assert "The 20 least accurate of 150" in card
    assert all(name in card for name in names)


def test_a_run_without_epochs_has_a_page(make_images, tmp_path):
    data = make_images({"cat": 4, "dog": 4})
    run = trained(data, tmp_path / "run", dataclasses.replace(QUICK, epochs=0))
    html = run_page(run, tmp_path / "run", data=data, command="")
    assert '<h2 id="learning">' not in html
    assert '<h2 id="sample">' not in html


def test_a_warning_of_the_training_is_seen(run, tmp_path):
    stuck = dataclasses.replace(run.results[0], warning="the loss does not fall")
    run = dataclasses.replace(run, results=[stuck, stuck])
    html = run_page(run, tmp_path, data=tmp_path, command="")
    assert html.count("the loss does not fall") == 1
    assert "the loss does not fall" in model_card(run, "photos")


# ------------------------------------------------------------------------------------------ card


def test_card_says_what_it_promises(run):
    run = dataclasses.replace(
        run,
        network=dataclasses.replace(
            run.network,
            metadata=dataclasses.replace(
                run.network.metadata, licence="BSD-2-Clause", provenance=("published", "trained")
            ),
        ),
    )
    card = model_card(run, "photos")
    for part in ("Accuracy", "Classes", "Data", "Input", "Training", "Where", "Limits", "Use"):
        assert f"\n## {part}" in card
    assert "also for images of none of them" in card
    assert re.search(rf"top-1 accuracy \| {run.evaluation.top1:.1f}%", card)
    assert re.search(rf"\| images \| {run.evaluation.images} \|", card)
    assert (
        f"{run.data.images} photos to train on and {run.evaluation.images} to measure with" in card
    )
    assert "1 that could not be read" in card
    assert "Licence of the weights that training started from: BSD-2-Clause" in card
    assert "1. published\n2. trained" in card
    assert re.search(r"\| cat \| \d \| \d \|", card)
    assert "/" not in card.partition("## Use")[0].replace("1/255", "")  # nobody's folders


def test_photos_that_chose_the_epoch_do_not_tell_the_accuracy(make_images, tmp_path):
    data = make_images({"cat": 20, "dog": 20})
    run = trained(data, tmp_path / "run", dataclasses.replace(QUICK, keep="best"))
    assert (run.evaluation.images, len(run.parts.choosing)) == (4, 4)
    assert set(run.evaluation.paths).isdisjoint(run.parts.choosing.paths)
    card = model_card(run, "photos")
    assert "4 others were held out too and chose the epoch" in card
    assert "flattering" not in card
    tiny = dataclasses.replace(
        run, parts=dataclasses.replace(run.parts, choosing=run.parts.measuring)
    )
    assert "flattering" in model_card(tiny, "photos")


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_settings_are_those_that_make_the_recipe(name):
    recipe = recipes.named(name)
    assert recipes.with_settings(recipes.Recipe(epochs=7), settings(recipe)) == recipe


def test_preprocessing_in_words():
    caffe, torchvision = "; ".join(in_words(CAFFE)), "; ".join(in_words(TORCHVISION))
    for text in ("blue, green, red", "256 x 256", "227 x 227", "multiplied by 1;", "104, 117, 123"):
        assert text in caffe
    for text in ("short side has 256", "224 x 224", "1/255", "0.485, 0.456, 0.406", "(N, 3, 224"):
        assert text in torchvision
    assert "greyscale" in in_words(Preprocessing(8, 8, color="L", mean=(0.5,), std=(1.0,)))[0]


# --------------------------------------------------------------------------- never in the way


def test_a_report_that_fails_leaves_the_training(run, tmp_path, monkeypatch):
    import squeezekit.report.run_report as module

    def fail(*arguments, **named):
        raise RuntimeError("no ink")

    monkeypatch.setattr(module, "run_page", fail)
    told = []
    assert leave_report(run, tmp_path / "data", "", told.append) is None
    (said,) = told
    assert "the weights are in" in said
    assert "no ink" in said
    assert (tmp_path / "run" / "weights.safetensors").exists()
    monkeypatch.setitem(sys.modules, "squeezekit.report.run_report", None)  # as if not installed
    assert leave_report(run, tmp_path / "data", "", told.append) is None


def test_only_the_first_process_writes(run, tmp_path):
    (tmp_path / "other").mkdir()
    other = dataclasses.replace(run, writes=False, folder=tmp_path / "other")
    assert leave_report(other, tmp_path / "data", "", print) is None
    assert not list((tmp_path / "other").iterdir())


# ----------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("measured", [True, False])
def test_page_of_a_compression(measured, tmp_path):
    labels = ("cat", NASTY, *map(str, range(8)))
    network = catalogue.create("squeezenet-digits", labels=labels)
    sqz = tmp_path / "small.sqz"
    container.write(network, sqz)
    top1 = 50.0 if measured else None
    size = len(read_bytes(sqz))
    stages = [Stage(name, network, size, top1, top1, 1.0) for name in ("float32", "coded")]
    found = evaluation([0, 1], [0, 1]) if measured else None
    page = tmp_path / "page.html"
    write_compress_report(page, sqz, stages, found, command="squeezekit compress", seconds=3.0)
    html = page.read_text(encoding="utf-8")
    asks_nothing_of_the_network(html)
    assert '<h2 id="stages">' in html
    assert ('<h2 id="mistakes">' in html) == measured
    assert ("accuracy was not measured" in html) == (not measured)
