"""Options made from configs: a field is an option, and its help what the docstring says of it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from squeezekit.errors import InputError


@dataclass(frozen=True)
class Typed:
    """How a field is typed, where its type alone does not say it.

    Attributes:
        read: from what was typed to the value.
        kind: of what is typed.
        flag: the option; named after the field where empty.
        told: what its help says after the docstring.
    """

    read: Callable[[Any], Any]
    kind: Any = str
    flag: str = ""
    told: str = ""


def takes(
    argument: str, *places: str, panel: str | None = None, typed: Mapping[str, Typed] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb an option for each field of a config, or of several that exclude each other.

    The verb is called with `argument`. For one config that is the config, or None where none of its
    options is there; for several it is what was given, by the names of the fields. Fields that the
    verb itself has a parameter for get no option. `command_of` parses for such a verb.

    Args:
        argument: of the verb.
        places: of the configs, "module:Class" below squeezekit. They are imported when the verb is
            used, since other verbs need none of them.
        panel: of the help that the options are shown in.
        typed: fields that are typed otherwise than their types say.
    """

    def decorated(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != argument]
        assert len(own) < len(signature.parameters), f"{verb.__name__} takes no {argument}"

        @functools.wraps(verb)
        def shown(**arguments: Any) -> None:  # noqa: ANN401 - as the parser gives them
            verb(**arguments, **{argument: _CONFIGS.get()[argument]})

        shown.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        shown.__annotations__ = {p.name: p.annotation for p in own}
        source = _Source(argument, places, panel, typed or {}, frozenset(p.name for p in own))
        shown.sources = (*getattr(verb, "sources", ()), source)  # type: ignore[attr-defined]
        return shown

    return decorated


_CONFIGS: ContextVar[Mapping[str, Any]] = ContextVar("configs")
"""Of the verb that runs; the parser refuses arguments that it does not know itself."""


class ConfigCommand(TyperCommand):
    """A verb with the fields of its configs among its options."""

    sources: tuple[_Source, ...] = ()

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - the parser's own classes
        """Its own, and those of its configs."""
        return [*super().get_params(ctx), *(o for s in self.sources for o in s.options)]

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Call the verb with its own options and its configs."""
        configs: dict[str, Any] = {}
        for source in self.sources:
            values = {option.name: ctx.params.pop(option.name) for option in source.options}
            configs[source.argument] = source.config(
                {name: value for name, value in values.items() if value is not None}
            )
        _CONFIGS.set(configs)
        return super().invoke(ctx)


def command_of(verb: Callable[..., None]) -> type[TyperCommand]:
    """The class that parses for a verb."""
    sources = getattr(verb, "sources", ())
    return type("Command", (ConfigCommand,), {"sources": sources}) if sources else TyperCommand


@dataclass(eq=False)
class _Source:
    argument: str
    places: tuple[str, ...]
    panel: str | None
    typed: Mapping[str, Typed]
    own: frozenset[str]

    @functools.cached_property
    def configs(self) -> list[type]:
        """The classes."""
        parts = [place.split(":") for place in self.places]
        return [getattr(import_module(f"squeezekit.{name}"), of) for name, of in parts]

    @functools.cached_property
    def fields(self) -> dict[str, Typed]:
        """How each field of any of the configs is typed.

        Those that are configs themselves, and so are made where they are not given, are left out.
        """
        found: dict[str, Typed] = {}
        for config in self.configs:
            for field in dataclasses.fields(config):
                made = field.default_factory is not dataclasses.MISSING
                typed = self.typed.get(field.name) or (None if made else _typed(str(field.type)))
                if typed is not None and field.name not in self.own:
                    found.setdefault(field.name, typed)
        return found

    @functools.cached_property
    def options(self) -> list[Any]:
        """The parser's own, one for each field."""

        def verb() -> None: ...

        verb.__annotations__ = {
            name: Annotated[typed.kind | None, self._option(name, typed)]
            for name, typed in self.fields.items()
        }
        verb.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=k)
                for name, k in verb.__annotations__.items()
            ]
        )
        app = typer.Typer(add_completion=False)
        app.command()(verb)
        return list(get_command(app).params)

    def _option(self, name: str, typed: Typed) -> Any:  # noqa: ANN401 - the parser's own
        flag, told = typed.flag or f"--{name.replace('_', '-')}", self._told(name)
        return typer.Option(
            flag, help=f"{told} {typed.told}".strip(), rich_help_panel=self.panel,
            show_default=False,
        )  # fmt: skip

    def _told(self, name: str) -> str:
        """What the docstrings say, and which config says it where not all do."""
        said: dict[str, list[str]] = {}
        for config in self.configs:
            if (text := described(config).get(name)) is not None:
                said.setdefault(text, []).append(config.__name__.lower())
        if len(said) == 1 and sum(map(len, said.values())) == len(self.configs):
            (text,) = said
            return _sentence(text)
        return " ".join(f"{', '.join(who)}: {text}" for text, who in said.items())

    def config(self, given: dict[str, Any]) -> Any:  # noqa: ANN401 - of any class
        """What the verb is called with.

        Raises:
            InputError: where a value cannot be.
        """
        values = {name: self.fields[name].read(value) for name, value in given.items()}
        values = {name: value for name, value in values.items() if value not in ({}, [])}
        if len(self.configs) > 1:
            return values
        return self.configs[0](**values) if values else None


def described(config: type) -> dict[str, str]:
    """What the docstring of a config says of each of its attributes, on one line."""
    _, _, listed = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for names, text in re.findall(r"^    ([\w, ]+): (.*?)(?=^ {0,4}\w|\Z)", listed, re.M | re.S):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def _sentence(text: str) -> str:
    """With a capital letter, but for what is a name or a formula."""
    first = text.partition(" ")[0]
    return text[0].upper() + text[1:] if first.isalpha() and len(first) > 1 else text


def _as_it_is(value: object) -> object:
    return value


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"a mean or std takes one number, or one per channel with commas between, not {text!r}"
        ) from None


_TYPED = {
    "tuple": Typed(_numbers),
    **{kind.__name__: Typed(_as_it_is, kind) for kind in (bool, int, float)},
    "Path": Typed(Path),
    "Photos": Typed(Path),
}
"""By a word of the field's type; the first that is there decides. All else is text."""


def _typed(annotation: str) -> Typed:
    words = re.findall(r"\w+", annotation)
    return next((typed for word, typed in _TYPED.items() if word in words), Typed(_as_it_is))
