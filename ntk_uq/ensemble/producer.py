"""The finite ensemble as a producer: a problem in, a distribution of latents anywhere out."""

import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ntk_uq._common.blocks import in_blocks, placed
from ntk_uq._common.progress import progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import in_a_line
from ntk_uq.ensemble.train import train_ensemble
from ntk_uq.ensemble.trained import TrainedEnsemble
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import SamplePrediction

__all__ = ["FiniteEnsemble", "FittedEnsemble"]

# Points that members are evaluated at together: what is drawn again is drawn for each block.
_POINTS_AT_ONCE = 1024


@dataclass(frozen=True)
class FiniteEnsemble:
    """Wide networks, trained from independent random initialisations in single precision.

    Attributes
    ----------
    n_members, uncertainty, tol, max_iter, optimizer, batch_size, time, memory, checkpoint
        As in `train_ensemble`.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X, net = np.array([[-1.0], [1.0]]), MLP(width=64, depth=1)
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), net)
    >>> FiniteEnsemble(n_members=3).fit(problem).latents(X).samples.shape
    (3, 2, 2)
    """

    n_members: int = 32
    uncertainty: Uncertainty = "initialization"
    tol: float = 1e-4
    max_iter: int = 1000
    optimizer: Any = None
    batch_size: int | None = None
    time: float | None = None
    memory: int | None = None
    checkpoint: str | os.PathLike | None = None

    def fit(
        self,
        problem: Problem,
        *,
        progress: bool | None = False,
        warm_start: "FittedEnsemble | None" = None,
    ) -> "FittedEnsemble":
        """Train the networks, with the errors and warnings of `train_ensemble`.

        Parameters
        ----------
        problem : Problem
            Data, likelihood, regularisation and network.
        progress : bool or None
            Progress bar; None shows it at a terminal only.
        warm_start : FittedEnsemble, optional
            Of the same problem with fewer members, which are kept.

        Returns
        -------
        FittedEnsemble
        """
        if problem.key is None:
            raise ValueError("Initialisations are drawn: give the problem a key.")
        with (
            own_rules(),
            jax.enable_x64(False),
            progress_bar("finite ensemble", self.n_members, progress) as told,
        ):
            trained = train_ensemble(
                problem.key,
                problem.architecture,
                placed(np.asarray(problem.points, np.float32)),  # which `jnp.asarray` copies twice
                jnp.asarray(problem.targets, jnp.float32),
                problem.loss,
                reg=problem.reg,
                n_members=self.n_members,
                uncertainty=self.uncertainty,
                tol=self.tol,
                max_iter=self.max_iter,
                optimizer=self.optimizer,
                batch_size=self.batch_size,
                time=self.time,
                memory=self.memory,
                warm_start=None if warm_start is None else warm_start.trained,
                checkpoint=self.checkpoint,
                progress=told,
            )
        return FittedEnsemble(trained, problem.likelihood)


@in_a_line
@dataclass(frozen=True, eq=False)
class FittedEnsemble:
    """Trained networks, ready for any points.

    Attributes
    ----------
    trained : TrainedEnsemble
        The networks.
    likelihood : Likelihood
        Of a new point.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> from ntk_uq.networks import Problem
    >>> X, y, net = np.array([[-1.0], [1.0]]), np.array([[0.0], [1.0]]), MLP(width=64, depth=1)
    >>> problem = Problem(X, y, Gaussian(0.1), 1.0, jax.random.key(0), net)
    >>> fitted = FiniteEnsemble(n_members=3).fit(problem)
    >>> fitted.latents(X).joint
    True
    """

    trained: TrainedEnsemble
    likelihood: Likelihood

    @property
    def architecture(self) -> BaseArchitecture:
        """The networks'."""
        return self.trained.architecture

    def latents(self, X: ArrayLike, joint: bool = True) -> SamplePrediction:
        """Latents of every member at m points, [m, d]: functions, jointly over them, either way."""
        # Trained in single, evaluated in double precision: a point's latents are then the same to
        # all digits that matter, whatever the batch that it comes in.
        with own_rules(), jax.enable_x64(True):
            latents = in_blocks(self.trained.latents, np.asarray(X), _POINTS_AT_ONCE, axis=1)
        return SamplePrediction(latents, self.likelihood, joint=True)

    def traced_latents(self, X: jax.Array) -> jax.Array:
        """Latents of every member at points that may be traced: [S, m, C].

        Parameters
        ----------
        X : Array of shape [m, d]
            Points.
        """
        return self.trained.latents(X)
