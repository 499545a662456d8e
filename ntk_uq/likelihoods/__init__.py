"""Observation models: how an output of the network becomes a distribution over targets.

Every array of latents has the shape [..., n, C] and broadcasts over its leading axes against
targets [n, C]. A likelihood is a frozen pytree: its parameters are traced, not recompiled.
"""

# ruff: noqa: I001  (in the order in which data flows)
from ntk_uq.likelihoods.interface import Likelihood, Curvature, require_condition
from ntk_uq.likelihoods.categorical import Categorical
from ntk_uq.likelihoods.bernoulli import Bernoulli
from ntk_uq.likelihoods.gaussian import Gaussian
from ntk_uq.likelihoods.poisson import Poisson
from ntk_uq.likelihoods.weighted import Weighted

__all__ = [
    "Bernoulli",
    "Categorical",
    "Curvature",
    "Gaussian",
    "Likelihood",
    "Poisson",
    "Weighted",
    "require_condition",
]
