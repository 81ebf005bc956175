"""Recipes: all settings of a training run except the network and the data."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from squeezekit.errors import InputError
from squeezekit.models.catalogue import Variant
from squeezekit.training.augment import HIGHEST_MAGNITUDE

Schedule = Literal["linear", "cosine", "constant"]
Optimizer = Literal["sgd", "adam"]
Precision = Literal["float32", "bf16", "fp16"]


@dataclass(frozen=True)
class Augmentation:
    """How the images of a batch vary from epoch to epoch.

    Attributes:
        crop: cut the input out of the resized image at a random place, not at the centre.
        mirror: flip each image from left to right with probability one half.
        pad: how many edge pixels to repeat around the resized image before the crop. An image that
            is no larger than the input can then shift by as many pixels.
        resized_crop: the smallest share of the image's area that a random part may have. The part
            is resized to the input, instead of `crop` (see `augment.random_resized_crop`). 0 is
            off.
        randaugment: how many random operations each image gets (see `augment.randaugment`).
        magnitude: the strength of these operations, 0 to 30.
        mixup: the parameter of the Beta distribution by which images and their labels are mixed
            (see `augment.mixup_share`). 0 is off.
    """

    crop: bool = True
    mirror: bool = True
    pad: int = 0
    resized_crop: float = 0.0
    randaugment: int = 0
    magnitude: float = 9.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("pad", "randaugment", "mixup"):
            value = getattr(self, name)
            _require(value >= 0, f"{name} must not be negative", value)
        _require(0 <= self.resized_crop <= 1, "resized_crop must be 0 to 1", self.resized_crop)
        _require(
            0 <= self.magnitude <= HIGHEST_MAGNITUDE,
            f"magnitude must be 0 to {HIGHEST_MAGNITUDE:g}",
            self.magnitude,
        )


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: how many times every image is seen; 0 trains nothing.
        batch: how many images one iteration takes.
        optimizer: "sgd" or "adam" (AdamW: its weight decay is decoupled).
        learning_rate: the highest learning rate, at the end of the warm-up.
        momentum: the momentum of SGD, or Adam's first beta.
        nesterov: use Nesterov's form of SGD's momentum.
        weight_decay: the weight decay, also on biases, as in the paper's solver.
        schedule: how the rate falls from iteration to iteration: "linear" to 0 (the paper's),
            "cosine" to 0, or "constant".
        warmup_epochs: how long the rate rises linearly from near 0; may be a fraction.
        minutes: the run stops in this time, its schedule fitted to the epochs that there is time
            for (see `pace`); None trains all epochs.
        label_smoothing: the share of the target that is spread over all classes.
        clip_norm: the largest norm of the gradient; None does not clip.
        augmentation: how the training images are varied.
        precision: "float32", "bf16" or "fp16". "bf16" computes convolutions in bfloat16 if the
            device has it, else in float32: on CPUs about four times as fast for full-size networks.
            "fp16" is for graphics cards without bfloat16.
        accumulate: in how many parts a batch is computed, one after the other, to fit into memory.
        ema: the decay of an exponential average of the weights, which is then validated and kept
            (Polyak, Juditsky 1992). 0.999 averages over about a thousand iterations; 0 is off.
        patience: stop after this many epochs without a better validation; None never stops early.
        body_rate: what the learning rate of all layers but the last is multiplied by.
        distillation: the share of the loss that comes from the teacher, if there is one (Hinton et
            al. 2015); the rest comes from the labels.
        temperature: softens the outputs of teacher and student.
        features: how much it counts, besides, how far the inputs of all layers are from the
            teacher's (see `losses.feature_loss`), which must be the same network. 0 is off.
        own_teacher: if the weights to start from know the classes already, keep them as the
            teacher.
        compile: run the network through `torch.compile`, which needs a compiler.
        variant: the variant of a network made from the catalogue (see `catalogue.create`).
        fit_head: fit a new last layer to the photos before training (see `fitted_head`), so that
            the network starts as a linear classifier.
        keep: which weights to keep: the "last"; the "best" on validation; or, if the last layer was
            fitted ("guarded"), the last that are not worse on validation than the fitted ones.
        seed: starts the random numbers for the order of the images, augmentation and dropout.
    """

    epochs: int
    batch: int = 64
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    minutes: float | None = None
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Precision = "float32"
    accumulate: int = 1
    ema: float = 0.0
    patience: int | None = None
    body_rate: float = 1.0
    distillation: float = 0.9
    temperature: float = 3.0
    features: float = 0.0
    own_teacher: bool = False
    compile: bool = False
    variant: Variant = "plain"
    fit_head: bool = False
    keep: Literal["last", "best", "guarded"] = "last"
    seed: int = 0

    @property
    def chooses_epoch(self) -> bool:
        """True if validation influences which weights are kept."""
        return self.keep == "best" or self.patience is not None

    def __post_init__(self) -> None:
        for name in ("optimizer", "schedule", "precision", "variant", "keep"):
            allowed = get_args(get_type_hints(Recipe)[name])
            value = getattr(self, name)
            _require(value in allowed, f"{name} must be {' or '.join(allowed)}", repr(value))
        _require(self.epochs >= 0, "epochs must not be negative", self.epochs)
        for name in ("batch", "accumulate"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} must be at least 1", value)
        _require(self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate)
        for name in ("momentum", "label_smoothing", "ema"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} must be at least 0 and below 1", value)
        for name in ("weight_decay", "warmup_epochs", "body_rate", "features"):
            value = getattr(self, name)
            _require(value >= 0, f"{name} must not be negative", value)
        _require(self.seed >= 0, "seed must not be negative", self.seed)
        _require(self.temperature > 0, "temperature must be above 0", self.temperature)
        _require(0 <= self.distillation <= 1, "distillation must be 0 to 1", self.distillation)
        if self.patience is not None:
            _require(self.patience >= 1, "patience must be at least 1, or none", self.patience)
        if self.minutes is not None:
            _require(self.minutes > 0, "minutes must be above 0, or none", self.minutes)
        if self.clip_norm is not None:
            _require(self.clip_norm > 0, "clip_norm must be above 0, or none", self.clip_norm)
        if self.nesterov:
            _require(self.momentum > 0, "nesterov needs a momentum above 0", self.momentum)


