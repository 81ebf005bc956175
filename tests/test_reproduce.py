"""The paper's tables: exact where the paper is, small where it takes training, and resumable."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.compression.prune import prune, uniform
from squeezekit.data.dataset import split
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.interop import han, safetensors_file
from squeezekit.models.catalogue import create
from squeezekit.models.fold import fold_batch_norm
from squeezekit.reproduction import figure3, table1, table2, table3, workshop
from squeezekit.reproduction.from_scratch import as_listed, imagenet_mebibytes
from squeezekit.reproduction.result import Value
from squeezekit.reproduction.table2 import Family, Given, Table2, reproduce_table2
from squeezekit.reproduction.workshop import Workshop
from squeezekit.runtime.loading import load
from squeezekit.sqz import container
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Augmentation, Recipe

TINY = Recipe(
    epochs=1, batch=8, learning_rate=0.01, precision="float32", variant="modern",
    augmentation=Augmentation(mirror=False),
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("reproduce") / "photos"
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 3)):
        for name, low in (("dark", 0), ("bright", 128)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(low, low + 128, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


# ------------------------------------------------------------------------------------------ table 1


@pytest.fixture(scope="module")
def published(shared_data):
    return table1.reproduce_table1(han.read(shared_data / "han-2016" / "compressed_SqueezeNet.net"))


def test_table_1_is_exact_where_the_file_allows(published):
    for row in published.rows:
        assert row.values["parameters"].deviation("count") == 0
        assert row.values["together"].deviation("count") == 0
        assert abs(row.values["after_pruning"].deviation("count")) < 1.6
        given, printed = row.values["density"].ours, row.values["density"].paper
        if printed:
            pairs = zip(given.split(" / "), printed.split(" / "), strict=True)
            assert all(abs(int(a) - int(b)) <= 1 or (a, b) == ("30", "33") for a, b in pairs)


def test_table_1_accounts_for_every_weight(published):
    assert published.details["nonzero_weights"] == 415_921  # paper.md
    total = published.rows[-1].values
    assert (total["after_pruning"].ours, total["shared_to_zero"].ours) == (419_897, 1_201)
    assert total["together"].ours == total["together"].paper == 421_098


def test_table_1_is_of_one_network_only():
    with pytest.raises(InputError, match=r"SqueezeNet v1\.0 with 1000 classes"):
        table1.reproduce_table1(create("squeezenet-1.1"))
    with pytest.raises(InputError, match=r"SqueezeNet v1\.0 with 1000 classes"):
        table1.reproduce_table1(create("squeezenet-1.0", classes=10))


# ------------------------------------------------------------- figure 3: sizes, no training


@pytest.mark.parametrize("sweep", figure3.SWEEPS.values(), ids=figure3.SWEEPS)
def test_figure_3_has_the_papers_sizes(sweep):
    for (ratio, share), (megabytes, _) in sweep.items():
        size = imagenet_mebibytes(figure3.point(ratio, share))
        assert as_listed(size) == megabytes
        assert size <= megabytes < size * 1.035  # before rounding up


def test_sizes_are_listed_as_ls_does():
    assert [as_listed(s) for s in (4.762, 4.7, 9.91, 18.01, 24.0)] == [4.8, 4.7, 10.0, 19, 24]


# ----------------------------------------------------------------------------------- training


def tiny_table2(monkeypatch):
    """The seven rows on networks that train in a blink."""

    def small(name, input_size=None, labels=(), seed=0, variant="modern"):
        from squeezekit.models.alexnet import AlexNetConfig, alexnet

        if name == "alexnet":
            config = AlexNetConfig(classes=2, input_size=67, hidden=64, batch_norm=True)
            return alexnet(config, labels=labels, seed=seed)
        from squeezekit.models.squeezenet import squeezenet, v1_1

        config = dataclasses.replace(v1_1(2, 32), batch_norm=True, final_relu=False)
        return squeezenet(config, labels=labels, seed=seed)

    monkeypatch.setattr(table2.catalogue, "create", small)
    family = {"rounds": 1, "retrain_epochs": 1, "factored_epochs": 1, "centroid_epochs": 1}
    return Table2(
        alexnet=Family("alexnet", TINY, **family),
        squeezenet=Family("squeezenet-1.1", TINY, **family),
    )


def test_table_2_measures_files_and_goes_on_after_an_interruption(photos, tmp_path, monkeypatch):
    config = tiny_table2(monkeypatch)
    trainings = []
    train_run = workshop.train_run

    def counted(*arguments, **settings):
        trainings.append(arguments[2].name)
        if len(trainings) == 4:
            raise KeyboardInterrupt
        return train_run(*arguments, **settings)

    monkeypatch.setattr(workshop, "train_run", counted)
    settings = {"config": config}
    with pytest.raises(KeyboardInterrupt):
        reproduce_table2(Workshop(tmp_path, photos, settings), config, Given())
    assert (tmp_path / "alexnet-pruned.sqz").exists()  # what was finished is there
    result = reproduce_table2(Workshop(tmp_path, photos, settings), config, Given())
    again = reproduce_table2(Workshop(tmp_path, photos, settings), config, Given())
    # Only the one that was interrupted ran twice, and the third command trained nothing.
    assert sorted(trainings) == sorted(
        ["alexnet", "alexnet-svd", "alexnet-pruned-1", *2 * ["alexnet-deep-centroids"],
         "squeezenet", "squeezenet-pruned-1", "squeezenet-8bit-centroids",
         "squeezenet-6bit-centroids"]
    )  # fmt: skip
    assert again.as_json() == result.as_json()
    names = [row["row"] for row in result.as_json()["rows"]]
    assert names == [printed[0] for printed in table2.PAPER]
    held_out = split(photos, "val")
    for name, row in zip(
        ("alexnet", "alexnet-svd", "alexnet-pruned", "alexnet-deep", "squeezenet",
         "squeezenet-8bit", "squeezenet-6bit"), result.rows, strict=True,
    ):  # fmt: skip
        path = tmp_path / f"{name}.sqz"
        assert row.values["file_bytes"].ours == path.stat().st_size
        assert row.values["top1"].ours == evaluate(load(path), held_out).top1
    times = [row.values["own_times"].ours for row in result.rows]
    assert times[0] == times[4] == 1
    assert times[1] > 3
    assert times[2] > 2
    assert times[3] > 2 * times[2]
    assert times[6] > times[5] > 4
    shared = container.read(tmp_path / "alexnet-deep.sqz").tensors
    assert len(shared["fc6.weight"].centroids) <= 32
    assert len(shared["conv2.weight"].centroids) > 32


def test_what_knows_the_classes_teaches_and_its_zeros_stay(photos, tmp_path, monkeypatch):
    config = tiny_table2(monkeypatch)
    start = table2.catalogue.create("squeezenet-1.1", labels=("bright", "dark"))
    start = fold_batch_norm(start)
    start = prune(start, uniform(start, 0.5))
    path = tmp_path / "start.safetensors"
    safetensors_file.write(start, path)
    told = {}
    train_run = workshop.train_run

    def seen(network, data, out, recipe, **settings):
        told[out.name] = (recipe, settings["teacher"], settings["masked"])
        return train_run(network, data, out, recipe, **settings)

    monkeypatch.setattr(workshop, "train_run", seen)
    fast = {"epochs": 1, "batch": 8, "precision": "float32"}
    family = dataclasses.replace(
        config.squeezenet,
        finetune=dataclasses.replace(recipes.finetune(), **fast),
        recover=dataclasses.replace(recipes.recover(), **fast),
    )
    config = dataclasses.replace(config, squeezenet=family)
    shop = Workshop(tmp_path / "out", photos, {})
    reproduce_table2(shop, config, Given(init_squeezenet=path))
    recipe, teacher, masked = told["squeezenet"]
    assert recipe == family.finetune
    assert masked
    same = start.tensors["conv10.weight"], teacher.tensors["conv10.weight"]
    np.testing.assert_array_equal(*same)
    assert told["squeezenet-pruned-1"][0] == family.recover
    zeros = start.tensors["fire2.expand3x3.weight"] == 0
    trained = container.read(tmp_path / "out" / "squeezenet.sqz")
    assert not trained.tensors["fire2.expand3x3.weight"][zeros].any()


def test_other_settings_do_not_mix(photos, tmp_path):
    Workshop(tmp_path, photos, {"recipe": TINY})
    Workshop(tmp_path, photos, {"recipe": TINY})
    with pytest.raises(InputError, match="holds results of other settings"):
        Workshop(tmp_path, photos, {"recipe": dataclasses.replace(TINY, epochs=2)})


def test_table_3_gives_mean_and_spread(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(table3, "PAPER", table3.PAPER[:2])
    shop = Workshop(tmp_path, photos, {})
    result = table3.reproduce_table3(shop, TINY, seeds=(0, 1), input_size=32)
    for row in result.rows:
        each = result.details["top1_by_seed"][row.name]
        assert row.values["top1"].ours == np.mean(each)
        assert row.values["top1"].spread == pytest.approx(np.std(each, ddof=1))
        assert row.values["size"].ours == row.values["size"].paper


def test_the_command_leaves_json_and_a_page(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        figure3, "SWEEPS", {"squeeze ratio": {(0.125, 0.5): (4.8, 80.3)}, "share of 3x3": {}}
    )
    monkeypatch.setattr(figure3, "SQUEEZE_RATIO", figure3.SWEEPS["squeeze ratio"])
    arguments = ["reproduce", "figure3", "--data", str(photos), "--out", str(tmp_path / "f3"),
                 "--epochs", "1", "--input-size", "32", "--set", "batch=8",
                 "--set", "precision=float32"]  # fmt: skip
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["rows"][0]["size"] == {"ours": 4.8, "paper": 4.8, "deviation": 0.0}
    assert json.loads((tmp_path / "f3" / "results.json").read_text())["rows"] == content["rows"]
    page = (tmp_path / "f3" / "report.html").read_text(encoding="utf-8")
    assert "Figure 3" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    table = CliRunner().invoke(app, arguments)
    assert "MiB at 1000 classes" in " ".join(table.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["table9"], "table1, table2"), (["table2"], "needs photos: name a folder of class folders")],
)
def test_wrong_commands_are_one_sentence(arguments, message):
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_deviations_are_points_or_percent():
    assert Value(59.0, 57.5).deviation("percent") == 1.5
    assert Value(11.0, 10.0).deviation("bytes") == pytest.approx(10)
    assert Value(None, 10.0).deviation("bytes") is Value(3.0).deviation("times") is None
