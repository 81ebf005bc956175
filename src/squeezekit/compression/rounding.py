"""Rounds a layer's weights to few levels: the least error at its outputs for the fewest bits.

It minimises 0.5 * s * trace(D C D') + price * bits. D is the error of the weights, C the covariance
of the layer's inputs, and s the nats for each unit of squared error. The bits are those of an ideal
coder that knows how often each level occurs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_COLUMNS_AT_ONCE = 64
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
    """

    target: Tensor
    covariance: Tensor
    nats: float
    price: float


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
    cost = problem.price * _bits(start.levels, start.most)
    weights = problem.target[:, :, order].clone()
    levels = torch.zeros_like(start.levels)
    width, most = weights.shape[2], start.most
    for begin in range(0, width, _COLUMNS_AT_ONCE):
        end = min(begin + _COLUMNS_AT_ONCE, width)
        errors = torch.zeros(*weights.shape[:2], end - begin)
        for j in range(begin, end):
            w = weights[:, :, j]  # (B, R)
            scale = upper[:, j, j, None]  # (B, 1)
            near = torch.round(w / step).clamp(-most, most)
            choices = torch.stack([near, near - near.sign(), torch.zeros_like(near)])
            loss = 0.5 * problem.nats * ((w - choices * step) / scale).square()
            best = (loss + cost[(choices + most).long()]).argmin(0, keepdim=True)
            level = choices.gather(0, best)[0]
            levels[:, :, j] = level.int()
            error = (w - level * step) / scale
            errors[:, :, j - begin] = error
            if j + 1 < end:
                weights[:, :, j + 1 : end] -= error[:, :, None] * upper[:, None, j, j + 1 : end]
        if end < width:
            weights[:, :, end:] -= errors @ upper[:, begin:end, end:]
    return Rounded(levels[:, :, order.argsort()], start.values)


def _again(problem: Problem, start: Rounded, sweeps: int) -> Rounded:
    """Coordinate descent: round each column again, with all others as they are now."""
    blocks, rows, width = problem.target.shape
    most, values = start.most, start.values
    levels, weights = start.levels.clone(), start.weights()
    pull = (problem.target - weights) @ problem.covariance  # half the gradient, (B, R, K)
    diagonal = problem.covariance.diagonal(dim1=1, dim2=2)  # (B, K)
    middles = (values[1:] + values[:-1]) / 2
    for _ in range(sweeps):
        cost = problem.price * _bits(levels, most)
        for j in range(width):
            now = weights[:, :, j]
            ideal = now + pull[:, :, j] / diagonal[:, j, None]
            near = torch.bucketize(ideal, middles)
            below = near - (near - most).sign()
            kept = levels[:, :, j].long() + most
            choices = torch.stack([near, below, torch.full_like(near, most), kept])
            loss = 0.5 * problem.nats * diagonal[:, j, None] * (ideal - values[choices]).square()
            best = (loss + cost[choices]).argmin(0, keepdim=True)
            index = choices.gather(0, best)[0]
            change = values[index] - now
            block, row = change.nonzero(as_tuple=True)
            if len(row) * 3 < blocks * rows:
                pull[block, row] -= change[block, row, None] * problem.covariance[block, j]
            else:
                pull -= change[:, :, None] * problem.covariance[:, None, j]
            weights[:, :, j] = values[index]
            levels[:, :, j] = (index - most).int()
    return Rounded(levels, values)


def _refitted(problem: Problem, found: Rounded) -> Rounded:
    """The values with the least error for these levels; rare levels share one step."""
    most = found.most
    numbers = torch.arange(-most, most + 1)
    counts = torch.bincount((found.levels + most).flatten().long(), minlength=2 * most + 1)
    common = [int(k) for k in numbers if k != 0 and counts[k + most] >= _COMMON]
    members = [(found.levels == k).float() for k in common]
    rare = torch.where(torch.isin(found.levels, torch.tensor([0, *common])), 0, found.levels)
    if rare.any():
        members.append(rare.float())
    if not members:
        return found
    reach = [m @ problem.covariance for m in members]
    products = torch.stack([torch.stack([(r * m).sum() for m in members]) for r in reach]).double()
    wanted = torch.stack([(r * problem.target).sum() for r in reach]).double()
    slack = 1e-9 * products.diagonal().mean() * torch.eye(len(members))
    solution = torch.linalg.solve(products + slack, wanted).float()
    values = numbers.float() * float(solution[-1]) if rare.any() else found.values.clone()
    for k, value in zip(common, solution, strict=False):
        values[k + most] = value
    if not bool((values[1:] > values[:-1]).all()):
        return found  # too few weights to tell the levels apart
    return Rounded(found.levels, values)
