"""What must be light to import is."""

import subprocess
import sys

import pytest

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
        "squeezekit.serve",
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
