"""No accuracy that is printed is of photos that training, calibration or a choice has seen."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import squeezekit
from squeezekit.cli.verbs import app
from squeezekit.compression import task
from squeezekit.training import batches, run

COUNTS = {"dark": 30, "grey": 30, "light": 35}
TRAIN = ("--model", "squeezenet-digits", "--set", "precision=float32", "--set", "batch=16")


@pytest.fixture
def photos(tmp_path):
    """Three classes that brightness nearly tells, and leaks: copies, and photos saved again."""
    random = np.random.default_rng(7)
    root = tmp_path / "photos"
    for level, (name, count) in enumerate(COUNTS.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            coarse = random.normal(80 + 45 * level, 45, (5, 5, 3)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
            image.save(root / name / f"{i:02}.png")
        for i in range(4):
            shutil.copy(root / name / f"{i:02}.png", root / name / f"copy of {i:02}.png")
            again = Image.open(root / name / f"{9 + i:02}.png").resize((90, 90))
            again.save(root / name / f"again {9 + i:02}.jpg", quality=70)
    return root


@pytest.fixture
def seen(monkeypatch):
    """The photos that training decodes and calibration looks at, by class and number."""
    found = set()
    decode, calibrate = batches.TrainingData, task.calibration_images

    def spied(images, *args, **settings):
        found.update(map(shown, images.paths))
        return decode(images, *args, **settings)

    def spied_calibration(paths, preprocessing, count):
        found.update(map(shown, paths))
        return calibrate(paths, preprocessing, count)

    for module in (run, task):
        monkeypatch.setattr(module, "TrainingData", spied)
    monkeypatch.setattr(task, "calibration_images", spied_calibration)
    return found


def shown(path):
    """What a photo shows, whatever its name: its class, and its number in that."""
    return path.parent.name, path.stem[-2:]


def said(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def by_hand(weights, paths):
    """Percent of photos whose folder is the first answer."""
    classify = squeezekit.load(weights)
    return 100 * float(np.mean([classify(path)[0].label == path.parent.name for path in paths]))


def listed(folder, *parts):
    """The photos of a run's parts, as its own list says."""
    with (folder / "photos.csv").open(newline="") as file:
        return {
            (row["class"], row["photo"].rpartition(".")[0][-2:])
            for row in csv.DictReader(file)
            if row["part"] in parts
        }


def everything(photos):
    return sorted(photos.glob("*/*.*"))


def exported(folder, tmp_path):
    CliRunner().invoke(app, ["export", str(folder), str(tmp_path / "run.sqz")])
    return tmp_path / "run.sqz"


@pytest.mark.parametrize("keep", ["last", "best"])
def test_training_tells_the_accuracy_on_photos_that_nothing_saw(photos, seen, tmp_path, keep):
    out = tmp_path / "run"
    found, notes = said(
        "train", "--data", photos, "--out", out, *TRAIN,
        "--set", "epochs=3", "--set", f"keep={keep}",
    )  # fmt: skip
    assert listed(out, "train") == seen
    chose = listed(out, "val") if keep == "best" else set()
    unseen = [path for path in everything(photos) if shown(path) not in seen | chose]
    assert found["images"] == len(unseen)
    assert found["top1"] == pytest.approx(by_hand(exported(out, tmp_path), unseen))
    assert found["top1_interval"][0] <= found["top1"] <= found["top1_interval"][1]
    assert ("choose the epoch" in notes) == (keep == "best")
    total = sum(COUNTS.values()) + 24
    assert len(unseen) == pytest.approx(total / 5 if keep == "last" else total / 10, abs=3)


def test_what_a_run_saw_is_known_wherever_it_lies(photos, seen, tmp_path):
    out = tmp_path / "run"
    said("train", "--data", photos, "--out", out, *TRAIN, "--set", "epochs=2")
    sqz = exported(out, tmp_path)
    moved = tmp_path / "moved"
    for i, path in enumerate(everything(photos)):
        target = moved / path.parent.name / f"{i} {path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for weights in (out, out / "weights.safetensors", sqz):
        for folder in (photos, moved):
            unseen = [path for path in everything(folder) if shown(path) not in seen]
            found, notes = said("evaluate", weights, "--data", folder)
            assert found["images"] == len(unseen)
            assert found["top1"] == pytest.approx(by_hand(sqz, unseen))
            assert found["left_out"] == len(everything(folder)) - len(unseen)
            assert "left out" in notes
            found, notes = said("evaluate", weights, "--data", folder, "--part", "all")
            assert found["top1"] == pytest.approx(by_hand(sqz, everything(folder)))
            trained = len(everything(folder)) - len(unseen)
            assert found["trained_on"] == trained
            assert f"includes {trained} photos that it was trained on" in notes
    # The run's list knows photos that were saved again, too.
    saved = tmp_path / "saved again"
    for path in everything(photos):
        target = saved / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").resize((60, 60)).save(target, quality=85)
    unseen = [path for path in everything(saved) if shown(path) not in seen]
    found, _ = said("evaluate", out, "--data", saved)
    assert found["images"] == len(unseen)
    assert found["top1"] == pytest.approx(by_hand(sqz, unseen))


