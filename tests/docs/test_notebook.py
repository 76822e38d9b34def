"""The notebook runs from its first cell to its last, and is committed without what a run leaves in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "look_at_a_dataset.ipynb"


@pytest.mark.deep
def test_the_notebook_runs(workplace: Callable[[bool], None]) -> None:
    import nbformat
    from nbclient import NotebookClient

    workplace(True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(Path.cwd())}}).execute()
    shown = [kind for cell in notebook.cells for out in cell.get("outputs", ()) for kind in out.get("data", ())]
    assert shown.count("image/png") >= 4, "two plots, a gallery, a sample"
    assert shown.count("text/html") >= 4, "the dataset, two tables, the sample"


def test_no_output_is_committed_with_the_notebook() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
