r"""The infinite ensemble while it trains: the predictor at time t of gradient flow.

With :math:`\dot\theta = -\nabla L(\theta)` the linearised network is
:math:`f_t(x) = f_0(x) + \Theta(x, X)\,\alpha_t`, where

.. math::
    \dot\alpha_t = \nabla \log p(y \mid f_t(X)) - reg\,\alpha_t, \qquad \alpha_0 = 0.

Time is learning rate times steps of gradient descent on the *sum* over data. docs/theory:
"Training time".
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.rules import own_rules
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import shown
from ntk_uq.analytic.exact import ExactPredictor
from ntk_uq.analytic.gaussian import GaussianPredictor, shared_predictor
from ntk_uq.analytic.inputs import objective_gap
from ntk_uq.analytic.resolvent import _PerOutput
from ntk_uq.likelihoods import Gaussian, Likelihood
from ntk_uq.networks.architecture import Kernels
from ntk_uq.predictions.first_order import no_discrepancy

__all__ = ["exact_predictor_at", "gaussian_predictor_at", "gaussian_until", "integrate"]

Floats = NDArray[np.float64]

# The implicit integrator factorises matrices of this size, a few gigabytes at most.
_LARGEST_SYSTEM = 8000


@own_rules()
def integrate(
    ntk: ArrayLike,
    y: ArrayLike,
    f0: ArrayLike,
    reg: float,
    likelihood: Likelihood,
    times: Sequence[float],
    *,
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> Floats:
    """Dual coefficients along gradient flow, for any likelihood.

    Integrated in function space by Radau IIA of order 5, which is implicit: the flow is stiff, its
    rates running from `reg` to the largest eigenvalue of the kernel.

    Parameters
    ----------
    ntk : array of shape [n, n]
        NTK of the training points.
    y : array of shape [n, C]
        Targets as the likelihood takes them.
    f0 : array of shape [n, C]
        One prior function at the training points: outputs before training.
    reg : float
        Regularisation, >= 0.
    likelihood : Likelihood
        Observation model.
    times : sequence of T floats
        Times, increasing from 0 or later.
    rtol, atol : float
        Tolerances of the integrator, of the coefficients.

    Returns
    -------
    array of shape [T, n, C]

    Raises
    ------
    ValueError
        If times are not finite and increasing, or n C is beyond 8000, where the implicit steps
        would take gigabytes.

    References
    ----------
    Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.8.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import Categorical
    >>> with jax.enable_x64(True):
    ...     alpha = integrate(np.eye(2), np.eye(2), np.zeros((2, 2)), 1.0, Categorical(), [0, 1e3])
    >>> alpha[0].tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    >>> np.allclose(alpha[1], np.eye(2) - scipy.special.softmax(alpha[1], axis=1), atol=1e-5)
    True
    """
    at = np.asarray(times, np.float64)
    if not np.all(np.isfinite(at)) or np.any(np.diff(at) <= 0) or at[0] < 0:
        raise ValueError(
            f"times must be finite, increasing and at least 0; got {at.tolist()}. For the end of "
            "training use exact_predictor or gaussian_predictor."
        )
    n, outputs = np.shape(y)
    if n * outputs > _LARGEST_SYSTEM:
        raise ValueError(
            f"{n} points x {outputs} outputs are a system of {n * outputs} equations, and the "
            f"integrator factorises it: at most {_LARGEST_SYSTEM}. Use a part of the points."
        )
    with jax.enable_x64(True):
        problem = tuple(jnp.asarray(a, jnp.float64) for a in (ntk, y, f0))

        def shaped(function: Callable) -> Callable[[float, NDArray], NDArray]:
            return lambda _, flat: np.asarray(
                function(flat.reshape(n, outputs), *problem, reg, likelihood)
            )

        solution = scipy.integrate.solve_ivp(
            shaped(_rate),
            (0.0, at[-1] or 1.0),  # an interval, also where only the start is asked for
            np.zeros(n * outputs),
            method="Radau",
            t_eval=at,
            jac=shaped(_jacobian),
            rtol=rtol,
            atol=atol,
        )
    if not solution.success:
        raise ValueError(f"The integrator failed: {solution.message}")
    return solution.y.T.reshape(-1, n, outputs)


@jax.jit
def _rate(
    alpha: Array, ntk: Array, y: Array, f0: Array, reg: float, likelihood: Likelihood
) -> Array:
    """The flow's, [n C]."""
    return (likelihood.gradient(f0 + ntk @ alpha, y) - reg * alpha).ravel()


@jax.jit
def _jacobian(
    alpha: Array, ntk: Array, y: Array, f0: Array, reg: float, likelihood: Likelihood
) -> Array:
    """-(W Theta + reg I), [n C, n C]."""
    n, outputs = y.shape
    curvature = likelihood.curvature(f0 + ntk @ alpha, y)
    columns = jnp.einsum("ij,cd->icjd", ntk, jnp.eye(outputs)).reshape(n, outputs, -1)
    w_ntk = jax.vmap(curvature.matvec, in_axes=-1, out_axes=-1)(columns)
    return -w_ntk.reshape(n * outputs, -1) - reg * jnp.eye(n * outputs)


