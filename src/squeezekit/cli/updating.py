"""The verbs that ship only what changed: delta and apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli.common import Json, Limited, answer
from squeezekit.sqz.limits import DEFAULT

Old = Annotated[Path, typer.Argument(help="The .sqz that is out there.", show_default=False)]


def delta(
    old: Old,
    new: Annotated[Path, typer.Argument(help="The .sqz to be there instead.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .sqzd to write.")],
    limits: Limited = DEFAULT,
    as_json: Json = False,
) -> None:
    """Write the update that turns one .sqz into another, bit for bit."""
    from squeezekit.sqz.delta import delta as made

    size, of = len(made(old, new, out, limits=limits)), new.stat().st_size
    found = {"update": str(out), "update_bytes": size, "file_bytes": of}
    answer(as_json, found, None, f"{out}: {size:,} bytes, {size / of:.1%} of {new}")


def apply(
    old: Old,
    update: Annotated[Path, typer.Argument(help="The .sqzd for it.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .sqz to write; may be OLD.")],
    limits: Limited = DEFAULT,
    as_json: Json = False,
) -> None:
    """Turn a .sqz into the one that an update was made for: whole, or not at all."""
    from squeezekit.sqz.delta import apply as applied

    size = len(applied(old, update, out, limits=limits))
    answer(as_json, {"file": str(out), "file_bytes": size}, None, f"{out}: {size:,} bytes")
