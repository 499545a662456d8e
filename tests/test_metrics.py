import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, mean_pinball_loss

from ntk_uq.metrics import (
    bootstrap_interval,
    brier_decomposition,
    calibration_check,
    coverage_curve,
    crps_gaussian,
    crps_samples,
    detect_errors,
    detect_outliers,
    expected_calibration_error,
    interval_score,
    pit_gaussian,
    pit_samples,
    pointwise_losses,
    regression_scores,
    rejection_curve,
    reliability_curve,
    scores,
    total_variation,
)

PROBA = np.array([[0.6, 0.3, 0.1], [0.1, 0.75, 0.15], [0.35, 0.35, 0.3], [0.0, 0.05, 0.95]])
LABELS = np.array([0, 2, 2, 2])


def random_predictions(m=400, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(n_classes), size=m)
    return rng.integers(n_classes, size=m), proba


def test_scores_by_hand():
    result = scores(LABELS, PROBA)
    assert result["accuracy"] == 0.5  # a tie is the first class: row 3 predicts 0
    assert result["log_loss"] == pytest.approx(-np.log([0.6, 0.15, 0.3, 0.95]).mean())
    squares = [0.16 + 0.09 + 0.01, 0.01 + 0.5625 + 0.7225, 2 * 0.1225 + 0.49, 2 * 0.0025]
    assert result["brier"] == pytest.approx(np.mean(squares))


def test_calibration_error_by_hand():
    # Confidences 0.6 and 0.75 (right, wrong) share the bin (0.5, 1] with 0.95 (right); 0.35 (wrong)
    # is in (0, 0.5].
    curve = reliability_curve(LABELS, PROBA, n_bins=2)
    assert curve.count.tolist() == [1, 3]
    np.testing.assert_allclose(curve.accuracy, [0, 2 / 3])
    np.testing.assert_allclose(curve.confidence, [0.35, 2.3 / 3])
    expected = 0.25 * 0.35 + 0.75 * abs(2 / 3 - 2.3 / 3)
    assert expected_calibration_error(LABELS, PROBA, n_bins=2) == pytest.approx(expected)


def test_bins_are_closed_on_the_right():
    proba = [[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]
    assert reliability_curve([0, 0, 0], proba, n_bins=4).count.tolist() == [0, 1, 1, 1]


def test_empty_bins_are_nan_and_do_not_count():
    curve = reliability_curve([0, 1], [[1.0, 0.0], [0.0, 1.0]], n_bins=10)
    assert np.isnan(curve.accuracy[:-1]).all()
    assert np.isnan(curve.lower[:-1]).all()
    assert curve.accuracy[-1] == 1
    assert expected_calibration_error([0, 1], [[1.0, 0.0], [0.0, 1.0]]) == 0


def test_intervals_are_wilsons():
    y, proba = random_predictions()
    curve = reliability_curve(y, proba, n_bins=5, level=0.9)
    for b in np.flatnonzero(curve.count):
        right = round(curve.accuracy[b] * curve.count[b])
        test = binomtest(right, int(curve.count[b]))
        interval = test.proportion_ci(confidence_level=0.9, method="wilson")
        np.testing.assert_allclose([curve.lower[b], curve.upper[b]], interval, atol=1e-12)


def test_calibrated_predictions_have_small_error():
    rng = np.random.default_rng(1)
    proba = rng.dirichlet(np.ones(3), size=20_000)
    y = (rng.random((20_000, 1)) > proba.cumsum(axis=1)[:, :-1]).sum(axis=1)
    # Mean of 15 half-normal gaps of standard deviation about sqrt(0.2 / 1300).
    assert expected_calibration_error(y, proba) < 0.02
    assert expected_calibration_error((y + 1) % 3, proba) > 0.2


@pytest.mark.parametrize("n_classes", [2, 4])
def test_scores_are_scikit_learns(n_classes):
    y, proba = random_predictions(n_classes=n_classes)
    result = scores(y, proba)
    assert result["accuracy"] == accuracy_score(y, proba.argmax(axis=1))
    assert result["log_loss"] == log_loss(y, proba)
    assert result["brier"] == brier_score_loss(y, proba, labels=np.arange(n_classes))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_means_of_pointwise_losses_are_the_scores(n_classes):
    y, proba = random_predictions(n_classes=n_classes)
    proba[0] = np.eye(n_classes)[(y[0] + 1) % n_classes]  # certain, and wrong
    result = scores(y, proba)
    for name, losses in pointwise_losses(y, proba).items():
        assert losses.shape == y.shape
        assert losses.mean() == pytest.approx(result[name], rel=1e-12)


def test_labels_may_be_strings_and_need_not_all_occur():
    classes = np.array(["cat", "dog", "owl"])
    named = scores(classes[LABELS], PROBA, classes=classes)
    assert named == scores(LABELS, PROBA)


def test_total_variation_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    q = np.array([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5]])
    np.testing.assert_allclose(total_variation(p, q), [0.3, 1.0])
    np.testing.assert_allclose(total_variation(p, p), 0.0)
    # The largest difference over all sets of classes.
    subsets = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    np.testing.assert_allclose(np.abs((p - q) @ subsets.T).max(axis=1), total_variation(p, q))


