"""The method "prune": magnitude pruning in rounds, with retraining after each.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from squeezekit.compression.checks import at_least, only_with_photos, share_of_all
from squeezekit.compression.method import Method, measure_of
from squeezekit.compression.prune import (
    falling_densities,
    prune,
    table1,
    uniform,
)
from squeezekit.compression.stages import Stages
from squeezekit.errors import InputError
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, renamed, silent
from squeezekit.sqz.network import Network, unshared
from squeezekit.sqz.nodes import weight_names
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Recipe

if TYPE_CHECKING:
    from squeezekit.compression.task import Task
    from squeezekit.compression.work import Work
    from squeezekit.training.batches import TrainingData

ALEXNET = {
    "conv1": 0.84, "conv2": 0.38, "conv3": 0.35, "conv4": 0.37, "conv5": 0.37,
    "fc6": 0.09, "fc7": 0.09, "fc8": 0.25,
}  # fmt: skip
"""Densities of Han et al. 2016, table 4, by layer: 11% in all."""

USUAL = 0.33
"""A third of the weights everywhere, as Table 1 has in its 3x3 filters."""


@dataclass(frozen=True, kw_only=True)
class Prune(Method):
    """Set the smallest weights to zero and retrain the others, in rounds (Han et al. 2015).

    The weights that are left stay float32. To retrain it needs photos in the folders of their
    classes; without photos it prunes once, to a density that must be given.

    Where no density is given, a third of the weights stays, and in AlexNet what Han et al. kept.

    Attributes:
        density: share of the weights to keep, above 0 and at most 1: one number for all layers but
            the first and tiny ones, or a mapping by tensor name, such as `table1()`.
        rounds: how many times to prune and retrain; the density falls by equal ratios.
        epochs: of each retraining, instead of the recipe's 8.
        coder: "entropy", "huffman" (larger, as in the paper) or "dense" (numbers as they are).
        seed: everything random follows from it: the same seed gives the same file.
        retrain: the recipe of retraining; None does not retrain.
    """

    learns_labels: ClassVar[bool] = True

    density: Mapping[str, float] | float | None = None
    rounds: int = 3
    epochs: int | None = None
    retrain: Recipe | None = field(default_factory=recipes.retrain)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.density, Mapping):
            for name, density in self.density.items():
                share_of_all(f"the density of {name}", density)
        elif self.density is not None:
            share_of_all("the density", self.density)
        at_least("rounds", self.rounds, 1)
        at_least("epochs", self.epochs, 0)

    def fitting(self, network: Network, *, retrains: bool) -> Self:
        """With a density in place of None, where the network and photos call for one."""
        if self.density == table1() and not table1().keys() <= set(weight_names(network)):
            raise InputError(
                f"Table 1's densities are for SqueezeNet v1.0, not for {network.metadata.name}"
            )
        if self.density is not None or not retrains:
            return self
        density = alexnet_densities() if is_alexnet(network) else USUAL
        return dataclasses.replace(self, density=density)

    def retraining(self) -> Recipe | None:
        """The recipe, with the epochs and the seed that were asked for."""
        if self.retrain is None:
            return None
        epochs = self.retrain.epochs if self.epochs is None else self.epochs
        return dataclasses.replace(self.retrain, epochs=epochs, seed=self.seed)

    def compressed(
        self, network: Network, task: Task | None, work: Work, progress: Progress
    ) -> Stages:
        """Prune and retrain; see `Method.compressed`."""
        if task is None:
            only_with_photos(self.changed() & {"epochs", "rounds"})
        how = self.fitting(network, retrains=task is not None)
        if how.density is None:
            raise InputError("pruning needs photos to retrain on, or a density")
        stages = Stages(measure_of(task))
        stages.add("float32", fold_batch_norm(network), "dense")
        network = pruned(network, how, None if task is None else task.data, work, progress)
        network = fold_batch_norm(network).with_step(f"pruned to {network.nonzero:,} weights")
        stages.add("pruned", network, self.coder)
        return stages


def pruned(
    network: Network,
    config: Prune,
    data: TrainingData | None = None,
    work: Work | None = None,
    progress: Progress = silent,
) -> Network:
    """Prune to `config.density`, in rounds of pruning and retraining where there is data."""
    from squeezekit.compression.retraining import retrained

    densities = config.density
    if densities is None:
        return network
    if not isinstance(densities, Mapping):
        densities = uniform(network, densities)
    recipe = config.retraining()
    if data is None or recipe is None:
        return prune(network, densities)
    falling = falling_densities(network, densities, config.rounds)
    if not _takes_any(network, falling[-1]):
        return network
    network = unshared(network)  # weights that share values could not make up for the pruned ones
    for i, now in enumerate(falling, 1):
        network = prune(network, now)
        checkpoints = None if work is None else work.checkpoints(network, recipe, data.fingerprint)
        named = renamed(f"retrain {i} of {config.rounds}", progress)
        network = retrained(network, data, recipe, checkpoints=checkpoints, progress=named)
    return network


def _takes_any(network: Network, densities: Mapping[str, float]) -> bool:
    """Whether pruning to these densities would change anything."""
    return prune(network, densities).nonzero < network.nonzero


def alexnet_densities() -> dict[str, float]:
    """ALEXNET by tensor name."""
    return {f"{layer}.weight": density for layer, density in ALEXNET.items()}


def is_alexnet(network: Network) -> bool:
    """Whether the network has AlexNet's layers, and no others."""
    return alexnet_densities().keys() == set(weight_names(network))
