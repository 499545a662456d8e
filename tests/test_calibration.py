import numpy as np
import pytest
from scipy import stats

import ntk_uq as nuq
from ntk_uq import calibration


def gumbel_data(rng, shape, n_classes=3):
    """Labels drawn from known probabilities, and a model that is wrong about them."""
    latents = 2 * rng.standard_normal((*shape, n_classes))
    y = (latents + rng.gumbel(size=latents.shape)).argmax(axis=-1)
    proba = np.exp(0.3 * latents)
    return y, proba / proba.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("n", "level"), [(9, 0.8), (19, 0.9), (99, 0.55), (10, 0.5), (7, 0.33)])
def test_conformal_quantile_is_the_smallest_that_counting_allows(n, level):
    scores = np.random.default_rng(0).permutation(n).astype(float)
    quantile = calibration.conformal_quantile(scores, level)
    # The new score's rank among n + 1 is uniform: it is at most the k-th of the others with
    # probability k / (n + 1).
    k = int(np.sum(scores <= quantile))
    assert k / (n + 1) >= level - 1e-9
    assert (k - 1) / (n + 1) < level - 1e-9


@pytest.mark.parametrize(("n", "level"), [(8, 0.9), (3, 0.8), (98, 0.99)])
def test_too_few_scores_promise_nothing(n, level):
    assert calibration.conformal_quantile(np.zeros(n), level) == np.inf
    assert np.isfinite(calibration.conformal_quantile(np.zeros(n + 1), level))
    threshold = calibration.conformal_threshold(np.zeros(n, int), np.full((n, 2), 0.5), level)
    assert threshold == 0
    assert calibration.prediction_sets([[1.0, 0.0]], threshold).all()


def test_coverage_of_sets_follows_the_beta_law():
    rng = np.random.default_rng(1)
    repeats, n, m, level = 400, 39, 4000, 0.8
    coverage = []
    for _ in range(repeats):
        y, proba = gumbel_data(rng, (n + m,))
        threshold = calibration.conformal_threshold(y[:n], proba[:n], level)
        sets = calibration.prediction_sets(proba[n:], threshold)
        coverage.append(sets[np.arange(m), y[n:]].mean())
    law = stats.beta(32, 8)  # k = 40 * 0.8
    # The mean is level exactly; each coverage is measured at m points besides.
    variance = law.var() + level * (1 - level) / m
    assert abs(np.mean(coverage) - level) < 4 * np.sqrt(variance / repeats)
    assert stats.kstest(coverage, law.cdf).pvalue > 0.001


def test_threshold_keeps_held_out_labels_despite_rounding():
    rng = np.random.default_rng(2)
    y, proba = gumbel_data(rng, (49,))
    threshold = calibration.conformal_threshold(y, proba, 0.9)
    held = calibration.prediction_sets(proba, threshold)[np.arange(49), y]
    assert held.sum() == 45


def test_conformal_classes_may_be_names():
    y, proba = gumbel_data(np.random.default_rng(3), (30,))
    names = np.array(["ant", "bee", "cat"])
    named = calibration.conformal_threshold(names[y], proba, classes=names)
    assert named == calibration.conformal_threshold(y, proba)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.conformal_quantile([], 0.9), "shape"),
        (lambda c: c.conformal_quantile([[1.0]], 0.9), "shape"),
        (lambda c: c.conformal_quantile([1.0, np.nan], 0.9), "scores holds values that are NaN"),
        (lambda c: c.conformal_quantile(["a"], 0.9), "scores must hold numbers"),
        (lambda c: c.conformal_quantile([1.0], 90), "level must lie between 0 and 1, got 90"),
        (lambda c: c.conformal_quantile([1.0], np.nan), "level must lie"),
        (lambda c: c.conformal_threshold([0], [[2.0, 3.0]]), "softmax"),
        (lambda c: c.conformal_threshold([2], [[0.5, 0.5]]), r"no class: \[2\]"),
        (lambda c: c.conformal_threshold([0, 1], [[0.5, 0.5]]), r"shape \(1,\)"),
        (lambda c: c.prediction_sets([0.5, 0.5], 0.1), r"\[m, C\]"),
        (lambda c: c.prediction_sets([[0.5, 0.5]], 1.5), "threshold is a probability"),
        (lambda c: c.prediction_sets([[0.5, 0.5]], np.nan), "threshold is a probability"),
    ],
    ids=range(12),
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(calibration)


def blobs(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    return centres[y] + rng.standard_normal((n, 2)), np.array(["ant", "bee", "cat"])[y]


@pytest.mark.parametrize("kind", ["NTKClassifier", "EnsembleClassifier"])
def test_mapies_conformal_sets_are_ours(kind):
    from mapie.classification import SplitConformalClassifier

    X, y = blobs(140, seed=0)
    net = nuq.MLP(width=16, depth=1)
    size = {"n_draws": 16} if kind == "NTKClassifier" else {"n_members": 2}
    clf = getattr(nuq, kind)(net, random_state=0, **size).fit(X[:30], y[:30])
    mapie = SplitConformalClassifier(clf, confidence_level=0.8, prefit=True)
    mapie.conformalize(X[30:79], y[30:79])
    labels, sets = mapie.predict_set(X[79:])
    np.testing.assert_array_equal(labels, clf.predict(X[79:]))
    threshold = calibration.conformal_threshold(
        y[30:79], clf.predict_proba(X[30:79]), 0.8, classes=clf.classes_
    )
    ours = calibration.prediction_sets(clf.predict_proba(X[79:]), threshold)
    np.testing.assert_array_equal(sets[:, :, 0], ours)


@pytest.mark.parametrize("kind", ["NTKRegressor", "EnsembleRegressor"])
def test_mapies_conformal_intervals_are_ours(kind):
    from mapie.regression import SplitConformalRegressor

    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (120, 1))
    y = np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(120)
    net = nuq.MLP(width=16, depth=1)
    size = {} if kind == "NTKRegressor" else {"n_members": 2}
    reg = getattr(nuq, kind)(net, random_state=0, **size).fit(X[:30], y[:30])
    mapie = SplitConformalRegressor(reg, confidence_level=0.8, prefit=True)
    mapie.conformalize(X[30:79], y[30:79])
    points, intervals = mapie.predict_interval(X[79:])
    half = calibration.conformal_quantile(abs(y[30:79] - reg.predict(X[30:79])), 0.8)
    np.testing.assert_allclose(points, reg.predict(X[79:]))
    np.testing.assert_allclose(intervals[:, 0, 0], points - half)
    np.testing.assert_allclose(intervals[:, 1, 0], points + half)
