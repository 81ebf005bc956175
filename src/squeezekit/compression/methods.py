"""The methods of compression by name, as `compress --method` takes them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

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
