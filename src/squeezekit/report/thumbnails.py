"""Small copies of images that a page carries inside it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

_SIDE = 160
_PIXEL_ART = 64
"""Images no larger than this are kept as they are: the page enlarges their pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image.

    Attributes:
        uri: its data URI.
        pixelated: whether it is so small that its pixels should stay sharp when enlarged.
    """

    uri: str
    pixelated: bool


def thumbnail(image: Image.Image) -> Thumbnail:
    """A copy of at most 160 pixels a side."""
    pixelated = max(image.size) <= _PIXEL_ART
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if pixelated:
        small.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        small.convert("RGB").save(file, "JPEG", quality=80)
        kind = "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
    return Thumbnail(uri, pixelated)
