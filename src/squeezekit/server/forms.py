"""The images of a request: its body, or the files of a form; limits are checked as bytes arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

MOST_PARTS = 16
"""The most parts of a form; a browser sends one for each field."""

_FORM = "multipart/form-data"


class FormError(Exception):
    """A form cannot be read; the sentence repeats nothing from the form."""


@dataclass
class Upload:
    """An image that was sent.

    Attributes:
        name: the name of the file, as its sender calls it; empty if the image is the body itself.
        data: its bytes.
    """

    name: str
    data: bytearray


async def uploads(request: web.Request, chunks: AsyncIterator[bytes]) -> list[Upload]:
    """The images of a request.

    A form is parsed as it arrives, one chunk at a time, so that other requests have their turn in
    between.

    Args:
        request: its headers say whether it is a form.
        chunks: the chunks of its body.

    Raises:
        FormError: if a form has no file, more than 16 parts, or cannot be read.
    """
    if request.content_type != _FORM:
        whole = Upload("", bytearray())
        async for chunk in chunks:
            whole.data += chunk
        return [whole]
    form = _Form(request)
    async for chunk in chunks:
        form.feed(chunk)
    return form.files()


class _Form:
    """The files of a form, as far as it has arrived."""

    def __init__(self, request: web.Request) -> None:
        boundary = parse_options_header(request.headers["Content-Type"])[1].get("boundary", "")
        if not boundary or not boundary.isascii() or len(boundary) > 70:  # RFC 2046
            raise FormError("the form has no boundary of 1 to 70 characters")
        self._parser = PushMultipartParser(boundary, max_segment_count=MOST_PARTS)
        self._files: list[Upload] = []
        self._current: Upload | None = None

    def feed(self, chunk: bytes) -> None:
        if self._parser.closed:  # what follows the last boundary is nothing to us
            return
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    named = event.filename is not None
                    self._current = Upload(event.filename or "", bytearray()) if named else None
                    if self._current is not None:
                        self._files.append(self._current)
                elif event and self._current is not None:
                    self._current.data += event
        except ParserLimitReached:
            raise FormError(
                f"the form has more than {MOST_PARTS} parts, or too long a header"
            ) from None
        except MultipartError:
            raise FormError("the form cannot be read: it is not multipart/form-data") from None

    def files(self) -> list[Upload]:
        try:
            self._parser.close()
        except MultipartError:
            raise FormError("the form is cut short") from None
        chosen = [upload for upload in self._files if upload.name or upload.data]
        if not chosen:
            raise FormError("the form has no file")
        return chosen
