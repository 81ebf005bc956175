"""How a layer's inputs vary together, before and after rounding: sums over samples of patches."""

from __future__ import annotations

import torch
from torch import Tensor

_DAMPING = 0.01
"""Of a covariance, as a share of its mean variance: what the images at hand do not tell."""


class Moments:
    """Sums over samples of patches x of the original's input and y of ours, (B, S, K) each.

    They are taken about the means of the first samples: nothing is lost where inputs hardly vary.
    """

    def __init__(self) -> None:
        self.count = 0
        self._about: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """More samples."""
        if self._about is None:
            self._about = (x.mean(1, keepdim=True), y.mean(1, keepdim=True))
        x, y = x - self._about[0], y - self._about[1]
        moved = (x - y).transpose(1, 2) @ y
        sums = [t.double() for t in (x.sum(1), y.sum(1), y.transpose(1, 2) @ y, moved)]
        before = self._sums or [torch.zeros(())] * len(sums)
        self._sums = [a + b for a, b in zip(before, sums, strict=True)]
        self.count += x.shape[1]

    def means(self) -> tuple[Tensor, Tensor]:
        """Of x and of y, float32 (B, K)."""
        assert self._about is not None
        x, y = (total / self.count for total in self._sums[:2])
        return (self._about[0][:, 0] + x).float(), (self._about[1][:, 0] + y).float()

    def covariance_and_moved(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Of y with itself, and of x - y with y; float32 (B, K, K) each."""
        x, y, covariance, moved = (total / self.count for total in self._sums)
        covariance = covariance - y[:, :, None] * y[:, None, :]
        moved = moved - (x - y)[:, :, None] * y[:, None, :]
        if not centred:
            x, y = self.means()
            covariance = covariance + y[:, :, None] * y[:, None, :]
            moved = moved + (x - y)[:, :, None] * y[:, None, :]
        return covariance.float(), moved.float()


def shrunk(covariance: Tensor, count: int) -> Tensor:
    """Towards its diagonal, by how much of the rest is the noise of few samples.

    The share with the least expected squared error (Schaefer, Strimmer 2005, section 2), for
    normally distributed inputs. A fully connected layer sees one sample an image: a few hundred
    would tell of thousands of inputs which errors cancel, and be wrong for every other image.

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
