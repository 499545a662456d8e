"""Greedy selection against a search by hand."""

import jax
import numpy as np

from ntk_uq import MLP, Categorical
from ntk_uq.selection import greedy_weights
from ntk_uq.selection.choice import _REGS, _Candidate, _cv_densities, _mixed


def by_hand(densities, weights, steps, most):
    picked = []
    for _ in range(steps):
        allowed = range(len(densities)) if len(set(picked)) < most else sorted(set(picked))
        scores = {
            k: np.average(np.log(np.mean(np.exp(densities[[*picked, k]]), axis=0)), weights=weights)
            for k in allowed
        }
        picked.append(max(scores, key=scores.get))
    return {k: picked.count(k) / steps for k in picked}


def test_greedy_selection():
    rng = np.random.default_rng(0)
    for most in (1, 2, 3):
        densities = np.log(rng.dirichlet([0.5, 0.5], (6, 30))[..., 0])
        weights = rng.uniform(0.5, 2.0, 30)
        expected = by_hand(densities, weights, 8, most)
        found = greedy_weights(densities, weights, 8, most)
        assert found == expected
        assert list(found) == list(expected)
        # What predicts no better than chance anywhere, and what could not be solved, have none.
        others = np.stack([np.full(30, -50.0), np.where(np.arange(30), np.nan, 0.0)])
        assert greedy_weights(np.concatenate([densities, others]), weights, 8, most) == expected
        # Nothing underflows.
        assert greedy_weights(densities - 2000.0, weights, 8, most) == expected


def test_the_first_is_the_best_candidate_and_its_twin_may_be_better():
    """Of three features whose product says the class: the sum of their logarithms."""
    X = np.exp(2 * np.random.default_rng(0).normal(size=(60, 3)))
    y = np.eye(2)[(X.prod(axis=1) > 1).astype(int)]
    X /= X.std(axis=0)
    data = X, y, Categorical(), np.split(np.arange(60), 3), y, None
    network = MLP(depth=1)
    (densities,) = _cv_densities([network], data, "none")
    densities[~np.isclose(_REGS, 0.1)] = np.nan  # one candidate
    with jax.enable_x64(True):
        found = _mixed([_Candidate("", network, densities)], data, "none", (X, None))
    first, twin = found.components
    assert first.architecture == network
    assert twin.name == "normal scores"
    assert twin.score > first.score


def test_the_first_is_the_best_alone():
    densities = np.log(np.random.default_rng(1).uniform(0.1, 0.9, (20, 40)))
    first = next(iter(greedy_weights(densities, np.ones(40))))
    assert first == np.argmax(densities.mean(axis=1))
