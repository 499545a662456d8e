"""Priors: maps from whitened variables, standard normal a priori, to latents at the points."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntk_uq._common.factors import apply_factor
from ntk_uq._common.linalg import cholesky
from ntk_uq._common.rules import own_rules
from ntk_uq._common.words import in_a_line
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = [
    "NETWORKS_AT_ONCE",
    "GaussianProcessPrior",
    "NetworkPrior",
    "Prior",
    "dtype_of",
    "in_double",
]

# Networks evaluated at once: their products then run at the machine's rate.
NETWORKS_AT_ONCE = 16


class Prior(Protocol):
    """A pytree that maps whitened variables z ~ N(0, I), an array, to latents at the points."""

    # Whether latents are linear in z, so that those on an ellipse need no evaluation.
    linear: ClassVar[bool]

    def sample_whitened(self, key: Array, n_outputs: int) -> Array:
        """One standard normal draw of z."""
        ...

    def latents(self, whitened: Array) -> Array:
        """Latents f(z): [n, C]."""
        ...


@in_a_line
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianProcessPrior:
    r"""Independent Gaussian processes, one for each output, with a common covariance.

    Attributes
    ----------
    factor : Array of shape [n, n]
        Lower Cholesky factor L of the covariance plus jitter on its diagonal.
    jitter : float
        What had to be added to the diagonal to factorise it; zero where nothing had to be.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import bayes
    >>> prior = bayes.GaussianProcessPrior.from_covariance(4 * jnp.eye(2))
    >>> prior.latents(jnp.ones((2, 1)))
    Array([[2.],
           [2.]], dtype=float32)
    """

    factor: Array
    jitter: float
    linear: ClassVar[bool] = True

    @classmethod
    @own_rules()
    def from_covariance(cls, covariance: Array) -> "GaussianProcessPrior":
        """Factorise a covariance, with as little jitter as its precision allows.

        Parameters
        ----------
        covariance : Array of shape [n, n]
            Symmetric positive semi-definite.

        Returns
        -------
        GaussianProcessPrior

        Raises
        ------
        ValueError
            If the matrix has a clearly negative eigenvalue: it is not a covariance.
        """
        return cls(*cholesky(covariance))

    def sample_whitened(self, key: Array, n_outputs: int) -> Array:
        """One standard normal draw of z: [n, C]."""
        return jax.random.normal(key, (len(self.factor), n_outputs), self.factor.dtype)

    @own_rules()
    def latents(self, whitened: Array) -> Array:
        """Latents f = L z: [n, C]."""
        return apply_factor(self.factor, whitened)


@in_a_line
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NetworkPrior:
    """A finite network whose parameters are all N(0, 1), independently.

    In NTK parameterisation (`MLP`, `ConvNet`) it has the NNGP kernel as the limit of its covariance
    at infinite width. A module in another parameterisation has the prior that N(0, 1) means there.

    Attributes
    ----------
    points : Array of shape [n, d], or images [n, h, w, c]
        Training points, in the precision of the sampler.
    architecture : BaseArchitecture
        The network.
    n_outputs : int
        Outputs C.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_uq import MLP
    >>> prior = NetworkPrior(jnp.ones((5, 2)), MLP(width=8, depth=1), 3)
    >>> prior.n_parameters
    51
    >>> prior.latents(jnp.zeros(51)).shape
    (5, 3)
    """

    points: Array
    architecture: BaseArchitecture = field(metadata={"static": True})
    n_outputs: int = field(metadata={"static": True})
    linear: ClassVar[bool] = False

    @property
    def n_parameters(self) -> int:
        """Number of parameters P."""
        return sum(math.prod(shape) for shape in self._template[1])

    def sample_whitened(self, key: Array, n_outputs: int) -> Array:
        """One standard normal draw of all parameters: [P]."""
        return jax.random.normal(key, (self.n_parameters,), self.points.dtype)

    @own_rules()
    def latents(self, whitened: Array) -> Array:
        """Outputs at the training points: [n, C]."""
        return self.evaluate(whitened, self.points)

    def evaluate(self, whitened: Array, points: Array) -> Array:
        """Outputs of the network with parameters [P] at m points: [m, C]."""
        treedef, shapes = self._template
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        leaves = [
            part.reshape(shape)
            for part, shape in zip(jnp.split(whitened, ends[:-1]), shapes, strict=True)
        ]
        return self.architecture.apply(jax.tree.unflatten(treedef, leaves), points)

    @property
    def _template(self) -> tuple[Any, tuple[tuple[int, ...], ...]]:
        point_shape = self.points.shape[1:]
        features = point_shape if len(point_shape) > 1 else point_shape[0]
        return _parameters(self.architecture, features, self.n_outputs)


@lru_cache(maxsize=16)
def _parameters(architecture: BaseArchitecture, features: Any, n_outputs: int) -> tuple[Any, tuple]:
    """Structure and shapes of a network's parameters, without drawing them."""
    module = jax.eval_shape(
        lambda key: architecture.init(key, features, n_outputs), jax.random.key(0)
    )
    leaves, treedef = jax.tree.flatten(module)
    return treedef, tuple(leaf.shape for leaf in leaves)


def dtype_of(prior: Any) -> Any:
    """Precision of a prior, and so of its sampler."""
    return (prior.factor if prior.linear else prior.points).dtype


def in_double(prior: Any) -> bool:
    """Whether a prior, and so its sampler, is in double precision."""
    return dtype_of(prior) == jnp.float64
