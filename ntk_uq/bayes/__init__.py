r"""Posterior samples by Markov chains and by approximations, and how far to trust them.

A prior is a map from whitened variables, standard normal a priori, to the latents at the training
points. For a Gaussian process with covariance S at these points the map is
:math:`f = L z, \; S = L L^\top`; for a finite network it is the network, as a function of its
parameters. So one potential

.. math:: U(z) = \tfrac12 \|z\|^2 - \log p(y \mid f(z))

serves every prior and every likelihood. Latents elsewhere follow from the Gaussian conditional, or
from the network. See docs/theory: "Sampling the posterior".
"""

# ruff: noqa: I001  (in the order in which data flows)
from ntk_uq.bayes.priors import GaussianProcessPrior, NetworkPrior
from ntk_uq.bayes.cost import CostEstimate, estimate_cost
from ntk_uq.bayes.posterior import PosteriorDraws
from ntk_uq.bayes.sampling import sample_latents
from ntk_uq.bayes.samplers.variational import variational_latents
from ntk_uq.bayes.samplers.laplace import NetworkLaplace, laplace_network
from ntk_uq.bayes.convergence import Diagnostics, diagnostics
from ntk_uq.bayes.prediction import predict_latents, predict_network
from ntk_uq.bayes.leave_one_out import integrated_loo
from ntk_uq.bayes.simulation import simulation_based_calibration
from ntk_uq.bayes.datatree import predictions_group, to_datatree
from ntk_uq.bayes.producer import Posterior, SampledPosterior, LaplaceNetwork, FittedNetworkLaplace
from ntk_uq._common.warnings import SamplingWarning

__all__ = [
    "CostEstimate",
    "Diagnostics",
    "FittedNetworkLaplace",
    "GaussianProcessPrior",
    "LaplaceNetwork",
    "NetworkLaplace",
    "NetworkPrior",
    "Posterior",
    "PosteriorDraws",
    "SampledPosterior",
    "SamplingWarning",
    "diagnostics",
    "estimate_cost",
    "integrated_loo",
    "laplace_network",
    "predict_latents",
    "predict_network",
    "predictions_group",
    "sample_latents",
    "simulation_based_calibration",
    "to_datatree",
    "variational_latents",
]
