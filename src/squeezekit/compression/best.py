"""Rounds a network for the fewest bytes at the least change of its outputs, by unlabelled images.

Layer after layer, each made to give what the original gives from inputs that are rounded already
(Frantar et al. 2022, "GPTQ"), with one price of a bit in nats for the whole network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from squeezekit.compression.curvature import sensitivity, weight_fisher
from squeezekit.compression.layers import Layer, layers_of, sampled
from squeezekit.compression.rounding import Problem, Rounded, rounded
from squeezekit.compression.share import rounded as with_mantissa
from squeezekit.compression.share import with_rounded_tables
from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, silent
from squeezekit.sqz import container
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.network import Floats, Network, SharedTensor, unshared
from squeezekit.sqz.nodes import Node
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.allocator import keep_freed_memory
from squeezekit.training.loop import distillation_loss

_DAMPING = 0.01
"""Of a covariance, as a share of its mean variance: what the images at hand do not tell."""


SURE, SURE_TEMPERATURE = 0.85, 2.0
"""A network gives the images it was trained on such a probability, on average, or more. Its outputs
then say too little of where it will doubt with other images, unless they are softened."""


@dataclass(frozen=True)
class BestConfig:
    """How a network is rounded.

    Attributes:
        price: of a bit, in nats of Kullback-Leibler divergence of the outputs; None takes 0.06
            divided by the number of weights, times the temperature's square.
        temperature: that softens the outputs which are to stay as they are; None takes 1, or
            SURE_TEMPERATURE where the network is SURE of the images.
        positions: of each layer's output that an image contributes to the statistics.
        mirrored: look at each image mirrored too, as photos may well be: twice the time.
        sweeps: of coordinate descent.
        mantissa_bits: of the values of levels, and of biases, at most.
        coder: of the files whose bytes are counted.
        batch: images at a time.
        seed: of sampled positions and classes.
    """

    price: float | None = None
    temperature: float | None = None
    positions: int = 600
    mirrored: bool = False
    sweeps: int = 2
    mantissa_bits: int = 10
    coder: CoderName = "entropy"
    batch: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.price is not None and not 0 < self.price < math.inf:
            raise InputError(f"the price of a bit must be above 0, not {self.price}")


@dataclass(frozen=True, eq=False)
class Point:
    """A network on the rate-distortion curve.

    Attributes:
        network: rounded.
        file_bytes: of its `.sqz`.
        price: of a bit, in nats.
        divergence: from the original's outputs on the calibration images, in nats an image.
    """

    network: Network
    file_bytes: int
    price: float
    divergence: float


@dataclass(frozen=True)
class CurvePoint:
    """How good a network is at a number of bytes.

    Attributes:
        price: of a bit, in nats.
        file_bytes: of its `.sqz`.
        divergence: see `Point`.
        top1, top5: accuracy on held-out images, in percent.
    """

    price: float
    file_bytes: int
    divergence: float
    top1: float
    top5: float


CURVE_FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""On the usual price, for the points of a curve."""


class _Part:
    """A value for a batch of images; planes in float16, of a scale of their own, to save memory.

    That is 2^-12 of each number off, while rounding changes them by a hundredth and more.
    """

    def __init__(self, values: Tensor) -> None:
        self._scale = 0.0
        if values.ndim == 4 and values.shape[2] > 1:
            self._scale = float(values.abs().amax()) / 16384
        self._stored = (values / self._scale).half() if self._scale > 0 else values

    def values(self) -> Tensor:
        """As float32."""
        return self._stored.float() * self._scale if self._scale > 0 else self._stored


_Kept = dict[str, list[_Part]]
"""By the name of the value, batch by batch."""


