"""Deep Compression: prune, retrain, share weights, fine-tune the centroids, code.

Han et al. 2016, "Deep Compression", with the iterative pruning and the dropout of Han et al. 2015,
"Learning both Weights and Connections for Efficient Neural Networks".
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from squeezekit.compression.prune import prune, table1, uniform
from squeezekit.compression.retraining import retrained
from squeezekit.compression.share import Init, share, with_rounded_tables
from squeezekit.compression.stages import Measure, Stage, Stages
from squeezekit.errors import InputError
from squeezekit.files import read_bytes
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, silent
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.network import Network, unshared
from squeezekit.sqz.nodes import weight_names
from squeezekit.training import recipe as recipes
from squeezekit.training.batches import TrainingData
from squeezekit.training.recipe import Recipe


@dataclass(frozen=True)
class DeepConfig:
    """How far to compress, and how to make up for it.

    Attributes:
        densities: share of the weights to keep by tensor name, or one for `prune.uniform`; None
            keeps every weight that is not zero already.
        rounds: pruning falls to its densities in that many equal ratios, retraining after each
            (Han et al. 2015, section 3.4); without training data there is only one.
        retrain: after each round of pruning; None does not retrain.
        bits: of shared weights, by tensor name or one for all.
        init: where k-means starts (see `share.first_centroids`).
        finetune: trains the centroids after sharing; None leaves them as k-means has them.
        mantissa_bits: that centroids and biases are rounded to in the end, 1 to 23; 10 are those
            of float16, and 23 round nothing.
        coder: of the final file.
    """

    densities: Mapping[str, float] | float | None = None
    rounds: int = 1
    retrain: Recipe | None = None
    bits: Mapping[str, int] | int = 6
    init: Init = "linear"
    finetune: Recipe | None = None
    mantissa_bits: int = 10
    coder: CoderName = "entropy"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"pruning takes at least 1 round, not {self.rounds}")
        if not 1 <= self.mantissa_bits <= 23:
            raise InputError(f"mantissa_bits must be 1 to 23, not {self.mantissa_bits}")


def paper_8bit() -> DeepConfig:
    """SqueezeNet v1.0 at Table 1's densities and 8 bits: 0.66 MB in Table 2."""
    return dataclasses.replace(paper_6bit(), bits=8)


def paper_6bit() -> DeepConfig:
    """SqueezeNet v1.0 at Table 1's densities and 6 bits: 0.47 MB in Table 2."""
    return DeepConfig(
        densities=table1(), rounds=3, bits=6, retrain=recipes.retrain(),
        finetune=recipes.centroids(),
    )  # fmt: skip


def alexnet() -> DeepConfig:
    """AlexNet as Han et al. have it: 6.9 MB in Table 2, 35 times smaller.

    The densities are those of Han et al. 2016, table 4 (11% in all); 8 bits a weight of the
    convolutions and 5 of the fully connected layers; `coder="huffman"` has their 4-bit gaps.
    """
    densities = {
        "conv1": 0.84, "conv2": 0.38, "conv3": 0.35, "conv4": 0.37, "conv5": 0.37,
        "fc6": 0.09, "fc7": 0.09, "fc8": 0.25,
    }  # fmt: skip
    return DeepConfig(
        densities={f"{layer}.weight": density for layer, density in densities.items()},
        rounds=3,
        bits={f"{layer}.weight": 8 if layer.startswith("conv") else 5 for layer in densities},
        retrain=recipes.retrain(),
        finetune=recipes.centroids(),
    )


def standard(density: float | None = 0.33, bits: int = 6) -> DeepConfig:
    """Any network: a third of the weights everywhere, as Table 1 has in its 3x3 filters."""
    return DeepConfig(
        densities=density, rounds=3, bits=bits, retrain=recipes.retrain(),
        finetune=recipes.centroids(),
    )  # fmt: skip


def digits() -> DeepConfig:
    """The demo's squeezenet-digits.

    Large tensors give up most: the 3x3 filters of fire6 and fire7, half of all weights, see only
    2x2 pixels. Retraining at the full rate finds better weights than a careful one does.
    """
    retrain = dataclasses.replace(recipes.digits(), epochs=10, warmup_epochs=0)
    finetune = dataclasses.replace(retrain, epochs=4, learning_rate=0.001, weight_decay=0.0)
    density_1x1 = {2: 0.5, 3: 0.5, 4: 0.3, 5: 0.3, 6: 0.15, 7: 0.15}
    density_3x3 = {2: 0.25, 3: 0.25, 4: 0.1, 5: 0.1, 6: 0.03, 7: 0.03}
    densities = {"conv8.weight": 0.5}
    for fire in density_1x1:
        densities[f"fire{fire}.squeeze1x1.weight"] = density_1x1[fire]
        densities[f"fire{fire}.expand1x1.weight"] = density_1x1[fire]
        densities[f"fire{fire}.expand3x3.weight"] = density_3x3[fire]
    return DeepConfig(densities=densities, rounds=3, bits=4, retrain=retrain, finetune=finetune)


