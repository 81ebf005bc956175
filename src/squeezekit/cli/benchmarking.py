"""The verb that measures speed: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import (
    Json,
    Weights,
    answer,
    note,
    progress_shown,
    states_preprocessing,
    typed_command,
)
from squeezekit.cli.config_options import takes
from squeezekit.runtime.stated import Stated


@takes("config", "speed.race:RaceConfig")
@states_preprocessing
def bench(
    weights: Weights,
    config: object,
    image: Annotated[
        Path | None, typer.Option(help="The image to classify. Default: a generated one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write everything measured as JSON.")
    ] = None,
    as_json: Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Compare squeezekit with every other runtime that is installed on this machine.

    ONNX Runtime, OpenVINO and PyTorch run the same weights as their users would run them. They take
    turns, each turn in new processes: bytes, cold start, load, latency, throughput, memory.
    """
    from squeezekit.artifacts import bench as race
    from squeezekit.report import tables
    from squeezekit.speed.race import RaceConfig, remarks

    assert config is None or isinstance(config, RaceConfig)
    with progress_shown("nothing was left behind") as progress:
        figures, report = race(
            weights, config, out, image=image, preprocessing=preprocessing,
            command=typed_command(), progress=progress, note=note,
        )  # fmt: skip
    summaries = {each.contestant.about: each.summary() for each in figures if not each.failed}
    answer(
        as_json, report, lambda: tables.speed_table(summaries, figures[0].contestant.about)
    )  # fmt: skip
    for sentence in remarks(figures):
        note(sentence)
