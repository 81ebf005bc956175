"""The command line: verbs only; each imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from squeezekit import __version__
from squeezekit.cli import (
    benchmarking,
    compressing,
    exploring,
    networks,
    predicting,
    reproducing,
    training,
)
from squeezekit.cli.common import BAD_INPUT, app
from squeezekit.errors import SqueezekitError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    try:
        app()
    except SqueezekitError as error:
        print(f"squeezekit: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _TRAINING_PACKAGES | _EXPLORING_PACKAGES:
            raise
        extra = "train" if missing in _TRAINING_PACKAGES else "explore"
        needs = f"this needs {missing}: pip install 'squeezekit[{extra}]'"
        print(f"squeezekit: {needs}", file=sys.stderr)
        sys.exit(BAD_INPUT)


_TRAINING_PACKAGES = {"torch", "matplotlib", "sklearn", "jinja2", "safetensors"}
_EXPLORING_PACKAGES = {"optuna", "sqlalchemy"}


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
    networks.models,
    networks.cost,
    training.train,
    training.evaluate,
    compressing.compress,
    compressing.sensitivity,
    exploring.explore,
    networks.info,
    predicting.predict,
    networks.export,
    reproducing.reproduce,
    benchmarking.bench,
):
    app.command()(verb)
