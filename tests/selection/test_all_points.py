"""The regularisation that all points choose, against dense cross-validation."""

import jax
import numpy as np
import pytest

from ntk_uq import MLP, Categorical, Gaussian, Kernels, NTKClassifier
from ntk_uq._common.tiles import SymmetricTiles
from ntk_uq.selection import all_points, cross_validate, reg_of_all_points
from ntk_uq.selection.folds import _rows_and_folds

RNG = np.random.default_rng(0)
N = 50
X = RNG.standard_normal((N, 2))
NET = MLP(depth=1)
SIGNAL = X[:, :1] + 0.5 * RNG.standard_normal((N, 1))


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr("ntk_uq._common.tiles.TILE_ROWS", 20)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("likelihood", "y"),
    [(Categorical(), np.eye(2)[(SIGNAL[:, 0] > 0).astype(int)]), (Gaussian(0.5), SIGNAL)],
)
def test_scores_are_those_of_dense_solutions(likelihood, y):
    """To a hundredth of a posterior standard deviation in each latent, which are of size one."""
    ntk = NET.kernels(X).ntk
    tiles = SymmetricTiles(N).fill(lambda rows, columns: ntk[rows, columns])
    told = []
    with jax.enable_x64(True):
        curve = reg_of_all_points(
            np.random.default_rng(1), tiles, X, y, likelihood, 1.0,
            progress=lambda *done, gap=0.0: told.append(done),
        )  # fmt: skip
        _, folds, _ = _rows_and_folds(np.random.default_rng(1), X, y, N)
        held_out = np.concatenate(folds[:2])
        exact = cross_validate(
            Kernels(ntk, ntk), y, curve.regs, likelihood, ["none"], folds[:2]
        )[:, 0, held_out]  # fmt: skip
    np.testing.assert_allclose(curve.scores[0], exact.mean(axis=1), atol=0.01)
    np.testing.assert_allclose(
        curve.errors[0], exact.std(axis=1, ddof=1) / np.sqrt(len(held_out)), atol=0.01
    )
    # A mode and two folds of each, and something is said while they are sought.
    assert told[-1][0] == told[-1][1] == 3 * len(curve.regs)
    assert told == sorted(told)
    assert len(told) > 1 + len(curve.regs)
    best = curve.scores[0].argmax()
    if 0 < best < len(curve.regs) - 1:  # steps of half a decade, and a parabola between
        assert curve.regs[best - 1] < curve.reg < curve.regs[best + 1]
    else:
        assert curve.reg == curve.regs[best]


def test_the_peak_of_a_parabola():
    steps = np.arange(-2, 3)
    assert all_points._peak(steps, 3.0 - (steps - 0.3) ** 2) == pytest.approx(0.3)
    assert all_points._peak(steps, steps.astype(float)) == 2


def test_an_estimator_chooses_with_all_points(monkeypatch):
    monkeypatch.setattr("ntk_uq.selection.choice._MOST_POINTS", 25)
    monkeypatch.setattr("ntk_uq.analytic.producer._NETWORKS_ABOVE", 40)
    labels = SIGNAL[:, 0] > 0
    few = NTKClassifier(NET, reg="cv", uncertainty="none", prior_functions="exact").fit(X, labels)
    assert few.reg_curve_.n_points == 25
    all_ = NTKClassifier(NET, reg="cv", uncertainty="none").fit(X, labels)
    assert all_.reg_curve_.n_points == N
    assert all_.reg_ == all_.reg_curve_.reg
    known = NTKClassifier(NET, reg=all_.reg_, uncertainty="none", prior_functions="exact")
    # Both are within their tolerance of one solution.
    np.testing.assert_allclose(
        all_.predict_proba(X), known.fit(X, labels).predict_proba(X), atol=0.005
    )
