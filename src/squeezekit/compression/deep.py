"""The method "deep", Deep Compression: prune, retrain, share weights, train their values, code.

Han et al. 2016, "Deep Compression", with the iterative pruning and the dropout of Han et al. 2015,
"Learning both Weights and Connections for Efficient Neural Networks".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, get_args

from squeezekit.compression.checks import only_with_photos, within
from squeezekit.compression.method import measure_of
from squeezekit.compression.prune import table1
from squeezekit.compression.pruning import (
    Prune,
    alexnet_densities,
    is_alexnet,
    pruned,
)
from squeezekit.compression.share import MAX_BITS, Init, share, with_rounded_tables
from squeezekit.compression.stages import Measure, Stages
from squeezekit.errors import InputError
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, renamed, silent
from squeezekit.sqz.network import Network
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Recipe

if TYPE_CHECKING:
    from squeezekit.compression.task import Task
    from squeezekit.compression.work import Work
    from squeezekit.training.batches import TrainingData

USUAL_BITS = 6


@dataclass(frozen=True, kw_only=True)
class Deep(Prune):
    """Deep Compression (Han et al. 2016): prune, retrain, share weights, train their values, code.

    Retraining needs photos in class folders. Without photos it shares weights, and prunes only if
    you give a density.

    If you give no density, it keeps a third of the weights (in AlexNet, as many as Han et al.) when
    there are photos to retrain on, and all weights when there are none. If you give no bits, each
    index has 6 bits (in AlexNet, as many as in Han et al.).

    Attributes:
        density: the share of the weights to keep, above 0 and at most 1. One number is for all
            layers but the first and tiny ones; in Python a mapping gives each tensor its own.
        rounds: how many times to prune and retrain; the density falls by the same factor each time.
        epochs: how many epochs each retraining takes, instead of the recipe's 8.
        bits: how many bits the index of a shared weight has, 1 to 16. One number is for all layers;
            in Python a mapping gives each tensor its own.
        init: how k-means chooses its first values: "linear", "density" or "random".
        mantissa_bits: how many mantissa bits each number in the file has, 1 to 23; 10 is float16's.
        coder: "entropy", "huffman" (larger, as in the paper) or "dense" (not compressed).
        seed: starts all random numbers: the same seed gives the same file.
        retrain: the recipe for retraining; None does not retrain.
        centroids: the recipe for training the shared values; None keeps those that k-means found.
    """

    bits: Mapping[str, int] | int | None = None
    init: Init = "linear"
    mantissa_bits: int = 10
    centroids: Recipe | None = field(default_factory=recipes.centroids)

    def __post_init__(self) -> None:
        super().__post_init__()
        each = self.bits.values() if isinstance(self.bits, Mapping) else [self.bits]
        for bits in each:
            if bits is not None:
                within("bits", bits, 1, MAX_BITS)
        within("mantissa_bits", self.mantissa_bits, 1, 23)
        if self.init not in get_args(Init):
            raise InputError(f"init must be {' or '.join(get_args(Init))}, not {self.init!r}")

    def fitting(self, network: Network, *, retrains: bool) -> Self:
        """The same settings, with default bits, and as in `Prune` a density, in place of None."""
        how = super().fitting(network, retrains=retrains)
        if how.bits is not None:
            return how
        return dataclasses.replace(how, bits=alexnet_bits() if is_alexnet(network) else USUAL_BITS)

    def compressed(
        self, network: Network, task: Task | None, work: Work, progress: Progress
    ) -> Stages:
        """Run all steps of the pipeline; see `Method.compressed`."""
        if task is None:
            only_with_photos(self.changed() & {"epochs", "rounds"})
            return deep_compression(network, self, progress=progress)
        return deep_compression(network, self, task.data, measure_of(task), progress, work)


def paper_8bit() -> Deep:
    """SqueezeNet v1.0 at Table 1's densities and 8 bits: 0.66 MB in Table 2."""
    return Deep(density=table1(), bits=8)


