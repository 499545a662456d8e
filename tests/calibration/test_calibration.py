import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from scipy import stats
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, LeaveOneOut
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ntk_uq as nuq
from ntk_uq import calibration
from ntk_uq.metrics import scores

NET = nuq.MLP(width=16, depth=1, activation="erf")
LATENTS = nuq.GaussianPrediction(np.zeros((1, 2)), np.eye(2)[None])
REAL = nuq.GaussianPrediction(np.zeros((1, 1)), np.eye(1)[None], nuq.Gaussian(noise=1.0))


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


def wrong_with_probability(rng, risk, n):
    """Uncertainties u ~ U(0, 1), and predictions that are wrong with probability risk(u)."""
    u = rng.random(n)
    return (rng.random(n) < risk(u)).astype(int), np.tile([0.9, 0.1], (n, 1)), u


@pytest.mark.parametrize("n", [150, 300])
def test_rejection_keeps_its_promise_where_every_threshold_breaks_it(n):
    rng = np.random.default_rng(4)
    repeats, confidence = 1500, 0.8
    accepted = 0
    for _ in range(repeats):
        y, proba, u = wrong_with_probability(rng, lambda u: np.full_like(u, 0.1001), n)
        rule = calibration.rejection_rule(y, proba, 0.1, u, confidence=confidence, n_thresholds=4)
        accepted += rule.coverage > 0  # and so the promise is broken
    assert accepted / repeats < 0.2 + 3 * np.sqrt(0.16 / repeats)
    assert accepted > 0.02 * repeats  # not by refusing everything


def test_rejection_keeps_its_promise_where_risk_falls_and_rises():
    """Wrong with probability 0.2 − 0.4u, then 0.8(u − 0.5): R(t) leaves max_error and returns."""
    rng = np.random.default_rng(5)

    def mean_risk(t):
        rising = max(t - 0.5, 0.0)
        falling = min(t, 0.5)
        return (0.2 * falling - 0.2 * falling**2 + 0.4 * rising**2) / t

    repeats, broken, coverage = 300, 0, []
    for _ in range(repeats):
        y, proba, u = wrong_with_probability(
            rng, lambda u: np.where(u < 0.5, 0.2 - 0.4 * u, 0.8 * (u - 0.5)), 1500
        )
        rule = calibration.rejection_rule(y, proba, 0.12, u, confidence=0.9)
        coverage.append(rule.coverage)
        broken += rule.coverage > 0 and mean_risk(min(rule.threshold, 1.0)) > 0.12
    assert broken / repeats < 0.1 + 3 * np.sqrt(0.09 / repeats)
    assert np.mean(coverage) > 0.3


def test_one_threshold_is_the_clopper_pearson_bound():
    y = np.repeat([0, 1], [195, 5])
    proba = np.tile([0.9, 0.1], (200, 1))
    rule = calibration.rejection_rule(y, proba, 0.06, np.arange(200.0), n_thresholds=1)
    # The one threshold is the smallest sample without errors that would do: ln 0.05 / ln 0.94.
    assert rule.coverage == 49 / 200
    assert rule.error == 0
    assert rule.error_bound == pytest.approx(1 - 0.05 ** (1 / 49))
    assert rule.accepts(np.arange(200.0)).sum() == 49
    everything = calibration.rejection_rule(y, proba, 0.1, np.zeros(200), n_thresholds=2)
    assert everything.threshold == np.inf
    upper = stats.binomtest(5, 200, alternative="less").proportion_ci(0.975).high
    assert everything.error_bound == pytest.approx(upper)


def test_equal_uncertainties_are_accepted_together():
    y = np.repeat([0, 1], [150, 50])
    proba = np.tile([0.9, 0.1], (200, 1))
    rule = calibration.rejection_rule(y, proba, 0.1, np.repeat([0.0, 1.0, 2.0], [100, 50, 50]))
    assert rule.coverage == 0.75
    assert rule.threshold == 2.0
    assert rule.accepts([1.0, 2.0]).tolist() == [True, False]


def test_nothing_is_accepted_where_nothing_can_be_promised():
    y, proba = np.zeros(50, int), np.tile([0.9, 0.1], (50, 1))
    rule = calibration.rejection_rule(y, proba, 0.01)
    assert rule.coverage == 0
    assert not rule.accepts([0.0]).any()
    wrong = calibration.rejection_rule(1 - y, proba, 0.5)
    assert wrong.threshold == -np.inf


