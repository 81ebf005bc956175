"""The compiled files that come with the package, checked before they are run."""

from __future__ import annotations

from pathlib import Path

from squeezekit.errors import InputError

LIST = Path(__file__).with_name("shipped.sha256")
"""As sha256sum writes it; `make wasm` makes it anew."""


def checked(path: Path) -> bytes:
    """The bytes of a compiled file of the package.

    Raises:
        InputError: if they are not those that the package was made with.
    """
    data = path.read_bytes()
    name = path.relative_to(LIST.parent).as_posix()
    listed = dict(line.split("  ")[::-1] for line in LIST.read_text("ascii").splitlines())
    if listed.get(name) != _sha256(data):
        raise InputError(f"{path} is damaged, or was changed: install squeezekit again")
    return data


def _sha256(data: bytes) -> str:
    # Of itself, as Python's own `random` does it: hashlib takes milliseconds to load OpenSSL.
    try:
        from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:
            from hashlib import sha256
    return str(sha256(data).hexdigest())
