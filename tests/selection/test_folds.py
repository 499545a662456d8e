"""What is held out together: copies of a record, and observations that happen to be equal."""

import numpy as np
import pandas as pd
import pytest

from ntk_uq import NTKClassifier
from ntk_uq.selection.folds import _rows_and_folds

RNG = np.random.default_rng(0)
LEVELS = np.repeat(np.arange(3), 50)
# Two, twenty-five and forty-eight of fifty are of the second class.
LABELS = np.concatenate([np.arange(50) < k for k in (2, 25, 48)]).astype(int)


def folds_of(points, labels, weights=None):
    rng = np.random.default_rng(1)
    return _rows_and_folds(rng, points, np.eye(2)[labels], 600, weights)


def are_together(points, rows, folds):
    """Whether equal points share a fold."""
    fold = np.empty(len(rows), int)
    for k, held_out in enumerate(folds):
        fold[held_out] = k
    pairs = np.unique(np.column_stack([points[rows], fold]), axis=0)
    return len(pairs) == len(np.unique(points, axis=0))


def test_a_table_with_three_possible_rows():
    points = np.eye(3)[LEVELS]
    rows, folds, weights = folds_of(points, LABELS)
    assert weights is None
    assert sorted(np.concatenate(folds)) == list(range(150))
    assert not are_together(points, rows, folds)
    # As estimators hand them on: equal rows of one label are one, with a count.
    merged, counts = np.unique(np.column_stack([LEVELS, LABELS]), axis=0, return_counts=True)
    rows, folds, weights = folds_of(np.eye(3)[merged[:, 0]], merged[:, 1], counts.astype(float))
    assert weights is None
    np.testing.assert_array_equal(np.bincount(rows), counts)
    assert [len(fold) for fold in folds] == [30] * 5


def test_points_that_count_more_often_than_can_be_held_out():
    # Without a common factor.
    counts = np.array([48.0, 2.0, 25.0, 25.0, 2.0, 48.0]) * 1e8 + [1, 0, 0, 0, 0, 0]
    points = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    rows, folds, _ = folds_of(points, np.arange(6) % 2, counts)
    assert len(rows) == 600 == sum(map(len, folds))
    shares = np.bincount(rows) / 600
    # Of 600 a share p has the standard deviation sqrt(p (1 - p) / 600).
    errors = np.sqrt(shares * (1 - shares) / 600)
    assert np.all(np.abs(shares - counts / counts.sum()) < 5 * errors + 1e-9)


@pytest.mark.parametrize("weights", [np.full(100, 5.0), np.where(np.arange(100) % 2, 10.0, 5.0)])
def test_a_factor_of_all_weights_repeats_nothing(weights):
    """Nor do weights of the classes: points that all differ are predicted from others."""
    points, labels = RNG.normal(size=(100, 2)), np.arange(100) % 2
    rows, folds, left = folds_of(points, labels, weights)
    assert are_together(points, rows, folds)
    np.testing.assert_array_equal(left, weights[rows])
    merged, counts = np.unique(np.column_stack([LEVELS, LABELS]), axis=0, return_counts=True)
    rows, folds, left = folds_of(np.eye(3)[merged[:, 0]], merged[:, 1], 5.0 * counts)
    np.testing.assert_array_equal(np.bincount(rows), counts)
    np.testing.assert_array_equal(left, 5.0)


def test_draws_with_replacement_are_copies():
    """Of twenty rows a hundred."""
    drawn = np.bincount(RNG.integers(20, size=100), minlength=20).astype(float)
    points, labels = RNG.normal(size=(20, 2)), np.arange(20) % 2
    rows, folds, _ = folds_of(points, labels, drawn)
    assert are_together(points, rows, folds)


@pytest.mark.parametrize(
    "weights",
    [None, np.repeat([1.0, 8.0], [60, 40]), RNG.uniform(0.5, 2, 100)],
    ids=["repeated", "counted", "by parts"],
)
def test_copies_share_a_fold(weights):
    """A minority that is repeated eight times, labels and all, and points that count by parts."""
    points, labels = RNG.normal(size=(100, 2)), RNG.integers(2, size=100)
    if weights is None:
        times = np.repeat([1, 8], [60, 40])
        points, labels = np.repeat(points, times, axis=0), np.repeat(labels, times)
    rows, folds, left = folds_of(points, labels, weights)
    assert are_together(points, rows, folds)
    assert (left is None) == (weights is None)


def test_frequencies_are_learnt_where_few_rows_are_possible():
    """A category of three: before, each was predicted from the other two, and none was learnt."""
    table, unseen = (pd.DataFrame({"kind": np.array(list("abc"))[k]}) for k in (LEVELS, [0, 1, 2]))
    found = NTKClassifier(n_draws=64).fit(table, LABELS).predict_proba(unseen)[:, 1]
    # Their standard errors are 0.03, 0.07 and 0.03.
    np.testing.assert_allclose(found, [0.04, 0.5, 0.96], atol=0.07)
