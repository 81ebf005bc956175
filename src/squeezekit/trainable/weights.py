"""How a tensor of a network may change in training: freely, under a mask, through a codebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from squeezekit.sqz import network as sqz
from squeezekit.sqz.network import Floats, Levels, SharedTensor


class Weight(nn.Module):
    """A tensor of the network; calling it gives the value that the graph uses."""

    def forward(self) -> Tensor:
        """The value, float32, in the tensor's shape."""
        raise NotImplementedError

    def to_tensor(self) -> sqz.Tensor:
        """The value as a network stores it."""
        return to_numpy(self.forward())


class Free(Weight):
    """A weight that may take any value."""

    def __init__(self, values: Floats) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self) -> Tensor:
        """The parameter itself."""
        return self.values


class Fixed(Weight):
    """A tensor that no gradient changes: a constant, or a batch norm's running statistics."""

    values: Tensor

    def __init__(self, values: Floats) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor(values))

    def forward(self) -> Tensor:
        """The buffer itself."""
        return self.values


class Masked(Weight):
    """A pruned weight: exactly zero where `mask` is false, free elsewhere (Han et al. 2015).

    Args:
        values: float32 of any shape.
        mask: bool of the same shape; false prunes.
    """

    mask: Tensor

    def __init__(self, values: Floats, mask: npt.NDArray[np.bool_]) -> None:
        super().__init__()
        if values.shape != mask.shape:
            raise ValueError(f"the mask is {mask.shape}, but the weight {values.shape}")
        self.values = nn.Parameter(torch.tensor(np.where(mask, values, np.float32(0.0))))
        self.register_buffer("mask", torch.tensor(mask))

    def forward(self) -> Tensor:
        """The values, with zeros in place of pruned ones, which get no gradient."""
        return torch.where(self.mask, self.values, 0.0)


class Shared(Weight):
    """Weights that share a codebook, whose centroids train (Han et al. 2016, section 3.3).

    The gradient of a centroid is the sum of the gradients of its members. Level 0, the pruned
    weights, stays exactly zero.

    Args:
        levels: int32, of the weight's shape; level k stands for `centroids[zero + k]`.
        centroids: float32 (n,), 0.0 at index `zero`.
        zero: index of 0.0.
    """

    index: Tensor

    def __init__(self, levels: Levels, centroids: Floats, zero: int) -> None:
        super().__init__()
        self.zero = zero
        self.centroids = nn.Parameter(torch.tensor(centroids))
        self.register_buffer("index", torch.tensor(levels + np.int32(zero)))

    @classmethod
    def of(cls, tensor: SharedTensor) -> Shared:
        """Make the codebook of a stored tensor trainable."""
        return cls(tensor.levels, tensor.centroids, tensor.zero)

    def forward(self) -> Tensor:
        """Each weight's centroid."""
        values: Tensor = _Lookup.apply(self.centroids, self.index, self.zero)  # type: ignore[no-untyped-call]
        return values

    def to_tensor(self) -> SharedTensor:
        """The codebook, sorted again and with equal centroids merged."""
        values = to_numpy(self.centroids)
        values[self.zero] = 0.0
        centroids = np.unique(values + np.float32(0.0))  # no -0.0
        zero = int(np.searchsorted(centroids, np.float32(0.0)))
        level_of = np.searchsorted(centroids, values).astype(np.int32) - np.int32(zero)
        return SharedTensor(level_of[self.index.cpu().numpy()], centroids, zero)


class _Lookup(torch.autograd.Function):
    """Takes centroids by index; sums gradients per centroid in float64, none for the zero."""

    @staticmethod
    def forward(ctx: Any, centroids: Tensor, index: Tensor, zero: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(index)
        ctx.zero, ctx.count = zero, len(centroids)
        return centroids.index_select(0, index.flatten()).view(index.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (index,) = ctx.saved_tensors
        members = gradients[0].double().reshape(-1)
        sums = torch.bincount(index.reshape(-1), weights=members, minlength=ctx.count)
        sums[ctx.zero] = 0.0
        return sums.float(), None, None


class Weights(nn.Module):
    """The network's tensors by name; a mapping, because module names may not contain dots."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, str] = {}

    def __setitem__(self, name: str, weight: Weight) -> None:
        self._keys[name] = name.replace("%", "%25").replace(".", "%2E")
        self._modules[self._keys[name]] = weight

    def __getitem__(self, name: str) -> Weight:
        weight = self._modules[self._keys[name]]
        assert isinstance(weight, Weight)
        return weight

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def items(self) -> Iterator[tuple[str, Weight]]:
        """Names and weights, in the network's order."""
        return ((name, self[name]) for name in self._keys)


def to_numpy(values: Tensor) -> Floats:
    """A copy as float32, wherever the values are."""
    array: Floats = values.detach().float().cpu().contiguous().numpy().copy()
    return array
