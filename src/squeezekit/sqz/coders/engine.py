"""Runs what is written in C (native/), the coders above all, on numpy arrays."""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from squeezekit.errors import CoderError
from squeezekit.sqz.coders.compiled import compiled, release

if TYPE_CHECKING:
    import numpy.typing as npt
    import wasmtime

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]

_PAGE_BYTES = 65_536
_REASONS = {
    -1: "the coded bytes would not fit",
    -2: "the payload ends too early",
    -3: "the payload holds values that cannot be",
}
_WORKSPACES = {
    "model_bytes": (
        "floats",
        "shared",
        "whole",
        "text",
        "moved",
        "moved_floats",
        "text_behind",
    ),
    "codes_bytes": ("huffman_encode", "huffman_decode"),
}
"""What tells the size of the memory that some functions keep between calls, their first argument.

The C code has no other memory and allocates none.
"""

_local = threading.local()


@atexit.register
def _release() -> None:
    # wasmtime's objects cannot be deleted any more once the interpreter takes its modules apart.
    _local.__dict__.clear()
    release()


Argument = int | float | Array
"""Of a function in C: int32, float or a pointer to an array's first number."""


class Code(Protocol):
    """Compiled functions, with memory of their own for those that need it: for one thread."""

    def call(self, function: str, *arguments: Argument) -> int:
        """Call a function behind its workspace, if any; writeable arrays are updated in place.

        Returns:
            Its result, a size of at least 0.

        Raises:
            CoderError: if the function reports an error.
        """


_Workspaces = Mapping[str, Sequence[str]]


class LibraryCode:
    """Machine code: arrays are used where they lie, and must be contiguous."""

    def __init__(self, library: ctypes.CDLL, workspaces: _Workspaces) -> None:
        self._library = library
        self._workspaces: dict[str, Array] = {}
        for size, names in workspaces.items():
            workspace = np.zeros(library[size](), np.uint8)
            self._workspaces.update(dict.fromkeys(names, workspace))

    def call(self, function: str, *arguments: Argument) -> int:
        """See `Code.call`."""
        if function in self._workspaces:
            arguments = (self._workspaces[function], *arguments)
        return _checked(self._library[function](*map(_as_c, arguments)))


def _as_c(argument: Argument) -> int | ctypes.c_float | ctypes.c_void_p:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


class SandboxCode:
    """WebAssembly: every call copies its arrays into the sandbox and back."""

    def __init__(
        self, engine: wasmtime.Engine, module: wasmtime.Module, workspaces: _Workspaces
    ) -> None:
        import wasmtime

        self._store = wasmtime.Store(engine)
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self._memory: Any = self._exports["memory"]
        base: Any = self._exports["__heap_base"]
        self._base = int(base.value(self._store))
        self._workspaces: dict[str, int] = {}
        for size, names in workspaces.items():
            self._base = (self._base + 15) & ~15
            self._workspaces.update(dict.fromkeys(names, self._base))
            self._base += self._run(size, [])

    def call(self, function: str, *arguments: Argument) -> int:
        """See `Code.call`."""
        numbers: list[int | float] = []
        if function in self._workspaces:
            numbers.append(self._workspaces[function])
        places, end = [], self._base
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                end = (end + 15) & ~15
                places.append((end, argument))
                numbers.append(end)
                end += argument.nbytes
            else:
                numbers.append(argument)
        missing = end - self._memory.data_len(self._store)
        if missing > 0:
            self._memory.grow(self._store, -(-missing // _PAGE_BYTES))
        views = [(self._view(start, array), array) for start, array in places]
        for view, array in views:
            view[...] = array.reshape(-1)
        result = _checked(self._run(function, numbers))
        for view, array in views:
            if array.flags.writeable:
                array.reshape(-1)[...] = view
        return result

    def _run(self, function: str, numbers: Sequence[int | float]) -> int:
        return int(self._exports[function](self._store, *numbers))  # type: ignore[operator]

    def _view(self, start: int, array: Array) -> Array:
        address = ctypes.addressof(self._memory.data_ptr(self._store).contents) + start
        raw = (ctypes.c_uint8 * array.nbytes).from_address(address)
        return np.ctypeslib.as_array(raw).view(array.dtype)


def _checked(result: int) -> int:
    if result < 0:
        raise CoderError(_REASONS.get(result, f"the coder failed with code {result}"))
    return result


def code_of(
    found: ctypes.CDLL | tuple[wasmtime.Engine, wasmtime.Module], workspaces: _Workspaces
) -> Code:
    """What runs it: machine code as it is, WebAssembly in a sandbox of its own."""
    if isinstance(found, tuple):
        return SandboxCode(*found, workspaces)
    return LibraryCode(found, workspaces)


def coders() -> Code:
    """The calling thread's own coders."""
    instance: Code | None = getattr(_local, "coders", None)
    if instance is None:
        instance = _local.coders = code_of(compiled(), _WORKSPACES)
    return instance


def encode(function: str, capacity: int, *arguments: int | Array) -> bytes:
    """Call a coder whose first two parameters are an output buffer and its size."""
    out = np.empty(capacity, np.uint8)
    size = coders().call(function, out, capacity, *arguments)
    return out[:size].tobytes()


def encode_in(function: str, capacity: int, *arguments: int | Array) -> bytes:
    """The same for a coder that works both ways, told by its first parameter."""
    out = np.empty(capacity, np.uint8)
    size = coders().call(function, 1, out, capacity, *arguments)
    return out[:size].tobytes()


def decode_from(function: str, payload: bytes | memoryview, *arguments: int | Array) -> None:
    """Call a coder that works both ways to fill `arguments` from a payload, all of it."""
    coders().call(function, 0, read_only(payload), len(payload), *arguments)


def read_only(data: bytes | memoryview) -> npt.NDArray[np.uint8]:
    """Bytes as an array that a call does not copy back."""
    array = np.frombuffer(data, np.uint8)
    array.flags.writeable = False
    return array
