"""Fitted classifiers that say what a test wants, and a comparison of them."""

import functools
from dataclasses import replace

import numpy as np
from scipy import stats

from ntk_uq import bayes
from ntk_uq.bayes import GaussianProcessPrior, PosteriorDraws
from ntk_uq.compare import compare
from ntk_uq.predictions import GaussianPrediction, SamplePrediction


class StandIn:
    """A fitted classifier that gives a known distribution of latents."""

    def __init__(self, prediction, classes=(0, 1, 2), diagnostics=None):
        self.prediction = prediction
        self.classes_ = np.asarray(classes)
        self.fit_seconds_ = 1.5
        if diagnostics is not None:
            self.diagnostics_ = diagnostics

    def predict_distribution(self, X):
        assert len(X) == len(self.prediction.mean)
        return self.prediction


def diagnostics(warnings=(), n_chains=2):
    """Diagnostics of independent draws, with the warnings that a test wants."""
    shape = (n_chains, 200)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((*shape, 30, 3))
    stats = {
        "diverging": np.zeros(shape, bool),
        "reached_max_treedepth": np.zeros(shape, bool),
        "n_steps": np.full(shape, 15),
        "acceptance_rate": np.full(shape, 0.85),
        "lp": rng.standard_normal(shape),
    }
    prior = GaussianProcessPrior(factor=np.eye(30), jitter=0.0)
    draws = PosteriorDraws(prior, latents, latents, stats, seconds=12.0)
    return replace(bayes.diagnostics(draws), warnings=warnings)


def comparison(*args, sampler=None, **options):
    """A finite ensemble near a Gaussian, and a wider sampled posterior."""
    if sampler is None:
        return _comparison(*args, **options)
    return _comparison.__wrapped__(*args, sampler=sampler, **options)


@functools.cache
def _comparison(
    names=("finite", "infinite", "mcmc"),
    classes=("ant", "bee", "cat"),
    labelled=True,
    with_reference=True,
    sampler=None,
    n_points=60,
):
    rng = np.random.default_rng(0)
    mean = 2 * rng.standard_normal((n_points, 3))
    finite = SamplePrediction(mean + rng.standard_normal((32, n_points, 3)), joint=True)
    infinite = GaussianPrediction(mean, np.broadcast_to(np.eye(3), (n_points, 3, 3)))
    mcmc = SamplePrediction(mean + 2 * rng.standard_normal((400, n_points, 3)), n_chains=2)
    estimators = {
        names[0]: StandIn(finite, classes),
        names[1]: StandIn(infinite, classes),
        names[2]: StandIn(mcmc, classes, sampler or diagnostics()),
    }
    noisy = mean + rng.gumbel(size=mean.shape)
    return compare(
        estimators,
        np.zeros((n_points, 1)),
        np.asarray(classes)[noisy.argmax(axis=1)] if labelled else None,
        reference=names[2] if with_reference else None,
    )


def default_features(train, x):
    """Features as an estimator without an architecture sees them."""
    low, middle, high = (np.sort(train, axis=0)[int(np.ceil(len(train) * q)) - 1]
                         for q in (0.25, 0.5, 0.75))  # fmt: skip
    spread = (high - low) / (stats.norm.ppf(0.75) - stats.norm.ppf(0.25))
    spread = np.where(spread > 0, spread, train.std(axis=0))
    known, new = (np.arcsinh((points - middle) / spread) for points in (train, x))
    return (new - known.mean(axis=0)) / known.std(axis=0)
