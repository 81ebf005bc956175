"""The verb that looks for good designs: explore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from squeezekit.explore.run import Exploration


def explore(
    data: Data,
    space: Annotated[str, typer.Option(help="sr, pct_3x3, bypass (grids), or all.")] = "all",
    out: Annotated[Path, typer.Option(help="Folder for the study, the files and the page.")] = Path(
        "explore"
    ),
    storage: Annotated[
        str | None,
        typer.Option(
            help="postgresql://USER:PASSWORD@HOST/DATABASE: any number of machines share the study."
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Of the study, by all workers; all of a grid, or 100.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The SqueezeNet that designs vary.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Of each trial's training.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of each trial's training; retraining takes as many again.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Its name in the database; made of space and data.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Search for networks that are accurate, small and quick; run it again to join or go on."""
    from squeezekit.explore.page import PAGE, write_page
    from squeezekit.explore.run import ExploreConfig, as_json_object, explore
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

    def write(exploration: Exploration) -> None:
        command = typed_command()
        if storage is not None:  # a page is for others to see, and the address has a password
            command = command.replace(storage, exploration.storage)
        write_page(exploration, out / PAGE, command=command)

    try:
        with progress_shown() as progress:
            exploration = explore(data, out, config, progress=progress, note=note, on_pause=write)
    except KeyboardInterrupt:
        note(f"squeezekit: interrupted; the same command goes on with {out}")
        raise typer.Exit(INTERRUPTED) from None
    write(exploration)
    if as_json:
        print_json({**as_json_object(exploration), "page": str(out / PAGE)})
    elif exploration.finished:
        console = terminal()
        console.print(tables.front_table(exploration.results))
        say(f"see: {out / PAGE}")
    exploration.require_all()
