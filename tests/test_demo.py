"""The demo, run once as a user runs it, holds what the README promises of it."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from rich.console import Console

from squeezekit.data.dataset import split
from squeezekit.demo import run_demo
from squeezekit.interop.weights import load_network
from squeezekit.runtime import classifier


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The result of `squeezekit demo`, and what it printed."""
    printed = io.StringIO()
    out = tmp_path_factory.mktemp("demo")
    result = run_demo(out, seed=0, console=Console(file=printed, width=100))
    return result, printed.getvalue()


def test_float32_network_is_accurate(demo):
    assert demo[0].float_top1 >= 97.5


def test_file_is_thirty_times_smaller_and_loses_at_most_a_point(demo):
    result, _ = demo
    network = load_network(result.sqz)
    assert result.file_bytes == result.sqz.stat().st_size
    assert 4 * network.parameters == result.float_bytes
    assert result.float_bytes >= 30 * result.file_bytes
    assert result.sqz_top1 >= result.float_top1 - 1.0


def test_stages_end_with_the_file(demo):
    result, _ = demo
    sizes = [stage.file_bytes for stage in result.stages]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == result.file_bytes
    assert result.stages[-1].top1 == pytest.approx(result.sqz_top1)


def test_file_predicts_without_torch(demo):
    """Every held-out digit through another process: the accuracy is the one that was reported."""
    result, _ = demo
    held_out = split(result.sqz.parent / "digits", "val")
    code = """
import json, sys
sys.modules["torch"] = None  # importing it fails
from squeezekit.runtime.loading import load
paths = json.load(sys.stdin)
print(json.dumps([top[0].label for top in load(sys.argv[1]).predict_many(paths, top=1)]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(result.sqz)],
        input=json.dumps([str(path) for path in held_out.paths]),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    right = [
        label == path.parent.name
        for label, path in zip(json.loads(run.stdout), held_out.paths, strict=True)
    ]
    assert len(right) == 359
    assert 100 * sum(right) / len(right) == pytest.approx(result.sqz_top1)


def test_float_weights_are_kept(demo):
    result, _ = demo
    folder = result.sqz.parent
    network = load_network(folder / "weights.safetensors")
    held_out = split(folder / "digits", "val")
    tops = classifier.from_network(network).predict_many(held_out.paths, top=1)
    right = sum(t[0].label == p.parent.name for t, p in zip(tops, held_out.paths, strict=True))
    assert 100 * right / len(held_out) == pytest.approx(demo[0].float_top1)


class _Page(HTMLParser):
    """Collects what a browser would fetch, and checks that elements are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self):
        super().__init__()
        self.addresses, self.images, self.open, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        self.addresses += [
            values[k] for k in ("src", "href", "xlink:href", "srcset", "action") if k in values
        ]
        if tag == "img":
            self.images.append(values)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_one_file(demo):
    html = demo[0].page.read_text(encoding="utf-8")
    page = _Page()
    page.feed(html)
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    assert page.tags.isdisjoint({"script", "iframe", "object", "embed"})


def test_page_shows_the_run(demo):
    result, _ = demo
    html = result.page.read_text(encoding="utf-8")
    page = _Page()
    page.feed(html)
    for stage in result.stages:
        assert f"{stage.file_bytes:,}" in html
    for part in ("Bytes by layer", "Confusion matrix", "The worst mistakes", "fire2.squeeze1x1"):
        assert part in html
    assert "squeezekit train --data DIR" in html
    assert html.count("<svg") == html.count('role="img"') == 4
    assert all(image["alt"] for image in page.images)
    assert len(page.images) == min(12, round(359 * (100 - result.sqz_top1) / 100))


def test_prints_the_stages_and_what_to_type_next(demo):
    result, printed = demo
    for stage in result.stages:
        assert stage.name in printed
        assert f"{stage.file_bytes:,}" in printed
    assert "squeezekit train --data DIR --model squeezenet-1.1 --out RUN" in printed
    assert "squeezekit compress RUN --data DIR -o model.sqz" in printed
    assert "squeezekit predict model.sqz photo.jpg" in printed
