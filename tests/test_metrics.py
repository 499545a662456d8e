import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from ntk_uq.metrics import (
    expected_calibration_error,
    pointwise_losses,
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
    ],
)
def test_bad_input(arguments, message):
    for metric in (scores, pointwise_losses, reliability_curve, expected_calibration_error):
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