def calibrated_predictions(rng, m, n_classes=3, temperature=1.0):
    """Labels drawn from known probabilities; at another temperature the prediction is off."""
    latents = 2 * rng.standard_normal((m, n_classes))
    y = (latents + rng.gumbel(size=latents.shape)).argmax(axis=1)
    proba = np.exp(latents / temperature)
    return y, proba / proba.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_members_are_scored_one_by_one(n_classes):
    y, _ = random_predictions(m=50, n_classes=n_classes)
    members = np.stack([random_predictions(50, n_classes, seed)[1] for seed in range(3)])
    together, pointwise = scores(y, members), pointwise_losses(y, members)
    error = expected_calibration_error(y, members, per_class=True)
    for s, proba in enumerate(members):
        for name, value in scores(y, proba).items():
            assert together[name][s] == value
        for name, value in pointwise_losses(y, proba).items():
            np.testing.assert_array_equal(pointwise[name][s], value)
        assert error[s] == expected_calibration_error(y, proba, per_class=True)


def test_bins_of_equal_mass():
    y, proba = random_predictions(m=103)
    curve = reliability_curve(y, proba, n_bins=10, binning="mass")
    assert set(curve.count) == {10, 11}
    order = np.argsort(proba.max(axis=1))
    right = (proba.argmax(axis=1) == y)[order]
    ends = curve.count.cumsum()
    by_hand = [right[end - n : end].mean() for n, end in zip(curve.count, ends, strict=True)]
    np.testing.assert_allclose(curve.accuracy, by_hand)


def test_equal_confidences_share_a_bin_of_equal_mass():
    proba = np.repeat([[0.75, 0.25], [0.5, 0.5]], [6, 2], axis=0)
    curve = reliability_curve(np.zeros(8, int), proba, n_bins=4, binning="mass")
    assert curve.count.tolist() == [2, 6, 0, 0]
    assert reliability_curve([0], [[1.0, 0.0]], n_bins=5, binning="mass").count.sum() == 1