def test_of_new_photos_nothing_is_claimed(photos, tmp_path):
    out = tmp_path / "run"
    said("train", "--data", photos, "--out", out, *TRAIN, "--set", "epochs=0")
    sqz = exported(out, tmp_path)
    random = np.random.default_rng(99)
    for name in COUNTS:
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(40):
            pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "new" / name / f"{i}.png")
    found, notes = said("evaluate", out, "--data", tmp_path / "new")
    assert (found["images"], found["left_out"]) == (120, 0)
    assert "trained on" not in notes
    found, notes = said("evaluate", sqz, "--data", tmp_path / "new")
    assert 0 < found["left_out"] < 20  # one in 16, by the marks
    assert "may have been trained on" in notes
    assert "was trained on" not in notes


def test_a_folder_that_was_trained_on_whole_tells_nothing(photos, seen, tmp_path):
    out = tmp_path / "run"
    said("train", "--data", photos, "--out", out, *TRAIN, "--set", "epochs=0")
    only = tmp_path / "only"
    for path in everything(photos):
        if shown(path) in seen:
            (only / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, only / path.parent.name / path.name)
    result = CliRunner().invoke(app, ["evaluate", str(out), "--data", str(only)])
    assert result.exit_code == 2 or result.exception is not None
    found, _ = said("evaluate", out, "--data", only, "--part", "all")
    assert found["trained_on"] == found["images"] == len(everything(only))


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "deep", "--epochs", "1"),
        ("--method", "prune", "--density", "0.5", "--epochs", "1"),
        ("--method", "svd", "--energy", "0.9", "--epochs", "1"),
        ("--method", "best", "--target-bytes", "40000"),
    ],
)
def test_compression_tells_the_accuracy_on_photos_that_nothing_saw(photos, seen, tmp_path, options):
    out, sqz, page = tmp_path / "run", tmp_path / "small.sqz", tmp_path / "page.html"
    said("train", "--data", photos, "--out", out, *TRAIN, "--set", "epochs=2")
    before = set(seen)
    found, _ = said("compress", out, "--data", photos, "-o", sqz, "--report", page, *options)
    assert seen == before  # what training held out is held out of retraining and calibration
    unseen = [path for path in everything(photos) if shown(path) not in seen]
    expected = by_hand(sqz, unseen)
    assert found["stages"][-1]["top1"] == pytest.approx(expected)
    assert found["stages"][0]["top1"] == pytest.approx(by_hand(exported(out, tmp_path), unseen))
    text = " ".join(page.read_text().split())
    assert f"Of {len(unseen)} photos" in text
    assert f"{expected:.1f}% right" in text
    again, _ = said("evaluate", sqz, "--data", photos)
    assert again["top1"] == pytest.approx(expected)
    assert again["images"] == len(unseen)


@pytest.mark.parametrize("options", [("--max-drop", "8"), ("--method", "svd", "--epochs", "1")])
def test_photos_that_chose_do_not_tell(photos, seen, tmp_path, options):
    out, sqz, page = tmp_path / "run", tmp_path / "small.sqz", tmp_path / "page.html"
    said("train", "--data", photos, "--out", out, *TRAIN, "--set", "epochs=2", "--set", "keep=best")
    before = set(seen)
    found, _ = said("compress", out, "--data", photos, "-o", sqz, "--report", page, *options)
    assert seen == before
    told = [path for path in everything(photos) if shown(path) in listed(out, "test")]
    assert not {shown(path) for path in told} & (seen | listed(out, "val"))
    expected = by_hand(sqz, told)
    assert found["stages"][-1]["top1"] == pytest.approx(expected)
    assert found["images"] == len(told)
    original = by_hand(exported(out, tmp_path), told)
    assert found["change"]["points"] == pytest.approx(expected - original)
    text = " ".join(page.read_text().split())
    assert (
        f"Of {len(told)} photos that training has not seen, the file gets {expected:.1f}%" in text
    )


def test_sensitivity_looks_at_photos_that_nothing_saw(photos, seen, tmp_path):
    out = tmp_path / "run"
    said("train", "--data", photos, "--out", out, *TRAIN, "--set", "epochs=2", "--set", "keep=best")
    found, _ = said("sensitivity", out, "--data", photos)
    chosen_by = [path for path in everything(photos) if shown(path) in listed(out, "val")]
    assert not {shown(path) for path in chosen_by} & seen
    assert found["images"] == len(chosen_by)
    assert found["baseline_top1"] == pytest.approx(by_hand(exported(out, tmp_path), chosen_by))
