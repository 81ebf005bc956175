"""What a TensorFlow Lite file says about itself: how images are prepared, names of classes.

Schema: tflite-support/metadata/metadata_schema.fbs. The names are in a zip archive at the end.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from squeezekit.sqz.network import Metadata

IDENTIFIER = b"TFL3"
"""At byte 4 of every .tflite."""

NAME = "TFLITE_METADATA"
"""The name of the buffer that holds this, in the model."""

LABELS = "labels.txt"
"""The name of the file in the archive, for the files that are written here."""

_IDENTIFIER = b"M001"
_MOST_LABEL_BYTES = 1 << 20
_IMAGE, _NORMALIZATION, _AXIS_LABELS = 2, 1, 2  # numbers of the schema's kinds
_RGB, _GRAYSCALE = 1, 2


@dataclass(frozen=True)
class About:
    """What was found.

    Attributes:
        mean, std: x = (pixel - mean) / std, for all channels or one for each; empty if not said.
        labels: the names of the classes; empty if there are none.
        licence: of the weights; may be empty.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    licence: str = ""

    def normalization(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel, in units of a pixel; None if not said."""
        if not self.mean or not {len(self.mean), len(self.std)} <= {1, channels}:
            return None
        if not all(map(math.isfinite, (*self.mean, *self.std))) or 0.0 in self.std:
            return None
        wide = [part * channels if len(part) == 1 else part for part in (self.mean, self.std)]
        return wide[0], wide[1]


# --------------------------------------------------------------------------------------- writing


def about(metadata: Metadata) -> bytes:
    """The flatbuffer about a network: its image's size and normalisation, its labels, its licence.

    Channels are in the order RGB, or grey, whatever the network's own order is.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1024)

    def table(slots: int, fields: Mapping[int, tuple[str, Any]]) -> int:
        builder.StartObject(slots)
        for slot, (kind, value) in fields.items():
            getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
        return int(builder.EndObject())

    def offset(value: int) -> tuple[str, int]:
        return "UOffsetTRelative", value

    def text(value: str) -> tuple[str, int]:
        return offset(builder.CreateString(value))

    def tables(*values: int) -> tuple[str, int]:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependUOffsetTRelative(value)
        return offset(builder.EndVector())

    def floats(values: Sequence[float]) -> tuple[str, int]:
        return offset(builder.CreateNumpyVector(np.array(values, "<f4")))

    preprocessing = metadata.preprocessing
    order = -1 if preprocessing.color == "BGR" else 1
    size = table(2, {0: ("Uint32", preprocessing.crop), 1: ("Uint32", preprocessing.crop)})
    color = _GRAYSCALE if preprocessing.color == "L" else _RGB
    image = table(2, {0: ("Int8", color), 1: offset(size)})
    content = table(2, {0: ("Uint8", _IMAGE), 1: offset(image)})
    mean = floats([m / preprocessing.scale for m in preprocessing.mean[::order]])
    std = floats([s / preprocessing.scale for s in preprocessing.std[::order]])
    normalized = table(2, {0: mean, 1: std})
    unit = table(2, {0: ("Uint8", _NORMALIZATION), 1: offset(normalized)})
    taken = table(7, {0: text("image"), 3: offset(content), 4: tables(unit)})
    given = {0: text(metadata.output)}
    if metadata.labels:
        given[6] = tables(table(4, {0: text(LABELS), 2: ("Int8", _AXIS_LABELS)}))
    subgraph = table(7, {2: tables(taken), 3: tables(table(7, given))})
    fields = {
        0: text(metadata.title or metadata.name),
        1: text("\n".join(metadata.provenance)),
        3: tables(subgraph),
        5: text(metadata.licence),
        7: text("1.0.0"),
    }
    builder.Finish(table(8, fields), _IDENTIFIER)
    return bytes(builder.Output())


def with_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """A model with the names of its classes behind it; a name's line breaks become blanks."""
    if not labels:
        return model
    whole = io.BytesIO(model)
    whole.seek(0, io.SEEK_END)
    entry = zipfile.ZipInfo(LABELS)  # of 1980, so that the same network gives the same bytes
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, "".join(f"{' '.join(name.splitlines())}\n" for name in labels))
    return whole.getvalue()


# --------------------------------------------------------------------------------------- reading


def read_about(model: Any, data: bytes) -> About:  # noqa: ANN401 - generated code
    """What a file says, as far as a classifier of images goes by it.

    Args:
        model: the package tflite's `Model` of the file.
        data: the whole file.

    Raises:
        Exception: of any kind, where an offset in a damaged file leads astray.
    """
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if (entry.Name() or b"").decode(errors="replace") == NAME:
            stored = model.Buffers(entry.Buffer()).DataAsNumpy()
            if not isinstance(stored, int) and stored is not None:
                return _read(stored.tobytes(), data)
    return About()


def _read(stored: bytes, data: bytes) -> About:
    if stored[4:8] != _IDENTIFIER:
        return About()
    root = _Table.root(stored)
    graphs = root.tables(3)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    if graphs:
        for tensor in graphs[0].tables(2)[:1]:
            for unit in tensor.tables(4):
                if unit.number(0) == _NORMALIZATION and (options := unit.table(1)) is not None:
                    mean, std = options.floats(0), options.floats(1)
        for tensor in graphs[0].tables(3)[:1]:
            for file in tensor.tables(6):
                if file.number(2) == _AXIS_LABELS and not labels:
                    labels = _labels(data, file.text(0))
    return About(mean, std, labels, root.text(5))


def _labels(data: bytes, name: str) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entry = archive.getinfo(name)
            if entry.file_size > _MOST_LABEL_BYTES:
                return ()
            with archive.open(entry) as file:
                text = file.read(_MOST_LABEL_BYTES + 1)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return ()
    if len(text) > _MOST_LABEL_BYTES:
        return ()
    return tuple(text.decode("utf-8", errors="replace").splitlines())


class _Table:
    """A table of a flatbuffer; what is not there reads as nothing."""

    def __init__(self, table: Any) -> None:  # noqa: ANN401 - the package has no types
        self._table = table

    @classmethod
    def root(cls, data: bytes) -> _Table:
        from flatbuffers import encode, packer, table

        start = encode.Get(packer.uoffset, data, 0)
        return cls(table.Table(data, start))

    def _at(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def number(self, slot: int) -> int:
        from flatbuffers import number_types

        where = self._at(slot)
        return (
            int(self._table.Get(number_types.Uint8Flags, self._table.Pos + where)) if where else 0
        )

    def text(self, slot: int) -> str:
        where = self._at(slot)
        found = self._table.String(self._table.Pos + where) if where else b""
        return bytes(found).decode(errors="replace")

    def table(self, slot: int) -> _Table | None:
        from flatbuffers import table

        where = self._at(slot)
        if not where:
            return None
        return _Table(table.Table(self._table.Bytes, self._table.Indirect(self._table.Pos + where)))

    def tables(self, slot: int) -> list[_Table]:
        from flatbuffers import table

        where = self._at(slot)
        if not where:
            return []
        first = self._table.Vector(where)
        count = min(int(self._table.VectorLen(where)), 64)
        places = [self._table.Indirect(first + 4 * i) for i in range(count)]
        return [_Table(table.Table(self._table.Bytes, place)) for place in places]

    def floats(self, slot: int) -> tuple[float, ...]:
        from flatbuffers import number_types

        where = self._at(slot)
        if not where:
            return ()
        found = self._table.GetVectorAsNumpy(number_types.Float32Flags, where)
        return tuple(float(number) for number in found[:8])
