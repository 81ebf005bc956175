"""Spaces of designs, the rule that stops trials, and an exploration from command to page."""

import dataclasses
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from typer.testing import CliRunner

from squeezekit.cli.verbs import app
from squeezekit.data.dataset import split
from squeezekit.data.digits import write_digits
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.exploration import space as spaces
from squeezekit.exploration.page import beaten, importances, page
from squeezekit.exploration.run import Exploration, ExploreConfig, Result, explore
from squeezekit.exploration.space import Design, designed
from squeezekit.exploration.study import STOPPED, TICKET, Ticket
from squeezekit.exploration.trial import CURVE, FILE, Plan, StoppingRule
from squeezekit.models import squeezenet
from squeezekit.models.cost import cost
from squeezekit.runtime.loading import load
from squeezekit.training import recipe

# ------------------------------------------------------------------------------------------ spaces


@pytest.mark.parametrize("base", [squeezenet.v1_0(), squeezenet.v1_1(), squeezenet.digits()])
def test_first_point_of_a_search_is_the_base_network(base):
    """So the pools of v1.0 and v1.1 can be said by three numbers."""
    first = spaces.everything(base).points[0]
    assert designed(Design(base), first) == Design(base, density=0.33, bits=6)


@pytest.mark.parametrize("base", [squeezenet.v1_0(), squeezenet.v1_1(), squeezenet.digits()])
@pytest.mark.parametrize("name", spaces.SPACES)
def test_points_lie_in_the_ranges(name, base):
    space = spaces.named(name, base)
    for point in space.points:
        assert point.keys() == space.ranges.keys()
        for key, value in point.items():
            among = space.ranges[key]
            assert among._contains(among.to_internal_repr(value)), (key, value)


@pytest.mark.parametrize(
    ("name", "varied", "megabytes"),
    [
        ("sr", "squeeze_ratio", {0.125: 4.8, 0.5: 13, 0.75: 19, 1.0: 24}),
        ("pct_3x3", "pct_3x3", {0.01: 5.7, 0.5: 13, 0.99: 21}),
    ],
)
def test_grids_are_the_papers_figure_3(name, varied, megabytes):
    """The sizes that the paper prints, of float32 networks with 1000 classes, within 5%."""
    base = squeezenet.v1_0()
    points = {point[varied]: point for point in spaces.named(name, base).points}
    for value, size in megabytes.items():
        config = designed(Design(base), points[value]).network
        parameters = squeezenet.squeezenet(config).parameters
        assert 4 * parameters / 1e6 == pytest.approx(size, rel=0.05)


def test_bypass_is_the_papers_table_3():
    base = squeezenet.v1_0()
    networks = [designed(Design(base), point).network for point in spaces.bypass(base).points]
    assert [n.bypass for n in networks] == ["none", "simple", "complex"]
    assert squeezenet.squeezenet(networks[2]).parameters == 1_589_672


@settings(max_examples=60)
@given(st.data())
def test_any_values_give_a_network_or_a_reason(data):
    """Whatever the sampler chooses; and input size, kernel and width arrive where they belong."""
    base = squeezenet.digits()
    values = {
        name: data.draw(_value(among)) for name, among in spaces.everything(base).ranges.items()
    }
    config = designed(Design(base), values).network
    assert config.conv1_pad == values["conv1_kernel"] // 2
    assert len(config.pool_after) <= values["pools"]
    try:
        network = squeezenet.squeezenet(config)
    except InputError:  # pools may leave nothing of a small image
        return
    assert network.metadata.preprocessing.crop == values["input_size"]
    conv1 = network.tensors["conv1.weight"].shape
    assert conv1 == (values["conv1_filters"], 1, *[values["conv1_kernel"]] * 2)


def _value(among):
    if isinstance(among, CategoricalDistribution):
        return st.sampled_from(among.choices)
    if isinstance(among, IntDistribution):
        return st.integers(among.low, among.high)
    if among.step:
        steps = round((among.high - among.low) / among.step)
        return st.integers(0, steps).map(lambda i: among.low + i * among.step)
    return st.floats(among.low, among.high)


def test_no_such_space():
    with pytest.raises(InputError, match="there is no space 'size': use sr, pct_3x3, bypass, all"):
        spaces.named("size", squeezenet.v1_0())


# ------------------------------------------------------------------------------- the stopping rule


def finished(number, top1, file_bytes, macs, curve=(), **values):
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        values=(top1, file_bytes, macs),
        params=values,
        distributions={
            name: spaces.everything(squeezenet.digits()).ranges[name] for name in values
        },
        user_attrs={TICKET: number, CURVE: list(curve), FILE: f"trial-{number:04d}.sqz"},
    )


OTHERS = [
    finished(0, 90.0, 1000, 500, [40.0, 70.0, 88.0]),
    finished(1, 80.0, 100, 50, [60.0, 70.0, 79.0]),
]
RULE = StoppingRule(finished=2)


