"""SqueezeNet (Iandola et al. 2016, arXiv 1602.07360): every version from one configuration.

The paper's Table 1 is `v1_0()`: conv1, fire2 to fire9, conv10. The fire modules' sizes follow from
the metaparameters of section 5.2, and the bypass connections from section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from squeezekit.errors import InputError
from squeezekit.models.builder import GraphBuilder, Init, gaussian, he, xavier
from squeezekit.runtime.images import default_preprocessing
from squeezekit.sqz.network import Metadata, Network, Preprocessing

Bypass = Literal["none", "simple", "complex"]


@dataclass(frozen=True)
class SqueezeNetConfig:
    """What distinguishes one SqueezeNet from another; the defaults are v1.0.

    Attributes:
        name: goes into the network's metadata.
        classes: number of filters of the last convolution.
        channels: the number of channels of the input image, 1 or 3.
        input_size: height and width of the input, in pixels.
        conv1_filters, conv1_kernel, conv1_stride, conv1_pad: the first convolution.
        fires: number of fire modules; they are called fire2, fire3, ...
        pool_after: layers followed by a 3x3 max-pool with stride 2 in ceil mode.
        base_e: expand filters of the first fire module.
        incr_e: expand filters added after every `freq` fire modules.
        freq: number of fire modules of one size.
        pct_3x3: share of the expand filters that are 3x3, between 0 and 1.
        squeeze_ratio: squeeze filters per expand filter, above 0.
        bypass: "simple" adds a fire module's input to its output where both have the same number
            of channels; "complex" does so elsewhere too, through a 1x1 convolution.
        batch_norm: normalise after every convolution but the last (`models.fold` removes it).
        dropout: ratio dropped before the last convolution; 0 leaves the node out.
        conv10_pad: padding of the last convolution; Caffe's published network has 1.
        final_relu: whether a ReLU follows the last convolution, as in the paper.
        init: first weights. "he" keeps the signal's variance from layer to layer. "xavier" is
            the authors' and halves it, which suits inputs of Caffe's scale (0..255), or bypass
            connections: each of them doubles the variance.
    """

    name: str = "squeezenet-1.0"
    classes: int = 1000
    channels: int = 3
    input_size: int = 224
    conv1_filters: int = 96
    conv1_kernel: int = 7
    conv1_stride: int = 2
    conv1_pad: int = 0
    fires: int = 8
    pool_after: tuple[str, ...] = ("conv1", "fire4", "fire8")
    base_e: int = 128
    incr_e: int = 128
    freq: int = 2
    pct_3x3: float = 0.5
    squeeze_ratio: float = 0.125
    bypass: Bypass = "none"
    batch_norm: bool = False
    dropout: float = 0.5
    conv10_pad: int = 0
    final_relu: bool = True
    init: Literal["he", "xavier"] = "he"

    def __post_init__(self) -> None:
        for name in ("classes", "input_size", "conv1_filters", "fires", "base_e", "freq"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.channels not in (1, 3):
            raise InputError(f"channels must be 1 (grey) or 3 (colour), not {self.channels}")
        if self.incr_e < 0 or not 0.0 < self.pct_3x3 < 1.0 or self.squeeze_ratio <= 0.0:
            raise InputError(
                "incr_e must not be negative, pct_3x3 lies between 0 and 1, "
                "and squeeze_ratio is above 0"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        layers = ["conv1", *(f"fire{i + 2}" for i in range(self.fires))]
        for layer in self.pool_after:
            if layer not in layers:
                raise InputError(f"pool_after: there is no {layer}, only {', '.join(layers)}")

    def fire(self, i: int) -> Fire:
        """The sizes of fire module i, counted from 0 (section 5.2)."""
        expand = self.base_e + self.incr_e * (i // self.freq)
        expand3x3 = min(max(round(self.pct_3x3 * expand), 1), expand - 1)
        return Fire(max(round(self.squeeze_ratio * expand), 1), expand - expand3x3, expand3x3)


@dataclass(frozen=True)
class Fire:
    """The number of filters in the three convolutions of a fire module (section 3.2)."""

    squeeze1x1: int
    expand1x1: int
    expand3x3: int


def v1_0(classes: int = 1000, input_size: int = 224) -> SqueezeNetConfig:
    """The paper's network: 1,248,424 parameters with 1000 classes."""
    return SqueezeNetConfig(classes=classes, input_size=input_size)


def v1_1(classes: int = 1000, input_size: int = 224) -> SqueezeNetConfig:
    """The authors' later version: 2.4 times fewer MACs at the same accuracy."""
    return SqueezeNetConfig(
        name="squeezenet-1.1",
        classes=classes,
        input_size=input_size,
        conv1_filters=64,
        conv1_kernel=3,
        pool_after=("conv1", "fire3", "fire5"),
    )


