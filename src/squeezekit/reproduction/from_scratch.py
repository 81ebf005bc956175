"""What Table 3 and figure 3 have in common: SqueezeNets from scratch, all by the same recipe."""

from __future__ import annotations

import dataclasses
import math

from squeezekit.data.dataset import split
from squeezekit.models.squeezenet import SqueezeNetConfig, squeezenet
from squeezekit.reproduction.workshop import Measured, Workshop
from squeezekit.runtime.images import default_preprocessing
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Recipe

IMAGENET_CLASSES = 1000
MEBIBYTE = 1 << 20


def recipe() -> Recipe:
    """From scratch on a folder of photos, with batch norms, which compressing folds away."""
    return dataclasses.replace(
        recipes.modern(), epochs=60, batch=32, learning_rate=0.05, warmup_epochs=2, ema=0.98
    )


def trained_from_scratch(
    shop: Workshop,
    name: str,
    config: SqueezeNetConfig,
    recipe: Recipe,
    *,
    input_size: int | None,
    seed: int,
) -> Measured:
    """Train one network for the classes of the data, and measure its float32 file."""
    classes = split(shop.data, "train", seed).classes
    size = input_size or config.input_size
    modern = recipe.variant == "modern"
    config = dataclasses.replace(
        config, classes=len(classes), input_size=size, batch_norm=modern, final_relu=not modern
    )
    network = squeezenet(
        config, labels=classes, preprocessing=default_preprocessing(size, 3), seed=seed
    )
    recipe = dataclasses.replace(recipe, seed=seed)
    return shop.measured(name, "dense", lambda: shop.trained(name, network, recipe), seed=seed)


def imagenet_mebibytes(config: SqueezeNetConfig) -> float:
    """Size of the network with 1000 classes as float32: exact, without any training."""
    network = squeezenet(dataclasses.replace(config, classes=IMAGENET_CLASSES))
    return 4 * network.parameters / MEBIBYTE


def as_listed(mebibytes: float) -> float:
    """A size as `ls -lh` prints it, and the paper too: two digits, rounded up."""
    if mebibytes < 10:
        return math.ceil(round(10 * mebibytes, 6)) / 10
    return float(math.ceil(round(mebibytes, 6)))