def test_stops_what_the_largest_gain_would_leave_behind():
    # From epoch 1 on, trial 0 gained 50 points and trial 1 gained 20.
    verdict = RULE.verdict(39.0, 2000, 900, 1, OTHERS)
    assert verdict.startswith(
        "39.0% after epoch 1; the largest gain since then, 50.0 points, would"
    )
    assert "behind trial 0, which is no larger and no slower and has 90.0%" in verdict
    assert not RULE.verdict(40.0, 2000, 900, 1, OTHERS)
    # From epoch 2 on, 20 and 10.
    assert RULE.verdict(69.9, 2000, 900, 2, OTHERS)
    assert not RULE.verdict(70.0, 2000, 900, 2, OTHERS)


@pytest.mark.parametrize(("file_bytes", "macs"), [(999, 900), (2000, 499), (99, 49)])
def test_never_stops_what_is_smaller_or_quicker_than_all_that_are_better(file_bytes, macs):
    assert not RULE.verdict(39.0, file_bytes, macs, 1, OTHERS)


def test_judges_nobody_before_there_is_something_to_judge_by():
    assert not StoppingRule(finished=3).verdict(0.0, 2000, 900, 1, OTHERS)


def test_judges_after_thirds_but_never_in_the_end():
    assert StoppingRule().epochs(9) == {3, 6}
    assert StoppingRule().epochs(2) == {1}
    assert StoppingRule().epochs(1) == set()


# ------------------------------------------------------------------------------ results and a page


def exploration(trials, stopped=0, name="all <photos>"):
    tickets = [Ticket(number, (trial,)) for number, trial in enumerate(trials)]
    for _ in range(stopped):
        trial = optuna.trial.create_trial(
            state=TrialState.PRUNED, user_attrs={TICKET: len(tickets), STOPPED: "far <behind>"}
        )
        tickets.append(Ticket(len(tickets), (trial,)))
    base = squeezenet.digits()
    return Exploration(
        name=name,
        storage="sqlite:///study.db",
        tickets=tuple(tickets),
        space=spaces.everything(base),
        plan=Plan(Design(base), recipe.digits()),
        images="",
        folder=Path("networks"),
        has_test=False,
        seconds=1.0,
    )


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_front_is_what_nothing_dominates(values):
    def dominates(a, b):
        return a != b and a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2]

    trials = [finished(number, *v, bits=6) for number, v in enumerate(values)]
    found = [result.on_front for result in exploration(trials).results]
    assert found == [not any(dominates(other, v) for other in values) for v in values]


def test_beaten_compares_with_the_best_of_no_more_bytes():
    def result(trial, top1, file_bytes, given):
        return Result(trial, top1, file_bytes, 1, None, False, given, "", {})

    pairs = beaten(
        [
            result(0, 95.0, 100, True), result(1, 80.0, 10, True),
            result(2, 96.0, 100, False), result(3, 94.0, 50, False), result(4, 99.0, 101, False),
        ]
    )  # fmt: skip
    assert [(p.paper.trial, p.best and p.best.trial) for p in pairs] == [(0, 2), (1, None)]


@pytest.fixture(scope="module")
def search():
    """Forty trials of a search whose accuracy is told by its bits, and whose bytes by its width."""
    base = squeezenet.digits()
    space = spaces.everything(base)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    trials = []
    for number in range(40):
        values = (
            space.points[number]
            if number < len(space.points)
            else study.ask(dict(space.ranges)).params
        )
        top1 = 60 + 5 * values["bits"] - 0.01 * values["fires"]
        file_bytes = 100 * values["base_e"] + values["fires"]
        trials.append(finished(number, top1, file_bytes, 7 * values["base_e"] ** 2, **values))
    return exploration(trials, stopped=2)


def test_importances_find_what_decides(search):
    found = importances(search)
    assert {result: max(shares, key=shares.get) for result, shares in found.items()} == {
        "top-1": "bits",
        "bytes": "base_e",
        "MACs": "base_e",
    }
    for shares in found.values():
        assert sum(shares.values()) == pytest.approx(1.0)


def test_page_is_one_file_and_escapes(search):
    html = page(search, command="squeezekit explore --data '<x>'")
    assert not re.search(r"https?:|@import|url\((?!#)|<script", html)
    assert html.count("<svg") == html.count('role="img"') == 3
    for part in (
        "Against the paper's metaparameters",
        "What decides",
        "2 stopped",
        "far &lt;behind",
    ):
        assert part in html
    assert "all &lt;photos&gt;" in html
    assert "<photos>" not in html
    assert "<x>" not in html
    front = [result for result in search.results if result.on_front]
    assert html.count('<th scope="row">') >= len(front)
    assert all(f"{result.file_bytes:,}" in html for result in front)


# --------------------------------------------------------------------------------------- all of it


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory):
    """Ten digits of each class to train on, five held out, five to test."""
    folder = tmp_path_factory.mktemp("explore") / "digits"
    write_digits(folder)
    (folder / "test").mkdir()
    for part, count in (("train", 10), ("val", 5)):
        for cls in (folder / part).iterdir():
            images = sorted(cls.iterdir())
            if part == "val":
                (folder / "test" / cls.name).mkdir()
                for image in images[count : 2 * count]:
                    image.rename(folder / "test" / cls.name / image.name)
            for image in sorted(cls.iterdir())[count:]:
                image.unlink()
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["explore", *[str(a) for a in arguments]])


