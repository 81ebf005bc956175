"""Table 2: AlexNet and SqueezeNet, and what SVD, pruning and Deep Compression make of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from squeezekit.compression.deep import Deep
from squeezekit.compression.low_rank import factored, ranks_by_bytes, spectra
from squeezekit.compression.prune import falling_densities, layer_adaptive, prune, table1
from squeezekit.compression.pruning import alexnet_densities
from squeezekit.compression.share import share, with_rounded_tables
from squeezekit.data.dataset import split
from squeezekit.errors import InputError
from squeezekit.interop.weights import load_network
from squeezekit.models import catalogue
from squeezekit.models.fold import fold_batch_norm
from squeezekit.reproduction.result import Column, Reproduction, Row, Value
from squeezekit.reproduction.workshop import Measured, Workshop
from squeezekit.sqz.network import Network
from squeezekit.sqz.nodes import weight_names
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Augmentation, Recipe
from squeezekit.training.start import start_of

MEGABYTE = 1_000_000

# Row, bits, the file's bytes, times smaller than AlexNet, top-1, top-5.
PAPER: tuple[tuple[str, str, float, float, float, float], ...] = (
    ("AlexNet", "32", 240, 1, 57.2, 80.3),
    ("AlexNet, SVD", "32", 48, 5, 56.0, 79.4),
    ("AlexNet, pruned", "32", 27, 9, 57.2, 80.3),
    ("AlexNet, Deep Compression", "5-8", 6.9, 35, 57.2, 80.3),
    ("SqueezeNet", "32", 4.8, 50, 57.5, 80.3),
    ("SqueezeNet, Deep Compression 8 bit", "8", 0.66, 363, 57.5, 80.3),
    ("SqueezeNet, Deep Compression 6 bit", "6", 0.47, 510, 57.5, 80.3),
)

COLUMNS = (
    Column("bits", "bits", "text"),
    Column("file_bytes", "bytes", "bytes"),
    Column("times", "smaller than AlexNet", "times"),
    Column("own_times", "than its own float32", "times"),
    Column("top1", "top-1 %", "percent"),
    Column("top5", "top-5 %", "percent"),
    Column("change", "top-1 against its float32", "points"),
)


def alexnet_recipe() -> Recipe:
    """AlexNet from scratch on hundreds of photos a class or fewer: batch norms everywhere.

    Without batch norms in the hidden layers it stays at a loss of ln(classes). The last layer adds
    up 4096 values and needs a low rate: at 0.02 the loss on the training images rises.
    """
    return Recipe(
        epochs=30, batch=32, learning_rate=0.005, nesterov=True, weight_decay=5e-4, warmup_epochs=1,
        label_smoothing=0.1, clip_norm=5.0, precision="bf16", variant="modern",
        augmentation=Augmentation(resized_crop=0.35),
    )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How one of the two networks is trained, and made small.

    Attributes:
        model: name in the catalogue, where it is trained from scratch.
        train: the float32 network, from scratch.
        finetune: the same, from weights.
        recover: retraining of a network that came from weights. They know more than a small data
            set can teach, so it learns from their answers alone.
        rounds: the number of rounds of pruning and retraining.
        retrain_epochs: the number of epochs of each round.
        retrain_rate: the learning rate of each round, for a network trained from scratch.
        factored_epochs, factored_rate: after SVD.
        centroid_epochs: after sharing.
    """

    model: str
    train: Recipe
    finetune: Recipe = field(default_factory=recipes.refine)
    recover: Recipe = field(
        default_factory=lambda: dataclasses.replace(
            recipes.recover(), learning_rate=0.002, augmentation=Augmentation(resized_crop=0.35)
        )
    )
    rounds: int = 3
    retrain_epochs: int = 10
    retrain_rate: float = 0.002
    factored_epochs: int = 15
    factored_rate: float = 0.002
    centroid_epochs: int = 3

    def retraining(self, init: Path | None, epochs: int, rate: float) -> Recipe:
        """Of a compressed network, whose float32 network started from `init` or from scratch."""
        if init is not None:
            return dataclasses.replace(self.recover, epochs=epochs)
        return dataclasses.replace(
            self.train, epochs=epochs, learning_rate=rate, warmup_epochs=0, ema=0.0, body_rate=1.0
        )

    def with_recipes(self, change: Callable[[Recipe], Recipe]) -> Family:
        """The same with each of its recipes changed."""
        return dataclasses.replace(
            self,
            train=change(self.train),
            finetune=change(self.finetune),
            recover=change(self.recover),
        )


