"""An exploration: makes a study from images and a space of designs, works on it, reads it."""

from __future__ import annotations

import dataclasses
import json
import time
import zlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from squeezekit.compression.checks import at_least
from squeezekit.data.dataset import split_once
from squeezekit.data.folders import ImageSet, require_classes
from squeezekit.data.photos import name_of
from squeezekit.errors import InputError, WriteError
from squeezekit.exploration import space as spaces
from squeezekit.exploration.space import Design, Space
from squeezekit.exploration.study import (
    ERROR,
    STOPPED,
    TICKET,
    Pulse,
    SharedStudy,
    Ticket,
    database_url,
)
from squeezekit.exploration.trial import DIRECTIONS, FILE, TEST_TOP1, Images, Plan, Trials
from squeezekit.files import alone, make_folder, read_bytes, remove_half_written, write_whole
from squeezekit.models import catalogue
from squeezekit.models.squeezenet import SqueezeNetConfig
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.report import numbers
from squeezekit.runtime.images import open_image
from squeezekit.training import recipe as recipes

FILE_NAME, FOLDER, STUDY = "study.db", "networks", "study.json"
"""In the folder of an exploration: the study where no database has it, the trials' files, and whose
they are."""

_TINY_PIXELS = 32
_SEARCH_TRIALS = 100
_RANDOM_TRIALS = 8


@dataclass(frozen=True)
class ExploreConfig:
    """What to explore, and how thoroughly.

    Attributes:
        space: what varies: sr, pct_3x3 or bypass (grids), or all.
        trials: of all workers together. Default: the whole grid, or 100.
        model: the SqueezeNet of the catalogue whose metaparameters vary. Default: squeezenet-1.1,
            or squeezenet-digits for images of up to 32 pixels.
        recipe: how each trial trains. Default: modern, or digits for squeezenet-digits.
        input_size: pixels a side of the images, and the largest that the space all tries. Default:
            the model's own.
        epochs: of each trial's training. Default: the recipe's. Retraining takes as many.
        seed: starts all random numbers.
        storage: postgresql://USER:PASSWORD@HOST/DATABASE, to share the study between machines.
            Default: a file in the folder.
        study: the name of the study in the database. Default: from space and data.
        pulse: how often workers say that they are alive, and when they count as dead.
    """

    space: str = "all"
    trials: int | None = None
    model: str | None = None
    recipe: str | None = None
    input_size: int | None = None
    epochs: int | None = None
    seed: int = 0
    storage: str | None = None
    study: str | None = None
    pulse: Pulse = field(default_factory=Pulse)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        if self.input_size is not None:
            at_least("input_size", self.input_size, 1)


@dataclass(frozen=True)
class Result:
    """The result of a finished trial.

    Attributes:
        trial: the number of its ticket.
        top1: accuracy of the file on the held-out images, in percent.
        file_bytes: size of the file.
        macs: multiply-accumulates for one image.
        test_top1: accuracy on images that the search has not used; None if there are none.
        on_front: True if no other trial beats it in accuracy, bytes and MACs at once.
        given: True for a design with the paper's metaparameters, which the search tries to beat.
        file: the name of the file.
        values: the values of the metaparameters.
    """

    trial: int
    top1: float
    file_bytes: int
    macs: int
    test_top1: float | None
    on_front: bool
    given: bool
    file: str
    values: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Exploration:
    """The state of a study.

    Attributes:
        name: the name of the study.
        storage: the database, without its password.
        tickets: the trials.
        space: what varies from trial to trial.
        plan: what all trials have in common.
        images: a description of the images.
        folder: where this worker's files are.
        has_test: True if files were also measured on images that the search has not used.
        seconds: how long this worker has worked.
    """

    name: str
    storage: str
    tickets: tuple[Ticket, ...]
    space: Space
    plan: Plan
    images: str
    folder: Path
    has_test: bool
    seconds: float

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that have a file, in order, as Optuna has them."""
        return [t.last for t in self.tickets if t.last.state == TrialState.COMPLETE]

    @property
    def stopped(self) -> dict[int, str]:
        """Why trials were stopped early, by ticket."""
        return {
            ticket.number: ticket.last.user_attrs.get(STOPPED, "")
            for ticket in self.tickets
            if ticket.last.state == TrialState.PRUNED
        }

    @property
    def failed(self) -> dict[int, str]:
        """Why trials failed, by ticket."""
        return {
            ticket.number: ticket.last.user_attrs.get(ERROR, "its workers died")
            for ticket in self.tickets
            if ticket.done and ticket.last.state == TrialState.FAIL
        }

    def require_all(self) -> None:
        """Refuse a study in which trials failed; trials that were stopped early count as done.

        Raises:
            InputError: if any failed, with the first one's reason.
        """
        if failed := self.failed:
            number, reason = next(iter(failed.items()))
            raise InputError(
                f"{len(failed)} of {len(self.tickets)} trials failed (trial {number}: {reason})"
            )

    @property
    def retried(self) -> int:
        """Attempts whose workers died or gave them back."""
        return sum(len(ticket.attempts) - 1 for ticket in self.tickets)

    @property
    def results(self) -> list[Result]:
        """Of the trials that have a file, in order."""
        front = {trial.user_attrs[TICKET] for trial in self.study().best_trials}
        given = 0 if self.space.is_grid else len(self.space.points)
        return [_result(trial, front, given) for trial in self.finished]

    def study(self) -> optuna.Study:
        """The finished trials as a study of Optuna's in memory, numbered in their order."""
        study = optuna.create_study(directions=DIRECTIONS)
        study.add_trials(self.finished)
        return study


