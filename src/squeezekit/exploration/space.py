"""Spaces of designs: the paper's two sweeps, its bypass connections, and everything at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from squeezekit.errors import InputError
from squeezekit.models.squeezenet import SqueezeNetConfig

Values = Mapping[str, Any]
"""A value for each metaparameter that varies, by its name."""


@dataclass(frozen=True)
class Design:
    """A network and how far it is compressed: everything that a trial may vary.

    Attributes:
        network: the architecture.
        density: share of the weights that pruning keeps, in every layer.
        bits: the number of bits of an index into a table of shared weights.
    """

    network: SqueezeNetConfig
    density: float = 0.33
    bits: int = 6


@dataclass(frozen=True)
class Space:
    """What is varied, and where to begin.

    Attributes:
        name: "sr", "pct_3x3", "bypass" or "all".
        ranges: the ranges of each metaparameter. One that is a field of SqueezeNetConfig or of
            Design is put there by its name; the others are `designed`'s.
        points: given trials: all points of a grid, or those that a search should beat.
        is_grid: True if there are only these points.
    """

    name: str
    ranges: Mapping[str, BaseDistribution]
    points: tuple[Values, ...]
    is_grid: bool


def designed(base: Design, values: Values) -> Design:
    """The design with these values; everything else is as in `base`.

    Three numbers place the max-pools: there are `pools` of them, from layer `first_pool` on (0 is
    conv1, 1 is fire2), `pool_gap` layers apart, rounded down. v1.0 has 3, 0 and 3.5; v1.1 has 3, 0
    and 2. Pools after the last layer are left out.

    Raises:
        InputError: if there is no such network.
    """
    changes = dict(values)
    own = {name: changes.pop(name) for name in ("density", "bits") if name in changes}
    if "pools" in changes:
        count, first, gap = (changes.pop(name) for name in ("pools", "first_pool", "pool_gap"))
        layers = ["conv1", *(f"fire{i + 2}" for i in range(changes["fires"]))]
        places = [int(first + i * gap) for i in range(count)]
        changes["pool_after"] = tuple(layers[i] for i in places if i < len(layers))
    if "conv1_kernel" in changes and base.network.conv1_pad:
        changes["conv1_pad"] = changes["conv1_kernel"] // 2
    return dataclasses.replace(base, network=dataclasses.replace(base.network, **changes), **own)


def sr(base: SqueezeNetConfig) -> Space:
    """Figure 3, left: the squeeze ratio, with half of the expand filters 3x3 (section 5.3)."""
    return _grid("sr", "squeeze_ratio", (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0))


def pct_3x3(base: SqueezeNetConfig) -> Space:
    """Figure 3, right: the share of 3x3 filters, at a squeeze ratio of 0.5 (section 5.4)."""
    shares = (0.01, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.99)
    return _grid("pct_3x3", "pct_3x3", shares, squeeze_ratio=0.5)


def bypass(base: SqueezeNetConfig) -> Space:
    """Table 3: none, simple and complex bypass (section 6)."""
    return _grid("bypass", "bypass", ("none", "simple", "complex"))


def everything(base: SqueezeNetConfig) -> Space:
    """All metaparameters, the input's size and the compression.

    Widths and depths go from a sixteenth of the base network's up to its own. The search starts
    with the designs that it should beat: the paper's metaparameters at four widths, each pruned and
    shared a little and a lot.
    """
    sizes = sorted({round(base.input_size * share / 8) for share in (4, 5, 6, 7, 8)})
    ranges: dict[str, BaseDistribution] = {
        "base_e": IntDistribution(max(base.base_e // 16, 2), base.base_e, log=True),
        "incr_e": IntDistribution(0, base.incr_e),
        "freq": IntDistribution(1, 4),
        "pct_3x3": FloatDistribution(0.05, 0.95),
        "squeeze_ratio": FloatDistribution(0.0625, 1.0, log=True),
        "fires": IntDistribution(2, base.fires),
        "conv1_filters": IntDistribution(
            max(base.conv1_filters // 16, 2), base.conv1_filters, log=True
        ),
        "conv1_kernel": CategoricalDistribution((3, 5, 7)),
        "conv1_stride": IntDistribution(1, 2),
        "pools": IntDistribution(1, 3),
        "first_pool": IntDistribution(0, 3),
        "pool_gap": FloatDistribution(1.0, 4.0, step=0.5),
        "bypass": CategoricalDistribution(("none", "simple", "complex")),
        "input_size": CategoricalDistribution(sizes),
        "density": FloatDistribution(0.03, 1.0, log=True),
        "bits": IntDistribution(2, 8),
    }
    return Space("all", ranges, tuple(_papers(base)), is_grid=False)


SPACES: Mapping[str, Callable[[SqueezeNetConfig], Space]] = {
    "sr": sr,
    "pct_3x3": pct_3x3,
    "bypass": bypass,
    "all": everything,
}


def named(name: str, base: SqueezeNetConfig) -> Space:
    """The space of that name around a network.

    Raises:
        InputError: if there is none.
    """
    if name not in SPACES:
        raise InputError(f"there is no space {name!r}: use {', '.join(SPACES)}")
    return SPACES[name](base)


def _grid(name: str, varied: str, choices: tuple[Any, ...], **fixed: float) -> Space:
    ranges = {varied: choices, **{key: (value,) for key, value in fixed.items()}}
    return Space(
        name=name,
        ranges={key: CategoricalDistribution(among) for key, among in ranges.items()},
        points=tuple({varied: choice, **fixed} for choice in choices),
        is_grid=True,
    )


def _papers(base: SqueezeNetConfig) -> list[Values]:
    """The base network, whose metaparameters are the paper's, at four widths."""
    count, first, gap = _pools(base)
    known = {
        name: getattr(base, name)
        for name in (
            "freq", "pct_3x3", "squeeze_ratio", "fires", "conv1_kernel", "conv1_stride", "bypass",
            "input_size",
        )
    }  # fmt: skip
    return [
        {
            **known,
            "base_e": base.base_e // part,
            "incr_e": base.incr_e // part,
            "conv1_filters": base.conv1_filters // part,
            "pools": count,
            "first_pool": first,
            "pool_gap": gap,
            "density": density,
            "bits": bits,
        }
        for density, bits in ((0.33, 6), (0.1, 4))
        for part in (1, 2, 4, 8)
    ]


def _pools(base: SqueezeNetConfig) -> tuple[int, int, float]:
    """The three numbers of `designed` that give a network's pools."""
    layers = ["conv1", *(f"fire{i + 2}" for i in range(base.fires))]
    places = [layers.index(layer) for layer in base.pool_after]
    gap = (places[-1] - places[0]) / max(len(places) - 1, 1)
    return len(places), places[0], max(gap, 1.0)
