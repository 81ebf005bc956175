"""Low-rank layers: each weight becomes the product of two smaller ones, by truncated SVD.

Denton et al. 2014, "Exploiting Linear Structure Within Convolutional Networks for Efficient
Evaluation"; for convolutions in the form whose first half keeps the kernel (their section 3.2).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper

from squeezekit.compression.checks import share_of_all
from squeezekit.errors import InputError
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Floats, Network, Tensor, tensor_values
from squeezekit.sqz.nodes import WeightedNode, read_nodes, weighted_nodes

BYTES_A_WEIGHT = 4
"""Of float32."""

_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """How large a layer's weight would be at each rank, and how much it would lose.

    A weight (out, in / groups, kh, kw) is one matrix (out / groups, in / groups * kh * kw) a group;
    the groups share a rank. A fully connected weight (out, in) is one group with a 1x1 kernel.

    Attributes:
        name: the name of the weight.
        shape: (groups, rows, columns) of its matrices.
        singular_values: (rank,), the root of the sum of the groups' squares, descending.
    """

    name: str
    shape: tuple[int, int, int]
    singular_values: _Doubles

    @property
    def rank_size(self) -> int:
        """Weights that each rank takes."""
        groups, rows, columns = self.shape
        return groups * (rows + columns)

    @property
    def largest_rank(self) -> int:
        """The largest that makes the layer smaller."""
        groups, rows, columns = self.shape
        return (groups * rows * columns - 1) // self.rank_size

    @property
    def energies(self) -> _Doubles:
        """Share of the weight's squares that each rank holds: (rank,), adding up to 1."""
        squares = self.singular_values**2
        total = squares.sum()
        return squares / total if total > 0 else squares

    def saved(self, rank: int) -> int:
        """Weights fewer than the layer has."""
        return math.prod(self.shape) - rank * self.rank_size


def spectra(network: Network) -> list[Spectrum]:
    """The layers that can be factored, in graph order: convolutions and fully connected layers.

    Layers that no rank makes smaller are left out, and so are weights that two layers use and
    matrix products whose result is scaled.
    """
    found = []
    for layer in _factorable(parse(network.graph), network):
        matrices = _matrices(layer, tensor_values(network.tensors[layer.weight]))
        squares = np.linalg.eigvalsh(_gram(matrices))[:, ::-1].sum(axis=0)
        shape = (matrices.shape[0], matrices.shape[1], matrices.shape[2])
        spectrum = Spectrum(layer.weight, shape, np.sqrt(np.maximum(squares, 0.0)))
        if spectrum.largest_rank >= 1:
            found.append(spectrum)
    return found


def ranks_by_energy(layers: Iterable[Spectrum], energy: float) -> dict[str, int]:
    """The lowest rank that keeps a share of each weight's squares, if that saves anything.

    Args:
        layers: the layers of the network.
        energy: in (0, 1]; 1 - energy is the squared relative error of each layer's weight.

    Raises:
        InputError: if it is not.
    """
    share_of_all("the energy to keep", energy)
    ranks = {}
    for layer in layers:
        rank = int(np.searchsorted(np.cumsum(layer.energies), energy - 1e-12)) + 1
        if rank <= layer.largest_rank:
            ranks[layer.name] = rank
    return ranks