def test_explores_a_grid(few_digits, tmp_path):
    """Bytes and accuracy are those of the files, and the same command finds all of it done."""
    arguments = ("--data", few_digits, "--space", "sr", "--trials", 2, "--epochs", 1)
    first = run(*arguments, "--out", tmp_path / "out", "--json")
    assert first.exit_code == 0, first.output
    content = json.loads(first.stdout)
    assert content["trials"] == len(content["finished"]) == 2
    assert [r["values"]["squeeze_ratio"] for r in content["finished"]] == [0.125, 0.25]
    held_out, test = split(few_digits, "val"), split(few_digits, "test")
    for result in content["finished"]:
        path = tmp_path / "out" / "networks" / result["file"]
        assert result["file_bytes"] == path.stat().st_size
        file = load(path)
        assert result["top1"] == pytest.approx(evaluate(file, held_out).top1)
        assert result["test_top1"] == pytest.approx(evaluate(file, test).top1)
        base = dataclasses.replace(squeezenet.digits(), batch_norm=False)
        config = designed(Design(base), result["values"]).network
        assert result["macs"] == cost(squeezenet.squeezenet(config)).macs
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("<svg") == 2
    again = json.loads(run(*arguments, "--out", tmp_path / "out", "--json").stdout)
    assert again["finished"] == content["finished"]
    other = run(*arguments[:-1], 2, "--out", tmp_path / "out")
    assert isinstance(other.exception, InputError)
    assert "was begun with epochs 1, not 2" in str(other.exception)


def test_searches(few_digits, tmp_path, monkeypatch):
    """One trial that is given, and one that the sampler chooses; Ctrl-C leaves both to go on."""
    base = squeezenet.digits()
    small = dataclasses.replace(
        spaces.everything(base), points=(spaces.everything(base).points[7],)
    )
    monkeypatch.setitem(spaces.SPACES, "all", lambda base: small)
    config = ExploreConfig(space="all", trials=2, epochs=1)
    noted, paused = [], []

    def interrupt(task, done, total):
        if task.startswith("trial 1:"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(few_digits, tmp_path, config, progress=interrupt, on_pause=paused.append)
    assert len(paused[0].finished) == 1
    found = explore(few_digits, tmp_path, config, note=noted.append)
    assert len(found.finished) + len(found.stopped) == 2
    assert found.retried <= 1
    assert any(line.endswith("2 of 2 trials") for line in noted)
    assert found.results[0].given
    assert np.isfinite([trial.values for trial in found.finished]).all()


def test_a_full_disk_loses_no_trial(few_digits, tmp_path, monkeypatch):
    """The command says so and fails; when there is room, it does what is missing."""
    arguments = ("--data", few_digits, "--space", "sr", "--trials", 2, "--epochs", 1)
    arguments += ("--out", tmp_path / "out", "--json")
    real = os.replace

    def no_room(source, target):
        if str(target).endswith("trial-0001.sqz"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as full:
        full.setattr(os, "replace", no_room)
        for _ in range(2):
            failed = run(*arguments)
            assert isinstance(failed.exception, InputError)
            assert "No space left on device" in str(failed.exception)
            assert failed.stdout == ""
    found = json.loads(run(*arguments).stdout)
    assert [result["trial"] for result in found["finished"]] == [0, 1]
    assert not found["failed"]
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_missing_trial_is_no_success(few_digits, tmp_path, monkeypatch):
    """What is there is shown, and the exit status says that something is not."""

    def diverges(*arguments, **options):
        raise InputError("training diverged in epoch 1")

    monkeypatch.setattr("squeezekit.exploration.trial.fit", diverges)
    result = run(
        "--data", few_digits, "--space", "sr", "--trials", 2, "--epochs", 1,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert isinstance(result.exception, InputError)
    assert "2 of 2 trials failed (trial 0: training diverged in epoch 1)" in str(result.exception)
    assert json.loads(result.stdout)["failed"].keys() == {"0", "1"}


def test_a_folder_is_one_studys(few_digits, tmp_path):
    """Files are named by trial: those of another study would replace them."""
    (tmp_path / "study.json").write_text('{"study": "mine"}')
    result = run("--data", few_digits, "--space", "sr", "--out", tmp_path)
    assert isinstance(result.exception, InputError)
    assert "holds the networks of the study 'mine'" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--space", "sr", "--trials", "9"), "the grid sr has 8 points, not 9"),
        (("--space", "sr", "--trials", "0"), "a study has at least 1 trial, not 0"),
        (("--space", "sr", "--epochs", "0"), "training takes at least 1 epoch, not 0"),
        (("--space", "x"), "there is no space 'x'"),
        (("--model", "alexnet"), "alexnet has no metaparameters to explore"),
        (("--storage", "x"), "the storage must be the address of a PostgreSQL database"),
    ],
)
def test_what_cannot_be_explored(few_digits, tmp_path, arguments, sentence):
    result = run("--data", few_digits, "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, InputError)
    assert sentence in str(result.exception)
