"""What was promised against what came, group by group of held-out points."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntk_uq._common import checks

__all__ = ["calibration_by_group", "calibration_of_classes", "calibration_of_intervals"]

Floats = NDArray[np.float64]

# Groups are many, and one among them is soon out of 95%.
_LEVEL = 0.99


def calibration_by_group(
    promised: ArrayLike, came: ArrayLike, groups: Mapping[str, ArrayLike]
) -> pd.DataFrame:
    """The probability that events were given, and how often they came, group by group.

    Groups must not be made of what came: grouped by the true class even right probabilities seem
    wrong.

    Parameters
    ----------
    promised : array of shape [m]
        Probability of an event at each point.
    came : array of bool, of shape [m]
        Whether it came about.
    groups : mapping of str to array of shape [m]
        By what points are grouped, and the group of each.

    Returns
    -------
    DataFrame
        A row for all points and for each group, with ``by`` and ``group``, both "all" in the first:
        the number of ``points``, the mean probability ``promised``, the share ``found``, and its
        99% interval by Wilson, ``lower`` to ``upper``.

    Raises
    ------
    ValueError
        If the shapes differ, there is no point, or a probability is no number.

    Examples
    --------
    >>> from ntk_uq.calibration import calibration_by_group
    >>> sex = ["f", "f", "f", "m"]
    >>> table = calibration_by_group([0.9, 0.7, 0.8, 0.6], [1, 1, 0, 1], {"sex": sex})
    >>> table[["by", "group", "points", "promised"]]
        by group  points  promised
    0  all   all       4      0.75
    1  sex     f       3      0.80
    2  sex     m       1      0.60
    """
    chances = checks.numbers("promised", promised)
    events = checks.numbers("came", came, shape=chances.shape)
    members: list[tuple[str, Any, NDArray]] = [("all", "all", np.ones(len(chances), bool))]
    for name, group in groups.items():
        if np.shape(group) != chances.shape:
            raise ValueError(
                f"groups[{name!r}] must have shape {chances.shape}, a group for each point; got "
                f"{np.shape(group)}."
            )
        members += [(name, one, np.asarray(group) == one) for one in np.unique(group).tolist()]
    rows = []
    for by, one, inside in members:
        test = stats.binomtest(int(events[inside].sum()), int(inside.sum()))
        lower, upper = test.proportion_ci(_LEVEL, "wilson")
        mean = chances[inside].mean()
        rows.append((by, one, test.n, mean, test.statistic, lower, upper))
    columns = ["by", "group", "points", "promised", "found", "lower", "upper"]
    return pd.DataFrame(rows, columns=columns)


def calibration_of_classes(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | None = None,
) -> pd.DataFrame:
    """How often the predicted class is right where it was said to be so, group by group.

    Parameters
    ----------
    y_true : array of shape [m]
        Labels.
    proba : array of shape [m, C]
        Class probabilities.
    classes : array of shape [C], optional
        The label of each column. Default: 0 to C - 1.
    groups : mapping of str to array of shape [m], optional
        Groups besides those of the predicted class, and of the thirds of its probability.

    Returns
    -------
    DataFrame
        As `calibration_by_group` gives it.

    Examples
    --------
    >>> from ntk_uq.calibration import calibration_of_classes
    >>> table = calibration_of_classes([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    >>> table.loc[table["by"] == "predicted class", ["group", "points", "promised", "found"]]
      group  points  promised  found
    1     0       2       0.8    0.5
    2     1       1       0.8    1.0
    """
    chances = checks.numbers("proba", proba, shape=np.shape(proba))
    labels, names = checks.class_columns(y_true, chances.shape, classes)
    predicted, confidence = chances.argmax(axis=1), chances.max(axis=1)
    made = {
        "predicted class": names.astype(str)[predicted],
        "predicted probability": _thirds(confidence),
    }
    return calibration_by_group(confidence, labels == predicted, {**made, **(groups or {})})


def calibration_of_intervals(
    y_true: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    level: float = 0.9,
    *,
    groups: Mapping[str, ArrayLike] | None = None,
) -> pd.DataFrame:
    """How often central intervals of normal forecasts hold the truth, group by group.

    Parameters
    ----------
    y_true, mean, std : arrays of shape [m]
        Numbers, and mean and standard deviation of the observation that was forecast.
    level : float, default 0.9
        Probability of the intervals.
    groups : mapping of str to array of shape [m], optional
        Groups besides the thirds of the standard deviation.

    Returns
    -------
    DataFrame
        As `calibration_by_group` gives it.

    Examples
    --------
    >>> from ntk_uq.calibration import calibration_of_intervals
    >>> calibration_of_intervals([0.0, 3.0], [0.0, 0.0], [1.0, 1.0])[["group", "found"]]
        group  found
    0     all    0.5
    1  1 to 1    0.5
    """
    y, centre = (
        checks.numbers("y_true", y_true),
        checks.numbers("mean", mean, shape=np.shape(y_true)),
    )
    spread = checks.numbers("std", std, shape=y.shape)
    inside = np.abs(y - centre) <= stats.norm.ppf(0.5 + level / 2) * spread
    made = {"standard deviation": _thirds(spread)}
    return calibration_by_group(np.full(len(y), level), inside, {**made, **(groups or {})})


def _thirds(values: Floats) -> NDArray[np.str_]:
    """The third in which each value lies, by its ends; equal values share one."""
    third = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left")
    names = np.empty(len(values), object)
    for one in np.unique(third):
        own = values[third == one]
        names[third == one] = f"{own.min():.3g} to {own.max():.3g}"
    return names.astype(str)
