"""Well-known architectures written out small in torch, for `bench/conformance.py` to export."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 7
SIZE = 32


def conv(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: type[nn.Module] | None = nn.ReLU):
    layers = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Sum(nn.Module):
    """Adds up what its parts make of one input; `after` is done to the sum."""

    def __init__(self, *parts: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.parts, self.after = nn.ModuleList(parts), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = [part(x) for part in self.parts]
        for other in rest:
            first = first + other
        return self.after(first)


class Cat(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], 1)


class Do(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 4, 1), nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1), gate(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x)


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 40), nn.Tanh(), nn.Linear(40, CLASSES),
    )  # fmt: skip


class View(nn.Module):
    """The x.view(x.size(0), -1) of tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Linear(8 * 7 * 7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(x.view(x.size(0), -1))


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 24, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Dropout(), nn.Linear(24 * 9, 32), nn.ReLU(), nn.Linear(32, CLASSES),
    )  # fmt: skip


def vgg() -> nn.Module:
    def block(i: int, o: int) -> list[nn.Module]:
        return [conv(i, o), conv(o, o), nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(3, 8), *block(8, 12), *block(12, 16), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, CLASSES),
    )  # fmt: skip


def nin() -> nn.Module:
    return nn.Sequential(
        conv(3, 12, 5), conv(12, 8, 1), nn.MaxPool2d(3, 2, 1), nn.Dropout2d(), conv(8, 12),
        conv(12, CLASSES, 1), nn.AvgPool2d(16), nn.Flatten(),
    )  # fmt: skip


def basic(i: int, o: int, s: int = 1) -> nn.Module:
    shortcut = nn.Identity() if (i, s) == (o, 1) else conv(i, o, 1, s, act=None)
    return Sum(nn.Sequential(conv(i, o, 3, s), conv(o, o, act=None)), shortcut, after=nn.ReLU())


def bottleneck(i: int, o: int, s: int = 1, g: int = 1, se: bool = False) -> nn.Module:
    mid = o // 2
    layers = [conv(i, mid, 1), conv(mid, mid, 3, s, g), conv(mid, o, 1, act=None)]
    layers += [SqueezeExcite(o)] if se else []
    shortcut = nn.Identity() if (i, s) == (o, 1) else conv(i, o, 1, s, act=None)
    return Sum(nn.Sequential(*layers), shortcut, after=nn.ReLU())


def resnet() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), basic(8, 8), basic(8, 16, 2), head(16)
    )


def resnet_bottleneck() -> nn.Module:
    return nn.Sequential(conv(3, 8), bottleneck(8, 16), bottleneck(16, 32, 2), head(32))


def resnet_d() -> nn.Module:
    """Average-pooled shortcuts (He et al. 2019)."""
    pooled = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
                           conv(8, 16, 1, act=None))  # fmt: skip
    body = nn.Sequential(conv(8, 16, 3, 2), conv(16, 16, act=None))
    return nn.Sequential(conv(3, 8), Sum(body, pooled, after=nn.ReLU()), head(16))


def resnext() -> nn.Module:
    return nn.Sequential(conv(3, 8), bottleneck(8, 16, g=4), bottleneck(16, 32, 2, 4), head(32))


def senet() -> nn.Module:
    return nn.Sequential(conv(3, 8), bottleneck(8, 16, se=True), bottleneck(16, 16, se=True),
                         head(16))  # fmt: skip


def preact_resnet() -> nn.Module:
    def block(c: int) -> nn.Module:
        def half() -> list[nn.Module]:
            return [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1, bias=False)]

        return Sum(nn.Sequential(*half(), *half()), nn.Identity())

    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), block(8), block(8), nn.BatchNorm2d(8), nn.ReLU(),
                         head(8))  # fmt: skip


def densenet() -> nn.Module:
    def layer(c: int) -> nn.Module:
        new = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 6, 3, padding=1, bias=False))
        return Cat(nn.Identity(), new)

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), layer(8), layer(14), nn.BatchNorm2d(20), nn.ReLU(),
        nn.Conv2d(20, 10, 1), nn.AvgPool2d(2), layer(10), layer(16), nn.BatchNorm2d(22), nn.ReLU(),
        head(22),
    )  # fmt: skip


def inception(i: int) -> nn.Module:
    return Cat(
        conv(i, 4, 1), nn.Sequential(conv(i, 3, 1), conv(3, 6)),
        nn.Sequential(conv(i, 2, 1), conv(2, 4, 5)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(i, 2, 1)),
    )  # fmt: skip


def googlenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(3), inception(8),
        nn.MaxPool2d(3, 2, ceil_mode=True), inception(16), head(16),
    )  # fmt: skip


