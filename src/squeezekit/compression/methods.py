"""The ways to make a network small by name, as `compress --method` has them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from squeezekit.compression.deep import deep_compression, deep_config, pruned
from squeezekit.compression.recovery import Effort, recovered
from squeezekit.compression.retraining import retrained
from squeezekit.compression.rounder import Point, Rounder, Rounding
from squeezekit.compression.search import CurvePoint, curve, to_quality, to_size
from squeezekit.compression.stages import Stage, Stages
from squeezekit.compression.svd import factored, ranks_by_bytes, ranks_by_energy, spectra
from squeezekit.compression.task import Task
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress
from squeezekit.runtime.calibration import IMAGES, calibrated
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.network import Network, unshared
from squeezekit.training import recipe as recipes

CALIBRATION_IMAGES = 250
"""The method best looks at so many images of 227 x 227 pixels, or at more that are smaller.

What rounding must know is how the inputs of each weight vary together: that takes many thousands of
places in images, and small images have few. 250 digits of 8 x 8 pixels are far too few.
"""

SVD_TIMES = 5
"""How much smaller SVD makes a network where nothing is asked for: as AlexNet in Table 2."""


@dataclass(frozen=True)
class Asked:
    """What the user asks of a method; None leaves it to the method, and no method needs all.

    Attributes:
        bits: of a shared weight's index.
        density: of the weights that pruning keeps, as `deep.deep_config` has it.
        energy: share of each weight's squares that SVD keeps.
        target_bytes: of the file.
        max_drop: points of top-1 that may be lost on the held-out images.
        epochs: of each retraining; the method best does none without, or without minutes.
        minutes: of the method best's retraining, instead of epochs.
        finetune: images that the method best retrains on instead; no labels.
        mirror: look at images mirrored too, for the method best.
        checkpoint: where that leaves its state, and goes on from (see `recovery.recovered`).
        coder: of the file.
        seed: of the retraining.
        on_curve: told of points of the rate-accuracy curve, which else are not measured.
    """

    bits: int | None = None
    density: str | None = None
    energy: float | None = None
    target_bytes: int | None = None
    max_drop: float | None = None
    epochs: int | None = None
    minutes: float | None = None
    finetune: ImageSet | None = None
    mirror: bool = False
    checkpoint: Path | None = None
    coder: CoderName = "entropy"
    seed: int = 0
    on_curve: Callable[[list[CurvePoint]], None] | None = None


Method = Callable[[Network, Asked, Task | None, Progress], list[Stage]]
"""From a network, what is asked for, and images where there are any, to the stages on the way; the
last one's network, encoded with `Asked.coder`, is the file."""


def deep(network: Network, asked: Asked, task: Task | None, progress: Progress) -> list[Stage]:
    """Prune, share, fine-tune and code (Han et al. 2016)."""
    config = deep_config(
        network,
        bits=asked.bits,
        density=asked.density,
        epochs=asked.epochs,
        coder=asked.coder,
        retrain=task is not None,
        seed=asked.seed,
    )
    if task is None:
        return deep_compression(network, config, progress=progress)
    return deep_compression(network, config, task.data, task.measure, progress)


def prune(network: Network, asked: Asked, task: Task | None, progress: Progress) -> list[Stage]:
    """Prune and retrain in rounds; the weights that are left stay float32 (Han et al. 2015)."""
    config = deep_config(
        network,
        density=asked.density,
        epochs=asked.epochs,
        retrain=task is not None,
        seed=asked.seed,
    )
    if config.densities is None:
        raise InputError("pruning needs --data to retrain on, or a --density")
    stages = Stages(None if task is None else task.measure)
    stages.add("float32", fold_batch_norm(network), "dense")
    network = pruned(network, config, None if task is None else task.data, progress)
    network = fold_batch_norm(network).with_step(f"pruned to {network.nonzero:,} weights")
    stages.add("pruned", network, asked.coder)
    return stages.list


