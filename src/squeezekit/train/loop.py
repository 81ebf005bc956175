"""The one training loop, for networks with free, masked and shared weights alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from squeezekit.errors import InputError
from squeezekit.evaluate import Evaluation
from squeezekit.progress import Progress, silent
from squeezekit.train.batches import TrainingData
from squeezekit.train.recipe import Recipe, learning_rate
from squeezekit.trainable import TrainableNetwork

Validate = Callable[[TrainableNetwork], Evaluation]

STUCK_EPOCHS = 3
"""After so many epochs without learning anything a warning is due."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training gave.

    Attributes:
        epoch: its number, from 1.
        loss: mean cross entropy over the training batches, in nats.
        learning_rate: of its last iteration.
        train_top1: percent of the training images that were classified right, as augmented.
        val_top1: percent on the validation images; None without validation.
        seconds: that it took, validation included.
        warning: what seems wrong and what to try; empty where all is well.
    """

    epoch: int
    loss: float
    learning_rate: float
    train_top1: float
    val_top1: float | None
    seconds: float
    warning: str = ""


def fit(
    net: TrainableNetwork,
    data: TrainingData,
    recipe: Recipe,
    *,
    validate: Validate | None = None,
    progress: Progress = silent,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> list[EpochResult]:
    """Train a network in place.

    Two runs with the same seed, data and number of threads give the same weights, bit for bit.
    If the run is interrupted, the network is left with the weights after its last whole epoch (or
    its best one, if the recipe keeps that), ready for use; the exception goes on.

    Args:
        net: what to train, with its pruned weights masked and its shared weights shared.
        data: the training images.
        recipe: how to train.
        validate: evaluates the network after each epoch.
        progress: told of each iteration.
        on_epoch: told of each result as soon as there is one.

    Returns:
        One result an epoch.

    Raises:
        InputError: where the network has fewer outputs than the data has classes, the loss stops
            being a finite number, or the recipe keeps the best weights without validation.
    """
    if recipe.keep == "best" and validate is None:
        raise InputError("keep=best needs validation images")
    results: list[EpochResult] = []
    kept = _copied(net.state_dict())
    try:
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            run = _Run(net, data, recipe, progress)
            for epoch in range(recipe.epochs):
                results.append(_epoch(run, epoch, results, validate))
                if recipe.keep == "last" or _is_best(results):
                    kept = _copied(net.state_dict())
                if on_epoch is not None:
                    on_epoch(results[-1])
    finally:
        net.load_state_dict(kept)
        net.eval()
    return results


def stuck_warning(losses: Sequence[float], classes: int) -> str:
    """Say what to try where training has not learnt anything, which some seeds are known for.

    A network that gives every image the same probabilities has loss ln(classes), with label
    smoothing too; without batch norm its ReLUs may be dead for good.

    Args:
        losses: one an epoch, so far.
        classes: number of classes.

    Returns:
        A sentence, or an empty string where it is too early to tell or all is well.
    """
    chance = math.log(classes)
    if len(losses) < STUCK_EPOCHS or min(losses) < 0.98 * chance:
        return ""
    return (
        f"training is stuck: after {len(losses)} epochs the loss is still {losses[-1]:.2f}, that "
        f"of guessing among {classes} classes; try a learning rate 10 times lower, a warm-up "
        f"(warmup_epochs=5), another seed, or a network with batch norm"
    )


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; emulating it is slower than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class _Run:
    """What stays the same from epoch to epoch."""

    def __init__(
        self, net: TrainableNetwork, data: TrainingData, recipe: Recipe, progress: Progress
    ) -> None:
        self.net, self.data, self.recipe, self.progress = net, data, recipe, progress
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = _optimizer(self.parameters, recipe)
        self.epoch_steps = data.steps(recipe.batch)
        self.steps = self.epoch_steps * recipe.epochs
        self.bf16 = recipe.bf16 and has_bf16(self.device)
        if self.bf16:  # the layout that bfloat16 convolutions are quick in
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(self, number: int, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One iteration; returns the summed loss and the number of right answers."""
        images, targets = images.to(self.device), targets.to(self.device)
        if self.bf16:
            images = images.contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, number, self.steps, self.epoch_steps)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.net(images)  # (N, classes)
        if logits.shape[1] < self.data.classes:
            raise InputError(
                f"the network has {logits.shape[1]} outputs, "
                f"but the images are of {self.data.classes} classes"
            )
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.optimizer.step()
        right = (logits.argmax(dim=1) == targets).sum()
        return loss.detach() * len(targets), right


def _epoch(
    run: _Run, epoch: int, earlier: Sequence[EpochResult], validate: Validate | None
) -> EpochResult:
    start = time.perf_counter()
    run.net.train()
    loss, right, images = torch.zeros(()), torch.zeros(()), 0
    step = first = epoch * run.epoch_steps
    for step, batch in enumerate(run.data.epoch(epoch, run.recipe), first):
        step_loss, step_right = run.step(step, *batch)
        loss, right, images = (
            loss + step_loss.cpu(),
            right + step_right.cpu(),
            images + len(batch[0]),
        )
        run.progress("train", step + 1, run.steps)
    mean_loss = float(loss) / images
    if not math.isfinite(mean_loss):
        raise InputError(
            f"training diverged in epoch {epoch + 1}: the loss is not a finite number; "
            f"use a lower learning rate than {run.recipe.learning_rate:g}, a warm-up, or clip_norm"
        )
    run.net.eval()
    return EpochResult(
        epoch=epoch + 1,
        loss=mean_loss,
        learning_rate=learning_rate(run.recipe, step, run.steps, run.epoch_steps),
        train_top1=100 * float(right) / images,
        val_top1=None if validate is None else validate(run.net).top1,
        seconds=time.perf_counter() - start,
        warning=stuck_warning([*(r.loss for r in earlier), mean_loss], run.data.classes),
    )


def _optimizer(parameters: list[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(
            parameters,
            lr=recipe.learning_rate,
            betas=(recipe.momentum, 0.999),
            weight_decay=recipe.weight_decay,
        )
    return torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def _is_best(results: Sequence[EpochResult]) -> bool:
    """Whether the last epoch beats all before it on validation."""
    scores = [result.val_top1 or 0.0 for result in results]
    return scores[-1] > max(scores[:-1], default=-1.0)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
