"""One trial: trains a design, compresses it to a real file, and measures that file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import TrialPruned
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from squeezekit.compression.deep import Deep, deep_compression
from squeezekit.data.folders import ImageSet
from squeezekit.data.held_out import remembered
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation, evaluate
from squeezekit.exploration.space import Design, Space, designed
from squeezekit.exploration.study import TICKET
from squeezekit.models.cost import cost
from squeezekit.models.fold import fold_batch_norm
from squeezekit.models.squeezenet import squeezenet
from squeezekit.progress import Progress, prefixed, silent
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.loading import load
from squeezekit.sqz import container
from squeezekit.sqz.network import Network, Preprocessing
from squeezekit.sqz.trained_on import Digests
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import EpochResult, fit
from squeezekit.training.recipe import Recipe

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
"""Of a trial's values: top-1 in percent, bytes of the file, multiply-accumulates of an image."""

CURVE, FLOAT_TOP1, TEST_TOP1, FILE = "curve", "float_top1", "test_top1", "file"
"""Attributes of trials: top-1 after each epoch; before compression; on images that the search has
not used; name of the file."""


@dataclass(frozen=True)
class StoppingRule:
    """When a trial is not worth finishing.

    Optuna's pruners compare a single value, but this study has three: accuracy, bytes and MACs. So
    a trial is stopped if it would stay behind a finished trial with no more MACs and no more bytes,
    even with the largest gain that any finished trial has made since the same epoch.

    Attributes:
        after: shares of the epochs after which a trial is judged.
        finished: trials that there must be before any is judged.
    """

    after: tuple[float, ...] = (1 / 3, 2 / 3)
    finished: int = 8

    def epochs(self, epochs: int) -> set[int]:
        """The epochs after which to judge, counted from 1; never the last one."""
        return {max(round(share * epochs), 1) for share in self.after} - {epochs}

    def verdict(
        self, top1: float, file_bytes: int, macs: int, epoch: int, finished: Sequence[FrozenTrial]
    ) -> str:
        """Why a trial is to be stopped after an epoch, in words; empty if it is not.

        Args:
            top1: top-1 of the network then, in percent.
            file_bytes: the size in bytes of its file, were it pruned, shared and coded as it is.
            macs: the multiply-accumulates of an image.
            epoch: from 1.
            finished: trials with values and a CURVE.
        """
        if len(finished) < self.finished:
            return ""
        gain = max(trial.values[0] - trial.user_attrs[CURVE][epoch - 1] for trial in finished)
        for trial in finished:
            other_top1, other_bytes, other_macs = trial.values
            if other_bytes <= file_bytes and other_macs <= macs and other_top1 > top1 + gain:
                return (
                    f"{top1:.1f}% after epoch {epoch}; the largest gain since then, "
                    f"{gain:.1f} points, would leave it behind trial {trial.user_attrs[TICKET]}, "
                    f"which is no larger and no slower and has {other_top1:.1f}%"
                )
        return ""


