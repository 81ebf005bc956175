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
"""The density of each layer in Han et al. 2016, table 4: 11% overall."""

USUAL = 0.33
"""A third of the weights in every layer, like the 3x3 filters of the paper's Table 1."""


@dataclass(frozen=True, kw_only=True)
class Prune(Method):
    """Set the smallest weights to zero and retrain the others, in rounds (Han et al. 2015).

    The weights that are left stay float32. Retraining needs photos in class folders. Without
    photos it prunes once, and you must give a density.

    If you give no density, it keeps a third of the weights (in AlexNet, as many as Han et al.).

    Attributes:
        density: the share of the weights to keep, above 0 and at most 1. One number is for all
            layers but the first and tiny ones; in Python a mapping gives each tensor its own.
        rounds: how many times to prune and retrain; the density falls by the same factor each time.
        epochs: how many epochs each retraining takes, instead of the recipe's 8.
        coder: "entropy", "huffman" (larger, as in the paper) or "dense" (not compressed).
        seed: starts all random numbers: the same seed gives the same file.
        retrain: the recipe for retraining; None does not retrain.
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
        """The same settings, with the default density in place of None if there are photos."""
        if self.density == table1() and not table1().keys() <= set(weight_names(network)):
            raise InputError(
                f"Table 1's densities are for SqueezeNet v1.0, not for {network.metadata.name}"
            )
        if self.density is not None or not retrains:
            return self
        density = alexnet_densities() if is_alexnet(network) else USUAL
        return dataclasses.replace(self, density=density)

    def retraining(self) -> Recipe | None:
        """The recipe with this method's epochs and seed."""
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
    """Prune to `config.density`; if there is data, in rounds of pruning and retraining."""
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
    network = unshared(network)  # weights tied to shared values could not make up for pruned ones
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
    """The densities of `ALEXNET` by tensor name."""
    return {f"{layer}.weight": density for layer, density in ALEXNET.items()}


def is_alexnet(network: Network) -> bool:
    """True if the network has exactly AlexNet's layers."""
    return alexnet_densities().keys() == set(weight_names(network))
