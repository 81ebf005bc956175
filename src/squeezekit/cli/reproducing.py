"""The verb that measures the paper's own tables: reproduce."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from squeezekit.errors import InputError

if TYPE_CHECKING:
    from squeezekit.progress import Progress
    from squeezekit.reproduce.result import Reproduction
    from squeezekit.reproduce.table2 import Given

WHAT = ("table1", "table2", "table3", "figure3")
PUBLISHED = Path("han-2016")


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
    seeds: Annotated[int, typer.Option(help="table3: how many.", min=1)] = 3,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; changes the recipes.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a table of the paper, its values beside ours; run it again to go on after Ctrl-C."""
    from squeezekit.reproduce.page import write_results
    from squeezekit.reproduce.text import reproduction_table

    if what not in WHAT:
        raise InputError(f"there is no {what!r} to reproduce: use {', '.join(WHAT)}")
    folder = out or Path(what)
    try:
        with progress_shown() as progress:
            if what == "table1":
                result = _table1(weights or PUBLISHED, progress)
            else:
                if data is None:
                    raise InputError(f"{what} needs images: name a folder by --data")
                from squeezekit.reproduce import table2

                given = table2.Given(alexnet, squeezenet, init_alexnet, init_squeezenet)
                asked = _Asked(epochs, retrain_epochs, input_size, seeds, settings or [], seed)
                result = _measured(what, data, folder, given, asked, progress)
    except KeyboardInterrupt:
        note(f"squeezekit: interrupted; the same command goes on with {folder}")
        raise typer.Exit(INTERRUPTED) from None
    page = write_results(result, folder, typed_command())
    if as_json:
        print_json({**result.as_json(), "page": str(page)})
        return
    terminal().print(reproduction_table(result))
    say(f"see: {page}")


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What the options say about the trainings."""

    epochs: int | None
    retrain_epochs: int | None
    input_size: int | None
    seeds: int
    settings: list[str]
    seed: int


def _table1(weights: Path, progress: Progress) -> Reproduction:
    from squeezekit.interop.weights import load_network
    from squeezekit.reproduce.table1 import reproduce_table1

    result = reproduce_table1(load_network(weights, progress))
    return dataclasses.replace(result, settings={"weights": weights.name})


def _measured(
    what: str, data: Path, out: Path, given: Given, asked: _Asked, progress: Progress
) -> Reproduction:
    from squeezekit.reproduce import figure3, from_scratch, table2, table3
    from squeezekit.reproduce.workshop import Workshop
    from squeezekit.training import recipe as recipes

    def shop(**settings: object) -> Workshop:
        content = {"what": what, **settings}
        return Workshop(out, data, content, progress=progress, note=note)

    if what == "table2":
        config = table2.with_settings(
            dataclasses.replace(table2.Table2(), input_size=asked.input_size, seed=asked.seed),
            epochs=asked.epochs, retrain_epochs=asked.retrain_epochs, settings=asked.settings,
        )  # fmt: skip
        workshop = shop(config=config, given=given)
        with workshop.alone():
            return table2.reproduce_table2(workshop, config, given)
    usual = table3.recipe() if what == "table3" else from_scratch.recipe()
    recipe = recipes.with_settings(usual, asked.settings)
    if asked.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=asked.epochs)
    workshop = shop(recipe=recipe, input_size=asked.input_size, seed=asked.seed)
    size = asked.input_size
    with workshop.alone():
        if what == "table3":
            seeds = range(asked.seed, asked.seed + asked.seeds)
            return table3.reproduce_table3(workshop, recipe, seeds=seeds, input_size=size)
        return figure3.reproduce_figure3(workshop, recipe, input_size=size, seed=asked.seed)