def paper() -> Recipe:
    """The authors' solver.prototxt: ImageNet from scratch, about 68 epochs, 57.5% top-1.

    `squeezekit train --data DIR --model squeezenet-1.0 --recipe paper --out OUT`. A new network
    gets Caffe's preprocessing (227 pixels of an image warped to 256, BGR, 0..255 minus the mean)
    and Caffe's first weights, because the learning rate is made for them.
    """
    return Recipe(
        epochs=68,
        batch=512,
        learning_rate=0.04,
        schedule="linear",
        precision="bf16",
        variant="caffe",
    )


def plain() -> Recipe:
    """From scratch on a folder of any photos. The default."""
    return Recipe(
        epochs=60,
        batch=32,
        learning_rate=0.01,
        nesterov=True,
        warmup_epochs=2,
        label_smoothing=0.1,
        clip_norm=5.0,
        precision="bf16",
    )


def scratch() -> Recipe:
    """The default without trained weights: `plain`, with batch norms, a higher rate, more warm-up.

    Without batch norms a full SqueezeNet may learn nothing from a few hundred photos. Compressing
    folds them into the convolutions. No ReLU on the outputs, behind which a class may die.
    """
    return dataclasses.replace(plain(), variant="modern", learning_rate=0.03, warmup_epochs=5)


