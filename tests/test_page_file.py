"""The web page: small, whole, and in a real browser the same answers as ONNX Runtime's."""

import io
import os
import re
import shutil

import numpy as np
import pytest
from operator_graphs import Graph
from PIL import Image
from small_networks import LABELS, shared, small_alexnet, small_squeezenet
from test_c_operators import power
from test_cli import run

from squeezekit.errors import UnsupportedError
from squeezekit.interop import page_file
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models.fold import fold_batch_norm
from squeezekit.runtime.calibration import calibrated
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import prepare
from squeezekit.sqz import container

PROGRAM_BYTES = {"float": 34_000, "int8": 38_000}


def unwrapped(text, size):
    """What page.js does with it."""
    sevens = []
    for character in map(ord, text):
        if character > 127:
            sevens.append(b"\0\r<"[character - 256 >> 7])
        sevens.append(character & 127)
    bits = np.unpackbits(np.array(sevens, np.uint8)[:, np.newaxis], axis=1)[:, 1:]
    return np.packbits(bits.reshape(-1))[:size].tobytes()


def test_bytes_survive_as_text():
    rng = np.random.default_rng(0)
    for data in (b"", b"\0", b"\0" * 99, bytes(range(256)) * 3, rng.bytes(10_000), b"<\r" * 50):
        text = page_file.as_text(data)
        assert not set(text) & set("\0\r<")
        assert unwrapped(text, len(data)) == data
        assert len(text.encode()) <= len(data) * 8 / 7 + 3


@pytest.mark.parametrize("precision", PROGRAM_BYTES)
def test_the_sqz_is_inside_and_the_rest_is_small(precision):
    network = shared(small_squeezenet())
    if precision == "int8":
        network = calibrated(network, np.zeros((1, 3, 41, 41), np.float32))
    sqz = container.encode(network)
    assert PageRuntime(sqz).page_precision == precision
    page = page_file.page(sqz)
    size, text = re.search(r'id="model" data-bytes="(\d+)">([^<]*)<', page).groups()
    assert unwrapped(text, int(size)) == sqz
    rest = len(page.encode()) - len(text.encode())
    assert rest <= PROGRAM_BYTES[precision]
    assert f'data-bytes="{rest}"' in page  # what the page says of itself


def test_nothing_is_fetched():
    page = page_file.page(container.encode(small_squeezenet()))
    outside = re.sub(r"<script type[^<]*<", "<", page)
    assert not re.search(r"https?:|//[a-z]|fetch\(|XMLHttp|import\(|@import|url\(", outside)
    assert "default-src 'none'" in page


def test_title_is_escaped():
    import dataclasses

    network = small_squeezenet()
    metadata = dataclasses.replace(network.metadata, name="<b>&$title")
    page = page_file.page(container.encode(dataclasses.replace(network, metadata=metadata)))
    assert "<h1>&lt;b&gt;&amp;$title</h1>" in page


def test_command_line_writes_it(tmp_path):
    container.write(small_squeezenet(), tmp_path / "small.sqz")
    done = run("export", tmp_path / "small.sqz", tmp_path / "page.html")
    size = (tmp_path / "page.html").stat().st_size
    assert f"page.html: {size:,} bytes" in done.stdout
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")


def test_other_operators_are_refused_by_name():
    graph = Graph(np.random.default_rng(0))
    power(graph)
    with pytest.raises(UnsupportedError, match="operator Pow"):
        page_file.page(container.encode(graph.network()))


# ------------------------------------------------------------------------------- in a real browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or pytest.skip("chromium is not installed")
    # Chromium's own sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open a network's page from a file; gives the tab, which must ask nothing of anybody."""
    requests, errors, context = [], [], browser.new_context(offline=True)

    def open_page(network):
        path = tmp_path / "a page.html"
        page_file.write(network, path)
        tab = context.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(path.as_uri())
        tab.evaluate("ready")
        return tab

    yield open_page
    context.close()
    assert [url for url in requests if not url.startswith("blob:")] == requests[:1]
    assert requests[0].startswith("file:")
    assert errors == []


def as_file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return {
        "name": f"photo.{kind}",
        "mimeType": f"image/{kind.lower()}",
        "buffer": buffer.getvalue(),
    }


