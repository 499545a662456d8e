import jax
import numpy as np
import pytest

from ntk_uq._common.progress import by_gaps, progress_bar, progress_lines
from ntk_uq.analytic.mixture import Component, fit_mixture
from ntk_uq.analytic.producer import InfiniteEnsemble
from ntk_uq.likelihoods import Categorical
from ntk_uq.networks import MLP, Problem

X = np.array([[-1.0], [1.0]])


def test_bar_counts_on_standard_error(capsys):
    with progress_bar("training", total=4, show=True) as progress:
        progress(1, 4)
        progress(4, 4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training: 100%" in captured.err
    assert "4/4" in captured.err


def test_total_may_be_corrected_on_the_way(capsys):
    with progress_bar("solving", total=10, show=True) as progress:
        progress(2, 2)
    assert "2/2" in capsys.readouterr().err


def test_nothing_is_shown_where_standard_error_is_no_terminal(capsys):
    with progress_bar("training", total=4) as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


def test_lines_in_a_file(capsys, monkeypatch):
    """A line now and then, none of what is quick, and the end of what was long, once."""
    clock = iter([0.0, 1.0, 21.0, 30.0, 52.0, 83.0, 114.0, 115.0, 200.0, 201.0])
    monkeypatch.setattr("ntk_uq._common.progress.time.monotonic", lambda: next(clock))
    with progress_lines("ntk-uq fit"):
        with progress_bar("solving", total=400) as progress:
            # What is nearly all is not all, nor is a full count before the work has ended.
            for done in (50, 100, 150, 200, 399, 400):
                progress(done, 400)
        with progress_bar("quick", total=1) as progress:
            progress(1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "ntk-uq fit: solving: 25%, 21 s, about 63 s left",
        "ntk-uq fit: solving: 50%, 52 s, about 52 s left",
        "ntk-uq fit: solving: 99%, 83 s, about 0 s left",
        "ntk-uq fit: solving: 99%, 2 min",
        "ntk-uq fit: solving: 100%, 2 min",
    ]
    with progress_bar("training", total=4) as progress:
        assert progress is None


def test_draws_under_way_count_for_orders_of_magnitude():
    """From the first gap to the tolerance; draws that fill up a chunk do not count."""
    seen = []
    told = by_gaps(lambda *at, gap: seen.append((*at, gap)), 1e-6, range(2, 4), 4)
    for gaps in ([1.0, 1e-2, 0.0], [1e-3, 1e-4, 0.0], [1e-5, 1e-9, 0.0], [1e-1, 1e-2, 0.0]):
        told(np.array(gaps))
    told(np.array([1e-7, 1e-9, 0.0]))
    # Halves of two ways are one draw; nothing is taken back where gaps are judged afresh.
    assert [done for done, _, _ in seen] == [2, 3, 3, 3, 4]
    assert [total for _, total, _ in seen] == [4] * 5
    assert [gap for _, _, gap in seen] == [1.0, 1e-3, 1e-5, 1e-1, 1e-7]
    seen.clear()
    told = by_gaps(lambda *at, gap: seen.append((*at, gap)), 1e-6, range(2), 2)
    told(np.array([np.inf, np.nan]))  # where rates overflow
    told(np.array([0.0, 1e-6]))
    assert seen == [(0, 2, np.inf), (2, 2, 1e-6)]
    seen.clear()
    told = by_gaps(lambda *at, gap: seen.append(at), 1e-6, range(1, 2), 4, steps=100)
    for gap in (1.0, 1e-3, 1e-6):
        told(np.array([gap]))
    assert seen == [(100, 400), (150, 400), (200, 400)]
    assert by_gaps(None, 1e-6, range(2), 2) is None


def test_no_line_is_said_twice(capsys, monkeypatch):
    """Also where a mixture does the same for each of its networks."""
    monkeypatch.setattr("ntk_uq._common.progress._FIRST_LINE", 0.0)
    monkeypatch.setattr("ntk_uq._common.progress._BETWEEN_LINES", 0.0)
    monkeypatch.setattr("ntk_uq._common.progress._words", lambda seconds: "some time")
    problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), MLP())
    pair = [Component(f"depth {k}", MLP(depth=k), 1.0, 1.0, 0.5, -0.3) for k in (1, 2)]
    with progress_lines("ntk-uq fit"):
        fit_mixture(InfiniteEnsemble(n_draws=4), pair, problem, progress=None)
    ends = [line for line in capsys.readouterr().err.splitlines() if "100%" in line]
    assert ends == [
        f"ntk-uq fit: {label}, network {number} of 2: 100%, some time"
        for number in (1, 2)
        for label in ("kernels", "infinite ensemble")
    ]


def test_what_fails_does_not_end(capsys, monkeypatch):
    monkeypatch.setattr("ntk_uq._common.progress._FIRST_LINE", 0.0)

    def fail():
        with progress_lines("ntk-uq fit"), progress_bar("solving", total=1) as progress:
            progress(0.5, 1)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert "100%" not in capsys.readouterr().err
