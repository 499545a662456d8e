"""Conformal sets of classes and intervals of numbers: for each class, adaptive, asymmetric."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common import checks
from ntk_uq.calibration.decisions import conformal_quantile

__all__ = [
    "ConformalIntervals",
    "ConformalSets",
    "conformal_intervals",
    "conformal_sets",
    "coverage_by_class",
]

Floats = NDArray[np.float64]
Score = Literal["lac", "aps", "raps"]
_SCORES = ("lac", "aps", "raps")
# A row that is predicted in other company differs by its rounding, of networks in single precision:
# a held-out row whose score is the limit belongs to its set.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class ConformalSets:
    """Prediction sets with a guarantee: see `conformal_sets`.

    Attributes
    ----------
    limits : array of shape [C]
        The largest score with which each class belongs to a set. Infinite for a class of which too
        few points were held out: it is in every set.
    counts : array of shape [C]
        Held-out points of each class.
    level : float
        Coverage that is promised.
    score : {"lac", "aps", "raps"}
        What is compared with the limits.
    per_class : bool
        Whether the promise is kept for each class.
    never_empty : bool
        Whether the most probable class belongs to every set.
    penalty : float
        Of "raps", for each class beyond `n_free`.
    n_free : int
        Classes without penalty.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import conformal_sets
    >>> p = np.linspace(0.05, 0.95, 40)
    >>> y_true = (np.arange(40) % 10 < 10 * p).astype(int)
    >>> rule = conformal_sets(y_true, np.c_[1 - p, p], level=0.9, per_class=True)
    >>> rule.guarantee
    'each class is in the sets of its rows with probability at least 0.9'
    >>> rule.sets([[0.99, 0.01], [0.5, 0.5]])
    array([[ True, False],
           [ True,  True]])
    """

    limits: Floats
    counts: NDArray[np.intp]
    level: float
    score: Score
    per_class: bool
    never_empty: bool
    penalty: float = 0.0
    n_free: int = 1

    @property
    def guarantee(self) -> str:
        """The promise, in words. On average over held-out sets."""
        if self.per_class:
            return f"each class is in the sets of its rows with probability at least {self.level:g}"
        return (
            f"the true class is in its set with probability at least {self.level:g}, on average "
            "over all rows"
        )

    def sets(self, proba: ArrayLike) -> NDArray[np.bool_]:
        """The classes in each point's set.

        Parameters
        ----------
        proba : array of shape [m, C]
            Class probabilities.

        Returns
        -------
        array of bool, of shape [m, C]
        """
        proba = checks.probabilities(proba)
        if proba.shape[1] != len(self.limits):
            raise ValueError(
                f"proba has {proba.shape[1]} classes, and the sets were made for "
                f"{len(self.limits)}."
            )
        members = _scores(proba, self.score, self.penalty, self.n_free) <= self.limits
        if self.never_empty:
            members[np.arange(len(proba)), proba.argmax(axis=1)] = True
        return members


@dataclass(frozen=True)
class ConformalIntervals:
    """Intervals with a guarantee: see `conformal_intervals`.

    Attributes
    ----------
    below, above : float
        How far an interval reaches to either side of the prediction, in units of its scale.
    level : float
        Coverage that is promised, on average over all rows.
    asymmetric : bool
        Whether either side has its own quantile.

    Examples
    --------
    >>> from ntk_uq.calibration import ConformalIntervals
    >>> rule = ConformalIntervals(below=1.0, above=2.0, level=0.9, asymmetric=True)
    >>> rule.interval([0.0], [0.5])
    (array([-0.5]), array([1.]))
    >>> rule.guarantee
    'either end of an interval is exceeded with probability at most 0.05'
    """

    below: float
    above: float
    level: float
    asymmetric: bool

    @property
    def guarantee(self) -> str:
        """The promise, in words. On average over held-out sets."""
        if self.asymmetric:
            beyond = (1 - self.level) / 2
            return f"either end of an interval is exceeded with probability at most {beyond:.3g}"
        return (
            f"the truth is in its interval with probability at least {self.level:g}, on average "
            "over all rows"
        )

    def interval(
        self, prediction: ArrayLike, scale: ArrayLike | float = 1.0
    ) -> tuple[Floats, Floats]:
        """Lower and upper end, [m] each, of predictions and their scales [m]."""
        centre = checks.numbers("prediction", prediction)
        width = np.broadcast_to(np.asarray(scale, np.float64), centre.shape)
        return centre - self.below * width, centre + self.above * width


def conformal_sets(
    y_true: ArrayLike,
    proba: ArrayLike,
    level: float = 0.9,
    *,
    score: Score = "lac",
    per_class: bool = False,
    never_empty: bool = True,
    penalty: float = 0.01,
    n_free: int = 1,
    classes: ArrayLike | None = None,
) -> ConformalSets:
    r"""Prediction sets that hold the true class with the probability that is asked for.

    **Guarantee.** Split conformal prediction: a class is in a point's set if its score is no larger
    than the `conformal_quantile` of held-out points' scores of their true class. If new points are
    exchangeable with these, the true class is in its set with probability at least `level`, on
    average over points and held-out sets. That average may leave a rare class out nearly always.
    With `per_class` (Mondrian conformal prediction) each class has the quantile of its own points,
    and the promise holds for each: of the points of class c, at least the share `level` have c in
    their set. It takes ``level / (1 - level)`` held-out points of each class.

    Scores, of a class c with probability :math:`p_c`:

    - "lac": :math:`1 - p_c`. The smallest sets on average, if the probabilities are right.
    - "aps": the sum of the probabilities that are larger than :math:`p_c`. Sets grow where the
      model is unsure, so coverage varies less between easy and hard points; they are larger on
      average. The first class scores 0: no set is empty.
    - "raps": the same, and `penalty` for each class beyond the first `n_free`: smaller sets where
      there are many classes.

    Parameters
    ----------
    y_true : array of shape [n]
        Labels of points that the model was not fitted to.
    proba : array of shape [n, C]
        Their class probabilities.
    level : float
        Coverage wanted, between 0 and 1.
    score : {"lac", "aps", "raps"}
        What is compared: see above.
    per_class : bool
        Whether to keep the promise for each class.
    never_empty : bool
        Whether the most probable class belongs to every set. It only adds to the coverage.
    penalty, n_free : float, int
        Of "raps".
    classes : array of shape [C], optional
        The label of each column of `proba`. Default: 0 to C - 1.

    Returns
    -------
    ConformalSets

    Raises
    ------
    ValueError
        If shapes do not fit, rows of `proba` are no probabilities, or an option is none of those.

    References
    ----------
    Vovk, Gammerman, Shafer (2005), section 4.5: Mondrian. Sadinle, Lei, Wasserman (2019): "lac".
    Romano, Sesia, Candes (2020), Classification with valid and adaptive coverage: "aps", here
    without randomisation. Angelopoulos, Bates, Malik, Jordan (2021), Uncertainty sets for image
    classifiers using conformal prediction: "raps".

    Examples
    --------
    >>> from ntk_uq.calibration import conformal_sets
    >>> held_out = [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]
    >>> conformal_sets([0, 1, 0, 1], held_out, level=0.8).sets([[0.95, 0.05], [0.5, 0.5]])
    array([[ True, False],
           [ True,  True]])
    """
    level = checks.level_between("level", level)
    if score not in _SCORES:
        raise ValueError(f"score must be one of {', '.join(_SCORES)}; got {score!r}.")
    penalty, n_free = checks.real("penalty", penalty, 0.0), checks.count("n_free", n_free, 0)
    labels, proba, _ = checks.labelled_probabilities(y_true, proba, classes)
    n_classes = proba.shape[1]
    scores = _scores(proba, score, penalty, n_free)[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=n_classes)
    if per_class:
        limits = np.array(
            [
                conformal_quantile(scores[labels == c], level) if counts[c] else math.inf
                for c in range(n_classes)
            ]
        )
    else:
        limits = np.full(n_classes, conformal_quantile(scores, level))
    return ConformalSets(
        limits + _ROUNDING, counts, level, score, per_class, never_empty, penalty, n_free
    )


def conformal_intervals(
    y_true: ArrayLike,
    prediction: ArrayLike,
    scale: ArrayLike | float = 1.0,
    level: float = 0.9,
    *,
    asymmetric: bool = False,
) -> ConformalIntervals:
    r"""Intervals that hold the target with the probability that is asked for.

    **Guarantee.** If new points are exchangeable with the held-out ones, the target is in its
    interval with probability at least `level`, on average over points and held-out sets, whatever
    prediction and scale are. With the scale 1 all intervals have one width; with a standard
    deviation for each point they are as wide as the model is unsure (normalised scores). Symmetric
    ones have the quantile of :math:`|y - \mu| / s`. Asymmetric ones have one of
    :math:`(\mu - y) / s` and another of :math:`(y - \mu) / s`, each at ``(1 + level) / 2``: either
    end is exceeded with probability at most ``(1 - level) / 2``, which is right for skewed targets,
    and takes twice the held-out points.

    Parameters
    ----------
    y_true : array of shape [n]
        Targets of points that the model was not fitted to.
    prediction : array of shape [n]
        Their predictions.
    scale : array of shape [n], or float
        Their scales, > 0.
    level : float
        Coverage wanted, between 0 and 1.
    asymmetric : bool
        Whether either side keeps its own promise.

    Returns
    -------
    ConformalIntervals
        Infinite where too few points were held out.

    Raises
    ------
    ValueError
        If shapes do not fit, or a scale is not positive.

    References
    ----------
    Papadopoulos, Gammerman, Vovk (2008), Normalized nonconformity measures for regression
    conformal prediction. Linusson, Johansson, Loefstroem (2014), Signed-error conformal regression.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq.calibration import conformal_intervals
    >>> y = np.exp(np.linspace(-2, 2, 99))
    >>> rule = conformal_intervals(y, np.ones(99), level=0.8, asymmetric=True)
    >>> round(rule.below, 2), round(rule.above, 2)
    (0.8, 4.12)
    """
    level = checks.level_between("level", level)
    y = checks.numbers("y_true", y_true)
    centre = checks.numbers("prediction", prediction, shape=y.shape)
    width = np.broadcast_to(np.asarray(scale, np.float64), y.shape)
    if not np.all(width > 0):
        raise ValueError("scale must be positive: a standard deviation of each point, or 1.0.")
    residuals = (y - centre) / width
    if asymmetric:
        side = (1 + level) / 2
        below, above = (conformal_quantile(sign * residuals, side) for sign in (-1, 1))
    else:
        below = above = conformal_quantile(np.abs(residuals), level)
    return ConformalIntervals(below, above, level, asymmetric)


def coverage_by_class(
    y_true: ArrayLike, members: ArrayLike, *, classes: ArrayLike | None = None
) -> pd.DataFrame:
    """How often sets hold the true class, and how large they are, class by class.

    Parameters
    ----------
    y_true : array of shape [m]
        Labels.
    members : array of bool, of shape [m, C]
        The sets.
    classes : array of shape [C], optional
        The label of each column. Default: 0 to C - 1.

    Returns
    -------
    DataFrame
        A row for each class that occurs, named so, and "all": the number of points, coverage, mean
        size, and the share of sets with one class only.

    Examples
    --------
    >>> from ntk_uq.calibration import coverage_by_class
    >>> coverage_by_class([0, 1, 1], [[True, False], [True, True], [True, True]])
         points  coverage      size    single
    0         1       1.0  1.000000  1.000000
    1         2       1.0  2.000000  0.000000
    all       3       1.0  1.666667  0.333333
    """
    members = np.asarray(members, dtype=bool)
    if members.ndim != 2:
        raise ValueError(f"members must have shape [m, C], got {members.shape}.")
    labels, names = checks.class_columns(y_true, members.shape, classes)
    hit, size = members[np.arange(len(labels)), labels], members.sum(axis=1)
    groups = {name: labels == c for c, name in enumerate(names.tolist()) if np.any(labels == c)}
    groups["all"] = np.ones(len(labels), bool)
    return pd.DataFrame(
        {
            "points": {name: int(rows.sum()) for name, rows in groups.items()},
            "coverage": {name: hit[rows].mean() for name, rows in groups.items()},
            "size": {name: size[rows].mean() for name, rows in groups.items()},
            "single": {name: np.mean(size[rows] == 1) for name, rows in groups.items()},
        }
    )


def _scores(proba: Floats, score: Score, penalty: float, n_free: int) -> Floats:
    """The score of each class: [m, C], smaller for what is likelier."""
    if score == "lac":
        return -proba  # without the rounding of 1 - p
    order = np.argsort(-proba, axis=1, kind="stable")
    ranked = np.take_along_axis(proba, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    if score == "raps":
        before = before + penalty * np.maximum(np.arange(1, proba.shape[1] + 1) - n_free, 0)
    scores = np.empty_like(proba)
    np.put_along_axis(scores, order, before, axis=1)
    return scores