@pytest.mark.parametrize(("binning", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_error_per_class_is_that_of_scikit_learns_curves(binning, strategy):
    y, proba = random_predictions(m=200, n_classes=3)
    gaps = []
    for c in range(3):
        frequency, forecast = calibration_curve(y == c, proba[:, c], n_bins=5, strategy=strategy)
        if binning == "width":
            count = np.histogram(proba[:, c], bins=5, range=(0, 1))[0]
            count = count[count > 0]
        else:
            count = np.full(5, 40)
        gaps.append(np.average(abs(frequency - forecast), weights=count))
    error = expected_calibration_error(y, proba, n_bins=5, binning=binning, per_class=True)
    assert error == pytest.approx(np.mean(gaps), rel=1e-12)


def test_error_per_class_by_hand():
    # Class 0 in two bins: forecasts 0.6 (true), 0.1, 0.35, 0 (false).
    expected = [0.25 * 0.4 + 0.75 * 0.15, 0.75 * 0.7 / 3 + 0.25 * 0.75]
    expected.append(0.75 * abs(2 / 3 - 0.55 / 3) + 0.25 * 0.05)
    error = expected_calibration_error(LABELS, PROBA, n_bins=2, per_class=True)
    assert error == pytest.approx(np.mean(expected))


def test_root_mean_square_error_by_hand():
    expected = np.sqrt(0.25 * 0.35**2 + 0.75 * (2 / 3 - 2.3 / 3) ** 2)
    assert expected_calibration_error(LABELS, PROBA, n_bins=2, norm=2) == pytest.approx(expected)
    # Debiased: the bin with one point is left out; the other loses (2/3)(1/3)/2 and is cut at zero.
    assert expected_calibration_error(LABELS, PROBA, n_bins=2, norm=2, debiased=True) == 0


def test_squares_of_the_classes_are_pooled_before_the_root():
    """Of a calibrated forecast of 20 classes their sum is zero but for noise."""
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.full(20, 0.5), size=400)
    squares = []
    for _ in range(40):
        y = np.array([rng.choice(20, p=p) for p in proba])
        events, total = np.eye(20)[y], 0.0
        for c in range(20):
            bins = np.minimum((proba[:, c] * 5).astype(int), 4)
            for b in np.unique(bins):
                of_bin = bins == b
                m, o = of_bin.sum(), events[of_bin, c].mean()
                if m > 1:
                    used = sum(k for k in np.bincount(bins) if k > 1)
                    noise = o * (1 - o) / (m - 1)
                    gap = proba[of_bin, c].mean() - o
                    total += m / used * (gap**2 - noise) / 20
        squares.append(total)
        found = expected_calibration_error(
            y, proba, n_bins=5, per_class=True, norm=2, debiased=True
        )
        np.testing.assert_allclose(found, np.sqrt(max(total, 0.0)), atol=1e-12)
    assert abs(np.mean(squares)) < 4 * np.std(squares) / np.sqrt(40)


def test_squared_error_is_debiased_exactly():
    """Forecasts in two bins, all outcomes enumerated: the mean square is the true one."""
    confidence, truth = np.array([0.6, 0.6, 0.6, 0.9, 0.9]), np.array([0.3, 0.3, 0.3, 0.5, 0.5])
    proba = np.c_[confidence, 1 - confidence]
    expected = 0.0
    gap = np.zeros(32)
    for i, right in enumerate(itertools.product([0, 1], repeat=5)):
        right = np.array(right)
        weight = np.prod(np.where(right, truth, 1 - truth))
        # Written out, since the square root cuts negative estimates at zero.
        for b in (slice(0, 3), slice(3, 5)):
            n, o = len(right[b]), right[b].mean()
            gap[i] += n / 5 * ((o - confidence[b][0]) ** 2 - o * (1 - o) / (n - 1))
        error = expected_calibration_error(1 - right, proba, n_bins=5, norm=2, debiased=True)
        assert error == pytest.approx(np.sqrt(max(gap[i], 0)), abs=1e-12)
        expected += weight * gap[i]
    assert expected == pytest.approx(0.6 * 0.3**2 + 0.4 * 0.4**2)


def test_debiasing_a_calibrated_prediction_leaves_what_theory_says():
    """Gaps ~ N(0, σ²): of E|gap| = σ √(2/π) the correction at the gap seen leaves 2 − √2."""
    rng = np.random.default_rng(3)
    plain, debiased, squares = [], [], []
    confidence = np.repeat([0.55, 0.65, 0.75], 300)
    proba = np.c_[confidence, 1 - confidence]
    for _ in range(400):
        y = (rng.random(900) > confidence).astype(int)
        plain.append(expected_calibration_error(y, proba, n_bins=10))
        debiased.append(expected_calibration_error(y, proba, n_bins=10, debiased=True))
        squares.append(expected_calibration_error(y, proba, n_bins=10, norm=2, debiased=True))
    deviation = debiased - (2 - np.sqrt(2)) * np.array(plain)
    # Counts are whole numbers: 300 a bin leaves 1% of the plain error.
    tolerance = 4 * deviation.std() / 20 + 0.01 * np.mean(plain)
    assert abs(deviation.mean()) < tolerance
    sigma = np.sqrt(confidence * (1 - confidence) / 300).mean()
    assert abs(np.mean(plain) - sigma * np.sqrt(2 / np.pi)) < 4 * np.std(plain) / 20
    assert np.median(squares) < 0.5 * np.median(plain)


def test_debiasing_takes_off_the_bias_of_a_gaussian_gap():
    n, o, confidence = 40, 0.7, 0.8
    proba = np.tile([confidence, 1 - confidence], (n, 1))
    y = (np.arange(n) >= o * n).astype(int)
    std = np.sqrt(o * (1 - o) / n)
    mean = integrate.quad(lambda x: abs(x) * stats.norm.pdf(x, o - confidence, std), -1, 1)[0]
    error = expected_calibration_error(y, proba, debiased=True)
    assert error == pytest.approx(2 * (confidence - o) - mean, abs=1e-7)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("n_bins", [1, 7, None])
def test_parts_of_the_brier_score_sum_to_it(n_classes, n_bins):
    y, proba = random_predictions(n_classes=n_classes)
    proba = proba.round(1)
    proba[:, -1] = 1 - proba[:, :-1].sum(axis=1)
    keep = proba[:, -1] >= 0
    y, proba = y[keep], proba[keep]
    parts = brier_decomposition(y, proba, n_bins=n_bins)
    brier = brier_score_loss(y, proba, labels=np.arange(n_classes))
    assert parts.brier == pytest.approx(brier, rel=1e-12)
    if n_bins is None:
        assert parts.within_bin_variance == pytest.approx(0, abs=1e-12)
        assert parts.within_bin_covariance == pytest.approx(0, abs=1e-12)
    if n_bins == 1:
        assert parts.resolution == pytest.approx(0, abs=1e-12)


def test_parts_of_the_brier_score_by_hand():
    # Forecasts of class 1: 0.2 twice (outcomes 0, 1) and 0.9 once (outcome 1).
    parts = brier_decomposition([0, 1, 1], [[0.8, 0.2], [0.8, 0.2], [0.1, 0.9]], n_bins=None)
    assert parts.reliability == pytest.approx((2 * 0.3**2 + 0.1**2) / 3)
    assert parts.resolution == pytest.approx((2 * (1 / 6) ** 2 + (1 / 3) ** 2) / 3)
    assert parts.uncertainty == pytest.approx(2 / 9)


def test_a_bootstrap_interval_is_that_of_the_binomial():
    right = np.repeat([0.0, 1.0], [300, 700])
    interval = bootstrap_interval(np.mean, right, level=0.9, n_resamples=4000, rng=0)
    # Its ends are quantiles of 4000 resamples, each with a standard error near 3% of the width.
    law = stats.binom(1000, 0.7)
    np.testing.assert_allclose(
        interval[1:], np.array([law.ppf(0.05), law.ppf(0.95)]) / 1000, atol=2e-3
    )
    assert interval.estimate == 0.7


def test_bootstrap_resamples_rows_together():
    y, proba = random_predictions(m=60)
    interval = bootstrap_interval(
        lambda y, p: float(np.mean(p[np.arange(len(y)), y])), y, proba, n_resamples=200, rng=1
    )
    assert interval.lower < interval.estimate < interval.upper
    again = bootstrap_interval(
        lambda y, p: float(np.mean(p[np.arange(len(y)), y])), y, proba, n_resamples=200, rng=1
    )
    assert interval == again


def test_rejection_curve_by_brute_force():
    rng = np.random.default_rng(4)
    y, proba = random_predictions(m=7, n_classes=3)
    wrong = proba.argmax(axis=1) != y
    assert 0 < wrong.sum() < 7
    uncertainty = np.array([2, 0, 1, 1, 0, 1, 2])
    curves = []
    for order in itertools.permutations(range(7)):
        if np.all(np.diff(uncertainty[list(order)]) >= 0):
            curves.append([wrong[list(order[:k])].mean() for k in range(1, 8)])
    curve = rejection_curve(y, proba, uncertainty)
    np.testing.assert_allclose(curve.error, np.mean(curves, axis=0))
    np.testing.assert_allclose(curve.accuracy, 1 - curve.error)
    assert curve.aurc == pytest.approx(np.mean(curves))
    best = min(
        np.mean([wrong[list(o[:k])].mean() for k in range(1, 8)])
        for o in itertools.permutations(range(7))
    )
    assert curve.excess_aurc == pytest.approx(curve.aurc - best)
    # The order counts, not the scale.
    u = rng.random(7)
    np.testing.assert_allclose(
        rejection_curve(y, proba, u).error, rejection_curve(y, proba, 5 + u**3).error
    )


def test_an_uncertainty_that_knows_gives_the_best_curve():
    y, proba = random_predictions()
    wrong = proba.argmax(axis=1) != y
    assert rejection_curve(y, proba, wrong).excess_aurc == pytest.approx(0, abs=1e-15)
    assert rejection_curve(y, proba, ~wrong).excess_aurc > 0.1
    assert rejection_curve(y, proba, np.ones(len(y))).aurc == pytest.approx(wrong.mean())


def test_errors_are_detected_by_the_confidence_unless_told():
    y, proba = random_predictions()
    default = detect_errors(y, proba)
    told = detect_errors(y, proba, -proba.max(axis=1))
    assert (default.auroc, default.aupr, default.fpr95) == (told.auroc, told.aupr, told.fpr95)
    assert default.prevalence == np.mean(proba.argmax(axis=1) != y)


def test_detection_by_brute_force():
    rng = np.random.default_rng(5)
    inside, outside = rng.integers(6, size=40), rng.integers(2, 9, size=25)
    found = detect_outliers(inside, outside)
    pairs = outside[:, None] - inside
    assert found.auroc == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    rates = [
        (np.mean(inside >= t), np.mean(outside >= t), np.sum(outside >= t), np.sum(inside >= t))
        for t in range(9)[::-1]
    ]
    assert found.fpr95 == next(fpr for fpr, tpr, _, _ in rates if tpr >= 0.95)
    average, before = 0.0, 0.0
    for _, tpr, true, false in rates:
        average += (tpr - before) * true / max(true + false, 1)
        before = tpr
    assert found.aupr == pytest.approx(average)
    assert found.prevalence == pytest.approx(25 / 65)


def test_detection_of_gaussians_has_the_known_area():
    rng = np.random.default_rng(6)
    inside, outside = rng.standard_normal(4000), 1 + rng.standard_normal(4000)
    found = detect_outliers(inside, outside)
    # P(x' > x) for a shift of one standard deviation; the standard error is below 0.006.
    assert abs(found.auroc - stats.norm.cdf(1 / np.sqrt(2))) < 0.024
    assert abs(found.fpr95 - stats.norm.sf(1 - stats.norm.ppf(0.95))) < 0.06


@pytest.mark.parametrize(("y", "mean", "std"), [(0.3, 0.0, 1.0), (-4.0, 2.0, 0.5), (7.0, 1.0, 3.0)])
def test_gaussian_crps_is_its_integral(y, mean, std):
    law = stats.norm(mean, std)
    below = integrate.quad(lambda x: law.cdf(x) ** 2, mean - 40 * std, y, limit=200)[0]
    above = integrate.quad(lambda x: law.sf(x) ** 2, y, mean + 40 * std, limit=200)[0]
    assert crps_gaussian([y], [mean], [std])[0] == pytest.approx(below + above, rel=1e-7)


def test_gaussian_crps_tends_to_the_absolute_error():
    assert crps_gaussian([2.0], [0.0], [1e-9])[0] == pytest.approx(2.0)


@pytest.mark.parametrize("fair", [True, False])
def test_crps_of_samples_by_its_double_sum(fair):
    rng = np.random.default_rng(7)
    y, samples = rng.standard_normal(5), rng.standard_normal((6, 5)).round(1)
    pairs = np.abs(samples[:, None] - samples).sum(axis=(0, 1)) / (30 if fair else 36)
    expected = np.abs(samples - y).mean(axis=0) - pairs / 2
    np.testing.assert_allclose(crps_samples(y, samples, fair=fair), expected, atol=1e-14)


def test_crps_of_few_samples_is_fair():
    rng = np.random.default_rng(8)
    y = np.full(40_000, 0.7)
    score = crps_samples(y, rng.standard_normal((3, len(y))))
    error = score.std() / np.sqrt(len(y))
    assert abs(score.mean() - crps_gaussian([0.7], [0.0], [1.0])[0]) < 4 * error


def test_crps_of_samples_is_the_integral_of_their_distribution():
    samples, y = np.array([[0.0], [1.0], [3.0]]), 2.0
    # F is 1/3 on [0, 1], 2/3 on [1, 3] and the target steps at 2.
    expected = 1 / 9 + 4 / 9 + 1 / 9
    assert crps_samples([y], samples, fair=False)[0] == pytest.approx(expected)


def test_interval_score_is_two_pinball_losses():
    rng = np.random.default_rng(9)
    y = rng.standard_normal(50)
    lower, upper = -1 + 0.1 * rng.standard_normal(50), 1 + 0.1 * rng.standard_normal(50)
    alpha = 0.2
    pinball = mean_pinball_loss(y, lower, alpha=alpha / 2)
    pinball += mean_pinball_loss(y, upper, alpha=1 - alpha / 2)
    assert interval_score(y, lower, upper, 0.8).mean() == pytest.approx(2 / alpha * pinball)


def test_pit_is_uniform_where_the_prediction_is_right():
    rng = np.random.default_rng(10)
    mean, std = rng.standard_normal(2000), rng.uniform(0.5, 2, 2000)
    y = mean + std * rng.standard_normal(2000)
    assert stats.kstest(pit_gaussian(y, mean, std), "uniform").pvalue > 0.01
    assert stats.kstest(pit_gaussian(y, mean, 2 * std), "uniform").pvalue < 1e-6
    # Few draws, of whole numbers: many ties.
    draws, counts = rng.poisson(2, (5, 2000)), rng.poisson(2, 2000)
    assert stats.kstest(pit_samples(rng, counts, draws), "uniform").pvalue > 0.01


def test_pit_of_many_samples_is_that_of_their_law():
    rng = np.random.default_rng(11)
    y = np.linspace(-2, 2, 9)
    pit = pit_samples(rng, y, rng.standard_normal((40_000, 9)))
    np.testing.assert_allclose(pit, stats.norm.cdf(y), atol=4 * 0.5 / 200)


def test_coverage_of_gaussian_intervals():
    rng = np.random.default_rng(12)
    mean, std = rng.standard_normal(300), rng.uniform(0.5, 2, 300)
    y = mean + 1.5 * std * rng.standard_normal(300)
    curve = coverage_curve(pit_gaussian(y, mean, std), n_levels=9)
    for level, coverage in zip(curve.level, curve.coverage, strict=True):
        lower, upper = stats.norm.interval(level, mean, std)
        assert coverage == np.mean((lower <= y) & (y <= upper))
    truth = 2 * stats.norm.cdf(stats.norm.ppf(0.5 + curve.level / 2) / 1.5) - 1
    assert np.all(np.abs(curve.coverage - truth) < 4 * np.sqrt(0.25 / 300))
    assert curve.error == pytest.approx(np.abs(curve.coverage - curve.level).mean())
    assert curve.error > 0.1
    assert np.all((curve.lower < curve.coverage) & (curve.coverage < curve.upper))


def test_regression_scores_are_the_means():
    rng = np.random.default_rng(13)
    y, mean, std = rng.standard_normal(40), rng.standard_normal(40), rng.uniform(0.5, 2, 40)
    result = regression_scores(y, mean, std, level=0.8)
    lower, upper = stats.norm.interval(0.8, mean, std)
    assert result["rmse"] == pytest.approx(np.sqrt(np.mean((y - mean) ** 2)))
    assert result["crps"] == pytest.approx(crps_gaussian(y, mean, std).mean())
    nlpd = 0.5 * np.log(2 * np.pi * std**2) + (y - mean) ** 2 / (2 * std**2)
    assert result["nlpd"] == pytest.approx(nlpd.mean())
    assert result["coverage"] == np.mean((lower <= y) & (y <= upper))
    assert result["interval_score"] == pytest.approx(interval_score(y, lower, upper, 0.8).mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0.2, 0.8]), "must have shape"),
        (([0], [[1.0]]), "C >= 2"),
        (([], np.empty((0, 2))), "m >= 1"),
        (([0, 1], [[2.0, -1.0], [0.5, 0.5]]), "sum to one"),
        (([0, 1], [[2.0, 3.0], [0.5, 0.5]]), "softmax"),
        (([0, 1], [[np.nan, 1.0], [0.5, 0.5]]), "sum to one"),
        (([[0], [1]], [[0.5, 0.5], [0.5, 0.5]]), r"y_true must have shape \(2,\)"),
        (([0, 2], [[0.5, 0.5], [0.5, 0.5]]), r"no class: \[2\]"),
        (([0, np.nan], [[0.5, 0.5], [0.5, 0.5]]), "no class"),
        ((["0", "1"], [[0.5, 0.5], [0.5, 0.5]]), r"no class: \['0', '1'\]"),
        ((np.array([0, None]), [[0.5, 0.5], [0.5, 0.5]]), "cannot be sorted"),
        (([0, 1], [["a", "b"], ["c", "d"]]), "could not convert"),
    ],
)
def test_bad_input(arguments, message):
    metrics = (
        scores,
        pointwise_losses,
        reliability_curve,
        expected_calibration_error,
        brier_decomposition,
        rejection_curve,
        detect_errors,
    )
    for metric in metrics:
        with pytest.raises(ValueError, match=message):
            metric(*arguments)


