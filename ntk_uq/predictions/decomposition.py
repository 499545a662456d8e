"""Total, aleatoric and epistemic uncertainty of any ensemble of classifiers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

__all__ = ["Decomposition", "as_probabilities", "decompose"]

Floats = NDArray[np.float64]

# How far sums of probabilities may be from one: rounding of single precision over many classes.
_SUM_TOLERANCE = 1e-4


class Decomposition(NamedTuple):
    """Uncertainty of an ensemble's predictions, and what it consists of.

    Attributes
    ----------
    total : array of shape [m]
        Entropy of the mean probabilities, nats.
    aleatoric : array of shape [m]
        Mean entropy of the members, nats: what no further data removes.
    epistemic : array of shape [m]
        Their difference, nats: the mutual information between label and member.
    """

    total: Floats
    aleatoric: Floats
    epistemic: Floats


def decompose(members: Any, X: ArrayLike | None = None) -> Decomposition:
    """Split the uncertainty of any ensemble of classifiers.

    Parameters
    ----------
    members : array-like of shape [S, m, C], ensemble, or sequence of classifiers
        Class probabilities of each member; or a fitted ensemble of scikit-learn that holds its
        members, as random forests, bagging and voting do; or fitted classifiers, or functions
        from points to probabilities [m, C].
    X : array-like of shape [m, d], optional
        Points, where members predict.

    Returns
    -------
    Decomposition

    Raises
    ------
    ValueError
        If probabilities are none, or points are missing or given in vain.
    TypeError
        If there are no members in what is given.

    References
    ----------
    Depeweg et al. 2018, arXiv 1710.07283; docs/theory: "Predictive uncertainty".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from ntk_uq import decompose
    >>> X, y = load_iris(return_X_y=True)
    >>> forest = RandomForestClassifier(20, random_state=0).fit(X[::2], y[::2])
    >>> total, aleatoric, epistemic = decompose(forest, X[1::2])
    >>> total.shape, bool((epistemic >= 0).all())
    ((75,), True)
    """
    probabilities = as_probabilities(_of_members(members, X))
    total = entr(probabilities.mean(axis=0)).sum(axis=-1)
    aleatoric = entr(probabilities).sum(axis=-1).mean(axis=0)
    # Jensen's inequality makes the difference non-negative; rounding may not.
    return Decomposition(total, aleatoric, np.maximum(total - aleatoric, 0.0))


def as_probabilities(probabilities: ArrayLike) -> Floats:
    """Class probabilities [S, m, C] of members, checked, each summing to one."""
    try:
        values = np.asarray(probabilities, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Members must give probabilities of one shape, [S, m, C] in all: " + str(error)
        ) from error
    if values.ndim != 3 or 0 in values.shape or values.shape[-1] < 2:
        raise ValueError(
            "Probabilities have the shape [S, m, C]: members, points, at least two classes; got "
            f"{values.shape}. Of two classes give both columns, 1 - p and p."
        )
    sums = values.sum(axis=-1, keepdims=True)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("Probabilities must be finite and not negative: are these logits?")
    worst = float(np.abs(sums - 1).max())
    if worst > _SUM_TOLERANCE:
        raise ValueError(
            f"Probabilities must sum to one over the classes; a sum is off by {worst:.2g}. Are "
            "these logits, or is the last axis not the classes?"
        )
    return values / sums


def _of_members(members: Any, X: ArrayLike | None) -> Any:
    """Probabilities of each member."""
    if hasattr(members, "predict_proba") and not isinstance(members, Sequence):
        if not hasattr(members, "estimators_"):
            raise TypeError(
                f"{type(members).__name__} holds no members (no estimators_). An ensemble is "
                "fitted first; else give probabilities [S, m, C], or a list of classifiers."
            )
        return _of_ensemble(members, _points(X))
    if isinstance(members, Sequence) and members and all(map(_predicts, members)):
        return _of_list(members, _points(X))
    if X is not None:
        raise ValueError("X is for members that predict; these are probabilities already.")
    return members


def _predicts(member: Any) -> bool:
    return callable(member) or hasattr(member, "predict_proba")


def _points(X: ArrayLike | None) -> Any:
    if X is None:
        raise ValueError("Members predict at points: decompose(members, X).")
    return X


def _of_list(members: Sequence[Any], X: Any) -> list[Any]:
    known = [list(m.classes_) for m in members if hasattr(m, "classes_")]
    if any(classes != known[0] for classes in known):
        raise ValueError(
            f"The members know different classes, {known[0]} and others: their columns do not "
            "belong together."
        )
    return [m.predict_proba(X) if hasattr(m, "predict_proba") else m(X) for m in members]


def _of_ensemble(ensemble: Any, X: Any) -> Floats:
    """Members of a scikit-learn ensemble, which know the classes by number and may miss some."""
    if np.ndim(ensemble.classes_[0]):
        raise TypeError("The ensemble predicts several targets: decompose each by itself.")
    names = getattr(ensemble, "feature_names_in_", None)
    X = X[names] if names is not None and hasattr(X, "columns") else X
    values = np.asarray(X)
    subsets = getattr(ensemble, "estimators_features_", None)
    members = np.ravel(np.asarray(ensemble.estimators_, dtype=object)).tolist()
    parts = []
    for k, member in enumerate(members):
        if not hasattr(member, "predict_proba"):
            raise TypeError(
                f"A member is a {type(member).__name__}, which predicts no probabilities: its "
                "ensemble adds up scores, and has no members in the sense of an ensemble."
            )
        takes_names = subsets is None and hasattr(member, "feature_names_in_")
        own = X if takes_names else values if subsets is None else values[:, subsets[k]]
        full = np.zeros((len(values), len(ensemble.classes_)))
        full[:, np.asarray(member.classes_, int)] = member.predict_proba(own)
        parts.append(full)
    return np.array(parts)