def test_temperature_of_probabilities_is_scikit_learns():
    X, y = blobs(200, seed=2)
    bayes = GaussianNB().fit(X[:20], y[:20])
    theirs = CalibratedClassifierCV(FrozenEstimator(bayes), method="temperature", ensemble=False)
    (calibrated,) = theirs.fit(X[20:], y[20:]).calibrated_classifiers_
    proba = bayes.predict_proba(X[20:])
    fit = calibration.fit_temperature(y[20:], proba, classes=bayes.classes_, prior_std=np.inf)
    assert fit.temperature == pytest.approx(1 / calibrated.calibrators[0].beta_, rel=1e-4)
    tempered = calibration.temper(proba, fit.temperature)
    np.testing.assert_allclose(tempered, theirs.predict_proba(X[20:]), atol=1e-4)
    assert fit.log_loss == pytest.approx(
        scores(y[20:], tempered, classes=bayes.classes_)["log_loss"]
    )


def test_the_temperature_of_known_latents_is_found():
    rng = np.random.default_rng(6)
    latents = rng.standard_normal((4000, 3))
    y = (latents + rng.gumbel(size=latents.shape)).argmax(axis=1)
    fit = calibration.fit_temperature(y, nuq.SamplePrediction(5 * latents[None]), prior_std=np.inf)
    p = np.exp(latents) / np.exp(latents).sum(axis=1, keepdims=True)
    # Fisher information of log T at one latent: the variance of f under p.
    information = ((p * latents**2).sum(axis=1) - (p * latents).sum(axis=1) ** 2).sum()
    assert abs(np.log(fit.temperature / 5)) < 4 / np.sqrt(information)


def test_one_temperature_does_for_a_gaussian_and_its_draws():
    rng = np.random.default_rng(7)
    mean = 3 * rng.standard_normal((60, 3))
    y = (mean / 3 + rng.gumbel(size=mean.shape)).argmax(axis=1)
    gaussian = nuq.GaussianPrediction(mean, np.tile(np.diag([1.0, 2.0, 3.0]), (60, 1, 1)))
    draws = mean + np.sqrt([1.0, 2.0, 3.0]) * rng.standard_normal((4000, 60, 3))
    fits = [
        calibration.fit_temperature(y, p, prior_std=np.inf)
        for p in (gaussian, nuq.SamplePrediction(draws))
    ]
    assert fits[0].temperature == pytest.approx(fits[1].temperature, rel=0.01)
    # It is the best, to within the step.
    for factor in (0.97, 1.03):
        other = calibration.temper(gaussian, fits[0].temperature * factor).proba()
        assert scores(y, other)["log_loss"] > fits[0].log_loss
    assert fits[0].log_loss < fits[0].log_loss_before
    assert fits[0].log_loss_before == pytest.approx(scores(y, gaussian.proba())["log_loss"])


def test_tempering_scales_the_law_of_the_latents():
    rng = np.random.default_rng(8)
    samples = nuq.SamplePrediction(rng.standard_normal((9, 4, 3)), n_chains=3, joint=True)
    gaussian = nuq.GaussianPrediction(
        samples.mean,
        samples.cov,
        joint_cov=np.cov(samples.samples.reshape(9, 12).T).reshape(4, 3, 4, 3),
    )
    cold, cold_gaussian = calibration.temper(samples, 0.5), calibration.temper(gaussian, 0.5)
    np.testing.assert_allclose(cold.mean, cold_gaussian.mean)
    np.testing.assert_allclose(cold.cov, cold_gaussian.cov)
    np.testing.assert_allclose(cold_gaussian.joint_cov[1, :, 1], cold_gaussian.cov[1])
    assert (cold.n_chains, cold.joint) == (3, True)
    np.testing.assert_allclose(calibration.temper(samples, 1.0).proba(), samples.proba())
    hot = calibration.temper([[1.0, 0.0], [0.5, 0.5]], 100.0)
    np.testing.assert_allclose(hot, [[1.0, 0.0], [0.5, 0.5]])


def test_held_out_labels_without_an_error_are_bounded_by_the_prior_alone():
    y, proba = [0, 1], [[0.9, 0.1], [0.1, 0.9]]
    free = calibration.fit_temperature(y, proba, prior_std=np.inf)
    assert 1 / 32 <= free.temperature < 1 / 8
    assert free.log_loss < 1e-6
    # Two losses log(1 + 9^(-1/T)) and the prior, by brute force.
    log_t = np.linspace(-3, 1, 40_001)
    for std in (0.5, 1.0):
        objective = 2 * np.log1p(9 ** -np.exp(-log_t)) + 0.5 * (log_t / std) ** 2
        fit = calibration.fit_temperature(y, proba, prior_std=std)
        assert np.log(fit.temperature) == pytest.approx(log_t[objective.argmin()], abs=1e-3)
        assert fit.log_loss == pytest.approx(np.log1p(9 ** (-1 / fit.temperature)))
        assert fit.log_loss_before == pytest.approx(-np.log(0.9))


