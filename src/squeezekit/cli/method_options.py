"""The options of `compress` that are settings of its methods, made from the methods' own fields.

A field of a method's dataclass is an option, its help what the docstring says of it, and an option
that the chosen method does not have is refused: nothing is ever ignored.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from squeezekit.errors import InputError

if TYPE_CHECKING:
    from squeezekit.compression.method import Method

_GIVEN = "squeezekit.settings"
_PANEL = "Settings of the methods"


class MethodCommand(TyperCommand):
    """A verb with the settings of all methods among its options.

    They are looked up only when the verb is used, because the methods take time to load.
    """

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - the parser's own classes
        """The verb's own options, and those of the methods."""
        return [*super().get_params(ctx), *_options()]

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Call the verb with its own options; `given` returns the others."""
        ctx.meta[_GIVEN] = {option.name: ctx.params.pop(option.name) for option in _options()}
        return super().invoke(ctx)


def given(context: typer.Context) -> dict[str, Any]:
    """The settings that were given on the command line, parsed."""
    return {name: value for name, value in context.meta[_GIVEN].items() if value is not None}


def configured(method: type[Method], settings: Mapping[str, Any]) -> Method:
    """A method with the settings that were given.

    Raises:
        InputError: if it does not have one of them, or its value cannot be.
    """
    for name in settings:
        has = methods_with(name)
        if method.method_name() not in has:
            methods = " or ".join(has)
            raise InputError(
                f"{_flag(name)} is not an option of the method {method.method_name()}: "
                f"use it with --method {methods}"
            )
    values = {name: _READ.get(name, lambda value: value)(v) for name, v in settings.items()}
    return method(**values)


def methods_with(name: str) -> list[str]:
    """The methods that have a setting, by name."""
    from squeezekit.compression.methods import METHODS

    return [key for key, method in METHODS.items() if name in _kinds(method)]


def setting_names() -> list[str]:
    """The names of all settings of all methods."""
    from squeezekit.compression.methods import METHODS

    return list(dict.fromkeys(name for method in METHODS.values() for name in _kinds(method)))


def densities(text: str) -> Mapping[str, float] | float:
    """The value of `--density`: a number, table1, or a .json file with densities by tensor name.

    Raises:
        InputError: if it is none of them.
    """
    from squeezekit.compression.prune import table1
    from squeezekit.files import read_bytes

    if text == "table1":
        return table1()
    if text.lower().endswith(".json"):
        try:
            content = json.loads(read_bytes(text))
            found = content.get("densities", content)
            return {str(name): float(density) for name, density in found.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{text} does not hold densities by tensor name") from None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"the density must be a number, table1 or a .json file, not {text!r}"
        ) from None


_READ: dict[str, Any] = {"density": densities, "finetune": Path, "curve": bool}
"""How the text of an option becomes a setting that is not a number."""

_HELP = {
    "density": "Or table1 (the paper's), or a .json file that `squeezekit sensitivity` wrote.",
    "curve": "Written to this page (.html), and as .json beside it.",
}
"""What the help says of an option in addition to its setting's docstring."""


@cache
def _options() -> list[Any]:
    """One option for each setting of any method."""

    def verb() -> None: ...

    parameters = []
    for name in setting_names():
        option = typer.Option(
            _flag(name), help=_help(name), rich_help_panel=_PANEL, show_default=False
        )
        kind = str if name in _READ else _kind(name)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind | None, option],
            )
        )
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(verb)
    return list(get_command(app).params)


def _kind(name: str) -> type:
    from squeezekit.compression.methods import METHODS

    return next(_kinds(method)[name] for method in METHODS.values() if name in _kinds(method))


def _kinds(method: type[Method]) -> dict[str, type]:
    """The settings of a method that can be typed, and their types; recipes cannot be typed."""
    kinds: dict[str, type] = {}
    for field in dataclasses.fields(method):
        names = [part.strip() for part in str(field.type).split("|")]
        if "Recipe" not in names:
            numbers = (kind for kind in (bool, int, float) if kind.__name__ in names)
            kinds[field.name] = next(numbers, str)
    return kinds


def _help(name: str) -> str:
    """What the methods' docstrings say, with the methods' names where they differ."""
    from squeezekit.compression.methods import METHODS

    said: dict[str, list[str]] = {}
    for key in methods_with(name):
        said.setdefault(described(METHODS[key])[name], []).append(key)
    if len(said) == 1 and len(methods_with(name)) == len(METHODS):
        (text,) = said
        text = text[0].upper() + text[1:]
    else:
        text = " ".join(f"{', '.join(who)}: {what}" for what, who in said.items())
    return f"{text} {_HELP[name]}" if name in _HELP else text


def described(method: type[Method]) -> dict[str, str]:
    """What the docstring of a method says about each of its attributes, on one line."""
    _, _, listed = inspect.cleandoc(method.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for name, text in re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", listed, re.M | re.S):
        found[name] = " ".join(text.split())
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
