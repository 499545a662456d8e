"""scikit-learn's own checks, and its tools around the estimators."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from flax import nnx
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import AdaBoostClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ntk_uq as nuq
from ntk_uq.estimators import tasks as _tasks

NET = nuq.MLP(width=16, depth=1, activation="erf")
FEW = {"num_warmup": 20, "num_samples": 20}
# What a user gets without arguments: only sizes differ, so that the many fits of the checks are
# quick. The network's width is one of them.
DEFAULTS = [
    nuq.NTKClassifier(n_draws=4),
    nuq.EnsembleClassifier(n_members=2),
    nuq.BayesianClassifier(**FEW),
    nuq.NTKRegressor(n_draws=4),
    nuq.EnsembleRegressor(n_members=2),
    nuq.BayesianRegressor(**FEW),
]
iris = load_iris(as_frame=True)
X, y = iris.data.iloc[::3], iris.target_names[iris.target.iloc[::3]]


def assert_passes_checks(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of twenty draws, and what the checks provoke
        results = check_estimator(clone(estimator), on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    # Nothing is expected to fail, and what is skipped needs another array library.
    other = {r["check_name"] for r in results if r["status"] not in ("passed", "skipped")}
    assert not other
    assert len(results) > 45


@pytest.mark.slow
@pytest.mark.parametrize("estimator", DEFAULTS, ids=lambda e: type(e).__name__)
def test_checks_of_scikit_learn(estimator, monkeypatch):
    monkeypatch.setattr(_tasks, "MLP", partial(nuq.MLP, width=16))
    given = clone(estimator).get_params()
    sizes = {"n_draws", "n_members", "num_warmup", "num_samples"}
    default = type(estimator)().get_params()
    assert all(given[name] == default[name] for name in given.keys() - sizes)
    assert_passes_checks(estimator)


@pytest.mark.slow
def test_checks_of_scikit_learn_on_a_network_that_is_given():
    assert_passes_checks(nuq.NTKRegressor(NET, noise=0.3))


# One of the two is far too strong, for the search to reject, and a fit with it says so.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Hardly anything is learnt.*reg=100 :UserWarning")
def test_search_over_settings_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), nuq.NTKClassifier(NET, method="gaussian"))
    grid = {
        "ntkclassifier__reg": [0.01, 100.0],
        "ntkclassifier__architecture": [NET, nuq.MLP(depth=2)],
    }
    search = GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=3).fit(X, y)
    assert search.best_params_["ntkclassifier__reg"] == 0.01
    assert search.score(X, y) > search.best_score_ > -0.4
    scores = cross_val_score(search.best_estimator_, X, y, cv=3)
    labels = cross_val_predict(search.best_estimator_, X, y, cv=3)
    assert np.mean(scores) == pytest.approx(np.mean(labels == y), abs=0.02)
    assert np.mean(scores) > 0.9


@pytest.mark.slow
def test_names_of_columns_are_kept_and_checked():
    model = nuq.NTKClassifier(NET, method="gaussian").fit(X, y)
    assert model.feature_names_in_.tolist() == X.columns.tolist()
    assert model.classes_.tolist() == sorted(set(y))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[X.columns[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X.to_numpy())


def test_frames_through_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), nuq.NTKRegressor(NET, noise=0.3))
    pipeline.set_output(transform="pandas")
    target = X["petal width (cm)"]
    features = X.drop(columns="petal width (cm)")
    pipeline.fit(features, target)
    assert pipeline[-1].feature_names_in_.tolist() == features.columns.tolist()
    assert pipeline.score(features, target) > 0.9


@pytest.mark.slow
def test_probabilities_are_calibrated_further():
    calibrated = CalibratedClassifierCV(
        nuq.NTKClassifier(NET, method="gaussian", reg=10.0), method="sigmoid", cv=3
    ).fit(X, y)
    proba = calibrated.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert calibrated.score(X, y) > 0.9


@pytest.mark.parametrize(
    "labels",
    [
        np.array([True, False]), np.array([-1, 1]), np.array([0.0, 2.0]), np.array(["no", "yes"]),
        np.array(["no", "yes"], dtype=object), pd.Categorical(["a", "b"]),
    ],
    ids=["bool", "signs", "floats", "strings", "objects", "categories"],
)  # fmt: skip
def test_labels_of_any_kind(labels):
    rows = np.arange(20) % 2
    points = np.random.default_rng(0).normal(size=(20, 2)) + 4 * rows[:, None]
    given = labels[rows] if isinstance(labels, np.ndarray) else labels.take(rows)
    model = nuq.NTKClassifier(NET, method="gaussian").fit(points, given)
    assert model.predict(points).tolist() == list(given)


@pytest.mark.slow
def test_weights_are_routed():
    with config_context(enable_metadata_routing=True):
        model = nuq.EnsembleClassifier(NET, n_members=1).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        weights = np.where(y == "setosa", 0.0, 1.0)
        pipeline.fit(X, y, sample_weight=weights)
    # Of the class without weight only what the prior says is left.
    assert not np.any(pipeline.predict(X) == "setosa")


@pytest.mark.slow
def test_weights_that_sum_to_one_are_warned_of():
    """AdaBoost normalises its weights: of n points they make one, and of reg n times as much."""
    model = nuq.EnsembleClassifier(NET, n_members=1, reg=1 / len(X))
    n = len(X)
    with pytest.warns(UserWarning, match=rf"sums to 1 over {n} points.*reg is {n} times as strong"):
        AdaBoostClassifier(model, n_estimators=1).fit(X, y)
    plain = clone(model).fit(X, y).predict_proba(X)
    # The cure that the warning names.
    weighted = clone(model).fit(X, y, sample_weight=np.full(n, 1 / n) * n)
    np.testing.assert_array_equal(weighted.predict_proba(X), plain)


@pytest.mark.slow
def test_parameters_of_the_network():
    net = nuq.MLP(width=16, depth=1)
    model = nuq.NTKClassifier(net, reg=1.0, method="gaussian")
    assert {"architecture__width", "architecture__w_std"} < set(model.get_params())
    assert "architecture__width" not in model.get_params(deep=False)

    pipeline = make_pipeline(StandardScaler(), model)
    grid = {"ntkclassifier__architecture__depth": [1, 2], "ntkclassifier__reg": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    best = search.best_params_["ntkclassifier__architecture__depth"]
    assert search.best_estimator_[-1].architecture_ == nuq.MLP(width=16, depth=best)
    # Who holds an architecture keeps it, and a copy is as good as itself.
    assert clone(model).architecture is model.architecture is net
    assert net == nuq.MLP(width=16, depth=1)
    assert hash(net) == hash(nuq.MLP(width=16, depth=1))

    other = clone(model).set_params(architecture__width=8, reg=2.0)
    assert (other.architecture, other.reg) == (nuq.MLP(width=8, depth=1), 2.0)
    other.set_params(architecture=nuq.MLP(depth=0), architecture__width=4)
    assert other.architecture == nuq.MLP(width=4, depth=0)
    scaled = nuq.TemperatureScaled(model).set_params(estimator__architecture__width=8)
    assert scaled.estimator.architecture.width == 8


@pytest.mark.parametrize(
    "net", [nuq.MLP(), nuq.ConvNet(), nuq.Architecture(nnx.Linear)], ids=["MLP", "ConvNet", "own"]
)
def test_networks_in_diagrams(net):
    assert type(net)(**net.get_params()) == net == net.set_params()
    for estimator in (nuq.EnsembleClassifier(net), make_pipeline(nuq.BayesianRegressor(net))):
        for display in ("diagram", "text"):
            with config_context(display=display):
                shown = estimator._repr_mimebundle_()
            assert type(net).__name__ in shown["text/plain"]
            assert ("text/html" in shown) == (display == "diagram")


def test_parameters_of_a_network_that_are_none():
    model = nuq.NTKClassifier(nuq.MLP(width=16), reg=1.0)
    for wrong, message in (
        ({"architecture__widht": 8}, "Invalid parameter 'widht' for architecture MLP"),
        ({"architecture__width": 0}, "width must be an integer"),
        ({"architecture__width": 8, "rge": 1.0}, "Invalid parameter 'rge'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_params(**wrong, reg=5.0)
    assert (model.architecture.width, model.reg) == (16, 1.0)
    with pytest.raises(ValueError, match=r"architecture=None is MLP\(\).*MLP\(width=8\)"):
        nuq.NTKClassifier().set_params(architecture__width=8)
    with pytest.raises(TypeError, match=r"set_params\(architecture__width=8\)"):
        model.architecture.set_params(width=8)
