"""The fields of configs as people type them: kinds, values, and help from their docstrings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(eq=False)
class ConfigFields:
    """The fields of a config, or of several that exclude each other.

    Attributes:
        configs: frozen dataclasses whose docstrings describe their fields under "Attributes:".
        typed: fields that are typed otherwise than their types say.
        without: names of fields that are left out.
    """

    configs: Sequence[type]
    typed: Mapping[str, Typed]
    without: AbstractSet[str]

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
                if typed is not None and field.name not in self.without:
                    found.setdefault(field.name, typed)
        return found

    def told(self, name: str) -> str:
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
        """What was given: the config, or None for nothing; of several configs, values by name.

        Args:
            given: what was typed, by the names of the fields.


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