def _result(trial: FrozenTrial, front: Container[int], given: int) -> Result:
    top1, file_bytes, macs = trial.values
    ticket = trial.user_attrs[TICKET]
    return Result(
        trial=ticket,
        top1=top1,
        file_bytes=round(file_bytes),
        macs=round(macs),
        test_top1=trial.user_attrs.get(TEST_TOP1),
        on_front=ticket in front,
        given=ticket < given,
        file=trial.user_attrs[FILE],
        values=trial.params,
    )


def explore(
    data: Path | ImageSet,
    out: Path,
    config: ExploreConfig,
    *,
    progress: Progress = silent,
    note: Note = silent_note,
    on_pause: Callable[[Exploration], None] = lambda exploration: None,
) -> Exploration:
    """Work on a study until all its trials are done; the same call joins or resumes it.

    Args:
        data: class folders; a part "test" among them is used only for the last measurement.
        out: a folder for the study's file and the networks.
        config: what to explore.
        progress: called for the trials of the study, by any worker, and for this worker's tasks.
        note: called with a line about each trial.
        on_pause: called with the results so far when Ctrl-C ends this worker.

    Raises:
        InputError: if the data, folder or database cannot be used, or the folder or database holds
            another study.
        WriteError: if a file cannot be written, for example on a full disk. The next worker takes
            the trial over.
    """
    start = time.perf_counter()
    images = _images(data, config.seed, note)
    model = config.model or _model_for(images)
    plan = Plan(
        base=Design(_base(model, images, config.input_size)),
        recipe=_recipe(config, model),
    )
    space = spaces.named(config.space, plan.base.network)
    points = _points(space, config.trials)
    folder = out / FOLDER
    url = database_url(config.storage, out / FILE_NAME)
    name = config.study or f"{config.space} {name_of(data)}"
    make_folder(folder)
    _keep_for(out, name)
    for place in (out, folder):
        remove_half_written(place)
    settings = _settings(config, plan, images)

    def now() -> Exploration:
        return Exploration(
            name=name,
            storage=url.render_as_string(),
            tickets=tuple(shared.tickets()),
            space=space,
            plan=plan,
            images=_in_words(images),
            folder=folder,
            has_test=images.test is not None,
            seconds=time.perf_counter() - start,
        )

    with SharedStudy(url, name, DIRECTIONS, settings, config.pulse) as shared:
        shared.issue(points)
        trials = Trials(space, plan, images, folder, shared.study, progress)
        try:
            shared.work(trials, _sampler(space, config.seed), _Watch(progress, note))
        except KeyboardInterrupt:
            on_pause(now())
            raise
        except WriteError as error:
            raise WriteError(f"{error}; once that is solved, the same command goes on") from None
        return now()


