"""Files, read and written whole: one sentence where it fails, and never a half-written one."""

from __future__ import annotations

import os
from pathlib import Path

from squeezekit.errors import InputError

_PART = ".part"
"""How the names of files end that are being written."""


def read_bytes(path: Path | str) -> bytes:
    """A file's bytes, or one sentence about why there are none.

    Raises:
        InputError: where the file cannot be opened.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def remove_half_written(folder: Path) -> None:
    """Remove what crashes within `write_whole` left in a folder that nobody else writes to now."""
    for part in folder.glob(f".*.????????{_PART}"):
        part.unlink(missing_ok=True)


def check_writable(path: Path | str) -> None:
    """Find out before the work whether a file can be written after it; leaves nothing behind.

    Raises:
        InputError: where its folder is missing or not writable, or the name is a folder's or too
            long.
    """
    import tempfile

    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file to write")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no folder {path.parent}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    Path(temporary).unlink()


def write_whole(path: Path | str, data: bytes) -> None:
    """Write a file through a temporary one beside it, so that no half-written file is ever seen.

    Raises:
        InputError: where the folder is missing or not writable.
    """
    import tempfile  # which takes longer to load than a small network takes to read

    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; give this one the mode that open() would have given it.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
