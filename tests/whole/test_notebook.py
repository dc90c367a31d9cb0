"""The notebooks run from their first to their last cell, and show what they promise; each agrees with its script.

An executed notebook is kept in build/notebooks, from where the documentation site takes its pictures.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
# Pictures, and results that show themselves as HTML, that each notebook has at least.
SHOWN = {
    "quickstart": (1, 5),
    "evaluation_for_a_paper": (4, 4),
    "from_your_dicom": (3, 5),
    "nodules_on_ct": (4, 4),
    "what_lora_changes": (4, 2),
}


def test_every_notebook_is_known():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_committed(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_agrees_with_its_script(path):
    """Read without jupytext, which made the pair: cells of the percent format start with ``# %%``."""
    script = path.with_suffix(".py").read_text(encoding="utf-8")
    cells = []
    for part in re.split(r"^# %%", script, flags=re.M)[1:]:
        kind, _, body = part.partition("\n")
        lines = body.strip("\n").split("\n")
        if "[markdown]" in kind:
            cells.append(("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)))
        else:
            cells.append(("code", "\n".join(lines)))
    notebook = [(cell.cell_type, cell.source) for cell in nbformat.read(path, as_version=4).cells]
    assert notebook == cells, "jupytext --sync notebooks/*.ipynb"


def executed(path, folder):
    """The notebook with its results, kept for the documentation."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    kept = REPOSITORY / "build" / "notebooks"
    kept.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, kept / path.name)
    return notebook


def shows(path, folder):
    """All that it shows, as HTML; pictures and HTML are as many as it promises."""
    cells = executed(path, folder).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    html = [data["text/html"] for data in outputs if "text/html" in data]
    pictures, tables = SHOWN[path.stem]
    assert sum("image/png" in data for data in outputs) >= pictures
    assert len(html) >= tables
    return html


@pytest.fixture(autouse=True)
def _figures_in_the_page(monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)


@pytest.mark.slow
def test_quickstart(tmp_path):
    html = shows(REPOSITORY / "notebooks" / "quickstart.ipynb", tmp_path)
    assert any("AUC" in text for text in html)


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem != "quickstart"], ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    shows(path, tmp_path)