def _keep_for(out: Path, study: str) -> None:
    """Refuse the folder of another study: its files have the same names."""
    known = out / STUDY
    with alone(known.with_name(f"{STUDY}.lock")):
        if not known.exists():
            write_whole(known, (json.dumps({"study": study}) + "\n").encode())
    try:
        there = json.loads(read_bytes(known))["study"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{known} is damaged: name another folder") from None
    if there != study:
        raise InputError(
            f"{out} holds the networks of the study {there!r}, and those of {study!r} would "
            "replace them: name another folder"
        )


def _points(space: Space, trials: int | None) -> list[Mapping[str, Any]]:
    """What each trial starts from: a point of the grid, or nothing if the search chooses."""
    if trials is None:
        trials = len(space.points) if space.is_grid else _SEARCH_TRIALS
    if trials < 1:
        raise InputError(f"a study has at least 1 trial, not {trials}")
    if space.is_grid and trials > len(space.points):
        raise InputError(f"the grid {space.name} has {len(space.points)} points, not {trials}")
    searched: list[Mapping[str, Any]] = [{}] * max(trials - len(space.points), 0)
    return [*space.points[:trials], *searched]


def _sampler(space: Space, seed: int) -> Callable[[int], BaseSampler]:
    """Tree-structured Parzen estimators for several objectives (Ozaki et al. 2022).

    It is seeded by the ticket, so a resumed study chooses as an uninterrupted one would, and no two
    workers choose alike. Trials that still run count as bad ones, so that nobody repeats them.
    """
    startup = len(space.points) + _RANDOM_TRIALS

    def sampler(ticket: int) -> BaseSampler:
        own = int(np.random.SeedSequence((seed, ticket)).generate_state(1)[0])
        return TPESampler(seed=own, n_startup_trials=startup, constant_liar=True)

    return sampler


def _images(data: Path | ImageSet, seed: int, note: Note) -> Images:
    parts = split_once(data, seed, chooses=True)
    require_classes(parts.training)
    for part in (parts.choosing, parts.measuring):
        if part.classes != parts.training.classes:
            raise InputError(f"{part.root} has other classes than {parts.training.root}")
    for sentence in parts.notes:
        note(sentence)
    test = parts.measuring if parts.chooses else None
    return Images(parts.training, parts.choosing, test, parts.digests)


def _model_for(images: Images) -> str:
    width, height = open_image(images.train.paths[0]).size
    return "squeezenet-digits" if max(width, height) <= _TINY_PIXELS else "squeezenet-1.1"


def _base(model: str, images: Images, input_size: int | None) -> SqueezeNetConfig:
    """A network of the catalogue, with batch norms: without them luck decides many trials."""
    config = catalogue.find(model).config
    if not isinstance(config, SqueezeNetConfig):
        raise InputError(f"{model} has no metaparameters to explore: name a SqueezeNet")
    return dataclasses.replace(
        config,
        classes=len(images.train.classes),
        input_size=input_size or config.input_size,
        batch_norm=True,
        final_relu=False,
    )


def _recipe(config: ExploreConfig, model: str) -> recipes.Recipe:
    name = config.recipe or ("digits" if model == "squeezenet-digits" else "modern")
    recipe = dataclasses.replace(recipes.named(name), seed=config.seed)
    if config.epochs is None:
        return recipe
    if config.epochs < 1:
        raise InputError(f"training takes at least 1 epoch, not {config.epochs}")
    warmup = min(recipe.warmup_epochs, config.epochs / 4)
    return dataclasses.replace(recipe, epochs=config.epochs, warmup_epochs=warmup)


def _settings(config: ExploreConfig, plan: Plan, images: Images) -> dict[str, Any]:
    """The settings that must be the same for all workers, so that trials can be compared."""
    classes = "\0".join(images.train.classes).encode()
    size = {} if config.input_size is None else {"input size": config.input_size}
    return {
        **size,
        "space": config.space,
        "model": plan.base.network.name,
        "recipe": config.recipe or "the model's",
        "epochs": plan.recipe.epochs,
        "seed": config.seed,
        "classes": f"{len(images.train.classes)} ({zlib.crc32(classes):08x})",
        "images": _in_words(images),
    }


def _in_words(images: Images) -> str:
    test = "" if images.test is None else f", {numbers.count(len(images.test))} to test"
    return (
        f"{numbers.count(len(images.train))} to train on, "
        f"{numbers.count(len(images.val))} held out{test}"
    )


class _Watch:
    """Tells which trials were done since the last look, and how long the rest will take."""

    def __init__(self, progress: Progress, note: Note) -> None:
        self._progress, self._note = progress, note
        self._start = time.perf_counter()
        self._known: set[int] | None = None

    def __call__(self, tickets: list[Ticket]) -> None:
        done = {ticket.number for ticket in tickets if ticket.done}
        if self._known is None:
            self._first, self._known = len(done), done
        for number in sorted(done - self._known):
            self._note(f"{_told(tickets[number])}; {self._left(len(done), len(tickets))}")
        self._known = done
        self._progress("trials", len(done), len(tickets))

    def _left(self, done: int, total: int) -> str:
        pace = (time.perf_counter() - self._start) / max(done - self._first, 1)
        left = numbers.duration(pace * (total - done))
        return f"{done} of {total} trials" + (f", about {left} left" if done < total else "")


def _told(ticket: Ticket) -> str:
    """One line about a trial that is done."""
    trial = ticket.last
    if trial.state == TrialState.COMPLETE:
        top1, file_bytes, macs = trial.values
        return (
            f"trial {ticket.number}: top-1 {numbers.percent(top1)}%, {numbers.size(file_bytes)}, "
            f"{numbers.many(macs)} MACs"
        )
    if trial.state == TrialState.PRUNED:
        return f"trial {ticket.number} stopped: {trial.user_attrs.get(STOPPED)}"
    return f"trial {ticket.number} failed: {trial.user_attrs.get(ERROR, 'its workers died')}"


def as_json_object(exploration: Exploration) -> dict[str, Any]:
    """The result as `explore --json` prints it."""
    return {
        "study": exploration.name,
        "storage": exploration.storage,
        "space": exploration.space.name,
        "trials": len(exploration.tickets),
        "finished": [dataclasses.asdict(result) for result in exploration.results],
        "stopped": {str(number): why for number, why in exploration.stopped.items()},
        "failed": {str(number): why for number, why in exploration.failed.items()},
        "retried": exploration.retried,
        "seconds": exploration.seconds,
    }
