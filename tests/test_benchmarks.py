"""Benchmarks run, and print their ratios."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_mixed_table_has_the_same_figures_again(monkeypatch):
    """Boosting stops by rows that it draws."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from mixed_table import METHODS, mixed_table

    table, y = mixed_table(300, seed=0)
    first, again = (
        METHODS["histogram boosting"]().fit(table, y).predict_proba(table) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact_draws", "ensemble_training", "kernels", "samplers"])
def test_quick_run(name):
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "faster than" in result.stdout


@pytest.mark.slow
def test_quick_run_of_the_discrepancy():
    command = [sys.executable, str(BENCHMARKS / "discrepancy.py"), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("iris") == 2


@pytest.mark.slow
def test_quick_run_of_the_faults():
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "damaged models: 300 files" in result.stdout
    assert "lost or changed: 0" in result.stdout
