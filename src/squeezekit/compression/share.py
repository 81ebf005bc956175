"""Weight sharing: each weight of a tensor becomes the nearest of a few centroids from k-means.

Han et al. 2016, "Deep Compression", section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from squeezekit.errors import InputError
from squeezekit.sqz.network import Floats, Network, SharedTensor, Tensor, tensor_values
from squeezekit.sqz.nodes import weight_names
from squeezekit.sqz.tensors import with_mantissa as with_mantissa

Init = Literal["linear", "density", "random"]
"""How the first centroids are placed (Han et al. 2016, section 3.2)."""

MAX_BITS = 16
MAX_ITERATIONS = 1000

_Doubles = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


def share(
    network: Network, bits: Mapping[str, int] | int, init: Init = "linear", seed: int = 0
) -> Network:
    """Let the weights of each tensor share a small table of centroids.

    Args:
        network: what to share; biases and batch norms stay as they are.
        bits: the number of bits of an index into the table, 1 to 16: one number for every weight
            tensor, or by tensor name (then tensors without one stay as they are).
        init: see `first_centroids`.
        seed: the seed of "random".

    Returns:
        The network with a SharedTensor in place of each weight; zeros stay zero, and other weights
        never become zero.

    Raises:
        InputError: for a name that is no weight tensor, bits out of range, an unknown `init`, or
            weights that are not finite.
    """
    known = weight_names(network)
    by_name = dict.fromkeys(known, bits) if isinstance(bits, int) else bits
    for name in by_name:
        if name not in known:
            raise InputError(
                f"cannot share {name!r}: it is not a weight of {network.metadata.name}"
            )
        if not np.all(np.isfinite(tensor_values(network.tensors[name]))):
            raise InputError(f"the weights of {name} are not all finite numbers")
    return network.with_tensors(
        {
            name: share_tensor(tensor_values(network.tensors[name]), count, init, seed)
            for name, count in by_name.items()
        }
    )


def share_tensor(values: Floats, bits: int, init: Init = "linear", seed: int = 0) -> SharedTensor:
    """Share the weights of one tensor; see `share`.

    A pruned tensor has 2^bits - 1 centroids and the zero, which pruned weights keep and no other
    weight gets. A tensor without zeros has 2^bits centroids, none of them zero. A tensor with no
    more distinct values than that is shared without loss.

    Raises:
        InputError: for bits out of range or an unknown `init`.
    """
    if not 1 <= bits <= MAX_BITS:
        raise InputError(f"shared weights take 1 to {MAX_BITS} bits, not {bits}")
    if init not in get_args(Init):
        raise InputError(f"unknown initialisation {init!r}: use {', '.join(get_args(Init))}")
    alive = values != 0.0
    pruned = not bool(alive.all())
    members = values[alive]  # (n,)
    centroids = k_means(members, 2**bits - pruned, init, seed)
    table = np.union1d(centroids, np.zeros(1, np.float32)).astype(np.float32)
    zero = int(np.searchsorted(table, 0.0))
    index = nearest(members, centroids)
    levels = np.zeros(values.shape, np.int32)
    # The table holds one entry more than the centroids, the zero, from index `zero` on.
    levels[alive] = np.where(index < zero, index - zero, index - zero + 1)
    return SharedTensor(levels, table, zero)


def k_means(values: Floats, count: int, init: Init = "linear", seed: int = 0) -> Floats:
    """Cluster numbers that are not zero.

    Args:
        values: (n,), finite, none of them zero.
        count: most centroids to use, at least 1.
        init: see `first_centroids`.
        seed: the seed of "random".

    Returns:
        At most `count` centroids, strictly ascending, none of them zero, each with a member; the
        distinct values themselves where there are no more than `count` of them.
    """
    ordered = np.sort(values)  # (n,)
    first = np.append(True, np.diff(ordered) != 0)[: ordered.size]
    if np.count_nonzero(first) <= count:
        distinct: Floats = ordered[first]
        return distinct
    centroids = first_centroids(ordered, count, init, seed)
    for moved in islice(lloyd(ordered, centroids), MAX_ITERATIONS):
        centroids = moved
    return _table(ordered, centroids)


def first_centroids(ordered: Floats, count: int, init: Init, seed: int = 0) -> _Doubles:
    """Place the centroids that k-means starts from (Han et al. 2016, section 3.2, figure 6).

    Args:
        ordered: (n,) ascending.
        count: number of centroids.
        init: "linear" spaces them evenly between the least and the greatest value, which serves
            the few large weights best; "density" at even quantiles; "random" at `count` of the
            values, drawn with `seed` (Forgy).
        seed: the seed of "random".
    """
    if init == "linear":
        return np.linspace(ordered[0], ordered[-1], count, dtype=np.float64)
    if init == "density":
        quantiles = (np.arange(count) + 0.5) / count
        return ordered[(quantiles * ordered.size).astype(np.intp)].astype(np.float64)
    drawn = np.random.default_rng(seed).choice(ordered.size, count, replace=False)
    return np.sort(ordered[drawn]).astype(np.float64)


def lloyd(ordered: Floats, centroids: _Doubles) -> Iterator[_Doubles]:
    """Yield the centroids after each of Lloyd's iterations, until they stay where they are.

    In one dimension a cluster is a run of the sorted values. So an iteration needs only one binary
    search per centroid and differences of prefix sums, however many values there are. A centroid
    that has lost all its members restarts at the far end of one of the widest clusters, so the sum
    of squared distances never grows.

    Args:
        ordered: (n,) ascending, with more than `len(centroids)` distinct values.
        centroids: (k,) ascending.
    """
    sums = np.append(0.0, np.cumsum(ordered, dtype=np.float64))  # (n + 1,)
    while True:
        bounds = _bounds(ordered, centroids)  # (k + 1,)
        sizes = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(sizes, 1)
        # Differences of long sums may round to just outside the run that they average.
        low = ordered[np.minimum(bounds[:-1], ordered.size - 1)]
        high = ordered[np.maximum(bounds[1:] - 1, 0)]
        means = np.where(sizes > 0, np.clip(means, low, high), np.nan)
        empty = np.flatnonzero(sizes == 0)
        if empty.size:
            means[empty] = _far_ends(means, low, high, empty.size)
            # Fewer wide clusters than empty ones: the rest waits for the next iteration.
            means = np.where(np.isnan(means), centroids, means)
            means.sort()
        if np.array_equal(means, centroids):
            return
        centroids = means
        yield centroids


def with_rounded_tables(network: Network, mantissa_bits: int) -> Network:
    """Round everything that is stored in addition to the levels: centroids, biases, other vectors.

    Args:
        network: with shared weights; plain weights stay as they are.
        mantissa_bits: the number of bits that are kept of float32's 23. 10 are those of float16: a
            relative error of at most 2^-11, far less than sharing makes, for little more than half
            the bytes.
    """
    weights = set(weight_names(network))
    changed: dict[str, Tensor] = {}
    for name, tensor in network.tensors.items():
        if isinstance(tensor, SharedTensor):
            changed[name] = _with_rounded_centroids(tensor, mantissa_bits)
        elif name not in weights and tensor.ndim < 2:
            changed[name] = with_mantissa(tensor, mantissa_bits)
    return network.with_tensors(changed)


def _with_rounded_centroids(tensor: SharedTensor, mantissa_bits: int) -> SharedTensor:
    """Centroids that become equal are merged; none becomes zero."""
    centroids, index = np.unique(
        with_mantissa(tensor.centroids, mantissa_bits), return_inverse=True
    )
    zero = index[tensor.zero]
    levels = (index - zero).astype(np.int32)[tensor.levels + tensor.zero]
    return SharedTensor(levels, centroids, int(zero))


def nearest(values: Floats, centroids: Floats) -> _Indices:
    """Index of the centroid nearest to each value; the lower of two that are equally near.

    Args:
        values: any shape.
        centroids: (k,) strictly ascending, k at least 1 where there are values.
    """
    return np.searchsorted(_middles(centroids.astype(np.float64)), values, side="left")


def _middles(centroids: _Doubles) -> Floats:
    """Half way between neighbours, rounded down to float32: (k - 1,).

    A float32 value is at most the middle if, and only if, it is at most the middle rounded down.
    Searching among float32 values avoids a copy of them in float64.
    """
    middles = (centroids[:-1] + centroids[1:]) / 2
    rounded = middles.astype(np.float32)
    return np.where(rounded > middles, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _bounds(ordered: Floats, centroids: _Doubles) -> _Indices:
    """Where each centroid's run of the sorted values begins, and the end of the last: (k + 1,)."""
    inner = np.searchsorted(ordered, _middles(centroids), side="right")
    return np.concatenate(([0], inner, [ordered.size])).astype(np.intp)


def _far_ends(means: _Doubles, low: Floats, high: Floats, count: int) -> _Doubles:
    """The member farthest from its centroid in each of the `count` widest clusters; NaN beyond."""
    below, above = means - low, high - means
    reach = np.nan_to_num(np.maximum(below, above), nan=0.0)
    widest = np.argsort(-reach, kind="stable")[:count]
    ends = np.where(below >= above, low, high)[widest].astype(np.float64)
    return np.where(reach[widest] > 0, ends, np.nan)


def _table(ordered: Floats, centroids: _Doubles) -> Floats:
    """Centroids as a SharedTensor may have them: float32, ascending, with members, not zero."""
    table = np.unique(centroids.astype(np.float32))
    table = table[np.diff(_bounds(ordered, table.astype(np.float64))) > 0]
    bounds = _bounds(ordered, table.astype(np.float64))
    for zero in np.flatnonzero(table == 0.0):  # at most one; 0.0 means "pruned"
        members = ordered[bounds[zero] : bounds[zero + 1]]
        table[zero] = members[np.argmin(np.abs(members))]
    return table