def ranks_by_bytes(
    network: Network, layers: Iterable[Spectrum], target_bytes: int
) -> dict[str, int]:
    """Ranks at which the float32 weights fit, and the layers together lose the least.

    The loss is the sum, over the layers, of the share of their squares that is given up. A rank is
    kept if it holds more of that share per byte than a common price, which is found by bisection.

    Args:
        network: the network to shrink.
        layers: its spectra.
        target_bytes: the size in bytes of all weights and biases as float32.

    Raises:
        InputError: if not even rank 1 everywhere is as small as that.
    """
    layers = list(layers)
    most = network.parameters - target_bytes // BYTES_A_WEIGHT

    def ranks(price: float) -> dict[str, int]:
        found = {layer.name: _rank_at(layer, price) for layer in layers}
        return {la.name: found[la.name] for la in layers if found[la.name] <= la.largest_rank}

    def saved(price: float) -> int:
        chosen = ranks(price)
        return sum(layer.saved(chosen[layer.name]) for layer in layers if layer.name in chosen)

    low, high = -30.0, 2.0  # powers of ten, from nothing given up to rank 1 everywhere
    if saved(10**high) < most:
        least = BYTES_A_WEIGHT * (network.parameters - saved(10**high))
        raise InputError(
            f"{network.metadata.name} cannot be factored to {target_bytes:,} bytes: at rank 1 "
            f"everywhere its weights take {least:,}"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if saved(10**middle) >= most else (middle, high)
    return ranks(10**high)


def _rank_at(layer: Spectrum, price: float) -> int:
    """How many ranks are worth more than their price; these are always the first ones."""
    return max(1, int(np.count_nonzero(layer.energies >= price * layer.rank_size)))


def factored(network: Network, ranks: Mapping[str, int]) -> Network:
    """Factor the named weights: a layer becomes two, with nothing in between.

    A kxk convolution becomes one of `rank` filters with its kernel, stride and padding, called
    "NAME.basis", and a 1x1 convolution with its bias; a fully connected layer becomes two. Groups
    stay groups. The second layer keeps the names of the weight and the bias.

    Args:
        network: its shared weights become plain ones where they are factored.
        ranks: by name of the weight, as in `spectra`; layers without one stay as they are.

    Returns:
        The network; at full rank its outputs are those of `network`, up to rounding. The squared
        error of a weight is the sum of the squares of the singular values that are left out.

    Raises:
        InputError: for a name that is none of the network's `spectra`, or a rank out of range.
    """
    model = parse(network.graph)
    layers = {layer.weight: layer for layer in _factorable(model, network)}
    protos = {proto.output[0]: proto for proto in model.graph.node}
    tensors: dict[str, Tensor] = dict(network.tensors)
    for name, rank in ranks.items():
        if name not in layers:
            raise InputError(
                f"cannot factor {name!r}: it is not a layer of {network.metadata.name}"
            )
        layer = layers[name]
        node = protos[layer.node.output]
        matrices = _matrices(layer, tensor_values(network.tensors[name]))
        if not 1 <= rank <= min(matrices.shape[1:]):
            raise InputError(f"{name} has ranks 1 to {min(matrices.shape[1:])}, not {rank}")
        mixing, basis = _halves(matrices, rank)
        first = f"{name.removesuffix('.weight')}.basis.weight"
        position = list(model.graph.node).index(node)
        model.graph.node.insert(position, _basis_node(node, first))
        shape = network.tensors[name].shape
        if node.op_type == "Conv":
            tensors[first] = _float32(basis.reshape(-1, *shape[1:]))
            tensors[name] = _float32(mixing.reshape(shape[0], rank, 1, 1))
            _make_1x1(node, layer.groups)
        else:
            tensors[first] = _float32(basis[0].T if layer.transposed else basis[0])
            tensors[name] = _float32(mixing[0].T if layer.transposed else mixing[0])
    order = [name for node in model.graph.node for name in node.input if name in tensors]
    return dataclasses.replace(
        network,
        graph=model.SerializeToString(deterministic=True),
        tensors={name: tensors[name] for name in dict.fromkeys(order)},
    )


def _factorable(model: ModelProto, network: Network) -> list[WeightedNode]:
    """The convolutions and Gemm layers that do nothing else and share no weight."""
    return [
        layer
        for layer in weighted_nodes(read_nodes(model), network.tensors)
        if layer.alone and layer.plain and layer.node.op in ("Conv", "Gemm")
    ]


def _matrices(layer: WeightedNode, weight: Floats) -> _Doubles:
    """(groups, outputs a group, inputs a group): what the layer multiplies by, a matrix a group."""
    if layer.node.op == "Gemm":
        matrix = weight.T if layer.transposed else weight
        return matrix[np.newaxis].astype(np.float64)
    return weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1).astype(np.float64)


def _gram(matrices: _Doubles) -> _Doubles:
    """(groups, n, n) of the shorter side: its eigenvalues are the squared singular values.

    For AlexNet's fc6 this takes seconds, and an SVD minutes. Squaring loses digits, but float64 has
    enough of them.
    """
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.transpose(0, 2, 1)
    return matrices @ matrices.transpose(0, 2, 1)


def _halves(matrices: _Doubles, rank: int) -> tuple[_Doubles, _Doubles]:
    """(groups, rows, rank) and (groups, rank, columns), whose product is nearest to the matrices.

    It is their projection on the first singular vectors. Both halves are scaled by the root of the
    singular values, so that they learn equally fast.
    """
    squares, vectors = np.linalg.eigh(_gram(matrices))
    first = vectors[:, :, ::-1][:, :, :rank]  # (groups, shorter side, rank)
    least = 1e-12 * max(float(squares.max()), 1e-30)  # a weight of zeros divides by it
    roots = np.maximum(squares[:, np.newaxis, ::-1][:, :, :rank], least) ** 0.25
    if matrices.shape[1] <= matrices.shape[2]:
        projected = first.transpose(0, 2, 1) @ matrices  # (groups, rank, columns)
        return first * roots, projected / roots.transpose(0, 2, 1)
    return matrices @ first / roots, (first * roots).transpose(0, 2, 1)


def _basis_node(node: NodeProto, weight: str) -> NodeProto:
    """The first half of a layer, put in front of `node`, which becomes the second."""
    basis = NodeProto()
    basis.CopyFrom(node)
    basis.name = weight.removesuffix(".weight")
    basis.input[:] = [node.input[0], weight]
    basis.output[:] = [basis.name]
    node.input[0] = basis.name
    return basis


def _make_1x1(node: NodeProto, groups: int) -> None:
    del node.attribute[:]
    node.attribute.extend(
        [helper.make_attribute("kernel_shape", [1, 1]), helper.make_attribute("group", groups)]
    )


def _float32(values: _Doubles) -> Floats:
    return np.ascontiguousarray(values, np.float32)
