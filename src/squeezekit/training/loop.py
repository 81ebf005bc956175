"""The training loop, for networks with free, masked and shared weights.

Lightning's Fabric handles devices, precisions and processes; the loop itself is here.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation
from squeezekit.progress import Progress, silent
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.allocator import keep_freed_memory
from squeezekit.training.augment import mixup_share
from squeezekit.training.batches import TrainingData
from squeezekit.training.checkpoint import Checkpoints, State
from squeezekit.training.devices import fabric_for
from squeezekit.training.losses import distillation_loss, feature_loss, taught_features
from squeezekit.training.pace import Pace
from squeezekit.training.recipe import Recipe
from squeezekit.training.stuck import stuck_warning

Validate = Callable[[TrainableNetwork], Evaluation]
Kept = Callable[[TrainableNetwork], None]

BATCHES_AHEAD = 2
"""How many batches the CPU prepares while a GPU computes; on a CPU they take turns."""


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch of training.

    Attributes:
        epoch: its number, from 1.
        loss: mean cross entropy over the training batches, in nats.
        learning_rate: the learning rate of its last iteration.
        train_top1: percent of the training images that were classified right, as augmented.
        val_top1: percent on the validation images; None without validation.
        seconds: how long it took, validation included.
        warning: what seems wrong and what to try; empty if all is well.
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
    start: EpochResult | None = None,
    teacher: TrainableNetwork | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_kept: Kept | None = None,
    began: float | None = None,
) -> list[EpochResult]:
    """Train a network in place.

    Two runs with the same seed, data and number of threads give the same weights, bit for bit on
    a CPU, whether or not one of them was interrupted and resumed from its checkpoint. Under
    `torchrun` every process takes its share of each batch, and the gradients are averaged.

    If the run is interrupted, it writes a last checkpoint (if it writes any). The network then has
    the weights of its last complete epoch (or of its best one, if the recipe keeps that), ready for
    use, and the exception is raised again.

    Args:
        net: what to train, with its pruned weights masked and its shared weights shared.
        data: the training images.
        recipe: how to train.
        validate: evaluates the network after each epoch.
        start: what the network is before training, as epoch 0, where that is to be compared with.
        teacher: whose outputs the network learns as well (`recipe.distillation`).
        checkpoints: where to resume from and to save to; None does neither.
        progress: called for each iteration.
        on_epoch: told of each result at once; first of `start` and of those before a resume.
        on_kept: given the network after each epoch whose weights are to be kept, as far as known.
        began: the `time.perf_counter()` that `recipe.minutes` count from; None is now.

    Returns:
        One result an epoch, without `start`. If the minutes are over, the last epoch is a part.

    Raises:
        InputError: if the network has fewer outputs than the data has classes, the loss stops
            being a finite number, the recipe keeps the best weights without validation, or the
            checkpoint is of another run.
    """
    if validate is None and (recipe.keep == "best" or recipe.patience is not None):
        raise InputError("keep=best and patience need validation images")
    keep_freed_memory()
    with torch.random.fork_rng(), _interrupt_between_steps() as interrupted:
        run = _Run(net, data, recipe, start, teacher, checkpoints, progress, began)
        for result in run.compared():
            if on_epoch is not None:
                on_epoch(result)
        run.pace.time_validation(None if validate is None else lambda: validate(net.eval()))
        try:
            while not run.finished():
                run.epoch(interrupted)
                run.close_epoch(validate, on_kept)
                if on_epoch is not None:
                    on_epoch(run.results[-1])
        finally:
            net.load_state_dict(run.kept)
            net.eval()
    return run.results


class _Run:
    """A run's network, optimizer and progress; everything that a checkpoint holds."""

    def __init__(
        self,
        net: TrainableNetwork,
        data: TrainingData,
        recipe: Recipe,
        start: EpochResult | None,
        teacher: TrainableNetwork | None,
        checkpoints: Checkpoints | None,
        progress: Progress,
        began: float | None,
    ) -> None:
        self.net, self.data, self.recipe, self.progress = net, data, recipe, progress
        self.checkpoints = checkpoints
        self.fabric = fabric_for(recipe)
        processes = self.fabric.world_size
        if recipe.batch % (recipe.accumulate * processes):
            raise InputError(
                f"a batch of {recipe.batch} cannot be divided among {processes} "
                f"processes and {recipe.accumulate} accumulated parts"
            )
        if recipe.augmentation.mixup and processes > 1 and recipe.batch % (2 * processes):
            # A process has every so many-th image; half a batch on must be one of its own.
            raise InputError(
                f"mixup in {processes} processes needs a batch that {2 * processes} divides, "
                f"not {recipe.batch}"
            )
        # Channels last is the layout that half-precision convolutions want.
        half = recipe.precision != "float32"
        self.layout = torch.channels_last if half else torch.contiguous_format
        net.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.module, self.optimizer = self._set_up()
        self.teacher = None if teacher is None else self._as_teacher(teacher)
        self.features = taught_features(net, teacher) if recipe.features else []
        self.epoch_steps = data.steps(recipe.batch)
        self.steps = self.epoch_steps * recipe.epochs
        self.pace = Pace(recipe, self.epoch_steps, processes, began)
        self.done = 0  # iterations
        self.rate = recipe.learning_rate  # of the last iteration
        self.sums = torch.zeros(3, dtype=torch.float64)  # loss, right answers, images, this epoch
        self.start = start
        self.results: list[EpochResult] = []
        self.averages = [p.detach().clone() for p in self._parameters()] if recipe.ema else []
        self.kept = _copied(net.state_dict())
        state = None if checkpoints is None else checkpoints.load(self._fingerprint())
        if state is not None:
            self._restore(state)

    def compared(self) -> list[EpochResult]:
        """The results so far, from that of the start on, where there is one."""
        return [*([] if self.start is None else [self.start]), *self.results]

    def finished(self) -> bool:
        """True if all epochs are done, or if the last ones brought no progress."""
        patience, scores = self.recipe.patience, [r.val_top1 or 0.0 for r in self.results]
        if patience is not None and len(scores) > patience:
            best = max(range(len(scores)), key=lambda i: scores[i])
            if len(scores) - 1 - best >= patience:
                return True
        if self.pace.over and self.results:
            return True
        return self.done >= self.steps and len(self.results) >= self.recipe.epochs

    def epoch(self, interrupted: Callable[[], bool]) -> None:
        """Train for the rest of the current epoch."""
        number = len(self.results)
        self.started = time.perf_counter()
        self.module.train()
        first = self.done - number * self.epoch_steps
        rank, processes = self.fabric.global_rank, self.fabric.world_size
        ahead = 0 if self.fabric.device.type == "cpu" else BATCHES_AHEAD
        for pixels, targets in self.data.epoch(
            number, self.recipe, first=first, rank=rank, processes=processes, ahead=ahead
        ):
            if len(pixels):  # not where all of them are broken
                self._step(pixels, targets)
            self.done += 1
            self.progress("train", self.done, self.steps)
            stop = interrupted()
            if self.checkpoints is not None and (stop or self.checkpoints.due()):
                self._save()
            if stop:
                raise KeyboardInterrupt
            if self.pace.is_over():
                break

    def close_epoch(self, validate: Validate | None, on_kept: Kept | None = None) -> None:
        """Sum up the epoch, validate, keep the weights, save."""
        loss, right, images = self._summed(self.sums).tolist()
        epoch = len(self.results) + 1
        if not math.isfinite(loss):
            raise InputError(
                f"training diverged in epoch {epoch}: the loss is not a finite number; use a lower "
                f"learning rate than {self.recipe.learning_rate:g}, a warm-up, or clip_norm"
            )
        self.module.eval()
        with self._averaged():
            top1 = self._validated(validate)
            mean_loss = loss / images
            result = EpochResult(
                epoch=epoch,
                loss=mean_loss,
                learning_rate=self.rate,
                train_top1=100 * right / images,
                val_top1=top1,
                seconds=time.perf_counter() - self.started,
                warning=stuck_warning(
                    [*(r.loss for r in self.results), mean_loss],
                    self.data.classes,
                    math.ceil(self.recipe.warmup_epochs),
                ),
            )
            self.results.append(result)
            if self._keeps_last():
                self.kept = _copied(self.net.state_dict())
                if on_kept is not None:
                    on_kept(self.net)
        self.sums.zero_()
        self.done = epoch * self.epoch_steps  # also where the time was over before
        if self.checkpoints is not None:
            self._save()

    def _keeps_last(self) -> bool:
        """Whether the weights of the last epoch are those to end with, as far as is known."""
        if self.recipe.keep == "guarded" and self.start is not None:
            return (self.results[-1].val_top1 or 0.0) >= (self.start.val_top1 or 0.0)
        return self.recipe.keep != "best" or _is_best(self.compared())

    # ------------------------------------------------------------------------------- one iteration

    def _step(self, pixels: Tensor, targets: Tensor) -> None:
        # Dropout draws from a generator that depends on nothing but the seed and the iteration.
        place = (self.recipe.seed, self.done, self.fabric.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self.rate = self.pace.rate(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        pixels, targets = self.fabric.to_device((pixels, targets))
        images = self.data.inputs(pixels).contiguous(memory_format=self.layout)  # (N, C, H, W)
        own = mixup_share(self.recipe.augmentation.mixup, self.recipe.seed, self.done)
        half = len(images) // 2
        if own < 1.0:  # each with the one half a batch on
            images = images.lerp(images.roll(half, 0), 1.0 - own)
        parts = list(
            zip(
                images.chunk(self.recipe.accumulate),
                targets.chunk(self.recipe.accumulate),
                targets.roll(half).chunk(self.recipe.accumulate),
                strict=True,
            )
        )
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with nullcontext() if last else self.fabric.no_backward_sync(self.module):
                self._backward(*part, own=own, share=len(part[0]) / len(images))
        if self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(
                self.module,
                self.optimizer,
                max_norm=self.recipe.clip_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        if self.recipe.ema:
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self._parameters(), 1 - self.recipe.ema)

    def _backward(
        self, images: Tensor, targets: Tensor, others: Tensor, *, own: float, share: float
    ) -> None:
        logits, *seen = self.module(images, self.features)  # (N, classes), any shapes
        if logits.shape[1] < self.data.classes:
            raise InputError(
                f"the network has {logits.shape[1]} outputs, "
                f"but the images are of {self.data.classes} classes"
            )
        loss = self._loss([logits.float(), *seen], images, targets, others, own)
        self.fabric.backward(loss * share)
        right = (logits.argmax(dim=1) == targets).sum()
        count = loss.new_tensor(len(images))
        self.sums += torch.stack([loss.detach() * count, right, count]).cpu()

    def _loss(
        self, answers: Sequence[Tensor], images: Tensor, targets: Tensor, others: Tensor, own: float
    ) -> Tensor:
        """Of images that are `own` parts themselves and the rest the images of `others`."""
        recipe, (logits, *seen) = self.recipe, answers
        hard = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        if own < 1.0:
            other = F.cross_entropy(logits, others, label_smoothing=recipe.label_smoothing)
            hard = own * hard + (1.0 - own) * other
        if self.teacher is None:
            return hard
        with torch.no_grad(), self.fabric.autocast():
            soft, *true = self.teacher(images, self.features)
        soft = distillation_loss(logits, soft.float(), recipe.temperature)
        loss = recipe.distillation * soft + (1 - recipe.distillation) * hard
        return loss + recipe.features * feature_loss(seen, true) if seen else loss

    # ---------------------------------------------------------------------------------- the pieces

    def _set_up(self) -> tuple[Any, torch.optim.Optimizer]:
        net = self.net
        head = set(net.head_names())
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, weight in net.weights.items():
            factor = 1.0 if name in head else self.recipe.body_rate
            groups.setdefault(factor, []).extend(p for p in weight.parameters() if p.requires_grad)
        optimizer = _optimizer(groups, self.recipe)
        module: torch.nn.Module = torch.compile(net) if self.recipe.compile else net  # type: ignore[assignment]
        module, optimizer = self.fabric.setup(module, optimizer)  # a wrapper that forwards
        return module, optimizer

    def _as_teacher(self, teacher: TrainableNetwork) -> TrainableNetwork:
        teacher.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.fabric.to_device(teacher.eval())
        return teacher

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _summed(self, values: Tensor) -> Tensor:
        """Over all processes."""
        summed: Tensor = self.fabric.all_reduce(values.clone(), reduce_op="sum")  # type: ignore[assignment]
        return summed

    def _validated(self, validate: Validate | None) -> float | None:
        """Top-1 as the first process finds it, known to all."""
        if validate is None:
            return None
        top1 = validate(self.net).top1 if self.fabric.is_global_zero else 0.0
        return float(self.fabric.broadcast(top1))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the network has the exponential average of its weights."""
        if not self.averages:
            yield
            return
        parameters = self._parameters()
        trained = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            torch._foreach_copy_(parameters, self.averages)
            try:
                yield
            finally:
                torch._foreach_copy_(parameters, trained)

    # -------------------------------------------------------------------------------- checkpoints

    def _fingerprint(self) -> str:
        return f"{self.recipe} {self.data.fingerprint} {self.fabric.world_size}"

    def _save(self) -> None:
        if self.checkpoints is None or not self.fabric.is_global_zero:
            return
        self.checkpoints.save(
            {
                "fingerprint": self._fingerprint(),
                "done": self.done,
                "sums": self.sums,
                "start": None if self.start is None else dataclasses.asdict(self.start),
                "results": [dataclasses.asdict(result) for result in self.results],
                "network": self.net.state_dict(),
                "kept": self.kept,
                "averages": self.averages,
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
        )

    def _restore(self, state: State) -> None:
        self.done = state["done"]
        self.rate = self.pace.rate(max(self.done - 1, 0))
        self.sums = state["sums"]
        if state.get("start") is not None:
            self.start = EpochResult(**state["start"])
        self.results = [EpochResult(**result) for result in state["results"]]
        self.net.load_state_dict(state["network"])
        self.kept = state["kept"]
        self.averages = [self.fabric.to_device(average) for average in state["averages"]]
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])


@contextmanager
def _interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """Ctrl-C takes effect when the current iteration is done; a second Ctrl-C, at once.

    SIGTERM does the same if it acts as Ctrl-C, as on the command line.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
    }

    def as_before() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: object) -> None:
        asked.set()
        as_before()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        as_before()


def _optimizer(
    groups: dict[float, list[torch.nn.Parameter]], recipe: Recipe
) -> torch.optim.Optimizer:
    parameters = [{"params": p, "factor": factor} for factor, p in groups.items() if p]
    # One pass over the memory instead of four to ten: of AlexNet's 57 million weights, a tenth of
    # an iteration. On graphics cards it does not go together with clipping in fp16.
    fused = not torch.cuda.is_available()
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(
            parameters,
            lr=recipe.learning_rate,
            betas=(recipe.momentum, 0.999),
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
    return torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


def _is_best(results: Sequence[EpochResult]) -> bool:
    """True if the last epoch is better on validation than all before it."""
    scores = [result.val_top1 or 0.0 for result in results]
    return scores[-1] > max(scores[:-1], default=-1.0)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
