"""The posterior as scikit-learn estimators."""

import time
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from ntk_uq import analytic, bayes
from ntk_uq._common import checks
from ntk_uq._common.machine import memory_limit
from ntk_uq._common.rules import own_rules
from ntk_uq._common.warnings import ConvergenceWarning, warn_user
from ntk_uq._common.words import shown
from ntk_uq.bayes.samplers import DrawSampler, Sampler, sampler_named
from ntk_uq.estimators.first_order import warn_of_first_order
from ntk_uq.estimators.tasks import (
    Classifier,
    Estimator,
    Prediction,
    Regressor,
    check_reg,
    of_fitted,
)
from ntk_uq.estimators.weights import distinct
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.function_prior import FunctionPrior
from ntk_uq.networks.problem import Problem

__all__ = ["BayesianClassifier", "BayesianRegressor"]


class _Bayesian(Estimator):
    """What both have of the posterior: Markov chains, or an approximation in their place."""

    prior: Literal["ntk", "nngp", "weights"]
    sampler: str
    num_warmup: int
    num_samples: int
    num_chains: int
    _fitted: bayes.SampledPosterior | bayes.FittedNetworkLaplace | analytic.FittedProcess
    # Where each row is among the distinct points, which are what is sampled.
    _rows: NDArray[np.intp] | None = None  # earlier files have none
    # Whose uncertainty="posterior" is the alternative where sampling takes too long.
    _without_sampling: str
    _output_dim: str

    draws_ = of_fitted("draws")
    laplace_ = of_fitted("laplace")

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to training data.

        Parameters
        ----------
        X : array-like of shape [n, d], or images [n, h, w, c] for an architecture that takes them
            Training points, numeric and finite; without an architecture a table with columns of
            categories and gaps too, as a data frame holds them.
        y : array-like of shape [n], or [n, C] for regression on C outputs
            Class labels, integers or strings, of at least two classes; or real targets.
        sample_weight : array-like of shape [n], optional
            Powers of the points' likelihoods: 2 counts a point twice, 0 leaves it out. Their sum is
            how many observations there are. In `posterior_` a point is one observation still.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data or an argument cannot be used; the message says why and what to do.

        Warns
        -----
        UserWarning
            If the weights' sum is below a tenth of the number of points.
        """
        self._check_arguments()
        points, targets, weights, rows = distinct(*self._weighted_data(X, y, sample_weight))
        start = time.perf_counter()
        self.__dict__.pop("posterior_", None)
        with own_rules():
            problem = self._problem(points, targets, self.reg, weights)
            self._rows = rows
            self._refuse_too_long(problem)
            problem = replace(problem, key=self._key())
            self._fitted = self._solved(problem)
        self._warn_of_quality()
        self.fit_seconds_ = time.perf_counter() - start
        return self

    def predict_distribution(self, X: ArrayLike, *, joint: bool = False) -> Prediction:
        """Posterior of the latents (logits) at each test point.

        Parameters
        ----------
        X : array-like of shape [m, d]
            Test points.
        joint : bool, default False
            Whether a draw is one function, jointly over the test points. By default it is right
            at each point, and a function of that point alone. Draws of prior="weights" are
            functions either way.

        Returns
        -------
        SamplePrediction or GaussianPrediction
            The latter for sampler="laplace".
        """
        points = self._validated(X)
        return self._prediction_in_units(self._fitted.latents(points, joint))

    @property
    def _sampler(self) -> Sampler:
        return sampler_named(self.sampler, "sampler must be")

    def _solved(
        self, problem: Problem, scales: float = 1.0
    ) -> bayes.SampledPosterior | bayes.FittedNetworkLaplace | analytic.FittedProcess:
        """What the producer makes of the problem; features have no scales here."""
        return self._producer().fit(problem, progress=self.progress)

    def _producer(self) -> bayes.Posterior | bayes.LaplaceNetwork | analytic.LaplaceProcess:
        if isinstance(self._sampler, DrawSampler):
            return bayes.Posterior(self.prior, self.sampler, **self._counts)
        if self.prior == "weights":
            return bayes.LaplaceNetwork()
        return analytic.LaplaceProcess(self.prior)

    @property
    def _counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("num_warmup", "num_samples", "num_chains")}

    def _noise_prior(self, reg: float) -> FunctionPrior:
        """Of a finite network its limit at infinite width."""
        return FunctionPrior(self._network, "ntk" if self.prior == "ntk" else "nngp", reg)

    @property
    def diagnostics_(self) -> bayes.Diagnostics | None:
        fitted = self._fitted
        return fitted.diagnostics if isinstance(fitted, bayes.SampledPosterior) else None

    @property
    def discrepancy_(self) -> analytic.Discrepancy | None:
        fitted = self._fitted
        return None if isinstance(fitted, bayes.SampledPosterior) else fitted.laplace.discrepancy

    def _warn_of_quality(self) -> None:
        """Say where what was found is not to be trusted as it is."""
        if self.diagnostics_ is not None and self.diagnostics_.warnings:
            words = " ".join(self.diagnostics_.warnings)
            warn_user(f"The posterior draws need care. {words}", bayes.SamplingWarning)
        if isinstance(self._fitted, bayes.FittedNetworkLaplace) and not self.laplace_.converged:
            warn_user(
                "The mode of the posterior was not found to the precision that the Gaussian "
                "about it needs. Raise reg, or scale the features (about 1 each).",
                ConvergenceWarning,
            )
        if self.discrepancy_ is None:
            return
        instead = 'Use sampler="nuts"'
        if self.prior == "ntk":
            instead += f', or the draws of {self._without_sampling}(uncertainty="posterior")'
        warn_of_first_order(self.discrepancy_, instead, self.reg if self.prior == "ntk" else None)

    @cached_property
    def posterior_(self) -> Any:
        """The draws with names for ArviZ, made of `draws_` when they are first asked for."""
        check_is_fitted(self)
        fitted = self._fitted
        if not isinstance(fitted, bayes.SampledPosterior):
            raise AttributeError(
                f'sampler="{self.sampler}" draws nothing: its posterior is a Gaussian, in closed '
                "form. Use predict_distribution, or another sampler."
            )
        rows = slice(None) if self._rows is None else self._rows
        # In units of the target, as everything that users see.
        return bayes.to_datatree(
            jax.random.fold_in(fitted.key, 1),
            fitted.draws,
            self._in_units(fitted.targets[rows]),
            self._observation_model,
            output_names=self._output_names,
            output_dim=self._output_dim,
            units=lambda latents: self._in_units(latents[..., rows, :]),
        )

    def _refuse_too_long(self, problem: Problem) -> None:
        n, outputs = problem.targets.shape
        parameters = None
        if self.prior == "weights":
            network = bayes.NetworkPrior(jnp.asarray(problem.points), problem.architecture, outputs)
            parameters = network.n_parameters
        if not isinstance(self._sampler, DrawSampler):
            self._refuse_large_laplace(n, outputs, parameters)
            return
        cost = bayes.estimate_cost(
            n, outputs, **self._counts, sampler=self.sampler, n_parameters=parameters
        )
        if not cost.is_excessive:
            return
        name = self._sampler.title[0].upper() + self._sampler.title[1:]
        if parameters is None:
            raise ValueError(
                f"{name} on {n} points and {outputs} outputs would take {cost}. Sample a subset of "
                "the training points, fewer draws or chains, or use "
                f'{self._without_sampling}(uncertainty="posterior"), which needs no sampling.'
            )
        raise ValueError(
            f"{name} on {n} points and the {parameters} parameters of "
            f"{shown(problem.architecture)} would take {cost}. Give a narrower network, "
            "MLP(width=32) for example, a subset of "
            'the training points, fewer draws or chains, or use prior="nngp", the limit at '
            "infinite width."
        )

    def _refuse_large_laplace(self, n: int, outputs: int, parameters: int | None) -> None:
        if parameters is None:
            needed = analytic.estimate_memory(n, outputs, 1, "gaussian", "posterior")
        else:
            # The Jacobian of all outputs, twice scaled, and a matrix over all outputs, thrice.
            needed = 8 * (3 * n * outputs * parameters + 3 * (n * outputs) ** 2)
        present = memory_limit()
        if needed > present:
            raise MemoryError(
                f'sampler="{self.sampler}" on {n} points and {outputs} outputs takes '
                f"{needed / 2**30:.1f} GiB, and this machine has {present / 2**30:.1f} GiB. Fit a "
                "part of the points" + ("." if parameters is None else ", or a narrower network.")
            )

    def _check_arguments(self) -> None:
        self._check_shared()
        check_reg(self.reg)
        self._check_task()
        if self.prior not in ("ntk", "nngp", "weights"):
            raise ValueError(f'prior must be "ntk", "nngp" or "weights"; got {shown(self.prior)}.')
        sampler_named(self.sampler, "sampler must be")
        if self.prior == "ntk" and self.reg == 0:
            raise ValueError(
                "reg=0 leaves no prior: GP(0, Theta / reg) has infinite variance. Set reg > 0."
            )
        if self.prior != "ntk" and self.reg != 1:
            which = "GP(0, K)" if self.prior == "nngp" else "N(0, I) over all parameters"
            warn_user(
                f"prior={shown(self.prior)} is {which}, in which reg does not occur: "
                f"reg={shown(self.reg)} has no effect. "
                'Use prior="ntk", or scale the network by w_std and b_std.'
            )
        for name in ("num_warmup", "num_samples", "num_chains"):
            checks.count(name, getattr(self, name))
        if self.num_samples < 4:
            raise ValueError(f"num_samples must be at least 4; got {self.num_samples}.")


class BayesianClassifier(_Bayesian, Classifier):
    r"""Bayesian posterior of a network's class probabilities, sampled or approximated.

    Softmax likelihood, and for the logits independent Gaussian processes whose covariance is that
    of an infinitely wide network, or a finite network with a normal prior over its parameters.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network, or the one whose kernel is the prior's. None as in `NTKClassifier`.
    reg : float, default 1.0
        Precision of the prior "ntk", > 0. The others have none, and warn of a value other than 1.
    prior : {"ntk", "nngp", "weights"}, default "ntk"
        "ntk": f ~ GP(0, Theta / reg), of which the regularised network's solution is the mode.
        "nngp": f ~ GP(0, K), the infinitely wide Bayesian network. "weights": the finite network,
        all of its parameters N(0, 1); of a width that a sampler can carry, a few thousand
        parameters.
    sampler : str, default "nuts"
        Name of a sampler (`ntk_uq.bayes.samplers`): of Markov chains, as the No-U-Turn sampler, or
        of an approximation.
    num_warmup, num_samples, num_chains : int, default 500, 500, 2
        Draws of each chain that adapt the sampler and are dropped, draws that are kept, chains.
    class_weight : "balanced", dict or None, default None
        Weight of each class, times those of the points: "balanced" gives all classes the same sum,
        the number of points over that of classes; a dict gives each label's, 1 where it has none.
    categorical_features : "from_dtype", sequence or None, default "from_dtype"
        Which columns hold categories, without an architecture: as in `TableEncoder`, which also
        fills gaps. A network that you give takes numbers only; put the encoder before it.
    random_state : int, RandomState or None, default 0
        Decides the chains.
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Attributes
    ----------
    classes_ : array of shape [C]
        Class labels.
    posterior_ : xarray.DataTree
        For ArviZ: draws of the latents at the training points, sample statistics, log likelihood,
        predicted and observed data. ``posterior_.to_netcdf(path)`` saves it. Not with "laplace".
    diagnostics_ : bayes.Diagnostics or None
        R-hat, effective sample sizes and divergences, and what they mean in words. None for the
        approximations, which have no chains to judge.
    draws_ : bayes.PosteriorDraws
        The functional layer's result, at the distinct training points. Not with "laplace".
    laplace_ : analytic.GaussianPredictor or bayes.NetworkLaplace
        The functional layer's result with "laplace".
    discrepancy_ : analytic.Discrepancy or None
        How far "laplace" is from the posterior, measured at the training points on 32 draws that
        are solved exactly: `analytic.GaussianPredictor` or, for a finite network, within its
        linearisation `bayes.NetworkLaplace`. None with the other samplers.
    encoder_ : TableEncoder or None
        What makes features of a table, without an architecture.
    n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    SamplingWarning
        If the diagnostics say that the draws cannot be trusted.
    FirstOrderWarning
        If the Gaussian of "laplace" is far from the posterior, as `NTKClassifier` warns.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ntk_uq import BayesianClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = BayesianClassifier(num_warmup=300, num_samples=1000).fit(X[::5], y[::5])
    >>> clf.predict_distribution(X[1::5]).samples.shape
    (2000, 30, 3)
    """

    _without_sampling = "NTKClassifier"
    _output_dim = "class"

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float = 1.0,
        prior: Literal["ntk", "nngp", "weights"] = "ntk",
        sampler: str = "nuts",
        num_warmup: int = 500,
        num_samples: int = 500,
        num_chains: int = 2,
        class_weight: Any = None,
        categorical_features: Any = "from_dtype",
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.reg = reg
        self.prior = prior
        self.sampler = sampler
        self.num_warmup = num_warmup
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.class_weight = class_weight
        self.categorical_features = categorical_features
        self.random_state = random_state
        self.progress = progress


class BayesianRegressor(_Bayesian, Regressor):
    r"""Bayesian posterior of a network for regression, sampled or approximated.

    Gaussian noise, and for the outputs independent Gaussian processes whose covariance is that of
    an infinitely wide network, or a finite network with a normal prior over its parameters. With
    the prior "ntk" the posterior is ``NTKRegressor(uncertainty="posterior")`` in closed form, and
    sampler="laplace" gives it.

    Parameters
    ----------
    architecture : MLP or other architecture, optional
        The network, or the one whose kernel is the prior's. None as in `NTKRegressor`.
    reg : float, default 1.0
        As in `BayesianClassifier`.
    prior : {"ntk", "nngp", "weights"}, default "ntk"
        As in `BayesianClassifier`.
    sampler : str, default "nuts"
        As in `BayesianClassifier`.
    noise : float, optional
        Standard deviation of the observation noise, in the units of the target. None estimates it
        by the evidence under the prior, for each output; for a finite network under its limit at
        infinite width.
    num_warmup, num_samples, num_chains : int, default 500, 500, 2
        As in `BayesianClassifier`.
    categorical_features : "from_dtype", sequence or None, default "from_dtype"
        As in `BayesianClassifier`.
    random_state : int, RandomState or None, default 0
        Decides the chains.
    progress : bool or None, default None
        Progress bar; None shows it at a terminal only.

    Attributes
    ----------
    noise_ : array of shape [C]
        Standard deviation of the observation noise of each output, in the units of the target.
    posterior_, diagnostics_, draws_, laplace_, discrepancy_
        As in `BayesianClassifier`; `posterior_` is in the units of the target, and `draws_` in
        those of the network.
    encoder_, n_features_in_, feature_names_in_, fit_seconds_
        Number and names of features, wall seconds of `fit`.

    Warns
    -----
    SamplingWarning
        If the diagnostics say that the draws cannot be trusted.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ntk_uq import BayesianRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = BayesianRegressor(noise=50.0, num_samples=1000).fit(X[::8], y[::8])
    >>> mean, std = reg.predict(X[1::8], return_std=True)
    >>> mean.shape, std.shape
    ((56,), (56,))
    """

    _without_sampling = "NTKRegressor"
    _output_dim = "output"

    def __init__(
        self,
        architecture: BaseArchitecture | None = None,
        reg: float = 1.0,
        prior: Literal["ntk", "nngp", "weights"] = "ntk",
        sampler: str = "nuts",
        noise: float | None = None,
        num_warmup: int = 500,
        num_samples: int = 500,
        num_chains: int = 2,
        categorical_features: Any = "from_dtype",
        random_state: Any = 0,
        progress: bool | None = None,
    ):
        self.architecture = architecture
        self.reg = reg
        self.prior = prior
        self.sampler = sampler
        self.noise = noise
        self.num_warmup = num_warmup
        self.num_samples = num_samples
        self.num_chains = num_chains
        self.categorical_features = categorical_features
        self.random_state = random_state
        self.progress = progress
