"""A new last layer fitted to photos, before any other weight moves: a linear classifier."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from squeezekit.models.head import bias_of_head, without_relu_behind_head
from squeezekit.progress import Progress, silent
from squeezekit.sqz.network import Network
from squeezekit.sqz.nodes import WeightedNode, weighted_nodes
from squeezekit.trainable.network import TrainableNetwork
from squeezekit.training.batches import TrainingData
from squeezekit.training.devices import has_bf16
from squeezekit.training.recipe import Recipe

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Tried on a part of the photos: factors on half the squared change of the weights, beside the mean
loss, of features whose mean variance is 1."""

FOLDS = 4
"""Parts of the photos; each chooses the penalty once, for what is fitted to the others."""

MOST_IMAGES = 10_000
"""That it is fitted to; its weights are far fewer than what more could tell."""

_BATCH = 32
_ITERATIONS = 60  # of L-BFGS
_TOLERANCE = 0.05  # of an output, as a share of how far outputs differ: bfloat16 has 8 bits


@dataclass(frozen=True, eq=False)
class FittedHead:
    """What fitting the last layer gave.

    Attributes:
        network: with the last layer, and no ReLU behind it.
        loss: mean cross entropy of the photos that it was fitted to, in nats.
        top1: percent of them that it gets right.
        penalty: the one of `PENALTIES` that other photos chose.
        seconds: that it took.
    """

    network: Network
    loss: float
    top1: float
    penalty: float
    seconds: float


def with_fitted_head(
    network: Network, data: TrainingData, recipe: Recipe, progress: Progress = silent
) -> FittedHead | None:
    """Fit the last layer by logistic regression on the features under it, which stay as they are.

    The penalty draws the weights to those that the layer has already, so that a class that it
    knows keeps what it knows where photos do not tell more. Features are those of the photos as in
    use and, where the recipe mirrors, mirrored ones. A ReLU behind the layer is left out: behind
    it the layer would not be linear, and classes can die for good.

    Args:
        network: as `models.head.with_new_head` gives it.
        data: the photos to fit it to; of more than `MOST_IMAGES`, so many by the seed.
        recipe: its seed, precision and `mirror` count here.
        progress: told of the batches, as task "fit".

    Returns:
        None where the last layer is none that this can be done for: a convolution of more than one
        pixel, one without a bias, or one whose outputs are not simply averaged.
    """
    start = time.perf_counter()
    bare = without_relu_behind_head(network)
    net = TrainableNetwork(bare).eval()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer = weighted_nodes(net.nodes, {name: weight() for name, weight in net.weights.items()})[-1]
    bias = bias_of_head(bare)
    if bias is None or not _is_linear(layer, net):
        return None
    rows = [_features(net, layer, data, recipe, mirrored) for mirrored in _views(recipe)]
    parts, images, total = [], 0, len(rows) * min(data.images, MOST_IMAGES)
    for view in rows:
        for features, targets, outputs in view:
            if outputs is not None and not _agree(net, layer, bias, features, outputs):
                return None
            parts.append((features, targets))
            images += len(targets)
            progress("fit", min(images, total), total)
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))  # (N, features), (N,)
    weight = _matrix(net, layer).cpu()
    # One scale for all features: each by its own would make much of those that hardly vary.
    mean, spread = x.mean(0), x.std(0).square().mean().sqrt().clamp(min=1e-12)
    x = (x - mean) / spread
    prior = weight * spread  # (classes, features)
    fold = torch.arange(len(y)) % (len(y) // len(rows)) % FOLDS  # the same of a mirror image
    penalty = min(PENALTIES, key=lambda each: _held_out_loss(x, y, prior, fold, each))
    fitted, intercept = _fitted(x, y, prior, penalty)
    logits = F.linear(x, fitted, intercept)
    new = fitted / spread
    stored = new.T if layer.transposed else new
    tensors = {
        layer.weight: stored.reshape(net.weights[layer.weight]().shape).contiguous().numpy(),
        bias: (intercept - new @ mean).numpy(),
    }
    return FittedHead(
        network=bare.with_tensors(tensors),
        loss=float(F.cross_entropy(logits, y)),
        top1=100 * float((logits.argmax(1) == y).float().mean()),
        penalty=penalty,
        seconds=time.perf_counter() - start,
    )


def _views(recipe: Recipe) -> tuple[bool, ...]:
    return (False, True) if recipe.augmentation.mirror else (False,)


def _is_linear(layer: WeightedNode, net: TrainableNetwork) -> bool:
    """Whether the layer's outputs, averaged over places, follow from its averaged inputs."""
    if not layer.alone and layer.bias:
        return False
    if layer.node.op != "Conv":
        return layer.plain
    one = set(net.weights[layer.weight]().shape[2:]) == {1}
    return one and layer.groups == 1 and set(layer.node.get("strides", [1])) == {1}


def _matrix(net: TrainableNetwork, layer: WeightedNode) -> Tensor:
    """The layer's weight as (classes, features)."""
    weight: Tensor = net.weights[layer.weight]().detach().float()
    return weight.T if layer.transposed else weight.flatten(1)


def _features(
    net: TrainableNetwork, layer: WeightedNode, data: TrainingData, recipe: Recipe, mirrored: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Features (N, features), targets (N,), and of the first batch the outputs (N, classes)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = recipe.precision == "bf16" and has_bf16(device)
    net.to(device)
    first = True
    for pixels, targets in data.in_order(_BATCH, MOST_IMAGES, recipe.seed, mirrored=mirrored):
        images = data.inputs(pixels.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            values = net.value(images, layer.node.inputs[0])
            outputs = net(images).float().cpu() if first else None
        yield _averaged(values.float().cpu(), layer), targets, outputs
        first = False
    net.to("cpu")


def _averaged(values: Tensor, layer: WeightedNode) -> Tensor:
    """The inputs of the layer, averaged over the places where it has outputs: padding is zero."""
    if layer.node.op != "Conv":
        return values.flatten(1)
    top, left, bottom, right = map(int, layer.node.get("pads", [0, 0, 0, 0]))
    places = (values.shape[2] + top + bottom) * (values.shape[3] + left + right)
    return values.sum((2, 3)) / places


def _agree(
    net: TrainableNetwork, layer: WeightedNode, bias: str, features: Tensor, outputs: Tensor
) -> bool:
    """Whether the network's outputs are indeed what the layer makes of the features."""
    expected = F.linear(features, _matrix(net, layer).cpu(), net.weights[bias]().detach().cpu())
    if expected.shape != outputs.shape:
        return False
    apart = (expected - outputs).abs().max()
    return bool(apart <= _TOLERANCE * (expected - expected.mean(0)).abs().max() + 1e-6)


def _fitted(x: Tensor, y: Tensor, prior: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """The weight (classes, features) and the bias of the least loss."""
    weight = prior.clone().requires_grad_()
    bias = torch.zeros(len(prior), requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), y)
        value = value + 0.5 * penalty * (weight - prior).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _held_out_loss(x: Tensor, y: Tensor, prior: Tensor, fold: Tensor, penalty: float) -> float:
    """The mean loss of each part under what is fitted to the others."""
    total, count = 0.0, 0
    for part in range(FOLDS):
        apart = fold == part
        if not apart.any() or apart.all():
            continue
        weight, bias = _fitted(x[~apart], y[~apart], prior, penalty)
        total += float(F.cross_entropy(F.linear(x[apart], weight, bias), y[apart], reduction="sum"))
        count += int(apart.sum())
    return total / count if count and math.isfinite(total) else math.inf
