"""The method "svd": low-rank layers by truncated SVD, and fine-tuning (Denton et al. 2014)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from squeezekit.compression.checks import at_least, only_one, only_with_photos, share_of_all
from squeezekit.compression.method import Method, measure_of
from squeezekit.compression.stages import Stages
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress
from squeezekit.sqz.network import Network
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Recipe

if TYPE_CHECKING:
    from squeezekit.compression.task import Task
    from squeezekit.compression.work import Work

USUAL_TIMES = 5
"""How many times smaller the network becomes by default: as AlexNet in the paper's Table 2."""


@dataclass(frozen=True, kw_only=True)
class Svd(Method):
    """Replace each layer by two smaller ones, by truncated SVD, and fine-tune (Denton et al. 2014).

    Fine-tuning needs photos in class folders. Without photos it only factors. If you ask for
    nothing, the weights take a fifth of the bytes.

    Attributes:
        energy: the share of the sum of squares of each layer's weights to keep, above 0 and at
            most 1.
        target_bytes: the largest size that the file may have as float32, before it is coded.
        epochs: how many epochs to fine-tune, instead of the recipe's 8.
        coder: "entropy", "huffman" (larger, as in the paper) or "dense" (not compressed).
        seed: starts all random numbers: the same seed gives the same file.
        retrain: the recipe for fine-tuning; None does not train.
    """

    learns_labels: ClassVar[bool] = True

    energy: float | None = None
    target_bytes: int | None = None
    epochs: int | None = None
    retrain: Recipe | None = field(default_factory=recipes.retrain)

    def __post_init__(self) -> None:
        super().__post_init__()
        only_one(energy=self.energy, target_bytes=self.target_bytes)
        if self.energy is not None:
            share_of_all("the energy to keep", self.energy)
        at_least("target_bytes", self.target_bytes, 1)
        at_least("epochs", self.epochs, 0)

    def compressed(
        self, network: Network, task: Task | None, work: Work, progress: Progress
    ) -> Stages:
        """Factor and fine-tune; see `Method.compressed`."""
        from squeezekit.compression.low_rank import (
            factored,
            ranks_by_bytes,
            ranks_by_energy,
            spectra,
        )
        from squeezekit.compression.retraining import retrained

        if task is None:
            only_with_photos(self.changed() & {"epochs"})
        stages = Stages(measure_of(task))
        original = stages.add("float32", fold_batch_norm(network), "dense")
        float_bytes = stages.list[0].file_bytes
        layers = spectra(network)
        if self.energy is not None:
            ranks = ranks_by_energy(layers, self.energy)
        else:
            target = self.target_bytes or float_bytes // USUAL_TIMES
            overhead = max(float_bytes - 4 * original.parameters, 0)
            ranks = ranks_by_bytes(network, layers, target - overhead)
        network = factored(network, ranks)
        stages.add("factored", fold_batch_norm(network), "dense")
        if task is not None and self.retrain is not None:
            epochs = self.retrain.epochs if self.epochs is None else self.epochs
            recipe = dataclasses.replace(self.retrain, seed=self.seed, epochs=epochs)
            checkpoints = work.checkpoints(network, original, recipe, task.data.fingerprint)
            network = retrained(
                network, task.data, recipe, original, checkpoints=checkpoints, progress=progress
            )
        network = fold_batch_norm(network).with_step(f"SVD of {len(ranks)} layers")
        stages.add("coded", network, self.coder)
        return stages
