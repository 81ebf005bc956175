"""The command line: verbs only; each imports what it needs when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from squeezekit import __version__
from squeezekit.cli import (
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
        if missing not in _EXTRA_OF:
            raise
        needs = f"this needs {missing}: pip install 'squeezekit[{_EXTRA_OF[missing]}]'"
        print(f"squeezekit: {needs}", file=sys.stderr)
        sys.exit(BAD_INPUT)


_EXTRA_OF = {
    **dict.fromkeys(("torch", "matplotlib", "sklearn", "jinja2", "safetensors"), "train"),
    **dict.fromkeys(("optuna", "sqlalchemy"), "explore"),
    **dict.fromkeys(("aiohttp", "prometheus_client"), "serve"),
}


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
    predicting.serve,
    networks.export,
    reproducing.reproduce,
):
    app.command()(verb)