def inception_v3() -> nn.Module:
    """Asymmetric convolutions, and averages that count the padding."""

    def flat(i: int, o: int, k: tuple[int, int]) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, o, k, padding=(k[0] // 2, k[1] // 2), bias=False),
                             nn.BatchNorm2d(o, eps=0.001), nn.ReLU())  # fmt: skip

    block = Cat(
        conv(8, 4, 1), nn.Sequential(flat(8, 4, (1, 7)), flat(4, 4, (7, 1))),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(8, 4, 1)),
    )  # fmt: skip
    return nn.Sequential(conv(3, 8, 3, 2), block, head(12))


def xception() -> nn.Module:
    def separable(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, i, 3, padding=1, groups=i, bias=False),
                             nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o))  # fmt: skip

    body = nn.Sequential(separable(8, 12), nn.ReLU(), separable(12, 12), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(conv(3, 8), Sum(body, conv(8, 12, 1, 2, act=None)), nn.ReLU(), head(12))


def mobilenet_v1() -> nn.Module:
    def block(i: int, o: int, s: int) -> nn.Module:
        return nn.Sequential(conv(i, i, 3, s, i, nn.ReLU6), conv(i, o, 1, act=nn.ReLU6))

    return nn.Sequential(
        conv(3, 8, 3, 2, act=nn.ReLU6), block(8, 12, 1), block(12, 16, 2), head(16)
    )


def inverted(
    i: int, o: int, s: int, act: type[nn.Module] = nn.ReLU6, gate: nn.Module | None = None
) -> nn.Module:
    layers = [conv(i, 3 * i, 1, act=act), conv(3 * i, 3 * i, 3, s, 3 * i, act)]
    layers += [gate] if gate else []
    layers += [conv(3 * i, o, 1, act=None)]
    body = nn.Sequential(*layers)
    return Sum(body, nn.Identity()) if (i, s) == (o, 1) else body


def mobilenet_v2() -> nn.Module:
    return nn.Sequential(conv(3, 8, 3, 2, act=nn.ReLU6), inverted(8, 8, 1), inverted(8, 12, 2),
                         conv(12, 24, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Dropout(0.2), nn.Linear(24, CLASSES))  # fmt: skip


def mobilenet_v3() -> nn.Module:
    gate = SqueezeExcite(24, nn.Hardsigmoid)
    return nn.Sequential(conv(3, 8, 3, 2, act=nn.Hardswish), inverted(8, 8, 1, nn.Hardswish, gate),
                         inverted(8, 12, 2, nn.ReLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(12, 20), nn.Hardswish(), nn.Linear(20, CLASSES))  # fmt: skip


def mnasnet() -> nn.Module:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(3, 8, 3, 2), inverted(8, 8, 1, nn.ReLU, None))
            self.fc = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.body(x).mean([2, 3]))

    return Mean()


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v1() -> nn.Module:
    body = nn.Sequential(
        conv(12, 12, 1, g=3), Do(lambda x: shuffle(x, 3)), conv(12, 12, 3, g=12, act=None),
        conv(12, 12, 1, g=3, act=None),
    )  # fmt: skip
    return nn.Sequential(conv(3, 12, 3, 2), Sum(body, nn.Identity(), after=nn.ReLU()), head(12))


class ShuffleV2(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1), conv(half, half, 3, g=half, act=None), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return shuffle(torch.cat([left, self.branch(right)], 1), 2)


def shufflenet_v2() -> nn.Module:
    return nn.Sequential(conv(3, 12, 3, 2), nn.MaxPool2d(3, 2, 1), ShuffleV2(12), ShuffleV2(12),
                         Do(lambda x: x.mean([2, 3])), nn.Linear(12, CLASSES))  # fmt: skip


def efficientnet() -> nn.Module:
    return nn.Sequential(conv(3, 8, 3, 2, act=nn.SiLU),
                         inverted(8, 8, 1, nn.SiLU, SqueezeExcite(24)),
                         inverted(8, 12, 2, nn.SiLU), head(12))  # fmt: skip


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim: int, approximate: str = "none") -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(approximate), nn.Linear(4 * dim, dim)
        )
        self.gamma = nn.Parameter(torch.rand(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        return x + (self.gamma * self.mlp(self.norm(y))).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """A layer norm over channels first, as ConvNeXt's stem has it."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), ChannelNorm(8), ConvNeXtBlock(8), ConvNeXtBlock(8),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8),
                         nn.Linear(8, CLASSES))  # fmt: skip


def convnext_tanh() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8, "tanh"), head(8))


def regnet() -> nn.Module:
    return nn.Sequential(conv(3, 8, 3, 2), bottleneck(8, 16, 2, 2, True), bottleneck(16, 16, 1, 2),
                         head(16))  # fmt: skip


class Ghost(nn.Module):
    """Half of the channels made cheaply from the other half, and cut to size (Han et al. 2020)."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.o = o
        self.primary = conv(i, (o + 1) // 2, 1)
        self.cheap = conv((o + 1) // 2, (o + 1) // 2, 3, g=(o + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, : self.o, :, :]


def ghostnet() -> nn.Module:
    return nn.Sequential(conv(3, 8, 3, 2), Ghost(8, 11), Ghost(11, 12), SqueezeExcite(12), head(12))


def squeezenet() -> nn.Module:
    def fire(i: int, s: int, e: int) -> nn.Module:
        squeeze = nn.Sequential(nn.Conv2d(i, s, 1), nn.ReLU())
        both = Cat(nn.Sequential(nn.Conv2d(s, e, 1), nn.ReLU()),
                   nn.Sequential(nn.Conv2d(s, e, 3, padding=1), nn.ReLU()))  # fmt: skip
        return nn.Sequential(squeeze, both)

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), fire(8, 4, 8),
        nn.MaxPool2d(3, 2, ceil_mode=True), fire(16, 4, 8), nn.Dropout(),
        nn.Conv2d(16, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def darknet() -> nn.Module:
    class Leaky(nn.LeakyReLU):
        def __init__(self) -> None:
            super().__init__(0.1)

    body = nn.Sequential(conv(12, 6, 1, act=Leaky), conv(6, 12, act=Leaky))
    return nn.Sequential(conv(3, 12, act=Leaky), nn.MaxPool2d(2), Sum(body, nn.Identity()),
                         conv(12, CLASSES, 1, act=None), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Softmax(1))  # fmt: skip


class Csp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 16, 3, 2), conv(8, 8), conv(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        keep, work = self.stem(x).split(8, 1)
        return self.b(torch.cat([keep, F.mish(self.a(work))], 1))


def cspnet() -> nn.Module:
    return nn.Sequential(Csp(), head(16))


def repvgg() -> nn.Module:
    def block(c: int) -> nn.Module:
        return Sum(
            conv(c, c, act=None), conv(c, c, 1, act=None), nn.BatchNorm2d(c), after=nn.ReLU()
        )

    return nn.Sequential(conv(3, 8, 3, 2), block(8), block(8), head(8))


def group_normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(4, 8), nn.ReLU(),
                         nn.Conv2d(8, 12, 3), nn.GroupNorm(1, 12), nn.ELU(), head(12))  # fmt: skip


class Mixer(nn.Module):
    """Patches as rows, mixed along both axes (Tolstikhin et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 10, 8, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(10) for _ in range(3)])
        self.tokens = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))
        self.channels = nn.Sequential(nn.Linear(10, 20), nn.GELU(), nn.Linear(20, 10))
        self.fc = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)  # (N, 16, 10)
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norms[1](x))
        return self.fc(self.norms[2](x).mean(1))


class VisionTransformer(nn.Module):
    """One block of attention over patches and a class token (Dosovitskiy et al. 2021)."""

    def __init__(self, token: bool) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 12, 8, 8), token
        self.cls, self.place = (
            nn.Parameter(torch.rand(1, 1, 12)),
            nn.Parameter(torch.rand(1, 16 + token, 12)),
        )
        self.norm, self.qkv = nn.LayerNorm(12), nn.Linear(12, 36)
        self.out, self.fc = nn.Linear(12, 12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.place
        n, length, _ = x.shape
        q, k, v = (
            self.qkv(self.norm(x)).reshape(n, length, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        )
        weights = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, length, 12))
        return self.fc(x[:, 0] if self.token else x.mean(1))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "LeNet": lenet, "tutorial view": View, "AlexNet": alexnet, "VGG": vgg, "NiN": nin,
    "ResNet": resnet, "ResNet bottleneck": resnet_bottleneck, "ResNet-D": resnet_d,
    "ResNeXt": resnext, "SENet": senet, "pre-activation ResNet": preact_resnet,
    "DenseNet": densenet, "GoogLeNet": googlenet, "Inception v3": inception_v3,
    "Xception": xception, "MobileNet v1": mobilenet_v1, "MobileNet v2": mobilenet_v2,
    "MobileNet v3": mobilenet_v3, "MNASNet": mnasnet, "ShuffleNet v1": shufflenet_v1,
    "ShuffleNet v2": shufflenet_v2, "EfficientNet": efficientnet, "ConvNeXt": convnext,
    "ConvNeXt, tanh": convnext_tanh, "RegNet": regnet, "GhostNet": ghostnet,
    "SqueezeNet": squeezenet, "DarkNet": darknet, "CSPNet": cspnet, "RepVGG": repvgg,
    "group norm": group_normed, "MLP-Mixer": Mixer,
    "vision transformer": lambda: VisionTransformer(False),
    "vision transformer, class token": lambda: VisionTransformer(True),
}  # fmt: skip
"""By name, a function that makes the network with random weights."""
