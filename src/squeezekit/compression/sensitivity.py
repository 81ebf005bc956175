"""How much each layer can be pruned alone, and the densities that follow from it.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks", section 4
and figure 6: the layers differ, and each gets a threshold by how sensitive it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from squeezekit.compression.prune import TINY_SIZE, prune
from squeezekit.compression.stages import Measure
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.sqz.network import Network
from squeezekit.sqz.nodes import weight_names

DENSITIES = (0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""The densities at which each layer is measured."""


@dataclass(frozen=True)
class Sensitivity:
    """What pruning each layer alone does to the accuracy.

    Attributes:
        baseline: top-1 of the unpruned network, in percent.
        images: how many images it was measured on.
        curves: by tensor name, (density, top-1) from the highest density to the lowest.
        sizes: weights of each tensor.
    """

    baseline: float
    images: int
    curves: Mapping[str, Sequence[tuple[float, float]]]
    sizes: Mapping[str, int]

    def densities(self, max_drop: float) -> dict[str, float]:
        """The lowest density of each layer at which it alone loses at most `max_drop` points.

        Between two measured densities the accuracy is taken as linear. No density is below the
        lowest that was measured.

        Raises:
            InputError: if `max_drop` is negative.
        """
        if max_drop < 0:
            raise InputError(f"the allowed drop must not be negative, not {max_drop:g}")
        least = self.baseline - max_drop
        return {
            name: _crossing([(1.0, self.baseline), *curve], least)
            for name, curve in self.curves.items()
        }

    def as_json(self, max_drop: float) -> dict[str, Any]:
        """Everything that was measured, and "densities", which `compress --density` reads."""
        return {
            "baseline_top1": self.baseline,
            "images": self.images,
            "max_drop": max_drop,
            "densities": self.densities(max_drop),
            "curves": {
                name: [{"density": density, "top1": top1} for density, top1 in curve]
                for name, curve in self.curves.items()
            },
        }


def _crossing(curve: Sequence[tuple[float, float]], least: float) -> float:
    """The lowest density down to which the curve stays at `least` or above."""
    for (high, before), (low, after) in pairwise(curve):
        if after < least:
            share = (before - least) / (before - after)
            return round(high - share * (high - low), 4)
    return curve[-1][0]


def sensitivity(
    network: Network,
    measure: Measure,
    densities: Sequence[float] = DENSITIES,
    progress: Progress = silent,
) -> Sensitivity:
    """Prune each layer alone, without retraining, and measure the network at every density.

    A layer that has lost half of the accuracy is not measured further: the rest of its curve would
    say nothing, and repeats the last value.

    Args:
        network: the network to look at; it stays as it is.
        measure: evaluates a network.
        densities: each in (0, 1).
        progress: called for each measurement, as task "sensitivity".

    Raises:
        InputError: if a density is out of range, or no layer is large enough to prune.
    """
    falling = sorted(set(densities), reverse=True)
    if not falling or not 0.0 < falling[-1] <= falling[0] < 1.0:
        raise InputError("sensitivity is measured at densities above 0 and below 1")
    names = [name for name in weight_names(network) if network.tensors[name].size >= TINY_SIZE]
    if not names:
        raise InputError(f"{network.metadata.name} has no layer that is worth pruning")
    total = len(names) * len(falling) + 1
    progress("sensitivity", 0, total)
    baseline = measure(network)
    done = 1
    curves: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        curve = curves.setdefault(name, [])
        for density in falling:
            if curve and curve[-1][1] < baseline.top1 / 2:
                curve.append((density, curve[-1][1]))
            else:
                curve.append((density, measure(prune(network, {name: density})).top1))
            done += 1
            progress("sensitivity", done, total)
    sizes = {name: network.tensors[name].size for name in names}
    return Sensitivity(baseline.top1, baseline.images, curves, sizes)
