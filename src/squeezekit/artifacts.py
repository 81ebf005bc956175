"""Work that leaves files: what compress, sensitivity, check, bench and export write, and pages.

Every name is checked before the work begins, and every file appears whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from squeezekit.errors import InputError
from squeezekit.files import check_writable, write_whole
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.sqz.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from squeezekit.compression.front import Compressed
    from squeezekit.compression.method import Method
    from squeezekit.compression.sensitivity import Sensitivity
    from squeezekit.data.check import Checked
    from squeezekit.data.photos import Photos
    from squeezekit.runtime.preprocessing import Given
    from squeezekit.speed.race import Figures, RaceConfig
    from squeezekit.sqz.container import CoderName


def require_name(path: Path | None, ending: str, what: str) -> None:
    """See that a file, if there is to be one, has this ending and can be written.

    Raises:
        InputError: where it cannot be.
    """
    if path is None:
        return
    if path.suffix.lower() != ending:
        raise InputError(f"{path}: the name of the {what} must end in {ending}")
    check_writable(path)


def compress(
    network: Path,
    photos: Photos | None,
    config: Method,
    out: Path,
    *,
    labels: Path | None = None,
    int8: bool = False,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
    report: Path | None = None,
    curve: Path | None = None,
    command: str = "",
    progress: Progress = silent,
    note: Note = silent_note,
) -> Compressed:
    """Make a network small, as `compression.front.compress` does, and write the `.sqz` and pages.

    What is done is kept beside `out` until the end: after an interruption the same call goes on.

    Args:
        network: the file or folder of the network to compress.
        photos: as there.
        config: the method and its settings.
        out: the `.sqz` to write.
        labels: a file that names the network's outputs, in order.
        int8: find the ranges of activations on the photos.
        preprocessing: how the network wants its images, where its file does not say it.
        limits: how much the file may ask for; None trusts it.
        report: a page about it, .html.
        curve: a page with accuracy against bytes, .html; needs a config that measures it.
        command: what to type to do the same again, for the pages.
        progress: told of all that takes long.
        note: told of photos that cannot be used, and where an interrupted work goes on.

    Raises:
        InputError: as there, or where a file has another ending or cannot be written.
    """
    from squeezekit.compression import front
    from squeezekit.compression.work import Work
    from squeezekit.sqz import container

    require_name(curve, ".html", "page")
    require_name(out, ".sqz", "file to write")
    if report is not None:
        check_writable(report)
    start = time.perf_counter()
    work = Work(out.with_name(f"{out.name}.work"))
    try:
        with work.alone():
            small = front.compress(
                network, photos, config, labels=labels, int8=int8, preprocessing=preprocessing,
                limits=limits, work=work, progress=progress, note=note,
            )  # fmt: skip
            container.write(small.network, out, small.coder)
            work.forget()
    except KeyboardInterrupt:
        if work.files():
            note(f"interrupted: the same command goes on from {work.folder}")
        raise
    seconds = time.perf_counter() - start
    if curve is not None and small.curve is not None:
        from squeezekit.report.curve_report import write_curve_report

        write_curve_report(
            curve, small.curve.points, small.stages[0], small.network.metadata,
            command=command, seconds=seconds, paid=small.curve.paid,
        )  # fmt: skip
    if report is not None:
        from squeezekit.report.compress_report import write_compress_report

        write_compress_report(
            report, out, small.stages, small.evaluation, command=command, seconds=seconds,
            before=small.before, unseen=small.unseen, temperature=small.temperature,
        )  # fmt: skip
    return small


def sensitivity(
    network: Path,
    photos: Path,
    out: Path | None = None,
    *,
    max_drop: float = 1.0,
    labels: Path | None = None,
    limit: int | None = None,
    preprocessing: Given = None,
    report: Path | None = None,
    command: str = "",
    progress: Progress = silent,
    note: Note = silent_note,
) -> Sensitivity:
    """Measure how far each layer can be pruned, as `front.sensitivity`; write densities and a page.

    Args:
        network: the file or folder of the network.
        photos: a folder of class folders.
        out: densities for `compress`, .json.
        max_drop: points of top-1 that each layer may lose alone, for the densities.
        labels: a file that names the network's outputs, in order.
        limit: measure on this many photos, spread evenly.
        preprocessing: how the network wants its images, where its file does not say it.
        report: a page with the curves.
        command: what to type to do the same again, for the page.
        progress: told of each measurement.
        note: told of class folders without a photo.

    Raises:
        InputError: as there, or where a file has another ending or cannot be written.
    """
    from squeezekit import front

    require_name(out, ".json", "file to write")
    if report is not None:
        check_writable(report)
    start = time.perf_counter()
    found = front.sensitivity(
        network, photos, labels=labels, limit=limit, preprocessing=preprocessing,
        progress=progress, note=note,
    )  # fmt: skip
    if out is not None:
        write_whole(out, (json.dumps(found.as_json(max_drop), indent=2) + "\n").encode())
    if report is not None:
        from squeezekit.interop.weights import read
        from squeezekit.report.page import Step
        from squeezekit.report.sensitivity_report import write_sensitivity_report

        densities = out or "densities.json"
        step = Step(
            "Prune and retrain by these densities",
            f"squeezekit compress {network} --data {photos} --density {densities} -o small.sqz",
        )
        metadata = read(network, preprocessing=preprocessing).metadata
        seconds = time.perf_counter() - start
        write_sensitivity_report(
            report, found, metadata,
            max_drop=max_drop, command=command, seconds=seconds, next_steps=[step],
        )  # fmt: skip
    return found


def check(
    photos: Path,
    network: Path | None = None,
    *,
    seed: int = 0,
    preprocessing: Given = None,
    report: Path | None = None,
    command: str = "",
    progress: Progress = silent,
    note: Note = silent_note,
) -> Checked:
    """Look through photos, as `data.check.check` does, and write a page.

    Args:
        photos: class folders, or shards.
        network: judges the labels: any that was not trained on these photos.
        seed: of what is random.
        preprocessing: how the network wants its images, where its file does not say it.
        report: a page with small copies of the photos, .html.
        command: what to type to do the same again, for the page.
        progress: told of the photos that were looked at.
        note: told what is assumed of the network's preprocessing.

    Raises:
        InputError: where photos or network cannot be used, or the page cannot be written.
    """
    from squeezekit.data import check as checking

    if report is not None:
        check_writable(report)
    if preprocessing is not None and network is None:
        raise InputError("preprocessing describes the network that judges labels: name one")
    start = time.perf_counter()
    classifier = None
    if network is not None:
        from squeezekit.interop.weights import read
        from squeezekit.runtime.classifier import from_network

        classifier = from_network(read(network, preprocessing=preprocessing, note=note))
    checked = checking.check(photos, classifier=classifier, seed=seed, progress=progress)
    if report is not None:
        from squeezekit.report.check_report import write_check_report

        seconds = time.perf_counter() - start
        write_check_report(report, checked, photos, command=command, seconds=seconds)
    return checked


def bench(
    network: Path,
    config: RaceConfig | None = None,
    out: Path | None = None,
    *,
    image: Path | None = None,
    preprocessing: Given = None,
    command: str = "",
    progress: Progress = silent,
    note: Note = silent_note,
) -> tuple[list[Figures], dict[str, Any]]:
    """Race squeezekit against every other runtime that is installed, as `speed.race.race` does.

    Args:
        network: anything that `interop.weights.read` reads.
        config: how much is measured.
        out: everything measured, .json.
        image: what is classified; a made picture where None.
        preprocessing: how the network wants its images, where its file does not say it.
        command: what was typed, for the file.
        progress: told of every turn.
        note: told what is assumed of the network's preprocessing.

    Returns:
        The figures of each runtime, and what `out` holds.

    Raises:
        InputError: where network or image cannot be used, or the file cannot be written.
    """
    from squeezekit.speed.race import RaceConfig, race, race_report

    if out is not None:
        check_writable(out)
    if image is not None and not image.is_file():
        raise InputError(f"{image}: there is no such file")
    config, read_by_it = config or RaceConfig(), network
    with TemporaryDirectory() as folder:
        # The race reads a file in processes of its own, which are told nothing else.
        if preprocessing is not None:
            from squeezekit.interop.weights import read, write  # memory, which the race counts

            stated = read(network, preprocessing=preprocessing, note=note)
            read_by_it = write(stated, Path(folder, "stated.sqz"))
        figures = race(read_by_it, config, image=image, progress=progress)
    report = {"weights": str(network), "command": command, **race_report(figures, config)}
    if out is not None:
        write_whole(out, (json.dumps(report, indent=2) + "\n").encode())
    return figures, report


def export(
    network: Path,
    out: Path,
    *,
    coder: str | None = None,
    labels: Path | None = None,
    prototxt: Path | None = None,
    int8: bool = False,
    photos: Path | None = None,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Path:
    """Write the network of one file in another format, without loss.

    Args:
        network: anything that `interop.weights.read` reads.
        out: .sqz, .onnx, .safetensors or .html, which the ending tells.
        coder: of a `.sqz` or a page.
        labels: a file that names the outputs, in order: .txt, .tsv or .json.
        prototxt: of a `.caffemodel`; the one beside it where None.
        int8: write ranges for int8 into a `.sqz`, or an `.onnx` that computes in int8.
        photos: to calibrate int8 on; any will do.
        preprocessing: how the network wants its images, where its file does not say it.
        limits: how much the file may ask for; None trusts it.
        progress: told of the calibration.
        note: told what is assumed of the network.

    Returns:
        The path.

    Raises:
        InputError: where network, labels or photos cannot be used, or `out` cannot be written.
        UnsupportedError: where the format cannot hold the network.
    """
    from squeezekit import front
    from squeezekit.evaluation import labelled
    from squeezekit.interop.weights import read, writable, write
    from squeezekit.models.fold import fold_batch_norm
    from squeezekit.runtime.labels import read_labels

    if photos is not None and not int8:
        raise InputError("photos are only for int8, which is calibrated on them")
    writable(out, coder=coder, int8=int8)
    names = () if labels is None else read_labels(labels)[0]
    found = read(
        network, prototxt=prototxt, preprocessing=preprocessing, labels=names, limits=limits,
        note=note,
    )  # fmt: skip
    if len(names) != 1 or len(found.metadata.labels) != 2:  # else of one output, for that class
        found = dataclasses.replace(found, metadata=labelled(found, labels=labels, note=note))
    if photos is not None:
        found = front.calibrate(found, photos, progress=progress)
    elif int8:
        found = fold_batch_norm(found)
        if not found.metadata.activations:
            raise InputError("int8 must be calibrated on photos: name some")
    return write(found, out, coder=cast("CoderName | None", coder), int8=int8)