def test_the_prior_fades_with_points():
    y, proba = gumbel_data(np.random.default_rng(9), (30,))
    gaps = []
    for copies in (1, 100):
        data = np.tile(y, copies), np.tile(proba, (copies, 1))
        free, held = (
            calibration.fit_temperature(*data, prior_std=std).temperature for std in (np.inf, 1.0)
        )
        gaps.append(abs(np.log(free / held)))
    assert gaps[0] > 0.02
    assert gaps[1] == pytest.approx(gaps[0] / 100, rel=0.3, abs=2e-4)


@pytest.mark.slow
def test_scaling_one_draw_is_scikit_learns_scaling_of_the_mean():
    X, y = blobs(36, seed=3)
    clf = nuq.NTKClassifier(NET, reg=0.01, uncertainty="none", method="gaussian", random_state=0)
    scaled = calibration.TemperatureScaled(clf, cv=3, prior_std=np.inf).fit(X, y)
    theirs = CalibratedClassifierCV(clf, method="temperature", ensemble=False, cv=3).fit(X, y)
    (calibrated,) = theirs.calibrated_classifiers_
    assert scaled.temperature_ == pytest.approx(1 / calibrated.calibrators[0].beta_, rel=1e-3)
    np.testing.assert_allclose(scaled.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    np.testing.assert_array_equal(scaled.predict(X), theirs.predict(X))
    assert scaled.n_features_in_ == 2
    assert scaled.classes_.tolist() == ["ant", "bee", "cat"]


@pytest.mark.slow
def test_a_frozen_estimator_stays_and_gives_all_points_to_the_temperature():
    X, y = blobs(60, seed=4)
    clf = nuq.NTKClassifier(NET, reg=0.01, n_draws=16, random_state=0).fit(X[:20], y[:20])
    scaled = calibration.TemperatureScaled(FrozenEstimator(clf)).fit(X[20:], y[20:])
    fit = calibration.fit_temperature(
        y[20:], clf.predict_distribution(X[20:]), classes=clf.classes_
    )
    assert scaled.temperature_ == fit.temperature
    np.testing.assert_allclose(
        scaled.predict_distribution(X).samples,
        clf.predict_distribution(X).samples / fit.temperature,
    )


@pytest.mark.slow
def test_scikit_learns_contract():
    clf = nuq.NTKClassifier(NET, reg=1.0, method="gaussian", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its data are ill-conditioned
        check_estimator(calibration.TemperatureScaled(clf, cv=2))


def test_temperature_scaling_needs_latents():
    X, y = blobs(12, seed=5)
    with pytest.raises(ValueError, match="LogisticRegression"):
        calibration.TemperatureScaled(LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="make it the last step"):
        calibration.TemperatureScaled(make_pipeline(StandardScaler(), GaussianNB())).fit(X, y)


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
        (lambda c: c.rejection_rule([0], [[0.5, 0.5]], 5), "max_error must lie between"),
        (lambda c: c.rejection_rule([0], [[0.5, 0.5]], 0.1, confidence=95), "confidence must lie"),
        (lambda c: c.rejection_rule([0], [[0.5, 0.5]], 0.1, n_thresholds=0), "n_thresholds"),
        (lambda c: c.rejection_rule([0], [[0.5, 0.5]], 0.1, [1.0, 2.0]), "uncertainty must have"),
        (lambda c: c.temper([[0.5, 0.5]], 0.0), "temperature must be positive"),
        (lambda c: c.temper([[0.5, 0.5]], np.inf), "temperature must be positive"),
        (lambda c: c.temper([[0.5, 0.5]], "hot"), "temperature must be positive"),
        (lambda c: c.prediction_sets([[0.5, 0.5]], None), "threshold is a probability"),
        (lambda c: c.temper([[1.5, 0.5]], 1.0), "softmax"),
        (lambda c: c.temper(REAL, 1.0), "the likelihood is Gaussian"),
        (lambda c: c.fit_temperature([0, 1], [[0.5, 0.5]]), r"shape \(1,\)"),
        (lambda c: c.fit_temperature([0, 1], LATENTS), r"shape \(1,\)"),
        (lambda c: c.fit_temperature([7], LATENTS), r"no class: \[7\]"),
        (lambda c: c.fit_temperature([0], LATENTS, prior_std=0), "prior_std must be positive"),
        (lambda c: c.fit_temperature([0], LATENTS, prior_std=np.nan), "prior_std must be positive"),
    ],
    ids=range(27),
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(calibration)


def blobs(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    return centres[y] + rng.standard_normal((n, 2)), np.array(["ant", "bee", "cat"])[y]


@pytest.mark.cases(1)
@pytest.mark.parametrize("kind", ["NTKClassifier", "EnsembleClassifier"])
def test_mapies_conformal_sets_are_ours(kind):
    from mapie.classification import SplitConformalClassifier

    X, y = blobs(140, seed=0)
    size = {"n_draws": 4} if kind == "NTKClassifier" else {"n_members": 2}
    clf = getattr(nuq, kind)(NET, random_state=0, **size).fit(X[:30], y[:30])
    mapie = SplitConformalClassifier(clf, confidence_level=0.8, prefit=True)
    mapie.conformalize(X[30:79], y[30:79])
    labels, sets = mapie.predict_set(X[79:])
    np.testing.assert_array_equal(labels, clf.predict(X[79:]))
    threshold = calibration.conformal_threshold(
        y[30:79], clf.predict_proba(X[30:79]), 0.8, classes=clf.classes_
    )
    ours = calibration.prediction_sets(clf.predict_proba(X[79:]), threshold)
    np.testing.assert_array_equal(sets[:, :, 0], ours)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["NTKRegressor", "EnsembleRegressor"])
def test_mapies_conformal_intervals_are_ours(kind):
    from mapie.regression import SplitConformalRegressor

    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (120, 1))
    y = np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(120)
    size = {} if kind == "NTKRegressor" else {"n_members": 2}
    reg = getattr(nuq, kind)(NET, random_state=0, **size).fit(X[:30], y[:30])
    mapie = SplitConformalRegressor(reg, confidence_level=0.8, prefit=True)
    mapie.conformalize(X[30:79], y[30:79])
    points, intervals = mapie.predict_interval(X[79:])
    half = calibration.conformal_quantile(abs(y[30:79] - reg.predict(X[30:79])), 0.8)
    np.testing.assert_allclose(points, reg.predict(X[79:]))
    np.testing.assert_allclose(intervals[:, 0, 0], points - half)
    np.testing.assert_allclose(intervals[:, 1, 0], points + half)


