"""Scales of features: gradients against differences, rounds by ridge regression, what is kept."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.inspection import permutation_importance

import ntk_uq as nuq
from ntk_uq import (
    MLP,
    Categorical,
    FeatureEmbedding,
    Gaussian,
    NormalScores,
    NTKClassifier,
    NTKRegressor,
)
from ntk_uq.analytic import Component
from ntk_uq.selection import RegCurve, choose, log_evidence, metric
from ntk_uq.selection.choice import _best_of, _Candidate, _learnt_by_held_out, _with_metrics
from ntk_uq.selection.metric import Metric, learn_metric, mean_squared_gradients
from ntk_uq.selection.noise import Spectrum

RNG = np.random.default_rng(0)
SCALES = np.array([1.5, 0.3, 0.8])


class _OwnBlocks(MLP):
    """An MLP that does not say that lengths and angles are all it needs."""

    has_dot_product_kernels = False


def kernel(network, a, b, scales):
    if isinstance(network, FeatureEmbedding):
        return replace(network, scales=tuple(scales)).kernels(a, b).ntk
    return network.kernels(a * scales, b * scales).ntk


def differences(network, X, alpha, scales, at, step=1e-5):
    """Central differences of the mode: [m, d, C]."""
    moves = step * np.eye(X.shape[1])
    sides = [kernel(network, at + move, X, scales) - kernel(network, at - move, X, scales)
             for move in moves]  # fmt: skip
    return np.stack([side @ alpha / (2 * step) for side in sides], axis=1)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "network",
    [
        MLP(depth=1),
        FeatureEmbedding(MLP(depth=1, b_std=0.4), 1.2),
        FeatureEmbedding(_OwnBlocks(depth=1)),
        MLP(depth=2, activation="erf"),
        FeatureEmbedding(MLP(depth=0)),
        FeatureEmbedding(MLP(depth=2, activation="gelu"), 0.5, 0.0),
    ],
    ids=["relu", "embedded", "own blocks", "erf", "additive", "gelu"],
)
def test_gradients_are_differences(network):
    """At other points, and at the training points, where a kink counts from both sides."""
    X, alpha = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 2))
    for at in (RNG.normal(size=(7, 3)), X):
        with jax.enable_x64(True):
            found = network.gradients(*map(jnp.asarray, (at, X, alpha, SCALES)))
        np.testing.assert_allclose(found, differences(network, X, alpha, SCALES, at), atol=1e-4)


@pytest.mark.parametrize("seed", [1, 9])
def test_mean_of_squares_counts_weights_as_repetitions(monkeypatch, seed):
    """Points alone in their block, whose lengths differ by rounding from those among others."""
    rng = np.random.default_rng(seed)
    X, alpha = rng.normal(size=(6, 3)), rng.normal(size=(6, 1))
    weights = np.array([2.0, 1.0, 0.0, 3.0, 1.0, 1.0])
    gradients = differences(MLP(depth=1), X, alpha, SCALES, X)
    expected = np.average(np.sum(gradients**2, axis=2), axis=0, weights=weights)
    monkeypatch.setattr("ntk_uq.selection.metric._ENTRIES_AT_ONCE", X.size)
    found = mean_squared_gradients(MLP(depth=1), X, alpha, SCALES, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_round_by_ridge_regression():
    """What predicts a fold is learnt from the others alone."""
    X, noise, regs = RNG.normal(size=(24, 3)), 0.3, [0.5, 2.0]
    y = np.sin(2 * X[:, :1]) + noise * RNG.normal(size=(24, 1))
    held_out, network = np.arange(8), MLP(depth=1)
    train = np.arange(8, 24)
    metric = learn_metric(network, X, y, regs, Gaussian(noise), [held_out])

    def ridge(scales, reg):
        ntk = kernel(network, X[train], X[train], scales)
        alpha = np.linalg.solve(ntk + reg * noise**2 * np.eye(16), y[train])
        residual = y[held_out] - kernel(network, X[held_out], X[train], scales) @ alpha
        density = -0.5 * (residual / noise) ** 2 - np.log(noise) - 0.5 * np.log(2 * np.pi)
        return alpha, density.mean()

    scales = np.ones(3)
    for t in range(2):
        alphas, scores = zip(*(ridge(scales, reg) for reg in regs), strict=True)
        np.testing.assert_allclose(metric.scores[t], scores, rtol=1e-3)
        alpha = alphas[int(np.argmax(scores))]
        gradients = differences(network, X[train], alpha, scales, X[train])
        squared = scales * np.sqrt(np.mean(np.sum(gradients**2, axis=2), axis=0))
        scales = np.sqrt(squared / squared.mean())


def test_what_says_nothing_is_left_alone():
    """Targets that are noise: no scales are worth having."""
    X = RNG.normal(size=(40, 4))
    folds = np.split(np.arange(40), 5)
    labels = np.eye(2)[RNG.integers(2, size=40)]
    regs = [0.1, 1.0, 10.0, 100.0]
    assert learn_metric(MLP(depth=1), X, labels, regs, Categorical(), folds, margin=3.0).kept == 0


def test_evidence_in_the_eigenbasis():
    ntk = MLP(depth=1).kernels(RNG.normal(size=(12, 3))).ntk
    y = RNG.normal(size=(12, 2))
    spectrum = Spectrum.of(ntk, y)
    with jax.enable_x64(True):
        for reg, noise in [(0.1, [0.2, 0.2]), (3.0, [0.1, 2.0])]:
            likelihood = Gaussian(jnp.asarray(noise))
            dense = log_evidence(jnp.asarray(ntk), jnp.asarray(y), reg, likelihood)
            found = spectrum.log_evidence(reg, np.array(noise))
            np.testing.assert_allclose(found, dense, rtol=1e-9)


def rules(n, seed):
    """Labels by the first two of six features."""
    X = np.random.default_rng(seed).normal(size=(n, 6))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


@pytest.mark.parametrize(
    "uncertainty", ["initialization", pytest.param("posterior", marks=pytest.mark.slow)]
)
def test_a_classifier_learns_which_features_count(uncertainty, tmp_path):
    (X, labels), (X_test, labels_test) = rules(100, 0), rules(300, 1)
    arguments = {"uncertainty": uncertainty, "n_draws": 32, "reg": "cv"}
    plain = NTKClassifier(MLP(depth=1), **arguments).fit(X, labels)
    learnt = NTKClassifier(MLP(depth=1), **arguments, tune=("scales",)).fit(X, labels)
    assert set(np.argsort(learnt.feature_scales_)[-2:]) == {0, 1}
    loss = [-np.mean(np.log(model.predict_proba(X_test)[np.arange(300), labels_test]))
            for model in (plain, learnt)]  # fmt: skip
    assert loss[1] < 0.8 * loss[0]
    importance = permutation_importance(learnt, X_test, labels_test, random_state=0, n_repeats=3)
    assert set(np.argsort(importance.importances_mean)[-2:]) == {0, 1}
    assert learnt.reg_ == learnt.reg_curve_.reg
    assert "scales learnt" in learnt.reg_curve_.names[-1]
    nuq.save(learnt, tmp_path / "model.ntk")
    again = nuq.load(tmp_path / "model.ntk")
    np.testing.assert_array_equal(again.feature_scales_, learnt.feature_scales_)
    np.testing.assert_allclose(again.predict_proba(X_test), learnt.predict_proba(X_test))


@pytest.mark.slow
def test_features_that_act_together_show_once_others_are_out_of_the_way():
    """A strong linear part, a product of two features, and seventeen of noise."""
    X = np.random.default_rng(0).normal(size=(100, 20))
    y = X[:, 0] * X[:, 1] + 3 * X[:, 2]
    y = ((y - y.mean()) / y.std())[:, None]
    choice = choose(
        np.random.default_rng(0), MLP(depth=1), X, y, Gaussian(0.3), "cv",
        uncertainty="none", tune=("depth", "scales"),
    )  # fmt: skip
    before = dict(zip(choice.curve.names, np.nanmax(choice.curve.scores, axis=1), strict=True))
    assert before["depth 0"] > before["depth 1"]
    assert choice.architecture.depth == 1
    assert set(np.argsort(choice.scales)[-3:]) == {0, 1, 2}


@pytest.mark.parametrize(("gain", "expected"), [(0.3, 1), (0.05, 0)])
def test_scales_of_the_best_of_each_kind(gain, expected, monkeypatch):
    """The best additive network and the best other learn; the second is taken for its gain."""
    scores = np.full((4, 13), np.nan)
    scores[:, 4] = [-1.0, -1.2, -1.1, -1.3]
    networks = [MLP(depth=depth) for depth in (0, 0, 1, 2)]
    alone = np.tile([-1.0, -1.1, -0.9, -1.0], 5)
    asked = []

    def learnt(network, X, y, regs, *_, **__):
        asked.append(network)
        # A gain with a standard error of 0.5 / sqrt(19) = 0.11.
        of_round = alone + (gain + np.tile([0.5, -0.5], 10) if network.depth else 0.0)
        densities = np.tile(of_round, (2, len(regs), 1))
        means = densities.mean(axis=2)
        scales = np.ones((2, 2))
        return Metric(scales, means, 0.01 * np.ones_like(means), 0, regs[0], densities)

    monkeypatch.setattr("ntk_uq.selection.choice.learn_metric", learnt)
    folds = np.split(np.arange(20), 5)
    data = np.zeros((20, 2)), np.zeros((20, 1)), Gaussian(0.1), folds, None, None
    names = ["a", "b", "c", "d"]
    known = np.zeros((13, 20))
    candidates = [_Candidate(*of, known) for of in zip(names, networks, strict=True)]
    learn = partial(_learnt_by_held_out, uncertainty="none")
    found = _with_metrics(learn, candidates, scores, data, None)
    assert asked == [networks[0], networks[2]]
    curve = RegCurve(np.logspace(-4, 2, 13), scores, scores, tuple(names), "cv", 1.0, 20)
    network, _, curve, _ = _best_of(found, curve, np.ones(20))
    assert network == [networks[0], networks[2]][expected]
    assert curve.names[4:] == ("a, scales learnt in 1", "c, scales learnt in 1")
    assert curve.scores.shape == (6, 13)


SMALL = np.random.default_rng(3).normal(size=(12, 2))
GIVEN = {
    "X": SMALL,
    "y": SMALL[:, :1],
    "regs": [0.1, 1.0],
    "folds": [np.arange(6), np.arange(6, 12)],
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"X": SMALL[:, 0]}, r"X must be two-dimensional"),
        ({"y": SMALL[:, 0]}, r"y must have shape \[12, C\].*got \[12\].*y\[:, None\]"),
        ({"y": SMALL[:9, :1]}, r"y must have shape \[12, C\].*got \[9, 1\]"),
        ({"y": np.full((12, 1), np.nan)}, "y holds values that are NaN"),
        ({"targets": SMALL[:, 0]}, r"targets must have shape \[12, C\]"),
        ({"regs": []}, "regs must have shape"),
        ({"regs": [0.0, 1.0]}, "regs must be positive; the least is 0"),
        ({"weights": np.ones(5)}, r"weights must have shape \(12,\), got \(5,\)"),
        ({"weights": np.zeros(12)}, "weights must be positive"),
        ({"folds": []}, "folds are none"),
        ({"folds": [np.array([0.5])]}, "folds must be arrays of row numbers; number 0 is float64"),
        ({"folds": [np.arange(6), np.array([12])]}, "rows from 0 to 11; number 1 has others"),
        ({"folds": [np.arange(12)]}, "holds out all 12 points"),
        ({"margin": -1.0}, "margin must be at least 0"),
        ({"known": np.zeros((2, 5))}, r"known must have shape \[2, 12\].*got \[2, 5\]"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        learn_metric(MLP(depth=1), likelihood=Gaussian(0.1), **GIVEN | wrong)


def test_targets_are_those_of_the_likelihood():
    with pytest.raises(ValueError, match="sum to one"):
        learn_metric(MLP(depth=1), likelihood=Categorical(), **GIVEN | {"y": np.full((12, 2), 0.4)})


def test_arrays_and_lists_say_the_same():
    found = learn_metric(MLP(depth=1), likelihood=Gaussian(0.1), **GIVEN)
    other = {name: np.asarray(values) for name, values in GIVEN.items()}
    again = learn_metric(MLP(depth=1), likelihood=Gaussian(0.1), **other)
    np.testing.assert_array_equal(again.scales, found.scales)
    assert type(again.reg) is float
    assert again.reg in GIVEN["regs"]


def test_what_is_known_of_the_first_round_is_not_fitted_again(monkeypatch):
    """Scales and scores are those of a run that fits it, with as many fewer solutions."""
    X, y = rules(60, 0)
    problem = MLP(depth=1), X, np.eye(2)[y], [0.1, 1.0, 10.0], Categorical()
    folds = np.array_split(RNG.permutation(60), 3)
    solved = []
    solve = metric.solve_dual
    monkeypatch.setattr(
        metric, "solve_dual", lambda *args, **kwargs: solved.append(args) or solve(*args, **kwargs)
    )
    whole = learn_metric(*problem, folds)
    before = len(solved)
    short = learn_metric(*problem, folds, known=whole.densities[0])
    rounds = len(whole.scores)
    assert before == rounds * 4 * 3
    assert len(solved) - before == before - 4 * 2
    np.testing.assert_array_equal(short.densities[0], whole.densities[0])
    # From modes that are known to a thousandth of a posterior standard deviation.
    np.testing.assert_allclose(short.scales, whole.scales, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(short.scores, whole.scores, atol=2e-2)


def test_who_writes_to_what_was_chosen_changes_no_prediction():
    X, labels = rules(100, 0)
    for model in (
        NTKClassifier(MLP(depth=1), reg="cv", tune=("scales",), n_draws=4).fit(X, labels),
        NTKRegressor(MLP(depth=1), reg="cv", tune=("scales",)).fit(X, np.sin(2 * X[:, 0])),
    ):
        before = model.predict_distribution(X).mean
        scales = model.feature_scales_
        assert scales.max() > 1
        scales /= scales.max()
        assert model.feature_scales_.max() > 1
        np.testing.assert_array_equal(model.predict_distribution(X).mean, before)
        curve = model.reg_curve_
        for array in (curve.regs, curve.scores, curve.errors):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 1.0


def test_scales_of_a_component_are_its_own():
    """The fitted network of a mixture computes with them."""
    scales = np.array([1.0, 0.5])
    one = Component("", MLP(depth=1), 1.0, scales, 1.0, -0.3)
    scales[:] = 0.0
    np.testing.assert_array_equal(one.feature_scales, [1.0, 0.5])
    with pytest.raises(ValueError, match="read-only"):
        one.feature_scales[0] = 2.0
    assert Component("", MLP(depth=1), 1.0, 1.0, 1.0, -0.3).feature_scales == 1.0


@pytest.mark.parametrize("by", ["rank", "power"])
def test_scales_of_scores_are_those_of_their_features(by, tmp_path):
    """They stand in the network, by which its scores are multiplied."""
    X, labels = rules(100, 0)
    X = np.exp(X)
    network = NormalScores.of(X, MLP(depth=1), by=by)
    learnt = NTKClassifier(network, reg="cv", tune=("scales",), n_draws=4).fit(X, labels)
    scales = learnt.feature_scales_
    assert scales.shape == (6,)
    assert set(np.argsort(scales)[-2:]) == {0, 1}
    with jax.enable_x64(True):
        alone, counted = (np.asarray(n.scores(jnp.asarray(X)))
                          for n in (network, learnt.architecture_))  # fmt: skip
    np.testing.assert_allclose(counted, scales * alone, rtol=1e-12)
    nuq.save(learnt, tmp_path / "model.ntk")
    again = nuq.load(tmp_path / "model.ntk")
    np.testing.assert_array_equal(again.feature_scales_, scales)
    bars = nuq.plots.plot_feature_scales(again, ax=Figure().subplots()).patches
    np.testing.assert_array_equal([bar.get_width() for bar in bars], np.sort(scales))


def test_scales_of_an_embedding_stand_in_it():
    X, _ = rules(60, 0)
    y = np.sin(2 * X[:, 0]) + 0.05 * RNG.normal(size=60)
    model = NTKRegressor(MLP(depth=1), reg="evidence", tune=("embedding", "scales")).fit(X, y)
    assert isinstance(model.architecture_, FeatureEmbedding)
    np.testing.assert_array_equal(model.feature_scales_, model.architecture_.scales)
    assert np.argmax(model.feature_scales_) == 0