def paper_6bit() -> Deep:
    """SqueezeNet v1.0 at Table 1's densities and 6 bits: 0.47 MB in Table 2."""
    return Deep(density=table1(), bits=6)


def alexnet() -> Deep:
    """AlexNet as in Han et al.: 6.9 MB in Table 2, 35 times smaller.

    The densities are those of Han et al. 2016, table 4 (11% overall). Weights of convolutions have
    8 bits, those of fully connected layers 5. `coder="huffman"` uses their 4-bit gaps.
    """
    return Deep(density=alexnet_densities(), bits=alexnet_bits())


def alexnet_bits() -> dict[str, int]:
    """8 bits for weights of convolutions, 5 for those of fully connected layers, by tensor name."""
    return {name: 8 if name.startswith("conv") else 5 for name in alexnet_densities()}


def digits() -> Deep:
    """For the demo's squeezenet-digits.

    Large tensors are pruned most: the 3x3 filters of fire6 and fire7 hold half of all weights, and
    see only 2x2 pixels. Retraining at the full rate finds better weights than at a low one.
    """
    retrain = dataclasses.replace(recipes.digits(), epochs=10, warmup_epochs=0)
    centroids = dataclasses.replace(retrain, epochs=4, learning_rate=0.001, weight_decay=0.0)
    density_1x1 = {2: 0.5, 3: 0.5, 4: 0.3, 5: 0.3, 6: 0.15, 7: 0.15}
    density_3x3 = {2: 0.25, 3: 0.25, 4: 0.1, 5: 0.1, 6: 0.03, 7: 0.03}
    densities = {"conv8.weight": 0.5}
    for fire in density_1x1:
        densities[f"fire{fire}.squeeze1x1.weight"] = density_1x1[fire]
        densities[f"fire{fire}.expand1x1.weight"] = density_1x1[fire]
        densities[f"fire{fire}.expand3x3.weight"] = density_3x3[fire]
    return Deep(density=densities, bits=4, retrain=retrain, centroids=centroids)


def deep_compression(
    network: Network,
    config: Deep,
    data: TrainingData | None = None,
    measure: Measure | None = None,
    progress: Progress = silent,
    work: Work | None = None,
) -> Stages:
    """Compress a network, and record the size and accuracy after each stage.

    Once pruned, weights stay exactly zero; once shared, they stay shared. Batch norms help
    retraining, and are folded after it.

    Args:
        network: the network to compress.
        config: the settings.
        data: training images; None prunes and shares without any training.
        measure: evaluates the network of a stage.
        progress: called with the iterations of each training.
        work: keeps the state of each training.

    Returns:
        Four stages. The network of the last one, encoded with `config.coder`, is the file.

    Raises:
        InputError: if the settings do not fit the network, or training diverges.
    """
    from squeezekit.compression.retraining import retrained

    config = config.fitting(network, retrains=data is not None)
    assert config.bits is not None
    stages = Stages(measure)
    stages.add("float32", fold_batch_norm(network), "dense")
    network = pruned(network, config, data, work, progress)
    network = stages.add("pruned", fold_batch_norm(network), "entropy")
    network = share(network, config.bits, config.init, config.seed)
    if data is not None and config.centroids is not None:
        recipe = dataclasses.replace(config.centroids, seed=config.seed)
        checkpoints = None if work is None else work.checkpoints(network, recipe, data.fingerprint)
        network = retrained(
            network, data, recipe, checkpoints=checkpoints, progress=renamed("centroids", progress)
        )
    network = stages.add("shared", network, "huffman")
    network = with_rounded_tables(network, config.mantissa_bits)
    network = network.with_step(f"Deep Compression: {_described(config)}")
    stages.add("coded", network, config.coder)
    return stages


def _described(config: Deep) -> str:
    density = config.density if isinstance(config.density, float) else None
    keeps_all = config.density is None or config.density == 1.0
    pruning = "" if keeps_all else f"pruned to {density or 'densities by tensor'}, "
    bits = f"{config.bits} bits" if isinstance(config.bits, int) else "bits by tensor"
    return f"{pruning}{bits}"
