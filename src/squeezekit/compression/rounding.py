"""Rounds a layer's weights to few levels: the least error at its outputs for the fewest bits.

It minimises 0.5 * s * trace(D C D') + price * bits. D is the error of the weights, C the covariance
of the layer's inputs, and s the nats for each unit of squared error. The bits are those of an ideal
coder that knows how often each level occurs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from squeezekit.compression import rounding_code as code
from squeezekit.compression.like import Kept, levels_like

_MOST_LEVELS = 2000
_COMMON = 50
"""A level that occurs at least this often gets its own value."""


@dataclass(frozen=True)
class Problem:
    """One layer to round.

    Attributes:
        target: (B, R, K), the weights that would be best unrounded.
        covariance: (B, K, K), C: positive definite.
        nats: s.
        price: the price of a bit, in nats.
        kept: the layer in a file that the network is to be like; a bit is one of the update.
    """

    target: Tensor
    covariance: Tensor
    nats: float
    price: float
    kept: Kept | None = None


@dataclass(frozen=True)
class Rounded:
    """Levels (B, R, K) int32, and the values (2m + 1,) that -m .. m stand for, ascending."""

    levels: Tensor
    values: Tensor

    @property
    def most(self) -> int:
        """m, the largest level there may be."""
        return len(self.values) // 2

    def weights(self) -> Tensor:
        """(B, R, K) float32."""
        return self.values[(self.levels + self.most).long()]


def round_layer(problem: Problem, sweeps: int = 2) -> Rounded:
    """Round one weight after another, then again with all others known, then fit the levels.

    Args:
        problem: see there.
        sweeps: times that every weight is looked at again.
    """
    if (kept := problem.kept) is not None:
        levels = levels_like(problem.target, problem.covariance, problem.nats, problem.price, kept)
        return Rounded(levels, kept.values)
    step = _step(problem)
    most = math.ceil(float(problem.target.abs().max()) / step) + 1
    most = min(max(most, 1), _MOST_LEVELS)
    values = torch.arange(-most, most + 1, dtype=torch.float32) * step
    levels = torch.round(problem.target / step).clamp(-most, most).int()
    found = Rounded(levels, values)
    order, upper = _factored(problem.covariance)
    for _ in range(2):  # the second time with the bits that the first led to
        found = _one_after_another(problem, found, step, order, upper)
    found = _again(problem, found, sweeps)
    for _ in range(2):
        found = _again(problem, _refitted(problem, found), 1)
    return _refitted(problem, found)


def _step(problem: Problem) -> float:
    """The distance between levels at which, for fine levels, a bit is worth its price.

    Uniform noise of a step costs 0.5 * s * h * step^2 / 12, and a bit halves the step; h is the
    curvature that is left for one weight when all others compensate for its error. One and a half
    times that is best if most weights become zero (seen on SqueezeNet).
    """
    inverse = torch.linalg.inv(problem.covariance.double())
    curvature = (1 / inverse.diagonal(dim1=1, dim2=2)).log().mean().exp()
    worth = math.log(2) * problem.nats * float(curvature)
    largest = 2 * float(problem.target.abs().max()) or 1.0  # beyond it all weights are zero
    return min(1.5 * math.sqrt(12 * problem.price / max(worth, 1e-300)), largest)


def _bits(levels: Tensor, most: int) -> Tensor:
    """Bits of each level -most .. most by how often it occurs: (2 most + 1,)."""
    counts = torch.bincount((levels + most).flatten().long(), minlength=2 * most + 1).double()
    expected = torch.exp(-0.5 * torch.arange(-most, most + 1).abs().double())
    counts = counts + 20 * expected / expected.sum()  # so that none is impossible
    return -(counts / counts.sum()).log2().float()


def _factored(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The columns by falling variance (K,), and U with U'U the inverse in that order (B, K, K)."""
    order = covariance.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
    inverse = torch.linalg.inv(covariance[:, order][:, :, order].double())
    upper = torch.linalg.cholesky((inverse + inverse.transpose(1, 2)) / 2, upper=True)
    return order, upper.float()


def _one_after_another(
    problem: Problem, start: Rounded, step: float, order: Tensor, upper: Tensor
) -> Rounded:
    """Round column by column; the rest compensates for each error (GPTQ, Frantar et al. 2022).

    Each weight becomes the nearest level, the one below it, or zero, whichever costs least in bits
    and error. Order and factor are those of `_factored`.
    """
    cost = (problem.price * _bits(start.levels, start.most)).numpy()
    found = [
        code.round_rows(target[:, order].clone().numpy(), u.numpy(), cost, step, problem.nats / 2)
        for target, u in zip(problem.target, upper, strict=True)
    ]
    levels = torch.from_numpy(np.stack(found))
    return Rounded(levels[:, :, order.argsort()], start.values)


def _again(problem: Problem, start: Rounded, sweeps: int) -> Rounded:
    """Coordinate descent: round each column again, with all others as they are now."""
    levels, weights = start.levels.clone(), start.weights()
    pull = (problem.target - weights) @ problem.covariance  # half the gradient, (B, R, K)
    for _ in range(sweeps):
        cost = (problem.price * _bits(levels, start.most)).numpy()
        for i, covariance in enumerate(problem.covariance):
            code.descend_rows(
                levels[i].numpy(), weights[i].numpy(), pull[i].numpy(), covariance.numpy(), cost,
                start.values.numpy(), problem.nats / 2,
            )  # fmt: skip
    return Rounded(levels, start.values)


def _refitted(problem: Problem, found: Rounded) -> Rounded:
    """The values with the least error for these levels; rare levels share one step."""
    most = found.most
    numbers = torch.arange(-most, most + 1)
    counts = torch.bincount((found.levels + most).flatten().long(), minlength=2 * most + 1)
    common = [int(k) for k in numbers if k != 0 and counts[k + most] >= _COMMON]
    group = np.full(2 * most + 1, -1, np.int32)
    group[[k + most for k in common]] = range(len(common))
    rest = (group < 0) & (numbers.numpy() != 0) & (counts.numpy() > 0)
    rare = len(common) if rest.any() else -1
    group[rest] = rare
    groups = len(common) + bool(rest.any())
    if not groups:
        return found
    reach = problem.target @ problem.covariance
    sums = [
        code.products(levels.numpy(), covariance.numpy(), part.numpy(), group, groups, rare)
        for levels, covariance, part in zip(found.levels, problem.covariance, reach, strict=True)
    ]
    products, wanted = (torch.from_numpy(np.sum(s, axis=0)) for s in zip(*sums, strict=True))
    slack = 1e-9 * products.diagonal().mean() * torch.eye(groups)
    solution = torch.linalg.solve(products + slack, wanted).float()
    values = numbers.float() * float(solution[-1]) if rest.any() else found.values.clone()
    for k, value in zip(common, solution, strict=False):
        values[k + most] = value
    if not bool((values[1:] > values[:-1]).all()):
        return found  # too few weights to tell the levels apart
    return Rounded(found.levels, values)
