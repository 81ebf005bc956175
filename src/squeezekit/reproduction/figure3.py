"""Figure 3: accuracy against size over the squeeze ratio, and over the share of 3x3 filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from squeezekit.models.squeezenet import SqueezeNetConfig, v1_0
from squeezekit.reproduction.from_scratch import (
    as_listed,
    imagenet_mebibytes,
    trained_from_scratch,
)
from squeezekit.reproduction.result import Column, Reproduction, Row, Value
from squeezekit.reproduction.workshop import Workshop
from squeezekit.training.recipe import Recipe

# (squeeze ratio, share of 3x3 filters): MB and top-5, as printed.
SQUEEZE_RATIO: Mapping[tuple[float, float], tuple[float, float]] = {
    (0.125, 0.5): (4.8, 80.3),
    (0.5, 0.5): (13, 85.3),
    (0.75, 0.5): (19, 86.0),
    (1.0, 0.5): (24, 86.0),
}
SHARE_3X3: Mapping[tuple[float, float], tuple[float, float]] = {
    (0.5, 0.01): (5.7, 76.3),
    (0.5, 0.5): (13, 85.3),
    (0.5, 0.99): (21, 85.3),
}
SWEEPS = {"squeeze ratio": SQUEEZE_RATIO, "share of 3x3": SHARE_3X3}

COLUMNS = (
    Column("size", "MiB at 1000 classes", "MiB"),
    Column("parameters_bytes", "bytes at 1000 classes", "bytes"),
    Column("file_bytes", "bytes of our file", "bytes"),
    Column("top1", "top-1 %", "percent"),
    Column("top5", "top-5 %", "percent"),
)


def point(squeeze_ratio: float, share_3x3: float) -> SqueezeNetConfig:
    """The network of a point of the figure."""
    return dataclasses.replace(
        v1_0(),
        name=f"squeezenet-sr{squeeze_ratio:g}-3x3-{share_3x3:g}",
        squeeze_ratio=squeeze_ratio,
        pct_3x3=share_3x3,
    )


def reproduce_figure3(
    shop: Workshop, recipe: Recipe, *, input_size: int | None = None, seed: int = 0
) -> Reproduction:
    """Train every point of both sweeps by the same recipe; the sweeps share one.

    Raises:
        InputError: if the data cannot be used.
    """
    rows = []
    for sweep, points in SWEEPS.items():
        for (ratio, share), (megabytes, top5) in points.items():
            config = point(ratio, share)
            name = f"sr{ratio:g}-3x3-{share:g}"
            measured = trained_from_scratch(
                shop, name, config, recipe, input_size=input_size, seed=seed
            )
            varied = ratio if points is SQUEEZE_RATIO else 100 * share
            size = imagenet_mebibytes(config)
            rows.append(
                Row(
                    f"{sweep} {varied:g}{'' if points is SQUEEZE_RATIO else '%'}",
                    {
                        "size": Value(as_listed(size), megabytes),
                        "parameters_bytes": Value(round(size * (1 << 20))),
                        "file_bytes": Value(measured.file_bytes),
                        "top1": Value(measured.top1),
                        "top5": Value(measured.top5, top5),
                    },
                )
            )
    return Reproduction(
        name="figure3",
        title="Figure 3: the design space",
        columns=COLUMNS,
        rows=rows,
        notes=(
            "The paper's sizes are MiB rounded up to two digits, as ls -lh prints them; so "
            "written, ours are the same.",
            f"Accuracy is on {measured.images} held-out images of {shop.data.resolve().name}, the "
            "paper's on ImageNet.",
        ),
        settings=shop.settings,
        seconds=shop.seconds,
    )
