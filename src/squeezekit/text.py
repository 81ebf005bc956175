"""Texts from files, folders and strangers, made safe to store, to show and to print."""

from __future__ import annotations

import json
import re
from typing import TextIO

_LONE_BYTE = re.compile("[\ud800-\udfff]")
"""What Python reads a byte of a name as that is not UTF-8 (PEP 383), and half characters."""

_NOT_PLAIN_IN_JSON = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that JSON allows, but that control terminals, fool the eye, or cannot be encoded."""


def encodable(text: str) -> str:
    r"""A text that UTF-8 can hold: a byte of a file's name that is not UTF-8 becomes "\xe9".

    Different texts stay different, so that two classes do not become one.
    """
    return _LONE_BYTE.sub(_byte, text)


def shown(text: str) -> str:
    """A text from a file or a folder, without characters that control a terminal or fool the eye.

    One line, whatever it was: line ends are replaced too.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in encodable(text))


def json_line(content: object, encoding: str | None = "utf-8") -> str:
    """JSON on one line, with text as it is where that is safe, and else escaped.

    Every escape stands for the very character, so that a path that comes back names its file.

    Args:
        content: whatever JSON takes; no NaN, no infinity.
        encoding: the encoding of where it goes.
    """
    plain = (encoding or "ascii").lower().replace("-", "").replace("_", "") == "utf8"
    line = json.dumps(content, ensure_ascii=not plain, allow_nan=False)
    return _NOT_PLAIN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def replace_unprintable(*streams: TextIO) -> None:
    """Let streams write what their encoding lacks as "?" instead of failing in the middle."""
    for stream in streams:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")


def _byte(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