def test_bad_options():
    y, proba = random_predictions(m=10)
    with pytest.raises(ValueError, match="n_bins"):
        reliability_curve(y, proba, n_bins=0)
    with pytest.raises(ValueError, match="level"):
        reliability_curve(y, proba, level=95)
    with pytest.raises(ValueError, match="name the columns"):
        scores(y, proba, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="sorted"):
        scores(y, proba, classes=[3, 2, 1, 0])
    with pytest.raises(ValueError, match="same shape"):
        total_variation(proba, proba[:5])
    with pytest.raises(ValueError, match=r"\[m, C\] or \[S, m, C\]"):
        scores(y, proba[None, None])
    with pytest.raises(ValueError, match="binning"):
        expected_calibration_error(y, proba, binning="equal")
    with pytest.raises(ValueError, match="norm must be 1 or 2"):
        expected_calibration_error(y, proba, norm=3)
    with pytest.raises(ValueError, match="take fewer bins"):
        expected_calibration_error(y[:1], proba[:1], norm=2, debiased=True)
    with pytest.raises(ValueError, match="n_bins"):
        brier_decomposition(y, proba, n_bins=0)


def some_predictions(seed, m):
    y, proba = random_predictions(m=m, n_classes=3, seed=seed)
    return y, proba.round(2) / proba.round(2).sum(axis=1, keepdims=True)  # with ties


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_scores_depend_on_no_order_and_keep_their_ranges(seed, m):
    y, proba = some_predictions(seed, m)
    order = np.random.default_rng(seed).permutation(m)
    for binning in ("width", "mass"):
        for per_class in (False, True):
            options = {"n_bins": 5, "binning": binning, "per_class": per_class}
            error = expected_calibration_error(y, proba, **options)
            assert 0 <= error <= 1
            shuffled = expected_calibration_error(y[order], proba[order], **options)
            assert shuffled == pytest.approx(error, abs=1e-12)
            square = expected_calibration_error(y, proba, norm=2, **options)
            assert square >= error - 1e-12
    parts = brier_decomposition(y, proba, n_bins=4)
    assert parts.brier == pytest.approx(pointwise_losses(y, proba)["brier"].mean())
    assert min(parts[:4]) >= 0
    curve = rejection_curve(y, proba)
    np.testing.assert_allclose(rejection_curve(y[order], proba[order]).error, curve.error)
    assert curve.error[-1] == pytest.approx(np.mean(proba.argmax(axis=1) != y))
    assert curve.excess_aurc >= -1e-12


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
@settings(max_examples=40, deadline=None)
def test_detection_of_the_reverse_is_the_reverse(inside, outside):
    found, reverse = detect_outliers(inside, outside), detect_outliers(outside, inside)
    assert found.auroc + reverse.auroc == pytest.approx(1)
    assert 0 < found.aupr <= 1
    assert 0 <= found.fpr95 <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rejection_curve([0], [[0.5, 0.5]], [1.0, 2.0]),
            r"uncertainty must have shape \(1,\)",
        ),
        (lambda: rejection_curve([0], [[0.5, 0.5]], [np.nan]), "uncertainty holds values"),
        (lambda: detect_errors([0, 0], [[0.9, 0.1]] * 2), "All 2 predictions are right"),
        (lambda: detect_errors([1, 1], [[0.9, 0.1]] * 2), "All 2 predictions are wrong"),
        (lambda: detect_outliers([], [1.0]), "inside must have shape"),
        (lambda: detect_outliers([1.0], [np.inf]), "outside holds values"),
        (lambda: crps_gaussian([0.0], [0.0], [0.0]), "std must be positive"),
        (lambda: crps_gaussian([0.0], [[0.0]], [1.0]), r"mean must have shape \(1,\)"),
        (lambda: crps_gaussian([[0.0]], [0.0], [1.0]), "y_true must have shape"),
        (lambda: crps_samples([0.0], [[1.0]]), "at least 2 draws"),
        (lambda: crps_samples([0.0], [1.0]), r"\[S, m\]"),
        (lambda: crps_samples([0.0], [[1.0, 2.0]]), r"samples must have shape \(1, 1\)"),
        (lambda: interval_score([0.0], [1.0], [0.0]), "swapped"),
        (lambda: interval_score([0.0], [0.0], [1.0], level=90), "level must lie"),
        (lambda: pit_gaussian([np.nan], [0.0], [1.0]), "y_true holds values"),
        (lambda: coverage_curve([1.5]), "between 0 and 1"),
        (lambda: coverage_curve([0.5], n_levels=0), "n_levels"),
        (lambda: regression_scores([0.0], [0.0], [1.0], level=0), "level must lie"),
        (lambda: bootstrap_interval(np.mean, [1.0, 2.0], [1.0]), "one row for each"),
        (lambda: bootstrap_interval(np.mean, 1.0), "one row for each"),
        (lambda: bootstrap_interval(np.mean, [1.0, 2.0], level=95), "level must lie"),
        (lambda: bootstrap_interval(np.mean, [1.0, 2.0], level="high"), "level must lie"),
        (lambda: coverage_curve([0.5], n_levels=2.5), "an integer"),
    ],
    ids=range(23),
)
def test_bad_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def forecast(*bins):
    """Labels and probabilities of two classes: for each (confidence, right, points)."""
    labels, rows = [], []
    for confidence, right, points in bins:
        labels += [0] * right + [1] * (points - right)
        rows += [[confidence, 1 - confidence]] * points
    return labels, np.array(rows)


