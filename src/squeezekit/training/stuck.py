"""Training that learns nothing: how it is noticed, and what cures it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from squeezekit.training.recipe import Recipe, scratch

STUCK_EPOCHS = 3
"""After this many epochs (without warm-up) in which nothing was learned, training is stuck."""


def stuck_warning(losses: Sequence[float], classes: int, warmup_epochs: int = 0) -> str:
    """Say what to try if training has not learned anything, as happens with some seeds.

    A network that gives every image the same probabilities has the loss ln(classes), also with
    label smoothing. Without batch norm its ReLUs may stay dead for ever.

    Args:
        losses: one an epoch, so far.
        classes: number of classes.
        warmup_epochs: the first ones, in which little learning is no sign.

    Returns:
        A sentence, or an empty string if it is too early to tell or all is well.
    """
    chance = math.log(classes)
    if len(losses) < warmup_epochs + STUCK_EPOCHS or min(losses) < 0.98 * chance:
        return ""
    return (
        f"training is stuck: after {len(losses)} epochs the loss is still {losses[-1]:.2f}, that "
        f"of guessing among {classes} classes; try a learning rate 10 times lower, a warm-up "
        f"(warmup_epochs=5), another seed, or a network with batch norm"
    )


def cured(recipe: Recipe, *, new: bool) -> Recipe:
    """The recipe to start again by, after training by `recipe` was stuck.

    Args:
        recipe: the one that learned nothing.
        new: whether all weights are new, so that the network may be another variant.

    Returns:
        With batch norms, where that is new, as ReLUs then cannot die; else at a tenth of the
        learning rate. In both cases with a warm-up.
    """
    warmup = max(recipe.warmup_epochs, min(scratch().warmup_epochs, recipe.epochs / 4))
    if new and recipe.variant == "plain":
        rate = min(recipe.learning_rate, scratch().learning_rate)
        return dataclasses.replace(
            recipe, variant="modern", learning_rate=rate, warmup_epochs=warmup
        )
    return dataclasses.replace(
        recipe, learning_rate=recipe.learning_rate / 10, warmup_epochs=warmup
    )


def told_of(cure: Recipe, recipe: Recipe) -> str:
    """What is other in the cure, for people."""
    if cure.variant != recipe.variant:
        how = "batch norms"
    else:
        how = f"a learning rate of {cure.learning_rate:g}, not {recipe.learning_rate:g}"
    return f"{how} and a warm-up of {cure.warmup_epochs:g} epochs"
