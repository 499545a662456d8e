"""Notebooks: stored without outputs, shown in the documentation, and running as they stand."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_is_stored_without_results(path):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_differences_between_versions_are_those_of_its_text(path):
    notebook = json.loads(path.read_text())
    assert [cell["id"] for cell in notebook["cells"]] == [
        f"cell-{position:02}" for position in range(len(notebook["cells"]))
    ]
    assert not any(cell["metadata"] for cell in notebook["cells"])
    assert notebook["metadata"]["language_info"] == {"name": "python"}  # without a version


def test_is_shown_in_the_documentation(path):
    assert (ROOT / "docs" / path.name).resolve() == path
    contents = (ROOT / "docs" / "index.md").read_text()
    assert re.search(rf"^{path.stem}$", contents, flags=re.MULTILINE)


@pytest.mark.slow  # `make docs` runs them too
def test_runs_without_a_warning(path, tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_UQ_SMALL", "1")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    for cell in notebook.cells:
        messages = [
            output.text for output in cell.get("outputs", ()) if output.get("name") == "stderr"
        ]
        assert not messages, cell.source
