"""Losses in addition to the cross entropy of torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


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
