"""Every block of code in README and docs runs as it stands, or says why it does not."""

import re
import shlex
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import squeezekit as sk
from squeezekit.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- (?P<why>not run: .*?) -->\s*)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why it is not run."""

    language: str
    code: str
    why: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], found["why"] or "")
        for found in FENCE.finditer(text)
        if found["language"] in ("", "python", "sh", "bash")
    ]


def runnable(block: Block) -> bool:
    return not block.why and (block.language == "python" or "squeezekit " in block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_that_looks_like_a_command_runs_or_says_why_not(page):
    for block in blocks(page):
        commands = re.search(r"^(pip|make|curl|find|squeezekit) ", block.code, re.MULTILINE)
        if block.language == "python" or commands:
            assert runnable(block) or block.why, f"{page.name}: {block.code}"
        assert not block.why or len(block.why) > len("not run: ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_and_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What the pages speak of: a folder of photos, a photo, a trained run, a file."""
    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128), ("grey", 64)):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = random.integers(low, low + 128, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    shutil.copytree(folder / "photos", folder / "more-photos")
    shutil.rmtree(folder / "photos" / "grey")
    shutil.copy(folder / "photos" / "light" / "0.png", folder / "new-photo.jpg")
    shutil.copytree(folder / "photos" / "dark", folder / "photos-of-today")
    network = sk.train(
        folder / "photos", folder / "run", model="squeezenet-digits", precision="float32"
    )
    sk.write(network, folder / "pets.sqz")
    return folder


def commands_in(block: Block) -> list[list[str]]:
    """The commands of a shell block, without comments."""
    lines = [shlex.split(line, comments=True) for line in block.code.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_one_after_the_other(page, place, tmp_path, monkeypatch):
    """As they stand, but for the network that training takes by default: one of 8 x 8 pixels."""
    found = [block for block in blocks(page) if runnable(block)]
    if not found:
        pytest.skip("it has no code that runs")
    trains = any(re.search(r"--out run\b", block.code) for block in found)
    here = tmp_path / "here"
    shutil.copytree(place, here, ignore=shutil.ignore_patterns("run") if trains else None)
    monkeypatch.chdir(here)
    monkeypatch.setattr("squeezekit.training.start.DEFAULT_MODEL", "squeezenet-digits")
    names: dict[str, object] = {}
    for block in found:
        if block.language == "python":
            exec(compile(block.code, page.name, "exec"), names)
            continue
        for program, *arguments in commands_in(block):
            assert program == "squeezekit", f"{page.name} does not say why not to run: {program}"
            run(arguments, monkeypatch)


def run(arguments: list[str], monkeypatch) -> None:
    """A command in this process: starting one for each would take most of the time."""
    monkeypatch.setattr(sys, "argv", ["squeezekit", *arguments])
    before = signal.getsignal(signal.SIGTERM)
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not code, arguments
