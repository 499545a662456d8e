"""What tests of the shell share."""

import pytest
from example_tables import CLASSES, fitted


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the shell runs, with a table to fit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text(CLASSES)
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return fitted()
