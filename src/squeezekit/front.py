"""The public functions that join several parts, from train and evaluate to cost.

Each function imports the parts that it needs, so evaluating a file needs no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezekit.errors import InputError
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.sqz.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from squeezekit.compression.sensitivity import Sensitivity
    from squeezekit.data.folders import ImageSet
    from squeezekit.data.photos import Photos
    from squeezekit.evaluation import Evaluation
    from squeezekit.models.cost import Cost
    from squeezekit.runtime.preprocessing import Given
    from squeezekit.sqz.network import Metadata, Network
    from squeezekit.training.recipe import Recipe
    from squeezekit.training.run import Run


def train(
    photos: Photos,
    out: Path | str,
    *,
    model: str | None = None,
    init: object = None,
    recipe: str | Recipe | None = None,
    teacher: object = None,
    resume: bool = False,
    seed: int = 0,
    preprocessing: Given = None,
    progress: Progress = silent,
    note: Note = silent_note,
    **settings: Any,  # noqa: ANN401
) -> Network:
    """Train a network on photos, and write a folder with everything about the run.

        net = sk.train("photos", out="run")
        net = sk.train("photos", out="run", init="han-2016", epochs=5)
        net = sk.train(loader, out="run", model="squeezenet-1.0", recipe="modern")

    Without `init` and `model`, trained weights are used where they are at hand: in a file beside
    the photos, or fetched before (see `training.at_hand`); a note says which.

    The folder gets `weights.safetensors` (`sk.read("run")` opens it again), `recipe.json`,
    `results.csv` with one line for each epoch, a page `report.html` and a model card. The page
    shows the accuracy on the held-out photos; `sk.evaluate(net, photos)` measures it again.
    `training_run` takes the same arguments and gives the `Run` with all of this.

    Args:
        photos: photos with labels, in any form (see `data.photos.Photos`): a folder of class
            folders, a loader of (images, labels), pairs of PIL images and labels. Where they are
            not split into training and validation, a random fifth of each class is held out.
        out: the folder of the run, new or empty.
        model: a name from `squeezekit models`. None takes the architecture of `init`, or
            squeezenet-1.1 without `init`.
        init: a network to start from: a Network, or anything that `read` takes. It gets a new last
            layer, which keeps what it knows of classes that it has already. Pruned weights stay
            zero.
        recipe: "finetune" (the default with trained weights), "refine" (the default where they know
            the classes already), "scratch" (the default without), "modern", "paper", "distill",
            "dsd", or a `training.recipe.Recipe`.
        teacher: a network with the same classes, to learn from as well.
        resume: go on where the run in `out` was interrupted. Everything else must be the same.
        seed: starts the random numbers for the first weights, the split, the order of the photos,
            their augmentation and dropout.
        preprocessing: how the images for `init` are prepared, if its file does not say it. With
            `Stated(input_size=160)` the network is trained for images of 160 pixels a side.
        progress: called while photos are decoded, trained on and evaluated (see `progress_bar`).
        note: called with each sentence that a person should read: photos that were skipped, uneven
            classes.
        settings: fields of the recipe to change, such as `epochs=5`, `minutes=10` or
            `mirror=False`.

    Returns:
        The trained network.

    Raises:
        InputError: if the photos, weights, recipe or folder cannot be used.
    """
    return training_run(
        photos, out, model=model, init=init, recipe=recipe, teacher=teacher, resume=resume,
        seed=seed, settings=settings, preprocessing=preprocessing, progress=progress, note=note,
    ).network  # fmt: skip


def training_run(
    photos: Photos,
    out: Path | str,
    *,
    model: str | None = None,
    init: object = None,
    recipe: str | Recipe | None = None,
    teacher: object = None,
    resume: bool = False,
    seed: int = 0,
    title: str = "",
    settings: Mapping[str, object] | None = None,
    preprocessing: Given = None,
    progress: Progress = silent,
    note: Note = silent_note,
    command: str = "",
) -> Run:
    """Train as `train` does, and return the whole run. Arguments and errors are the same.

    There are three more arguments: `settings` are fields of the recipe to change, `title` is what
    people call the network (if empty, the name of the data folder), and `command` is what to type
    to do the same again, for the page of the run.

    Returns:
        The run: the network, its evaluation, the result of each epoch, the folder.
    """
    from squeezekit.data.photos import folder_or_set
    from squeezekit.interop.weights import as_network
    from squeezekit.models.input_size import told_cost, with_input_size
    from squeezekit.training import recipe as recipes
    from squeezekit.training.at_hand import trained_at_hand
    from squeezekit.training.class_changes import class_changes, told_changes
    from squeezekit.training.run import train_run
    from squeezekit.training.start import (
        DEFAULT_MODEL,
        MANY_PHOTOS,
        TRAINED_START,
        cure_of,
        knows_classes,
        start_of,
    )

    name = recipe if isinstance(recipe, str) else ""
    given = [
        init,
        model,
        teacher,
        _without_size(preprocessing, None)[0],
        (settings or {}).get("variant"),
    ]
    if given == [None] * len(given) and recipe in (None, "finetune"):
        folder = Path(photos) if isinstance(photos, (str, Path)) else None
        if (at_hand := trained_at_hand(folder, note)) is not None:
            note(at_hand.told)
            init = at_hand.network
    if recipe is None:
        name = "scratch" if init is None else "finetune"
    chosen = recipe if isinstance(recipe, recipes.Recipe) else recipes.named(name)
    chosen = recipes.changed(dataclasses.replace(chosen, seed=seed), settings or {})
    if name == "dsd" and (init is None or teacher is not None):
        raise InputError("the recipe dsd starts from trained weights, without a teacher")
    stated, size = _without_size(preprocessing, init)
    if stated is not None and (init is None or model is not None):
        raise InputError(
            "preprocessing describes the network to start from: it goes with init, without model"
        )
    source = None
    if init is not None:
        source = as_network(init, preprocessing=stated, progress=progress, note=note)
        if size is not None and model is None:
            own, source = source, with_input_size(source, size)
            note(told_cost(source, own))
    data: Path | ImageSet
    if isinstance(photos, (str, Path)):
        data = Path(photos)
    else:
        data = folder_or_set(photos, _prepared_for(model or DEFAULT_MODEL, source, chosen, size))
    whole = recipe is None and model is None
    if whole and source is not None and knows_classes(source, data, seed):
        chosen = recipes.changed(dataclasses.replace(recipes.refine(), seed=seed), settings or {})
    start = start_of(
        data, chosen, model=model, init=source, input_size=size,
        teacher=None if teacher is None else as_network(teacher, progress=progress, note=note),
    )  # fmt: skip
    out = Path(out)
    if name == "dsd":
        from squeezekit.compression.dsd import dsd_run

        run = dsd_run(start.network, data, out, chosen, resume, progress, note, title)
    else:
        for sentence in start.told:
            note(sentence)
        run = train_run(
            start.network, data, out, chosen, teacher=start.teacher, masked=start.masked,
            fresh_head=start.fresh_head, resume=resume, title=title,
            cure=cure_of(start, data, chosen, model, size), progress=progress, note=note,
        )  # fmt: skip
    if source is not None and run.writes:
        found = class_changes(source, run.network, run.evaluation, run.parts.measuring, progress)
        run = dataclasses.replace(run, changes=found)
        for sentence in told_changes(found):
            note(sentence)
    leave_report(run, data, command, note)
    if init is None and run.writes and run.data.images < MANY_PHOTOS:
        note(TRAINED_START)
    return run


def _without_size(given: Given, init: object) -> tuple[Given, int | None]:
    """What is known of the preprocessing without the size to train at, and that size.

    An .onnx file may leave its size open: reading it takes what is given as it is.
    """
    from squeezekit.runtime.stated import Stated

    onnx = isinstance(init, (str, Path)) and Path(init).suffix.lower() == ".onnx"
    if not isinstance(given, Stated) or given.input_size is None or onnx:
        return given, None
    rest = dataclasses.replace(given, input_size=None)
    return (None if rest == Stated() else rest), given.input_size


def _prepared_for(
    model: str, source: Network | None, recipe: Recipe, input_size: int | None
) -> Metadata:
    """The metadata of the network for which arrays of photos are prepared."""
    from squeezekit.models import catalogue

    if source is not None:
        return source.metadata
    return catalogue.create(model, input_size=input_size, variant=recipe.variant).metadata


def leave_report(run: Run, data: Path | ImageSet, command: str, note: Note) -> Path | None:
    """Write the page and the model card of a run. If that fails, the trained weights stay.

    Returns:
        The page; None if it could not be made (a note says so), or if another process of
        `torchrun` writes it for all.
    """
    if not run.writes:
        return None
    try:
        from squeezekit.report.run_report import write_run_report

        folder = data if isinstance(data, Path) else data.root
        return write_run_report(run, run.folder, data=folder, command=command)
    except Exception as error:
        note(f"the weights are in {run.folder}, but the report could not be made: {error}")
        return None


def evaluate(
    network: object,
    photos: Photos,
    *,
    part: str = "auto",
    labels: Path | str | None = None,
    limit: int | None = None,
    backend: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy.

        sk.evaluate("pets.sqz", "photos").top1          # percent
        sk.evaluate(net, loader)                        # gives batches of (images, labels)
        sk.evaluate(net, (images, labels), backend="torch")

    Args:
        network: a Network, a result of `compress`, a file, a Classifier.
        photos: photos with labels, in any form (see `data.photos.Photos`).
        part: which part of a folder to measure on. "val", "test" and "auto" leave out the photos
            that the network was trained on, as far as that is known; "train" and "all" keep them.
            "auto" is val if the folder is split, else everything.
        labels: a file with the names of the outputs, in order: .txt, .tsv or .json.
        limit: evaluate only this many photos, spread evenly.
        backend: "onnxruntime", "openvino" (faster for int8) or "torch".
        threads: how many threads the network may use; None is all cores.
        precision: "float" or "int8"; None is int8 if the network was calibrated for it.
        preprocessing: how the network's images are prepared, if its file does not say it.
        limits: how much the file may ask for, and how many pixels an image may have. None trusts
            the file.
        progress: called with the number of photos done, as task "evaluate".
        note: called with a sentence about class folders without a photo, and about photos that the
            network was trained on: how many were left out, or are included.

    Returns:
        The accuracy, and the answer for each photo.

    Raises:
        InputError: if the network cannot be used, or none of the photos can, or their classes are
            not those of the network.
    """
    from squeezekit import evaluation
    from squeezekit.classifying import classifier_of
    from squeezekit.data.held_out import memory_of
    from squeezekit.data.labelling import matched
    from squeezekit.data.measuring import photos_to_measure
    from squeezekit.data.photos import folder_or_set
    from squeezekit.interop.weights import run_folder

    classifier = classifier_of(
        network, backend=backend, threads=threads, precision=precision,
        preprocessing=preprocessing, limits=limits, progress=progress, note=note,
    )  # fmt: skip
    data = folder_or_set(photos, classifier.metadata, evaluation.outputs(classifier))
    memory = memory_of(classifier.metadata.trained_on, run_folder(network))
    measured = photos_to_measure(data, part, memory, progress=progress, note=note)
    images = measured.images
    named = evaluation.labelled(
        classifier, labels=None if labels is None else Path(labels), images=images, data=data,
        note=note,
    )  # fmt: skip
    found = evaluation.evaluate(classifier, matched(images, named), limit=limit, progress=progress)
    if limit is not None and measured.trained_on:  # of those that were measured
        measured = photos_to_measure(
            dataclasses.replace(images, paths=found.paths, targets=found.targets), "all", memory
        )
    if measured.sentence:
        note(measured.sentence)
    return dataclasses.replace(found, trained_on=measured.trained_on, left_out=measured.left_out)


