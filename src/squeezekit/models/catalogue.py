"""The networks that can be made by name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from squeezekit.errors import InputError
from squeezekit.models.alexnet import AlexNetConfig, alexnet, caffe_preprocessing
from squeezekit.models.squeezenet import (
    SqueezeNetConfig,
    digits,
    squeezenet,
    v1_0,
    v1_1,
    with_bypass,
)
from squeezekit.sqz.network import CAFFE, Network, Preprocessing

Variant = Literal["plain", "modern", "caffe"]
"""Variants of the catalogue's networks: "modern" has batch norms, and no ReLU on its outputs (which
can make a class die for good); "caffe" has Caffe's first weights (xavier) and, by default, Caffe's
preprocessing."""


@dataclass(frozen=True)
class Model:
    """An entry of the catalogue.

    Attributes:
        description: one line for people.
        config: its configuration; `classes` and `input_size` may be changed.
    """

    description: str
    config: SqueezeNetConfig | AlexNetConfig


MODELS: Mapping[str, Model] = {
    "squeezenet-1.0": Model("the paper's network (Table 1)", v1_0()),
    "squeezenet-1.1": Model("the authors' later version, 2.4 times fewer MACs", v1_1()),
    "squeezenet-1.0-simple": Model(
        "v1.0 with simple bypass (section 6)",
        with_bypass("simple"),
    ),
    "squeezenet-1.0-complex": Model(
        "v1.0 with complex bypass (section 6)",
        with_bypass("complex"),
    ),
    "squeezenet-digits": Model("a small one for 8x8 grey digits", digits()),
    "alexnet": Model("CaffeNet, what the paper compares with", AlexNetConfig()),
}


def create(
    name: str,
    classes: int | None = None,
    input_size: int | None = None,
    labels: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
    variant: Variant = "plain",
) -> Network:
    """Make a network of the catalogue with fresh weights.

    Args:
        name: a key of MODELS.
        classes: number of outputs; the number of labels, or the model's own, where None.
        input_size: height and width of the input, in pixels; the preprocessing's crop, or the
            model's own, where None.
        labels: one name for each class, or none.
        preprocessing: how images become inputs; the model's own where None. A SqueezeNet takes its
            number of channels from it.
        seed: the seed of the first weights.
        variant: "plain", the catalogue's own; "modern"; or "caffe", as a plain AlexNet is too.

    Raises:
        InputError: for a name that is not in the catalogue, or settings that do not fit.
    """
    config = _varied(find(name).config, variant)
    if variant == "caffe" and preprocessing is None:
        preprocessing = caffe_preprocessing(input_size or CAFFE.crop)
    settings: dict[str, Any] = {}
    if classes is not None or labels:
        settings["classes"] = len(labels) if classes is None else classes
    if input_size is not None or preprocessing is not None:
        settings["input_size"] = input_size or (preprocessing.crop if preprocessing else 0)
    if isinstance(config, SqueezeNetConfig):
        if preprocessing is not None:
            settings["channels"] = preprocessing.channels
        config = dataclasses.replace(config, **settings)
        return squeezenet(config, labels=labels, preprocessing=preprocessing, seed=seed)
    config = dataclasses.replace(config, **settings)
    return alexnet(config, labels=labels, preprocessing=preprocessing, seed=seed)


def _varied(
    config: SqueezeNetConfig | AlexNetConfig, variant: Variant
) -> SqueezeNetConfig | AlexNetConfig:
    if isinstance(config, AlexNetConfig):
        return dataclasses.replace(config, batch_norm=variant == "modern")
    if variant == "modern":
        return dataclasses.replace(config, batch_norm=True, final_relu=False)
    if variant == "caffe":
        if config.channels != CAFFE.channels:
            raise InputError(
                f"{config.name} takes grey images, but Caffe's preprocessing is for colour images"
            )
        return dataclasses.replace(config, init="xavier")
    return config


def described() -> dict[str, dict[str, Any]]:
    """What each network of the catalogue is, its input in pixels a side, and its parameters."""
    return {
        name: {
            "description": model.description,
            "input_size": model.config.input_size,
            "parameters": create(name).parameters,
        }
        for name, model in MODELS.items()
    }


def find(name: str) -> Model:
    """The catalogue's entry of that name.

    Raises:
        InputError: if there is none; the error names the nearest.
    """
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(MODELS)}"
    raise InputError(f"there is no model called {name!r}: {hint}")
