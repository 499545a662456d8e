"""Compressed tails: what they do to a feature, and that weights count as repetitions."""

import numpy as np
import pytest
from scipy import stats

from ntk_uq.tables.tails import CompressedTails

RNG = np.random.default_rng(0)


def compressed(x, weights=None):
    return CompressedTails.of(x[:, None], weights).transform(x[:, None])[:, 0]


def test_a_normal_feature_stays_nearly_one():
    x = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    y = compressed(x)
    assert np.corrcoef(x, y)[0, 1] > 0.99
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-12)


def test_extreme_values_leave_room_for_the_others_and_stay_apart():
    x = np.r_[RNG.normal(size=200), 1e3, 1e4]
    standardised = (x - x.mean()) / x.std()
    y = compressed(standardised)
    assert np.ptp(y[:200]) > 100 * np.ptp(standardised[:200])
    assert y[200] + 0.5 < y[201] < 20
    np.testing.assert_array_equal(np.argsort(y), np.argsort(x))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_two_values_stay_two_standardised_values(share):
    x = (np.arange(100) < 100 * share).astype(float)
    np.testing.assert_allclose(compressed(x), (x - x.mean()) / x.std(), atol=1e-12)


def test_a_constant_is_zero():
    np.testing.assert_allclose(compressed(np.full(7, 0.1) - 0.1), 0)


def test_weights_are_repetitions():
    x, weights = RNG.standard_cauchy(size=30), RNG.integers(1, 4, size=30)
    twice = CompressedTails.of(np.repeat(x, weights)[:, None])
    once = CompressedTails.of(x[:, None], weights.astype(float))
    for name in ("centre", "spread", "mean", "scale"):
        np.testing.assert_allclose(getattr(once, name), getattr(twice, name), rtol=1e-12)
