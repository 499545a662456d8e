"""Are rows that are said to be held out among those of the fit? Asked where a model can tell."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.warnings import warn_user
from ntk_uq.estimators.training import data_sum
from ntk_uq.tables.encoder import rows_of

__all__ = ["check_held_out"]

Floats = NDArray[np.float64]


def check_held_out(estimator: Any, X: Any, y: ArrayLike) -> None:
    """Refuse the data of the fit, and warn of rows that are among its training points.

    Parameters
    ----------
    estimator : estimator
        Fitted. Every one knows the sum of its data, and one that predicts from its training points
        compares rows with these.
    X : array-like of shape [m, ...]
        Points that are said to be held out.
    y : array-like of shape [m] or [m, C]
        Their targets.

    Raises
    ------
    ValueError
        If they are the data of the fit, row by row.

    Warns
    -----
    UserWarning
        If features of rows are those of training points. That can be by chance, where features
        take few values, so it is no error.
    """
    raw = estimator._checked(X)
    points = estimator._inputs(raw, rows_of(X))
    summary = estimator._trained_on
    if summary and summary["sha256"] == data_sum(raw, estimator._known_targets(y)):
        raise ValueError(
            "These are the data of the fit, and none of them was held out: what the model says of "
            "rows that it has learnt shows nothing of its calibration. Hold rows out before the "
            "fit, by sklearn.model_selection.train_test_split for example."
        )
    held = getattr(estimator._fitted, "points", None)
    if held is None:
        return
    known = set(_rows(held))
    scales = getattr(estimator._fitted, "feature_scales", 1.0)
    again = sum(row in known for row in _rows(points * scales))
    if again:
        warn_user(
            f"{again} of {len(points)} rows have the features of training points, as rows do that "
            "were not held out: the model has learnt their targets, and calibration by them is too "
            "good. Leave them out, unless features that take few values make them equal by chance."
        )


def _rows(points: ArrayLike) -> list[bytes]:
    """What is equal of equal rows: single precision, as features are computed anew."""
    array = np.asarray(points, np.float32) + np.float32(0.0)  # which makes zeros one
    return [row.tobytes() for row in array.reshape(len(array), -1)]
