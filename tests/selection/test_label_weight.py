"""How often labels count: the law that is judged, and what is chosen."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_iris

from ntk_uq import MLP, Categorical, Gaussian, Kernels, NTKClassifier, Weighted
from ntk_uq.analytic import Component, exact_predictor, gaussian_predictor
from ntk_uq.selection import Mixture, counted_more
from ntk_uq.selection.label_weight import _held_out

pytestmark = pytest.mark.double_precision
N = 40


def problem_of(labels, rng, n_folds=2):
    """What `choose` hands on, and a network with features of another scale."""
    x = rng.normal(size=(N, 2))
    y = np.eye(2)[labels(x)]
    folds = np.array_split(rng.permutation(N), n_folds)
    return x, y, Categorical(), folds, y, None


def one_network(reg):
    alone = Component("alone", MLP(depth=1), reg, np.array([1.0, 0.5]), 1.0, np.nan)
    return Mixture((alone,), np.nan, np.nan)


def test_posteriors_of_counted_labels(monkeypatch):
    """Of Gaussian noise, where w times means a noise of 1 / sqrt(w), of the mixture of two."""
    monkeypatch.setattr("ntk_uq.selection.label_weight._DRAWS", 6000)
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(N, 2)), 0.5
    y = np.sin(2 * x[:, :1]) + noise * rng.normal(size=(N, 1))
    folds = np.array_split(rng.permutation(N), 2)
    weights = rng.uniform(0.5, 2, N)
    components = [
        Component("a", MLP(depth=1), 3.0, 1.0, 0.5, 0.0, label_weight=3.0),
        Component("b", MLP(depth=0), 8.0, 0.5, 0.5, 0.0, label_weight=4.0),
    ]
    kernels = [one.architecture.kernels(x * one.feature_scales) for one in components]
    data = x, y, Gaussian(np.full(1, noise)), folds, y, weights
    found = _held_out(jax.random.key(0), components, kernels, data)
    density = np.zeros(N)
    for fold in folds:
        rest = np.setdiff1d(np.arange(N), fold)
        for one, kernel in zip(components, kernels, strict=True):
            prior = kernel.ntk / one.reg
            inner = prior[np.ix_(rest, rest)] + np.diag(
                noise**2 / (one.label_weight * weights[rest])
            )
            cross = prior[np.ix_(fold, rest)]
            mean = cross @ np.linalg.solve(inner, y[rest, 0])
            variance = np.diag(prior)[fold] - np.sum(cross.T * np.linalg.solve(inner, cross.T), 0)
            sd = np.sqrt(variance + noise**2)
            density[fold] += 0.5 * stats.norm.pdf(y[fold, 0], mean, sd)
    # A density is that of many draws: off by a few per cent at most where 6,000 say what it is.
    np.testing.assert_allclose(found, np.log(density[np.concatenate(folds)]), atol=0.1)


def test_networks_draw_from_numbers_of_their_own(monkeypatch):
    """Of the same numbers 64 draws of four networks say no more than 16 do."""
    keys = []

    def noted(key, *settings):
        keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        return exact_predictor(key, *settings)

    monkeypatch.setattr("ntk_uq.selection.label_weight.exact_predictor", noted)
    data = problem_of(lambda x: (x[:, 0] > 0).astype(int), np.random.default_rng(0))
    twins = 2 * [replace(one_network(1.0).components[0], weight=0.5)]
    kernels = [one.architecture.kernels(data[0] * one.feature_scales) for one in twins]
    _held_out(jax.random.key(0), twins, kernels, data)
    assert len(keys) == 4  # two networks, two folds
    assert len(set(keys)) == 2


def test_the_mode_stays_and_the_covariance_is_divided():
    """By the closed form about the mode, labels counting seven times."""
    rng = np.random.default_rng(0)
    x, y, likelihood, *_ = problem_of(lambda x: (x[:, 0] > 0).astype(int), rng)
    kernels = Kernels(*map(jnp.asarray, MLP(depth=1).kernels(x)))
    diagonal = Kernels(*map(jnp.diagonal, kernels))
    once, often = (
        gaussian_predictor(
            kernels, y, 0.3 * w, Weighted(likelihood, jnp.full(N, w)), "posterior"
        ).moments(kernels, diagonal)
        for w in (1.0, 7.0)
    )
    np.testing.assert_allclose(often[0], once[0], atol=1e-6)
    np.testing.assert_allclose(7 * often[1], once[1], atol=1e-6)


def test_noisy_labels_count_once():
    """Labels that a function of the features says with probability 0.8."""
    rng = np.random.default_rng(0)
    data = problem_of(lambda x: ((x[:, 0] > 0) ^ (rng.uniform(size=N) < 0.2)).astype(int), rng)
    seen = []
    found = counted_more(
        one_network(3.0), data, rng, progress=lambda done, total: seen.append(done / total)
    )
    (one,) = found.components
    assert (one.label_weight, one.reg) == (1.0, 3.0)
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_sure_labels_count_more():
    """Classes with room between them: a wide prior is not sure where the mode is."""
    rng = np.random.default_rng(0)

    def side(x):
        x += 0.5 * np.sign(x[:, :1] + x[:, 1:])
        return (x.sum(axis=1) > 0).astype(int)

    data = problem_of(side, rng)
    by_modes = one_network(1e-3)
    of_modes = replace(by_modes, components=(replace(by_modes.components[0], score=-0.3),))
    found = counted_more(of_modes, data, rng)
    (one,) = found.components
    assert one.score == -0.3  # of the mode still, unlike that of the mixture
    assert found.score != -0.3
    assert one.label_weight >= 10
    assert one.reg == pytest.approx(1e-3 * one.label_weight)
    np.testing.assert_array_equal(one.feature_scales, [1.0, 0.5])


@pytest.mark.slow
def test_a_classifier_s_posterior():
    """The attribute, and the same posterior by weights of the points."""
    X, y = load_iris(return_X_y=True)
    chosen = NTKClassifier(uncertainty="posterior", n_draws=512).fit(X[::2], y[::2])
    one = chosen.mixture_.components[0]
    assert chosen.label_weight_ == one.label_weight > 1
    assert chosen.reg_ == one.reg
    assert chosen.reg_curve_.reg == pytest.approx(one.reg / one.label_weight)
    encoded = chosen.encoder_.transform(X)
    points = encoded * one.feature_scales
    again = NTKClassifier(one.architecture, one.reg, "posterior", n_draws=512)
    again.fit(points[::2], y[::2], sample_weight=np.full(len(y[::2]), one.label_weight))
    assert again.label_weight_ == 1
    first = chosen._fitted.members[0].latents(encoded[1::2])
    second = again.predict_distribution(points[1::2])
    n = len(first.samples)
    sd = np.sqrt(np.diagonal(second.cov, axis1=1, axis2=2))
    error = sd * np.sqrt(1 / n + 1 / 512)
    assert np.mean(np.abs(first.mean - second.mean) < 3 * error) > 0.9
    default = NTKClassifier().fit(X[::2], y[::2])
    truth = np.arange(len(y) // 2), y[1::2]
    losses = [-np.log(model.predict_proba(X[1::2])[truth]).mean() for model in (chosen, default)]
    assert losses[0] < 1.1 * losses[1]
