import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import sqrtm
from scipy.signal import lfilter
from scipy.stats import energy_distance as scipy_energy_distance
from scipy.stats import entropy, norm, spearmanr

from ntk_uq.distances import (
    bures_wasserstein,
    energy_distance,
    kl_divergence,
    rank_correlation,
    rejection_overlap,
)

N_POINTS, N_CLASSES = 12, 3


def covariances(rng, shape, d):
    factors = rng.standard_normal((*shape, d, d + 1))
    return factors @ factors.swapaxes(-2, -1)


def test_kl_is_scipys():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), size=(2, 3, 5))
    assert kl_divergence(p, q) == pytest.approx(entropy(p, q, axis=-1))
    assert kl_divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert np.isinf(kl_divergence([0.5, 0.5], [1.0, 0.0]))


def test_bures_wasserstein_is_that_of_matrix_roots():
    rng = np.random.default_rng(1)
    mean_a, mean_b = rng.standard_normal((2, 6, 4))
    a, b = covariances(rng, (6,), 4), covariances(rng, (6,), 4)
    found = bures_wasserstein(mean_a, a, mean_b, b)
    for i in range(6):
        root = sqrtm(a[i])
        squared = np.sum((mean_a[i] - mean_b[i]) ** 2)
        squared += np.trace(a[i] + b[i] - 2 * np.real(sqrtm(root @ b[i] @ root)))
        assert found[i] == pytest.approx(np.sqrt(squared))


def test_bures_wasserstein_in_one_dimension_is_the_distance_of_quantiles():
    def squared(u):
        return (norm.ppf(u, 1.0, 2.0) - norm.ppf(u, -0.5, 0.7)) ** 2

    integral, _ = quad(squared, 0, 1, limit=200)
    found = bures_wasserstein([1.0], [[4.0]], [-0.5], [[0.49]])
    assert found == pytest.approx(np.sqrt(integral), rel=1e-4)


def test_bures_wasserstein_between_commuting_and_singular():
    rng = np.random.default_rng(2)
    vectors = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    a, b = np.array([4.0, 1.0, 0.0, 0.0]), np.array([1.0, 9.0, 0.0, 0.25])
    zero = np.zeros(4)
    found = bures_wasserstein(zero, vectors * a @ vectors.T, zero, vectors * b @ vectors.T)
    assert found == pytest.approx(np.linalg.norm(np.sqrt(a) - np.sqrt(b)))
    same = covariances(rng, (), 4)
    # The root of rounding.
    assert bures_wasserstein(zero, same, zero, same) < 1e-6


def test_energy_distance_is_scipys_with_unpaired_draws_left_out():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal(40), 0.5 + 2 * rng.standard_normal(60)
    # SciPy's is a root, and averages over all pairs, of a draw with itself too.
    across = np.abs(x[:, None] - y).mean()
    within = [np.abs(z[:, None] - z).sum() for z in (x, y)]
    biased = 2 * across - within[0] / 40**2 - within[1] / 60**2
    assert biased == pytest.approx(scipy_energy_distance(x, y) ** 2)
    unbiased = 2 * across - within[0] / (40 * 39) - within[1] / (60 * 59)
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(unbiased / (2 * across))


def test_coupled_draws_are_not_paired():
    rng = np.random.default_rng(10)
    x, y = rng.standard_normal((7, 2)), rng.standard_normal((9, 2))
    across = [np.linalg.norm(x[i] - y[j]) for i in range(7) for j in range(9) if i != j]
    within = [
        np.mean([np.linalg.norm(z[i] - z[j]) for i in range(len(z)) for j in range(i)])
        for z in (x, y)
    ]
    expected = 1 - sum(within) / (2 * np.mean(across))
    assert energy_distance(x, y, coupled=True) == pytest.approx(expected)


def test_energy_distance_sees_dependence_between_points():
    rng = np.random.default_rng(5)
    together = np.repeat(rng.standard_normal((400, 1)), 5, axis=1)
    apart = rng.standard_normal((400, 5))
    assert energy_distance(together, apart) > 0.05
    assert energy_distance(together[:, :1], apart[:, :1]) < 0.02


def test_batches_keep_autocorrelation_out():
    rng = np.random.default_rng(6)

    def chain():
        noise = rng.standard_normal((200, 3)) * np.sqrt(1 - 0.9**2)
        noise[0] /= np.sqrt(1 - 0.9**2)
        return lfilter([1.0], [1.0, -0.9], noise, axis=0)

    pairs = [(chain(), rng.standard_normal((200, 3))) for _ in range(100)]
    plain = np.array([energy_distance(*pair) for pair in pairs])
    batched = np.array([energy_distance(*pair, batches=(5, 5)) for pair in pairs])
    assert plain.mean() > 4 * plain.std() / 10
    assert abs(batched.mean()) < 0.35 * plain.mean()


def test_rank_correlation_is_scipys():
    u, v = np.random.default_rng(7).integers(0, 9, (2, 30))
    assert rank_correlation(u, v) == pytest.approx(spearmanr(u, v).statistic)
    assert np.isnan(rank_correlation(u, np.ones(30)))


def test_rejection_overlap_counts_common_points():
    rng = np.random.default_rng(8)
    u, v = rng.standard_normal((2, 50))
    expected = len(set(np.argsort(u)[-10:]) & set(np.argsort(v)[-10:])) / 10
    assert rejection_overlap(u, v, 0.8) == expected
    assert rejection_overlap(u, u, 0.9) == 1
    overlaps = [rejection_overlap(*rng.standard_normal((2, 50)), 0.8) for _ in range(500)]
    assert np.mean(overlaps) == pytest.approx(0.2, abs=4 * np.std(overlaps) / np.sqrt(500))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl_divergence(np.ones(3), np.ones(4)), "same shape"),
        (
            lambda: bures_wasserstein(np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)),
            r"covariances of shape \[..., d, d\]",
        ),
        (lambda: energy_distance(np.zeros((3, 2)), np.zeros((3, 4))), "alike after the first axis"),
        (lambda: energy_distance(np.zeros((1, 2)), np.zeros((3, 2))), "two independent batches"),
        (
            lambda: energy_distance(
                np.zeros((10, 2)), np.zeros((20, 2)), batches=(5, 5), coupled=True
            ),
            "must lie in the same batches",
        ),
        (lambda: rejection_overlap([1.0, 2.0], [1.0, 2.0], 1.0), "between 0 and 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
