"""`Stated`: what a caller or a config file knows about a network's images and its output."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from squeezekit.errors import InputError

if TYPE_CHECKING:  # the command line makes options of `Stated`, and has no time for numpy
    from squeezekit.sqz.network import Preprocessing

_CHOICES = {
    "color": ("RGB", "BGR", "L"),
    "resize_mode": ("short_side", "warp"),
    "interpolation": ("nearest", "bilinear", "bicubic"),
}
_LARGEST = 65_536
_PIXEL = 1 / 255


@dataclass(frozen=True)
class Stated:
    """What you know about a network's preprocessing and output; None is what you do not know.

        net = squeezekit.read("mnist.onnx", preprocessing=Stated(color="L", scale=1, mean=(0,)))

    `scale`, `mean` and `std` belong together: if you state one of them, and the others would be
    only assumed, the others are 1/255, 0 and 1.

    Attributes:
        color: order of the channels, RGB or BGR; L is grey.
        resize: pixels to resize images to, before the crop.
        resize_mode: what becomes `resize` pixels long: short_side, or both sides (warp).
        crop: pixels per side to cut out of the middle: the network's input.
        scale: x = (pixel * scale - mean) / std, with pixels from 0 to 255.
        mean: one value, or one per channel: 0.485,0.456,0.406.
        std: one value, or one per channel: 0.229,0.224,0.225.
        interpolation: how images are resized: nearest, bilinear or bicubic.
        input_size: pixels per side, if the network leaves them open; in train, to train at.
        output: name of the output that scores classes, for an .onnx with several.

    Raises:
        InputError: if a value is impossible; the error names the field.
    """

    color: Literal["RGB", "BGR", "L"] | None = None
    resize: int | None = None
    resize_mode: Literal["short_side", "warp"] | None = None
    crop: int | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    input_size: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        for name in ("resize", "crop", "input_size"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and 1 <= value <= _LARGEST):
                raise InputError(f"{name} must be a number of pixels, not {value!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                object.__setattr__(self, name, tuple(values))
                if len(values) not in (1, 3) or not all(map(_is_finite, values)):
                    raise InputError(f"{name} must be one number or three, not {values!r}")
        if self.std is not None and 0 in self.std:
            raise InputError("std must not be 0: it is divided by")
        if self.scale is not None and (not _is_finite(self.scale) or self.scale == 0):
            raise InputError(f"scale must be a number other than 0, not {self.scale!r}")
        if None not in (self.crop, self.input_size) and self.crop != self.input_size:
            raise InputError(
                f"crop {self.crop} and input_size {self.input_size} differ: the crop is the input"
            )

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Stated:
        """All of a preprocessing."""
        return cls(
            **{f.name: getattr(preprocessing, f.name) for f in dataclasses.fields(preprocessing)}
        )

    @property
    def size(self) -> int | None:
        """Height and width of the network's input in pixels, where they are stated."""
        return self.input_size or self.crop

    @property
    def says(self) -> str:
        """What is stated about the images, for people; empty if nothing is."""
        return ", ".join(f"{name} {_number(value)}" for name, value in self._stated().items())

    def _stated(self) -> dict[str, Any]:
        names = [f.name for f in dataclasses.fields(self) if f.name != "output"]
        return {name: v for name in names if (v := getattr(self, name)) is not None}

    def over(self, base: Preprocessing, *, assumed: bool = False) -> Preprocessing:
        """A preprocessing with the stated fields replaced.

        Args:
            base: the network's preprocessing. Its `crop` and channels are the graph's and stay.
            assumed: True if `base` is only assumed.

        Raises:
            InputError: if the graph takes another size or number of channels, or the numbers do
                not fit one another.
        """
        color = self.color or base.color
        channels = 1 if color == "L" else 3
        if channels != base.channels:
            raise InputError(
                f"the network takes {base.channels} channel{'s' * (base.channels > 1)}: "
                f"color cannot be {color}"
            )
        if self.size not in (None, base.crop):
            raise InputError(f"the network takes {base.crop} pixels a side, not {self.size}")
        if self.resize is not None and self.resize < base.crop:
            raise InputError(
                f"resize {self.resize} is smaller than the network's input of {base.crop} pixels"
            )
        scale, mean, std = self._numbers(base, color, assumed)
        try:
            return dataclasses.replace(
                base,
                color=color,
                resize=self.resize or base.resize,
                resize_mode=self.resize_mode or base.resize_mode,
                interpolation=self.interpolation or base.interpolation,
                scale=scale,
                mean=mean,
                std=std,
            )
        except ValueError as error:
            raise InputError(f"this preprocessing is impossible: {error}") from None

    def _numbers(
        self, base: Preprocessing, color: str, assumed: bool
    ) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        """Scale, mean and std; the last two have a value per channel in the order of `color`."""
        mean, std, scale = base.mean, base.std, base.scale
        if color != base.color:  # RGB and BGR: each channel keeps its own
            mean, std = mean[::-1], std[::-1]
        if (self.scale, self.mean, self.std) == (None, None, None):
            return scale, mean, std
        if assumed:
            scale, mean, std = _PIXEL, (0.0,), (1.0,)
        elif self.scale not in (None, base.scale) and None in (self.mean, self.std):
            raise InputError(
                f"mean and std are in units of pixel * scale: with scale {self.scale:g} "
                "state them too"
            )
        scale = scale if self.scale is None else self.scale
        mean, std = self.mean or mean, self.std or std
        reach = 255 * abs(scale)
        if self.mean is not None and any(abs(value) > 2.001 * reach for value in mean):
            raise InputError(
                f"mean {_number(mean)} is far from all pixels, which reach {reach:g} at scale "
                f"{scale:g}: with means in 0 to 255 state scale 1 as well"
            )
        return scale, *(_one_a_channel(values, base.channels) for values in (mean, std))  # type: ignore[return-value]


def described(preprocessing: Preprocessing) -> str:
    """All of a preprocessing on one line, for people."""
    p = preprocessing
    how = "both sides" if p.resize_mode == "warp" else "the short side"
    crop = "" if p.crop == p.resize and p.resize_mode == "warp" else f", middle {p.crop}"
    return (
        f"{p.color}, {how} resized to {p.resize} ({p.interpolation}){crop}, "
        f"(pixel * {_number(p.scale)} - {_number(p.mean)}) / {_number(p.std)}"
    )


def _is_finite(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


def _one_a_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise InputError(f"{_number(values)} has {len(values)} values, but there is one channel")
    return tuple(map(float, values)) * (channels // len(values))


def _number(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(f'{one:g}' for one in value)})" if len(value) > 1 else f"{value[0]:g}"
    if isinstance(value, float):
        return "1/255" if value == _PIXEL else f"{value:g}"
    return str(value)
