"""Conformal sets and intervals, against their definition and by simulation."""

import math

import numpy as np
import pytest
from mapie.conformity_scores import APSConformityScore

from ntk_uq.calibration import (
    ConformalIntervals,
    conformal_intervals,
    conformal_quantile,
    conformal_sets,
    conformal_threshold,
    coverage_by_class,
    prediction_sets,
)

RNG = np.random.default_rng(0)
RARE = np.array([0.75, 0.17, 0.08])


def draws(n, rng=RNG):
    """A forecast that is not calibrated, and labels with a rare class."""
    y = rng.choice(3, n, p=RARE)
    logits = 1.5 * np.eye(3)[y] + rng.normal(size=(n, 3)) + 2 * np.log(RARE)
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    return y, proba / proba.sum(axis=1, keepdims=True)


def by_definition(y, proba, new, level, penalty):
    """Adaptive sets, one class of one point at a time."""

    def score(p, c):
        larger = [j for j in range(3) if p[j] > p[c]]
        return sum(p[j] for j in larger) + penalty * len(larger)

    limit = conformal_quantile([score(p, c) for p, c in zip(proba, y, strict=True)], level)
    return [[score(p, c) <= limit + 1e-9 for c in range(3)] for p in new]


@pytest.mark.parametrize(("score", "penalty"), [("aps", 0.0), ("raps", 0.1)])
def test_adaptive_sets_are_those_of_the_definition(score, penalty):
    (y, proba), (_, new) = draws(200), draws(50)
    rule = conformal_sets(y, proba, 0.8, score=score, penalty=penalty, never_empty=False)
    np.testing.assert_array_equal(rule.sets(new), by_definition(y, proba, new, 0.8, penalty))


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
def test_rounding_takes_no_held_out_row_out_of_its_set(score):
    """As in single precision, predicted in another batch: with one row more or less, the limit."""
    y, proba = draws(100)
    rule = conformal_sets(y, proba, 0.8, score=score, never_empty=False)
    again = proba.astype(np.float32).astype(float)
    again /= again.sum(axis=1, keepdims=True)
    for p in (proba, again):
        assert rule.sets(p)[np.arange(100), y].sum() >= 81  # ceil(101 * 0.8)


def test_aps_scores_are_mapies_without_the_class_itself():
    y, proba = draws(100)
    inclusive = APSConformityScore.get_true_label_cumsum_proba(y, proba, np.arange(3))[0][:, 0]
    rule = conformal_sets(y, proba, 0.5, score="aps")
    own = proba[np.arange(100), y]
    expected = conformal_quantile(inclusive - own, 0.5)
    np.testing.assert_allclose(rule.limits, expected + 1e-6, atol=1e-9)  # the room for rounding


def test_plain_sets_are_those_of_the_threshold():
    (y, proba), (_, new) = draws(100), draws(300)
    rule = conformal_sets(y, proba, 0.5, never_empty=False)
    expected = prediction_sets(new, conformal_threshold(y, proba, 0.5))
    np.testing.assert_array_equal(rule.sets(new), expected)
    filled = conformal_sets(y, proba, 0.5).sets(new)
    assert (~expected.any(axis=1)).any()
    assert filled.any(axis=1).all()
    np.testing.assert_array_equal(filled[expected.any(axis=1)], expected[expected.any(axis=1)])


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("per_class", [False, True])
def test_coverage(score, per_class):
    """Of many held-out sets with new points each: what is promised, and for whom."""
    rng = np.random.default_rng(1)
    repeats, level = 400, 0.8
    cover = np.empty((repeats, 4))
    for r in range(repeats):
        (y, proba), (y_new, new) = draws(300, rng), draws(300, rng)
        rule = conformal_sets(y, proba, level, score=score, per_class=per_class)
        table = coverage_by_class(y_new, rule.sets(new))
        cover[r] = table["coverage"].to_numpy()
    mean, error = cover.mean(axis=0), cover.std(axis=0, ddof=1) / np.sqrt(repeats)
    promised = [0, 1, 2, 3] if per_class else [3]
    assert np.all(mean[promised] > level - 4 * error[promised])
    if not per_class and score == "lac":
        assert mean[2] < 0.6  # which is why there are sets for each class
        assert mean[3] < level + 0.02 + 4 * error[3]


def test_a_class_of_too_few_points_is_in_every_set():
    y, proba = np.array([0] * 20 + [1] * 3), np.tile([0.9, 0.1], (23, 1))
    rule = conformal_sets(y, proba, 0.9, per_class=True)
    assert rule.limits[1] == math.inf
    assert rule.sets([[1.0, 0.0]])[0, 1]


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
def test_coverage_of_intervals(asymmetric, normalised):
    rng = np.random.default_rng(2)
    repeats, level, outside = 2000, 0.8, []
    for _ in range(repeats):
        scale = rng.uniform(0.5, 2.0, 60)
        y = scale * rng.gamma(1.0, size=60)
        given = scale if normalised else np.ones(60)
        rule = conformal_intervals(y[:50], np.ones(50), given[:50], level, asymmetric=asymmetric)
        low, high = rule.interval(np.ones(10), given[50:])
        outside.append([np.mean(y[50:] < low), np.mean(y[50:] > high)])
    mean, error = np.mean(outside, axis=0), np.std(outside, axis=0) / np.sqrt(repeats)
    assert mean.sum() < 1 - level + 4 * error.sum()
    # And no more than the held-out points are too few for.
    assert mean.sum() > 1 - level - 2 / 51 - 4 * error.sum()
    if asymmetric:
        assert np.all(mean < (1 - level) / 2 + 4 * error)
    else:
        assert mean[0] + 4 * error.sum() < mean[1]


def test_intervals_say_their_guarantee():
    asymmetric, average = (ConformalIntervals(1.0, 1.0, 0.8, which) for which in (True, False))
    assert asymmetric.guarantee.endswith("exceeded with probability at most 0.1")
    assert average.guarantee.endswith("probability at least 0.8, on average over all rows")


def test_coverage_by_class_counts():
    y, proba = draws(60)
    members = conformal_sets(y, proba, 0.9).sets(proba)
    table = coverage_by_class(y, members)
    for c in range(3):
        assert table.loc[c, "coverage"] == members[y == c, c].mean()
    assert table.loc["all", "points"] == table["points"][:-1].sum() == 60


def test_sets_that_cannot_be():
    y, proba = draws(20)
    with pytest.raises(ValueError, match="score must be one of lac, aps, raps"):
        conformal_sets(y, proba, score="thr")
    with pytest.raises(ValueError, match="2 classes, and the sets were made for 3"):
        conformal_sets(y, proba).sets([[0.5, 0.5]])
    with pytest.raises(ValueError, match="scale must be positive"):
        conformal_intervals([1.0, 2.0], [1.0, 2.0], 0.0)
