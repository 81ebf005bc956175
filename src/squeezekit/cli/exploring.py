"""The verbs that do a whole study: explore, for good designs; reproduce, for the paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli import common
from squeezekit.cli.config_options import takes
from squeezekit.config_fields import Typed


def _settings(typed: list[str]) -> object:
    from squeezekit.training.recipe import parsed

    return parsed(typed)


@takes("config", "exploration.run:ExploreConfig")
def explore(
    data: common.Data,
    config: object,
    out: Annotated[Path, typer.Option(help="Folder for the study, the files and the page.")] = Path(
        "explore"
    ),
    as_json: common.Json = False,
) -> None:
    """Search for networks that are accurate, small and fast; run it again to join or go on."""
    from squeezekit.exploration.front import explore as explore_on
    from squeezekit.exploration.page import PAGE
    from squeezekit.exploration.run import ExploreConfig, as_json_object
    from squeezekit.report import tables

    assert config is None or isinstance(config, ExploreConfig)
    with common.progress_shown(f"the same command goes on with {out}") as progress:
        found = explore_on(
            data, out, config, command=common.typed_command(), progress=progress, note=common.note
        )
    content, page = as_json_object(found), out / PAGE
    if as_json or found.finished:
        common.answer(
            as_json, {**content, "page": str(page)}, lambda: tables.front_table(found.results),
            common.seen(page),
        )  # fmt: skip
    found.require_all()


@takes(
    "config", "reproduction.run:ReproduceConfig",
    typed={"settings": Typed(_settings, list[str], "--set", "Typed as key=value, repeatedly.")},
)  # fmt: skip
def reproduce(
    what: Annotated[str, typer.Argument(help="table1, table2, table3 or figure3.")],
    config: object,
    data: Annotated[Path | None, typer.Option("--data", help="A folder of class folders.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results and trained networks; WHAT if absent."),
    ] = None,
    as_json: common.Json = False,
) -> None:
    """Measure a table of the paper, its values beside ours; run it again to go on after Ctrl-C."""
    from squeezekit.reproduction.page import PAGE
    from squeezekit.reproduction.run import ReproduceConfig, reproduce
    from squeezekit.reproduction.text import reproduction_table

    assert config is None or isinstance(config, ReproduceConfig)
    folder = out or Path(what)
    with common.progress_shown(f"the same command goes on with {folder}") as progress:
        result = reproduce(
            what,
            data,
            folder,
            config,
            command=common.typed_command(),
            progress=progress,
            note=common.note,
        )
    page = folder / PAGE
    common.answer(
        as_json, {**result.as_json(), "page": str(page)}, lambda: reproduction_table(result),
        common.seen(page),
    )  # fmt: skip
