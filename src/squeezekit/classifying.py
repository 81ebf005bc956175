"""From anything that holds a network to what classifies: opened here, or behind HTTP.

Parts are imported by the function that needs them: to open a file takes no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from squeezekit.errors import InputError
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.sqz.limits import DEFAULT, TRUSTED, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from squeezekit.data.photos import Photos
    from squeezekit.evaluation import Evaluated
    from squeezekit.runtime.classifier import Classifier
    from squeezekit.runtime.preprocessing import Given
    from squeezekit.server.access import Access
    from squeezekit.server.service import Limits as RequestLimits
    from squeezekit.sqz.network import Network


def load(
    path: Path | str,
    threads: int | None = None,
    backend: str | None = None,
    precision: str | None = None,
    *,
    preprocessing: Given = None,
    output: str | None = None,
    labels: Sequence[str] = (),
    limits: Limits | None = DEFAULT,
    note: Note = silent_note,
) -> Classifier:
    """Open a `.sqz` or `.onnx` file, or what a training run left, to classify with.

        classify = sk.load("pets.sqz")
        classify("photo.jpg")[0].label

    Args:
        path: the file; or the folder of a training run, or the weights in it.
        threads: how many threads one batch may use; all cores where None.
        backend: "onnxruntime" or "openvino"; see `runtime.loading.load`.
        precision: "int8" or "float"; see `runtime.loading.load`. An `.onnx` runs as it is.
        preprocessing: what is known of it, or all of it; comes before what the file says.
        output: of an `.onnx`: the one that scores classes, where there are several.
        labels: of an `.onnx` with one output; see `interop.onnx_file.read`.
        limits: how much the file may ask for, and how many pixels an image may have. None trusts
            the file.
        note: told a line where the preprocessing was found beside the file, or is assumed.

    Raises:
        InputError: where there is no such file, or it cannot be used as is asked.
        FormatError: where a `.sqz` is damaged; a LimitError where it asks for too much.
        UnsupportedError: where the network has what cannot be run.
    """
    from squeezekit.interop import opening

    path = Path(path)
    if output is None and (path.is_dir() or path.suffix.lower() == ".safetensors"):
        from squeezekit.interop.weights import read, run_folder, weights_file
        from squeezekit.models.fold import fold_batch_norm
        from squeezekit.runtime.classifier import from_network

        if run_folder(path) is not None:
            network = fold_batch_norm(
                read(path, preprocessing=preprocessing, limits=limits, note=note)
            )
            classifier = from_network(network, threads, backend, precision)
            classifier.file_bytes = weights_file(path).stat().st_size
            classifier.pixels = (limits or TRUSTED).pixels
            return classifier
    return opening.load(
        path, threads, backend, precision,
        preprocessing=preprocessing, output=output, labels=labels, limits=limits, note=note,
    )  # fmt: skip


def classifier_of(
    network: object,
    *,
    backend: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Evaluated:
    """A classifier of anything that holds a network; `.onnx` and `.sqz` files run as they are.

    Args:
        network: a Classifier, or anything that `as_network` takes.
        backend: "onnxruntime", "openvino" (faster for int8) or "torch".
        threads: how many threads one batch may use; None is all cores.
        precision: "float" or "int8".
        preprocessing: how the network's images are prepared, if its file does not say it.
        limits: how much the file may ask for, and how many pixels an image may have. None trusts
            the file.
        progress: called during a download.
        note: called with what is assumed about the preprocessing.

    Raises:
        InputError: if this holds no network, or has no such backend or precision.
    """
    from squeezekit.interop.weights import as_network
    from squeezekit.runtime.classifier import from_network

    if hasattr(network, "logits") and hasattr(network, "metadata"):
        if (backend, threads, precision, preprocessing) != (None, None, None, None):
            raise InputError(
                "this classifier is loaded already: set backend, threads, precision and "
                "preprocessing where you load it"
            )
        return network

    def read_as_stated() -> Network:
        return as_network(
            network, preprocessing=preprocessing, limits=limits, progress=progress, note=note
        )

    if backend == "torch":
        if precision == "int8":
            raise InputError("torch does not run int8 here: use onnxruntime or openvino")
        import torch

        from squeezekit.trainable.network import TorchClassifier

        if threads is not None:
            torch.set_num_threads(threads)
        by_torch = TorchClassifier(read_as_stated())
        by_torch.pixels = (limits or TRUSTED).pixels
        return by_torch
    if isinstance(network, (str, Path)) and Path(network).suffix.lower() in (".sqz", ".onnx"):
        return load(
            network, threads, backend, precision,
            preprocessing=preprocessing, limits=limits, note=note,
        )  # fmt: skip
    classifier = from_network(read_as_stated(), threads, backend, precision)
    classifier.pixels = (limits or TRUSTED).pixels
    return classifier


def with_unknown(
    network: object,
    photos: Photos,
    others: Photos,
    *,
    keep: float = 0.95,
    preprocessing: Given = None,
    progress: Progress = silent,
    note: Note = silent_note,
) -> Network:
    """Give a network one more class, "unknown", for photos of other things.

        sk.write(sk.with_unknown("pets.sqz", "photos", "anything"), "pets.sqz")

    The class is one more row of the last layer, so every program that runs the file answers
    "unknown". The known classes keep their logits.

    Args:
        network: a Network, or anything that `read` takes. Its last layer must be a plain one, with
            nothing but a mean behind it.
        photos: photos with labels, in any form. Held-out ones set the threshold.
        others: at least 250 photos of anything that the network does not know. A fifth of them
            measures how many are accepted.
        keep: the share of right answers on held-out photos that must not become "unknown".
        preprocessing: how the network's images are prepared, if its file does not say it.
        progress: called with the number of photos done, as task "unknown".
        note: called with what was measured.

    Raises:
        InputError: if the photos are too few, or cannot be used.
        UnsupportedError: if the network does not end in such a layer.
    """
    from squeezekit import unknown
    from squeezekit.data.dataset import split_once
    from squeezekit.data.held_out import memory_of
    from squeezekit.data.labelling import matched
    from squeezekit.data.photos import any_images, folder_or_set
    from squeezekit.evaluation import outputs
    from squeezekit.interop.weights import as_network, run_folder
    from squeezekit.models.fold import fold_batch_norm

    folded = fold_batch_norm(
        as_network(network, preprocessing=preprocessing, progress=progress, note=note)
    )
    memory = memory_of(folded.metadata.trained_on, run_folder(network))
    if not memory:
        note("nothing tells which photos the network was trained on: it may refuse more new ones")
    data = folder_or_set(photos, folded.metadata, outputs(folded))
    parts = split_once(data, memory=memory, progress=progress)
    for sentence in parts.notes:
        note(sentence)
    parts = parts.matched(lambda images: matched(images, folded.metadata))
    made, rule = unknown.with_unknown(
        folded, parts.training, parts.measuring, any_images(others, folded.metadata),
        keep=keep, progress=progress,
    )  # fmt: skip
    note(str(rule))
    return made


def serve(
    file: Path,
    requests: RequestLimits,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int | None = None,
    threads: int = 1,
    access: Access | None = None,
    preprocessing: Given = None,
    limits: Limits | None = DEFAULT,
    ready: Callable[[str, int], None] = lambda url, memory_bytes: None,
    note: Note = silent_note,
) -> None:
    """Answer over HTTP what a file classifies, until SIGINT or SIGTERM; browsers get its page.

    Args:
        file: as `load` opens it.
        requests: what clients may ask for.
        host: an address or a name to listen at.
        port: 0 for any that is free.
        workers: images classified at once; as many as there are cores where None.
        threads: of the network, for each of the workers.
        access: who may ask; everybody who uses an address or localhost where None.
        preprocessing: how the network wants its images, where its file does not say it.
        limits: how much the file may ask for; None trusts it.
        ready: called once it answers, with the address and the most bytes of memory that clients
            can make it use.
        note: told what is assumed of the network's preprocessing.

    Raises:
        InputError: where the file cannot be used, or host and port cannot be listened at.
    """
    from squeezekit.interop.page_file import page_for, page_of
    from squeezekit.server.access import BY_ADDRESS
    from squeezekit.server.listening import serve as serve_http

    classifier = load(file, threads, preprocessing=preprocessing, limits=limits, note=note)
    classifier.pixels = requests.pixels
    prepared = classifier.metadata.preprocessing
    if file.suffix.lower() in (".sqz", ".onnx"):
        page = page_for(file, prepared, limits)
    else:
        from squeezekit.interop.weights import read

        page = page_of(read(file, limits=limits), prepared)
    serve_http(
        classifier, file.name, requests, host=host, port=port, workers=workers,
        access=access or BY_ADDRESS, page=page, ready=ready,
    )  # fmt: skip