@dataclass(frozen=True)
class Table2:
    """Everything that Table 2's rows depend on.

    Attributes:
        alexnet, squeezenet: how they are trained.
        input_size: of networks trained from scratch; None is their own.
        svd_times: how much smaller SVD makes AlexNet, a little above the 5 that it must be.
        fc_density: the density of AlexNet's fc6 and fc7; the other layers have Han et al.'s
            densities. They had 0.09, which leaves a file 33 times smaller where fc8 has ten classes
            only.
        fc_bits, conv_bits: the bits of AlexNet under Deep Compression.
        squeezenet_density: the density of SqueezeNet's weights but conv1's, spread over
            the layers by their magnitudes; None for Table 1's densities, which prune conv10 most:
            with few classes there is little of it.
        seed: the seed of everything.
    """

    alexnet: Family = field(
        default_factory=lambda: Family(
            "alexnet", alexnet_recipe(), retrain_epochs=6, factored_epochs=8, centroid_epochs=2
        )
    )
    squeezenet: Family = field(
        default_factory=lambda: Family(
            "squeezenet-1.0",
            dataclasses.replace(
                recipes.modern(), batch=32, learning_rate=0.05, warmup_epochs=2, ema=0.98
            ),
            retrain_epochs=6,
            retrain_rate=0.005,
            centroid_epochs=2,
        )
    )
    input_size: int | None = None
    svd_times: float = 5.1
    fc_density: float = 0.06
    fc_bits: int = 5
    conv_bits: int = 8
    squeezenet_density: float | None = 0.262
    seed: int = 0


@dataclass(frozen=True)
class Given:
    """Weights to start from, each a file or a run; None trains from scratch.

    Attributes:
        alexnet, squeezenet: trained on the data already, and taken as they are.
        init_alexnet, init_squeezenet: fine-tuned on the data first.
    """

    alexnet: Path | None = None
    squeezenet: Path | None = None
    init_alexnet: Path | None = None
    init_squeezenet: Path | None = None


def with_settings(
    config: Table2,
    *,
    epochs: int | None = None,
    retrain_epochs: int | None = None,
    settings: Mapping[str, object] | None = None,
) -> Table2:
    """Change how both networks are trained.

    Args:
        config: the settings to change.
        epochs: the number of epochs of the float32 networks.
        retrain_epochs: the number of epochs of every retraining.
        settings: fields of the recipes of all trainings (see `recipe.changed`).
    """

    def applied(family: Family) -> Family:
        family = family.with_recipes(lambda recipe: recipes.changed(recipe, settings or {}))
        if epochs is not None:
            family = dataclasses.replace(
                family,
                train=dataclasses.replace(family.train, epochs=epochs),
                finetune=dataclasses.replace(family.finetune, epochs=epochs),
            )
        if retrain_epochs is not None:
            family = dataclasses.replace(
                family, retrain_epochs=retrain_epochs, factored_epochs=retrain_epochs,
                centroid_epochs=retrain_epochs,
            )  # fmt: skip
        return family

    return dataclasses.replace(
        config, alexnet=applied(config.alexnet), squeezenet=applied(config.squeezenet)
    )


def reproduce_table2(shop: Workshop, config: Table2, given: Given) -> Reproduction:
    """Make the seven rows, or those that are missing yet.

    Raises:
        InputError: if the data or the given weights cannot be used.
    """
    config = _with_seed(config)
    rows = [*_alexnet_rows(shop, config, given), *_squeezenet_rows(shop, config, given)]
    largest = rows[0].file_bytes
    baselines = [rows[0]] * 4 + [rows[4]] * 3
    table = []
    for printed, row, own in zip(PAPER, rows, baselines, strict=True):
        name, bits, megabytes, times, top1, top5 = printed
        base = next(line for line in PAPER if line[0] == name.partition(",")[0])
        table.append(
            Row(
                name,
                {
                    "bits": Value(_bits(name, bits, config), bits),
                    "file_bytes": Value(row.file_bytes, megabytes * MEGABYTE),
                    "times": Value(largest / row.file_bytes, times),
                    "own_times": Value(own.file_bytes / row.file_bytes, base[2] / megabytes),
                    "top1": Value(row.top1, top1),
                    "top5": Value(row.top5, top5),
                    "change": Value(row.top1 - own.top1, top1 - base[4]),
                },
            )
        )
    return Reproduction(
        name="table2",
        title="Table 2: SqueezeNet against compressed AlexNets",
        columns=COLUMNS,
        rows=table,
        notes=(
            f"Accuracy is that of each file on {rows[0].images} held-out images of "
            f"{shop.data.resolve().name}, of which one is {100 / rows[0].images:.2g} points; the "
            "paper's is of ImageNet. What compares is the change against the same network as "
            "float32.",
            "Files are whole .sqz files, graph and labels included: float32 is stored as such, "
            "pruned weights as floats without the zeros, Deep Compression with the paper's "
            "Huffman coder.",
            "With fewer classes than ImageNet's 1000 the last layers are smaller, AlexNet's by 16 "
            "MB and SqueezeNet's by 2 MB.",
        ),
        settings=shop.settings,
        seconds=shop.seconds,
    )


def _with_seed(config: Table2) -> Table2:
    """The seed in every recipe, so that all of them split an unsplit folder alike."""

    def seeded(family: Family) -> Family:
        return family.with_recipes(lambda recipe: dataclasses.replace(recipe, seed=config.seed))

    return dataclasses.replace(
        config, alexnet=seeded(config.alexnet), squeezenet=seeded(config.squeezenet)
    )


def _bits(name: str, printed: str, config: Table2) -> str:
    if name == "AlexNet, Deep Compression":
        return f"{config.fc_bits}-{config.conv_bits}"
    return printed


