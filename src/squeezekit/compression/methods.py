"""The methods of compression by name, as `compress --method` takes them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from squeezekit.compression.best import Best
from squeezekit.compression.deep import Deep
from squeezekit.compression.method import Method
from squeezekit.compression.pruning import Prune
from squeezekit.compression.svd import Svd
from squeezekit.errors import InputError

METHODS: Mapping[str, type[Method]] = {
    method.method_name(): method for method in (Best, Deep, Prune, Svd)
}
"""All methods, by name."""


def named(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        InputError: if there is none; the error names the nearest.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(METHODS)}"
    raise InputError(f"there is no method {name!r}: {hint}")


def methods_with(setting: str) -> list[str]:
    """The methods that have a setting, by name."""
    return [
        name for name, method in METHODS.items()
        if setting in {field.name for field in dataclasses.fields(method)}
    ]  # fmt: skip


def configured(name: str, settings: Mapping[str, Any]) -> Method:
    """The method of that name, with settings.

    Raises:
        InputError: where there is none, it does not have one of the settings, or a value is
            impossible.
    """
    method = named(name)
    for setting in settings:
        if name not in (has := methods_with(setting)):
            raise InputError(
                f"{setting} is not a setting of the method {name}: use it with {' or '.join(has)}"
            )
    return method(**settings)
