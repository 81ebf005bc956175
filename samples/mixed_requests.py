"""Requests to `squeezekit serve` as they come: good, huge, truncated, no images, slow.

Each knows what must come of it, so that a test and `bench/serve.py` can send tens or thousands.
"""

import http.client
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
PATIENCE = 300  # seconds: only a server that hangs is waited for so long

Answer = tuple[int, dict]
"""Status and JSON; status 0 and {} where the connection was closed without an answer."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        kind: such as "truncated".
        send: sends it to (host, port) and gives the answer.
        wanted: whether the answer is the one it must get.
    """

    kind: str
    send: Callable[[tuple[str, int]], Answer]
    wanted: Callable[[Answer], bool]


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    kind: str
    status: int
    as_wanted: bool
    seconds: float
    answer: dict


def mixed(count, images, expected, *, most_bytes, most_pixels, seed=0):
    """`count` requests in random order, six of ten good.

    Args:
        images: bytes of image files.
        expected: for each of them the indices of its five classes and their probabilities.
        most_bytes: the server's limit.
        most_pixels: also the server's.
    """
    rng = random.Random(seed)
    zeros = bytes(most_bytes + 1)
    bomb = io.BytesIO()
    Image.new("1", (1000, most_pixels // 1000 + 1)).save(bomb, "PNG")

    def good(n):
        image, (classes, probabilities) = images[n % len(images)], expected[n % len(images)]

        def right(answer):
            if answer[0] != 200:
                return False
            top = answer[1]["predictions"][0]["top"]
            close = np.allclose([p["probability"] for p in top], probabilities, atol=1e-5)
            return close and [p["index"] for p in top] == classes

        return Request("good", posted(form(image) if n % 4 == 0 else image), right)

    def bad(n):
        cut = images[n % len(images)][: len(images[n % len(images)]) * 3 // 5]
        noise = rng.randbytes(2000)
        return [
            Request("huge", posted(zeros), refused(413, "more than .* bytes")),
            Request("huge, unannounced", posted(zeros, False), refused(413, "more than .* bytes")),
            Request("many pixels", posted(bomb.getvalue()), refused(413, "more than .* pixels")),
            Request("truncated", posted(cut), refused(422, "truncated")),
            Request("truncated", posted(form(cut)), refused(422, "truncated")),
            Request("no image", posted(noise), refused(422, "is not an image")),
            Request("no image", posted(b"<html>"), refused(422, "is not an image")),
            Request("no image", posted(b""), refused(422, "is empty")),
            Request("slow body", dripped(HEAD + b"\r\n"), refused(408, "did not arrive within")),
            Request("slow head", dripped(HEAD), lambda answer: answer[0] == 0),
        ][n % 10]

    goods = count * 3 // 5
    requests = [good(n) for n in range(goods)] + [bad(n) for n in range(count - goods)]
    rng.shuffle(requests)
    return requests


def hostile_forms(body_bytes):
    """Forms of about so many bytes that cost a careless reader most, by kind, and what each is."""
    field = b'--limit\r\nContent-Disposition: form-data; name="a"\r\n'
    file = b'--limit\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n'
    end = b"--limit--\r\n"

    def filled(start, with_this, then=b""):
        return start + with_this * ((body_bytes - len(start) - len(then)) // len(with_this)) + then

    return {
        "many parts": (filled(b"", field + b"\r\nx\r\n", end), "more than 16 parts"),
        "many empty parts": (filled(b"", b"--limit\r\n\r\n\r\n", end), "cannot be read"),
        "lines before the first": (filled(b"", b"\n", end), "cannot be read"),
        "line ends before the first": (filled(b"", b"\r\n", b"\r\n" + end), "has no file"),
        "a field of line ends": (filled(field + b"\r\n", b"\r\n", end), "has no file"),
        "a field of nearly ends": (
            filled(field + b"\r\n", b"\r\n--limi", b"\r\n" + end),
            "no file",
        ),
        "a header without end": (filled(b'--limit\r\nA: "', b"a"), "too long a header"),
        "a header that goes on": (filled(b"--limit\r\nA: b\r\n", b" c\r\n"), "too long a header"),
        "many headers": (filled(b"--limit\r\n", b"A: b\r\n"), "too long a header"),
        "nothing but beginnings": (filled(b"", b"--limit\r\n"), "cannot be read"),
        "no end": (filled(file + b"\r\n", b"x"), "cut short"),
    }


def refused(status, reason):
    return lambda answer: answer[0] == status and bool(re.search(reason, answer[1]["error"]))


def form(image):
    """As a browser's form sends it, a field before the file; header and body."""
    return (
        b'--limit\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--limit\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + image + b"\r\n--limit--\r\n"
    )


def posted(body, announced=True, path="/", *, is_form=None, **more):
    """Send a body, with its length in the header or in chunks without; and more headers."""
    is_form = body.startswith(b"--limit") if is_form is None else is_form
    headers = {"Content-Type": "multipart/form-data; boundary=limit"} if is_form else {}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    step = 2**16

    def send(address):
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        chunks = (body[i : i + step] for i in range(0, len(body), step))
        connection.request("POST", path, body if announced else chunks, headers)
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer

    return send


def dripped(start):
    """Send the start of a request, and then a byte now and then until there is an answer."""

    def send(address):
        with socket.create_connection(address, timeout=0.1) as connection:
            connection.sendall(start)
            received = b""
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                try:
                    received += (data := connection.recv(2**16))
                    if b"\r\n\r\n" in received or not data:
                        break
                    connection.sendall(b"x")
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        head, _, body = received.partition(b"\r\n\r\n")
        return (int(head.split()[1]), json.loads(body)) if head else (0, {})

    return send


def send_all(address, requests, clients=8):
    """Send them from several clients at once; gives the outcomes."""

    def send(request):
        start = time.perf_counter()
        answer = request.send(address)
        seconds = time.perf_counter() - start
        return Outcome(request.kind, answer[0], request.wanted(answer), seconds, answer[1])

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(send, requests))


@contextmanager
def server(file, *options):
    """A `squeezekit serve` of its own, on a free port: gives the process and its (host, port)."""
    command = [sys.executable, "-W", "error", "-m", "squeezekit", "serve", str(file)]
    process = subprocess.Popen(
        [*command, "--port", "0", *map(str, options)], stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stderr.readline()
        host, port = re.search(r"http://(\S+):(\d+) ", line).groups()
        yield process, (host, int(port))
    finally:
        process.kill()
        process.communicate()


def stopped(process):
    """Ask it to stop; its exit status, and what it said meanwhile."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE)[1]
    return process.returncode, said


def resident_bytes(process):
    """Memory of a process (Linux)."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
