"""AlexNet (Krizhevsky et al. 2012) as Caffe's reference network, the paper's point of comparison.

CaffeNet: grouped convolutions, pooling before local response normalisation, 60,965,224 parameters
with 1000 classes. torchvision's network of the same name is another one (see interop.torchvision).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from squeezekit.models.builder import GraphBuilder, gaussian, he
from squeezekit.models.squeezenet import check_fit
from squeezekit.runtime.images import default_preprocessing
from squeezekit.sqz.network import CAFFE, Metadata, Network, Preprocessing


@dataclass(frozen=True)
class AlexNetConfig:
    """What may differ between AlexNets.

    Attributes:
        name: goes into the network's metadata.
        classes: outputs of fc8.
        input_size: height and width of the input, in pixels; fc6 grows with it.
        groups: of conv2, conv4 and conv5 (two: the authors' pair of graphics cards).
        hidden: outputs of fc6 and fc7.
        dropout: ratio dropped after fc6 and fc7.
        batch_norm: normalise after every convolution and hidden layer, in place of the local
            response normalisation, with first weights and preprocessing to suit (`models.fold`
            removes it).
    """

    name: str = "alexnet"
    classes: int = 1000
    input_size: int = 227
    groups: int = 2
    hidden: int = 4096
    dropout: float = 0.5
    batch_norm: bool = False


def alexnet(
    config: AlexNetConfig,
    *,
    labels: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
) -> Network:
    """Build an AlexNet with fresh weights.

    Args:
        config: which one.
        labels: one name a class, or none.
        preprocessing: how images become inputs; where None Caffe's, whose scale of 0..255 the
            first weights are made for (torchvision's with batch norms).
        seed: the seed of the first weights.

    Raises:
        InputError: if the image is too small for the layers, or labels or preprocessing do not
            fit the configuration.
    """
    c = config
    preprocessing = preprocessing or (
        default_preprocessing(c.input_size, 3)
        if c.batch_norm
        else caffe_preprocessing(c.input_size)
    )
    check_fit(c.classes, c.input_size, 3, labels, preprocessing)
    net = GraphBuilder(3, c.input_size, c.input_size)

    x = _conv(net, c, "conv1", net.image, 96, 11, stride=4)  # (N, 96, 55, 55)
    x = _norm(net, c, "norm1", net.max_pool("pool1", x, 3, 2))  # (N, 96, 27, 27)
    x = _conv(net, c, "conv2", x, 256, 5, pad=2, groups=c.groups, bias=1.0)
    x = _norm(net, c, "norm2", net.max_pool("pool2", x, 3, 2))  # (N, 256, 13, 13)
    x = _conv(net, c, "conv3", x, 384, 3, pad=1)
    x = _conv(net, c, "conv4", x, 384, 3, pad=1, groups=c.groups, bias=1.0)
    x = _conv(net, c, "conv5", x, 256, 3, pad=1, groups=c.groups, bias=1.0)
    x = net.max_pool("pool5", x, 3, 2)  # (N, 256, 6, 6)
    x = net.flatten("flatten", x)  # (N, 9216)
    x = _hidden(net, c, "fc6", x)  # (N, 4096)
    x = _hidden(net, c, "fc7", net.dropout("drop6", x, c.dropout))
    x = net.dropout("drop7", x, c.dropout)
    x = net.linear("fc8", x, c.classes, init=gaussian(0.01))  # (N, classes)
    return net.build(x, Metadata(c.name, preprocessing, labels), seed)


def _conv(
    net: GraphBuilder,
    c: AlexNetConfig,
    name: str,
    x: str,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    pad: int = 0,
    groups: int = 1,
    bias: float = 0.0,
) -> str:
    """A convolution and its ReLU, with a batch norm between them where asked for."""
    x = net.conv(
        name, x, filters, kernel, stride=stride, pad=pad, groups=groups,
        bias=None if c.batch_norm else bias, init=he if c.batch_norm else gaussian(0.01),
    )  # fmt: skip
    if c.batch_norm:
        x = net.batch_norm(f"{name}.bn", x)
    return net.relu(f"{name}.relu", x)


def _hidden(net: GraphBuilder, c: AlexNetConfig, name: str, x: str) -> str:
    """A fully connected layer and its ReLU, with a batch norm between them where asked for."""
    if c.batch_norm:
        x = net.batch_norm(f"{name}.bn", net.linear(name, x, c.hidden, bias=None, init=he))
    else:
        x = net.linear(name, x, c.hidden, bias=1.0, init=gaussian(0.005))
    return net.relu(f"{name}.relu", x)


def _norm(net: GraphBuilder, c: AlexNetConfig, name: str, x: str) -> str:
    return x if c.batch_norm else net.lrn(name, x)


def caffe_preprocessing(input_size: int) -> Preprocessing:
    """Caffe's preprocessing at any input size."""
    return dataclasses.replace(CAFFE, crop=input_size, resize=round(input_size * 256 / 227))
