"""Several infinite ensembles as one: a mixture of laws, whose draws each has a share of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.leaves import read_only
from ntk_uq._common.progress import progress_part
from ntk_uq._common.warnings import warn_once
from ntk_uq._common.words import in_a_line
from ntk_uq.analytic.at_one import draws_at_one
from ntk_uq.analytic.producer import FittedInfiniteEnsemble, InfiniteEnsemble
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.distributions import SamplePrediction

__all__ = ["Component", "FittedMixture", "allotted", "fit_mixture"]

Floats = NDArray[np.float64]


@in_a_line
@dataclass(frozen=True, eq=False)
class Component:
    """A network of a mixture.

    Attributes
    ----------
    name : str
        What tells it from the others.
    architecture : BaseArchitecture
        The network.
    reg : float
        Regularisation.
    feature_scales : array of shape [d], or 1.0
        Factor of each feature; read-only.
    weight : float
        Its share of the mixture.
    score : float
        Mean log predictive density of a held-out point by its mode alone, in nats, also where the
        mixture is one of posteriors.
    label_weight : float, default 1.0
        How often each training label counts: that power of the likelihood.

    Examples
    --------
    >>> from ntk_uq import MLP
    >>> Component("depth 1", MLP(depth=1), 1.0, 1.0, 0.5, -0.3).weight
    0.5
    """

    name: str
    architecture: BaseArchitecture
    reg: float
    feature_scales: Floats | float
    weight: float
    score: float
    label_weight: float = 1.0

    def __post_init__(self) -> None:
        if np.ndim(self.feature_scales):  # with which the fitted network computes
            object.__setattr__(self, "feature_scales", read_only(self.feature_scales))


def allotted(weights: Sequence[float], n_draws: int) -> list[int]:
    """Draws of each component: as many as its weight says, by largest remainders.

    Parameters
    ----------
    weights : sequence of K floats
        Their sum is 1.
    n_draws : int
        Of all.

    Returns
    -------
    list of K ints

    Examples
    --------
    >>> allotted([0.5, 0.3, 0.2], 256), allotted([0.5, 0.3, 0.2], 1)
    ([128, 77, 51], [1, 0, 0])
    """
    quotas = n_draws * np.asarray(weights, float)
    counts = np.floor(quotas + 1e-9).astype(int)
    most = np.argsort(counts - quotas, kind="stable")
    counts[most[: n_draws - counts.sum()]] += 1
    return counts.tolist()


@warn_once()
def fit_mixture(
    producer: InfiniteEnsemble,
    components: Sequence[Component],
    problem: Problem,
    *,
    progress: bool | None = False,
) -> "FittedMixture":
    """Solve the problem for each component.

    Parameters
    ----------
    producer : InfiniteEnsemble
        Of method "exact", with prior functions of their own: each component gets its share of the
        draws, and one whose share is none is left out.
    components : sequence of Component
        The networks.
    problem : Problem
        Its network and regularisation are those of the components.
    progress : bool or None
        Progress bars; None shows them at a terminal only.

    Returns
    -------
    FittedMixture

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X = np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), MLP())
    >>> pair = [Component(f"depth {k}", MLP(depth=k), 1.0, 1.0, 0.5, -0.3) for k in (1, 2)]
    >>> fitted = fit_mixture(InfiniteEnsemble(n_draws=4), pair, problem)
    >>> fitted.latents(X).samples.shape, [len(m.predictor.alpha) for m in fitted.members]
    ((4, 2, 2), [2, 2])
    """
    counts = allotted([component.weight for component in components], producer.n_draws)
    keys = jax.random.split(cast(Array, problem.key), len(components))
    taken = [i for i, count in enumerate(counts) if count]
    members = []
    for number, i in enumerate(taken, 1):
        one, count = components[i], counts[i]
        with progress_part(f"network {number} of {len(taken)}" if len(taken) > 1 else ""):
            members.append(
                replace(producer, n_draws=count, feature_scales=one.feature_scales).fit(
                    _problem_of(one, problem, keys[i]), progress=progress
                )
            )
    return FittedMixture(tuple(members))


def _problem_of(one: Component, problem: Problem, key: Array) -> Problem:
    """The problem with what is a component's own."""
    weights = problem.weights
    if one.label_weight != 1:
        weights = one.label_weight * (np.ones(len(problem.points)) if weights is None else weights)
    return replace(problem, architecture=one.architecture, reg=one.reg, key=key, weights=weights)


@in_a_line
@dataclass(frozen=True, eq=False)
class FittedMixture:
    """Solved problems of several networks, whose draws are those of one law: their mixture.

    What is one network's, as its regularisation, is the first one's, by which the mixture began.

    Attributes
    ----------
    members : tuple of FittedInfiniteEnsemble
        Their draws count alike: a member's share is its number.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.networks import Problem
    >>> X = np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), MLP())
    >>> mixture = FittedMixture((InfiniteEnsemble(n_draws=4).fit(problem),) * 2)
    >>> mixture.latents(X, joint=True).samples.shape, mixture.functions()(X).shape
    ((8, 2, 2), (8, 2, 2))
    """

    members: tuple[FittedInfiniteEnsemble, ...]

    @property
    def predictor(self) -> Any:
        """The first member's."""
        return self.members[0].predictor

    @property
    def architecture(self) -> BaseArchitecture:
        """The first member's network."""
        return self.members[0].architecture

    @property
    def points(self) -> Floats:
        """Training points, features scaled as the first member sees them."""
        return self.members[0].points

    @property
    def feature_scales(self) -> Floats | float:
        """Factors of the features of the first member."""
        return self.members[0].feature_scales

    @property
    def likelihood(self) -> Likelihood:
        """Of a new point."""
        return self.members[0].likelihood

    @property
    def reg(self) -> float:
        """The first member's regularisation."""
        return self.members[0].reg

    @property
    def jitter(self) -> float:
        """The largest that a member's kernel needed."""
        return max(member.jitter for member in self.members)

    @property
    def discrepancy(self) -> None:
        """None: the draws are exact."""
        return None

    def latents(self, X: ArrayLike, joint: bool = False) -> SamplePrediction:
        """Draws of the latents at m points, [m, d]: as `FittedInfiniteEnsemble.latents`."""
        X = np.asarray(X)
        samples = draws_at_one(self.members, X) if len(X) == 1 and not joint else None
        if samples is None:
            parts = [cast(SamplePrediction, member.latents(X, joint)) for member in self.members]
            samples = np.concatenate([part.samples for part in parts])
        return SamplePrediction(samples, self.likelihood, joint=joint)

    def traced_latents(self, X: Array) -> Array:
        """Draws at points that may be traced, [S, m, C]."""
        return jnp.concatenate([member.traced_latents(X) for member in self.members])

    def functions(self) -> Callable[[ArrayLike], Floats]:
        """Draws as functions: as `FittedInfiniteEnsemble.functions`."""
        functions = [member.functions() for member in self.members]
        return lambda X: np.concatenate([function(X) for function in functions])
