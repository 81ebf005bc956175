"""Plain predictions go around typer; what they understand, typer understands alike."""

import subprocess
import sys
from pathlib import Path

import pytest

from squeezekit.cli import quick
from squeezekit.cli.verbs import app

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
    monkeypatch.setattr(quick, "predict", asked.append)
    app(line.split(), standalone_mode=False)
    assert asked == [quick.plainly_asked(line.split())]


def test_what_is_asked():
    words = ["predict", "f.sqz", "--top", "3", "a b.jpg", "--json", "--threads", "2"]
    assert quick.plainly_asked(words) == quick.Asked(Path("f.sqz"), (Path("a b.jpg"),), 3, 2, True)


@pytest.mark.parametrize("line", NOT_PLAIN)
def test_all_else_is_for_typer(line):
    assert quick.plainly_asked(line.split()) is None


def test_an_answer_loads_no_parser(tmp_path):
    """Whatever is imported on the way delays every single answer."""
    code = (
        "import sys; sys.argv[1:] = ['predict', 'missing.sqz', 'a.jpg']\n"
        "from squeezekit.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
        "print([m for m in HEAVY if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split("\n", 1) == ["2", "[]\n"]
    assert done.stderr == "squeezekit: missing.sqz does not exist\n"
