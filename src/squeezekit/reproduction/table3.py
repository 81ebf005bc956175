"""Table 3: SqueezeNet without bypass connections, with simple and with complex ones."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from squeezekit.errors import InputError
from squeezekit.models.squeezenet import SqueezeNetConfig, v1_0, with_bypass
from squeezekit.reproduction.from_scratch import (
    as_listed,
    imagenet_mebibytes,
    trained_from_scratch,
)
from squeezekit.reproduction.from_scratch import recipe as from_scratch
from squeezekit.reproduction.result import Column, Reproduction, Row, Value
from squeezekit.reproduction.workshop import Workshop
from squeezekit.training.recipe import Recipe

# Row, configuration, top-1, top-5, MB.
PAPER: tuple[tuple[str, SqueezeNetConfig, float, float, float], ...] = (
    ("vanilla", v1_0(), 57.5, 80.3, 4.8),
    ("simple bypass", with_bypass("simple"), 60.4, 82.5, 4.8),
    ("complex bypass", with_bypass("complex"), 58.8, 82.0, 7.7),
)

COLUMNS = (
    Column("top1", "top-1 %", "percent"),
    Column("gain", "gained by bypass", "points"),
    Column("top5", "top-5 %", "percent"),
    Column("size", "MiB at 1000 classes", "MiB"),
    Column("file_bytes", "bytes of our file", "bytes"),
)


def recipe() -> Recipe:
    """From scratch, at a rate that suits bypass connections: at 0.05, unclipped, they diverge."""
    return dataclasses.replace(from_scratch(), learning_rate=0.01, clip_norm=2.0)


def reproduce_table3(
    shop: Workshop, recipe: Recipe, *, seeds: Sequence[int], input_size: int | None = None
) -> Reproduction:
    """Train the three networks by the same recipe with each seed: mean and standard deviation.

    Raises:
        InputError: if there are no seeds, or the data cannot be used.
    """
    if not seeds:
        raise InputError("Table 3 needs at least one seed")
    rows, runs = [], {}
    vanilla = 0.0
    for name, config, top1, top5, megabytes in PAPER:
        slug = name.partition(" ")[0]
        measured = [
            trained_from_scratch(
                shop, f"{slug}-seed{seed}", config, recipe, input_size=input_size, seed=seed
            )
            for seed in seeds
        ]
        runs[name] = [m.top1 for m in measured]
        mean = statistics.mean(m.top1 for m in measured)
        vanilla = mean if slug == "vanilla" else vanilla
        rows.append(
            Row(
                name,
                {
                    "top1": Value(mean, top1, _spread([m.top1 for m in measured])),
                    "gain": Value(mean - vanilla, top1 - PAPER[0][2]),
                    "top5": Value(
                        statistics.mean(m.top5 for m in measured),
                        top5,
                        _spread([m.top5 for m in measured]),
                    ),
                    "size": Value(as_listed(imagenet_mebibytes(config)), megabytes),
                    "file_bytes": Value(measured[0].file_bytes),
                },
            )
        )
    return Reproduction(
        name="table3",
        title="Table 3: bypass connections",
        columns=COLUMNS,
        rows=rows,
        notes=(
            f"Mean over {len(seeds)} seeds, with the standard deviation; accuracy is on "
            f"{measured[0].images} held-out images of {shop.data.resolve().name}, the paper's on "
            "ImageNet.",
            "The paper's 7.7 MB for complex bypass do not fit its 1,589,672 parameters, which are "
            "6.1 MiB.",
        ),
        details={"seeds": list(seeds), "top1_by_seed": runs},
        settings=shop.settings,
        seconds=shop.seconds,
    )


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
