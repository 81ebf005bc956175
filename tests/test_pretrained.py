"""Downloads over a real local server that misbehaves in every way servers do."""

import hashlib
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from squeezekit import cache
from squeezekit.errors import InputError
from squeezekit.interop import pretrained
from squeezekit.interop.pretrained import PRETRAINED, Pretrained, fetch
from squeezekit.interop.weights import file_bytes, load_network, weights_file

CONTENT = bytes(range(256)) * 1000
ENTRY = Pretrained(
    name="tiny",
    url="https://example.invalid/models/tiny-1.net",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="MIT",
    description="a test",
)


class Server:
    """Serves CONTENT as told, and remembers what it was asked."""

    def __init__(self):
        self.content = CONTENT
        self.ranges = True
        self.stop_after = None  # bytes of a body
        self.status = None
        self.silent = False
        self.with_length = True
        self.asked = []  # the Range of each request
        self.go_on = threading.Event()
        handler = type("Handler", (_Handler,), {"told": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/here"

    def close(self):
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    told: Server

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        told, wanted = self.told, self.headers.get("Range")
        told.asked.append(wanted)
        if told.silent:
            told.go_on.wait()
            return
        if told.status or self.path != "/here/tiny-1.net":
            self.send_error(told.status or 404)
            return
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and told.ranges else 0
        if first >= len(told.content):
            self.send_error(416)
            return
        body = told.content[first:]
        self.send_response(206 if first else 200)
        if first:
            last = len(told.content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(told.content)}")
        if told.with_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: told.stop_after])


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Makes ENTRY one of the published weights, and keeps proxies out of the way."""
    monkeypatch.setitem(PRETRAINED, "tiny", ENTRY)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setenv("SQUEEZEKIT_MIRROR", server.address + "/")
    yield server
    server.close()


def sentence(*arguments):
    with pytest.raises(InputError) as caught:
        fetch("tiny", *arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def part_of(folder):
    return folder / "tiny-1.net.part"


# --- what there is ---------------------------------------------------------------------------


def test_the_published_entries():
    entries = [PRETRAINED[n] for n in ("han-2016", "torchvision-1.0", "torchvision-1.1")]
    for entry in entries:
        assert entry.url.startswith("https://")
        assert entry.licence
        assert entry.description
        assert len(entry.sha256) in (8, 64)
        int(entry.sha256, 16)
    for entry in entries[1:]:  # PyTorch's file names end with the first digits of the sha256
        assert Path(entry.file_name).stem.rpartition("-")[2] == entry.sha256[:8]
    assert entries[0].file_name == "compressed_SqueezeNet.net"


def test_the_authors_file_has_the_pinned_checksum(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEEZEKIT_MIRROR", str(shared_data / "han-2016"))
    monkeypatch.setenv("SQUEEZEKIT_CACHE", str(tmp_path))
    network = load_network("han-2016")
    assert network.tensors["conv10.weight"].shape == (1000, 512, 1, 1)
    assert file_bytes("han-2016") == 675_763
    assert weights_file("han-2016") == tmp_path / "pretrained" / "compressed_SqueezeNet.net"


def test_unknown_names():
    with pytest.raises(InputError, match=r"no weights 'han': use han-2016, torchvision-1\.0"):
        fetch("han")
    with pytest.raises(InputError, match=r"han: there is no such file, .*\(han-2016, "):
        load_network("han")


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("han-2016").write_bytes(b"x")
    assert weights_file("han-2016") == Path("han-2016")
    with pytest.raises(InputError, match="not a file that squeezekit reads"):
        load_network("han-2016")


# --- transfers -------------------------------------------------------------------------------


def test_it_is_fetched_once_and_then_used_without_network(server, tmp_path, monkeypatch):
    calls = []
    path = fetch("tiny", tmp_path / "a" / "b", lambda *call: calls.append(call))
    assert path == tmp_path / "a" / "b" / "tiny-1.net"
    assert path.read_bytes() == CONTENT
    assert calls[-1] == ("download tiny", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})
    assert not part_of(path.parent).exists()
    monkeypatch.setenv("SQUEEZEKIT_MIRROR", "http://127.0.0.1:1")
    assert fetch("tiny", tmp_path / "a" / "b") == path
    assert server.asked == [None]


def test_a_prefix_of_the_checksum_is_enough_where_no_more_is_published(
    server, tmp_path, monkeypatch
):
    entry = Pretrained("tiny", ENTRY.url, ENTRY.sha256[:8], "MIT", "a test")
    monkeypatch.setitem(PRETRAINED, "tiny", entry)
    assert fetch("tiny", tmp_path).read_bytes() == CONTENT


def test_a_broken_transfer_is_resumed_where_it_stopped(server, tmp_path):
    server.stop_after = 100_000
    text = sentence(tmp_path)
    assert "stopped after 100,000 of 256,000 bytes" in text or "IncompleteRead" in text
    assert str(tmp_path / "tiny-1.net") in text
    assert part_of(tmp_path).read_bytes() == CONTENT[:100_000]
    sentence(tmp_path)
    server.stop_after = None
    calls = []
    path = fetch("tiny", tmp_path, lambda *call: calls.append(call))
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert all(200_000 < done <= total == 256_000 for _, done, total in calls)


def test_a_server_without_ranges_starts_again(server, tmp_path):
    part_of(tmp_path).write_bytes(b"something else" * 1000)
    server.ranges = False
    assert fetch("tiny", tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=14000-"]


@pytest.mark.parametrize("surplus", [0, 1, 70_000])
def test_a_part_that_is_too_long_is_fetched_anew(server, tmp_path, surplus):
    part_of(tmp_path).write_bytes(b"x" * (len(CONTENT) + surplus))
    assert fetch("tiny", tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) + surplus}-", None]


def test_a_whole_part_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEEZEKIT_MIRROR", "http://127.0.0.1:1")
    part_of(tmp_path).write_bytes(CONTENT)
    assert fetch("tiny", tmp_path).read_bytes() == CONTENT


def test_a_length_is_not_needed(server, tmp_path):
    server.with_length = False
    assert fetch("tiny", tmp_path).read_bytes() == CONTENT


def test_wrong_content_is_deleted(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    text = sentence(tmp_path)
    assert "is not the published tiny" in text
    assert "was deleted" in text
    assert not part_of(tmp_path).exists()
    assert not (tmp_path / "tiny-1.net").exists()
    server.content = CONTENT
    assert fetch("tiny", tmp_path).read_bytes() == CONTENT


def test_a_part_of_another_file_is_found_out(server, tmp_path):
    part_of(tmp_path).write_bytes(b"another file")
    assert "was deleted" in sentence(tmp_path)
    assert fetch("tiny", tmp_path).read_bytes() == CONTENT


def test_a_server_that_sends_another_part_is_not_believed(server, tmp_path, monkeypatch):
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    monkeypatch.setattr(pretrained, "_resumed_at", lambda response: 999)
    assert "another part" in sentence(tmp_path)
    assert part_of(tmp_path).read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (503, "503 ")])
def test_a_server_that_refuses(server, tmp_path, status, words):
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    server.status = status
    text = sentence(tmp_path)
    assert words in text
    assert "get the file from https://example.invalid/models/tiny-1.net by hand" in text
    assert part_of(tmp_path).stat().st_size == 1000


def test_a_server_that_hangs(server, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "TIMEOUT_SECONDS", 0.05)
    server.silent = True
    assert "silent for 0.05 seconds" in sentence(tmp_path)


def test_a_server_that_never_stops(server, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "_MOST_BYTES", 100_000)
    assert "larger than 100,000 bytes" in sentence(tmp_path)


def test_without_network_the_sentence_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEEZEKIT_MIRROR", "http://127.0.0.1:1/x")
    text = sentence(tmp_path)
    assert "refused" in text
    assert text.endswith(f"by hand and put it at {tmp_path / 'tiny-1.net'}")


def test_two_at_once_download_once(server, tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch("tiny", tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in found] == [True] * 4
    assert server.asked == [None]


# --- folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("as_address", [False, True])
def test_a_folder_as_mirror(tmp_path, monkeypatch, as_address):
    mirror = tmp_path / "a mirror%20ü"
    mirror.mkdir()
    monkeypatch.setenv("SQUEEZEKIT_MIRROR", mirror.as_uri() if as_address else str(mirror))
    text = sentence(tmp_path / "cache")
    assert "cannot be fetched from file://" in text
    (mirror / "tiny-1.net").write_bytes(CONTENT)
    (tmp_path / "cache" / "tiny-1.net.part").write_bytes(CONTENT[:50_000])
    assert fetch("tiny", tmp_path / "cache").read_bytes() == CONTENT


def test_a_mirror_that_is_none(tmp_path, monkeypatch):
    for mirror in ("gone", "ftp://example.invalid", "http://[", "https://"):
        monkeypatch.setenv("SQUEEZEKIT_MIRROR", mirror)
        assert mirror in sentence(tmp_path)


def test_a_damaged_file_in_the_cache_is_named(server, tmp_path):
    (tmp_path / "tiny-1.net").write_bytes(CONTENT[:-1])
    text = sentence(tmp_path)
    assert str(tmp_path / "tiny-1.net") in text
    assert "delete it" in text
    assert server.asked == []


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "SQUEEZEKIT_CACHE" in sentence(tmp_path / "file" / "cache")


def test_the_cache_folder_follows_the_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("SQUEEZEKIT_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path
    monkeypatch.delenv("SQUEEZEKIT_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for platform, folder in [
        ("linux", "xdg"), ("darwin", "home/Library/Caches"), ("win32", "local"),
    ]:  # fmt: skip
        monkeypatch.setattr(sys, "platform", platform)
        assert cache.cache_folder() == tmp_path / folder / "squeezekit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "squeezekit"


def test_fetching_needs_no_torch():
    code = "import sys, squeezekit.interop.pretrained; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