# ----------------------------------------------------------------------------------------- AlexNet


def _alexnet_rows(shop: Workshop, config: Table2, given: Given) -> list[Measured]:
    family = config.alexnet
    densities = {
        **alexnet_densities(),
        **{f"{fc}.weight": config.fc_density for fc in ("fc6", "fc7")},
    }
    bits = {
        name: config.conv_bits if name.startswith("conv") else config.fc_bits for name in densities
    }

    def base() -> Network:
        return _baseline(
            shop, "alexnet", family, config, given=given.alexnet, init=given.init_alexnet
        )

    def svd() -> Network:
        network = base()
        ranks = ranks_by_bytes(
            network, spectra(network), int(4 * network.parameters / config.svd_times)
        )
        recipe = family.retraining(given.init_alexnet, family.factored_epochs, family.factored_rate)
        return shop.trained("alexnet-svd", factored(network, ranks), recipe, teacher=network)

    def pruned() -> Network:
        return _pruned(shop, "alexnet", family, base(), densities, given.init_alexnet)

    return [
        shop.measured("alexnet", "dense", base, seed=config.seed),
        shop.measured("alexnet-svd", "dense", svd, seed=config.seed),
        shop.measured("alexnet-pruned", "entropy", pruned, seed=config.seed),
        shop.measured(
            "alexnet-deep",
            "huffman",
            lambda: _shared(
                shop, "alexnet-deep", family, pruned(), bits, given.init_alexnet, teacher=base()
            ),
            seed=config.seed,
        ),
    ]


# -------------------------------------------------------------------------------------- SqueezeNet


def _squeezenet_rows(shop: Workshop, config: Table2, given: Given) -> list[Measured]:
    family = config.squeezenet

    def base() -> Network:
        return _baseline(
            shop, "squeezenet", family, config, given=given.squeezenet, init=given.init_squeezenet
        )

    def pruned() -> Network:
        network = base()
        density = config.squeezenet_density
        densities = table1() if density is None else layer_adaptive(network, density)
        return _pruned(shop, "squeezenet", family, network, densities, given.init_squeezenet)

    def deep_compressed(bits: int) -> Callable[[], Network]:
        name = f"squeezenet-{bits}bit"
        return lambda: _shared(
            shop, name, family, pruned(), bits, given.init_squeezenet, teacher=base()
        )

    return [
        shop.measured("squeezenet", "dense", base, seed=config.seed),
        *(
            shop.measured(f"squeezenet-{b}bit", "huffman", deep_compressed(b), seed=config.seed)
            for b in (8, 6)
        ),
    ]


# ----------------------------------------------------------------------------------- what both need


def _as_trained(family: Family, init: Path | None) -> Recipe:
    return family.train if init is None else family.finetune


def _baseline(
    shop: Workshop,
    name: str,
    family: Family,
    config: Table2,
    *,
    given: Path | None,
    init: Path | None,
) -> Network:
    if given is not None:
        network = load_network(given)
        classes = split(shop.data, "train", config.seed).classes
        if set(network.metadata.labels) != set(classes):
            raise InputError(f"{given} has other labels than {shop.data}: use --init-{name}")
        return network
    if init is None:
        network = catalogue.create(
            family.model,
            input_size=config.input_size,
            labels=split(shop.data, "train", config.seed).classes,
            seed=config.seed,
            variant=family.train.variant,
        )
        return shop.trained(name, network, family.train)
    # As `squeezekit train --init` does.
    recipe = dataclasses.replace(family.finetune, seed=config.seed)
    start = start_of(shop.data, recipe, init=load_network(init))
    return shop.trained(
        name, start.network, family.finetune, teacher=start.teacher, masked=start.masked
    )


def _pruned(
    shop: Workshop,
    name: str,
    family: Family,
    network: Network,
    densities: dict[str, float],
    init: Path | None,
) -> Network:
    """In rounds, each trained by itself."""
    recipe = family.retraining(init, family.retrain_epochs, family.retrain_rate)
    teacher = network
    for i, now in enumerate(falling_densities(network, densities, family.rounds), 1):
        network = shop.trained(
            f"{name}-pruned-{i}", prune(network, now), recipe, teacher=teacher, masked=True
        )
    return network


def _shared(
    shop: Workshop,
    name: str,
    family: Family,
    network: Network,
    bits: dict[str, int] | int,
    init: Path | None,
    *,
    teacher: Network,
) -> Network:
    """Shared, its centroids trained, and rounded as the last stage of Deep Compression does."""
    recipe = dataclasses.replace(
        recipes.centroids(),
        epochs=family.centroid_epochs,
        batch=_as_trained(family, init).batch,
        precision=_as_trained(family, init).precision,
        seed=_as_trained(family, init).seed,
    )
    names = weight_names(network)
    by_name = {tensor: bits if isinstance(bits, int) else bits[tensor] for tensor in names}
    shared = share(fold_batch_norm(network), by_name)
    network = shop.trained(f"{name}-centroids", shared, recipe, teacher=teacher, masked=True)
    return with_rounded_tables(network, Deep().mantissa_bits)
