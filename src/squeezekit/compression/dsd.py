"""Dense-sparse-dense training: prune, retrain what is left, free the pruned weights, retrain all.

Han et al. 2017, "DSD: Dense-Sparse-Dense Training for Deep Neural Networks". The network does not
become smaller: it is regularised, and is as dense at the end as before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from squeezekit.compression.prune import prune, uniform
from squeezekit.compression.retraining import retrained
from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation
from squeezekit.progress import Note, Progress, silent
from squeezekit.sqz.network import Network, tensor_values
from squeezekit.sqz.nodes import weight_names
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.loop import fit
from squeezekit.training.recipe import Recipe
from squeezekit.training.run import Run, train_run

DENSE, SPARSE, REDENSE = "dense", "sparse", "re-dense"
"""Names of the phases."""


@dataclass(frozen=True)
class DsdConfig:
    """How the three phases train.

    Attributes:
        dense: first training; None takes the network as it is, trained already.
        sparse: training under the mask.
        density: share of the weights that the mask leaves, as `prune.uniform` has it; the authors
            kept about a third of SqueezeNet.
        redense_rate: factor on the sparse phase's learning rate once the mask is gone.
    """

    dense: Recipe | None = None
    sparse: Recipe = field(default_factory=recipes.dsd)
    density: float = 1 / 3
    redense_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.redense_rate <= 0:
            raise InputError(f"redense_rate must be above 0, not {self.redense_rate}")

    @property
    def redense(self) -> Recipe:
        """The recipe of the last phase."""
        rate = self.sparse.learning_rate * self.redense_rate
        return dataclasses.replace(self.sparse, learning_rate=rate)


@dataclass(frozen=True)
class Phase:
    """The network after a phase.

    Attributes:
        name: "dense", "sparse" or "re-dense".
        network: as it is then.
        top1, top5: percent; None if nothing was measured.
        nonzero: weights of convolutions and matrix products that are not 0.
    """

    name: str
    network: Network
    top1: float | None
    top5: float | None
    nonzero: int


def dsd(
    network: Network,
    config: DsdConfig,
    data: TrainingData,
    measure: Callable[[Network], Evaluation] | None = None,
    progress: Progress = silent,
) -> list[Phase]:
    """Train a network dense, sparse and dense again.

    In the sparse phase the weights outside the mask stay exactly zero; in the last one they start
    from zero and may take any value.

    Args:
        network: the network to train; its weights must not be shared.
        config: how.
        data: training images.
        measure: evaluates a phase.
        progress: called for the iterations of each phase, under its name.

    Returns:
        Three phases; the last one's network is the result.

    Raises:
        InputError: if the density is not in (0, 1], or training diverges.
    """

    def named(task: str) -> Progress:
        return lambda _, done, total: progress(task, done, total)

    phases: list[Phase] = []

    def add(name: str, network: Network) -> Network:
        evaluation = None if measure is None else measure(network)
        phases.append(
            Phase(
                name=name,
                network=network,
                top1=None if evaluation is None else evaluation.top1,
                top5=None if evaluation is None else evaluation.top5,
                nonzero=nonzero_weights(network),
            )
        )
        return network

    densities = uniform(network, config.density)
    if config.dense is not None:
        network = _trained(network, data, config.dense, named(DENSE))
    add(DENSE, network)
    network = prune(network, densities)
    network = add(SPARSE, retrained(network, data, config.sparse, progress=named(SPARSE)))
    add(REDENSE, _trained(network, data, config.redense, named(REDENSE)))
    return phases


def dsd_run(
    network: Network,
    data: Path | ImageSet,
    out: Path,
    recipe: Recipe,
    resume: bool,
    progress: Progress,
    note: Note,
    title: str = "",
) -> Run:
    """Train a trained network sparse and dense again, each phase a run in a folder of `out`.

    Args:
        network: trained already.
        data: the folder of images.
        out: gets the folders "sparse" and "re-dense".
        recipe: the recipe of the sparse phase.
        resume: go on where this was interrupted, in either phase.
        progress: called during decoding, training and evaluation.
        note: called with a sentence about skipped images, and with warnings.
        title: what people call it.

    Returns:
        The last phase's run.

    Raises:
        InputError: as `train_run` does.
    """
    config = DsdConfig(sparse=recipe)
    pruned = prune(network, uniform(network, config.density))
    sparse = train_run(
        pruned, data, out / SPARSE, config.sparse,
        masked=True, resume=resume, title=title, progress=progress, note=note,
    )  # fmt: skip
    return train_run(
        sparse.network, data, out / REDENSE, config.redense,
        resume=resume, title=title, progress=progress, note=note,
    )  # fmt: skip


def nonzero_weights(network: Network) -> int:
    """Number of weights of convolutions and matrix products that are not 0."""
    return sum(
        int(np.count_nonzero(tensor_values(network.tensors[name])))
        for name in weight_names(network)
    )


def _trained(network: Network, data: TrainingData, recipe: Recipe, progress: Progress) -> Network:
    """Train with all weights free."""
    net = TrainableNetwork(network)
    fit(net, data, recipe, progress=progress)
    return net.to_network()
