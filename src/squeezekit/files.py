"""Reads and writes whole files, and locks them: one sentence if it fails, nothing half written."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from squeezekit.errors import InputError, WriteError

LOCK = ".lock"
"""The name of the lock file in a folder that one process at a time may write to."""

_PART = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.part", re.DOTALL)
"""The names of files that are being written."""

_MOST_NAME_BYTES = 200  # file systems take 255, and a part's name is 15 longer

_UNSYNCED = {errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.EBADF, errno.EISDIR}
"""Why a folder cannot be synced on some file systems, which says nothing about its files."""


def read_bytes(path: Path | str) -> bytes:
    """A file's bytes, or one sentence about why there are none.

    Raises:
        InputError: if the file cannot be opened.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def check_writable(path: Path | str) -> None:
    """Find out before the work whether a file can be written after it; leaves nothing behind.

    Raises:
        WriteError: if its folder is missing or not writable, or the name is a folder's, a
            read-only file's or too long.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise WriteError(f"{path}: is a folder, not a file to write")
        target = _target(path)
        _mode_of(target)
        handle, part = _open_part(target)
    except FileNotFoundError:
        raise WriteError(f"{path}: there is no folder {path.parent}") from None
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    part.unlink()


def write_whole(path: Path | str, data: bytes) -> None:
    """Write a file through a temporary one beside it, so that no half-written file is ever seen.

    The file is on the disk when this returns. A symbolic link stays, and the file that it leads to
    is replaced. A file that exists keeps its mode. If an earlier writer of this file was killed,
    its half-written file is removed.

    Raises:
        WriteError: if the folder is missing or not writable, the file is read-only or no file,
            or the disk is full. The file is then what it was before.
    """
    path = Path(path)
    try:
        target = _target(path)
        mode = _mode_of(target)
        remove_half_written(target.parent, target.name)
        handle, part = _open_part(target)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                if mode is not None and sys.platform != "win32":
                    os.fchmod(handle, mode)
                os.fsync(handle)
                if sys.platform != "win32":
                    part.replace(target)  # while it is locked: it is not left behind before
            if sys.platform == "win32":
                part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from None


def remove_half_written(folder: Path, name: str | None = None) -> None:
    """Remove the files of writers that were killed within `write_whole`; for one file, or for all.

    Files that are being written now stay: their writers hold locks on them.
    """
    with suppress(OSError):
        for part in folder.iterdir():
            match = _PART.fullmatch(part.name)
            if match and (name is None or match[1] == _short(name)):
                _remove_if_left(part)


@contextmanager
def alone(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file during the `with`; it is removed afterwards.

    It is also freed if its holder dies; the next holder removes the file. On file systems without
    locks, everyone gets it.

    Args:
        path: the path of the lock file, in a folder that is there.
        busy: the sentence for whoever comes second; None lets them wait.

    Raises:
        InputError: with that sentence, where another process holds it.
        WriteError: if the lock file cannot be made.
    """
    handle = _held(path, busy)
    try:
        yield
    finally:
        if sys.platform == "win32":  # where an open file cannot be removed
            os.close(handle)
        with suppress(OSError):
            path.unlink()
        if sys.platform != "win32":
            os.close(handle)


def alone_in(folder: Path) -> AbstractContextManager[None]:
    """`alone` with a folder that only one process at a time may write to; made if need be.

    Raises:
        InputError: if another process works there.
        WriteError: if the folder cannot be made or written to.
    """
    make_folder(folder)
    return alone(
        folder / LOCK,
        busy=f"another squeezekit works in {folder}: wait until it is done, or name another folder",
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        WriteError: if that is impossible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be made ({error.strerror})") from None


def _held(path: Path, busy: str | None) -> int:
    """A handle of the lock file, locked."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WriteError(f"{path}: cannot be written ({error.strerror})") from None
        try:
            locked = True
            with suppress(OSError):  # some network file systems have no locks
                locked = _lock(handle, waits=busy is None)
            if not locked:
                raise InputError(busy)
            if _is_there(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # who held it before has removed it: another may have a new one


def _is_there(handle: int, path: Path) -> bool:
    if sys.platform == "win32":
        return True
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _target(path: Path) -> Path:
    """The file that is replaced: behind symbolic links, whether it is there or not."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _mode_of(target: Path) -> int | None:
    """The mode of a file that may be replaced; None if there is none."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
    if not mode & 0o222 or not os.access(target, os.W_OK):  # root is never denied access
        raise OSError(errno.EACCES, "it is read-only")
    return mode & 0o777


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_MOST_NAME_BYTES])


def _open_part(target: Path) -> tuple[int, Path]:
    """A new file beside the target, locked: no other process takes it for a dead one's."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        part = target.with_name(f".{_short(target.name)}.{os.urandom(4).hex()}.part")
        try:
            handle = os.open(part, flags, 0o666)
        except FileExistsError:
            continue
        if sys.platform == "win32":  # where what is open cannot be removed
            return handle, part
        with suppress(OSError):
            _lock(handle, waits=True)
        if os.fstat(handle).st_nlink:
            return handle, part
        os.close(handle)  # somebody took it for one, before it was locked


def _remove_if_left(part: Path) -> None:
    """Remove a part whose writer is dead."""
    with suppress(OSError):
        if sys.platform == "win32":  # which removes nothing that is open
            part.unlink()
            return
        handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _lock(handle, waits=False):
                part.unlink()
        finally:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Bring a folder's new names to the disk."""
    if sys.platform == "win32":  # which opens no folder
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # one may write to a folder that one may not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
    finally:
        os.close(handle)


if sys.platform == "win32":

    def _lock(handle: int, *, waits: bool) -> bool:
        """Lock a file; False where another process has it."""
        import msvcrt

        while True:
            try:
                os.lseek(handle, 0, os.SEEK_SET)
                msvcrt.locking(handle, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if waits and error.errno == errno.EDEADLK:  # it gives up after ten seconds
                    continue
                if not waits and error.errno in (errno.EACCES, errno.EDEADLK):
                    return False
                raise
            return True

else:

    def _lock(handle: int, *, waits: bool) -> bool:
        """Lock a file; False where another process has it."""
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
