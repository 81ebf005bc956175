"""The verb that looks for good designs: explore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import (
    INTERRUPTED,
    Data,
    Json,
    Seed,
    note,
    print_json,
    progress_shown,
    say,
    terminal,
    typed_command,
)


def explore(
    data: Data,
    space: Annotated[
        str, typer.Option(help="What varies: sr, pct_3x3, bypass (grids) or all.")
    ] = "all",
    out: Annotated[Path, typer.Option(help="Folder for the study, the files and the page.")] = Path(
        "explore"
    ),
    storage: Annotated[
        str | None,
        typer.Option(
            help="Share the study between machines: postgresql://USER:PASSWORD@HOST/DATABASE."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Trials of all workers together. Default: the whole grid, or 100."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The SqueezeNet to vary.")] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe that trials train by.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of each trial's training; its retraining takes as many."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="The study's name in the database. Default: from space and data."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Search for networks that are accurate, small and fast; run it again to join or go on."""
    from squeezekit.exploration.front import explore as explore_on
    from squeezekit.exploration.page import PAGE
    from squeezekit.exploration.run import ExploreConfig, as_json_object
    from squeezekit.report import tables

    config = ExploreConfig(
        space=space,
        trials=trials,
        model=model,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        storage=storage,
        study=study,
    )

    try:
        with progress_shown() as progress:
            exploration = explore_on(
                data, out, config, command=typed_command(), progress=progress, note=note
            )
    except KeyboardInterrupt:
        note(f"squeezekit: interrupted; the same command goes on with {out}")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({**as_json_object(exploration), "page": str(out / PAGE)})
    elif exploration.finished:
        console = terminal()
        console.print(tables.front_table(exploration.results))
        say(f"see: {out / PAGE}")
    exploration.require_all()
