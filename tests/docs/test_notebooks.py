"""The notebooks run as they stand, each in a kernel of its own, and end with the outputs that are kept in them."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel, of unseen[dev]")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel, of unseen[dev]")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel, of unseen[dev]")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs/notebooks").glob("*.ipynb"))


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["features", "own_images", "research_table"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    kept = [text for cell in notebook.cells for text in outputs(cell)]
    assert kept
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    found = [text for cell in notebook.cells for text in outputs(cell)]
    assert len(found) == len(kept)
    assert [len(text.splitlines()) for text in found] == [len(text.splitlines()) for text in kept]


def outputs(cell):
    """What a cell printed and returned, as text."""
    for output in cell.get("outputs", ()):
        if output.get("name") == "stderr":
            continue
        yield output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