@own_rules()
def exact_predictor_at(
    predictor: ExactPredictor, ntk: ArrayLike, y: ArrayLike, likelihood: Likelihood, time: float
) -> ExactPredictor:
    """Take the same draws of the prior function, trained until a time.

    Parameters
    ----------
    predictor : ExactPredictor
        Draws trained to the end, by "initialization" or "none".
    ntk, y, likelihood
        As `predictor` was made with.
    time : float
        Time of gradient flow.

    Returns
    -------
    ExactPredictor

    Raises
    ------
    ValueError
        For "posterior", whose label noise a predictor does not keep; and as `integrate`.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import Categorical, Kernels
    >>> from ntk_uq.analytic import exact_predictor
    >>> kernels, y, likelihood = Kernels(np.eye(2), np.eye(2)), np.eye(2), Categorical()
    >>> with jax.enable_x64(True):
    ...     problem = kernels, y, 1.0, likelihood, "initialization"
    ...     trained = exact_predictor(jax.random.key(0), *problem, 3)
    ...     untrained = exact_predictor_at(trained, kernels.ntk, y, likelihood, 0.0)
    >>> float(np.abs(np.asarray(untrained.alpha)).max())
    0.0
    """
    if predictor.uncertainty == "posterior":
        raise ValueError(
            'uncertainty="posterior" describes the end of training: a posterior has no time. Use '
            '"initialization" or "none".'
        )
    prior = np.einsum("ij,sjc->sic", predictor.factor, predictor.whitened)
    alpha = [
        integrate(ntk, y, f0, predictor.reg, likelihood, [time])[0] for f0 in np.asarray(prior)
    ]
    with jax.enable_x64(True):
        stacked, f0, targets = (jnp.asarray(a, jnp.float64) for a in (np.stack(alpha), prior, y))
        gap, converged = objective_gap(ntk, targets, predictor.reg, f0, stacked, likelihood)
        return replace(predictor, alpha=stacked, gap=gap, converged=converged)


@own_rules()
def gaussian_predictor_at(
    kernels: Kernels, y: ArrayLike, reg: float, likelihood: Gaussian, time: float
) -> GaussianPredictor:
    r"""Distribution over initialisations at a time of training on squared error: exactly Gaussian.

    With the eigenvectors U and eigenvalues :math:`\lambda` of :math:`\Theta / \sigma^2 + reg`,
    :math:`\alpha_t = U \frac{1 - e^{-\lambda t}}{\lambda} U^\top (y - f_0(X)) / \sigma^2`.

    Parameters
    ----------
    kernels : Kernels
        NNGP kernel and NTK of the training points, [n, n].
    y : array of shape [n, C]
        Targets.
    reg : float
        Regularisation, >= 0.
    likelihood : Gaussian
        With one noise for all outputs.
    time : float
        Time of gradient flow; infinity is the end of training.

    Returns
    -------
    GaussianPredictor

    References
    ----------
    Lee et al. (2019), eq. 14 and 15, with the penalty added.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import Gaussian, Kernels
    >>> kernels, y = Kernels(np.eye(1), np.eye(1)), np.ones((1, 1))
    >>> with jax.enable_x64(True):
    ...     half_way = gaussian_predictor_at(kernels, y, 0.0, Gaussian(1.0), np.log(2))
    >>> round(float(half_way.alpha[0, 0]), 6)
    0.5
    """
    noise = np.asarray(likelihood.noise)
    if noise.ndim > 0:
        raise ValueError("gaussian_predictor_at takes one noise for all outputs.")
    if not time >= 0:
        raise ValueError(f"time must be at least 0; got {shown(time)}.")
    (response,) = _responses(kernels.ntk, reg, noise[None], time)
    return shared_predictor(response, kernels, y, reg, likelihood)


def gaussian_until(
    kernels: Kernels,
    y: Array,
    reg: float,
    likelihood: Likelihood,
    uncertainty: Uncertainty,
    time: float,
) -> GaussianPredictor:
    """Closed form of `gaussian_predictor_at`, for a noise of each output, and without spread.

    Parameters
    ----------
    kernels, y, reg, time
        As in `gaussian_predictor_at`.
    likelihood : Gaussian
        Of no other likelihood there is a closed form.
    uncertainty : {"initialization", "none"}
        Whether over initialisations.

    Returns
    -------
    GaussianPredictor

    Raises
    ------
    ValueError
        If the likelihood is no Gaussian.
    """
    if not isinstance(likelihood, Gaussian):
        raise ValueError(
            "Of training that stops at a time there is a closed form for squared error only: use "
            'method="exact".'
        )
    kernels = Kernels(*map(jnp.asarray, kernels))
    noise = np.broadcast_to(np.asarray(likelihood.noise), y.shape[1:])
    responses = jnp.asarray(np.stack(list(_responses(kernels.ntk, reg, noise, time))), y.dtype)
    alpha = jnp.einsum("cij,jc->ic", responses, y)
    spread = uncertainty == "initialization"
    return GaussianPredictor(
        alpha,
        _PerOutput(responses) if spread else None,
        kernels.nngp if spread else None,
        reg,
        uncertainty,
        jnp.zeros((), y.dtype),  # there is no minimum to be near to
        no_discrepancy(y.shape),
    )


def _responses(ntk: ArrayLike, reg: float, noise: Floats, time: float) -> Iterator[Floats]:
    """R_t of each output: alpha = R_t (y - f0(X))."""
    eigenvalues, vectors = np.linalg.eigh(np.asarray(ntk, np.float64))
    for sd in noise:
        rates = np.maximum(eigenvalues, 0.0) / sd**2 + reg
        with np.errstate(divide="ignore", invalid="ignore"):
            learned = np.where(rates > 0, -np.expm1(-rates * time) / rates, time)
        yield (vectors * (learned / sd**2)) @ vectors.T
