"""Searches for the price of a bit that gives a size or a quality, and draws the curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from squeezekit.compression.curve import CurvePoint
from squeezekit.compression.rounder import Point, Rounder
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation
from squeezekit.sqz.network import Network

_ESTIMATES = 6
"""Prices that are tried by estimates between two roundings."""

_CLOSE = 0.001
"""How near to a size an estimate comes before a rounding tries its price, on a log scale."""

_COMES_TRUE = 0.82
"""So much of an estimated change of size comes true: the more bits the layers before have lost, the
more the next ones need. Seen on SqueezeNet v1.1; every search corrects it by what it sees."""

CURVE_FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""What the usual price is multiplied by for the points of a curve."""


def to_size(
    rounder: Rounder,
    target_bytes: int,
    tolerance: float = 0.01,
    attempts: int = 8,
    start: float | None = None,
) -> Point:
    """The point with at most `target_bytes`, and not smaller than by the share `tolerance`.

    Args:
        rounder: the rounder of the network.
        target_bytes: the size in bytes of the file, at most.
        tolerance: share of it that the file may be smaller.
        attempts: prices that are tried.
        start: the price to try first; None is the usual one.

    Raises:
        InputError: if no price leads there; it says what does.
    """
    tried = [rounder.round(start or rounder.usual_price)]
    true = _COMES_TRUE
    goal = (1 - tolerance / 2) * target_bytes
    for _ in range(attempts - 1):
        if (1 - tolerance) * target_bytes <= tried[-1].file_bytes <= target_bytes:
            return tried[-1]
        near = min(tried, key=lambda point: abs(math.log(point.file_bytes / goal)))
        wanted = math.log(goal / near.file_bytes) / true
        price, promised = _estimated_price(rounder, near, near.file_bytes * math.exp(wanted))
        tried.append(rounder.round(price))
        if promised != near.file_bytes:
            seen = math.log(tried[-1].file_bytes / near.file_bytes)
            seen /= math.log(promised / near.file_bytes)
            true = min(max(seen, 0.5), 1.2)
    small = [point for point in tried if point.file_bytes <= target_bytes]
    if not small:
        least = min(point.file_bytes for point in tried)
        raise InputError(f"{target_bytes:,} bytes are too few: {least:,} was the least reached")
    return max(small, key=lambda point: point.file_bytes)


def to_divergence(
    rounder: Rounder,
    most: float,
    tolerance: float = 0.1,
    attempts: int = 8,
    start: float | None = None,
) -> Point:
    """The point whose outputs diverge by at most `most`, and not less than by `tolerance`.

    Args:
        rounder: the rounder of the network.
        most: nats an image, on the calibration images.
        tolerance: share of it that the divergence may be less.
        attempts: prices that are tried.
        start: the price to try first; None is the usual one.

    Raises:
        InputError: if no price leads there; it says what does.
    """
    tried: list[Point] = []
    price = start or rounder.usual_price
    for _ in range(attempts):
        tried.append(rounder.round(price))
        if (1 - tolerance) * most <= tried[-1].divergence <= most:
            return tried[-1]
        # The inverse of the divergence falls with the price, as bytes do.
        known = [(max(point.divergence, 1e-9), 1 / point.price) for point in tried]
        price = 1 / _next_price(known, (1 - tolerance / 2) * most, slope=-0.9)
    fine = [point for point in tried if point.divergence <= most]
    if not fine:
        least = min(point.divergence for point in tried)
        raise InputError(
            f"a divergence of {most:g} nats is too little: {least:.2g} was the least reached"
        )
    return min(fine, key=lambda point: point.file_bytes)


def to_quality(
    rounder: Rounder,
    good: Callable[[Network], bool],
    factor: float = 1.5,
    most: int = 8,
    start: float | None = None,
) -> Point:
    """The smallest point tried that is still good.

    Prices in steps of a factor are tried until one is good and the next is not, then one between.

    Args:
        rounder: the rounder of the network.
        good: judges a network.
        factor: between prices.
        most: steps of it, up or down.
        start: the price to try first; None is the usual one.

    Raises:
        InputError: if even the lowest price tried is too high.
    """
    price = start or rounder.usual_price
    found: Point | None = None
    up: bool | None = None
    for _ in range(most + 1):
        point = rounder.round(price)
        fine = good(point.network)
        found = point if fine else found
        up = fine if up is None else up
        if fine != up:
            between = rounder.round(price / factor**0.5 if up else price * factor**0.5)
            found = between if good(between.network) else found
            break
        price = price * factor if up else price / factor
    if found is None:
        raise InputError("even fine rounding loses more than that; allow a larger drop")
    return found


def curve(rounder: Rounder, measure: Callable[[Network], Evaluation]) -> tuple[CurvePoint, ...]:
    """Points of the rate-accuracy curve, the largest file first."""
    points = []
    for factor in CURVE_FACTORS:
        point = rounder.round(factor * rounder.usual_price)
        found = measure(point.network)
        points.append(
            CurvePoint(point.price, point.file_bytes, point.divergence, found.top1, found.top5)
        )
    return tuple(points)


def _estimated_price(rounder: Rounder, near: Point, target: float) -> tuple[float, int]:
    """The price at which the estimates beside a rounding reach a size, and what they say there."""
    known: list[tuple[float, float]] = [(near.file_bytes, near.price)]
    price, estimate = near.price, near.file_bytes
    for _ in range(_ESTIMATES):
        price = _next_price(known, target, slope=-0.2)
        estimate = rounder.estimated_bytes(price, near.price)
        if abs(math.log(estimate / target)) <= _CLOSE:
            break
        known.append((estimate, price))
    return price, estimate


def _next_price(tried: Sequence[tuple[float, float]], target: float, slope: float) -> float:
    """Between the two sizes next to the target, or from the nearest towards it, on log scales.

    Args:
        tried: sizes, and the prices that led to them; the higher the price, the smaller the size.
        target: size.
        slope: the slope of size against price, where nothing tells yet.
    """
    known = sorted(tried)
    less = [point for point in known if point[0] <= target]
    more = [point for point in known if point[0] > target]
    if less and more:
        (small, high), (large, low) = less[-1], more[0]
        share = math.log(large / target) / math.log(large / small)
        share = min(max(share, 0.1), 0.9)  # sizes are no smooth function of the price
        return low * math.pow(high / low, share)
    nearest, *others = known if more else known[::-1]
    if others:
        (size, price), (other_size, other_price) = nearest, others[0]
        if size != other_size and price != other_price:
            seen = math.log(size / other_size) / math.log(price / other_price)
            slope = min(max(seen, 5 * slope), slope / 4)
    step = math.log(target / nearest[0]) / slope
    return nearest[1] * math.exp(min(max(step, -3.0), 3.0))