@pytest.mark.slow
def test_the_page_on_calibration_keeps_its_promises():
    page = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text()
    names = {}
    for block in re.findall(r"```\{code-cell\}\n(.*?)```", page, flags=re.DOTALL):
        exec(block, names)
    pyplot.close("all")
    y, test = names["y"], names["test"]
    assert names["fit"].log_loss < 0.6 * names["fit"].log_loss_before
    held = names["sets"][np.arange(len(test)), y[test]].mean()
    # The Beta law of the coverage, and the binomial noise of the test points.
    spread = np.sqrt(stats.beta(571, 30).var() + 0.05 * 0.95 / len(test))
    assert abs(held - 0.95) < 4 * spread
    assert names["wrong"][names["accepted"]].mean() < 0.05
    assert names["accepted"].mean() > 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_temperature_of_rare_classes():
    points = np.linspace(0, 1, 12)[:, None]
    model = nuq.NTKClassifier(NET, reg=1.0, method="gaussian")
    # Two points of a class are never in one stratified fold; of one, the fold has none to fit.
    twice, once = np.array([0] * 6 + [1] * 4 + [2] * 2), np.array([0] * 6 + [1] * 5 + [2])
    for cv in (2, 3, 6):
        assert calibration.TemperatureScaled(model, cv=cv).fit(points, twice).temperature_ > 0
    for cv in (2, 5, LeaveOneOut()):
        with pytest.raises(ValueError, match=r"Class 2 has one point only.*however many folds"):
            calibration.TemperatureScaled(model, cv=cv).fit(points, once)
    with pytest.raises(ValueError, match=r"all 6 points of class 0.*stratified"):
        calibration.TemperatureScaled(model, cv=KFold(2)).fit(points, twice)
    # A fold that never holds it out is fine.
    folds = [(np.r_[:8, 11], np.r_[8:11])]
    assert calibration.TemperatureScaled(model, cv=folds).fit(points, once).temperature_ > 0
