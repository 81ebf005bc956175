"""Every verb refuses files that were made to harm: exit 2, one plain sentence, nothing written."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqz_parts import CANARY, GOOD, files, forged, laughs, with_metadata
from test_closed_graph import OTHERS, SPOILED, TRICKS, loop, other_operator, reading, spoiled
from test_limits import BOMBS

from squeezekit.cli import main

ROOT = Path(__file__).parents[1]

VERBS = {
    "info": ["info", "{file}"],
    "info as JSON": ["info", "{file}", "--json"],
    "predict": ["predict", "{file}", "{photo}"],
    "predict as JSON": ["predict", "{file}", "{photo}", "--json"],
    "evaluate": ["evaluate", "{file}", "--data", "{photos}", "--json"],
    "serve": ["serve", "{file}", "--port", "0"],
    "bench": ["bench", "{file}"],
    "export to .sqz": ["export", "{file}", "{out}/x.sqz"],
    "export to .onnx": ["export", "{file}", "{out}/x.onnx"],
    "export to .safetensors": ["export", "{file}", "{out}/x.safetensors"],
    "export to a page": ["export", "{file}", "{out}/x.html"],
    "compress": ["compress", "{file}", "-o", "{out}/x.sqz", "--method", "svd"],
    "delta": ["delta", "{file}", "{file}", "-o", "{out}/x.sqzd"],
}


def hostile():
    """One of each kind, as name and bytes."""
    text = json.dumps({**GOOD, "name": "\x1b]0;owned\x07\nline"}).encode()
    yield "escapes.sqz", with_metadata(files()[0], text[:-1])
    broken = spoiled(SPOILED[0])
    broken.graph.node[0].name = "\x1b]0;owned\x07\nline\u202e"
    yield "escapes-in-a-node.sqz", forged(broken)
    yield "loop.sqz", forged(loop())
    yield "laughs.onnx", laughs().SerializeToString()
    yield "reads.sqz", forged(reading("canary"))
    yield "reads.onnx", reading("../canary").SerializeToString()
    for name in SPOILED[1:3]:
        yield f"{name}.sqz", forged(spoiled(name))
    for name in OTHERS[:2]:
        yield f"{name}.sqz", forged(other_operator(name))
    for name in BOMBS:
        yield f"{name}.sqz", BOMBS[name]()
    deep = json.dumps({"__metadata__": {"squeezekit.graph": "[" * 20_000}}).encode()
    yield "deep.safetensors", len(deep).to_bytes(8, "little") + deep
    yield "empty.sqz", b""
    yield "pickle.pth", b"cos\nsystem\n(S'touch owned'\ntR."


@pytest.fixture(scope="module")
def strangers():
    return dict(hostile())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Photos, a folder for files, and one for what is written."""
    for folder in ("models", "out", "photos/a", "photos/b"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("photos/a/1.png", "photos/b/1.png", "photo.png"):
        Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path


def refused(verb, file, place, monkeypatch, capfd):
    """The one sentence of a verb about a file."""
    words = {"file": file, "photo": place / "photo.png", "photos": place / "photos"}
    arguments = [word.format(**words, out=place / "out") for word in VERBS[verb]]
    monkeypatch.setattr(sys, "argv", ["squeezekit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, said = capfd.readouterr()
    assert ended.value.code == 2, (said, out)
    assert len(said.strip().splitlines()) == 1, said
    assert said.strip().isprintable()
    assert not out.strip() or "error" in json.loads(out), out
    assert not list((place / "out").iterdir())
    return said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses(verb, strangers, place, monkeypatch, capfd):
    for name, data in strangers.items():
        (place / "models" / name).write_bytes(data)
        assert refused(verb, place / "models" / name, place, monkeypatch, capfd)
    assert {path.name for path in (place / "models").iterdir()} == strangers.keys()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("ending", ["sqz", "onnx"])
def test_no_verb_reads_a_canary(verb, ending, place, monkeypatch, capfd):
    """As external data of a tensor, by every trick (test_closed_graph.py has more of them)."""
    (place / "canary").write_bytes(CANARY)
    (place / "models" / "link").symlink_to(place / "canary")
    os.link(place / "canary", place / "models" / "hard")
    for trick in ("absolute", "parent", "symlink", "hard link"):
        model = reading(TRICKS[trick].format(root=place))
        file = place / "models" / f"net.{ending}"
        file.write_bytes(forged(model) if ending == "sqz" else model.SerializeToString())
        said = refused(verb, file, place, monkeypatch, capfd)
        assert CANARY[:17].decode() not in said


def test_each_promise_names_what_shows_it():
    """docs/security.md: a test or a result that exists, for every row of its table."""
    text = (ROOT / "docs" / "security.md").read_text()
    table = text[text.index("## What is promised") : text.index("## Limits")]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for promise, shown in rows:
        named = re.findall(r"`((?:tests|bench)/[\w./]+)`", shown)
        assert named, promise
        for name in named:
            assert (ROOT / name).exists(), name
    for name in re.findall(r"\b((?:tests|bench|docs|native)/[\w./]*\w)", text):
        assert (ROOT / name).exists(), name