class _Moments:
    """Sums over samples of patches x of the original's input and y of ours, (B, S, K) each.

    They are taken about the means of the first samples: nothing is lost where inputs hardly vary.
    """

    def __init__(self) -> None:
        self.count = 0
        self._about: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """More samples."""
        if self._about is None:
            self._about = (x.mean(1, keepdim=True), y.mean(1, keepdim=True))
        x, y = x - self._about[0], y - self._about[1]
        moved = (x - y).transpose(1, 2) @ y
        sums = [t.double() for t in (x.sum(1), y.sum(1), y.transpose(1, 2) @ y, moved)]
        before = self._sums or [torch.zeros(())] * len(sums)
        self._sums = [a + b for a, b in zip(before, sums, strict=True)]
        self.count += x.shape[1]

    def means(self) -> tuple[Tensor, Tensor]:
        """Of x and of y, float32 (B, K)."""
        assert self._about is not None
        x, y = (total / self.count for total in self._sums[:2])
        return (self._about[0][:, 0] + x).float(), (self._about[1][:, 0] + y).float()

    def covariance_and_moved(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Of y with itself, and of x - y with y; float32 (B, K, K) each."""
        x, y, covariance, moved = (total / self.count for total in self._sums)
        covariance = covariance - y[:, :, None] * y[:, None, :]
        moved = moved - (x - y)[:, :, None] * y[:, None, :]
        if not centred:
            x, y = self.means()
            covariance = covariance + y[:, :, None] * y[:, None, :]
            moved = moved + (x - y)[:, :, None] * y[:, None, :]
        return covariance.float(), moved.float()


class Rounder:
    """A network and what calibration images tell about it, for any number of roundings."""

    def __init__(
        self,
        network: Network,
        images: Floats,
        config: BestConfig | None = None,
        progress: Progress = silent,
    ) -> None:
        """Measure the curvature; takes about as long as training on the images once.

        Args:
            network: batch norms are folded, and shared weights taken apart.
            images: (N, C, H, W), prepared; a few hundred, of the kind that the network is for.
            config: how to round.
            progress: told of the images and layers done.

        Raises:
            InputError: where the network has no layer that can be rounded.
        """
        keep_freed_memory()
        self.config = config or BestConfig()
        self.network = unshared(fold_batch_norm(network))
        self._progress = progress
        self._images = torch.from_numpy(images)
        if self.config.mirrored:
            self._images = torch.cat([self._images, self._images.flip(3)])
        self._net = TrainableNetwork(self.network).eval()
        self._layers = layers_of(self._net)
        if not self._layers:
            raise InputError(f"{network.metadata.name} has no layer whose weights can be rounded")
        self.temperature = self.config.temperature or self._usual_temperature()
        self._fisher = weight_fisher(
            self._net, self._layers, self._images, temperature=self.temperature,
            batch=self.config.batch, seed=self.config.seed, progress=progress,
        )  # fmt: skip

    @torch.no_grad()
    def _usual_temperature(self) -> float:
        """By a few images, evenly spread."""
        few = self._images[:: max(len(self._images) // self.config.batch, 1)][: self.config.batch]
        sure = float(self._net(few).softmax(1).amax(1).mean())
        return SURE_TEMPERATURE if sure > SURE else 1.0

    @property
    def usual_price(self) -> float:
        """What `BestConfig.price` is where it is None."""
        return self.config.price or 0.06 * self.temperature**2 / self.network.parameters

    @torch.no_grad()
    def round(self, price: float) -> Point:
        """Round all layers.

        Args:
            price: of a bit, in nats.
        """
        rounded_net = TrainableNetwork(self.network).eval()
        generator = torch.Generator().manual_seed(self.config.seed)
        parts = [_Part(part) for part in torch.split(self._images, self.config.batch)]
        original: _Kept = {self._net.input_name: parts}
        ours: _Kept = {self._net.input_name: parts}
        tensors: dict[str, SharedTensor] = {}
        done = 0
        for nodes, needed in _stretches(self._net, self._layers):
            layer = self._layers.get(nodes[0].output)
            if layer is not None:
                found = self._rounded(layer, original, ours, rounded_net, price, generator)
                values = layer.stored(found.weights()).numpy()
                tensors[layer.weight] = SharedTensor.from_values(values)
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
        network = self.network.with_tensors({**tensors, **biases})
        network = with_rounded_tables(network, self.config.mantissa_bits)
        network = network.with_step(f"rounded at {price:.2g} nats a bit")
        return Point(network, len(container.encode(network, self.config.coder)), price, divergence)

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
        # A bias will make up for what the means do.
        covariance, moved = moments.covariance_and_moved(centred=bool(layer.bias))
        covariance = _damped(_shrunk(covariance, moments.count))
        # The weights that give the original's outputs from what the rounded layers before give.
        target = weight + torch.linalg.solve(
            covariance, (weight @ moved).transpose(1, 2)
        ).transpose(1, 2)
        fisher = self._fisher[layer.node.output]
        nats = sensitivity(fisher, covariance)
        problem = Problem(target, covariance, nats, price)
        found = rounded(problem, self.config.sweeps)
        found = _rounded_values(found, problem, self.config.mantissa_bits)
        matrices = found.weights()
        _set(rounded_net, layer.weight, layer.stored(matrices))
        if layer.bias:
            x_mean, y_mean = moments.means()
            gap = weight @ x_mean[:, :, None] - matrices @ y_mean[:, :, None]  # (B, R, 1)
            gap = gap.sum(0) if layer.parts > 1 else gap.flatten()
            bias = rounded_net.weights[layer.bias]() + gap.flatten()
            nats = float(fisher[:, -1, -1].mean())
            bias = _rounded_bias(bias, nats, price, self.config.mantissa_bits)
            _set(rounded_net, layer.bias, bias)
        return found

    def _moments(
        self, layer: Layer, original: list[_Part], ours: list[_Part], generator: torch.Generator
    ) -> _Moments:
        """Of the same sampled positions of both inputs."""
        found = _Moments()
        for before, after in zip(original, ours, strict=True):
            state = generator.get_state()
            x = sampled(layer.patches(before.values()), self.config.positions, generator)
            generator.set_state(state)
            y = sampled(layer.patches(after.values()), self.config.positions, generator)
            found.add(x, y)
        return found

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


def to_size(
    rounder: Rounder, target_bytes: int, tolerance: float = 0.01, attempts: int = 8
) -> Point:
    """The point of at most that many bytes, and at least `tolerance` below.

    Raises:
        InputError: where no price leads there; it says what does.
    """
    prices, sizes = [rounder.usual_price], []
    best: Point | None = None
    for _ in range(attempts):
        point = rounder.round(prices[-1])
        sizes.append(point.file_bytes)
        if point.file_bytes <= target_bytes and (
            best is None or point.file_bytes > best.file_bytes
        ):
            best = point
        if (1 - tolerance) * target_bytes <= point.file_bytes <= target_bytes:
            return point
        prices.append(_next_price(prices, sizes, (1 - tolerance / 2) * target_bytes))
    if best is None:
        raise InputError(
            f"{target_bytes:,} bytes are too few: {min(sizes):,} was the least reached"
        )
    return best


def to_quality(
    rounder: Rounder, good: Callable[[Network], bool], factor: float = 1.5, most: int = 8
) -> Point:
    """The smallest point that is still good, of prices that are a factor apart.

    Raises:
        InputError: where even the lowest price tried is too high.
    """
    price = rounder.usual_price
    point = rounder.round(price)
    up = good(point.network)
    found = point if up else None
    for _ in range(most):
        price = price * factor if up else price / factor
        point = rounder.round(price)
        fine = good(point.network)
        if fine:
            found = point
        if fine != up:
            break
    if found is None:
        raise InputError("even fine rounding loses more than that; allow a larger drop")
    return found


def curve(rounder: Rounder, measure: Callable[[Network], Evaluation]) -> list[CurvePoint]:
    """Points of the rate-accuracy curve, the largest file first."""
    points = []
    for factor in CURVE_FACTORS:
        point = rounder.round(factor * rounder.usual_price)
        found = measure(point.network)
        points.append(
            CurvePoint(point.price, point.file_bytes, point.divergence, found.top1, found.top5)
        )
    return points


def _next_price(prices: Sequence[float], sizes: Sequence[int], target: float) -> float:
    """Between the two sizes next to the target, or from the nearest towards it, on log scales."""
    known = sorted(zip(sizes, prices, strict=True))
    less = [point for point in known if point[0] <= target]
    more = [point for point in known if point[0] > target]
    if less and more:
        (small, high), (large, low) = less[-1], more[0]
        share = math.log(large / target) / math.log(large / small)
        share = min(max(share, 0.1), 0.9)  # sizes are no smooth function of the price
        return low * math.pow(high / low, share)
    nearest, *others = known if more else known[::-1]
    slope = -0.2
    if others:
        (size, price), (other_size, other_price) = nearest, others[0]
        if size != other_size and price != other_price:
            slope = math.log(size / other_size) / math.log(price / other_price)
            slope = min(max(slope, -1.0), -0.05)
    step = math.log(target / nearest[0]) / slope
    return nearest[1] * math.exp(min(max(step, -3.0), 3.0))


def _stretches(
    net: TrainableNetwork, layers: dict[str, Layer]
) -> Iterator[tuple[list[Node], set[str]]]:
    """Nodes from each layer up to the next, and the values that come to use after them."""
    starts = [i for i, node in enumerate(net.nodes) if node.output in layers]
    bounds = sorted({0, *starts, len(net.nodes)})
    for begin, end in itertools.pairwise(bounds):
        needed = {name for node in net.nodes[end:] for name in node.inputs}
        yield net.nodes[begin:end], needed | {net.output_name}


def _shrunk(covariance: Tensor, count: int) -> Tensor:
    """Towards its diagonal, by how much of the rest is the noise of few samples.

    The share with the least expected squared error (Schaefer, Strimmer 2005, section 2), for
    normally distributed inputs. A fully connected layer sees one sample an image: a few hundred
    would tell of thousands of inputs which errors cancel, and be wrong for every other image.

    Args:
        covariance: (B, K, K).
        count: samples that it was found from.
    """
    variances = covariance.diagonal(dim1=1, dim2=2)  # (B, K)
    # Sums over pairs of different inputs; the pairs of the diagonal are taken off.
    squares = covariance.square().sum((1, 2)) - variances.square().sum(1)
    noise = (variances.sum(1).square() - variances.square().sum(1) + squares) / count
    share = (noise / squares.clamp_min(torch.finfo(squares.dtype).tiny)).clamp(max=1.0)
    return torch.lerp(covariance, torch.diag_embed(variances), share[:, None, None])


def _damped(covariance: Tensor) -> Tensor:
    mean = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return covariance + _DAMPING * mean[:, None, None] * torch.eye(covariance.shape[-1])


def _rounded_bias(bias: Tensor, nats: float, price: float, most: int) -> Tensor:
    """With as many bits of mantissa as are worth their price, at most `most`.

    Args:
        bias: (R,), float32.
        nats: for each unit of squared error, of 0.5 times that error.
        price: of a bit, in nats.
        most: bits.
    """

    def cost(bits: int) -> float:
        error = _with_mantissa(bias, bits) - bias
        return 0.5 * nats * float(error.square().sum()) + price * bits * len(bias)

    return _with_mantissa(bias, min(range(1, most + 1), key=cost))


def _rounded_values(found: Rounded, problem: Problem, most: int) -> Rounded:
    """The same for the values of levels, of which each that occurs is stored once."""
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
