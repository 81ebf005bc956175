"""Recognises, by the first bytes, a file that is named like a model but is something else."""

from __future__ import annotations

import zipfile
from pathlib import Path

from squeezekit.errors import InputError

HEAD_BYTES = 512
"""How many of the first bytes are needed to recognise a file."""

_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself by git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras): export it to ONNX"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF"),
)  # fmt: skip
_ZIP = b"PK\x03\x04"
_PICKLE = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def foreign_kind(path: Path | str) -> str | None:
    """What a file is instead of a network: "a Git LFS pointer: ..."; None if it may be one.

    Raises:
        InputError: if it cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        return "empty"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "a web page, not the file that a link on it leads to"
    torch = path.suffix.lower() in (".pth", ".pt")
    if head.startswith(_ZIP):
        return _zip_kind(path, torch)
    if head.startswith(_PICKLE) and path.suffix.lower() != ".net" and not torch:
        return "a Python pickle, which could run anything when it is read"
    return None


def _zip_kind(path: Path, torch: bool) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a zip archive, and damaged"
    if "constants.pkl" in inside:
        return "a TorchScript archive, which holds a program: export the model to ONNX"
    if "data.pkl" in inside:
        return None if torch else "a file that torch.save wrote: name it .pth"
    return "a zip archive: unpack it, or export the model in it to ONNX"


def require_network(path: Path | str) -> None:
    """Refuse a file that is clearly not what its name says.

    Raises:
        InputError: naming what it is, or where it cannot be read.
    """
    kind = foreign_kind(path)
    if kind is not None:
        article = "is " if kind == "empty" else "holds no network: it is "
        raise InputError(f"{path}: {article}{kind}")
