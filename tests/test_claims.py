"""Experiments behind the claims: each runs in its quick form, and draws its stored tables."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

CLAIMS = Path(__file__).parent.parent / "benchmarks" / "claims"
EXPERIMENTS = sorted(p.stem for p in CLAIMS.glob("*.py") if not p.stem.startswith("_"))


@pytest.fixture
def module(monkeypatch):
    """Give what imports a script as the pages do, by its own folder."""
    monkeypatch.syspath_prepend(CLAIMS)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"claim_{name}", CLAIMS / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return load


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_quick_run(name, tmp_path):
    command = [sys.executable, str(CLAIMS / f"{name}.py"), "--quick", "--results", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob(f"{name}.*.csv"))


def test_page_and_tables_are_those_of_the_experiments(module):
    """No page without its experiment, no table that nothing draws."""
    pages = {page.stem for page in (CLAIMS.parents[1] / "docs" / "claims").glob("*.md")} - {"index"}
    tables = {path.name.split(".")[0] for path in module("_claim").RESULTS.glob("*.csv")}
    assert pages <= set(EXPERIMENTS)
    assert tables <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_stored_tables_are_drawn_with_labels(name, module):
    tables = module("_claim").stored(name)
    assert tables, f"run benchmarks/claims/{name}.py"
    figure = module(name).draw(tables)
    assert isinstance(figure, Figure)
    drawn = [ax for ax in figure.axes if ax.axison and ax.has_data()]
    assert drawn
    for ax in drawn:  # panels in a column, or in a row, may have their label once
        place = ax.get_subplotspec()
        beside = [one for one in drawn if one.get_gridspec() is ax.get_gridspec()]
        column = [one for one in beside if one.get_subplotspec().colspan == place.colspan]
        row = [one for one in beside if one.get_subplotspec().rowspan == place.rowspan]
        assert any(one.get_xlabel() for one in column)
        assert any(one.get_ylabel() for one in row)
    plt.close(figure)
