"""Figures that README and docs quote stand in the result files that they link to."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]
NOT_MEASURED = {120_000, 240_000, 1_248_424, 421_098}
"""Sizes that are asked for, and the parameters of Table 1, which test_cost.py counts."""

BYTES = re.compile(r"\b\d{1,3}(?:,\d{3})+\b")
ACCURACIES = re.compile(r"^(\d+\.\d)(?: / (\d+\.\d))?$")


def sections(page):
    """The parts of a page between headings that quote results: title, text, what is linked."""
    found = []
    for text in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        linked = re.findall(r"bench/results/(\w+\.json)", text)
        if linked:
            files = [ROOT / "bench" / "results" / name for name in linked]
            found.append(
                (text.partition("\n")[0], text, [json.loads(f.read_text()) for f in files])
            )
    return found


def parts(content):
    """Every object and every number in it."""
    yield content
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from parts(value)


def rows(text):
    """The rows of its tables, and the cells of each that have accuracies."""
    columns = None
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if columns is None:
            columns = [i for i, cell in enumerate(cells) if re.match("top-1|after", cell)]
        else:
            yield cells, [cells[i] for i in columns]


def number(word):
    return int(word.replace(",", ""))


def measured(results, file_bytes):
    """The accuracies that results have for a file of that size: both, and top-1 alone."""
    for part in parts(results):
        if not isinstance(part, dict):
            continue
        ours = {k: v.get("ours") if isinstance(v, dict) else v for k, v in part.items()}
        if ours.get("bytes", ours.get("file_bytes")) == file_bytes and ours.get("top1") is not None:
            top1, top5 = f"{ours['top1']:.1f}", f"{ours.get('top5', 0):.1f}"
            yield from ((top1, top5), (top1, None))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sizes_stand_in_the_results(page):
    for title, text, results in sections(page):
        known = {part for part in parts(results) if isinstance(part, int)} | NOT_MEASURED
        quoted = {number(word) for word in BYTES.findall(text)}
        assert {size for size in quoted if size >= 10_000} <= known, title


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_accuracies_in_tables_are_those_of_the_file_of_that_size(page):
    checked = 0
    for title, text, results in sections(page):
        for row, cells in rows(text):
            sizes = [number(word) for word in BYTES.findall(" ".join(row[1:]))]
            quoted = {found.groups() for cell in cells if (found := ACCURACIES.match(cell))}
            if not sizes or not quoted or max(sizes) < 10_000:
                continue
            found = set()
            for size in sizes:
                of_size = {each for each in measured(results, size) if each in quoted}
                assert of_size, f"{title}: {row}"
                found |= of_size
                checked += 1
            assert found == quoted, f"{title}: {row}"
    assert checked > 1
