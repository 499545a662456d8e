"""Features and target of a table, understood: what is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntk_uq._common.warnings import warn_user
from ntk_uq.tables.cells import as_text
from ntk_uq.tables.columns import Task, check_present, check_type, is_categorical, labels, numbers
from ntk_uq.tables.places import (
    abridged,
    check_columns,
    check_named,
    check_names,
    check_rows,
    first,
)

__all__ = ["SEPARATOR", "ModelFrame", "check_held_out", "feature_frame", "model_frame", "typed"]


# Share of the rows that promises are taken from; between the classes of a prediction set.
_HELD_OUT, SEPARATOR = 0.2, "|"


@dataclass(frozen=True, eq=False)
class ModelFrame:
    """Features and target of a table, understood.

    Attributes
    ----------
    features : DataFrame
        Numbers, and text for categories; NaN for gaps.
    y : array of shape [n]
        Classes or numbers.
    task, target, numeric, categorical
        As in `ntk_uq.tables.TableModel`.
    name : str
        What the table is called in errors.
    weights : array of shape [n] or None
        How much each row counts.
    """

    features: pd.DataFrame
    y: NDArray
    task: Task
    target: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    name: str
    weights: NDArray[np.float64] | None = None


def model_frame(
    table: pd.DataFrame,
    target: str,
    task: Task,
    *,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    weight: str | None = None,
    name: str,
) -> ModelFrame:
    """Features and target of a table, for `ntk_uq.tables.fit_table`, which says what is what."""
    check_rows(table, name)
    check_names(table, name)
    weighing = () if weight is None else (weight,)
    check_columns(table, (target, *drop, *categorical, *weighing), name)
    if target in drop or target in categorical:
        raise ValueError(f"{target!r} is the target: it cannot be dropped or encoded.")
    weights = None if weight is None else _weights(table[weight], target, name)
    if weights is not None:
        # Here, so that none is held out: what is promised of rows is not of these.
        table, weights = table[weights > 0], weights[weights > 0]
    used = table.columns.drop(list({target, *drop, *weighing}))
    check_named(used, table, name)
    if not len(used):
        raise ValueError(f"{name} has no column beside the target {target!r}: features are needed.")
    y = _target(table[target], task, name)
    empty = [column for column in used if table[column].isna().all()]
    if empty:
        warn_user(
            f"Column {empty[0]!r} of {name} is empty: it is left out."
            if len(empty) == 1
            else f"Columns of {name} are empty, and left out: {abridged(empty)}."
        )
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for column in used:
        if column in empty:
            continue
        kinds[is_categorical(table[column], name, column in categorical)].append(column)
    numeric, encoded = tuple(kinds[False]), tuple(kinds[True])
    if not numeric + encoded:
        raise ValueError(f"{name} has no column beside the target {target!r}: features are needed.")
    features = feature_frame(table, numeric, encoded, name)
    return ModelFrame(features, y, task, target, numeric, encoded, name, weights)


def feature_frame(
    table: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str], name: str
) -> pd.DataFrame:
    """Columns of a table as numbers and as text."""
    columns: dict[str, Any] = {c: numbers(table[c], name, missing=True) for c in numeric}
    for column in categorical:
        check_type(table[column], name)
        columns[column] = as_text(table[column])
    return pd.DataFrame(columns, index=table.index)


def check_held_out(y: NDArray, task: Task, level: float | None, name: str) -> int:
    """How many rows are held out, of a table that has enough of them for a conformal level."""
    size = int(np.ceil(_HELD_OUT * len(y)))
    if task == "classification":
        distinct, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            raise ValueError(
                f"Class {distinct[counts.argmin()]} of {name} has one row only, and cannot be both "
                "fitted and held out. Leave it out, join it to another, or fit without --conformal."
            )
        long = [c for c in distinct if SEPARATOR in str(c)]
        if long:
            raise ValueError(
                f"Class {long[0]!r} of {name} holds {SEPARATOR!r}, which separates the classes of "
                "a prediction set: rename it, or fit without --conformal."
            )
        size = max(size, len(distinct))
    if level is not None and size < level / (1 - level):
        raise ValueError(
            f"A conformal level of {level:g} takes {int(np.ceil(level / (1 - level)))} rows that "
            f"are held out, a fifth of all; {name} has {len(y)} rows. Lower the level, or fit "
            "without --conformal."
        )
    return size


def typed(features: pd.DataFrame, categorical: Sequence[str]) -> pd.DataFrame:
    """Categories by pandas' type, which says that they are some, however many."""
    return features.astype(dict.fromkeys(categorical, "category"))


def _weights(column: pd.Series, target: str, name: str) -> NDArray[np.float64]:
    if column.name == target:
        raise ValueError(f"{target!r} is the target: it cannot be the rows' weight.")
    weights = numbers(column, name)
    if (weights < 0).any():
        raise ValueError(
            f"The weight {column.name!r} of {name} is negative in {first(column, weights < 0)}: a "
            "weight of 2 is the row twice, and 0 leaves it out."
        )
    if not weights.any():
        raise ValueError(f"The weight {column.name!r} of {name} is 0 in every row: none is left.")
    return weights


def _target(column: pd.Series, task: Task, name: str) -> NDArray:
    check_present(column, name)
    if task == "regression":
        y: NDArray = numbers(column, name)
        if np.ptp(y) == 0:
            raise ValueError(f"The target {column.name!r} of {name} is {y[0]:g} in every row.")
        return y
    y = labels(column, name)
    distinct = np.unique(y)
    if len(distinct) < 2:
        raise ValueError(
            f"The target {column.name!r} of {name} holds one class only ({distinct[0]}): there is "
            "nothing to tell apart."
        )
    if len(distinct) > len(y) / 2:
        amounts = "" if y.dtype.kind == "U" else " If they are amounts, use --task regression."
        raise ValueError(
            f"The target {column.name!r} of {name} holds {len(distinct)} different values in "
            f"{len(y)} rows: too many for classes, which need two rows each on average.{amounts}"
        )
    return y
