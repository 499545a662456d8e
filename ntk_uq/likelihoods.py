"""Observation models: how an output of the network becomes a distribution over targets.

Every array of latents has the shape [..., n, C] and broadcasts over its leading axes against
targets [n, C]. A likelihood is a frozen pytree: its parameters are traced, not recompiled.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln

from ntk_uq._common.rules import own_rules

__all__ = ["Bernoulli", "Categorical", "Curvature", "Gaussian", "Likelihood", "Poisson", "Weighted"]


class Curvature(NamedTuple):
    r"""Negative Hessian of the log density, a diagonal less one rank.

    For each point :math:`W = \mathrm{diag}(d) - (d \circ q)(d \circ q)^\top`. Softmax is of this
    form with d = p, q = 1, and likelihoods that factorise over outputs have no q; so systems in
    W need n x n factorisations only, never nC x nC ones.

    Attributes
    ----------
    diagonal : Array of shape [..., n, C]
        d, non-negative.
    direction : Array of shape [..., n, C] or None
        q, with :math:`\sum_c d_c q_c^2 = 1`, so that W is singular along 1 / q; None for zero.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Categorical
    >>> curvature = Categorical().curvature(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
    >>> curvature.matvec(jnp.array([[1.0, 0.0]]))
    Array([[ 0.25, -0.25]], dtype=float32)
    """

    diagonal: Array
    direction: Array | None

    @own_rules()
    def matvec(self, v: Array) -> Array:
        """Product W v for v of shape [..., n, C]."""
        dv = self.diagonal * v
        if self.direction is None:
            return dv
        return dv - self.diagonal * self.direction * jnp.sum(
            self.direction * dv, axis=-1, keepdims=True
        )

    @own_rules()
    def sqrt_matvec(self, z: Array) -> Array:
        """Product R z with R R^T = W, which turns z ~ N(0, I) into label noise N(0, W)."""
        scaled = jnp.sqrt(self.diagonal) * z
        if self.direction is None:
            return scaled
        along = jnp.sum(self.direction * scaled, axis=-1, keepdims=True)
        return scaled - self.diagonal * self.direction * along


class Likelihood(Protocol):
    """What a likelihood must offer to be used by every producer.

    Methods are pure and traceable; log densities are in nats and fully normalised.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import Likelihood, Poisson
    >>> counts: Likelihood = Poisson()
    >>> counts.degenerate(jnp.array([[0.0], [3.0]]))
    Array([ True, False], dtype=bool)
    """

    def log_density(self, f: Array, y: Array) -> Array:
        """Log p(y | f), summed over outputs: [..., n] nats."""
        ...

    def gradient(self, f: Array, y: Array) -> Array:
        """Gradient of the log density in f: [..., n, C]."""
        ...

    def curvature(self, f: Array, y: Array) -> Curvature:
        """Negative Hessian W of the log density in f; positive semi-definite."""
        ...

    def response(self, f: Array) -> Array:
        """Expected target E[y | f]: [..., n, C]."""
        ...

    def sample(self, key: Array, f: Array) -> Array:
        """One target drawn from p(y | f) for each latent: [..., n, C]."""
        ...

    def degenerate(self, y: Array) -> Array:
        """Whether no finite f is optimal for the target alone: [n] booleans.

        Without regularisation such targets send the outputs to infinity, and training leaves
        the lazy regime.
        """
        ...

    def optimum(self, y: Array) -> Array:
        """The f in the identified directions that is optimal for the target alone: [..., n, C]."""
        ...

    def identified(self, f: Array) -> Array:
        """Part of f that the likelihood can see, the rest projected out: [..., n, C]."""
        ...

    def check_targets(self, y: np.ndarray) -> None:
        """Raise a ValueError that says what is wrong with targets [n, C], finite numbers."""
        ...


def require_condition(likelihood: Likelihood, y: Array, reg: float) -> None:
    """The paper's: training is lazy with reg > 0, or with non-degenerate targets.

    Raises
    ------
    ValueError
        If reg = 0 and a target is degenerate.
    """
    if reg == 0 and bool(jnp.any(likelihood.degenerate(y))):
        raise ValueError(
            "reg=0 with degenerate targets (a class of probability zero, a count of zero) has no "
            "solution: the loss falls for ever as the outputs grow, and training leaves the lazy "
            "regime. Set reg > 0, or smooth the targets."
        )


@dataclass_transform(frozen_default=True)
def _likelihood(cls):
    """Make a frozen dataclass whose fields are pytree leaves, and whose methods broadcast."""
    for name, method in list(vars(cls).items()):
        if not name.startswith("_") and callable(method):
            setattr(cls, name, own_rules()(method))
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


@_likelihood
class Categorical:
    r"""Softmax cross-entropy over C classes.

    :math:`\log p(y|f) = \sum_c y_c \log \mathrm{softmax}(f)_c`, with targets y on the simplex:
    one-hot rows, or soft ones (then it is the negative cross-entropy).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Categorical
    >>> Categorical().response(jnp.zeros((1, 4)))
    Array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def log_density(self, f, y):
        """Log p(y | f): [..., n] nats."""
        return jnp.sum(y * jax.nn.log_softmax(f, axis=-1), axis=-1)

    def gradient(self, f, y):
        """Y - softmax(f), for targets that sum to one: [..., n, C]."""
        return y - jax.nn.softmax(f, axis=-1)

    def curvature(self, f, y):
        """W = diag(p) - p p^T."""
        p = jax.nn.softmax(f, axis=-1)
        return Curvature(p, jnp.ones_like(p))

    def response(self, f):
        """Class probabilities: [..., n, C]."""
        return jax.nn.softmax(f, axis=-1)

    def sample(self, key, f):
        """One-hot classes drawn from softmax(f)."""
        return jax.nn.one_hot(jax.random.categorical(key, f, axis=-1), f.shape[-1], dtype=f.dtype)

    def degenerate(self, y):
        """A class of probability zero."""
        return jnp.any(y <= 0, axis=-1)

    def optimum(self, y):
        """Log y, centred over classes."""
        return self.identified(jnp.log(y))

    def identified(self, f):
        """P f: softmax does not see a constant added to all classes."""
        return f - jnp.mean(f, axis=-1, keepdims=True)

    def check_targets(self, y):
        """Rows are probabilities that sum to one."""
        _check_between(y, 0, 1, "class probabilities")
        sums = np.sum(y, axis=-1)
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > _SIMPLEX_TOLERANCE:
            raise ValueError(
                f"Targets must sum to one over the classes; row {worst} sums to {sums[worst]:.6g}. "
                "One-hot rows, or soft ones such as y / y.sum(axis=1, keepdims=True), are needed."
            )


@_likelihood
class Bernoulli:
    r"""Logistic cross-entropy, independent over outputs.

    :math:`\log p(y|f) = \sum_c y_c f_c - \log(1 + e^{f_c})`, with targets in [0, 1].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Bernoulli
    >>> Bernoulli().response(jnp.zeros((1, 2)))
    Array([[0.5, 0.5]], dtype=float32)
    """

    def log_density(self, f, y):
        """Log p(y | f): [..., n] nats."""
        return jnp.sum(y * f - jax.nn.softplus(f), axis=-1)

    def gradient(self, f, y):
        """Y - sigmoid(f): [..., n, C]."""
        return y - jax.nn.sigmoid(f)

    def curvature(self, f, y):
        """W = diag(p (1 - p))."""
        return Curvature(jax.nn.sigmoid(f) * jax.nn.sigmoid(-f), None)

    def response(self, f):
        """Probability of a one: [..., n, C]."""
        return jax.nn.sigmoid(f)

    def sample(self, key, f):
        """Zeros and ones drawn with probability sigmoid(f)."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(f)).astype(f.dtype)

    def degenerate(self, y):
        """A probability of zero or one."""
        return jnp.any((y <= 0) | (y >= 1), axis=-1)

    def optimum(self, y):
        """Logit of y."""
        return jax.scipy.special.logit(y)

    def identified(self, f):
        """All of f."""
        return f

    def check_targets(self, y):
        """Probabilities of a one."""
        _check_between(y, 0, 1, "probabilities of a one (0 and 1 for labels)")


@_likelihood
class Gaussian:
    r"""Gaussian noise, independent over outputs; the loss is squared error / (2 noise^2).

    Attributes
    ----------
    noise : float
        Standard deviation of the observation noise, in the units of the target.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Gaussian
    >>> Gaussian(noise=0.5).gradient(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    Array([[4.]], dtype=float32)
    """

    noise: float | Array = field(default=1.0)

    def log_density(self, f, y):
        """Log p(y | f): [..., n] nats."""
        z = (y - f) / self.noise
        return jnp.sum(-0.5 * z**2 - jnp.log(self.noise) - 0.5 * jnp.log(2 * jnp.pi), axis=-1)

    def gradient(self, f, y):
        """(Y - f) / noise^2: [..., n, C]."""
        return (y - f) / self.noise**2

    def curvature(self, f, y):
        """W = I / noise^2."""
        return Curvature(jnp.full_like(f, 1.0) / self.noise**2, None)

    def response(self, f):
        """Mean of the target, the latent itself: [..., n, C]."""
        return f

    def sample(self, key, f):
        """Targets with observation noise added."""
        return f + self.noise * jax.random.normal(key, f.shape, f.dtype)

    def degenerate(self, y):
        """Never: every finite target has a finite optimum."""
        return jnp.zeros(y.shape[:-1], bool)

    def optimum(self, y):
        """The target."""
        return y

    def identified(self, f):
        """All of f."""
        return f

    def check_targets(self, y):
        """Any finite number is a target."""


@_likelihood
class Poisson:
    r"""Counts with the rate exp(f), independent over outputs.

    :math:`\log p(y|f) = \sum_c y_c f_c - e^{f_c} - \log y_c!`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Poisson
    >>> Poisson().response(jnp.zeros((1, 2)))
    Array([[1., 1.]], dtype=float32)
    """

    def log_density(self, f, y):
        """Log p(y | f): [..., n] nats."""
        return jnp.sum(y * f - jnp.exp(f) - gammaln(y + 1), axis=-1)

    def gradient(self, f, y):
        """Y - exp(f): [..., n, C]."""
        return y - jnp.exp(f)

    def curvature(self, f, y):
        """W = diag(exp(f))."""
        return Curvature(jnp.exp(f), None)

    def response(self, f):
        """Expected count: [..., n, C]."""
        return jnp.exp(f)

    def sample(self, key, f):
        """Counts drawn with rate exp(f)."""
        return jax.random.poisson(key, jnp.exp(f)).astype(f.dtype)

    def degenerate(self, y):
        """A count of zero, whose optimum is f = -infinity."""
        return jnp.any(y <= 0, axis=-1)

    def optimum(self, y):
        """Log y."""
        return jnp.log(y)

    def identified(self, f):
        """All of f."""
        return f

    def check_targets(self, y):
        """Counts."""
        _check_between(y, 0, np.inf, "counts")
        if np.any(y != np.round(y)):
            raise ValueError(
                f"Poisson targets are counts, whole numbers; got {y[y != np.round(y)][0]:.6g}. "
                "For rates over unequal exposures, use whole counts and give weights."
            )


@_likelihood
class Weighted:
    r"""A likelihood with a weight for each training point: :math:`w_i \log p(y_i | f_i)`.

    A weight of 2 counts a point twice. It describes the training points, in their order; their
    outputs have the shape [..., n, C].

    Attributes
    ----------
    likelihood : Likelihood
        What is weighted.
    weights : Array of shape [n]
        Positive. Leave points of weight zero out.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq.likelihoods import Gaussian, Weighted
    >>> twice = Weighted(Gaussian(noise=1.0), jnp.array([2.0]))
    >>> twice.gradient(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    Array([[2.]], dtype=float32)
    """

    likelihood: Likelihood
    weights: Array

    def take(self, rows):
        """The likelihood of some of the training points."""
        return Weighted(self.likelihood, self.weights[rows])

    def log_density(self, f, y):
        """Log density, w_i log p(y_i | f_i): [..., n] nats."""
        return self.weights * self.likelihood.log_density(f, y)

    def gradient(self, f, y):
        """Gradient, times w_i: [..., n, C]."""
        return self.weights[:, None] * self.likelihood.gradient(f, y)

    def curvature(self, f, y):
        """Curvature, times w_i."""
        diagonal, direction = self.likelihood.curvature(f, y)
        weights = self.weights[:, None]
        return Curvature(
            weights * diagonal, None if direction is None else direction / jnp.sqrt(weights)
        )

    def response(self, f):
        """Expected target E[y | f]: [..., n, C]."""
        return self.likelihood.response(f)

    def sample(self, key, f):
        """One target drawn for each latent: [..., n, C]."""
        return self.likelihood.sample(key, f)

    def degenerate(self, y):
        """As without weights."""
        return self.likelihood.degenerate(y)

    def optimum(self, y):
        """As without weights."""
        return self.likelihood.optimum(y)

    def identified(self, f):
        """As without weights."""
        return self.likelihood.identified(f)

    def check_targets(self, y):
        """As without weights."""
        self.likelihood.check_targets(y)


# Single-precision probabilities over thousands of classes sum to one within this.
_SIMPLEX_TOLERANCE = 1e-4


def _check_between(y: np.ndarray, low: float, high: float, what: str) -> None:
    outside = (y < low) | (y > high)
    if np.any(outside):
        raise ValueError(
            f"Targets are {what}, from {low:g} to {high:g}; got {y[outside].flat[0]:.6g} "
            f"in row {int(np.argwhere(outside)[0, 0])}."
        )
