"""The posterior as scikit-learn estimators."""

import warnings
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from ntk_uq import analytic, bayes, ensemble
from ntk_uq._common import checks
from ntk_uq._common.machine import memory_limit
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import posterior_of
from ntk_uq.bayes.samplers import ChainSampler, DrawSampler, Sampler, sampler_named
from ntk_uq.estimators.ntk import Floats
from ntk_uq.estimators.solutions import check_solution, numpy_leaves, warn_of_first_order
from ntk_uq.estimators.tasks import Classifier, Estimator, Regressor
from ntk_uq.networks.architecture import BaseArchitecture, Kernels
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction

__all__ = ["BayesianClassifier", "BayesianRegressor"]


class _Bayesian(Estimator):
    """The posterior as a producer: Markov chains, or an approximation in their place."""

    prior: Literal["ntk", "nngp", "weights"]
    sampler: str
    num_warmup: int
    num_samples: int
    num_chains: int
    laplace_: Any
    # Whose uncertainty="posterior" is the alternative where sampling takes too long.
    _without_sampling: str
    _output_dim: str

    @own_rules()
    def predict_distribution(
        self, X: ArrayLike, *, joint: bool = False
    ) -> GaussianPrediction | SamplePrediction:
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
        X = self._validated(X)
        with jax.enable_x64(True):
            if not isinstance(self._sampler, DrawSampler):
                return self._laplace_prediction(X, joint)
            latents = self._latents(X, joint)
        n_chains = self.num_chains if isinstance(self._sampler, ChainSampler) else None
        joint = joint or self.prior == "weights"
        return self._sample_prediction(latents, n_chains=n_chains, joint=joint)

    @property
    def _sampler(self) -> Sampler:
        return sampler_named(self.sampler, "sampler must be")

    def _latents(self, X: Floats, joint: bool) -> Any:
        """Draws of the latents at test points: [S, m, C]."""
        if self.prior == "weights":
            return bayes.predict_network(self.draws_, X)
        cross, test = (self._covariance(kernels) for kernels in self._kernels_at(X, joint))
        return bayes.predict_latents(self._predict_key, self.draws_, cross, test, joint=joint)

    def _laplace_prediction(self, X: Floats, joint: bool) -> GaussianPrediction:
        if self.prior == "weights":
            mean, cov = self.laplace_.moments(X, joint=joint)
        else:
            # To the closed form the prior's covariance is a tangent kernel with reg = 1.
            kernels = [Kernels(k, k) for k in map(self._covariance, self._kernels_at(X, joint))]
            moments = self.laplace_.joint_moments if joint else self.laplace_.moments
            mean, cov = moments(*kernels)
        if not joint:
            return self._gaussian_prediction(mean, cov)
        return self._gaussian_prediction(mean, np.einsum("mcmd->mcd", cov), cov)

    def _kernels_at(self, X: Floats, joint: bool) -> tuple[Kernels, Kernels]:
        """Kernels of test points with the training points, and among themselves."""
        net = self.architecture_
        return net.kernels(X, self._X), net.kernels(X) if joint else net.kernel_diag(X)

    def _covariance(self, kernels: Any) -> Floats:
        return kernels.ntk / self.reg if self.prior == "ntk" else kernels.nngp

    def _fit(self, X: Floats, targets: Floats) -> None:
        self._X, self._y = X, targets
        for name in ("posterior_", "draws_", "laplace_"):
            self.__dict__.pop(name, None)
        self.diagnostics_ = self.discrepancy_ = None
        sampler = self._sampler
        with jax.enable_x64(True):
            key, self._predict_key = jax.random.split(self._key())
            prior: Any
            n, outputs = targets.shape
            if self.prior == "weights":
                prior = bayes.NetworkPrior(jnp.asarray(X), self.architecture_, outputs)
                self._refuse_too_long(n, outputs, prior.n_parameters)
            else:
                self._refuse_too_long(n, outputs, None)
                prior = self._covariance(self.architecture_.kernels(X))
            if isinstance(sampler, DrawSampler):
                self.draws_ = self._draw(sampler, key, prior, targets)
            else:
                self._fit_laplace(key, prior, targets)
        if isinstance(sampler, ChainSampler):
            self.diagnostics_ = bayes.diagnostics(self.draws_)
            if self.diagnostics_.warnings:
                warnings.warn(
                    "The posterior draws need care. " + " ".join(self.diagnostics_.warnings),
                    bayes.SamplingWarning,
                    stacklevel=3,
                )

    def _draw(
        self, sampler: DrawSampler, key: jax.Array, prior: Any, targets: Floats
    ) -> bayes.PosteriorDraws:
        posterior = posterior_of("fit", prior, targets, self._likelihood)
        total = self.num_chains * (self.num_warmup + self.num_samples)
        with progress_bar(sampler.title, total, self.progress) as progress:
            return sampler.draw(key, posterior, **self._counts, progress=progress)

    @property
    def _counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("num_warmup", "num_samples", "num_chains")}

    def _fit_laplace(self, key: jax.Array, prior: Any, targets: Floats) -> None:
        if self.prior == "weights":
            self.laplace_ = bayes.laplace_network(key, prior, targets, self._likelihood)
            if not self.laplace_.converged:
                warnings.warn(
                    "The mode of the posterior was not found to the precision that the Gaussian "
                    "about it needs. Raise reg, or scale the features (about 1 each).",
                    ensemble.ConvergenceWarning,
                    stacklevel=4,
                )
        else:
            kernels = Kernels(prior, prior)
            self.laplace_ = numpy_leaves(
                analytic.gaussian_predictor(kernels, targets, 1.0, self._likelihood, "posterior")
            )
            check_solution(self.laplace_, self.reg, stacklevel=5)
        self.discrepancy_ = self.laplace_.discrepancy
        instead = 'Use sampler="nuts"'
        if self.prior == "ntk":
            instead += f', or the draws of {self._without_sampling}(uncertainty="posterior")'
        warn_of_first_order(
            self.discrepancy_, instead, self.reg if self.prior == "ntk" else None, stacklevel=5
        )

    @cached_property
    def posterior_(self) -> Any:
        """The draws with names for ArviZ, made of `draws_` when they are first asked for."""
        check_is_fitted(self)
        if not isinstance(self._sampler, DrawSampler):
            raise AttributeError(
                f'sampler="{self.sampler}" draws nothing: its posterior is a Gaussian, in closed '
                "form. Use predict_distribution, or another sampler."
            )
        # In units of the target, as everything that users see.
        return bayes.to_datatree(
            jax.random.fold_in(self._predict_key, 1),
            replace(
                self.draws_, latents=self._target_shift + self._target_scale * self.draws_.latents
            ),
            self._target_shift + self._target_scale * self._y,
            self._observation_model,
            output_names=self._output_names,
            output_dim=self._output_dim,
        )

    def _refuse_too_long(self, n: int, outputs: int, parameters: int | None) -> None:
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
            f"{name} on {n} points and the {parameters} parameters of {self.architecture_!r} would "
            f"take {cost}. Give a narrower network, MLP(width=32) for example, a subset of the "
            'training points, fewer draws or chains, or use prior="nngp", the limit at infinite '
            "width."
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
        super()._check_arguments()
        if self.prior not in ("ntk", "nngp", "weights"):
            raise ValueError(f'prior must be "ntk", "nngp" or "weights"; got {self.prior!r}.')
        sampler_named(self.sampler, "sampler must be")
        if self.prior == "ntk" and self.reg == 0:
            raise ValueError(
                "reg=0 leaves no prior: GP(0, Theta / reg) has infinite variance. Set reg > 0."
            )
        if self.prior != "ntk" and self.reg != 1:
            which = "GP(0, K)" if self.prior == "nngp" else "N(0, I) over all parameters"
            warnings.warn(
                f"prior={self.prior!r} is {which}, in which reg does not occur: reg={self.reg!r} "
                'has no effect. Use prior="ntk", or scale the network by w_std and b_std.',
                UserWarning,
                stacklevel=3,
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
    sampler : {"nuts", "ess", "vi", "laplace"}, default "nuts"
        "nuts": the No-U-Turn sampler. "ess": elliptical slice sampling, slower but on the smallest
        data sets. Both are right in the limit of many draws. Approximations: "vi", independent
        draws from the nearest Gaussian with independent whitened variables; "laplace", the Gaussian
        at the mode in closed form, of a finite network linearised there.
    num_warmup, num_samples, num_chains : int, default 500, 500, 2
        Draws of each chain that adapt the sampler and are dropped, draws that are kept, chains.
        "vi" has no warm-up, and "laplace" no draws.
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
        The functional layer's result. Not with "laplace".
    laplace_ : analytic.GaussianPredictor or bayes.NetworkLaplace
        The functional layer's result with "laplace".
    discrepancy_ : analytic.Discrepancy or None
        How far "laplace" is from the posterior, measured at the training points on 32 draws that
        are solved exactly: `analytic.GaussianPredictor` or, for a finite network, within its
        linearisation `bayes.NetworkLaplace`. None with the other samplers.
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
    sampler : {"nuts", "ess", "vi", "laplace"}, default "nuts"
        As in `BayesianClassifier`.
    noise : float, optional
        Standard deviation of the observation noise, in the units of the target. None estimates it
        by the evidence under the prior, for each output; for a finite network under its limit at
        infinite width.
    num_warmup, num_samples, num_chains : int, default 500, 500, 2
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
    n_features_in_, feature_names_in_, fit_seconds_
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
        self.random_state = random_state
        self.progress = progress

    def _prior_covariance(self, X: Floats) -> Floats:
        return self._covariance(self.architecture_.kernels(X))
