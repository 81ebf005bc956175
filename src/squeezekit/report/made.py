"""How a result was made, in the words of its page: command, time, machine, versions."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import version

from squeezekit.report import numbers

_PACKAGES = ("squeezekit", "torch", "onnxruntime", "numpy")


def how_it_was_made(command: str, seconds: float, images: str = "") -> dict[str, str]:
    """What is needed to make it again: a text for each name.

    Args:
        command: the command that was typed.
        seconds: how long it took.
        images: how many there were, in words; left out where empty.
    """
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    return {
        "made on": today(),
        "command": command,
        "took": f"{numbers.duration(seconds)} on {machine}",
        **({"images": images} if images else {}),
        "versions": versions(),
    }


def today() -> str:
    """The date, for people."""
    day = date.today()
    return f"{day.day} {day:%B %Y}"


def versions() -> str:
    """The versions of the packages that influence a result, and of Python."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{packages}, Python {platform.python_version()}"
