"""Fitted classifiers that say what a test wants, and a comparison of them."""

import numpy as np

from ntk_uq.bayes import Diagnostics
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
    rng = np.random.default_rng(0)
    return Diagnostics(
        rhat=np.abs(rng.normal(1, 0.005, (30, 3))) if n_chains > 1 else np.full((30, 3), np.nan),
        rhat_high_by_chance=1.0,
        ess_bulk=rng.normal(900, 50, (30, 3)),
        ess_tail=rng.normal(700, 50, (30, 3)),
        n_draws=400,
        n_divergent=0,
        n_max_treedepth=0,
        n_stuck=0,
        steps_per_draw=15.0,
        acceptance_rate=0.85,
        jitter=0.0,
        seconds=12.0,
        warnings=warnings,
    )


def comparison(
    names=("finite", "infinite", "mcmc"),
    classes=("ant", "bee", "cat"),
    labelled=True,
    with_reference=True,
    sampler=None,
    n_points=60,
):
    """A finite ensemble near a Gaussian, and a wider sampled posterior."""
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
