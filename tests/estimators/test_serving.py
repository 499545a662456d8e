"""Predictions as a server asks for them: of any number of rows, none compiled for a new one."""

from contextlib import contextmanager
from pickle import dumps, loads

import jax
import numpy as np
import pytest
from sklearn.base import clone
from small_problem import LABELS, NET, X
from small_problem import TARGET as Y

from ntk_uq import (
    BayesianRegressor,
    EnsembleClassifier,
    NTKClassifier,
    NTKRegressor,
    loo,
)

NEW = np.random.default_rng(0).normal(size=(15, 3))
MODELS = {
    "draws": NTKClassifier(reg=1.0, n_draws=4),
    "gaussian": NTKRegressor(NET, noise=0.1),
    "networks": NTKClassifier(NET, n_draws=4, prior_functions="networks"),
    "ensemble": EnsembleClassifier(NET, n_members=2),
    "laplace": BayesianRegressor(NET, noise=0.1, sampler="laplace"),
    "weights": BayesianRegressor(NET, noise=0.1, prior="weights", sampler="laplace"),
}


@contextmanager
def counted():
    """Programs that are compiled meanwhile, or taken from JAX's cache on the disk."""
    compiled = []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def moments(model, points):
    prediction = model.predict_distribution(points)
    return prediction.mean, prediction.cov


@pytest.mark.cases(4)
@pytest.mark.parametrize("name", MODELS)
def test_rows_are_predicted_alone_and_compiled_once(name):
    model = MODELS[name]
    model.fit(X, LABELS if hasattr(model, "predict_proba") else Y)
    together = moments(model, NEW)
    alone = [
        np.concatenate(parts) for parts in zip(*(moments(model, x[None]) for x in NEW), strict=True)
    ]
    for found, of_rows in zip(together, alone, strict=True):
        # Draws of networks are in single precision.
        np.testing.assert_allclose(found, of_rows, rtol=1e-5, atol=1e-6)
    with counted() as compiled:
        moments(model, NEW + 1)
        for m in (9, 10, 13):  # as 15 and 16 of the bucket from 9 to 16
            moments(model, NEW[:m])
        moments(model, NEW[:1])
    assert compiled == []


@pytest.mark.parametrize(
    "asked", [{"reg": "cv", "tune": ("scales",)}, {"reg": 1.0, "uncertainty": "posterior"}]
)
def test_other_numbers_of_points_compile_nothing(asked):
    """A fit and a prediction, with or without a choice: of 97 to 128 points alike."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(150, 3))
    labels = (points[:, 0] + rng.normal(size=150) > 0).astype(int)

    def fit(n):
        model = NTKClassifier(NET, n_draws=4, **asked)
        return model.fit(points[:n], labels[:n]).predict_proba(points[n : n + 20])

    fit(101)
    with counted() as compiled:
        for n in (104, 109):
            assert np.isfinite(fit(n)).all()
    assert compiled == []


@pytest.mark.parametrize("uncertainty", ["initialization", "posterior", "none"])
def test_draws_at_one_row_are_those_among_others(uncertainty):
    """By products of NumPy's, and by a program of JAX's for blocks of rows."""
    model = NTKClassifier(NET, reg=0.1, n_draws=4, uncertainty=uncertainty).fit(X, LABELS)
    rows = np.concatenate([NEW, X[:1]])  # the last is known, and has no variance of its own
    together = model.predict_distribution(rows)
    parts = [model.predict_distribution(x[None]) for x in rows]
    if uncertainty == "none":
        means = np.concatenate([p.mean for p in parts])
        np.testing.assert_allclose(means, together.mean, rtol=1e-9, atol=1e-12)
        return
    samples = np.concatenate([p.samples for p in parts], axis=1)
    # What rounding leaves of a variance that is nothing, its root lets through.
    np.testing.assert_allclose(samples, together.samples, rtol=1e-9, atol=1e-6)


def test_the_count_counts():
    with counted() as compiled:
        jax.jit(lambda x: 3 * x + 41)(np.ones(3))
    assert len(compiled) == 1


def test_draws_on_a_device_are_not_kept():
    """Where JAX would round them: in a copy, a pickle, a process without x64."""
    model = NTKClassifier(NET, n_draws=4).fit(X, LABELS)
    before = model.predict_proba(NEW)
    assert "_on_device" in vars(model._fitted)
    again = loads(dumps(model))
    assert "_on_device" not in vars(again._fitted)
    np.testing.assert_array_equal(again.predict_proba(NEW), before)


@pytest.mark.parametrize("name", MODELS)
def test_a_fitted_model_does_not_follow_the_arrays_it_was_fitted_to(name):
    """Users reuse theirs: what was fitted keeps copies of its own."""
    points = X.astype(float)
    model = clone(MODELS[name])
    classes = hasattr(model, "predict_proba")
    targets = LABELS.copy() if classes else Y.astype(float)
    model.fit(points, targets)
    before = [*moments(model, NEW), log_densities(model)]
    points[:], targets[:] = 1.0, targets[::-1].copy()
    after = [*moments(model, NEW), log_densities(model)]
    for found, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert points.flags.writeable
    assert targets.flags.writeable


def log_densities(model):
    """Of data that are held out by a fit without them, where a model can tell."""
    return loo(model, X, LABELS if hasattr(model, "predict_proba") else Y).elpd_i.values
