"""The methods that `compare` knows: each one's title, its estimator and its words."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntk_uq.cli.network import own_network, shipped

__all__ = ["DEPTH", "METHODS", "POSTERIORS", "about", "estimator", "network"]

# Of the network that is compared where none is given.
WIDTH, DEPTH = 512, 2


@dataclass(frozen=True)
class _Method:
    """A row of the table; options and words depend on the arguments of the command, and on reg."""

    title: str
    estimator: str  # its name in `ntk_uq.estimators`, where it loads when it is first used
    options: Callable[[argparse.Namespace, float], dict[str, Any]]
    words: Callable[[argparse.Namespace, float], str]


def _networks(arguments: argparse.Namespace) -> str:
    """How many finite networks there are, and of which width where that is known here."""
    width = arguments.width or (None if arguments.network else WIDTH)
    return f"{arguments.members} networks" + (f" of width {width:,}" if width else "")


def _trajectories(reg: float) -> int:
    """How far draws must be moved that are right to first order: far where the prior is wide."""
    return 0 if reg >= 1 else 1 if reg > 0.005 else 16


def _posterior_words(arguments: argparse.Namespace, reg: float) -> str:
    n = _trajectories(reg)
    moved = f", and moved by {n} Hamiltonian trajector{'y' if n == 1 else 'ies'}" if n else ""
    return (
        f"Approximate posterior samples without a Markov chain: {arguments.draws:,} functions "
        f"drawn from the prior, each trained on labels with noise{moved}."
    )


def _sampled(sampler: str) -> Callable[[argparse.Namespace, float], dict[str, Any]]:
    return lambda arguments, reg: {
        "prior": "ntk",
        "sampler": sampler,
        "num_warmup": arguments.warmup,
        "num_samples": arguments.samples,
        "num_chains": arguments.chains,
    }


METHODS = {
    "ensemble": _Method(
        "Finite ensemble",
        "EnsembleClassifier",
        lambda arguments, reg: {"n_members": arguments.members},
        lambda arguments, reg: (
            f"{_networks(arguments)}, each trained to "
            "convergence from its own random initialisation. Its uncertainty is the spread over "
            "initialisations."
        ),
    ),
    "infinite": _Method(
        "Infinite (exact)",
        "NTKClassifier",
        lambda arguments, reg: {"method": "exact", "n_draws": arguments.draws},
        lambda arguments, reg: (
            "An ensemble of networks of infinite width, from the neural tangent kernel: "
            f"{arguments.draws:,} random initialisations are drawn, and a convex problem gives the "
            "end of training of each."
        ),
    ),
    "gaussian": _Method(
        "Infinite (Gaussian)",
        "NTKClassifier",
        lambda arguments, reg: {"method": "gaussian"},
        lambda arguments, reg: (
            "The infinite ensemble in closed form: Gaussian logits, right to first order in the "
            "network at initialisation."
        ),
    ),
    "nuts": _Method(
        "NUTS",
        "BayesianClassifier",
        _sampled("nuts"),
        lambda arguments, reg: (
            "The Bayesian posterior whose most probable function is the trained network: a "
            "Gaussian process, with the neural tangent kernel divided by reg as its prior "
            f"covariance, sampled by {arguments.chains} Markov chains."
        ),
    ),
}
# What `compare --with` adds: approximate posteriors.
POSTERIORS = {
    "posterior": _Method(
        "Infinite (posterior)",
        "NTKClassifier",
        lambda arguments, reg: {
            "uncertainty": "posterior",
            "n_draws": arguments.draws,
            "n_trajectories": _trajectories(reg),
        },
        _posterior_words,
    ),
    "finite-posterior": _Method(
        "Finite (posterior)",
        "EnsembleClassifier",
        lambda arguments, reg: {"uncertainty": "posterior", "n_members": arguments.members},
        lambda arguments, reg: (
            f"The same, right to first order, with {_networks(arguments)} in place of the limit of "
            "infinite width."
        ),
    ),
    "laplace": _Method(
        "Laplace",
        "NTKClassifier",
        lambda arguments, reg: {"uncertainty": "posterior", "method": "gaussian"},
        lambda arguments, reg: (
            "A Gaussian in place of the posterior: its mode, and the curvature there, in closed "
            "form."
        ),
    ),
    "vi": _Method(
        "Variational",
        "BayesianClassifier",
        _sampled("vi"),
        lambda arguments, reg: (
            "The Gaussian with independent whitened variables that is nearest to the posterior in "
            "Kullback-Leibler divergence."
        ),
    ),
}


def network(arguments: argparse.Namespace) -> Any:
    """The architecture that all methods share."""
    from ntk_uq.networks.mlp import MLP

    settings = shipped(arguments, depth=DEPTH)
    if arguments.network:
        return own_network(arguments.network, arguments.width)
    return MLP(width=arguments.width or WIDTH, **settings)


def estimator(name: str, arguments: argparse.Namespace, reg: float) -> Any:
    """The estimator of a method, not fitted."""
    from ntk_uq import estimators

    method = (METHODS | POSTERIORS)[name]
    return getattr(estimators, method.estimator)(
        architecture=network(arguments),
        reg=reg,
        random_state=arguments.seed,
        **method.options(arguments, reg),
    )


def about(name: str, arguments: argparse.Namespace, reg: float) -> str:
    """What a method does, in words for the report."""
    return (METHODS | POSTERIORS)[name].words(arguments, reg)
