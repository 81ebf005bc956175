"""A classifier behind HTTP: an image comes in as the body of a request, its classes go out as JSON.

One event loop receives, so that a slow client costs a socket and nothing else; a few threads decode
and classify. Whatever a client can make large has a limit, and going beyond it one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import prometheus_client
from aiohttp import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    web,
)
from aiohttp.http import HttpProcessingError
from PIL import Image

from squeezekit.errors import InputError, SqueezekitError, TooManyPixelsError
from squeezekit.runtime.classifier import Classifier, Prediction

_OUTCOMES = {
    400: "bad request",
    408: "too slow",
    413: "too large",
    422: "not an image",
    500: "failed",
    503: "overloaded",
}
"""What the metrics call a status; "answered" and "gone" (the client, before its answer) besides."""

_RETRY_SECONDS = 1
_JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_MOST_SCANS = 200
"""Encoders make about ten. Each takes 50 bytes and goes over every pixel, so that a file of 16 MB
could keep a core busy for an hour."""

_WARNINGS_OF_CLIENTS = (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    Image.DecompressionBombWarning,
)
"""What a request can cause: not for the server's terminal, because an answer tells its sender."""

_FORM = "multipart/form-data"
_CHUNK_BYTES = 2**16
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Limits:
    """What one client, and all of them together, may ask for.

    Attributes:
        body_bytes: of a request's body. All bodies that are there at once may have 16 times that.
        pixels: of an image, whatever its bytes; decoding takes 8 to 16 bytes for each.
        seconds: for sending a request's head, and again for its body; a connection that asks
            nothing is closed after as long, and so is one whose body was refused.
        images: that are being classified or wait for it.
    """

    body_bytes: int
    pixels: int
    seconds: float
    images: int

    @property
    def held_bytes(self) -> int:
        """Of all bodies together."""
        return 16 * self.body_bytes


def serve(
    classifier: Classifier,
    name: str,
    limits: Limits,
    *,
    host: str,
    port: int,
    workers: int | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer until SIGINT or SIGTERM comes; then finish what has begun, and return.

    The limit of pixels is Pillow's own, which holds for the images inside an ICO too; it, and which
    warnings are shown, are settings of the whole process.

    Args:
        classifier: it is run from several threads at once, and should use one thread itself.
        name: of its file, as clients see it.
        limits: see there.
        host: an address or a name to listen at.
        port: 0 for any that is free.
        workers: how many images are classified at once; as many as there are cores where None.
        ready: is called with the address once it answers.

    Raises:
        InputError: where host and port cannot be listened at.
        GraphError: where the network cannot be run.
    """
    preprocessing = classifier.metadata.preprocessing
    shape = (1, preprocessing.channels, preprocessing.crop, preprocessing.crop)
    classifier.logits(np.zeros(shape, np.float32))  # now, and not when somebody asks
    Image.MAX_IMAGE_PIXELS = limits.pixels // 2  # Pillow refuses more than twice as many
    for category in _WARNINGS_OF_CLIENTS:
        warnings.simplefilter("ignore", category)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        asyncio.run(_serve(Service(classifier, name, limits, pool), host, port, ready))


async def _serve(service: Service, host: str, port: int, ready: Callable[[str], None]) -> None:
    stopped = _stopped_by_signal()
    seconds = service.limits.seconds
    runner = web.AppRunner(
        service.application(),
        access_log=None,
        logger=_logger(),
        keepalive_timeout=seconds,
        lingering_time=seconds,  # for reading what was refused, or its sender never sees the reason
        shutdown_timeout=seconds,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            reason = (error.strerror or str(error)).rpartition(": ")[2]
            raise InputError(
                f"cannot listen at {host} port {port} ({reason}): choose others"
            ) from None
        address, bound = runner.addresses[0][:2]
        ready(f"http://[{address}]:{bound}" if ":" in address else f"http://{address}:{bound}")
        await stopped.wait()
        await site.stop()
        with contextlib.suppress(TimeoutError):  # cleaning up drops what is still arriving
            await asyncio.wait_for(service.idle(), 2 * seconds)
    finally:
        await runner.cleanup()


def _logger() -> logging.Logger:
    """For what goes wrong in here, with its traceback; a client's bad HTTP is not worth that."""
    clients = (HttpProcessingError, web.RequestPayloadError)
    logger = logging.getLogger(__name__)
    logger.addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], clients))
    )
    return logger


