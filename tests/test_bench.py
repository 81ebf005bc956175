"""The scripts of bench/: each can be started, and bench/README.md says what there is."""

import ast
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
PARTS = {"common.py", "architectures.py"}
"""What scripts are made of, and not scripts."""

SCRIPTS = sorted(path for path in BENCH.glob("*.py") if path.name not in PARTS)
RESULTS = sorted((BENCH / "results").iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_how_it_is_called(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"python bench/{script.name}" in said
    assert "--out" in said


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_compresses_names_the_method(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        values = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
        words = [value.value for value in values if isinstance(value, ast.Constant)]
        if "compress" in words:
            assert "--method" in words, f"{script.name}, line {node.lineno}"


@pytest.mark.parametrize("file", sorted(BENCH.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_imported_from_the_tests(file):
    tests = {path.stem for path in BENCH.parent.glob("tests/*.py")}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert tests.isdisjoint(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.module not in tests


def test_the_readme_names_every_script_and_result_and_nothing_else():
    text = (BENCH / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(\./([^)#]+)\)", text))
    expected = {path.name for path in [*SCRIPTS, *(BENCH / name for name in PARTS)]}
    expected |= {f"results/{path.name}" for path in RESULTS}
    assert links == expected


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_how_it_was_made(result):
    content = json.loads(result.read_text(encoding="utf-8"))
    script = re.match(r"python (?:bench/)?(\w+\.py)", content["command"])
    assert script is not None
    assert BENCH / script[1] in SCRIPTS
    assert re.match(r"[0-9a-f]{40}", content["commit"])
    assert content["machine"]["cores"] > 0
