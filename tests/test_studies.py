"""Studies run in their quick form, and print their tables."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_quick_run_of_early_stopping():
    command = [sys.executable, str(BENCHMARKS / "early_stopping.py")]
    command += ["--splits", "1", "--points", "40", "--data", "iris"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("iris") == 2


@pytest.mark.slow
def test_quick_run_of_coverage():
    command = [sys.executable, str(BENCHMARKS / "coverage.py"), "--points", "30", "--repeats", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "labels count" in result.stdout


@pytest.mark.slow
def test_quick_run_of_recalibrating():
    command = [sys.executable, str(BENCHMARKS / "recalibrating.py"), "--quick"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "isotonic" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("rivals/against_rivals", "ranks by brier"),
        ("out_of_distribution", "fpr95"),
        ("regression", "friedman1, 40 points"),
    ],
)
def test_quick_run(name, heading, tmp_path):
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"]
    command += ["--results", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert heading in result.stdout