def _stopped_by_signal() -> asyncio.Event:
    """Set by the first Ctrl-C or SIGTERM; the second does what it always does."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        stopped.set()
        for number in signals:
            loop.remove_signal_handler(number)

    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
        for number in signals:
            loop.add_signal_handler(number, stop)
    return stopped


class _RefusedError(Exception):
    """A request gets no classes; its one sentence goes to the client."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Service:
    """The routes, and what they count: requests at work, bytes held, outcomes and seconds.

    Everything but `classifier` runs on the event loop, so that nothing needs a lock.
    """

    def __init__(
        self, classifier: Classifier, name: str, limits: Limits, pool: ThreadPoolExecutor
    ) -> None:
        self.limits = limits
        self._classifier = classifier
        self._name = name
        self._pool = pool
        self._open = 0  # requests
        self._images = 0
        self._held_bytes = 0
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        self._requests = prometheus_client.Counter(
            "squeezekit_requests",
            "Requests for classes, by what came of them.",
            ["outcome"],
            registry=self._registry,
        )
        for outcome in ("answered", *_OUTCOMES.values(), "gone"):
            self._requests.labels(outcome)  # so that each is there from the beginning
        self._seconds = prometheus_client.Histogram(
            "squeezekit_answer_seconds",
            "From the last byte of an image to its classes, waiting included.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        in_flight = prometheus_client.Gauge(
            "squeezekit_requests_in_flight",
            "Requests for classes that are being received or answered.",
            registry=self._registry,
        )
        in_flight.set_function(lambda: self._open)

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(middlewares=[_errors_as_json])
        application.router.add_get("/", self.help)
        application.router.add_post("/", self.classify)
        application.router.add_get("/health", self.health)
        application.router.add_get("/metrics", self.metrics)
        return application

    async def help(self, request: web.Request) -> web.Response:
        """What can be asked, for those who open it in a browser."""
        url = request.url.origin()
        lines = (
            f"squeezekit classifies images here with {self._name}.",
            "",
            f"    curl --data-binary @photo.jpg '{url}/?top=5'",
            f"    curl --form image=@photo.jpg '{url}/?top=5'",
            f"    curl {url}/health",
            f"    curl {url}/metrics",
            "",
            f"At most {self.limits.body_bytes:,} bytes and {self.limits.pixels:,} pixels an image.",
        )
        return web.Response(text="\n".join(lines) + "\n")

    async def health(self, request: web.Request) -> web.Response:
        """That it is ready: before that nothing listens."""
        return _json(
            {"status": "ready", "file": self._name, "file_bytes": self._classifier.file_bytes}
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """The counts, in Prometheus' text format."""
        return web.Response(
            body=prometheus_client.generate_latest(self._registry),
            headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
        )

    async def classify(self, request: web.Request) -> web.Response:
        """The classes of one image, as `predict --json` gives them.

        The image is the body, or the first file of a form. `?top=N` asks for N classes.
        """
        outcome = "gone"
        self._open += 1
        try:
            image, predictions = await self._answer(request)
            outcome = "answered"
            top = [dataclasses.asdict(prediction) for prediction in predictions]
            return _json({"file": self._name, "predictions": [{"image": image, "top": top}]})
        except _RefusedError as refused:
            outcome = _OUTCOMES[refused.status]
            return _error(refused.status, str(refused))
        except ConnectionError:
            return _error(400, "the image did not arrive")  # nor will this, to nobody's harm
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._open -= 1
            self._requests.labels(outcome).inc()

    async def idle(self) -> None:
        """Wait until no image is being received or classified."""
        while self._open:
            await asyncio.sleep(0.02)

    async def _answer(self, request: web.Request) -> tuple[str, list[Prediction]]:
        top = _top(request)
        self._check_size(request.content_length or 0)
        self._check_room()
        body = bytearray()
        try:
            name = await self._receive(request, body)
            return name, await self._predictions(bytes(body), top)
        finally:
            self._held_bytes -= len(body)

    async def _receive(self, request: web.Request, body: bytearray) -> str:
        """Append the image's bytes to `body`, in time and within bounds; gives its name."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                name, chunks = await _image(request)
                async for chunk in chunks:
                    body += chunk
                    self._held_bytes += len(chunk)
                    self._check_size(len(body))
                    if self._held_bytes > self.limits.held_bytes:
                        raise _overloaded("too many bytes are being received")
        except TimeoutError:
            raise _RefusedError(
                408, f"the image did not arrive within {self.limits.seconds:g} seconds"
            ) from None
        except (web.RequestPayloadError, HttpProcessingError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise _RefusedError(400, f"the body cannot be read ({reason})") from None
        return name

    async def _predictions(self, image: bytes, top: int) -> list[Prediction]:
        self._check_room()  # again, because receiving takes time
        self._images += 1
        try:
            with self._seconds.time():
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._classified, image, top
                )
        except TooManyPixelsError:
            raise _RefusedError(
                413, f"the image has more than {self.limits.pixels:,} pixels: scale it down"
            ) from None
        except InputError as error:
            raise _RefusedError(422, str(error)) from None
        except SqueezekitError as error:
            raise _RefusedError(500, str(error)) from None
        finally:
            self._images -= 1

    def _classified(self, image: bytes, top: int) -> list[Prediction]:
        """In a thread of the pool."""
        if sum(1 for _ in _JPEG_SCAN.finditer(image)) > _MOST_SCANS:
            raise InputError(f"the image has more than {_MOST_SCANS} scans: save it with fewer")
        return self._classifier(image, top)

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > self.limits.body_bytes:
            raise _RefusedError(413, f"the body has more than {self.limits.body_bytes:,} bytes")

    def _check_room(self) -> None:
        if self._images >= self.limits.images:
            raise _overloaded(f"{self._images} images are waiting already")


def _overloaded(why: str) -> _RefusedError:
    return _RefusedError(503, f"{why}: try again in a moment")


def _top(request: web.Request) -> int:
    text = request.query.get("top", "5")
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) == 0:
        raise _RefusedError(400, f"top must be a number from 1, not {text[:20]!r}")
    return int(text)


async def _image(request: web.Request) -> tuple[str, AsyncIterator[bytes]]:
    """The image's name, empty where it is the body itself, and its bytes as they come."""
    if request.content_type != _FORM:
        return "", aiter(request.content.iter_any())
    form = await request.multipart()
    async for part in form:
        if isinstance(part, BodyPartReader) and part.filename is not None:
            return part.filename, _chunks(part)
    raise _RefusedError(400, "the form has no file")


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        yield chunk


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:  # no such path, or not this method
        error.text, error.content_type = _text({"error": error.reason}), "application/json"
        raise


def _error(status: int, sentence: str) -> web.Response:
    response = _json({"error": sentence}, status)
    if status == 503:
        response.headers["Retry-After"] = str(_RETRY_SECONDS)
    return response


def _json(content: dict[str, object], status: int = 200) -> web.Response:
    return web.json_response(content, status=status, dumps=_text)


_text = partial(json.dumps, ensure_ascii=False, allow_nan=False)
