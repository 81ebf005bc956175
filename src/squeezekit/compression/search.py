"""Searches the price of a bit that leads to a size, or to a quality, and draws the curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from squeezekit.compression.rounder import Point, Rounder
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation
from squeezekit.sqz.network import Network


@dataclass(frozen=True)
class CurvePoint:
    """How good a network is at a number of bytes.

    Attributes:
        price: of a bit, in nats.
        file_bytes: of its `.sqz`.
        divergence: see `Point`.
        top1, top5: accuracy on held-out images, in percent.
    """

    price: float
    file_bytes: int
    divergence: float
    top1: float
    top5: float


CURVE_FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""On the usual price, for the points of a curve."""


def to_size(
    rounder: Rounder, target_bytes: int, tolerance: float = 0.01, attempts: int = 8
) -> Point:
    """The point of at most that many bytes, and at least `tolerance` below.

    Raises:
        InputError: where no price leads there; it says what does.
    """
    prices, sizes = [rounder.usual_price], []
    best: Point | None = None
    for _ in range(attempts):
        point = rounder.round(prices[-1])
        sizes.append(point.file_bytes)
        if point.file_bytes <= target_bytes and (
            best is None or point.file_bytes > best.file_bytes
        ):
            best = point
        if (1 - tolerance) * target_bytes <= point.file_bytes <= target_bytes:
            return point
        prices.append(_next_price(prices, sizes, (1 - tolerance / 2) * target_bytes))
    if best is None:
        raise InputError(
            f"{target_bytes:,} bytes are too few: {min(sizes):,} was the least reached"
        )
    return best


def to_quality(
    rounder: Rounder, good: Callable[[Network], bool], factor: float = 1.5, most: int = 8
) -> Point:
    """The smallest point that is still good, of prices that are a factor apart.

    Raises:
        InputError: where even the lowest price tried is too high.
    """
    price = rounder.usual_price
    point = rounder.round(price)
    up = good(point.network)
    found = point if up else None
    for _ in range(most):
        price = price * factor if up else price / factor
        point = rounder.round(price)
        fine = good(point.network)
        if fine:
            found = point
        if fine != up:
            break
    if found is None:
        raise InputError("even fine rounding loses more than that; allow a larger drop")
    return found


def curve(rounder: Rounder, measure: Callable[[Network], Evaluation]) -> list[CurvePoint]:
    """Points of the rate-accuracy curve, the largest file first."""
    points = []
    for factor in CURVE_FACTORS:
        point = rounder.round(factor * rounder.usual_price)
        found = measure(point.network)
        points.append(
            CurvePoint(point.price, point.file_bytes, point.divergence, found.top1, found.top5)
        )
    return points


def _next_price(prices: Sequence[float], sizes: Sequence[int], target: float) -> float:
    """Between the two sizes next to the target, or from the nearest towards it, on log scales."""
    known = sorted(zip(sizes, prices, strict=True))
    less = [point for point in known if point[0] <= target]
    more = [point for point in known if point[0] > target]
    if less and more:
        (small, high), (large, low) = less[-1], more[0]
        share = math.log(large / target) / math.log(large / small)
        share = min(max(share, 0.1), 0.9)  # sizes are no smooth function of the price
        return low * math.pow(high / low, share)
    nearest, *others = known if more else known[::-1]
    slope = -0.2
    if others:
        (size, price), (other_size, other_price) = nearest, others[0]
        if size != other_size and price != other_price:
            slope = math.log(size / other_size) / math.log(price / other_price)
            slope = min(max(slope, -1.0), -0.05)
    step = math.log(target / nearest[0]) / slope
    return nearest[1] * math.exp(min(max(step, -3.0), 3.0))
