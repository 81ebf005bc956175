"""Options made from configs: a field is an option, and its help what the docstring says of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from squeezekit.config_fields import ConfigFields, Typed


def takes(
    argument: str, place: str, *, panel: str | None = None, typed: Mapping[str, Typed] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb an option for each field of a config, or of several that exclude each other.

    The verb is called with `argument`. For one config that is the config, or None where none of its
    options is there; for several it is what was given, by the names of the fields. Fields that the
    verb itself has a parameter for get no option. `command_of` parses for such a verb.

    Args:
        argument: of the verb.
        place: of the config, "module:Class" below squeezekit, or of several in a mapping. It is
            imported when the verb is used, since other verbs need none of them.
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
        source = _Source(argument, place, panel, typed or {}, frozenset(p.name for p in own))
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
            configs[source.argument] = source.fields.config(
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
    place: str
    panel: str | None
    typed: Mapping[str, Typed]
    own: frozenset[str]

    @functools.cached_property
    def fields(self) -> ConfigFields:
        """Of the configs."""
        module, name = self.place.split(":")
        found = getattr(import_module(f"squeezekit.{module}"), name)
        configs = list(found.values()) if isinstance(found, Mapping) else [found]
        return ConfigFields(configs, self.typed, self.own)

    @functools.cached_property
    def options(self) -> list[Any]:
        """The parser's own, one for each field."""

        def verb() -> None: ...

        verb.__annotations__ = {
            name: Annotated[typed.kind | None, self._option(name, typed)]
            for name, typed in self.fields.fields.items()
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
        told = f"{self.fields.told(name)} {typed.told}".strip()
        return typer.Option(
            typed.flag or f"--{name.replace('_', '-')}", help=told, rich_help_panel=self.panel,
            show_default=False,
        )  # fmt: skip
