"""Rounds a whole network at one price of a bit: each layer compensates for those before it.

One layer after the other is rounded, so that it gives the original's outputs although its inputs
come from rounded layers (Frantar et al. 2022, "GPTQ"). The whole network has one price of a bit, in
nats.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from squeezekit.compression.curvature import nats_a_squared_error, weight_fisher
from squeezekit.compression.layers import Layer, layers_of, sampled
from squeezekit.compression.like import Like
from squeezekit.compression.moments import Moments, damped, shrunk
from squeezekit.compression.rounding import Problem, Rounded, round_layer
from squeezekit.compression.share import with_mantissa, with_rounded_tables
from squeezekit.compression.work import Work, digest
from squeezekit.errors import InputError
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, silent
from squeezekit.sqz import container
from squeezekit.sqz.network import Floats, Network, SharedTensor, unshared
from squeezekit.sqz.nodes import Node
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.allocator import keep_freed_memory
from squeezekit.training.losses import distillation_loss

if TYPE_CHECKING:
    from squeezekit.compression.best import Best

ROUNDING = (
    "price", "temperature", "positions", "mirror", "sweeps", "mantissa_bits", "batch", "coder",
    "seed",
)  # fmt: skip
"""The settings that determine the result of one rounding."""


SURE, SURE_TEMPERATURE = 0.85, 2.0
"""A network gives the images it was trained on such a probability, on average, or more. Its outputs
then say too little of where it will doubt with other images, unless they are softened."""


KEPT_BYTES = 1_000_000_000
"""How much of the values between layers may be in memory at a time."""

CURVATURE_PIXELS = 250 * 227 * 227
"""Images of so many pixels are enough for the curvature, of which each layer needs one number."""


@dataclass(frozen=True, eq=False)
class Point:
    """A network on the rate-distortion curve.

    Attributes:
        network: rounded.
        file_bytes: the size in bytes of its `.sqz`; of the update to it, where `Best.like` is set.
        price: the price of a bit, in nats.
        divergence: from the original's outputs on the calibration images, in nats an image.
    """

    network: Network
    file_bytes: int
    price: float
    divergence: float


class _Part:
    """A value for a batch of images; planes in float16, of a scale of their own, to save memory.

    That is 2^-12 of each number off, while rounding changes them by a hundredth and more.
    """

    def __init__(self, values: Tensor) -> None:
        self._scale = 0.0
        if values.ndim == 4 and values.shape[2] > 1:
            self._scale = float(values.abs().amax()) / 16384
        self._stored = (values / self._scale).half() if self._scale > 0 else values

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return self._stored.nbytes

    def values(self) -> Tensor:
        """As float32."""
        return self._stored.float() * self._scale if self._scale > 0 else self._stored


_Kept = dict[str, list[_Part]]
"""By the name of the value, batch by batch."""

_Stretch = tuple[list[Node], set[str]]
"""Nodes, and the values that come to use after them."""


class Rounder:
    """A network and what calibration images tell about it, for any number of roundings."""

    def __init__(
        self,
        network: Network,
        images: Floats,
        config: Best,
        progress: Progress = silent,
        work: Work | None = None,
    ) -> None:
        """Look at the network.

        Args:
            network: batch norms are folded, and shared weights taken apart.
            images: (N, C, H, W), prepared; a few hundred, of the kind that the network is for.
            config: how to round.
            progress: called for the images and layers done.
            work: keeps each rounding, and has those that an interrupted compression made.

        Raises:
            InputError: if the network has no layer that can be rounded.
        """
        keep_freed_memory()
        self.config = config
        self.network = unshared(fold_batch_norm(network))
        self._progress = progress
        self._images = images
        self._net = TrainableNetwork(self.network).eval()
        self._layers = layers_of(self._net)
        if not self._layers:
            raise InputError(f"{network.metadata.name} has no layer whose weights can be rounded")
        self.temperature = self.config.temperature or self._usual_temperature()
        self._work = work or Work()
        self._like = None if self.config.like is None else Like(self.config.like)
        # Of the last rounding: its price, network, and what each layer's weights were rounded by.
        self._last: tuple[float, Network] | None = None
        self._problems: dict[str, tuple[Layer, Problem]] = {}

    @cached_property
    def _fisher(self) -> dict[str, Tensor]:
        """The curvature of each layer; takes about as long as one epoch on its images."""
        side = self._images.shape[-1]
        batches = -(-CURVATURE_PIXELS // (side * side * self.config.batch))
        images = torch.cat([self._batch(i) for i in range(min(batches, self._batches))])
        return weight_fisher(
            self._net, self._layers, images, temperature=self.temperature,
            batch=self.config.batch, seed=self.config.seed, progress=self._progress,
        )  # fmt: skip

    @property
    def _batches(self) -> int:
        """How many batches the images make, with those that are mirrored."""
        return -(-len(self._images) // self.config.batch) * (2 if self.config.mirror else 1)

    def _batch(self, number: int) -> Tensor:
        """Images that are spread evenly over all, so that a few batches tell of all kinds."""
        times = 2 if self.config.mirror else 1
        images = torch.from_numpy(self._images[number // times :: self._batches // times])
        images = images.flip(3) if number % times else images
        # The layout in which convolutions and pools take a fifth of the time on CPUs.
        return images.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _digest(self) -> str:
        """A digest of everything that determines a rounding, except the price."""
        how = [getattr(self.config, name) for name in ROUNDING]
        like = None if self._like is None else self._like.network
        return digest(self.network, self._images, how, torch.get_num_threads(), like)

    @torch.no_grad()
    def _usual_temperature(self) -> float:
        """The default temperature, from a few images, evenly spread."""
        sure = float(self._net(self._batch(0)).softmax(1).amax(1).mean())
        return SURE_TEMPERATURE if sure > SURE else 1.0

    @property
    def usual_price(self) -> float:
        """The price if `Best.price` is None."""
        return self.config.price or 0.06 * self.temperature**2 / self.network.parameters

    def round(self, price: float) -> Point:
        """Round all layers.

        Args:
            price: the price of a bit, in nats.
        """
        key = "" if self._work.folder is None else digest(self._digest, price)
        kept, divergence = (self._work.read(key, kind) for kind in ("sqz", "json"))
        if kept is not None and divergence is not None:
            return Point(
                container.decode(kept, None), self._bytes(kept), price,
                float(json.loads(divergence)),
            )  # fmt: skip
        with torch.enable_grad():
            _ = self._fisher
        network, divergence_nats = self._rounded_network(price)
        encoded = container.encode(network, self.config.coder)
        if key:
            self._work.keep(key, "sqz", encoded)
            self._work.keep(key, "json", json.dumps(divergence_nats).encode())
        return Point(network, self._bytes(encoded), price, divergence_nats)

    def _bytes(self, file: bytes) -> int:
        """The size that is paid for: of the file, or of the update to it."""
        return len(file) if self._like is None else self._like.update_bytes(file)

    @torch.no_grad()
    def estimated_bytes(self, price: float, near: float) -> int:
        """The size of the file at a price, by what a rounding at another price has seen.

        Each layer is rounded by the statistics of that rounding, so no image has to pass: it takes
        a fifth of the time of `round`, and is off by a percent or two.

        Args:
            price: the price of a bit, in nats.
            near: the price of the other rounding.
        """
        key = "" if self._work.folder is None else digest(self._digest, price, near, "estimate")
        if (kept := self._work.read(key, "txt")) is not None:
            return int(kept)
        if self._last is None or self._last[0] != near:  # it was kept by an earlier process
            with torch.enable_grad():
                _ = self._fisher
            self._rounded_network(near)
        assert self._last is not None
        tensors = {}
        for name, (layer, problem) in self._problems.items():
            found = self._levels_of(dataclasses.replace(problem, price=price))
            tensors[name] = self._shared(layer, problem, found)
        network = self._finished(self._last[1], tensors)
        size = self._bytes(container.encode(network, self.config.coder))
        if key:
            self._work.keep(key, "txt", str(size).encode())
        return size

    def _levels_of(self, problem: Problem) -> Rounded:
        found = round_layer(problem, self.config.sweeps)
        if problem.kept is not None:
            return found
        return _rounded_values(found, problem, self.config.mantissa_bits)

    def _shared(self, layer: Layer, problem: Problem, found: Rounded) -> SharedTensor:
        """The tensor, with the table that it had if there is one to keep."""
        if self._like is not None and problem.kept is not None:
            return self._like.tensor(layer, found.levels)
        return SharedTensor.from_values(layer.stored(found.weights()).numpy())

    def _finished(self, network: Network, tensors: Mapping[str, SharedTensor]) -> Network:
        """The network with its tensors, and all that is stored beside levels rounded too."""
        network = with_rounded_tables(network.with_tensors(tensors), self.config.mantissa_bits)
        kept = {
            name: tensors[name] for name, (_, problem) in self._problems.items() if problem.kept
        }
        return network.with_tensors(kept)

    @torch.no_grad()
    def _rounded_network(self, price: float) -> tuple[Network, float]:
        """The rounded network, and the divergence of its outputs in nats per image."""
        rounded_net = TrainableNetwork(self.network).eval()
        generator = torch.Generator().manual_seed(self.config.seed)
        original: _Kept = {}
        ours: _Kept = {}
        tensors: dict[str, SharedTensor] = {}
        done = joined = 0
        stretches = list(_stretches(self._net, self._layers))
        for (nodes, needed), many in zip(stretches, self._fitting(stretches), strict=True):
            for number in range(joined, many):
                self._join(self._net, nodes[0], number, original)
                self._join(rounded_net, nodes[0], number, ours)
            joined = many
            layer = self._layers.get(nodes[0].output)
            if layer is not None:
                found = self._rounded(layer, original, ours, rounded_net, price, generator)
                tensors[layer.weight] = self._shared(layer, self._problems[layer.weight][1], found)
                done += 1
                self._progress("round", done, len(self._layers))
            self._advance(self._net, nodes, original, needed)
            self._advance(rounded_net, nodes, ours, needed)
        name = self._net.output_name
        before, after = (torch.cat([p.values() for p in kept[name]]) for kept in (original, ours))
        divergence = divergence_of(before.flatten(1), after.flatten(1))
        biases = {
            layer.bias: rounded_net.weights[layer.bias]().numpy().copy()
            for layer in self._layers.values()
            if layer.bias
        }
        network = self._finished(self.network.with_tensors(biases), tensors)
        of = "" if self._like is None else " of the update"
        network = network.with_step(f"rounded at {price:.2g} nats a bit{of}")
        self._last = (price, network)
        return network, divergence

    def _rounded(
        self,
        layer: Layer,
        original: _Kept,
        ours: _Kept,
        rounded_net: TrainableNetwork,
        price: float,
        generator: torch.Generator,
    ) -> Rounded:
        """Round one layer, and set its weight and bias in the rounded network."""
        name = layer.node.inputs[0]
        weight = layer.matrices(self._net.weights[layer.weight]().detach())
        moments = self._moments(layer, original[name], ours[name], generator)
        # A bias will compensate for the change of the means.
        covariance, moved = moments.covariance_and_moved(centred=bool(layer.bias))
        covariance = damped(shrunk(covariance, moments.count))
        # The weights that give the original's outputs from what the rounded layers before give.
        target = weight + torch.linalg.solve(
            covariance, (weight @ moved).transpose(1, 2)
        ).transpose(1, 2)
        fisher = self._fisher[layer.node.output]
        nats = nats_a_squared_error(fisher, covariance)
        kept = None if self._like is None else self._like.layer(layer)
        problem = Problem(target, covariance, nats, price, kept)
        self._problems[layer.weight] = (layer, problem)
        found = self._levels_of(problem)
        matrices = found.weights()
        _set(rounded_net, layer.weight, layer.stored(matrices))
        if layer.bias:
            x_mean, y_mean = moments.means()
            gap = weight @ x_mean[:, :, None] - matrices @ y_mean[:, :, None]  # (B, R, 1)
            gap = gap.sum(0) if layer.parts > 1 else gap.flatten()
            bias = rounded_net.weights[layer.bias]() + gap.flatten()
            nats = float(fisher[:, -1, -1].mean())
            kept_bias = None
            if self._like is not None:
                kept_bias = self._like.bias(layer.bias, bias, nats, price)
            if kept_bias is None:
                kept_bias = _rounded_bias(bias, nats, price, self.config.mantissa_bits)
            _set(rounded_net, layer.bias, kept_bias)
        return found

    def _moments(
        self, layer: Layer, original: list[_Part], ours: list[_Part], generator: torch.Generator
    ) -> Moments:
        """Of the same sampled positions of both inputs."""
        found = Moments()
        for before, after in zip(original, ours, strict=True):
            state = generator.get_state()
            x = sampled(layer.patches(before.values()), self.config.positions, generator)
            generator.set_state(state)
            y = sampled(layer.patches(after.values()), self.config.positions, generator)
            found.add(x, y)
        return found

    def _fitting(self, stretches: Sequence[_Stretch]) -> list[int]:
        """How many batches pass each stretch: as many as fit into `KEPT_BYTES` from there on.

        Early layers have large planes, and so many positions that a part of the images will do.
        """
        image = self._batch(0)[:1]
        kept: _Kept = {self._net.input_name: [_Part(image)]}
        before = image.nbytes // 2
        most = []
        for nodes, needed in stretches:
            self._advance(self._net, nodes, kept, needed)
            after = sum(part.nbytes for parts in kept.values() for part in parts)
            # What both networks keep before and after; one goes through after the other.
            an_image = max(2 * before + after, before + 2 * after)
            most.append(KEPT_BYTES // (an_image * self.config.batch))
            before = after
        least = [min(most[i:]) for i in range(len(most))]
        return [min(max(many, 1), self._batches) for many in least[:-1]] + [self._batches]

    def _join(self, net: TrainableNetwork, until: Node, number: int, kept: _Kept) -> None:
        """Take a batch through all nodes before one, and keep what is needed from there on."""
        index = net.nodes.index(until)
        needed = {name for node in net.nodes[index:] for name in node.inputs}
        last = {name: i for i, node in enumerate(net.nodes[:index]) for name in node.inputs}
        values = {net.input_name: self._batch(number)}
        for i, node in enumerate(net.nodes[:index]):
            values[node.output] = net.computed(node, values)
            for name in node.inputs:
                if last[name] == i and name not in needed:
                    values.pop(name, None)
        for name, value in values.items():
            if name in needed:
                kept.setdefault(name, []).append(_Part(value))

    def _advance(
        self, net: TrainableNetwork, nodes: Sequence[Node], kept: _Kept, needed: set[str]
    ) -> None:
        """Compute nodes for all images, and keep only what is still needed."""
        wanted = [name for node in nodes for name in node.inputs if name in kept]
        made: _Kept = {node.output: [] for node in nodes if node.output in needed}
        for i in range(len(next(iter(kept.values())))):
            here = {name: kept[name][i].values() for name in wanted}
            for node in nodes:
                here[node.output] = net.computed(node, here)
            for name, parts in made.items():
                parts.append(_Part(here[name]))
        for name in [name for name in kept if name not in needed]:
            del kept[name]
        kept.update(made)


def divergence_of(original: Tensor, ours: Tensor) -> float:
    """Mean Kullback-Leibler divergence of logits (N, classes), in nats an image."""
    return float(distillation_loss(ours, original, 1.0))


def _stretches(net: TrainableNetwork, layers: dict[str, Layer]) -> Iterator[_Stretch]:
    """Nodes from each layer up to the next, and the values that come to use after them."""
    starts = [i for i, node in enumerate(net.nodes) if node.output in layers]
    bounds = sorted({0, *starts, len(net.nodes)})
    for begin, end in itertools.pairwise(bounds):
        needed = {name for node in net.nodes[end:] for name in node.inputs}
        yield net.nodes[begin:end], needed | {net.output_name}


def _rounded_bias(bias: Tensor, nats: float, price: float, most: int) -> Tensor:
    """The bias with as many mantissa bits as are worth their price, at most `most`.

    Args:
        bias: (R,), float32.
        nats: for each unit of squared error, of 0.5 times that error.
        price: the price of a bit, in nats.
        most: bits.
    """

    def cost(bits: int) -> float:
        error = _with_mantissa(bias, bits) - bias
        return 0.5 * nats * float(error.square().sum()) + price * bits * len(bias)

    return _with_mantissa(bias, min(range(1, most + 1), key=cost))


def _rounded_values(found: Rounded, problem: Problem, most: int) -> Rounded:
    """The same for the values of levels; each level that occurs is stored once."""
    count = len(torch.bincount((found.levels + found.most).flatten().long()).nonzero())

    def rounded_to(bits: int) -> Rounded:
        return Rounded(found.levels, _with_mantissa(found.values, bits))

    def cost(bits: int) -> float:
        error = rounded_to(bits).weights() - problem.target
        squared = float(((error @ problem.covariance) * error).sum())
        return 0.5 * problem.nats * squared + problem.price * bits * count

    return rounded_to(min(range(4, most + 1), key=cost))


def _with_mantissa(values: Tensor, bits: int) -> Tensor:
    return torch.from_numpy(with_mantissa(values.numpy(), bits))


def _set(net: TrainableNetwork, name: str, values: Tensor) -> None:
    next(iter([*net.weights[name].parameters(), *net.weights[name].buffers()])).copy_(values)
