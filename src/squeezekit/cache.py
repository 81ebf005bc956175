"""The folder for what squeezekit can get again: downloads, and the lists of scanned folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "SQUEEZEKIT_CACHE"
"""The environment variable that names another folder."""


def cache_folder() -> Path:
    """Where the platform keeps caches, or where SQUEEZEKIT_CACHE says; it may not exist yet.

    XDG_CACHE_HOME or ~/.cache on Linux, ~/Library/Caches on macOS, LOCALAPPDATA on Windows.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser().absolute()
    return _platform_caches() / "squeezekit"


def _platform_caches() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    # The XDG specification: a relative path is to be ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return xdg if xdg.is_absolute() else Path.home() / ".cache"
