"""The layers whose weights can be rounded by second-order methods, as matrices over patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezekit.sqz.nodes import Node, WeightedNode, pads_of, weighted_nodes
from squeezekit.trainable.network import TrainableNetwork

LARGEST_BLOCK = 2304
"""The most inputs of a filter treated together; wider filters (fc6 of AlexNet: 9,216) are split."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a fully connected layer, seen as a product with patches of its input.

    Its filters fall into `blocks` that see different inputs: the groups of a convolution, and
    parts of filters that are too wide for one Hessian. With B blocks, R rows a block and K columns:
    weight (B, R, K), patches (B, positions, K).

    Attributes:
        source: its node, and the names of its tensors.
        shape: the shape of the weight as a convolution's, (O, C, kh, kw).
        parts: the number of parts that each filter is split into.
    """

    source: WeightedNode
    shape: tuple[int, int, int, int]
    parts: int

    @property
    def node(self) -> Node:
        """The node of the graph."""
        return self.source.node

    @property
    def weight(self) -> str:
        """The name of the weight."""
        return self.source.weight

    @property
    def bias(self) -> str:
        """The name of the bias; "" for none."""
        return self.source.bias

    @property
    def groups(self) -> int:
        """The number of groups of the convolution."""
        return self.source.groups

    @property
    def outputs(self) -> int:
        """Number of filters."""
        return self.shape[0]

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as (in, out)."""
        return self.source.transposed

    def matrices(self, weight: Tensor) -> Tensor:
        """The weight as it is stored, as (B, R, K)."""
        rows = (weight.T if self.transposed else weight).reshape(self.outputs, -1)  # (O, C kh kw)
        if self.parts > 1:
            return rows.view(self.outputs, self.parts, -1).transpose(0, 1).contiguous()
        return rows.reshape(self.groups, self.outputs // self.groups, -1)

    def stored(self, matrices: Tensor) -> Tensor:
        """The inverse of `matrices`, in the shape of the stored weight."""
        if self.parts > 1:
            matrices = matrices.transpose(0, 1)
        rows = matrices.reshape(self.outputs, -1)
        if self.node.op != "Conv":
            return rows.T.contiguous() if self.transposed else rows
        return rows.reshape(self.shape)

    def patches(self, x: Tensor) -> Tensor:
        """What each output position sees: x (N, C, H, W) or (N, C) to (N, B, K, positions)."""
        if x.ndim == 2:
            x = x[:, :, None, None]
        kernel = list(self.shape[2:])
        stride, dilation = self._window()
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        (top, bottom), (left, right) = pads_of(self.node, x.shape[2:], spans, stride)
        x = F.pad(x, (left, right, top, bottom))
        if kernel == [1, 1] and stride == [1, 1]:
            columns = x.flatten(2)
        else:
            columns = F.unfold(
                x, tuple(kernel), tuple(dilation), 0, tuple(stride)
            )  # (N, C kh kw, positions)
        return columns.reshape(len(x), self.groups * self.parts, -1, columns.shape[-1])

    def _window(self) -> tuple[list[int], list[int]]:
        return self.node.get("strides", [1, 1]), self.node.get("dilations", [1, 1])


def layers_of(net: TrainableNetwork) -> dict[str, Layer]:
    """The layers by the name of their output, in order.

    A matrix product is left out if its weight is scaled, computed, or used more than once.
    """
    tensors = {name: weight() for name, weight in net.weights.items()}
    return {
        found.node.output: _layer(found, tensors[found.weight].shape)
        for found in weighted_nodes(net.nodes, tensors)
        if found.alone
        and found.plain
        and (found.node.op == "Conv" or tensors[found.weight].ndim == 2)
    }


def _layer(source: WeightedNode, stored: Sequence[int]) -> Layer:
    if source.node.op != "Conv":
        inputs, out = stored if source.transposed else stored[::-1]
        shape = (out, inputs, 1, 1)
    else:
        shape = (stored[0], stored[1], stored[2], stored[3])
    width = shape[1] * shape[2] * shape[3]
    parts = 1
    if source.groups == 1:
        parts = next(
            n for n in range(1, width + 1) if width % n == 0 and width // n <= LARGEST_BLOCK
        )
    return Layer(source, shape, parts)


def sampled(patches: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some positions of each image: (N, B, K, P) to (B, N * min(count, P), K)."""
    n, blocks, width, positions = patches.shape
    if positions > count:
        chosen = torch.randint(positions, (n, count), generator=generator)
        patches = patches.gather(3, chosen[:, None, None, :].expand(n, blocks, width, count))
    return patches.permute(1, 0, 3, 2).reshape(blocks, -1, width)