@dataclass(frozen=True)
class Plan:
    """What all trials of a study have in common.

    Attributes:
        base: the design that trials vary.
        recipe: the recipe of the training; retraining and fine-tuning are parts of it.
        rule: when to stop.
    """

    base: Design
    recipe: Recipe
    rule: StoppingRule = field(default_factory=StoppingRule)

    def compression(self, design: Design) -> Deep:
        """Deep Compression in two rounds; retraining takes two thirds of the epochs in addition."""
        part = max(round(self.recipe.epochs / 3), 1)
        retrain = dataclasses.replace(self.recipe, epochs=part, warmup_epochs=0.0)
        centroids = dataclasses.replace(
            retrain,
            epochs=max(part // 2, 1),
            learning_rate=self.recipe.learning_rate / 50,
            weight_decay=0.0,
        )
        return Deep(
            density=design.density,
            rounds=2,
            retrain=retrain,
            bits=design.bits,
            centroids=centroids,
            seed=self.recipe.seed,
        )


@dataclass(frozen=True, eq=False)
class Images:
    """What trials train on and are measured with.

    Attributes:
        train: the images to train on.
        val: decides which designs are good.
        test: measures the accuracy, and is not used to choose; None if there are too few images.
        digests: the digests of the images to train on, and of all others.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet | None
    digests: tuple[Digests, Digests]
    _decoded: dict[Preprocessing, TrainingData] = field(default_factory=dict, init=False)

    def training(self, preprocessing: Preprocessing, progress: Progress) -> TrainingData:
        """The training images at the size that a network takes; decoded once."""
        if preprocessing not in self._decoded:
            self._decoded[preprocessing] = TrainingData(
                self.train, preprocessing, progress=progress
            )
        return self._decoded[preprocessing]


@dataclass(frozen=True, eq=False)
class Trials:
    """The objective of a study.

    Attributes:
        space: what varies.
        plan: what does not.
        images: the images of the study.
        folder: where the files go, `trial-0007.sqz`.
        study: whose finished trials a trial is judged by.
        progress: called for the tasks of a trial.
    """

    space: Space
    plan: Plan
    images: Images
    folder: Path
    study: optuna.Study
    progress: Progress = silent

    def __call__(self, trial: optuna.Trial) -> tuple[float, float, float]:
        """Do a trial: top-1 of the file in percent, its bytes, the network's MACs.

        Raises:
            TrialPruned: where there is no such network, or it is hopelessly behind.
            InputError: if training fails.
        """
        values = {name: _suggest(trial, name, among) for name, among in self.space.ranges.items()}
        try:
            design = designed(self.plan.base, values)
            network = squeezenet(
                design.network, labels=self.images.train.classes, seed=self.plan.recipe.seed
            )
        except InputError as error:
            raise TrialPruned(f"there is no such network: {error}") from None
        network = remembered(network, *self.images.digests)
        ticket = trial.user_attrs[TICKET]
        trained = self._trained(trial, network, design)
        config = self.plan.compression(design)
        data = self.images.training(network.metadata.preprocessing, self.progress)
        stages = deep_compression(trained, config, data, progress=self._named(ticket))
        path = self.folder / f"trial-{ticket:04d}.sqz"
        container.write(stages.list[-1].network, path)
        file = load(path, torch.get_num_threads())
        if self.images.test is not None:
            trial.set_user_attr(TEST_TOP1, evaluate(file, self.images.test).top1)
        trial.set_user_attr(FILE, path.name)
        top1 = evaluate(file, self.images.val).top1
        return top1, float(path.stat().st_size), float(cost(stages.list[-1].network).macs)

    def _trained(self, trial: optuna.Trial, network: Network, design: Design) -> Network:
        recipe, rule = self.plan.recipe, self.plan.rule
        net = TrainableNetwork(network)
        macs = cost(fold_batch_norm(network)).macs
        curve: list[float] = []

        def validate(net: TrainableNetwork) -> Evaluation:
            return evaluate(
                from_network(net.to_network(), torch.get_num_threads()), self.images.val
            )

        def judge(result: EpochResult) -> None:
            assert result.val_top1 is not None, "fit validates after every epoch"
            curve.append(result.val_top1)
            if result.epoch not in rule.epochs(recipe.epochs):
                return
            finished = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            size = self._size_now(net.to_network(), design)
            if verdict := rule.verdict(result.val_top1, size, macs, result.epoch, finished):
                trial.set_user_attr(CURVE, curve)
                raise TrialPruned(verdict)

        fit(
            net,
            self.images.training(network.metadata.preprocessing, self.progress),
            recipe,
            validate=validate,
            progress=self._named(trial.user_attrs[TICKET]),
            on_epoch=judge,
        )
        trial.set_user_attr(CURVE, curve)
        trial.set_user_attr(FLOAT_TOP1, curve[-1])
        return net.to_network()

    def _size_now(self, network: Network, design: Design) -> int:
        """Bytes of the file of a network that is not yet trained, without retraining it."""
        config = self.plan.compression(design)
        config = dataclasses.replace(config, retrain=None, centroids=None)
        return deep_compression(network, config).list[-1].file_bytes

    def _named(self, ticket: int) -> Progress:
        return prefixed(f"trial {ticket}: ", self.progress)


def _suggest(trial: optuna.Trial, name: str, among: BaseDistribution) -> Any:  # noqa: ANN401
    """A value of the range, as Optuna's sampler chooses it or the trial was given it."""
    if isinstance(among, CategoricalDistribution):
        return trial.suggest_categorical(name, among.choices)
    if isinstance(among, IntDistribution):
        return trial.suggest_int(name, among.low, among.high, step=among.step, log=among.log)
    assert isinstance(among, FloatDistribution)
    return trial.suggest_float(name, among.low, among.high, step=among.step, log=among.log)
