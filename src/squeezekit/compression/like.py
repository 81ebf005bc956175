"""Rounding that keeps the levels of a file that is out there, so that the update is small.

A level costs the bits by which an update would tell it: few if it stays, more if it leaves. So it
stays where the loss does not ask for a change. Tables of shared values are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from squeezekit.compression import rounding_code as code
from squeezekit.compression.layers import Layer
from squeezekit.errors import FormatError
from squeezekit.files import read_bytes
from squeezekit.sqz import container, delta
from squeezekit.sqz.coders.entropy import dropped_bits
from squeezekit.sqz.network import Network, SharedTensor, tensor_values
from squeezekit.sqz.tensors import with_mantissa

_SWEEPS = 6
_FIRST_SHARE = 0.05
"""Of levels that leave, before it is known."""

_BIAS_BITS = 4
"""What tells a bias that changes, in addition to how far it goes."""


@dataclass(frozen=True)
class Kept:
    """A layer of the file that is out there.

    Attributes:
        levels: int32 (B, R, K).
        values: (2m + 1,), what -m .. m stand for, ascending.
        ends: the least and the largest level that the file has a value for.
    """

    levels: Tensor
    values: Tensor
    ends: tuple[int, int]


class Like:
    """A file that is out there, which a network is rounded to be like."""

    def __init__(self, file: Path | str | bytes) -> None:
        """Read it.

        Raises:
            InputError: if it cannot be opened.
            FormatError: if it is damaged or no `.sqz`.
        """
        self.data = file if isinstance(file, bytes) else read_bytes(file)
        try:
            self.network: Network = container.decode(self.data)
        except FormatError as error:
            if isinstance(file, bytes):
                raise
            raise type(error)(f"{file}: {error}") from None

    @cached_property
    def _maker(self) -> delta.Maker:
        return delta.Maker(self.data)

    def update_bytes(self, file: bytes) -> int:
        """The size of the update that makes this file of the one that is out there."""
        return len(self._maker.update(file))

    def layer(self, layer: Layer) -> Kept | None:
        """The layer in the file; None if it has none of that shape with shared values."""
        tensor = self.network.tensors.get(layer.weight)
        if not isinstance(tensor, SharedTensor):
            return None
        levels = torch.from_numpy(tensor.levels)
        shape = layer.shape if layer.node.op == "Conv" else layer.shape[:2]
        if tuple(levels.T.shape if layer.transposed else levels.shape) != tuple(shape):
            return None
        ends = -tensor.zero, len(tensor.centroids) - 1 - tensor.zero
        most = max(-ends[0], ends[1], 1)
        # Beyond its ends there are levels without a value, which are not chosen.
        step = float(np.abs(tensor.centroids).max()) or 1.0
        values = step * torch.arange(-most, most + 1).float() * 2
        values[most + ends[0] : most + ends[1] + 1] = torch.from_numpy(tensor.centroids)
        return Kept(layer.matrices(levels), values, ends)

    def tensor(self, layer: Layer, levels: Tensor) -> SharedTensor:
        """Levels (B, R, K) with the table of the file."""
        tensor = self.network.tensors[layer.weight]
        assert isinstance(tensor, SharedTensor)
        return SharedTensor(layer.stored(levels).int().numpy(), tensor.centroids, tensor.zero)

    def bias(self, name: str, bias: Tensor, nats: float, price: float) -> Tensor | None:
        """The bias, of which each number stays unless it is worth its bits.

        Args:
            name: of the tensor.
            bias: (R,), the best.
            nats: for each unit of squared error, of 0.5 times that error.
            price: the price of a bit, in nats.

        Returns:
            None if the file has no such bias.
        """
        tensor = self.network.tensors.get(name)
        if tensor is None or tensor.shape != tuple(bias.shape):
            return None
        old = tensor_values(tensor)
        drop = dropped_bits(np.ascontiguousarray(old).view(np.uint32))
        new = with_mantissa(bias.numpy(), max(23 - drop, 1))
        unit = np.spacing(np.maximum(np.abs(old), np.abs(new))).astype(np.float64) * 2.0**drop
        bits = _BIAS_BITS + np.log2(1 + np.abs(new.astype(np.float64) - old) / unit)
        gain = (old - bias.numpy()) ** 2 - (new - bias.numpy()) ** 2
        return torch.from_numpy(np.where(0.5 * nats * gain > price * bits, new, old))


def levels_like(
    target: Tensor, covariance: Tensor, nats: float, price: float, kept: Kept, sweeps: int = _SWEEPS
) -> Tensor:
    """The levels with the least error, and bits of an update, that coordinate descent finds.

    Args:
        target: (B, R, K), the weights that would be best unrounded.
        covariance: (B, K, K), of the layer's inputs.
        nats: for each unit of squared error, of 0.5 times that error.
        price: the price of a bit, in nats.
        kept: where it begins.
        sweeps: over all levels, at most; it ends before where none moves any more.

    Returns:
        int32 (B, R, K).
    """
    most = len(kept.values) // 2
    levels = kept.levels.int().contiguous().clone()
    weights = kept.values[(levels + most).long()]
    pull = (target - weights) @ covariance
    distance = torch.arange(2 * most + 1).clamp(min=1).double()
    far = (price * (1 + 2 * distance.log2().floor())).float().numpy()
    old = kept.levels.int().contiguous()
    for _ in range(sweeps):
        leave, stay = ((price * bits).numpy() for bits in _bits(levels, old))
        before = levels.clone()
        for i, block in enumerate(covariance):
            code.descend_rows_like(
                levels[i].numpy(), weights[i].numpy(), pull[i].numpy(), block.numpy(),
                kept.values.numpy(), nats / 2, old[i].numpy(), kept.ends, stay, leave, far,
            )  # fmt: skip
        if bool((levels == before).all()):
            break
    return levels


def _bits(levels: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Bits that tell that a level leaves, and that it stays: (2,) each, of zeros and of others."""
    shares = []
    for chosen in (old == 0, old != 0):
        count, left = int(chosen.sum()), int((levels != old)[chosen].sum())
        first = not bool((levels != old).any())
        share = _FIRST_SHARE if first else (left + 0.5) / (count + 1)
        shares.append(min(share, 0.5))
    leaving = torch.tensor(shares)
    return -leaving.log2(), -(1 - leaving).log2()
