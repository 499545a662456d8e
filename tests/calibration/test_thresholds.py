"""Thresholds for costs, precision, recall and rejection: closed forms, and what is promised."""

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from ntk_uq.calibration import (
    cost_threshold,
    least_cost,
    precision_threshold,
    recall_threshold,
    rejection_threshold,
)

COST = np.array([[0.0, 1.0, 0.4], [5.0, 0.5, 0.4]])


def draws(n, rng):
    positive = rng.random(n) < 0.3
    return positive, rng.normal(size=n) + 1.5 * positive


def test_least_cost_by_hand():
    p = np.random.default_rng(0).random(200)
    decision, expected = least_cost(np.c_[1 - p, p], COST)
    for q, k, value in zip(p, decision, expected, strict=True):
        costs = [(1 - q) * COST[0, j] + q * COST[1, j] for j in range(3)]
        assert k == int(np.argmin(costs))
        assert value == pytest.approx(min(costs))


def test_the_threshold_of_costs_is_where_decisions_change():
    threshold = cost_threshold(COST[:, :2])
    p = np.array([threshold - 1e-9, threshold + 1e-9])
    assert least_cost(np.c_[1 - p, p], COST[:, :2])[0].tolist() == [0, 1]


def test_shares_are_scikit_learns():
    positive, score = draws(2000, np.random.default_rng(1))
    precision, recall, thresholds = precision_recall_curve(positive, score)
    for found, curve in (
        (precision_threshold(positive, score, 0.6), precision),
        (recall_threshold(positive, score, 0.8), recall),
    ):
        place = np.searchsorted(thresholds, found.value)
        assert found.held_out == pytest.approx(curve[place])
        assert found.share == np.mean(score >= found.value)
        assert found.held_out >= found.promised


@pytest.mark.parametrize("kind", ["precision", "recall", "rejection"])
def test_promises_are_kept(kind):
    """By as many held-out sets as the confidence says, of what is true of all future points."""
    rng = np.random.default_rng(2)
    future, future_score = draws(200_000, rng)
    repeats, kept = 400, 0
    for _ in range(repeats):
        positive, score = draws(300, rng)
        if kind == "precision":
            found = precision_threshold(positive, score, 0.7, confidence=0.8)
            taken = future_score >= found.value
            kept += not taken.any() or future[taken].mean() >= 0.7
        elif kind == "recall":
            found = recall_threshold(positive, score, 0.7, confidence=0.8)
            kept += np.mean(future_score[future] >= found.value) >= 0.7
        else:
            found = rejection_threshold(score, 0.2, confidence=0.8)
            kept += np.mean(future_score > found.value) <= 0.2
    error = math.sqrt(0.8 * 0.2 / repeats)
    assert kept / repeats > 0.8 - 4 * error
    if kind != "precision":  # whose bounds hold at 20 ranks at once
        assert kept / repeats < 0.8 + 0.08 + 4 * error


def test_too_few_points_promise_nothing():
    positive = np.array([True] * 20 + [False] * 20)
    score = np.arange(40.0)
    assert precision_threshold(positive, score, 0.99).value == math.inf
    assert recall_threshold(positive, score, 0.9).value == -math.inf  # takes 29
    assert rejection_threshold(score[:10], 0.1).value == math.inf


def test_thresholds_that_cannot_be():
    with pytest.raises(ValueError, match="a row for each of the 2 classes"):
        least_cost([[0.5, 0.5]], np.ones((3, 2)))
    with pytest.raises(ValueError, match="wrong decision must cost more"):
        cost_threshold([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"truth value for each .*y == 1"):
        recall_threshold([0, 1], [0.1, 0.2], 0.5)
    with pytest.raises(ValueError, match="at_least must lie between 0 and 1"):
        recall_threshold([True], [0.1], 1.5)