def deep_compression(
    network: Network,
    config: DeepConfig,
    data: TrainingData | None = None,
    measure: Measure | None = None,
    progress: Progress = silent,
) -> list[Stage]:
    """Compress a network, and say after each stage what that gained and cost.

    Pruned weights stay exactly zero from the pruning on, and shared weights shared. Batch norms
    help the retraining, and are folded after it.

    Args:
        network: to compress.
        config: how.
        data: training images; None prunes and shares without any training.
        measure: evaluates a stage.
        progress: told of the iterations of each training.

    Returns:
        Four stages; the last one's network, encoded with `config.coder`, is the final file.

    Raises:
        InputError: where the configuration does not fit the network, or training diverges.
    """
    stages = Stages(measure)
    add = stages.add
    add("float32", fold_batch_norm(network), "dense")
    network = pruned(network, config, data, progress)
    network = add("pruned", fold_batch_norm(network), "entropy")
    network = share(network, config.bits, config.init)
    if data is not None and config.finetune is not None:
        network = retrained(network, data, config.finetune, progress=_named("centroids", progress))
    network = add("shared", network, "huffman")
    network = with_rounded_tables(network, config.mantissa_bits)
    network = network.with_step(f"Deep Compression: {_described(config)}")
    add("coded", network, config.coder)
    return stages.list


def pruned(
    network: Network,
    config: DeepConfig,
    data: TrainingData | None = None,
    progress: Progress = silent,
) -> Network:
    """Prune to `config.densities`, in rounds of pruning and retraining where there is data."""
    densities = config.densities
    if densities is None:
        return network
    if not isinstance(densities, Mapping):
        densities = uniform(network, densities)
    if data is None or config.retrain is None:
        return prune(network, densities)
    network = unshared(network)  # weights that share values could not make up for the pruned ones
    for i in range(config.rounds):
        share_of_the_way = (i + 1) / config.rounds
        network = prune(network, {name: d**share_of_the_way for name, d in densities.items()})
        named = _named(f"retrain {i + 1} of {config.rounds}", progress)
        network = retrained(network, data, config.retrain, progress=named)
    return network


def _named(task: str, progress: Progress) -> Progress:
    """The same progress under the name of a step."""
    return lambda _, done, total: progress(task, done, total)


def _described(config: DeepConfig) -> str:
    density = config.densities if isinstance(config.densities, float) else None
    pruning = "" if config.densities is None else f"pruned to {density or 'densities by tensor'}, "
    bits = f"{config.bits} bits" if isinstance(config.bits, int) else "bits by tensor"
    return f"{pruning}{bits}"


def deep_config(
    network: Network,
    *,
    bits: int | None = None,
    density: str | None = None,
    epochs: int | None = None,
    coder: CoderName = "entropy",
    retrain: bool = True,
    seed: int = 0,
) -> DeepConfig:
    """The pipeline that fits a network, with what the user asked for.

    Args:
        network: AlexNet gets the densities and bits of Han et al. where nothing else is asked for;
            Table 1's densities are for SqueezeNet v1.0 alone.
        bits: of an index into a table of shared values; 6 where None.
        density: share of the weights to keep in every layer, "table1", a .json file with one by
            tensor name (such as `squeezekit sensitivity` writes), or None for a third where there
            are images to retrain on, and all where there are none.
        epochs: of retraining after each round of pruning.
        coder: of the final file.
        retrain: whether there are images to retrain on.
        seed: of the retraining.

    Raises:
        InputError: where one of these cannot be.
    """
    config = dataclasses.replace(_preset(network), coder=coder)
    if bits is not None:
        config = dataclasses.replace(config, bits=bits)
    if density is not None:
        config = dataclasses.replace(config, densities=_densities(network, density))
    elif not retrain:
        config = dataclasses.replace(config, densities=None)
    if config.retrain is not None and config.finetune is not None:
        recipe = dataclasses.replace(
            config.retrain, seed=seed, epochs=config.retrain.epochs if epochs is None else epochs
        )
        centroids = dataclasses.replace(config.finetune, seed=seed)
        config = dataclasses.replace(config, retrain=recipe, finetune=centroids)
    return config


def _preset(network: Network) -> DeepConfig:
    densities = alexnet().densities
    assert isinstance(densities, dict)
    return alexnet() if densities.keys() == set(weight_names(network)) else standard()


def _densities(network: Network, density: str) -> dict[str, float] | float:
    if density == "table1":
        if not table1().keys() <= set(weight_names(network)):
            raise InputError(
                f"Table 1's densities are for SqueezeNet v1.0, not for {network.metadata.name}"
            )
        return table1()
    if density.lower().endswith(".json"):
        return _densities_in(Path(density))
    try:
        return float(density)
    except ValueError:
        raise InputError(
            f"the density must be a number, table1 or a .json file, not {density!r}"
        ) from None


def _densities_in(path: Path) -> dict[str, float]:
    """Densities by tensor name: under "densities", or the whole file."""
    try:
        content = json.loads(read_bytes(path))
        found = content.get("densities", content)
        return {str(name): float(density) for name, density in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: does not hold densities by tensor name") from None