def with_bypass(bypass: Bypass, classes: int = 1000, input_size: int = 224) -> SqueezeNetConfig:
    """v1.0 with bypass connections (section 6); complex has 1,589,672 parameters."""
    return SqueezeNetConfig(
        name=f"squeezenet-1.0-{bypass}",
        classes=classes,
        input_size=input_size,
        bypass=bypass,
        init="xavier",
    )


def digits(classes: int = 10, input_size: int = 8) -> SqueezeNetConfig:
    """A SqueezeNet for tiny grey images: six fire modules, and a conv1 that keeps every pixel.

    Batch norm lets it learn within seconds; without it, most seeds stay at a loss of ln(10) for a
    long time.
    """
    return SqueezeNetConfig(
        name="squeezenet-digits",
        classes=classes,
        channels=1,
        input_size=input_size,
        conv1_filters=64,
        conv1_kernel=3,
        conv1_stride=1,
        conv1_pad=1,
        fires=6,
        pool_after=("fire2", "fire4"),
        batch_norm=True,
        dropout=0.2,
        final_relu=False,
    )


def squeezenet(
    config: SqueezeNetConfig,
    *,
    labels: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
) -> Network:
    """Build a SqueezeNet with fresh weights.

    Args:
        config: which one.
        labels: one name a class, or none.
        preprocessing: how images become inputs; `default_preprocessing` where None.
        seed: the seed of the first weights.

    Raises:
        InputError: if the image is too small for the layers, or labels or preprocessing do not
            fit the configuration.
    """
    c = config
    preprocessing = preprocessing or default_preprocessing(c.input_size, c.channels)
    check_fit(c.classes, c.input_size, c.channels, labels, preprocessing)
    net = GraphBuilder(c.channels, c.input_size, c.input_size)

    x = _conv(
        net, c, "conv1", net.image, c.conv1_filters, c.conv1_kernel, c.conv1_stride, c.conv1_pad
    )
    x = _pool(net, c, "conv1", x)
    for i in range(c.fires):
        x = _fire(net, c, f"fire{i + 2}", x, c.fire(i))
        x = _pool(net, c, f"fire{i + 2}", x)
    last = c.fires + 2
    if c.dropout > 0.0:
        x = net.dropout(f"drop{last - 1}", x, c.dropout)
    x = net.conv(f"conv{last}", x, c.classes, 1, pad=c.conv10_pad, init=gaussian(0.01))
    if c.final_relu:
        x = net.relu(f"conv{last}.relu", x)
    x = net.global_average_pool(f"pool{last}", x)  # (N, classes, 1, 1)
    x = net.flatten("flatten", x)  # (N, classes)
    return net.build(x, Metadata(c.name, preprocessing, labels), seed)


def _fire(net: GraphBuilder, c: SqueezeNetConfig, name: str, x: str, fire: Fire) -> str:
    squeezed = _conv(net, c, f"{name}.squeeze1x1", x, fire.squeeze1x1, 1)
    expanded = net.concat(
        f"{name}.concat",
        _conv(net, c, f"{name}.expand1x1", squeezed, fire.expand1x1, 1),
        _conv(net, c, f"{name}.expand3x3", squeezed, fire.expand3x3, 3, pad=1),
    )
    same_channels = net.channels(x) == net.channels(expanded)
    if c.bypass == "none" or (c.bypass == "simple" and not same_channels):
        return expanded
    if not same_channels:
        x = net.conv(f"{name}.bypass1x1", x, net.channels(expanded), 1)  # no ReLU
    return net.add(f"{name}.bypass", x, expanded)


def _conv(
    net: GraphBuilder,
    c: SqueezeNetConfig,
    name: str,
    x: str,
    filters: int,
    kernel: int,
    stride: int = 1,
    pad: int = 0,
) -> str:
    """A convolution and what follows each: batch norm where asked for, and a ReLU."""
    bias = None if c.batch_norm else 0.0  # the batch norm brings its own
    x = net.conv(name, x, filters, kernel, stride=stride, pad=pad, bias=bias, init=_init(c))
    if c.batch_norm:
        x = net.batch_norm(f"{name}.bn", x)
    return net.relu(f"{name}.relu", x)


def _pool(net: GraphBuilder, c: SqueezeNetConfig, layer: str, x: str) -> str:
    if layer not in c.pool_after:
        return x
    number = layer.removeprefix("conv").removeprefix("fire")
    return net.max_pool(f"pool{number}", x, kernel=3, stride=2)


def _init(c: SqueezeNetConfig) -> Init:
    return {"xavier": xavier, "he": he}[c.init]


def check_fit(
    classes: int,
    input_size: int,
    channels: int,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
) -> None:
    """Check that labels and preprocessing are those of such a network.

    Raises:
        InputError: if they are not.
    """
    if labels and len(labels) != classes:
        raise InputError(f"{len(labels)} labels do not fit {classes} classes")
    if preprocessing.crop != input_size or preprocessing.channels != channels:
        raise InputError(
            f"the preprocessing gives {preprocessing.channels} channels of {preprocessing.crop} "
            f"pixels, but the network takes {channels} of {input_size}"
        )