def modern() -> Recipe:
    """From scratch on thousands of photos, with methods that are usual today.

    `squeezekit train --data DIR --recipe modern --out OUT`. A new network gets batch norms, which
    compression folds into the convolutions, and no ReLU on its outputs. `--set mixup=0.2` mixes
    images as well. A short run of it (`bench/from_scratch.py`: 800 photos of ten classes at 128
    pixels, 12 epochs) lowered the loss from 2.33 to 1.59, and reached 46% top-1.
    """
    return Recipe(
        epochs=90,
        batch=128,
        learning_rate=0.1,
        nesterov=True,
        weight_decay=1e-4,
        warmup_epochs=5,
        label_smoothing=0.1,
        augmentation=Augmentation(resized_crop=0.25, randaugment=1),
        precision="bf16",
        ema=0.999,
        variant="modern",
    )


def finetune() -> Recipe:
    """From weights trained on other classes: all layers move, and see random parts of the photos.

    The last layer is fitted first, so the others need not be held back while it finds its way. If
    the weights know the classes already, their first answers are half of what the network learns
    (Li, Hoiem 2016, "Learning without Forgetting").
    """
    return dataclasses.replace(
        plain(), epochs=12, learning_rate=0.01, warmup_epochs=1, ema=0.98,
        augmentation=Augmentation(resized_crop=0.35),
        distillation=0.5, temperature=2.0, own_teacher=True,
        fit_head=True, keep="guarded",
    )  # fmt: skip


def refine() -> Recipe:
    """From weights that know the classes already: `finetune`, with the body at a tenth of the rate.

    Both that and learning from its own first answers keep it from becoming too sure on a few
    hundred photos, and make it easier to compress.
    """
    return dataclasses.replace(finetune(), epochs=10, body_rate=0.1, augmentation=Augmentation())


def distill() -> Recipe:
    """From a teacher: a network of the same classes and preprocessing (Hinton et al. 2015).

    `squeezekit train --data DIR --model NAME --teacher WEIGHTS --recipe distill --out OUT`. The
    labels count for a tenth; with `--set distillation=1` they are not used.
    """
    return dataclasses.replace(plain(), label_smoothing=0.0, distillation=0.9, temperature=4.0)


def dsd() -> Recipe:
    """The sparse phase of `compression.dsd`; the last phase uses it at a tenth of the rate.

    `squeezekit train --data DIR --init WEIGHTS --recipe dsd --out OUT`, for a network that is
    already trained (Han et al. 2017).
    """
    return dataclasses.replace(
        plain(), epochs=15, learning_rate=0.002, warmup_epochs=1, label_smoothing=0.0
    )


def retrain() -> Recipe:
    """After pruning: the remaining weights make up for those that are gone."""
    return dataclasses.replace(
        plain(), epochs=8, learning_rate=0.001, warmup_epochs=1, label_smoothing=0.0
    )


def centroids() -> Recipe:
    """After sharing: trains the centroids (Han et al. 2016, section 3.3), at a tenth of the rate.

    No weight decay: a centroid stands for many weights, and would shrink once for each of them.
    """
    return dataclasses.replace(
        retrain(), epochs=3, learning_rate=0.0001, weight_decay=0.0, warmup_epochs=0
    )


def recover() -> Recipe:
    """After rounding: the weights that are left learn to answer as the original network does.

    It learns only from the original's softened answers: labels would teach it something else.
    """
    return dataclasses.replace(
        retrain(), epochs=4, learning_rate=0.003, warmup_epochs=0.2, weight_decay=0.0,
        clip_norm=5.0, distillation=1.0, temperature=2.0,
    )  # fmt: skip


def levels() -> Recipe:
    """After the last rounding: what it leaves free, which is the values of levels, and biases.

    A few thousand numbers of very different gradients, as a value stands for many weights.
    """
    return dataclasses.replace(
        recover(), epochs=1, optimizer="adam", learning_rate=1e-4, clip_norm=None
    )


