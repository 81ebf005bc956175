"""What must be light to import is, and imports go round in no circle."""

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import squeezekit

HEAVY = ("torch", "matplotlib", "sklearn", "scipy")


@pytest.mark.parametrize(
    "module",
    [
        "squeezekit",
        "squeezekit.runtime.calibration",
        "squeezekit.runtime.classifier",
        "squeezekit.runtime.int8",
        "squeezekit.evaluation",
        "squeezekit.data.folders",
        "squeezekit.server.listening",
        "squeezekit.models.catalogue",
        "squeezekit.report.answers",
        "squeezekit.report.tables",
        "squeezekit.report.contents",
        "squeezekit.report.progress_bar",
        "squeezekit.speed.race",
    ],
)
def test_loads_nothing_heavy(module):
    code = f"import {module}, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"


def test_to_open_and_to_measure_a_file_loads_nothing_heavy(tmp_path, make_images):
    code = f"""
import sys
import squeezekit as sk
from squeezekit.models.catalogue import create
small = create("squeezenet-digits", labels=("a", "b"))
sk.write(small, "a.sqz")
classify = sk.load("a.sqz")
classify("data/a/0.png")
sk.evaluate("a.sqz", "data")
sk.write(sk.calibrate(sk.read("a.sqz"), "data"), "a.onnx", int8=True)
print(repr(sk.read("a.sqz")), dir(sk), [m for m in {HEAVY!r} if m in sys.modules])
"""
    make_images({"a": 2, "b": 2})
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith("[]")
    assert (tmp_path / "a.onnx").exists()


def test_the_command_line_stays_thin_and_modules_readable():
    """What decides anything is a function of the library; `cli` parses, calls and prints."""
    source = Path(squeezekit.__file__).parent
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in source.rglob("*.py")}
    assert sum(count for path, count in lines.items() if path.parent.name == "cli") <= 1200
    long = {path.name for path, count in lines.items() if count > 500}
    assert long <= {"shapes.py"}  # a rule for each operator


def test_no_module_imports_itself_by_way_of_others():
    """What is imported when a function runs counts as well; what is only for types does not."""
    graph = grimp.build_graph("squeezekit", exclude_type_checking_imports=True)
    waiting = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while free := {name for name, imported in waiting.items() if not imported & set(waiting)}:
        waiting = {name: imported for name, imported in waiting.items() if name not in free}
    assert not waiting, f"in a circle, or above one: {sorted(waiting)}"
