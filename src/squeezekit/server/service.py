"""The requests that a classifier answers over HTTP, and how much each may cost.

One event loop receives, so that a slow client costs only a socket; a few threads decode and
classify. Everything that a client can make large has a limit. A request over a limit gets one
sentence, which repeats nothing from the request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import prometheus_client
from aiohttp import web
from aiohttp.http import HttpProcessingError

from squeezekit.errors import InputError, SqueezekitError, TooManyPixelsError
from squeezekit.runtime.classifier import Classifier, Prediction
from squeezekit.server.access import BY_ADDRESS, Access
from squeezekit.server.forms import FormError, Upload, uploads

_OUTCOMES = {
    400: "bad request",
    403: "not allowed",
    408: "too slow",
    413: "too large",
    422: "not an image",
    500: "failed",
    503: "overloaded",
}
"""The metrics' names for statuses. There are also "answered", and "gone" for a client that left."""

PIXEL_BYTES = 32
"""The most bytes of memory that decoding and preparing a pixel takes. Measured at 12 megapixels: 8
for a JPEG, 17 for a PNG, TIFF or WebP, 25 for a JPEG 2000."""

_RETRY_SECONDS = 1
_JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_MOST_SCANS = 200
"""The most scans of a JPEG. Encoders make about ten. A scan may take only 50 bytes and goes over
every pixel, so a file of 16 MB could keep a core busy for an hour."""

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Limits:
    """What one client, and all of them together, may ask for.

    Attributes:
        body_bytes: the most bytes of a request's body. All bodies that are there at once may have
            16 times that.
        pixels: the most pixels of an image, whatever its bytes; decoding takes up to `PIXEL_BYTES`
            for each.
        seconds: for sending a request's head, and again for its body; a connection that asks
            nothing is closed after as long, and so is one whose body was refused.
        images: the most images that are being classified or wait for it.
    """

    body_bytes: int
    pixels: int
    seconds: float
    images: int

    @property
    def held_bytes(self) -> int:
        """The most bytes of all bodies together."""
        return 16 * self.body_bytes

    def memory_bytes(self, workers: int) -> int:
        """The most memory that clients can make a server use, in addition to the network."""
        return workers * self.pixels * PIXEL_BYTES + self.held_bytes


@dataclass
class _Held:
    """The bytes of a body that have arrived."""

    bytes: int = 0


