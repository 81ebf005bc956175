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
        typer.Option(help="Folder for results and trained networks. Default: WHAT."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="table1: the network. Default: han-2016.")
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
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of the float32 networks.", min=0)
    ] = None,
    retrain_epochs: Annotated[
        int | None, typer.Option(help="table2: epochs of each retraining.", min=0)
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Pixels per side, for networks trained from scratch.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="table3: how many seeds; default 3.", min=1)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipes: key=value.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a table of the paper, with the paper's values beside ours. Run it again to go on."""
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
