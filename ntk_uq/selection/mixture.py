"""Several networks in the place of one: which, and with what weights, by held-out points.

The best of many candidates by cross-validation is best by chance in part. Networks that predict
together better than one does, and a network with its twin that sees features by their ranks, err in
other places: docs, "The defaults", has what mixing them gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.words import in_a_line
from ntk_uq.analytic.mixture import Component

__all__ = ["Mixture", "greedy_weights"]

Floats = NDArray[np.float64]

# Steps of the greedy selection, and different networks that it may take: with more it fits noise.
_STEPS, _MOST_NETWORKS = 8, 2


@in_a_line
@dataclass(frozen=True, eq=False)
class Mixture:
    """The networks that predict together.

    Attributes
    ----------
    components : tuple of analytic.Component
        Network, regularisation, weight and held-out score of each. The first is the candidate that
        is best alone; a twin, which is none, may have a higher score. Scores are of modes.
    score : float
        Mean log predictive density of a held-out point by the mixture, in nats; of
        uncertainty="posterior" by its posterior, which the components' scores do not compare with.
    error : float
        Its standard error.

    Examples
    --------
    >>> from ntk_uq import MLP
    >>> from ntk_uq.analytic import Component
    >>> alone = Component("depth 1", MLP(depth=1), 1.0, 1.0, 1.0, -0.3)
    >>> Mixture((alone,), -0.3, 0.01).weights
    array([1.])
    """

    components: tuple[Component, ...]
    score: float
    error: float

    @property
    def weights(self) -> Floats:
        """Of the components: [K]."""
        return np.array([component.weight for component in self.components])


def greedy_weights(
    densities: Floats,
    weights: Sequence[float] | Floats,
    steps: int = _STEPS,
    most: int = _MOST_NETWORKS,
) -> dict[int, float]:
    """Weights of a mixture that predicts held-out points well, by greedy selection.

    Step by step that candidate is added, again too, with which the mean of those so far predicts
    best. The weights are how often each was.

    Parameters
    ----------
    densities : array of shape [K, m]
        Log predictive density of each held-out point by each candidate; NaN where there is none.
    weights : array of shape [m]
        How much each point counts.
    steps : int
        How often one is added.
    most : int
        Different candidates at most.

    Returns
    -------
    dict of int to float
        Weights by the candidates' numbers, in the order in which they were added.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew & Ksikes 2004, Ensemble selection from libraries of models.

    Examples
    --------
    >>> import numpy as np
    >>> densities = np.log([[0.8, 0.2], [0.2, 0.8], [0.39, 0.39]])
    >>> greedy_weights(densities, np.ones(2), steps=2)
    {0: 0.5, 1: 0.5}
    """
    shares = np.asarray(weights, float) / np.sum(weights)
    known = ~np.isnan(densities).any(axis=1)
    # Relative to each point's best, so that nothing underflows that matters.
    logs = np.where(known[:, None], densities, -np.inf)
    chances = np.exp(logs - np.max(logs, axis=0))
    picked: list[int] = []
    total = np.zeros(chances.shape[1])
    with np.errstate(divide="ignore"):
        for _ in range(steps):
            scores = np.log(total + chances) @ shares
            if len(set(picked)) == most:
                scores[np.setdiff1d(np.arange(len(scores)), picked)] = -np.inf
            picked.append(int(np.argmax(scores)))
            total += chances[picked[-1]]
    return {k: picked.count(k) / steps for k in dict.fromkeys(picked)}