# Forecasts whose calibration is known, and what must be said of them.
FORECASTS = {
    "calibrated": [(0.62, 620, 1000), (0.9, 900, 1000)],
    "too cautious": [(0.62, 700, 1000), (0.9, 950, 1000)],
    "too confident": [(0.62, 550, 1000), (0.9, 850, 1000)],
    "uneven": [(0.62, 720, 1000), (0.9, 800, 1000)],
    "too few points": [(0.62, 6, 10), (0.9, 9, 10)],
}


@pytest.mark.parametrize("verdict", FORECASTS)
def test_calibration_check_judges_known_forecasts(verdict):
    bins = FORECASTS[verdict]
    check = calibration_check(*forecast(*bins))
    assert check.verdict == verdict
    m = sum(points for *_, points in bins)
    assert check.n_points == m
    assert check.accuracy == pytest.approx(sum(right for _, right, _ in bins) / m)
    assert check.confidence == pytest.approx(sum(c * points for c, _, points in bins) / m)
    gap = sum(abs(right - c * points) for c, right, points in bins) / m
    assert check.ece == pytest.approx(gap)


@pytest.mark.parametrize(("confidence", "right", "points"), [(0.75, 10, 20), (0.99, 95, 100)])
def test_calibration_check_is_the_binomial_test(confidence, right, points):
    # All in one bin: right predictions are binomial, also where that is far from normal.
    check = calibration_check(*forecast((confidence, right, points)))
    law = stats.binom(points, confidence)
    gaps = np.abs(np.arange(points + 1) / points - confidence)
    weights = law.pmf(np.arange(points + 1))
    p_gap = min(1.0, 2 * min(law.cdf(right), law.sf(right - 1)))
    mean = weights @ gaps
    errors = 5 / np.sqrt(2000)  # standard errors of as many simulations
    assert abs(check.p_gap - p_gap) <= 2 * errors * np.sqrt(p_gap / 2) + 1e-3
    assert abs(check.ece_by_chance - mean) <= errors * np.sqrt(weights @ gaps**2 - mean**2)
    p_ece = weights[gaps >= gaps[right] - 1e-12].sum()
    assert abs(check.p_ece - p_ece) <= errors * np.sqrt(p_ece * (1 - p_ece)) + 1e-3


def test_calibration_error_has_the_standard_error_of_a_mean():
    check = calibration_check(*forecast((0.9, 300, 500)))
    assert check.ece == pytest.approx(0.3)
    assert check.ece_se == pytest.approx(np.sqrt(0.6 * 0.4 / 499))


def test_certain_and_right_in_few_points_is_no_proof():
    assert calibration_check([0] * 5, [[1.0, 0.0]] * 5).verdict == "too few points"
    assert calibration_check([0] * 5, [[0.0, 1.0]] * 5).verdict == "too confident"


def test_calibrated_forecasts_are_seldom_doubted():
    # Two tests of one per cent each: more than 9 of 150 would have a probability of 1e-3.
    rng = np.random.default_rng(0)
    doubted = 0
    for _ in range(150):
        proba = rng.dirichlet(np.full(3, 0.5), size=60)
        labels = (rng.random((60, 1)) > proba.cumsum(axis=1)).sum(axis=1)
        check = calibration_check(np.minimum(labels, 2), proba)
        doubted += check.verdict not in ("calibrated", "too few points")
    assert doubted <= stats.binom(150, 0.02).isf(1e-3)
