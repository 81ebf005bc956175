"""How much the outputs of a network change with each layer's weights: its Fisher information."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezekit.compression.layers import Layer
from squeezekit.progress import Progress, silent
from squeezekit.trainable.network import TrainableNetwork


def weight_fisher(
    net: TrainableNetwork,
    layers: Mapping[str, Layer],
    images: Tensor,
    *,
    temperature: float = 1.0,
    batch: int = 25,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Tensor]:
    """Fisher information of each layer's filters, averaged over the layer's outputs.

    If the filters of one layer change by D (B, R, K), the outputs change by a Kullback-Leibler
    divergence of about 0.5 * sum over blocks of trace(D H D'), in nats per image, as long as the
    changes of different filters are independent. H is the covariance of the gradients of log
    p(class), with the class drawn from the network's own probabilities (Martens 2020, "New Insights
    and Perspectives on the Natural Gradient Method", section 5). So no labels are needed.

    Args:
        net: in evaluation mode; its gradients are dropped.
        layers: the layers of `net`, by output name.
        images: (N, C, H, W), prepared.
        temperature: the temperature that softens the outputs; the divergence is multiplied by its
            square, as in distillation.
        batch: images at a time.
        seed: the seed of the drawn classes.
        progress: called for each batch.

    Returns:
        H (B, K + 1, K + 1) by output name; its last row and column are the bias's.
    """
    sums: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    for done, part in enumerate(torch.split(images, batch)):
        inputs, outputs, logits = _traced(net, layers, part)
        logits = logits / temperature
        classes = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
        loss = temperature * F.cross_entropy(logits, classes, reduction="sum")
        gradients = torch.autograd.grad(loss, list(outputs.values()))
        for name, gradient in zip(outputs, gradients, strict=True):
            found = _filter_fisher(layers[name], inputs[name], gradient)
            sums[name] = sums[name] + found if name in sums else found
        progress("curvature", min((done + 1) * batch, len(images)), len(images))
    return {name: total / len(images) for name, total in sums.items()}


def _traced(
    net: TrainableNetwork, layers: Mapping[str, Layer], images: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Inputs and outputs of the layers, ready for gradients, and the logits (N, classes)."""
    values = {net.input_name: images}
    inputs, outputs = {}, {}
    for node in net.nodes:
        if node.output in layers:
            inputs[node.output] = values[node.inputs[0]].detach()
        if node.op == "Relu":  # never in place: the gradient is wanted of what comes before it
            value = torch.relu(values[node.inputs[0]])
        else:
            value = net.computed(node, values)
        if node.output in layers:
            outputs[node.output] = value = value if value.requires_grad else value.requires_grad_()
        values[node.output] = value
    return inputs, outputs, values[net.output_name].flatten(1)


def _filter_fisher(layer: Layer, x: Tensor, gradient: Tensor) -> Tensor:
    """Sum over images of g g', g the gradient of a filter and its bias: (B, K + 1, K + 1)."""
    patches = layer.patches(x)  # (N, B, K, P)
    n, blocks, _, positions = patches.shape
    rows = gradient.reshape(n, -1, layer.outputs // layer.groups, positions)
    rows = rows.expand(n, blocks, -1, positions)  # (N, B, R, P); all parts have the same outputs
    if positions == 1:  # a fully connected layer: g is a number times the patch, as R may be large
        ones = torch.ones(blocks, n, 1)
        x = torch.cat([patches[..., 0].transpose(0, 1), ones], dim=2)  # (B, N, K + 1)
        size = rows.square().mean(2).transpose(0, 1)  # (B, N, 1)
        return x.transpose(1, 2) @ (size * x)
    of_weight = rows @ patches.transpose(2, 3)  # (N, B, R, K)
    each = torch.cat([of_weight, rows.sum(3, keepdim=True)], dim=3).transpose(0, 1).flatten(1, 2)
    return each.transpose(1, 2) @ each / rows.shape[2]


def _without_bias(fisher: Tensor) -> Tensor:
    """The Fisher information that is left if the bias, the last axis, always has its best value."""
    cross = fisher[:, :-1, -1:]
    own = fisher[:, -1:, -1:].clamp_min(torch.finfo(fisher.dtype).tiny)
    return fisher[:, :-1, :-1] - cross @ cross.transpose(1, 2) / own


def nats_a_squared_error(fisher: Tensor, covariance: Tensor) -> float:
    """How many nats an error costs a layer for each unit of its outputs' squared error.

    It is the mean generalised eigenvalue of H and the covariance of the layer's inputs. Rounding
    makes small errors where inputs are large; such errors cost this much on average. Biases are
    assumed to compensate for what they can. The covariance comes from thousands of positions, the
    Fisher information only from hundreds of images, so the covariance is the better guide to each
    single weight.

    Args:
        fisher: (B, K + 1, K + 1), of `weight_fisher`.
        covariance: (B, K, K), of the inputs, positive definite.
    """
    ratio = torch.linalg.solve(covariance.double(), _without_bias(fisher.double()))
    return float(ratio.diagonal(dim1=1, dim2=2).mean().clamp_min(1e-300))
