"""The package keeps its plan: few rooms, one direction, short files and functions.

What still exceeds a limit is listed by name. A list may only become shorter: what is mended must be
taken off.
"""

import importlib.util
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

import ntk_uq

ROOT = Path(__file__).parents[1]
PACKAGE = Path(ntk_uq.__file__).parent

spec = importlib.util.spec_from_file_location("structure", ROOT / "benchmarks" / "structure.py")
structure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(structure)

MOST_ROOMS, MOST_FLOORS, MOST_ARROWS = 24, 7, 90
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 700, 80

LONG_FILES = {"metrics.py"}  # a list of scores, each with its source and example: stays
LONG_FUNCTIONS: set[str] = set()


@pytest.fixture(scope="module")
def plan():
    graph = structure.imports()
    arrows = structure.rooms(graph)
    return set(graph.find_children("ntk_uq")), arrows


def test_rooms_floors_and_arrows(plan):
    names, arrows = plan
    assert len(names) <= MOST_ROOMS
    assert max(structure.floors(names, arrows).values()) <= MOST_FLOORS
    assert len(arrows) <= MOST_ARROWS


def test_circles(plan):
    assert structure.circles(plan[1]) == []


def test_directions(monkeypatch):
    """The contracts in pyproject.toml, which say what may import what."""
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


def test_files_are_short():
    lines = structure.lines(ROOT)
    assert {name for name in lines if lines[name] > MOST_LINES} == LONG_FILES


def test_functions_are_short():
    found = {
        f"{name}: {function}"
        for name in structure.lines(ROOT)
        for lines, function in structure.functions(PACKAGE / name)
        if lines > MOST_LINES_OF_A_FUNCTION
    }
    assert found == LONG_FUNCTIONS


def test_circles_and_floors_of_a_known_plan():
    """Two rooms that lead to each other, on the ground that a third stands on."""
    arrows = {("a", "b"), ("b", "a"), ("c", "a"), ("b", "d")}
    assert structure.circles(arrows) == [{"a", "b"}]
    assert structure.floors({"a", "b", "c", "d"}, arrows) == {"d": 1, "a": 2, "b": 2, "c": 3}