def photo(seed, width=150, height=110):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def outputs(tab, file):
    """Hand a file to the page as a person does; what the network said."""
    tab.set_input_files("#file", file)
    return np.array(tab.evaluate("() => turn.then(outputs => [...outputs])"), np.float32)


def assert_page_is_right(tab, network, image, got):
    expected = from_network(network, 1).logits(prepare(image, network.metadata.preprocessing)[None])
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(got, expected[0], atol=1e-3 * abs(expected).max())
    best = np.argsort(-expected[0], kind="stable")[:5]
    assert np.argsort(-got, kind="stable")[:5].tolist() == best.tolist()
    return best


def test_page_gives_what_onnxruntime_gives(opened):
    network = small_squeezenet()
    tab = opened(network)
    for seed in range(3):
        best = assert_page_is_right(tab, network, photo(seed), outputs(tab, as_file(photo(seed))))
        names = tab.locator("#classes b").evaluate_all("found => found.map(e => e.firstChild.data)")
        assert names == [LABELS[i].split(", ")[0] for i in best]
        widths = tab.locator("#classes i").all_inner_texts()
        shares = [float(text.split()[0]) for text in widths]
        assert sum(shares) == pytest.approx(100, abs=0.3)
        sure = shares[0] >= 50 and shares[0] >= 2 * shares[1]
        expected = f"Most likely: {names[0]}" if sure else f"Not sure: {names[0]} or {names[1]}"
        assert tab.inner_text("#status") == expected
    known = tab.inner_text("#known")
    assert f"Knows {len(LABELS)} classes" in known
    assert all(label.split(", ")[0] in known for label in LABELS)
    assert "ms on this device" in tab.inner_text("#cost")


@pytest.mark.parametrize("network", [small_squeezenet(), small_alexnet()])
def test_page_computes_in_int8_to_the_last_bit(opened, network):
    """With code for int8 alone, as the whole runtime does it outside of a browser."""
    images = np.stack([prepare(photo(i), network.metadata.preprocessing) for i in range(4)])
    network = calibrated(fold_batch_norm(network), images)
    runtime = PageRuntime(container.encode(network, "entropy"))
    assert runtime.page_precision == "int8"
    tab = opened(network)
    for seed in (7, 8):
        expected = runtime.logits(prepare(photo(seed), network.metadata.preprocessing))
        np.testing.assert_array_equal(outputs(tab, as_file(photo(seed))), expected)
    assert "in int8" in tab.inner_text("#cost")


def test_page_says_that_a_browser_is_too_old(opened):
    """Where it has no SIMD."""
    tab = opened(small_alexnet())
    tab.evaluate("WebAssembly.validate = () => false")
    tab.evaluate("open().catch(fail).catch(String)")
    assert "too old" in tab.inner_text("#status")


def test_photos_are_turned_upright_and_put_on_white(opened):
    network = small_squeezenet()
    tab = opened(network)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right is missing
    lying = photo(1).transpose(Image.Transpose.ROTATE_90)
    file = as_file(lying, exif=exif)
    assert_page_is_right(tab, network, photo(1), outputs(tab, file))
    half = np.full((110, 150), 255, np.uint8)
    half[:, :70] = 0
    clear = photo(2).copy()
    clear.putalpha(Image.fromarray(half))
    white = Image.composite(photo(2), Image.new("RGB", (150, 110), "white"), Image.fromarray(half))
    assert_page_is_right(tab, network, white, outputs(tab, as_file(clear)))


def test_large_photo_in_strips(opened):
    network = small_squeezenet(channels=1, conv10_pad=1)
    tab = opened(network)
    large = photo(3, 3000, 1100)
    assert_page_is_right(tab, network, large, outputs(tab, as_file(large)))


def test_files_that_are_no_images_get_one_sentence(opened):
    tab = opened(small_squeezenet())
    tab.set_input_files(
        "#file", {"name": "a.txt", "mimeType": "image/png", "buffer": b"not an image"}
    )
    tab.evaluate("() => turn.catch(String)")
    assert tab.inner_text("#status") == "This browser cannot read the file as an image."
    assert_page_is_right(  # and the next one is as welcome as ever
        tab, small_squeezenet(), photo(4), outputs(tab, as_file(photo(4)))
    )


def test_page_is_usable_without_a_mouse(opened):
    tab = opened(small_squeezenet())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.labels[0].textContent") == "Choose a photo"
    assert tab.get_attribute("#answer", "aria-live") == "polite"
