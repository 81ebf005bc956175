"""The verb that measures the paper's own tables: reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import (
    INTERRUPTED,
    Json,
    OptionalData,
    Seed,
    note,
    print_json,
    progress_shown,
    say,
    terminal,
    typed_command,
)


def reproduce(
    what: Annotated[str, typer.Argument(help="table1, table2, table3 or figure3.")],
    data: OptionalData = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results and trained networks; WHAT if absent."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="table1: the network; han-2016 if absent.")
    ] = None,
    alexnet: Annotated[
        Path | None, typer.Option(help="table2: WEIGHTS trained on DIR, taken as they are.")
    ] = None,
    squeezenet: Annotated[
        Path | None, typer.Option(help="table2: WEIGHTS trained on DIR, taken as they are.")
    ] = None,
    init_alexnet: Annotated[
        Path | None, typer.Option(help="table2: WEIGHTS to fine-tune on DIR.")
    ] = None,
    init_squeezenet: Annotated[
        Path | None, typer.Option(help="table2: WEIGHTS to fine-tune on DIR.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of the float32 networks.", min=0)] = None,
    retrain_epochs: Annotated[
        int | None, typer.Option(help="table2: of every retraining.", min=0)
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Pixels a side, of networks from scratch.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="table3: how many; 3 if absent.", min=1)] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; changes the recipes.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a table of the paper, its values beside ours; run it again to go on after Ctrl-C."""
    from squeezekit.reproduction.page import PAGE
    from squeezekit.reproduction.run import ReproduceConfig, reproduce
    from squeezekit.reproduction.text import reproduction_table
    from squeezekit.training import recipe as recipes

    config = ReproduceConfig(
        weights, alexnet, squeezenet, init_alexnet, init_squeezenet, epochs, retrain_epochs,
        input_size, seeds, recipes.parsed(settings or []), seed,
    )  # fmt: skip
    folder = out or Path(what)
    try:
        with progress_shown() as progress:
            result = reproduce(
                what, data, folder, config, command=typed_command(), progress=progress, note=note
            )
    except KeyboardInterrupt:
        note(f"squeezekit: interrupted; the same command goes on with {folder}")
        raise typer.Exit(INTERRUPTED) from None
    page = folder / PAGE
    if as_json:
        print_json({**result.as_json(), "page": str(page)})
        return
    terminal().print(reproduction_table(result))
    say(f"see: {page}")
