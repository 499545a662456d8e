"""What a model was trained on, in a few numbers, which it keeps for its card."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.blocks import parts
from ntk_uq.tables.encoder import TableEncoder

__all__ = ["data_sum", "training_summary"]

Floats = NDArray[np.float64]


def training_summary(
    points: Floats,
    targets: Floats,
    classes: NDArray | None,
    names: NDArray | None,
    encoder: TableEncoder | None,
) -> dict[str, Any]:
    """Rows, ranges of features and target, and what identifies the data.

    Parameters
    ----------
    points : array of shape [n, ...]
        Training points as they were given, categories as codes.
    targets : array of shape [n, C]
        Targets in their units, of classes one-hot rows.
    classes : array of shape [C], optional
        Labels.
    names : array of shape [d], optional
        Names of the features.
    encoder : TableEncoder, optional
        Which knows categories by their codes.

    Returns
    -------
    dict
        ``rows``; ``features``, one after another, each with ``name`` and either ``low``, ``high``
        and ``missing`` (a count) or ``categories``, of images one for all numbers; ``classes``,
        pairs of label and count, or ``targets``, each ``low`` and ``high``; and ``sha256`` of
        points and targets, in the order in which they came.
    """
    table = points if points.ndim == 2 else points.reshape(-1, 1)
    features = []
    for j, column in enumerate(table.T):
        name = str(j) if names is None else str(names[j])
        if encoder is not None and encoder.values_of(j) is not None:
            features.append({"name": name, "categories": encoder.values_of(j)})
        else:
            features.append({"name": name, **_range(column)})
    summary: dict[str, Any] = {"rows": len(points), "features": features}
    if classes is None:
        summary["targets"] = [_range(column) for column in targets.T]
    else:
        counts = targets.sum(axis=0).astype(int)
        summary["classes"] = list(map(list, zip(classes.tolist(), counts.tolist(), strict=True)))
    return {**summary, "sha256": data_sum(points, targets)}


def data_sum(points: Floats, targets: Floats) -> str:
    """SHA-256 of points and targets, in the order in which they came."""
    sha = hashlib.sha256()
    for array in (points, targets):
        sha.update(repr(array.shape).encode())
        for part in parts(array):
            sha.update(np.ascontiguousarray(array[part], np.float64))
    return sha.hexdigest()


def _range(column: Floats) -> dict[str, Any]:
    there = column[~np.isnan(column)]
    low, high = (float(there.min()), float(there.max())) if len(there) else (None, None)
    return {"low": low, "high": high, "missing": len(column) - len(there)}
