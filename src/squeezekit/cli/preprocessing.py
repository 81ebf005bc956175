"""The options for the preprocessing of foreign weights, made from the fields of `Stated`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from squeezekit.errors import InputError
from squeezekit.runtime.stated import Stated

_PANEL = "What the network's file does not say, or says wrong"
_ARGUMENT = "preprocessing"


def states_preprocessing(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb an option for each field of `Stated`; it is called with `preprocessing`.

    `preprocessing` is None if none of the options is given.
    """
    signature = inspect.signature(verb, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != _ARGUMENT]
    assert len(own) < len(signature.parameters), f"{verb.__name__} takes no {_ARGUMENT}"
    fields = [f for f in dataclasses.fields(Stated) if f.name not in signature.parameters]

    @functools.wraps(verb)
    def with_options(**arguments: Any) -> None:  # noqa: ANN401 - as the parser gives them
        values = {field.name: arguments.pop(field.name) for field in fields}
        verb(**arguments, preprocessing=_stated(values))

    parameters = [*own, *map(_option, fields)]
    by_keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    with_options.__signature__ = signature.replace(parameters=by_keyword)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in by_keyword}
    return with_options


def _option(field: dataclasses.Field[Any]) -> inspect.Parameter:
    kinds = typing.get_args(typing.get_type_hints(Stated)[field.name])
    kind = next((kind for kind in kinds if kind in (int, float)), str)
    choices = field.metadata["choices"]
    told = f"{field.metadata['help']} {', '.join(choices)}." if choices else field.metadata["help"]
    option = typer.Option(
        f"--{field.name.replace('_', '-')}", help=told, rich_help_panel=_PANEL, show_default=False
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _stated(values: dict[str, Any]) -> Stated | None:
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("mean", "std"):
        if name in given:
            given[name] = _numbers(name, given[name])
    return Stated(**given) if given else None


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--{name} takes one number, or one per channel with commas between, not {text!r}"
        ) from None
