"""Checks of settings. Each refusal is one sentence that names the setting."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Real

from squeezekit.errors import InputError


def at_least(name: str, value: float | None, least: float) -> None:
    """Refuse a number below `least`; None is fine."""
    if value is not None and not least <= _number(name, value) < float("inf"):
        raise InputError(f"{name} must be at least {least:g}, not {value:g}")


def above_zero(name: str, value: float | None) -> None:
    """Refuse a number that is not above 0; None is fine."""
    if value is not None and not 0 < _number(name, value) < float("inf"):
        raise InputError(f"{name} must be above 0, not {value:g}")


def share_of_all(name: str, value: float) -> None:
    """Refuse a share that is not above 0 and at most 1."""
    if not 0 < _number(name, value) <= 1:
        raise InputError(f"{name} must be above 0 and at most 1, not {value:g}")


def within(name: str, value: int, least: int, most: int) -> None:
    """Refuse a number outside of a range."""
    if not least <= _number(name, value) <= most:
        raise InputError(f"{name} must be {least} to {most}, not {value}")


def only_one(**settings: object) -> None:
    """Refuse settings that exclude each other, where more than one is not None."""
    given = [name for name, value in settings.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other: ask for one of them")


def only_with_photos(names: Collection[str]) -> None:
    """Refuse settings that say what to do with photos; called where there are none."""
    if names:
        verb = "says" if len(names) == 1 else "say"
        raise InputError(f"{' and '.join(sorted(names))} {verb} what to do with photos: give some")


def _number(name: str, value: object) -> float:
    """The value itself, if it is a number: strings are for the command line to read."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} must be a number, not {value!r}")
    return float(value)
