"""What a producer is asked: one problem, in the network's units."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ntk_uq.likelihoods import Likelihood, Weighted
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["Problem"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Data, likelihood, regularisation and network: what a producer fits.

    Everything is in the units of the network, whatever those of the features and targets.

    Attributes
    ----------
    points : array of shape [n, d], or images [n, h, w, c]
        Training points.
    targets : array of shape [n, C]
        As the likelihood takes them.
    likelihood : Likelihood
        Observation model of a new point.
    reg : float
        Regularisation, against a sum over data.
    key : Array or None
        PRNG key. None where nothing is drawn.
    architecture : BaseArchitecture
        The network, and its kernels.
    weights : array of shape [n], optional
        How much each training point counts: 2 counts it twice.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.analytic import InfiniteEnsemble
    >>> X = np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), MLP())
    >>> InfiniteEnsemble(n_draws=4).fit(problem).latents(X).samples.shape
    (4, 2, 2)
    """

    points: Floats
    targets: Floats
    likelihood: Likelihood
    reg: float
    key: jax.Array | None
    architecture: BaseArchitecture
    weights: Floats | None = None

    @property
    def loss(self) -> Likelihood:
        """The likelihood of the training points, as they count."""
        if self.weights is None or np.all(self.weights == 1):
            return self.likelihood
        return Weighted(self.likelihood, jnp.asarray(self.weights))
