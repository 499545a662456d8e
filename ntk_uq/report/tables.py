"""The tables of the report: methods by measures, and methods by methods."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ntk_uq.report.sentences import best_methods
from ntk_uq.report.words import duration, plus_minus

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.compare import Comparison
    from ntk_uq.compare.columns import Column


@dataclass(frozen=True)
class Row:
    """A measure with its cells: text, and whether it is marked as best."""

    title: str
    explanation: str
    cells: list[tuple[str, bool]]


def table_rows(comparison: "Comparison") -> list[Row]:
    """Methods by measures, those that are known."""
    rows = []
    for column in comparison.columns:
        best = best_methods(comparison, column.name, column.better)
        # Marking everybody tells nothing.
        marked = set(best) if len(best) < len(comparison.methods) else set()
        rows.append(
            Row(
                column.words.title.format(reference=comparison.reference),
                column.words.explanation.format(reference=comparison.reference),
                [(_cell(comparison, name, column), name in marked) for name in comparison.methods],
            )
        )
    return rows


def _cell(comparison: "Comparison", name: str, column: "Column") -> str:
    row = comparison.table.loc[name]
    value = row[column.name]
    if column.needs == "reference" and name == comparison.reference:
        return "reference"
    if np.isnan(value):
        return "n/a"
    if column.is_duration:
        return duration(value)
    if column.se is not None:
        return plus_minus(value, row[f"{column.name}_se"])
    return f"{value:.{column.words.digits}f}"


def pair_rows(comparison: "Comparison") -> list[tuple[str, list[tuple[str, bool]]]]:
    """Distances between all methods: name, and text and agreement in each column."""

    def cell(row: str, column: str) -> tuple[str, bool]:
        if row == column:
            return "", False
        tv = comparison.distance(row, column).tv
        return plus_minus(tv.value, tv.se), not tv.is_significant

    names = list(comparison.methods)
    return [(row, [cell(row, column) for column in names]) for row in names]
