"""Benchmarks run, and print their ratios."""

import os
import re
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
def test_quick_run_as_if_there_were_a_gpu():
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--quick", "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    products, exact = re.search(r"programs: (\d+), of which in full: (\d+)", result.stdout).groups()
    assert int(products) == int(exact) > 0
    assert result.stdout.count("faster than the CPU") == 8
    assert "at once" in result.stdout


@pytest.mark.slow
def test_without_a_gpu_the_script_for_one_says_so():
    command = [sys.executable, str(BENCHMARKS / "gpu.py")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "JAX sees no GPU here, only a CPU: nothing to measure.\n"


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
