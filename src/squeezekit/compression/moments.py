"""How a layer's inputs vary together, before and after rounding: sums over samples of patches."""

from __future__ import annotations

import torch
from torch import Tensor

_DAMPING = 0.01
"""What is added to a covariance's diagonal, as a share of the mean variance, for unseen images."""


class Moments:
    """Sums over samples of patches x of the original's input and y of ours, (B, S, K) each.

    The means of the first samples are subtracted first, so that inputs that hardly vary lose no
    precision.
    """

    def __init__(self) -> None:
        self.count = 0
        self._about: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add more samples."""
        if self._about is None:
            self._about = (x.mean(1, keepdim=True), y.mean(1, keepdim=True))
        x, y = x - self._about[0], y - self._about[1]
        moved = (x - y).transpose(1, 2) @ y
        sums = [t.double() for t in (x.sum(1), y.sum(1), y.transpose(1, 2) @ y, moved)]
        before = self._sums or [torch.zeros(())] * len(sums)
        self._sums = [a + b for a, b in zip(before, sums, strict=True)]
        self.count += x.shape[1]

    def means(self) -> tuple[Tensor, Tensor]:
        """The means of x and of y, float32 (B, K)."""
        assert self._about is not None
        x, y = (total / self.count for total in self._sums[:2])
        return (self._about[0][:, 0] + x).float(), (self._about[1][:, 0] + y).float()

    def covariance_and_moved(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """The covariance of y, and of x - y with y; float32 (B, K, K) each."""
        x, y, covariance, moved = (total / self.count for total in self._sums)
        covariance = covariance - y[:, :, None] * y[:, None, :]
        moved = moved - (x - y)[:, :, None] * y[:, None, :]
        if not centred:
            x, y = self.means()
            covariance = covariance + y[:, :, None] * y[:, None, :]
            moved = moved + (x - y)[:, :, None] * y[:, None, :]
        return covariance.float(), moved.float()


def shrunk(covariance: Tensor, count: int) -> Tensor:
    """Shrink a covariance towards its diagonal, as much as the rest is noise of few samples.

    The share has the least expected squared error (Schaefer, Strimmer 2005, section 2) if inputs
    are normally distributed. A fully connected layer needs this, because it sees only one sample
    per image: a few hundred samples cannot tell which errors of thousands of inputs cancel.

    Args:
        covariance: (B, K, K).
        count: samples that it was found from.
    """
    variances = covariance.diagonal(dim1=1, dim2=2)  # (B, K)
    # Sums over pairs of different inputs; the pairs of the diagonal are taken off.
    squares = covariance.square().sum((1, 2)) - variances.square().sum(1)
    noise = (variances.sum(1).square() - variances.square().sum(1) + squares) / count
    share = (noise / squares.clamp_min(torch.finfo(squares.dtype).tiny)).clamp(max=1.0)
    return torch.lerp(covariance, torch.diag_embed(variances), share[:, None, None])


def damped(covariance: Tensor) -> Tensor:
    """(B, K, K) with a little added to its diagonal, so that it can be inverted."""
    mean = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return covariance + _DAMPING * mean[:, None, None] * torch.eye(covariance.shape[-1])
