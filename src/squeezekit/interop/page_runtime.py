"""Runs the web page's decoder and runtime (native/) outside of a browser, to check a file."""

from __future__ import annotations

import atexit
import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from squeezekit.errors import (
    ChecksumError,
    CoderError,
    FormatError,
    GraphError,
    HeadError,
    InputError,
    LengthError,
    LimitError,
    NotSqzError,
    OperatorError,
    TrailingBytesError,
    TruncatedError,
    UnsupportedError,
    VersionError,
)
from squeezekit.shipped import checked
from squeezekit.sqz.network import Floats

if TYPE_CHECKING:
    import wasmtime

Pixels = npt.NDArray[np.uint8]

_MEMORY, _UNSUPPORTED, _ARGUMENT = 1, 11, 12
_DAMAGE: dict[int, type[FormatError]] = {
    2: NotSqzError,
    3: VersionError,
    4: TruncatedError,
    5: TrailingBytesError,
    6: ChecksumError,
    7: LengthError,
    8: HeadError,
    9: GraphError,
    10: CoderError,
    13: LimitError,
}
"""Each sqz_error of native/sqz/sqz.h is one of ours."""

Precision = Literal["float", "int8"]

_PRECISIONS: dict[Precision | None, int] = {None: 0, "float": 1, "int8": 2}
_NAMES: dict[int, Precision] = {1: "float", 2: "int8"}
"""As sqz_precision numbers them."""

_STRIP_BYTES = 1 << 20
"""How much of an image native/page.c takes at a time (at least one row)."""


def build() -> bytes:
    """The WebAssembly module."""
    return checked(Path(__file__).parent / "page" / "runtime.wasm")


def packed_build(precision: Precision) -> bytes:
    """The module that a page has, packed: with layers of one precision alone."""
    return checked(Path(__file__).parent / "page" / f"{precision}.packed")


@cache
def _module() -> tuple[wasmtime.Engine, wasmtime.Module]:
    import wasmtime

    engine = wasmtime.Engine()
    return engine, wasmtime.Module(engine, build())


@atexit.register
def _release() -> None:
    # wasmtime's objects cannot be deleted any more once the interpreter takes its modules apart.
    _module.cache_clear()


class PageRuntime:
    """A `.sqz` file, open in an instance of the runtime.

    Args:
        data: the bytes of the file.
        precision: "int8" or "float"; without, int8 where the file has ranges of activations.

    Raises:
        InputError: if int8 is asked for and the file has no ranges.
        UnsupportedError: if the graph has an operator that the runtime lacks; it is named.
        FormatError: if the runtime cannot read the file.
    """

    def __init__(self, data: bytes, precision: Precision | None = None) -> None:
        import wasmtime

        engine, module = _module()
        self._store = wasmtime.Store(engine)
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        place = self._call("page_file", len(data))
        self._view(place, len(data))[:] = np.frombuffer(data, np.uint8)
        error = self._call("page_open", place, len(data), _PRECISIONS[precision])
        if error:
            raise self._error(error)
        self.classes = self._call("page_classes")
        self.precision: Precision = _NAMES[self._call("page_precision")]

    @property
    def page_precision(self) -> Precision:
        """What a page computes in: float also where int8 has a layer that works on floats."""
        mixed = self.precision == "int8" and self._call("page_float_layers")
        return "float" if mixed else self.precision

    @property
    def metadata_json(self) -> str:
        """The metadata, as the file has it."""
        return self._text("metadata")

    @property
    def memory_bytes(self) -> int:
        """All memory that the instance has asked for."""
        memory: Any = self._exports["memory"]
        return int(memory.data_len(self._store))

    def logits(self, image: Floats) -> Floats:
        """Run the network.

        Args:
            image: float32 (C, H, W), as `runtime.images.prepare` gives it.

        Returns:
            float32 (classes,), the graph's own output.
        """
        flat = np.ascontiguousarray(image, np.float32).reshape(-1).view(np.uint8)
        self._view(self._call("page_input"), flat.size)[:] = flat
        place = self._call("page_run")
        return self._view(place, 4 * self.classes).view(np.float32).copy()

    def prepared(self, pixels: Pixels, shape: tuple[int, int, int]) -> Floats:
        """Preprocess an image, strip by strip as the page does.

        Args:
            pixels: uint8 (H, W, 4), upright, RGB and a byte that is ignored.
            shape: (C, H, W) of the network's input.

        Returns:
            float32 (C, H, W).

        Raises:
            InputError: if the image is too large, or too long and thin.
        """
        height, width, _ = pixels.shape
        strip = self._call("page_image", width, height)
        if not strip:
            raise InputError(f"an image of {width} x {height} pixels cannot be resized")
        rows = max(_STRIP_BYTES // (4 * width), 1)
        for first in range(0, height, rows):
            part = np.ascontiguousarray(pixels[first : first + rows]).reshape(-1)
            self._view(strip, part.size)[:] = part
            self._call("page_rows", first, min(rows, height - first))
        self._call("page_finish")
        count = int(np.prod(shape))
        values = self._view(self._call("page_input"), 4 * count).view(np.float32)
        return values.reshape(shape).copy()

    def _error(self, error: int) -> Exception:
        detail, node = self._text("detail"), self._text("node")
        if error == _UNSUPPORTED:
            where = f" (node {node!r})" if node else ""
            return OperatorError(
                f"the graph has the operator {detail}{where}, or a setting of it, "
                "that the web page and the C library lack"
            )
        if error == _ARGUMENT:
            return InputError("the file has no activation ranges, which int8 needs")
        if error == _MEMORY:
            return UnsupportedError("the network is too large for the web page and the C library")
        kind = _DAMAGE[error]
        sentence = str(kind.__doc__).strip().rstrip(".").replace("`", "")
        return kind(f"{sentence} ({detail})" if detail else sentence)

    def _text(self, what: str) -> str:
        place, size = self._call(f"page_{what}"), self._call(f"page_{what}_bytes")
        return self._view(place, size).tobytes().decode(errors="replace")

    def _call(self, function: str, *arguments: int) -> int:
        called: Any = self._exports[function]
        return int(called(self._store, *arguments) or 0) & 0xFFFFFFFF

    def _view(self, place: int, size: int) -> Pixels:
        memory: Any = self._exports["memory"]
        address = ctypes.addressof(memory.data_ptr(self._store).contents) + place
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
