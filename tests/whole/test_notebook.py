"""The quickstart notebook runs from its first to its last cell, and shows what it promises."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


def test_quickstart(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # Jupyter's own shows figures in the page
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    html = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert len(html) >= 5, "scan, cohort, run, report and answers show themselves"
    assert any("AUC" in text for text in html)
    assert any("image/png" in output.get("data", {}) for output in shown)
