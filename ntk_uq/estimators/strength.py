"""Is the regularisation so strong that nothing is learnt? Said in a user's words."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.warnings import warn_user
from ntk_uq.networks.linearized import Linearized
from ntk_uq.networks.problem import Problem

__all__ = ["share_of_targets", "warn_of_strong_reg"]

Floats = NDArray[np.float64]
# Training points, as predictions at all would take as long as a kernel, and the share below which
# nobody would say that a model has learnt: at most a fifth of the targets' variance is explained.
_PROBES, _LEAST = 64, 0.1


def share_of_targets(targets: Floats, predicted: Floats, weights: Floats | None = None) -> float:
    r"""How far predictions go towards their targets, of what would be best in their direction.

    With deviations from the means over points, y of targets and f of predictions, it is
    :math:`\|f\|^2 / \langle y, f\rangle`: f over its best multiple by least squares. A fit that
    has learnt what its kernel finds comes near 1, also where noise remains. One that `reg` holds
    back is short of what its own targets ask.

    Parameters
    ----------
    targets, predicted : arrays of shape [m, C]
        At training points.
    weights : array of shape [m], optional
        Of the points.

    Returns
    -------
    float
        Infinite if predictions go no way towards the targets.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([[0.0], [2.0]])
    >>> share_of_targets(y, y), share_of_targets(y, 1 + y / 4)
    (1.0, 0.25)
    """
    y, f = (v - np.average(v, axis=0, weights=weights) for v in (targets, predicted))
    each = np.ones(len(y)) if weights is None else weights
    along = float(each @ np.sum(y * f, axis=1))
    return float(each @ np.sum(f * f, axis=1)) / along if along > 0 else np.inf


def warn_of_strong_reg(estimator: Any, problem: Problem) -> None:
    """Name `reg` where predictions at training points hardly differ from one another.

    A trained network has learnt before.
    """
    trained = isinstance(problem.architecture, Linearized)
    if problem.reg == 0 or estimator._stop is not None or trained:
        return
    n = len(problem.points)
    rows = np.linspace(0, n - 1, min(n, _PROBES)).astype(int)
    prediction = estimator._fitted.latents(problem.points[rows])
    of_classes = hasattr(estimator, "classes_")
    predicted = prediction.proba() if of_classes else prediction.mean
    weights = None if problem.weights is None else problem.weights[rows]
    share = share_of_targets(problem.targets[rows], predicted, weights)
    if share >= _LEAST:
        return
    if not of_classes and estimator._surprise(problem.targets, problem.points, problem.reg):
        return  # which has been said
    what, noise = ("probabilities", "") if of_classes else ("means", " or the noise")
    warn_user(
        f"Hardly anything is learnt: {what} at training points differ from one another by "
        f"{share:.2g} of what their own targets ask for, as reg={problem.reg:.3g} holds them where "
        f"they start.{_of_prior(problem, rows)} Lower reg{noise}, to {problem.reg / 100:.1g} for "
        "example, scale features to about 1 each, or let the data choose: an NTK estimator with "
        'reg="cv" finds one for finite networks too. Where targets have nothing to do with the '
        "features, there is nothing to learn."
    )


def _of_prior(problem: Problem, rows: Any) -> str:
    """How much functions of the prior vary from point to point, if its kernel is known.

    Of as many points as one block holds: kernels of images with pooling take seconds for each.
    """
    most = max(2, problem.architecture.tile_rows(problem.points[0]))
    few = problem.points[rows[:: -(-len(rows) // most)]]
    try:
        kernel = problem.architecture.kernels(few).ntk / problem.reg
    except ValueError:
        return ""
    apart = np.mean(np.diagonal(kernel)) - np.mean(kernel[~np.eye(len(few), dtype=bool)])
    deviation = np.sqrt(max(float(apart), 0.0))
    return (
        f" Functions of its prior GP(0, Theta / reg) vary over these points by {deviation:.2g} "
        "(standard deviation)."
    )
