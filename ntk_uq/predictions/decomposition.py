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
        Class probabilities of each member; or a fitted ensemble of scikit-learn that averages its
        members, as random forests, bagging and soft voting without weights do; or fitted
        classifiers, or functions from points to probabilities [m, C].
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
        If there are no members in what is given, or one predicts no probabilities, or the ensemble
        does not average them: its own probabilities at the points are compared with their mean.

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
    if isinstance(members, np.ndarray) and members.dtype == object:
        members = members.tolist()
    if hasattr(members, "estimators_"):
        return _of_ensemble(members, _points(X))
    if _predicts(members) or hasattr(members, "predict"):
        own = (
            "Its prediction = predict_distribution(X) has total_uncertainty, aleatoric and "
            "epistemic."
            if hasattr(members, "predict_distribution")
            else "An ensemble is fitted first, and taken out of its pipeline or search; else give "
            "probabilities [S, m, C], or a list of classifiers."
        )
        raise TypeError(f"{_name(members)} holds no members (no estimators_). {own}")
    if isinstance(members, Sequence) and any(map(_predicts, members)):
        return _of_list(members, _points(X))
    if X is not None:
        raise ValueError("X is for members that predict; these are probabilities already.")
    return members


def _predicts(member: Any) -> bool:
    return callable(member) or hasattr(member, "predict_proba")


def _name(member: Any) -> str:
    return type(member).__name__


def _check_predicts(k: int, member: Any) -> None:
    if not _predicts(member):
        raise TypeError(
            f"Member {k} is a {_name(member)}, which predicts no probabilities (no predict_proba). "
            "Of a classifier with scores make them by CalibratedClassifierCV; the members of "
            "boosting are no classifiers, as their ensemble adds up scores."
        )


def _points(X: ArrayLike | None) -> Any:
    if X is None:
        raise ValueError("Members predict at points: decompose(members, X).")
    return X


def _of_list(members: Sequence[Any], X: Any) -> list[Any]:
    for k, member in enumerate(members):
        _check_predicts(k, member)
    known = [list(m.classes_) for m in members if hasattr(m, "classes_")]
    if any(classes != known[0] for classes in known):
        raise ValueError(
            f"The members know different classes, {known[0]} and others: their columns do not "
            "belong together."
        )
    return [m.predict_proba(X) if hasattr(m, "predict_proba") else m(X) for m in members]


def _of_ensemble(ensemble: Any, X: Any) -> Floats:
    """Members of a scikit-learn ensemble that averages them, by its own probabilities."""
    members = np.ravel(np.asarray(ensemble.estimators_, dtype=object)).tolist()
    for k, member in enumerate(members):
        _check_predicts(k, member)
    if not hasattr(ensemble, "predict_proba"):
        raise TypeError(
            f"{_name(ensemble)} predicts no probabilities, as its members vote or predict numbers. "
            'Of a VotingClassifier take voting="soft"; or give its members, if each is a '
            "classifier of all classes, decompose(ensemble.estimators_, X)."
        )
    if np.ndim(ensemble.classes_[0]):
        raise TypeError("The ensemble predicts several targets: decompose each by itself.")
    names = getattr(ensemble, "feature_names_in_", None)
    X = X[names] if names is not None and hasattr(X, "columns") else X
    whole = ensemble.predict_proba(X)
    parts = _of_members_by_number(ensemble, members, X)
    if parts is None or not _is_mean(whole, parts):
        raise TypeError(
            f"The probabilities of {_name(ensemble)} are no plain average of its members', so "
            "their spread is not its uncertainty: members that are weighted, boosted, stacked or "
            "of one class each are other things than draws of one classifier. If they are draws "
            "to you, give their probabilities as an array [S, m, C], in which all count alike: "
            "one of weight 2 stands there twice."
        )
    return np.array(parts, np.float64)


def _of_members_by_number(ensemble: Any, members: list[Any], X: Any) -> list[Any] | None:
    """Probabilities [m, C] of members, which know classes by number and may miss some.

    None where they know others.
    """
    values = np.asarray(X)
    subsets = getattr(ensemble, "estimators_features_", None)
    columns = range(len(ensemble.classes_))
    parts = []
    for k, member in enumerate(members):
        if not all(known in columns for known in member.classes_):
            return None
        takes_names = subsets is None and hasattr(member, "feature_names_in_")
        own = X if takes_names else values if subsets is None else values[:, subsets[k]]
        proba = np.asarray(member.predict_proba(own))
        full = np.zeros((len(values), len(columns)), proba.dtype)
        full[:, np.asarray(member.classes_, int)] = proba
        parts.append(full)
    return parts


def _is_mean(whole: Any, parts: list[Any]) -> bool:
    """Whether probabilities are the mean of others, up to rounding.

    A mean of S numbers of at most one, summed in any order, is right to S - 1 roundings of one, and
    one more divides; dividing a row by its sum of C numbers adds C.
    """
    whole = np.asarray(whole)
    roundings = len(parts) + whole.shape[-1]
    one = max(np.finfo(array.dtype).eps for array in (whole, *parts))
    return bool(np.allclose(np.mean(parts, axis=0, dtype=np.float64), whole, 0, roundings * one))
