"""Runs the coders that are written in C (native/), compiled to WebAssembly, on numpy arrays."""

from __future__ import annotations

import atexit
import ctypes
import threading
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from squeezekit.errors import CoderError

if TYPE_CHECKING:
    import wasmtime

Array = npt.NDArray[Any]

_PAGE_BYTES = 65_536
_REASONS = {
    -1: "the coded bytes would not fit",
    -2: "the payload ends too early",
    -3: "the payload holds values that cannot be",
}
_local = threading.local()
_compiling = threading.Lock()


@cache
def _module() -> tuple[wasmtime.Engine, wasmtime.Module]:
    import wasmtime

    engine = wasmtime.Engine()
    code = resources.files("squeezekit.sqz.coders").joinpath("coders.wasm").read_bytes()
    return engine, wasmtime.Module(engine, code)


@atexit.register
def _release() -> None:
    # wasmtime's objects cannot be deleted any more once the interpreter takes its modules apart.
    _local.__dict__.clear()
    _module.cache_clear()


class Coders:
    """One instance of the compiled coders with its own memory.

    The C code allocates nothing: every call lays its arrays out one after another behind the
    module's own data, runs, and copies back those that it may have changed.
    """

    def __init__(self) -> None:
        import wasmtime

        with _compiling:  # once, however many threads ask for it first
            engine, module = _module()
        self._store = wasmtime.Store(engine)
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self._memory: Any = self._exports["memory"]
        base: Any = self._exports["__heap_base"]
        self._base = int(base.value(self._store))

    def call(self, function: str, *arguments: int | Array) -> int:
        """Call an exported function; arrays are passed by address and updated in place.

        Returns:
            Its result, a size of at least 0.

        Raises:
            CoderError: where the function reports an error.
        """
        numbers, places, end = [], [], self._base
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
        result = int(self._exports[function](self._store, *numbers))  # type: ignore[operator]
        if result < 0:
            raise CoderError(_REASONS.get(result, f"the coder failed with code {result}"))
        for view, array in views:
            if array.flags.writeable:
                array.reshape(-1)[...] = view
        return result

    def _view(self, start: int, array: Array) -> Array:
        address = ctypes.addressof(self._memory.data_ptr(self._store).contents) + start
        raw = (ctypes.c_uint8 * array.nbytes).from_address(address)
        return np.ctypeslib.as_array(raw).view(array.dtype)


def coders() -> Coders:
    """The calling thread's own instance of the coders."""
    instance: Coders | None = getattr(_local, "coders", None)
    if instance is None:
        instance = _local.coders = Coders()
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
