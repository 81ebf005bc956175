"""The verbs that use a finished file: predict, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezekit.cli import common, quick
from squeezekit.runtime.stated import Stated
from squeezekit.sqz.limits import DEFAULT


@common.states_preprocessing
def predict(
    file: common.Runnable,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Images, and folders of images. - reads paths from stdin, one per line, and "
            "answers each with a line of JSON.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    stdin: Annotated[bool, typer.Option("--stdin", help="The same as -.")] = False,
    camera: Annotated[
        int | None,
        typer.Option(help="Classify what camera number N sees until Ctrl-C; needs opencv.", min=0),
    ] = None,
    threads: common.Threads = None,
    backend: Annotated[
        str, typer.Option(help="onnxruntime (starts fastest) or openvino.")
    ] = "onnxruntime",
    precision: common.Precision = None,
    limits: common.Limited = DEFAULT,
    as_json: common.Json = False,
    preprocessing: Stated | None = None,
) -> None:
    """Classify images; needs no torch."""
    quick.predict(
        file, images or (), top=top, stdin=stdin, camera=camera, as_json=as_json, threads=threads,
        backend=backend, precision=precision, preprocessing=preprocessing, limits=limits,
    )  # fmt: skip


@common.states_preprocessing
def serve(
    file: common.Runnable,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)
    ] = 8000,
    workers: Annotated[
        int | None,
        typer.Option(help="Images classified at the same time. Default: all cores.", min=1),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads for each image.", min=1)] = 1,
    max_bytes: Annotated[int, typer.Option(help="Most bytes in a request.", min=1)] = 16 * 2**20,
    max_pixels: Annotated[int, typer.Option(help="Most pixels in an image.", min=2)] = 50_000_000,
    max_waiting: Annotated[
        int, typer.Option(help="Most images at work or waiting; more get status 503.", min=1)
    ] = 64,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a sender has for a request.", min=0.1)
    ] = 10.0,
    limits: common.Limited = DEFAULT,
    preprocessing: Stated | None = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A host name to accept besides addresses and localhost; * for any."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            help="Web pages of this origin may send requests: https://example.org; * for any."
        ),
    ] = None,
) -> None:
    """Classify images over HTTP, until Ctrl-C; a browser gets a page that classifies by itself."""
    from squeezekit.classifying import serve as serve_file
    from squeezekit.server.access import Access
    from squeezekit.server.service import Limits

    def ready(url: str, memory_bytes: int) -> None:
        most = f"requests take at most {memory_bytes / 1e9:.1f} GB"
        common.note(f"{file.name} answers at {url} ({most}; Ctrl-C stops it)")

    serve_file(
        file, Limits(max_bytes, max_pixels, timeout, max_waiting), host=host, port=port,
        workers=workers, threads=threads, access=Access(tuple(allow_host or ()), tuple(cors or ())),
        preprocessing=preprocessing, limits=limits, ready=ready, note=common.note,
    )  # fmt: skip
