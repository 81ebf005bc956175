"""Losses in addition to the cross entropy of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from squeezekit.errors import InputError
from squeezekit.trainable.network import TrainableNetwork


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softened outputs (Hinton et al. 2015).

    Args:
        student: logits (N, classes).
        teacher: logits (N, classes).
        temperature: both are divided by; the result is multiplied by its square, so that the
            gradient's scale does not depend on it.

    Returns:
        The mean over images, in nats.
    """
    t = temperature
    return (
        t
        * t
        * F.kl_div(
            F.log_softmax(student / t, dim=1),
            F.log_softmax(teacher / t, dim=1),
            reduction="batchmean",
            log_target=True,
        )
    )


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """How far values on the way through the network are from the teacher's (Romero et al. 2015).

    Each layer tells thousands of numbers an image, where the logits tell about ten.

    Args:
        student: values of any shapes.
        teacher: the same ones, as they should be.

    Returns:
        The squared error as a share of the teacher's squares, the mean over the values.
    """
    shares = []
    for ours, true in zip(student, teacher, strict=True):
        true = true.float()
        size = true.square().sum().clamp_min(1e-12)
        shares.append((ours.float() - true).square().sum() / size)
    return torch.stack(shares).mean()


def taught_features(net: TrainableNetwork, teacher: TrainableNetwork | None) -> list[str]:
    """The names of the values that a teacher's are compared with: what each layer sees.

    Raises:
        InputError: if there is no teacher, or it has other layers.
    """
    if teacher is None:
        raise InputError("features are learnt from a teacher: name one, or set features=0")
    for name in net.weight_names():
        theirs = teacher.weights[name]().shape if name in teacher.weights else None
        if theirs != net.weights[name]().shape:
            raise InputError(
                f"the teacher has no layer like {name!r}: only the same network teaches features"
            )
    return net.seen_by_layers()
