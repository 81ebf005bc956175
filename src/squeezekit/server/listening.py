"""Runs the server, and stops it without breaking off requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from aiohttp import web
from aiohttp.http import HttpProcessingError
from PIL import Image

from squeezekit.errors import InputError
from squeezekit.runtime.classifier import Classifier
from squeezekit.server.access import BY_ADDRESS, Access
from squeezekit.server.service import Limits, Service, error_response

_IDLE_SECONDS = 1.0
"""How long an idle connection is kept when the server stops: a request may be on its way, and would
be reset if the connection were closed."""

_CONNECTIONS = 1024
"""How many connections may wait to be accepted."""


def serve(
    classifier: Classifier,
    name: str,
    limits: Limits,
    *,
    host: str,
    port: int,
    workers: int | None = None,
    access: Access = BY_ADDRESS,
    page: str | None = None,
    ready: Callable[[str, int], None] = lambda url, memory_bytes: None,
) -> None:
    """Answer until SIGINT or SIGTERM; then finish the requests that have begun, and return.

    This changes settings of the whole process: Pillow's limit of pixels (which also holds for
    images inside an ICO), which warnings are shown, and how long a thread may keep Python's lock.

    Args:
        classifier: it is run from several threads at once, and should use one thread itself.
        name: the name of its file, as clients see it.
        limits: see there.
        host: an address or a name to listen at.
        port: 0 for any that is free.
        workers: how many images are classified at once; as many as there are cores where None.
        access: who may ask.
        page: HTML for browsers that ask for "/"; see `interop.page_file.page`.
        ready: is called once it answers, with the address and the most bytes of memory that
            clients can make it use.

    Raises:
        InputError: if host and port cannot be listened at.
        GraphError: if the network cannot be run.
    """
    preprocessing = classifier.metadata.preprocessing
    shape = (1, preprocessing.channels, preprocessing.crop, preprocessing.crop)
    classifier.logits(np.zeros(shape, np.float32))  # now, and not when somebody asks
    Image.MAX_IMAGE_PIXELS = limits.pixels // 2  # Pillow refuses more than twice as many
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its sender is told
    sys.setswitchinterval(0.0005)  # who classifies lets the event loop have its turn
    workers = workers or os.cpu_count() or 1
    memory_bytes = limits.memory_bytes(workers)
    known = Access((*access.hosts, f"[{host}]" if ":" in host else host), access.origins)
    with ThreadPoolExecutor(workers) as pool:
        service = Service(classifier, name, limits, pool, access=known, page=page)
        asyncio.run(_serve(service, host, port, lambda url: ready(url, memory_bytes)))


class _Connection(web.RequestHandler):
    """A connection that repeats nothing of a bad request, and knows whether it is idle."""

    __slots__ = ("asks",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asks = False
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.asks = True
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        finished = await super().finish_response(request, resp, start_time)
        self.asks = False
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # which writes our faults to the log
        response = error_response(
            status,
            "this is no HTTP that can be read" if status == 400 else "the server made a mistake",
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.force_close()
        return response


async def _serve(service: Service, host: str, port: int, ready: Callable[[str], None]) -> None:
    stopped = _stopped_by_signal()
    seconds = service.limits.seconds
    runner = web.AppRunner(service.application(), shutdown_timeout=seconds)
    await runner.setup()
    server = runner.server
    assert server is not None, "it is set up"
    loop, logger = asyncio.get_running_loop(), _logger()
    try:
        try:
            listening = await loop.create_server(
                lambda: _Connection(
                    server,
                    loop=loop,
                    logger=logger,
                    keepalive_timeout=seconds,
                    # for reading what was refused, or its sender never sees the reason
                    lingering_time=seconds,
                ),
                host,
                port,
                backlog=_CONNECTIONS,
            )
        except OSError as error:
            reason = (error.strerror or str(error)).rpartition(": ")[2]
            raise InputError(
                f"cannot listen at {host} port {port} ({reason}): choose others"
            ) from None
        address, bound = listening.sockets[0].getsockname()[:2]
        ready(f"http://[{address}]:{bound}" if ":" in address else f"http://{address}:{bound}")
        await stopped.wait()
        service.stopping = True  # from now on each connection ends with its answer
        await asyncio.sleep(0)  # those who are connected already are accepted
        listening.close()
        await _finished(server, 2 * seconds)
    finally:
        await runner.cleanup()


async def _finished(server: web.Server, seconds: float) -> None:
    """Wait until every connection has ended or is idle; at most this long."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while server.connections and loop.time() < start + seconds:
        if loop.time() > start + min(_IDLE_SECONDS, seconds):
            for connection in server.connections:
                if isinstance(connection, _Connection) and not connection.asks:
                    connection.force_close()
        await asyncio.sleep(0.02)


def _logger() -> logging.Logger:
    """A logger for the server's own errors, with traceback; not for a client's bad HTTP."""
    clients = (HttpProcessingError, web.RequestPayloadError)
    logger = logging.getLogger(__name__)
    logger.addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], clients))
    )
    return logger


def _stopped_by_signal() -> asyncio.Event:
    """An event that the first Ctrl-C or SIGTERM sets; the second one acts as usual."""
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
