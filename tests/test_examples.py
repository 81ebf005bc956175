"""The notebooks of `examples/` run as they stand, and their own part is short."""

import ast
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import squeezekit as sk

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="examples/ is not beside the tests")
LIMIT = 15
"""Statements beside the model."""


def cells(notebook, *, model):
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and ("model" in cell.metadata.get("tags", ())) == model
    ]


def statements(source: str) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert cells(notebook, model=True)
    assert "squeezekit" not in "".join(cell.source for cell in cells(notebook, model=True))
    assert sum(statements(cell.source) for cell in cells(notebook, model=False)) <= LIMIT
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_a_torch_module_becomes_a_small_file(tmp_path):
    path = shutil.copy(ROOT / "examples" / "compress_a_torch_module.ipynb", tmp_path)
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    shown = [cell.outputs for cell in cells(notebook, model=False)]
    kinds = [{kind for output in outputs for kind in output.get("data", ())} for outputs in shown]
    assert sum("image/png" in each for each in kinds) == 1  # the plot, once
    assert any("text/html" in each for each in kinds)  # the table of the compression
    assert not any(output.output_type == "stream" for outputs in shown for output in outputs)
    assert (tmp_path / "digits.sqz").stat().st_size <= 2_500
    before, after = sk.read(tmp_path / "digits.onnx"), sk.read(tmp_path / "digits.sqz")
    assert before.metadata.labels == after.metadata.labels == tuple("0123456789")
