"""What a training starts from: new or given weights, how to treat them, and who teaches them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from squeezekit.data.dataset import split
from squeezekit.data.folders import ImageSet, known_classes, require_classes
from squeezekit.data.photos import name_of
from squeezekit.errors import InputError
from squeezekit.evaluation import labelled
from squeezekit.models import catalogue
from squeezekit.models.head import start_from, with_new_head
from squeezekit.sqz.network import Network, unshared
from squeezekit.training.recipe import Recipe
from squeezekit.training.run import Cure
from squeezekit.training.stuck import cured

DEFAULT_MODEL = "squeezenet-1.1"

MANY_PHOTOS = 20_000
"""So many photos teach a network without trained weights to start from."""

TRAINED_START = (
    "the weights began at random, and learn slowly from few photos: start from trained ones "
    "(init, for example han-2016); on 800 photos of ten classes that gave 94% top-1, not 46%"
)
"""Told where they are fewer (bench/results/own_photos.json, from_scratch_imagenette_mini.json)."""


@dataclass(frozen=True, eq=False)
class Start:
    """What training starts from.

    Attributes:
        network: with the class folders as its labels.
        teacher: a network to learn from as well, or None.
        masked: whether the zeros among the weights are to stay zero.
        fresh_head: whether its last layer is made anew, for classes that it does not all know.
        new: whether all weights are new.
        told: a sentence for each choice that was made here, for people.
    """

    network: Network
    teacher: Network | None = None
    masked: bool = False
    fresh_head: bool = False
    new: bool = False
    told: tuple[str, ...] = ()


def start_of(
    data: Path | ImageSet,
    recipe: Recipe,
    *,
    model: str | None = None,
    init: Network | None = None,
    teacher: Network | None = None,
    input_size: int | None = None,
) -> Start:
    """The network that training starts from, and how to treat it.

    A pruned network keeps its zeros. A network that knows the classes of the photos already teaches
    its new weights, if the recipe says so and no other teacher is given.

    Args:
        data: the photos.
        recipe: its `seed`, `variant` and `own_teacher` count here.
        model: a name from the catalogue; where None, the one that `init` is, or v1.1.
        init: weights to start from: with `model`, those of the same name and shape are taken over;
            without, the whole network, with a new last layer unless it has these labels already.
            Weights that share values are set free of one another.
        teacher: a network with the same classes, to learn from.
        input_size: pixels a side, of a network from the catalogue; its own where None.

    Raises:
        InputError: if nothing fits, or there is only one class.
    """
    images = split(data, "train", recipe.seed)
    require_classes(images)
    if init is None:
        return Start(_created(model, images.classes, recipe, input_size), teacher, new=True)
    knows_classes, fresh_head, told = False, False, []
    source = unshared(init)
    if model is not None:
        network = _with_weights_of(
            source, _created(model, images.classes, recipe, input_size), model
        )
    elif source.metadata.labels == images.classes:
        network, knows_classes = source, True
    else:
        network, knows_classes = _with_head_for(source, images.classes, data, recipe.seed)
        fresh_head = not knows_classes
    if masked := is_pruned(network):
        told.append(f"{init.metadata.name} is pruned: its zeros stay zero")
    if recipe.own_teacher and knows_classes and teacher is None:
        told.append(
            f"{init.metadata.name} knows these classes, and stays the teacher of its new weights"
        )
        teacher = network
    return Start(network, teacher, masked, fresh_head, told=tuple(told))


def knows_classes(source: Network, data: Path | ImageSet, seed: int) -> bool:
    """Whether a network's labels name all classes of the photos."""
    classes = split(data, "train", seed).classes
    metadata = labelled(source, data=data)
    known = known_classes(classes, metadata.labels, metadata.label_ids)
    return source.metadata.labels == classes or len(known) == len(classes)


def cure_of(
    start: Start,
    data: Path | ImageSet,
    recipe: Recipe,
    model: str | None,
    input_size: int | None = None,
) -> Cure:
    """What a run that starts so is to start again with if it is stuck; the same arguments."""
    cure = cured(recipe, new=start.new)
    if cure.variant == recipe.variant:
        return Cure(cure, lambda: start.network)
    return Cure(cure, lambda: start_of(data, cure, model=model, input_size=input_size).network)


def is_pruned(network: Network) -> bool:
    """True if a tenth of the weights or more are exactly zero, which never happens by chance.

    If such a network is trained, its zeros should stay (`train_run`'s `masked`).
    """
    return network.nonzero <= 0.9 * network.parameters


def _created(
    model: str | None, classes: tuple[str, ...], recipe: Recipe, input_size: int | None
) -> Network:
    return catalogue.create(
        model or DEFAULT_MODEL, labels=classes, input_size=input_size, seed=recipe.seed,
        variant=recipe.variant,
    )  # fmt: skip


def _with_weights_of(source: Network, network: Network, model: str) -> Network:
    """A network of the catalogue with those weights of another one that fit it."""
    network, taken = start_from(network, source)
    if not taken:
        raise InputError(
            f"{source.metadata.name} has no weight of the same name and shape as {model}"
        )
    # The weights bring their licence and their history with them.
    metadata = dataclasses.replace(
        network.metadata, licence=source.metadata.licence, provenance=source.metadata.provenance
    ).with_step(f"{len(taken)} tensors of {source.metadata.name} taken over into {model}")
    return dataclasses.replace(network, metadata=metadata)


def _with_head_for(
    source: Network, classes: tuple[str, ...], data: Path | ImageSet, seed: int
) -> tuple[Network, bool]:
    """The network with a last layer for these classes; those it knows already keep their weights.

    If the network has no labels, a labels file beside the data may name what it knows.

    Returns:
        The network, and whether it knows all of these classes.
    """
    metadata = labelled(source, data=data)
    known = known_classes(classes, metadata.labels, metadata.label_ids)
    network = with_new_head(source, classes, seed, known)
    step = f"last layer made anew for {name_of(data)}"
    if known:
        step += f", with the weights of {len(known)} classes that it knew"
    return network.with_step(step), len(known) == len(classes)