class RefusedError(Exception):
    """A request is refused; the sentence goes to the client."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Service:
    """The routes, and their counters: requests at work, bytes held, outcomes and seconds.

    Everything except `classifier` runs on the event loop, so nothing needs a lock.
    """

    def __init__(
        self,
        classifier: Classifier,
        name: str,
        limits: Limits,
        pool: ThreadPoolExecutor,
        *,
        access: Access = BY_ADDRESS,
        page: str | None = None,
    ) -> None:
        """Begin to count.

        Args:
            classifier: see `listening.serve`, as for the others.
            name: the name of its file.
            limits: the limits of a request.
            pool: the pool of the threads that classify.
            access: who may ask.
            page: for browsers that ask for "/".
        """
        self.limits = limits
        self.stopping = False
        """Whether connections end with the answer that they wait for."""
        self._access, self._page = access, page
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
        application = web.Application(middlewares=[self._guarded])
        application.on_response_prepare.append(self._prepared)
        application.router.add_get("/", self.front)
        application.router.add_post("/", self.classify)
        application.router.add_get("/health", self.health)
        application.router.add_get("/metrics", self.metrics)
        return application

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer allowed requests, and refuse others in JSON."""
        response = await self._allowed(request, handler)
        if self.stopping:
            response.force_close()
        return response

    async def _allowed(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if sentence := self._access.refusal(request):
            self._requests.labels(_OUTCOMES[403]).inc()
            return error_response(403, sentence)
        if request.method == "OPTIONS" and self._access.reads(request.headers.get("Origin", "")):
            return web.Response(status=204)  # what a browser asks before a page may
        try:
            return await handler(request)
        except web.HTTPException as error:  # no such path, or not this method
            response = error_response(error.status, error.reason)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response

    async def _prepared(self, request: web.Request, response: web.StreamResponse) -> None:
        self._access.add_headers(request, response)
        response.headers["Server"] = "squeezekit"  # and no versions

    async def front(self, request: web.Request) -> web.Response:
        """For browsers a page that classifies by itself; for others a list of the requests."""
        if self._page is not None and "text/html" in request.headers.get("Accept", ""):
            return web.Response(
                text=self._page,
                content_type="text/html",
                headers={"Content-Security-Policy": "frame-ancestors 'none'", "Vary": "Accept"},
            )
        lines = (
            f"squeezekit classifies images here with {self._name}.",
            "",
            "    curl --data-binary @photo.jpg 'ADDRESS/?top=5'",
            "    curl --form image=@photo.jpg --form image=@other.jpg 'ADDRESS/?top=5'",
            "    curl ADDRESS/health",
            "    curl ADDRESS/metrics",
            "",
            f"At most {self.limits.body_bytes:,} bytes a request, {self.limits.pixels:,} pixels an "
            "image.",
        )
        return web.Response(text="\n".join(lines) + "\n", headers={"Vary": "Accept"})

    async def health(self, request: web.Request) -> web.Response:
        """Say that the server is ready (before that, nothing listens)."""
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
        """The classes of an image, or of each file of a form, as `predict --json` gives them.

        The body is the image, or a form with images. `?top=N` asks for N classes. If only some of
        several images can be classified, the answer has their classes, a reason for each of the
        others, and the status of the first of those.
        """
        outcome = "gone"
        self._open += 1
        try:
            answers = await self._answers(request)
            refused = [answer for _, answer in answers if isinstance(answer, RefusedError)]
            if refused and len(answers) == 1:
                raise refused[0]
            outcome = _OUTCOMES[refused[0].status] if refused else "answered"
            content: dict[str, object] = {
                "file": self._name,
                "predictions": [
                    {"image": name, "error": str(answer)}
                    if isinstance(answer, RefusedError)
                    else {"image": name, "top": [dataclasses.asdict(each) for each in answer]}
                    for name, answer in answers
                ],
            }
            if not refused:
                return _json(content)
            sentence = f"{len(refused)} of {len(answers)} images could not be classified"
            return _json({"error": sentence, **content}, refused[0].status)
        except RefusedError as refused:
            outcome = _OUTCOMES[refused.status]
            return error_response(refused.status, str(refused))
        except ConnectionError:
            return error_response(400, "the image did not arrive")  # nor will this, harming nobody
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._open -= 1
            self._requests.labels(outcome).inc()

    async def _answers(
        self, request: web.Request
    ) -> list[tuple[str, list[Prediction] | RefusedError]]:
        """For each image its name, and its classes or the reason why it has none."""
        top = _top(request)
        self._check_size(request.content_length or 0)
        self._check_room()
        held = _Held()
        try:
            images = await self._received(request, held)
            answers: list[tuple[str, list[Prediction] | RefusedError]] = []
            for image in images:  # one after the other: a request has one place in the queue
                data = bytes(image.data)
                image.data.clear()
                try:
                    answers.append((image.name, await self._predictions(data, top)))
                except RefusedError as refused:
                    answers.append((image.name, refused))
            return answers
        finally:
            self._held_bytes -= held.bytes

    async def _received(self, request: web.Request, held: _Held) -> list[Upload]:
        """The images, if they arrive in time and within the limits."""

        async def counted() -> AsyncIterator[bytes]:
            async for chunk in request.content.iter_any():
                held.bytes += len(chunk)
                self._held_bytes += len(chunk)
                self._check_size(held.bytes)
                if self._held_bytes > self.limits.held_bytes:
                    raise _overloaded("too many bytes are being received")
                yield chunk
                await asyncio.sleep(0)  # what lies ready must not keep others waiting

        try:
            async with asyncio.timeout(self.limits.seconds):
                return await uploads(request, counted())
        except TimeoutError:
            raise RefusedError(
                408, f"the image did not arrive within {self.limits.seconds:g} seconds"
            ) from None
        except FormError as error:
            raise RefusedError(400, str(error)) from None
        except (web.RequestPayloadError, HttpProcessingError, ValueError):
            raise RefusedError(
                400, "the body cannot be read: its length or its coding is not what the head says"
            ) from None

    async def _predictions(self, image: bytes, top: int) -> list[Prediction]:
        self._check_room()  # again, because receiving takes time
        self._images += 1
        try:
            with self._seconds.time():
                return await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._classified, image, top
                )
        except TooManyPixelsError:
            raise RefusedError(
                413, f"the image has more than {self.limits.pixels:,} pixels: scale it down"
            ) from None
        except InputError as error:
            raise RefusedError(422, str(error)) from None
        except SqueezekitError as error:
            raise RefusedError(500, str(error)) from None
        finally:
            self._images -= 1

    def _classified(self, image: bytes, top: int) -> list[Prediction]:
        """In a thread of the pool."""
        if sum(1 for _ in _JPEG_SCAN.finditer(image)) > _MOST_SCANS:
            raise InputError(f"the image has more than {_MOST_SCANS} scans: save it with fewer")
        return self._classifier(image, top)

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > self.limits.body_bytes:
            raise RefusedError(413, f"the body has more than {self.limits.body_bytes:,} bytes")

    def _check_room(self) -> None:
        if self._images >= self.limits.images:
            raise _overloaded(f"{self._images} images are waiting already")


def _overloaded(why: str) -> RefusedError:
    return RefusedError(503, f"{why}: try again in a moment")


def _top(request: web.Request) -> int:
    text = request.query.get("top", "5")
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) == 0:
        raise RefusedError(400, "top must be a number from 1")
    return int(text)


def error_response(status: int, sentence: str) -> web.Response:
    """An answer with an error instead of classes."""
    response = _json({"error": sentence}, status)
    if status == 503:
        response.headers["Retry-After"] = str(_RETRY_SECONDS)
    return response


def _json(content: dict[str, object], status: int = 200) -> web.Response:
    return web.json_response(content, status=status, dumps=_text)


_text = partial(json.dumps, ensure_ascii=False, allow_nan=False)