def svd(network: Network, asked: Asked, task: Task | None, progress: Progress) -> list[Stage]:
    """Factor layers by truncated SVD, and fine-tune (Denton et al. 2014)."""
    stages = Stages(None if task is None else task.measure)
    original = stages.add("float32", fold_batch_norm(network), "dense")
    float_bytes = stages.list[0].file_bytes
    layers = spectra(network)
    if asked.energy is not None:
        if asked.target_bytes is not None:
            raise InputError("SVD keeps a share of the energy or meets a size: ask for one of them")
        ranks = ranks_by_energy(layers, asked.energy)
    else:
        target = asked.target_bytes or float_bytes // SVD_TIMES
        overhead = max(float_bytes - 4 * fold_batch_norm(network).parameters, 0)
        ranks = ranks_by_bytes(network, layers, target - overhead)
    network = factored(network, ranks)
    stages.add("factored", fold_batch_norm(network), "dense")
    if task is not None:
        recipe = dataclasses.replace(recipes.retrain(), seed=asked.seed)
        if asked.epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=asked.epochs)
        network = retrained(network, task.data, recipe, original, progress=progress)
    network = fold_batch_norm(network).with_step(f"SVD of {len(ranks)} layers")
    stages.add("coded", network, asked.coder)
    return stages.list


def best(network: Network, asked: Asked, task: Task | None, progress: Progress) -> list[Stage]:
    """Round by second-order information for the fewest bytes; no labels.

    With epochs, the weights that the rounding leaves learn to answer as the original does, and are
    rounded again.
    """
    if task is None:
        raise InputError("the method best needs --data: a few hundred images, labels do not matter")
    if asked.target_bytes is not None and asked.max_drop is not None:
        raise InputError("ask for --target-bytes or for --max-drop, not for both")
    if asked.finetune is not None and not asked.epochs and asked.minutes is None:
        raise InputError("--finetune needs --minutes or --epochs: how long to train on it")
    effort = None
    if asked.epochs or asked.minutes is not None:
        effort = Effort(asked.epochs, asked.minutes)
    stages = Stages(task.measure)
    original = stages.add("float32", fold_batch_norm(network), "dense")
    config = Rounding(seed=asked.seed, mirrored=asked.mirror, coder=asked.coder)
    count = CALIBRATION_IMAGES * max(227 // network.metadata.preprocessing.crop, 1) ** 2
    images = task.calibration(count)
    rounder = Rounder(network, images, config, progress)

    def found() -> Point:
        if asked.target_bytes is not None:
            return to_size(rounder, asked.target_bytes)
        if asked.max_drop is not None:
            least = (stages.list[0].top1 or 0.0) - asked.max_drop
            return to_quality(rounder, lambda rounded: task.measure(rounded).top1 >= least)
        return rounder.round(rounder.usual_price)

    point = found()
    if effort is not None:
        rounded = stages.add("rounded", point.network, asked.coder)
        left, how = recovered(
            unshared(rounded), original, asked.finetune or task.training, effort,
            decode=task.decoded, seed=asked.seed, checkpoint=asked.checkpoint, progress=progress,
        )  # fmt: skip
        rounder = Rounder(left.with_step(how), images, config, progress)
        point = found()
    if asked.on_curve is not None:
        asked.on_curve(curve(rounder, task.measure))
    stages.add("coded", point.network, asked.coder)
    return stages.list


def int8_stage(network: Network, coder: CoderName, task: Task, progress: Progress) -> list[Stage]:
    """One more stage: the same file with ranges for int8, measured as it then runs."""
    stages = Stages(task.measure)
    stages.add("int8", calibrated(network, task.calibration(IMAGES), progress), coder)
    return stages.list


METHODS: Mapping[str, Method] = {"best": best, "deep": deep, "prune": prune, "svd": svd}
"""By the name that `--method` takes."""


def named(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: where there is none; it names the nearest.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(METHODS)}"
    raise InputError(f"there is no method {name!r}: {hint}")
