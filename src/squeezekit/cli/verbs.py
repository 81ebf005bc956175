"""The verbs of the command line; each imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from squeezekit import __version__
from squeezekit.cli import (
    benchmarking,
    compressing,
    exploring,
    networks,
    predicting,
    training,
    updating,
)
from squeezekit.cli.common import app
from squeezekit.cli.config_options import command_of

__all__ = ["app"]


def _version(asked: bool) -> None:
    if asked:
        print(f"squeezekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


for verb in (
    training.demo,
    networks.check,
    networks.models,
    networks.cost,
    training.train,
    training.evaluate,
    compressing.compress,
    compressing.sensitivity,
    exploring.explore,
    networks.info,
    predicting.predict,
    predicting.serve,
    networks.export,
    updating.delta,
    updating.apply,
    exploring.reproduce,
    benchmarking.bench,
):
    app.command(cls=command_of(verb))(verb)
