"""Pretrained weights by name: downloaded once from their publisher, checked, and kept."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from squeezekit.cache import CACHE_VARIABLE, cache_folder
from squeezekit.errors import InputError, WriteError
from squeezekit.files import alone
from squeezekit.progress import Progress, silent

MIRROR_VARIABLE = "SQUEEZEKIT_MIRROR"
"""The environment variable that names a folder or an address to fetch from instead."""

TIMEOUT_SECONDS = 20.0
"""How long a server may be silent, in seconds."""

_CHUNK_BYTES = 1 << 16
_MOST_BYTES = 100_000_000
"""The most bytes of a download. No network here is nearly as large; a server might never stop."""


@dataclass(frozen=True)
class Pretrained:
    """Weights that somebody has published.

    Attributes:
        name: what the user calls them.
        url: their publisher's address.
        sha256: the SHA-256 of the file, in hex; its first 8 digits where no more of it is
            published.
        licence: the licence that they are published under.
        description: one line.
    """

    name: str
    url: str
    sha256: str
    licence: str
    description: str

    @property
    def file_name(self) -> str:
        """The publisher's name of the file."""
        return self.url.rpartition("/")[2]


_ALL = (
    Pretrained(
        name="han-2016",
        url="https://raw.githubusercontent.com/songhan/SqueezeNet-Deep-Compression/"
        "5623e3cdbe1fcd83328c61ce2ee42c34ed319aa3/compressed_SqueezeNet.net",
        sha256="e4ab6960ae8cd81505e1c2136921201507e930966c53deaf15862a395b3a3261",
        licence="BSD-2-Clause",
        description="SqueezeNet v1.0 at 8 bits by its authors: ImageNet, Caffe's 227 pixels",
    ),
    Pretrained(
        name="torchvision-1.0",
        url="https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth",
        sha256="b66bff10",
        licence="BSD-3-Clause",
        description="SqueezeNet v1.0 of torchvision: ImageNet, 224 pixels, 58.1% top-1",
    ),
    Pretrained(
        name="torchvision-1.1",
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        licence="BSD-3-Clause",
        description="SqueezeNet v1.1 of torchvision: ImageNet, 224 pixels, 58.2% top-1",
    ),
)
PRETRAINED = {entry.name: entry for entry in _ALL}
"""The weights that are available by name."""


def fetch(name: str, cache_dir: Path | None = None, progress: Progress = silent) -> Path:
    """Get published weights, from the cache if they are there, else from their publisher.

    The next call resumes an interrupted download, if the server can. If several processes ask at
    the same time, one downloads and the others wait for it. The environment variable
    SQUEEZEKIT_MIRROR names a folder, or an http, https or file address, that holds the files under
    the publishers' names and is used instead.

    Args:
        name: one of `PRETRAINED`.
        cache_dir: where they are kept; `pretrained` in the cache folder if None.
        progress: called for the bytes downloaded.

    Returns:
        The file, its checksum verified just now.

    Raises:
        InputError: if there is no such name; the file in the cache is another one; it is not
            there and cannot be downloaded (the sentence says where to put it by hand); or what the
            server sent is not the published file.
    """
    if name not in PRETRAINED:
        raise InputError(f"there are no weights {name!r}: use {', '.join(PRETRAINED)}")
    entry = PRETRAINED[name]
    target = (cache_dir or cache_folder() / "pretrained") / entry.file_name
    if not target.exists():
        with _alone_with(target):
            if not target.exists():  # nobody else has fetched it meanwhile
                _download(entry, target, progress)
    if not _is_published(target, entry):
        raise InputError(
            f"{target} is damaged, or not the published file (its sha256 does not start with "
            f"{entry.sha256[:8]}): delete it to have it downloaded again"
        )
    return target


def at_hand(name: str) -> Path | None:
    """Published weights in the cache; None if they are not there, or not whole."""
    entry = PRETRAINED[name]
    target = cache_folder() / "pretrained" / entry.file_name
    return target if target.is_file() and _is_published(target, entry) else None


def _download(entry: Pretrained, target: Path, progress: Progress) -> None:
    part = target.with_name(f"{target.name}.part")
    address = _address(entry)
    if not (part.exists() and _is_published(part, entry)):
        _transfer(entry, address, part, target, progress)
    if not _is_published(part, entry):
        part.unlink()
        raise InputError(
            f"what {address} sent is not the published {entry.name} (its sha256 does not start "
            f"with {entry.sha256[:8]}), and was deleted: try again, or put the file at {target}"
        )
    part.replace(target)


def _address(entry: Pretrained) -> str:
    mirror = os.environ.get(MIRROR_VARIABLE, "")
    if not mirror:
        return entry.url
    if mirror.partition("://")[0] not in ("http", "https", "file"):
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise InputError(
                f"{MIRROR_VARIABLE} is {mirror!r}, which is neither a folder nor an http, https "
                "or file address"
            )
        mirror = folder.absolute().as_uri()
    return f"{mirror.rstrip('/')}/{entry.file_name}"


def _transfer(
    entry: Pretrained, address: str, part: Path, target: Path, progress: Progress
) -> None:
    """Download the rest of `part`; if that fails, what has arrived stays for the next time."""
    by_hand = f"run this again, or get the file from {entry.url} by hand and put it at {target}"
    try:
        with _response(address, part) as response:
            done, total = _append(response, part, f"download {entry.name}", progress)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = _reason(error)
    else:
        if done == total:
            return
        reason = f"the transfer stopped after {done:,} of {total:,} bytes"
    raise InputError(f"{entry.name} cannot be fetched from {address} ({reason}): {by_hand}")


def _response(address: str, part: Path) -> http.client.HTTPResponse:
    """Ask for the missing part; if the server cannot do that, for everything."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "squeezekit"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
            request, timeout=TIMEOUT_SECONDS
        )
        return response
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        part.unlink()
        return _response(address, part)


def _append(
    response: http.client.HTTPResponse, part: Path, task: str, progress: Progress
) -> tuple[int, int]:
    """Write what the server sends; returns the bytes there now, and how many there should be."""
    done = _resumed_at(response)
    if done and done != part.stat().st_size:
        raise OSError("the server sends another part than was asked for")
    length = response.headers.get("Content-Length", "")
    total = done + int(length) if length.isdecimal() else None
    with part.open("ab" if done else "wb") as file:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            if done > _MOST_BYTES:
                raise OSError(f"it is larger than {_MOST_BYTES:,} bytes")
            progress(task, done, total or done)
    return done, done if total is None else total


def _resumed_at(response: http.client.HTTPResponse) -> int:
    """The position of the first byte sent; 0 if the server (or file:) does not support ranges."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if not first.isdecimal():
        raise OSError("the server does not say which part it sends")
    return int(first)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"the server was silent for {TIMEOUT_SECONDS:g} seconds"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


def _is_published(path: Path, entry: Pretrained) -> bool:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    return digest.startswith(entry.sha256)


@contextmanager
def _alone_with(target: Path) -> Iterator[None]:
    """Wait until no other process downloads this file."""
    with ExitStack() as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(target.with_name(f"{target.name}.lock")))
        except (OSError, WriteError) as error:
            raise InputError(
                f"the cache folder {target.parent} cannot be written to ({error}): name another "
                f"one by the environment variable {CACHE_VARIABLE}"
            ) from None
        yield
