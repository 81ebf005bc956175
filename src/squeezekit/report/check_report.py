"""The page of a check: what was found among photos, with small copies of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezekit.data.check import Checked, Photo
from squeezekit.errors import InputError
from squeezekit.files import write_whole
from squeezekit.report.html import render
from squeezekit.report.made import how_it_was_made
from squeezekit.report.thumbnails import Thumbnail, thumbnail
from squeezekit.runtime.images import open_image

MOST_SHOWN = 60
"""Photos of each kind on the page; the .json of `check --json` has all."""


@dataclass(frozen=True)
class _Shown:
    """A photo on the page: its small copy, None if it cannot be opened, and words below."""

    small: Thumbnail | None
    file: str
    words: str


def write_check_report(
    page: Path, checked: Checked, data: Path, *, command: str, seconds: float
) -> None:
    """Write the page.

    Raises:
        WriteError: if it cannot be written.
    """
    html = render(
        "check.html.jinja",
        data=data.resolve().name,
        metadata={
            "name": data.resolve().name,
            "licence": "",
            "provenance": (),
        },
        checked=checked,
        kinds=_kinds(checked),
        most=MOST_SHOWN,
        made=how_it_was_made(command, seconds),
        next_title="Next: train on what is left",
        next_lead="Move or delete the photos that are wrong, and check again.",
        next_steps=[],
    )
    write_whole(page, html.encode())


def _kinds(checked: Checked) -> list[tuple[str, str, int, list[_Shown]]]:
    """Title, what it means, how many, and the first of them; only what there is."""
    copies = [
        (photo, f"copies {number}: {_place(photo)}")
        for number, group in enumerate(_worst_first(checked), 1)
        for photo in group
    ]
    mislabelled = [
        (each.photo, f"{each.suggested}, not {each.photo.label}?")
        for each in checked.mislabelled or ()
    ]
    kinds = [
        ("Copies", "The same photo more than once: resized, saved again or mirrored.", copies),
        ("Probably another class", "What all the other photos say.", mislabelled),
        ("Blank", "Nothing can be seen.", [(photo, _place(photo)) for photo in checked.blank]),
        ("Tiny", "Too few pixels to see much.", [(photo, _place(photo)) for photo in checked.tiny]),
    ]
    shown = [
        (title, what, len(found), [_shown(photo, words) for photo, words in found[:MOST_SHOWN]])
        for title, what, found in kinds
        if found
    ]
    if checked.unreadable:
        broken = [_Shown(None, photo.file.name, why) for photo, why in checked.unreadable]
        what = "They cannot be opened."
        shown.append(("Broken", what, len(broken), broken[:MOST_SHOWN]))
    return shown


def _worst_first(checked: Checked) -> Sequence[tuple[Photo, ...]]:
    across = [*checked.across_parts, *checked.across_classes]
    return sorted(checked.copies, key=lambda group: group not in across)


def _place(photo: Photo) -> str:
    return "/".join(filter(None, (photo.part, photo.label)))


def _shown(photo: Photo, words: str) -> _Shown:
    try:
        return _Shown(thumbnail(open_image(photo.file)), photo.file.name, words)
    except InputError:
        return _Shown(None, photo.file.name, words)
