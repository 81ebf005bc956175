"""Plain predictions go around typer; what they understand, typer understands alike."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_networks import small_squeezenet

from squeezekit.cli import quick
from squeezekit.cli.verbs import app
from squeezekit.speed.race import sample_image
from squeezekit.sqz import container

PLAIN = [
    "predict f.sqz a.jpg",
    "predict f.sqz a.jpg b.png c",
    "predict f.sqz a.jpg --json",
    "predict --json f.sqz a.jpg",
    "predict f.sqz --top 3 a.jpg --threads 2 b.jpg",
    "predict f.sqz a.jpg --top 3 --top 007",
]
NOT_PLAIN = [
    "", "predict", "predict f.sqz", "info f.sqz a.jpg", "--version", "predict --help",
    "predict f.sqz a.jpg -h", "predict f.sqz a.jpg --top", "predict f.sqz a.jpg --top 0",
    "predict f.sqz a.jpg --top -1", "predict f.sqz a.jpg --top x", "predict f.sqz a.jpg --top ²",
    "predict f.sqz a.jpg --top=3", "predict f.sqz -- -a.jpg", "predict f.sqz - a.jpg",
    "predict f.sqz a.jpg --threads 0", "predict f.sqz a.jpg --unknown",
]  # fmt: skip


@pytest.mark.parametrize("line", PLAIN)
def test_typer_understands_the_same(line, monkeypatch):
    asked = []
    signature = inspect.signature(quick.predict)

    def all_of(*positions, **named):
        bound = signature.bind(*positions, **named)
        bound.apply_defaults()
        how = bound.arguments.pop("how")
        asked.append({**bound.arguments, **{key: how.get(key) for key in ("threads", "precision")}})

    monkeypatch.setattr(quick, "predict", all_of)
    app(line.split(), standalone_mode=False)
    all_of(**quick.plainly_asked(line.split()))
    assert asked[0] == asked[1]


def test_what_is_asked():
    words = ["predict", "f.sqz", "--top", "3", "a b.jpg", "--json", "--threads", "2"]
    asked = {"file": Path("f.sqz"), "images": [Path("a b.jpg")]}
    assert quick.plainly_asked(words) == {**asked, "top": 3, "threads": 2, "as_json": True}


@pytest.mark.parametrize("line", NOT_PLAIN)
def test_all_else_is_for_typer(line):
    assert quick.plainly_asked(line.split()) is None


def test_an_answer_loads_no_parser(tmp_path):
    """Whatever is imported on the way delays every single answer."""
    container.write(small_squeezenet(), tmp_path / "f.sqz")
    sample_image().save(tmp_path / "a.jpg")
    code = (
        "import sys; sys.argv[1:] = ['predict', 'f.sqz', 'a.jpg']\n"
        "from squeezekit.cli import main; main()\n"
        "print([m for m in ('typer', 'pydantic', 'rich', 'onnx', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    first, *answers, loaded = done.stdout.splitlines()
    assert first == "a.jpg"
    assert len(answers) == 3
    assert loaded == "[]"


def test_mistakes_and_broken_pipes(tmp_path):
    """As with every other verb: one sentence, or none where nobody listens any more."""
    command = [sys.executable, "-m", "squeezekit", "predict"]
    done = subprocess.run([*command, "missing.sqz", "a.jpg"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "squeezekit: missing.sqz does not exist\n"
    container.write(small_squeezenet(), tmp_path / "f.sqz")
    sample_image().save(tmp_path / "a.jpg")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        done = subprocess.run(
            [*command, tmp_path / "f.sqz", tmp_path / "a.jpg"],
            stdout=nobody, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