def digits() -> Recipe:
    """For the demo: squeezenet-digits on the built-in digits.

    No augmentation: the digits are centred and fill their 8x8 pixels, so a shift would cut them.
    """
    return Recipe(
        epochs=25,
        learning_rate=0.05,
        nesterov=True,
        weight_decay=1e-3,
        warmup_epochs=1,
        label_smoothing=0.1,
        clip_norm=5.0,
        augmentation=Augmentation(crop=False, mirror=False),
        precision="bf16",
        ema=0.98,
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = {
    "scratch": scratch,
    "plain": plain,
    "finetune": finetune,
    "refine": refine,
    "paper": paper,
    "modern": modern,
    "distill": distill,
    "dsd": dsd,
    "retrain": retrain,
    "centroids": centroids,
    "digits": digits,
}


def named(name: str) -> Recipe:
    """The recipe of that name in RECIPES.

    Raises:
        InputError: if there is none; the error names the nearest.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}: {_hint(name, RECIPES)}")
    return RECIPES[name]()


def learning_rate(recipe: Recipe, step: int, steps: int, steps_an_epoch: float) -> float:
    """The learning rate of iteration `step`, counted from 0, of `steps` in total.

    The schedule begins after the warm-up. "linear" is Caffe's "poly" with power 1:
    rate * (1 - iteration / iterations).
    """
    warmup = min(round(recipe.warmup_epochs * steps_an_epoch), steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    factor = {
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "constant": 1.0,
    }[recipe.schedule]
    return recipe.learning_rate * factor


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """A recipe with fields changed as `--set key=value` does; see `parsed` and `changed`."""
    return changed(recipe, parsed(settings))


def parsed(settings: Sequence[str], **others: object) -> dict[str, Any]:
    """Settings as people type them, as `changed` takes them.

    Args:
        settings: each is "key=value"; keys are the fields of Recipe and Augmentation ("mirror").
            The value is read as the field's type; "none" is None, if the field may be None.
        others: settings that have an option of their own; None is not given.

    Raises:
        InputError: for an unknown key (the error names the nearest), or a value that does not fit.
    """
    hints = _fields()
    changes: dict[str, Any] = {key: value for key, value in others.items() if value is not None}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals:
            raise InputError(f"a setting is written key=value, not {setting!r}")
        if key not in hints:
            raise InputError(f"a recipe has no setting {key!r}: {_hint(key, hints)}")
        if others.get(key) is not None:
            raise InputError(f"{key} is given twice")
        changes[key] = _parsed(key, text.strip(), hints[key])
    return changes


def changed(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
    """A recipe with some fields changed, also those of its augmentation (`epochs=5, mirror=False`).

    Raises:
        InputError: for an unknown field (the error names the nearest), or a value that does not
            fit.
    """
    known = _fields()
    for name in changes:
        if name not in known:
            raise InputError(f"a recipe has no setting {name!r}: {_hint(name, known)}")
    image_fields = {f.name for f in dataclasses.fields(Augmentation)}
    of_images: dict[str, Any] = {k: v for k, v in changes.items() if k in image_fields}
    augmentation = dataclasses.replace(recipe.augmentation, **of_images)
    others: dict[str, Any] = {k: v for k, v in changes.items() if k not in image_fields}
    return dataclasses.replace(recipe, augmentation=augmentation, **others)


def _fields() -> dict[str, Any]:
    """The types of all fields of Recipe and Augmentation, by name."""
    hints = {**get_type_hints(Recipe), **get_type_hints(Augmentation)}
    del hints["augmentation"]
    return hints


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def _parsed(key: str, text: str, hint: Any) -> object:  # noqa: ANN401 - a type, in any form
    if get_origin(hint) is types.UnionType:  # X | None
        if text.lower() == "none":
            return None
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return text  # Recipe checks it
    if hint is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() in words:
            return words[text.lower()]
        raise InputError(f"{key} must be true or false, not {text!r}")
    try:
        number: int | float = hint(text)
    except ValueError:
        kind = "a whole number" if hint is int else "a number"
        raise InputError(f"{key} must be {kind}, not {text!r}") from None
    if not math.isfinite(number):
        raise InputError(f"{key} must be finite, not {text!r}")
    return number


def _require(holds: bool, what: str, value: object) -> None:
    if not holds:
        raise InputError(f"{what}, not {value}")
