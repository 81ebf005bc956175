"""Magnitude pruning: the smallest weights of a tensor become exactly zero.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from squeezekit.compression.checks import share_of_all
from squeezekit.errors import InputError
from squeezekit.files import read_bytes
from squeezekit.sqz.network import Floats, Network, SharedTensor, Tensor, tensor_values
from squeezekit.sqz.nodes import weight_names

TINY_SIZE = 512
"""`uniform` does not prune tensors with fewer weights: they are too small to gain anything."""


def table1() -> dict[str, float]:
    """Densities of SqueezeNet v1.0 in Table 1 of the paper, by tensor name.

    The 3x3 filters of fire8 are printed as 33%, but the row's own count after pruning (77,581),
    the table's total (421,098) and the network that the authors published all say 30%.
    """
    fires = {
        "fire2": (1.00, 1.00, 0.33),
        "fire3": (1.00, 1.00, 0.33),
        "fire4": (1.00, 1.00, 0.33),
        "fire5": (1.00, 1.00, 0.33),
        "fire6": (1.00, 0.50, 0.33),
        "fire7": (0.50, 1.00, 0.33),
        "fire8": (1.00, 0.50, 0.30),
        "fire9": (0.50, 1.00, 0.30),
    }
    layers = ("squeeze1x1", "expand1x1", "expand3x3")
    return {
        "conv1.weight": 1.00,
        **{
            f"{fire}.{layer}.weight": density
            for fire, densities in fires.items()
            for layer, density in zip(layers, densities, strict=True)
        },
        "conv10.weight": 0.20,
    }


def densities(text: str) -> Mapping[str, float] | float:
    """Densities in words: a number, table1, or a .json file of densities by tensor name.

    Raises:
        InputError: where it is none of them.
    """
    if text == "table1":
        return table1()
    if text.lower().endswith(".json"):
        try:
            content = json.loads(read_bytes(text))
            found = content.get("densities", content)
            return {str(name): float(density) for name, density in found.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{text}: does not hold densities by tensor name") from None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"the density must be a number, table1 or a .json file, not {text!r}"
        ) from None


def uniform(network: Network, density: float) -> dict[str, float]:
    """The same density for every weight tensor, except those that should stay dense.

    The first layer stays dense: it alone sees the image, has few weights and suffers most
    (Han et al. 2015, figure 6). Tensors with fewer than `TINY_SIZE` weights stay dense too: they
    would save only a few bytes, and may be the only connection of two layers.
    """
    share_of_all("the density", density)
    return dict.fromkeys(_prunable(network), density)


def layer_adaptive(network: Network, density: float) -> dict[str, float]:
    """A density for each weight tensor, chosen by magnitudes, that together keep a share of all.

    The score of a weight is its square, divided by the sum of those squares in its tensor that are
    not smaller. The weights with the highest scores in the whole network are kept (Lee et al. 2021,
    "Layer-adaptive Sparsity for the Magnitude-based Pruning"). Tensors that `uniform` keeps dense
    get no density. A network that is pruned already loses more weights where it can spare more.

    Args:
        network: whose tensors to compare.
        density: share of the weights of all these tensors to keep, in (0, 1].
    """
    share_of_all("the density", density)
    scores = {}
    for name in _prunable(network):
        squares = np.sort(tensor_values(network.tensors[name]).astype(np.float64).ravel() ** 2)
        rest = np.cumsum(squares[::-1])[::-1]
        scores[name] = np.divide(squares, rest, out=np.zeros_like(squares), where=squares > 0)
    if not scores:
        return {}
    together = np.concatenate(list(scores.values()))
    keep = kept_count(together.size, density)
    threshold = np.partition(together, together.size - keep)[together.size - keep]
    return {
        name: max(1, int(np.count_nonzero((score >= threshold) & (score > 0)))) / score.size
        for name, score in scores.items()
    }


def _prunable(network: Network) -> list[str]:
    return [n for n in weight_names(network)[1:] if network.tensors[n].size >= TINY_SIZE]


def kept_count(size: int, density: float) -> int:
    """How many of `size` weights a density keeps: rounded up, so never none.

    Rounding up is what gives the counts of Table 1. The tolerance keeps a product such as
    0.07 * 100 = 7.000000000000001 from becoming 8.
    """
    return max(1, math.ceil(density * size - 1e-6))


def prune(network: Network, densities: Mapping[str, float]) -> Network:
    """Set the smallest weights of each named tensor to zero.

    Args:
        network: what to prune; tensors may be shared already.
        densities: the share of weights to keep, in (0, 1], by tensor name. Tensors without one
            stay as they are.

    Returns:
        The network in which each named tensor has `kept_count(size, density)` weights left, or
        fewer where it had fewer. Among weights of equal magnitude the first ones stay.

    Raises:
        InputError: for a name that is no weight tensor of the network, or a density outside (0, 1].
    """
    _check_densities(network, densities)
    return network.with_tensors(
        {
            name: prune_tensor(network.tensors[name], density)
            for name, density in densities.items()
            if density < 1.0
        }
    )


def falling_densities(
    network: Network, densities: Mapping[str, float], rounds: int
) -> list[dict[str, float]]:
    """The densities of each round of pruning, down to the last one's `densities`.

    The density falls by the same factor each round (Han et al. 2015, section 3.4), from the density
    that the tensor has now. (If it started from 1, a network that is pruned already would lose
    nothing until the last round, and then everything at once.) No density rises.

    Args:
        network: the network to prune.
        densities: in (0, 1], by tensor name.
        rounds: at least 1.

    Raises:
        InputError: as `prune` does.
    """
    _check_densities(network, densities)
    first = {
        name: np.count_nonzero(tensor_values(network.tensors[name])) / network.tensors[name].size
        for name in densities
    }
    return [
        {
            name: first[name] * min(density / first[name], 1.0) ** (i / rounds)
            if first[name] > 0
            else density
            for name, density in densities.items()
        }
        for i in range(1, rounds + 1)
    ]


def prune_tensor(tensor: Tensor, density: float) -> Tensor:
    """Set the smallest weights of one tensor to zero; see `prune`."""
    keep = _largest(tensor_values(tensor), kept_count(tensor.size, density))
    if isinstance(tensor, SharedTensor):
        levels = np.where(keep, tensor.levels, np.int32(0))
        return SharedTensor(levels, tensor.centroids, tensor.zero)
    return np.where(keep, tensor, np.float32(0.0))


def _largest(values: Floats, count: int) -> npt.NDArray[np.bool_]:
    """Where the `count` values of largest magnitude are."""
    magnitude = np.abs(values).ravel()
    threshold = np.partition(magnitude, magnitude.size - count)[magnitude.size - count]
    keep: npt.NDArray[np.bool_] = magnitude > threshold
    tied = np.flatnonzero(magnitude == threshold)
    keep[tied[: count - np.count_nonzero(keep)]] = True
    return keep.reshape(values.shape)


def _check_densities(network: Network, densities: Mapping[str, float]) -> None:
    known = weight_names(network)
    for name, density in densities.items():
        if name not in known:
            raise InputError(
                f"cannot prune {name!r}: it is not a weight of {network.metadata.name} "
                f"(which has {', '.join(known[:3])}, ...)"
            )
        share_of_all(f"the density of {name}", density)
