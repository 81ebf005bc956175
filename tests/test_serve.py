"""The HTTP endpoint: as an own process with real sockets, and where it must wait, in this one."""

import asyncio
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from mixed_requests import (
    HEAD,
    form,
    hostile_forms,
    mixed,
    posted,
    resident_bytes,
    send_all,
    server,
    stopped,
)
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from small_networks import small_squeezenet

from squeezekit.runtime.classifier import Prediction
from squeezekit.runtime.loading import load
from squeezekit.server.service import Limits, Service
from squeezekit.sqz import container

MOST_BYTES, MOST_PIXELS = 1_000_000, 2_000_000
PATIENCE = 120


@pytest.fixture(scope="module")
def sqz(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "small.sqz"
    container.write(small_squeezenet(), path)
    return path


@pytest.fixture(scope="module")
def running(sqz):
    """One server for many tests; nothing that they send it may leave a word in its terminal."""
    options = ("--max-bytes", MOST_BYTES, "--max-pixels", MOST_PIXELS)
    with server(sqz, *options) as (process, address):
        yield address
        assert stopped(process) == (0, "")


def photo(seed=0, size=(64, 48), **how):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", **how)
    return buffer.getvalue()


def blank(pixels):
    buffer = io.BytesIO()
    Image.new("1", (1000, pixels // 1000)).save(buffer, "PNG")
    return buffer.getvalue()


def get(address, path):
    with urllib.request.urlopen("http://{}:{}{}".format(*address, path), timeout=PATIENCE) as got:
        return got.read().decode()


def counted(address):
    """What the server has counted, by name and outcome."""
    return {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(get(address, "/metrics"))
        for sample in family.samples
    }


def test_mixed_requests(sqz):
    """The thousand of `bench/serve.py`, smaller: everyone gets what is theirs, memory stays."""
    images = [photo(seed) for seed in range(20)]
    tops = [load(sqz, 1)(image) for image in images]
    expected = [([p.index for p in top], [p.probability for p in top]) for top in tops]
    limits = {"most_bytes": MOST_BYTES, "most_pixels": MOST_PIXELS}
    options = ("--timeout", 4, "--max-bytes", MOST_BYTES, "--max-pixels", MOST_PIXELS)
    with server(sqz, *options) as (process, address):
        outcomes = send_all(address, mixed(50, images, expected, **limits))
        resident = resident_bytes(process)
        outcomes += send_all(address, mixed(50, images, expected, **limits, seed=1))
        assert resident_bytes(process) < resident + 20e6
        assert [outcome for outcome in outcomes if not outcome.as_wanted] == []
        counts = counted(address)
        assert stopped(process) == (0, "")
    statuses = [outcome.status for outcome in outcomes]
    names = {200: "answered", 408: "too slow", 413: "too large", 422: "not an image"}
    for status, name in names.items():
        assert counts["squeezekit_requests_total", name] == statuses.count(status) > 0
    assert counts["squeezekit_requests_in_flight", None] == 0
    answered = statuses.count(200) + statuses.count(422)
    pixels = sum(outcome.kind == "many pixels" for outcome in outcomes)
    assert counts["squeezekit_answer_seconds_count", None] == answered + pixels


def test_answers_as_predict_does(running, sqz, tmp_path):
    image = tmp_path / "a.jpg"
    image.write_bytes(photo())
    run = subprocess.run(
        [sys.executable, "-m", "squeezekit", "predict", sqz, image, "--json", "--threads", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    by_predict = json.loads(run.stdout)
    for body, name in ((photo(), ""), (form(photo()), "a.jpg")):
        status, answer = posted(body)(running)
        assert status == 200
        assert answer["file"] == "small.sqz"
        assert answer["predictions"][0].pop("image") == name
        assert answer["predictions"][0]["top"] == by_predict["predictions"][0]["top"]


@pytest.mark.parametrize(("asked", "given"), [("1", 1), ("2", 2), ("3", 3), ("1000", 3)])
def test_top(running, asked, given):
    status, answer = posted(photo(), path=f"/?top={asked}")(running)
    assert (status, len(answer["predictions"][0]["top"])) == (200, given)


@pytest.mark.parametrize("top", ["0", "-1", "x", "", "1.5", "9" * 5000, "%C2%B2"])
def test_impossible_top(running, top):
    status, answer = posted(photo(), path=f"/?top={top}")(running)
    assert status == 400
    assert answer == {"error": "top must be a number from 1"}


def test_form_without_file(running):
    assert posted(b"--limit--\r\n")(running) == (400, {"error": "the form has no file"})
    unchosen = form(b"").replace(b"a.jpg", b"")  # as a browser sends it
    assert posted(unchosen)(running) == (400, {"error": "the form has no file"})
    field = form(b"")[: form(b"").index(b"--limit", 1)]
    assert posted(field + b"--limit--\r\n")(running) == (400, {"error": "the form has no file"})


@pytest.mark.parametrize(
    "broken",
    [
        b"--limit\r\n",
        form(b"")[:120],
        form(b"").replace(b"image/jpeg", b"x" * 100_000),
        form(b"").replace(b"a.jpg", b"\xff"),
        form(b"").replace(b'filename="a.jpg"', b"filename*=UTF-8''%FF"),
        form(b"").replace(b"image/jpeg", b"image/jpeg\r\nContent-Encoding: zip"),
    ],
)
def test_broken_form(running, broken):
    """The server lives, and says what is wrong in one line."""
    status, answer = posted(broken)(running)
    assert status in (400, 422)
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("kind", hostile_forms(100))
def test_forms_that_stopped_it(running, kind):
    """Each was a minute's work for readers that take a form line by line."""
    body, sentence = hostile_forms(MOST_BYTES - 100)[kind]
    status, answer = posted(body, is_form=True)(running)
    assert status == 400
    assert sentence in answer["error"]


@pytest.mark.parametrize(
    "named",
    [
        "",
        "; boundary=",
        "; boundary=" + 71 * "x",
        '; boundary="a\\"b',
        "; boundary=x",
    ],
)
def test_boundaries_that_are_none(running, named):
    status, answer = posted(form(photo()), Content_Type=f"multipart/form-data{named}")(running)
    assert status == 400
    assert "form" in answer["error"]


def test_two_files_in_a_form(running):
    """Each has its classes, in the form's order, as it has them alone."""
    second = form(photo(1)).replace(b"a.jpg", "zwölf.jpg".encode())
    both = form(photo()).removesuffix(b"--limit--\r\n") + second
    status, answer = posted(both)(running)
    assert status == 200
    assert [each["image"] for each in answer["predictions"]] == ["a.jpg", "zwölf.jpg"]
    for seed, each in enumerate(answer["predictions"]):
        alone = posted(photo(seed))(running)[1]["predictions"][0]
        assert each["top"] == alone["top"]


def test_two_files_of_which_one_is_none(running):
    """The other has its classes all the same, and nobody takes the answer for a good one."""
    both = form(b"<html>").removesuffix(b"--limit--\r\n") + form(photo())
    status, answer = posted(both)(running)
    assert (status, answer["error"]) == (422, "1 of 2 images could not be classified")
    bad, good = answer["predictions"]
    assert "is not an image" in bad["error"]
    assert good["top"] == posted(photo())(running)[1]["predictions"][0]["top"]


def asked(address, method="GET", path="/health", body=b"", **headers):
    """A request with these headers and no others: status, headers and body of its answer."""
    lines = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = b""
        while received := connection.recv(2**16):
            answer += received
    head, _, content = answer.decode().partition("\r\n\r\n")
    first, *rest = head.split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), content


OURS = ("localhost", "127.0.0.1", "[::1]:8000", "192.168.1.7", "a.localhost:80", "LOCALHOST.")
OTHERS = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "a@localhost", "")


def test_answers_to_its_own_names(running):
    """A page that had its name lead here, as DNS rebinding does, reads nothing."""
    for host in OURS:
        assert asked(running, Host=host)[0] == 200
    for host in OTHERS:
        for path in ("/", "/health", "/metrics", "/none"):
            status, headers, content = asked(running, path=path, Host=host)
            assert status == 403
            assert "--allow-host" in content
            assert not host or host not in content
            assert headers["X-Content-Type-Options"] == "nosniff"


def test_pages_from_elsewhere_may_not_ask(running):
    image = photo()
    for origin in ("https://evil.example", "null", "http://localhost:1", "http://localhost"):
        status, headers, _ = asked(
            running, "POST", "/", image, Host="localhost:8000", Origin=origin
        )
        assert status == 403
        assert "Access-Control-Allow-Origin" not in headers
    own = asked(running, "POST", "/", image, Host="localhost:8000", Origin="http://localhost:8000")
    assert own[0] == 200


def test_pages_that_may_ask(sqz):
    page = "https://example.org"
    with server(sqz, "--cors", page, "--allow-host", "pets.example") as (_, address):
        names = {"Host": "pets.example:8000", "Origin": page}
        status, headers, _ = asked(
            address, "OPTIONS", "/", **names, Access_Control_Request_Method="POST"
        )
        assert status == 204
        assert "POST" in headers["Access-Control-Allow-Methods"]
        assert headers["Access-Control-Allow-Origin"] == page
        status, headers, _ = asked(address, "POST", "/", photo(), **names)
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, page)
        assert headers["Vary"] == "Origin"
        refused, headers, _ = asked(address, "POST", "/", b"none", **names)
        assert (refused, headers["Access-Control-Allow-Origin"]) == (422, page)  # and may read why
        names["Origin"] = "https://example.org.evil.example"
        status, headers, _ = asked(address, "OPTIONS", "/", **names)
        assert status == 403
        assert "Access-Control-Allow-Origin" not in headers


def test_origins_and_hosts_that_are_none(sqz):
    assert "is not an origin" in failed("serve", sqz, "--cors", "example.org/x")
    assert "is not a host" in failed("serve", sqz, "--allow-host", "https://example.org/")


def test_errors_repeat_nothing(running):
    """What a request says never comes back to be taken for what the server says."""
    mark = "<script>mark</script>"
    bad_form = form(photo()).replace(b"image/jpeg", b"\xff" + mark.encode())
    asked_for = [
        asked(running, "POST", "/?top=" + mark, photo(), Host="localhost"),
        asked(running, "GET", "/" + mark, Host="localhost"),
        asked(running, mark, "/", Host="localhost"),
        asked(running, "POST", "/", bad_form, Host="localhost",
              Content_Type="multipart/form-data; boundary=limit"),
        asked(running, "POST", "/", photo(), Host=mark),
        asked(running, "GET", "/", Host="localhost", Bad=mark + "\0"),
    ]  # fmt: skip
    for status, headers, content in asked_for:
        assert 400 <= status < 500
        assert "mark" not in content
        assert json.loads(content)["error"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Type"].startswith("application/json")


def test_a_browser_gets_the_page(running, sqz):
    """The one that `export` writes; other clients get a few lines."""
    from squeezekit.interop import page_file

    html = "text/html,application/xhtml+xml,*/*;q=0.8"
    status, headers, content = asked(running, path="/", Host="localhost", Accept=html)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert content == page_file.page(sqz.read_bytes())
    status, headers, content = asked(running, path="/", Host="localhost", Accept="*/*")
    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert "curl --data-binary" in content


@pytest.mark.parametrize("name", ["run", "net.onnx"])
def test_the_page_of_what_is_no_sqz(tmp_path, name):
    """Of a training run, and of an ONNX file: it has the network inside, too."""
    from squeezekit.interop import onnx_file, safetensors_file

    network = small_squeezenet()
    if name == "run":
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text("{}")
        safetensors_file.write(network, tmp_path / name / "weights.safetensors")
    else:
        onnx_file.write(network, tmp_path / name)
    with server(tmp_path / name) as (_, address):
        page = asked(address, path="/", Host="localhost", Accept="text/html")
        assert page[1]["Content-Type"].startswith("text/html")
        assert len(page[2]) > container.write(network, tmp_path / "plain.sqz")


def test_too_thin(running):
    buffer = io.BytesIO()
    Image.new("L", (1, 2_000_000)).save(buffer, "PNG")
    status, answer = posted(buffer.getvalue())(running)
    assert status == 422
    assert "too long and thin" in answer["error"]


def test_pixels_to_the_last(running):
    assert posted(blank(MOST_PIXELS))(running)[0] == 200
    assert posted(blank(MOST_PIXELS + 1000))(running) == (
        413, {"error": "the image has more than 2,000,000 pixels: scale it down"}
    )  # fmt: skip


def test_pixels_inside_an_icon(running):
    """The directory of an .ico says 16 x 16, and the PNG that it leads to is larger."""
    png = blank(MOST_PIXELS + 1000)
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png
    assert posted(icon)(running)[0] == 413


def test_jpeg_of_endless_scans(running):
    """Decoders take any number of scans, each of which costs as much as the whole image."""
    image = photo(progressive=True)
    assert posted(image)(running)[0] == 200
    scans = [m.start() for m in re.finditer(rb"\xff\xda", image)]
    again = image[scans[1] : scans[2]]
    many = image[:-2] + 200 * again + image[-2:]
    Image.open(io.BytesIO(many)).load()  # it is one
    assert posted(many)(running) == (
        422, {"error": "the image has more than 200 scans: save it with fewer"}
    )  # fmt: skip


def test_other_paths_and_methods(running):
    assert posted(b"", path="/predict")(running) == (404, {"error": "Not Found"})
    assert "curl --data-binary" in get(running, "/")
    assert "small.sqz" in get(running, "/")


def test_health(running, sqz):
    assert json.loads(get(running, "/health")) == {
        "status": "ready", "file": "small.sqz", "file_bytes": sqz.stat().st_size
    }  # fmt: skip


def test_no_http_at_all(running):
    with socket.create_connection(running, timeout=PATIENCE) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 as TLS begins\r\n\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.0 400 ")


def test_slow_clients_hold_nobody_up(sqz):
    """More of them than images may be at work; what they cost is there again once they are gone."""
    with server(sqz, "--timeout", PATIENCE, "--max-waiting", 1) as (process, address):
        slow = [socket.create_connection(address) for _ in range(40)]
        for connection in slow:
            connection.sendall(HEAD + b"\r\nhalf")
        in_flight = ("squeezekit_requests_in_flight", None)
        until(lambda: counted(address)[in_flight] == 40)
        assert posted(photo())(address)[0] == 200
        for connection in slow:
            connection.close()
        until(lambda: counted(address)["squeezekit_requests_total", "gone"] == 40)
        assert counted(address)[in_flight] == 0
        assert stopped(process) == (0, "")


def test_stops_when_it_has_answered(sqz):
    """An image that is on its way when the signal comes still gets its classes."""
    with server(sqz, "--timeout", PATIENCE) as (process, address):
        image = photo()
        with socket.create_connection(address, timeout=PATIENCE) as connection:
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(image)
            connection.sendall(head + image[:1000])
            until(lambda: counted(address)["squeezekit_requests_in_flight", None] == 1)
            process.terminate()
            until(lambda: refuses(address))
            connection.sendall(image[1000:])
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")
        assert process.wait(PATIENCE) == 0


def test_stops_without_cutting_anybody_off(sqz):
    """Connections that clients keep: each ends after an answer, or unasked, and none by a reset."""
    health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server(sqz, "--timeout", PATIENCE) as (process, address):
        kept = [socket.create_connection(address, timeout=PATIENCE) for _ in range(3)]
        for connection in kept:
            connection.sendall(health)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")
        fresh, begun, idle, *_ = (socket.create_connection(address, timeout=PATIENCE), *kept)
        fresh.sendall(health[:1])
        begun.sendall(health[:20])
        process.terminate()
        until(lambda: refuses(address))
        fresh.sendall(health[1:])
        begun.sendall(health[20:])
        for connection in (fresh, begun):
            answer = connection.recv(2**16)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close" in answer
            assert connection.recv(2**16) == b""
        assert idle.recv(2**16) == b""
        for connection in (fresh, *kept):
            connection.close()
        assert process.wait(PATIENCE) == 0


def until(true):
    """Wait until something becomes true."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def refuses(address):
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return True
    return False


def test_overloaded():
    """As many images as may be are at work: the next is sent away, and comes again later."""
    go_on = threading.Event()

    def waits(image, top):
        assert go_on.wait(PATIENCE)
        return [Prediction("cat", "", 0, 1.0)]

    async def scenario(client, service):
        waiting = [asyncio.ensure_future(client.post("/", data=b"image")) for _ in range(2)]
        while service._images < 2:
            await asyncio.sleep(0.01)
        refused = await client.post("/", data=b"image")
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert await refused.json() == {
            "error": "2 images are waiting already: try again in a moment"
        }
        assert (await client.get("/health")).status == 200
        go_on.set()
        for response in await asyncio.gather(*waiting):
            assert response.status == 200
        assert (await client.post("/", data=b"image")).status == 200

    in_process(waits, Limits(1000, 1000, PATIENCE, 2), scenario)


def test_bytes_of_all_bodies_together():
    """Sixteen bodies of full size may be on their way, and are forgotten when they are gone."""

    async def scenario(client, service):
        async def nearly_all():
            yield bytes(1000)
            await asyncio.Event().wait()

        sending = [asyncio.ensure_future(client.post("/", data=nearly_all())) for _ in range(16)]
        while service._held_bytes < 16_000:
            await asyncio.sleep(0.01)
        refused = await client.post("/", data=b"1")
        assert refused.status == 503
        assert "too many bytes" in (await refused.json())["error"]
        for request in sending:
            request.cancel()
        while service._held_bytes:
            await asyncio.sleep(0.01)
        assert (await client.post("/", data=b"1")).status == 200

    in_process(lambda image, top: [], Limits(1000, 1000, PATIENCE, 2), scenario)


def in_process(classifier, limits, scenario):
    """Run a scenario with a client of the service that `classifier` answers for."""
    classifier = type("Double", (), {"file_bytes": 1, "__call__": staticmethod(classifier)})()

    async def run():
        with ThreadPoolExecutor(2) as pool:
            service = Service(classifier, "x.sqz", limits, pool)
            async with TestClient(TestServer(service.application())) as client:
                await asyncio.wait_for(scenario(client, service), PATIENCE)

    asyncio.run(run())


def test_broken_network(sqz):
    """A network that fails is the server's fault, and says so."""

    def fails(image, top):
        from squeezekit.errors import GraphError

        raise GraphError("the network gives values that are not numbers")

    async def scenario(client, service):
        response = await client.post("/", data=b"image")
        assert response.status == 500
        assert "not numbers" in (await response.json())["error"]

    in_process(fails, Limits(1000, 1000, PATIENCE, 2), scenario)


def failed(*arguments, before=""):
    code = f"{before}\nfrom squeezekit.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    return run.stderr


def test_port_in_use(running, sqz):
    sentence = failed("serve", sqz, "--port", running[1])
    assert f"cannot listen at 127.0.0.1 port {running[1]} (address already in use)" in sentence


def test_without_the_extra(sqz):
    sentence = failed("serve", sqz, before="import sys; sys.modules['aiohttp'] = None")
    assert sentence == "squeezekit: this needs aiohttp: pip install 'squeezekit[serve]'\n"


def test_slow_head_of_a_second_request(sqz):
    """A connection that was good once is not trusted for that."""
    with server(sqz, "--timeout", 3) as (_, address):
        first = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with socket.create_connection(address, timeout=PATIENCE) as connection:
            connection.sendall(first)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"POST / HTT")
            assert connection.recv(2**16) == b""
