"""Explores designs and leaves the page about them: `explore`, the front door's."""

from __future__ import annotations

from pathlib import Path

from squeezekit.data.folders import ImageSet
from squeezekit.data.photos import Photos, folder_or_set
from squeezekit.exploration import run
from squeezekit.exploration.page import PAGE, write_page
from squeezekit.exploration.run import Exploration, ExploreConfig
from squeezekit.models import catalogue
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.training.start import DEFAULT_MODEL


def explore(
    photos: Photos,
    out: Path | str = "explore",
    config: ExploreConfig | None = None,
    *,
    command: str = "",
    progress: Progress = silent,
    note: Note = silent_note,
) -> Exploration:
    """Search for networks that are accurate, small and quick; the same call joins in, or goes on.

        found = sk.explore("photos", out="designs", config=sk.ExploreConfig(trials=20))
        [result.file for result in found.front]            # the networks that none beats

    Args:
        photos: with labels, in any form (see `data.photos.Photos`); arrays are prepared for the
            model. Of a folder, a part "test" is used for nothing but a last measurement.
        out: a folder for the study, the networks and the page.
        config: what to explore, how long, where the study is.
        command: what to type to do the same again, for the page.
        progress: told of the study's trials, whoever does them, and of what this worker does.
        note: told a line about each trial.

    Returns:
        All that is known by now. After Ctrl-C the page shows what there is.

    Raises:
        InputError: where photos, folder or database cannot be used, or the study there is another.
    """
    config, out = config or ExploreConfig(), Path(out)
    if isinstance(photos, (str, Path)):
        data: Path | ImageSet = Path(photos)
    else:
        model = catalogue.create(config.model or DEFAULT_MODEL)
        data = folder_or_set(photos, model.metadata)

    def write(found: Exploration) -> None:
        told = command
        if config.storage is not None:  # a page is for others to see, and that has a password
            told = told.replace(config.storage, found.storage)
        write_page(found, out / PAGE, command=told)

    found = run.explore(data, out, config, progress=progress, note=note, on_pause=write)
    write(found)
    return found