def calibrate(
    network: object,
    photos: Photos,
    *,
    preprocessing: Given = None,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Network:
    """Measure the range of each activation of a network, so that its file can run in int8.

        sk.write(sk.calibrate(net, "photos"), "pets.sqz")           # runs in int8
        sk.write(sk.calibrate(net, "photos"), "pets.onnx", int8=True)

    Args:
        network: a Network, or anything that `read` takes.
        photos: any photos, in any form. A hundred of them are used; labels are not needed.
        preprocessing: how the network's images are prepared, if its file does not say it.
        progress: called for each photo, as task "calibrate".
        note: called with what is assumed about the preprocessing.

    Returns:
        The network with its batch norms folded, and the ranges in `metadata.activations`.

    Raises:
        InputError: if no photo can be read, or nothing in the network can run in int8.
    """
    from squeezekit.data.photos import any_images
    from squeezekit.interop.weights import as_network
    from squeezekit.models.fold import fold_batch_norm
    from squeezekit.runtime.calibration import calibrated, calibration_images

    folded = fold_batch_norm(
        as_network(network, preprocessing=preprocessing, progress=progress, note=note)
    )
    paths = any_images(photos, folded.metadata).paths
    return calibrated(folded, calibration_images(paths, folded.metadata.preprocessing), progress)


def sensitivity(
    network: object,
    photos: Photos,
    *,
    labels: Path | str | None = None,
    limit: int | None = None,
    preprocessing: Given = None,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Sensitivity:
    """Measure how far each layer can be pruned alone, without retraining.

        found = sk.sensitivity(net, "photos")
        found.densities(max_drop=1.0)      # for each layer, for sk.Deep or sk.Prune

    Args:
        network: a Network, or anything that `read` takes.
        photos: photos with labels, in any form. It is measured on held-out photos, and other ones
            than those that tell the accuracy in the end.
        labels: a file with the names of the outputs, in order.
        limit: measure on only this many photos, spread evenly.
        preprocessing: how the network's images are prepared, if its file does not say it.
        progress: called for each measurement.
        note: called with a sentence about class folders without a photo.

    Raises:
        InputError: if the network or the photos cannot be used, or no layer is large enough to
            prune.
    """
    from squeezekit import evaluation
    from squeezekit.compression.sensitivity import sensitivity as of_layers
    from squeezekit.data.dataset import split_once
    from squeezekit.data.held_out import memory_of
    from squeezekit.data.labelling import matched
    from squeezekit.data.photos import folder_or_set
    from squeezekit.interop.weights import as_network, run_folder
    from squeezekit.models.fold import fold_batch_norm
    from squeezekit.runtime.classifier import from_network

    folded = fold_batch_norm(
        as_network(network, preprocessing=preprocessing, progress=progress, note=note)
    )
    data = folder_or_set(photos, folded.metadata, evaluation.outputs(folded))
    memory = memory_of(folded.metadata.trained_on, run_folder(network))
    # These photos choose the densities, so other photos must tell the accuracy of the result.
    parts = split_once(data, memory=memory, chooses=True, progress=progress)
    for sentence in parts.notes:
        note(sentence)
    held_out = parts.choosing
    named = evaluation.labelled(
        folded, labels=None if labels is None else Path(labels), images=held_out, data=data,
        note=note,
    )  # fmt: skip
    images = matched(held_out, named)

    def measured(pruned: Network) -> Evaluation:
        return evaluation.evaluate(from_network(pruned), images, limit=limit, progress=progress)

    return of_layers(folded, measured, progress=progress)


def cost(
    network: object, *, classes: int | None = None, input_size: int | None = None
) -> tuple[str, Cost]:
    """Count parameters, multiply-accumulates and bytes, layer by layer (the paper's Table 1).

    Args:
        network: the name of an architecture of the catalogue, or anything that `as_network` takes.
        classes: outputs, of an architecture; its own where None.
        input_size: pixels a side; the network's own where None.

    Returns:
        The network's name, and what was counted.

    Raises:
        InputError: where there is no such network, or it has its own number of classes.
    """
    from squeezekit.interop.weights import as_network
    from squeezekit.models import catalogue
    from squeezekit.models.cost import cost as cost_of
    from squeezekit.runtime.stated import Stated

    named = (isinstance(network, (str, Path)) and str(network)) or ""
    if named and (named in catalogue.MODELS or not Path(named).exists()):
        found = catalogue.create(named, classes=classes, input_size=input_size)
    elif classes is not None:
        raise InputError("classes can be chosen for an architecture by name, not for a network")
    else:
        stated = None if input_size is None else Stated(input_size=input_size)
        found = as_network(network, preprocessing=stated)
    return found.metadata.name, cost_of(found)
