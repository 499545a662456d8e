"""Benchmarks run, and print their ratios."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


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
