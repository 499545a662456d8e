"""What is known of a trained network given data: predictors that take its tangent, at any points.

docs/theory: "A trained network".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.rules import own_rules
from ntk_uq._common.words import in_a_line
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.linearized import Linearized, Tangent
from ntk_uq.predictions.distributions import GaussianPrediction, SamplePrediction
from ntk_uq.predictions.first_order import Discrepancy

__all__ = ["FittedLinearized", "TangentDraws", "TangentGaussian"]

Floats = NDArray[np.float64]

# Test points whose kernels with the training points are held at once: numbers of such an array.
_ENTRIES_AT_ONCE = 2**26


@in_a_line
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TangentDraws:
    """Draws of the posterior of a linearised network.

    Attributes
    ----------
    moved : Array of shape [S, P]
        How far each draw's parameters are from the trained ones.
    reg : float
        Precision of the prior.
    gap : Array of shape [S]
        Upper bound of each objective's distance to its minimum, in nats, rounding included.
    converged : Array of shape [S]
        Whether each problem was solved to the tolerance.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from flax import nnx
    >>> from ntk_uq import Categorical, Linearized
    >>> from ntk_uq.analytic import LinearizedEnsemble
    >>> from ntk_uq.networks import Problem
    >>> net, X = Linearized(nnx.Linear(1, 2, rngs=nnx.Rngs(0))), np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), net)
    >>> LinearizedEnsemble(n_draws=3).fit(problem).predictor.moved.shape
    (3, 4)
    """

    moved: Any
    reg: float
    gap: Array
    converged: Array

    def latents(self, tangent: Tangent, X: Floats) -> Floats:
        """Draws at m points, functions of these: [S, m, C]."""
        return tangent.at(X) + tangent.push(X, self.moved)


@in_a_line
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TangentGaussian:
    """The Gaussian about the mode of a linearised network's posterior, or the mode alone.

    Attributes
    ----------
    moved : Array of shape [P]
        How far the mode's parameters are from the trained ones.
    factor : Array of shape [P, P] or [nC, nC], or None
        L with L L^T = reg I + J^T W J, or reg I + R^T Theta R with R R^T = W; None for the mode.
    roots : Array of shape [n, C, C] or None
        R, where the factor is over outputs.
    space : {"parameters", "outputs"}
        Which.
    reg : float
        Precision of the prior.
    gap : Array of shape []
        Upper bound of the distance of the mode's objective to its minimum, in nats.
    discrepancy : Discrepancy or None
        How far the Gaussian is from the posterior of the linearised network, as measured at the
        training points.

    Examples
    --------
    >>> import numpy as np
    >>> from flax import nnx
    >>> from ntk_uq import Gaussian, Linearized
    >>> from ntk_uq.analytic import LinearizedEnsemble
    >>> from ntk_uq.networks import Problem
    >>> net, X = Linearized(nnx.Linear(1, 1, rngs=nnx.Rngs(0))), np.array([[-1.0], [1.0], [2.0]])
    >>> problem = Problem(X, X, Gaussian(0.1), 1.0, None, net)
    >>> LinearizedEnsemble(method="gaussian").fit(problem).predictor.space
    'outputs'
    """

    moved: Any
    factor: Array | None
    roots: Array | None
    space: str = field(metadata={"static": True})
    reg: float
    gap: Array
    discrepancy: Discrepancy | None = None

    def moments(
        self, tangent: Tangent, points: Floats, X: Floats, joint: bool
    ) -> tuple[Floats, Floats]:
        """Mean [m, C] and covariance at m points: [m, C, C], joint [m, C, m, C]."""
        mean = tangent.at(X) + tangent.push(X, np.asarray(self.moved)[None])[0]
        if self.factor is None:
            shape = mean.shape * 2 if joint else (*mean.shape, mean.shape[1])
            return mean, np.zeros(shape)
        factor = jnp.asarray(self.factor, tangent.dtype)
        if self.space == "parameters":
            seen = _whitened(factor, jnp.asarray(tangent.jacobian(X)))
            pattern = "kmc,knd->mcnd" if joint else "kmc,kmd->mcd"
            return mean, np.asarray(jnp.einsum(pattern, seen, seen))
        own = tangent.kernel(X) if joint else tangent.own_kernel(X)
        cross = tangent.kernel(X, points)
        roots = jnp.asarray(self.roots, tangent.dtype)
        scaled = jnp.einsum("icd,mbic->mbid", roots, jnp.asarray(cross))
        seen = _whitened(factor, scaled.reshape(*mean.shape, -1))
        pattern = "kmc,knd->mcnd" if joint else "kmc,kmd->mcd"
        return mean, (own - np.asarray(jnp.einsum(pattern, seen, seen))) / self.reg


def _whitened(factor: Array, rows: Array) -> Array:
    """L^-1 of rows [m, C, k]: [k, m, C]."""
    flat = rows.reshape(-1, rows.shape[-1]).T
    return solve_triangular(factor, flat, lower=True).reshape(-1, *rows.shape[:2])


@in_a_line
@dataclass(frozen=True, eq=False)
class FittedLinearized:
    """A trained network's tangent given data, ready for any points.

    Attributes
    ----------
    predictor : TangentDraws or TangentGaussian
        What was found.
    points : array of shape [n, ...]
        Training points, where predictions need them; else none.
    architecture : Linearized
        The network.
    likelihood : Likelihood
        Of a new point.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from flax import nnx
    >>> from ntk_uq import Categorical, Linearized
    >>> from ntk_uq.analytic import LinearizedEnsemble
    >>> from ntk_uq.networks import Problem
    >>> net, X = Linearized(nnx.Linear(1, 2, rngs=nnx.Rngs(0))), np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), net)
    >>> LinearizedEnsemble(n_draws=3).fit(problem).latents(X).joint
    True
    """

    predictor: TangentDraws | TangentGaussian
    points: Floats
    architecture: Linearized
    likelihood: Likelihood
    feature_scales: ClassVar[float] = 1.0
    jitter: ClassVar[float] = 0.0

    @property
    def reg(self) -> float:
        """Precision of the prior."""
        return self.predictor.reg

    @property
    def discrepancy(self) -> Discrepancy | None:
        """How far the Gaussian is from exact solutions; None of these."""
        return self.predictor.discrepancy if isinstance(self.predictor, TangentGaussian) else None

    def latents(self, X: ArrayLike, joint: bool = False) -> GaussianPrediction | SamplePrediction:
        """Distribution of the latents at m points; draws are functions either way.

        Parameters
        ----------
        X : array of shape [m, ...]
            Points.
        joint : bool
            Whether a Gaussian has its joint covariance.

        Returns
        -------
        GaussianPrediction or SamplePrediction
        """
        X = np.asarray(X)
        with own_rules(), jax.enable_x64(True):
            tangent = self.architecture.tangent.cast(jnp.float64)
            if isinstance(self.predictor, TangentDraws):
                draws = self.predictor.latents(tangent, X)
                return SamplePrediction(draws, self.likelihood, joint=True)
            if joint:
                mean, joint_cov = self.predictor.moments(tangent, self.points, X, True)
                cov = np.einsum("mcmd->mcd", joint_cov)
                return GaussianPrediction(mean, cov, self.likelihood, joint_cov)
            parts = [
                self.predictor.moments(tangent, self.points, block, False)
                for block in self._blocks(X)
            ]
        mean, cov = (np.concatenate(part) for part in zip(*parts, strict=True))
        return GaussianPrediction(mean, cov, self.likelihood)

    def functions(self) -> Callable[[ArrayLike], Floats]:
        """Draws as functions, to be evaluated anywhere, later, and consistently.

        Returns
        -------
        callable
            ``functions(X)`` gives the latents of every draw at m points: [S, m, C].
        """
        if not isinstance(self.predictor, TangentDraws):
            raise ValueError('Functions are drawn by uncertainty="posterior", method="exact".')
        return lambda X: self.latents(X).samples  # type: ignore[union-attr]

    def _blocks(self, X: Floats) -> list[Floats]:
        """Points whose kernels with the training points are held at once."""
        predictor: Any = self.predictor
        outputs = 1 if predictor.roots is None else predictor.roots.shape[-1]
        columns = 1 if predictor.factor is None else len(predictor.factor) * outputs
        size = max(1, _ENTRIES_AT_ONCE // columns)
        return [X[start : start + size] for start in range(0, len(X), size)]
