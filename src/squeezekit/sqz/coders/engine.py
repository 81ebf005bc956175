"""Runs the coders that are written in C (native/) on numpy arrays."""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections.abc import Sequence
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
    "model_bytes": ("floats", "shared", "whole", "text"),
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


class Coders(Protocol):
    """The coders with memory of their own: for one thread."""

    def call(self, function: str, *arguments: int | Array) -> int:
        """Call a function behind its workspace; writeable arrays are updated in place.

        Returns:
            Its result, a size of at least 0.

        Raises:
            CoderError: if the function reports an error.
        """


class LibraryCoders:
    """The coders as machine code: arrays are used where they lie."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._workspaces: dict[str, Array] = {}
        for size, names in _WORKSPACES.items():
            workspace = np.zeros(library[size](), np.uint8)
            self._workspaces.update(dict.fromkeys(names, workspace))

    def call(self, function: str, *arguments: int | Array) -> int:
        """See `Coders.call`."""
        values = [
            ctypes.c_void_p(argument.ctypes.data) if isinstance(argument, np.ndarray) else argument
            for argument in (self._workspaces[function], *arguments)
        ]
        return _checked(self._library[function](*values))


class SandboxCoders:
    """The coders as WebAssembly: every call copies its arrays into the sandbox and back."""

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module) -> None:
        import wasmtime

        self._store = wasmtime.Store(engine)
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self._memory: Any = self._exports["memory"]
        base: Any = self._exports["__heap_base"]
        self._base = int(base.value(self._store))
        self._workspaces: dict[str, int] = {}
        for size, names in _WORKSPACES.items():
            self._base = (self._base + 15) & ~15
            self._workspaces.update(dict.fromkeys(names, self._base))
            self._base += self._run(size, [])

    def call(self, function: str, *arguments: int | Array) -> int:
        """See `Coders.call`."""
        numbers, places, end = [self._workspaces[function]], [], self._base
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

    def _run(self, function: str, numbers: Sequence[int]) -> int:
        return int(self._exports[function](self._store, *numbers))  # type: ignore[operator]

    def _view(self, start: int, array: Array) -> Array:
        address = ctypes.addressof(self._memory.data_ptr(self._store).contents) + start
        raw = (ctypes.c_uint8 * array.nbytes).from_address(address)
        return np.ctypeslib.as_array(raw).view(array.dtype)


def _checked(result: int) -> int:
    if result < 0:
        raise CoderError(_REASONS.get(result, f"the coder failed with code {result}"))
    return result


def coders() -> Coders:
    """The calling thread's own coders."""
    instance: Coders | None = getattr(_local, "coders", None)
    if instance is None:
        found = compiled()
        instance = SandboxCoders(*found) if isinstance(found, tuple) else LibraryCoders(found)
        _local.coders = instance
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
