"""The public function `explore`: explores designs and writes the page about them."""

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
    """Search for networks that are accurate, small and fast.

    The same call again goes on after an interruption. From another process or machine, it joins
    the study and shares the work.

        found = sk.explore("photos", out="designs", config=sk.ExploreConfig(trials=20))
        [result.file for result in found.front]            # the networks that no other beats

    Args:
        photos: photos with labels, in any form (see `data.photos.Photos`). Arrays must be prepared
            for the model. If a folder has a part "test", it is used only for the last measurement.
        out: a folder for the study, the networks and the page.
        config: what to explore, how long, and where the study is kept.
        command: what to type to do the same again, for the page.
        progress: called for the trials of the study, by any worker, and for this worker's tasks.
        note: called with a line about each trial.

    Returns:
        All results so far. After Ctrl-C the page shows those that there are.

    Raises:
        InputError: if the photos, folder or database cannot be used, or the folder or database
            holds another study.
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
