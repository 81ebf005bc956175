"""The coders of native/, ready to be called before numpy is loaded: as machine code or WebAssembly.

Machine code comes for x86-64 on Linux: it starts sooner and runs a little faster. Elsewhere, where
it cannot be loaded, or with SQUEEZEKIT_SANDBOX=1 in the environment, it is WebAssembly, which can
touch no memory but its own whatever a file holds.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from squeezekit.shipped import checked

if TYPE_CHECKING:
    import wasmtime

_HERE = Path(__file__).parent
_making = threading.Lock()
_made: list[ctypes.CDLL | tuple[wasmtime.Engine, wasmtime.Module]] = []


def compiled() -> ctypes.CDLL | tuple[wasmtime.Engine, wasmtime.Module]:
    """The one or the other, made by whichever thread asks first, outside of Python's lock."""
    with _making:
        if not _made:
            _made.append(library(_HERE / "coders-x86_64-linux.so") or module(_HERE / "coders.wasm"))
        return _made[0]


def library(path: Path) -> ctypes.CDLL | None:
    """The machine code, or None if there is none for this machine, or it is not wanted."""
    fits = sys.platform == "linux" and sys.maxsize > 1 << 32 and os.uname().machine == "x86_64"
    if not fits or os.environ.get("SQUEEZEKIT_SANDBOX", "0") != "0":
        return None
    try:
        checked(path)
        return ctypes.CDLL(str(path))
    except OSError:  # it is missing, or on a file system from which nothing may be run
        return None


def module(path: Path) -> tuple[wasmtime.Engine, wasmtime.Module]:
    """The WebAssembly, compiled for this machine."""
    import wasmtime

    engine = wasmtime.Engine()
    return engine, wasmtime.Module(engine, checked(path))


def release() -> None:
    """Let go of it; for the interpreter's end."""
    _made.clear()
