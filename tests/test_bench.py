"""The scripts of bench/: each can be started, and bench/README.md says what there is."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
SAMPLES = BENCH.parent / "samples"
PARTS = {"common.py", "architectures.py"}
"""What scripts are made of, and not scripts."""

SCRIPTS = sorted(path for path in BENCH.glob("*.py") if path.name not in PARTS)
RESULTS = sorted((BENCH / "results").iterdir())


HELP = """
import contextlib, io, json, runpy, sys
from pathlib import Path
path, said = list(sys.path), {}
for script in sys.argv[1:]:
    # As `python bench/SCRIPT.py` has it: what another script put on the path is not there.
    sys.path[:], sys.argv[:] = [str(Path(script).parent), *path[1:]], [script, "--help"]
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or ".").parent.name in ("bench", "samples"):
            del sys.modules[name]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            out.write(f"exit status {end.code or 0}")
        except Exception as error:
            out.write(repr(error))
    said[Path(script).name] = out.getvalue()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def helped():
    """What each script answers to --help, in a process without the tests' own path."""
    command = [sys.executable, "-W", "ignore", "-c", HELP, *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_how_it_is_called(script, helped):
    assert helped[script.name].endswith("exit status 0")
    assert f"python bench/{script.name}" in helped[script.name]
    assert "--out" in helped[script.name]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_that_compresses_names_the_method(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        values = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
        words = [value.value for value in values if isinstance(value, ast.Constant)]
        if "compress" in words:
            assert "--method" in words, f"{script.name}, line {node.lineno}"


@pytest.mark.parametrize(
    "file", sorted([*BENCH.glob("*.py"), *SAMPLES.glob("*.py")]), ids=lambda path: path.stem
)
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
