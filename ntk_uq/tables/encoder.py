"""Tables of numbers, categories and gaps as features of a network."""

from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import (
    _check_feature_names,
    _check_feature_names_in,
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from ntk_uq._common.cells import check_numbers
from ntk_uq._common.warnings import UnseenWarning, warn_user
from ntk_uq._common.words import shown
from ntk_uq.tables.tails import CompressedTails

__all__ = ["TableEncoder", "UnseenWarning"]

Floats = NDArray[np.float64]
Categorical = Literal["from_dtype"] | Sequence[Any] | None

# Text with more different values is no category, unless the user says so.
_MOST_CATEGORIES = 50
# Codes of what is none of the known categories.
_UNKNOWN = -1


def check_order(fitted: Any, X: Any) -> None:
    """Refuse a data frame with other columns than those of fit, or in another order.

    Before its categories are coded, since these are found by their places.
    """
    if hasattr(X, "iloc"):
        _check_feature_names(fitted, X, reset=False)


class TableEncoder(TransformerMixin, BaseEstimator):
    """Columns of numbers, categories, truth values and gaps as features of a network.

    What the estimators do to a table where no architecture is given; in a pipeline before one that
    is given.

    Numbers are standardised, and their extreme values compressed (docs, "The defaults"). A gap
    takes the column's median, and a further column says where gaps were. A category becomes a
    column for each of its values, 1 where it has it and 0 elsewhere, a gap being a value too. These
    indicators are not standardised: that would make a rare value as far from the others as it is
    rare, and every network steep there. A column that is empty in all rows is left out. One of
    numbers that do not vary stays, so that the uncertainty shows where they do later.

    Parameters
    ----------
    categorical_features : "from_dtype", sequence or None, default "from_dtype"
        Which columns hold categories. "from_dtype": of a data frame those of pandas' type category,
        of text of at most 50 values, and of truth values. A sequence of names or numbers of
        columns, or of a truth value for each column. None: none, and text is refused.

    Attributes
    ----------
    categories_ : dict
        Of each column of categories, by name or number, the values that it had.
    n_features_in_, feature_names_in_
        Number and names of the columns.

    Warns
    -----
    UserWarning
        If a column of the training table is empty.
    UnseenWarning
        If a table that is transformed holds a category that the training table had not, which is
        then none of the known; or a gap in a column that had none, for which the median is taken.

    Examples
    --------
    >>> import pandas as pd
    >>> from ntk_uq import TableEncoder
    >>> table = pd.DataFrame({"size": [1.0, None, 3.0], "kind": ["a", "b", "a"]})
    >>> encoder = TableEncoder().fit(table)
    >>> encoder.get_feature_names_out().tolist()
    ['size', 'size_missing', 'kind_a', 'kind_b']
    >>> encoder.transform(table)[:, 1:]
    array([[0., 1., 0.],
           [1., 0., 1.],
           [0., 1., 0.]])
    """

    def __init__(self, categorical_features: Categorical = "from_dtype"):
        self.categorical_features = categorical_features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn categories, medians and scales.

        Parameters
        ----------
        X : data frame, or array-like of shape [n, d]
            The training table.
        y : None
            Not used.
        sample_weight : array-like of shape [n], optional
            How much rows count: 2 is the row twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a column holds neither numbers nor categories; the message says which, and what to
            do.
        """
        coded = self.learn_categories(X)
        check_numbers("X", coded, missing=True)
        values = validate_data(self, coded, dtype=np.float64, ensure_all_finite="allow-nan")
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(
                sample_weight, values, dtype=np.float64, ensure_non_negative=True
            )
            values, weights = values[weights > 0], weights[weights > 0]
        return self.learn_scales(values, weights)

    def transform(self, X: Any) -> Floats:
        """Features for a network.

        Parameters
        ----------
        X : data frame, or array-like of shape [m, d]
            A table with the columns of the training table.

        Returns
        -------
        array of shape [m, number of features]
        """
        check_is_fitted(self)
        check_order(self, X)
        coded = self.coded(X)
        check_numbers("X", coded, missing=True)
        values = validate_data(
            self, coded, dtype=np.float64, ensure_all_finite="allow-nan", reset=False
        )
        return self.features(values, rows_of(X))

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray:
        """Names of the features: of the column, and of the category.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns, where the training table had none.

        Returns
        -------
        array of str objects
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        of_categories = [
            f"{names[j]}_{'missing' if value is None else value}"
            for j, codes in self._codes.items()
            for value in ([*self._known[j], None][code] for code in codes)
        ]
        numbers = names[self._numeric].tolist()
        missing = [f"{names[j]}_missing" for j in self._missing]
        return np.array([*numbers, *missing, *of_categories], dtype=object)

    # The two halves of `fit` and `transform`, between which rows that are equal become one.

    def learn_categories(self, X: Any) -> Any:
        """A table as numbers and gaps, categories as codes, which are learnt from it."""
        self._known: dict[int, list[Any]] = {}
        for j, name, column in self._categorical_columns(X):
            values = _values(column)
            known = sorted(set(values[~_isna(values)].tolist()), key=_order)
            if len(known) > _MOST_CATEGORIES and self._is_guess(column):
                raise ValueError(
                    f"X, column {shown(name)}, holds {len(known)} different texts, "
                    f"{shown(known[0])} for example: too many for categories (at most "
                    f"{_MOST_CATEGORIES}). If they are some all the same, say so by "
                    "categorical_features or astype('category'); names of the rows are no feature: "
                    "leave them out."
                )
            self._known[j] = known
        names = list(X.columns) if hasattr(X, "iloc") else None
        self._names = None if names is None else [str(name) for name in names]
        self.categories_ = {
            j if names is None else names[j]: np.array(known, dtype=object)
            for j, known in self._known.items()
        }
        return self.coded(X)

    def coded(self, X: Any) -> Any:
        """A table as numbers and gaps, categories as codes."""
        if hasattr(X, "iloc") and getattr(X, "ndim", 2) == 2:
            table = X.copy(deep=False)
            for j, dtype in enumerate(X.dtypes):
                if j in self._known:
                    table.isetitem(j, self._code(j, X.iloc[:, j]))
                elif str(dtype) == "object":  # NumPy makes no number of pandas.NA
                    table.isetitem(j, X.iloc[:, j].where(X.iloc[:, j].notna(), np.nan))
            return table
        if not self._known and getattr(getattr(X, "dtype", None), "kind", "") != "O":
            return X
        table = np.array(X, dtype=object)
        if table.ndim == 2:
            for j in self._known:
                if j < table.shape[1]:
                    table[:, j] = self._code(j, table[:, j])
            table[_isna(table)] = np.nan  # as above
        return table

    def learn_scales(self, values: Floats, weights: Floats | None = None) -> Self:
        """Learn from what is coded [n, d] all that weights bear on."""
        d = self.n_features_in_ = values.shape[1]
        if self._names is not None:
            self.feature_names_in_ = np.array(self._names, dtype=object)
        self._codes = {
            j: np.unique(values[:, j][values[:, j] >= 0]).astype(int) for j in self._known
        }
        empty = self._empty(values)
        self._codes = {j: codes for j, codes in self._codes.items() if j not in empty}
        self._numeric = np.setdiff1d(np.arange(d), [*self._known, *empty])
        numbers = values[:, self._numeric]
        gaps = np.isnan(numbers)
        self._missing = self._numeric[gaps.any(axis=0)]
        self._medians = np.array(
            [_median(column, gap, weights) for column, gap in zip(numbers.T, gaps.T, strict=True)]
        )
        self._scaler = self._tails = None
        if len(self._numeric):
            filled = np.where(gaps, self._medians, numbers)
            self._scaler = StandardScaler().fit(filled, sample_weight=weights)
            self._tails = CompressedTails.of(self._scaler.transform(filled), weights)
        return self

    def features(self, values: Floats, rows: Any = None) -> Floats:
        """Features of what is coded [m, d], and a warning of what is new, by the index of rows."""
        blocks = []
        if self._scaler is not None and self._tails is not None:
            numbers = values[:, self._numeric]
            gaps = np.isnan(numbers)
            known = np.isin(self._numeric, self._missing)
            self._warn_of_gaps(gaps & ~known, rows)
            filled = np.where(gaps, self._medians, numbers)
            scaled = (filled - self._scaler.mean_) / self._scaler.scale_
            blocks += [self._tails.transform(scaled), gaps[:, known]]
        for j, codes in self._codes.items():
            indicators = values[:, j, None] == codes
            self._warn_of_category(j, ~indicators.any(axis=1), rows)
            blocks.append(indicators)
        return np.concatenate(blocks, axis=1, dtype=np.float64)

    def traced(self, X: jax.Array) -> jax.Array:
        """Features of a table of numbers and gaps that may be traced, in its precision."""
        self.check_traceable()
        if self._scaler is None or self._tails is None:
            return X
        if len(self._numeric) < X.shape[1]:  # by slices: exports have no gather
            X = jnp.concatenate([X[:, j : j + 1] for j in self._numeric], axis=1)
        gaps, (mean, scale) = jnp.isnan(X), (self._scaler.mean_, self._scaler.scale_)
        filled = jnp.where(gaps, self._medians.astype(X.dtype), X)
        numbers = self._tails.traced((filled - mean.astype(X.dtype)) / scale.astype(X.dtype))
        known = np.flatnonzero(np.isin(self._numeric, self._missing))
        missing = [gaps[:, j : j + 1].astype(X.dtype) for j in known]
        return jnp.concatenate([numbers, *missing], axis=1)

    def check_traceable(self) -> None:
        """Refuse to be traced with categories, which JAX has no type for."""
        if self._known:
            raise ValueError(
                "A function of JAX takes numbers, and the table has categories: encode them by "
                "TableEncoder, and fit the estimator with its features."
            )

    def knows_gaps(self, column: Any) -> bool:
        """Whether a column, by name or number, had gaps in the training table."""
        j = column if self._names is None else self._names.index(str(column))
        if j not in self._codes and j not in self._numeric:  # it had nothing else
            return True
        return bool(
            np.any(self._codes[j] == len(self._known[j]))
            if j in self._known
            else j in self._missing
        )

    def values_of(self, j: int) -> list[Any] | None:
        """Known values of a column of categories; None of one of numbers."""
        return list(self._known[j]) if j in self._known else None

    def constants(self) -> Iterator[tuple[int, float]]:
        """Columns of numbers that never varied, and their value: they have no scale."""
        if self._scaler is not None:
            scale, variance = self._scaler.scale_, self._scaler.var_
            for number in np.flatnonzero(~np.isclose(scale**2, variance)):
                yield int(self._numeric[number]), float(self._scaler.mean_[number])

    def _name(self, j: int) -> str:
        return f"column {j if self._names is None else repr(self._names[j])}"

    def _empty(self, values: Floats) -> list[int]:
        """Columns without a value in any row, and a warning of them."""
        gap = np.full(values.shape[1], np.nan)
        for j, known in self._known.items():
            gap[j] = len(known)
        empty = np.flatnonzero(np.all(np.isnan(values) | (values == gap), axis=0)).tolist()
        if len(empty) == values.shape[1]:
            raise ValueError("X is empty in all columns: features are needed.")
        if empty:
            from ntk_uq.tables.places import abridged

            warn_user(
                f"X, {self._name(empty[0])}, is empty: it is left out."
                if len(empty) == 1
                else "Columns of X are empty, and left out: "
                f"{abridged([j if self._names is None else self._names[j] for j in empty])}."
            )
        return empty

    def _warn_of_gaps(self, gaps: NDArray[np.bool_], rows: Any) -> None:
        if gaps.any():
            from ntk_uq.tables.places import row_name

            row, number = np.argwhere(gaps)[0]
            warn_user(
                f"X, {self._name(self._numeric[number])}, is empty in {row_name(rows, row)}, and "
                "was nowhere empty in the training data: its median is taken, and the uncertainty "
                "does not show it.",
                UnseenWarning,
            )

    def _warn_of_category(self, j: int, unknown: NDArray[np.bool_], rows: Any) -> None:
        if unknown.any():
            from ntk_uq.tables.places import and_others, row_name

            where = f"{row_name(rows, int(np.argmax(unknown)))}{and_others(unknown)}"
            warn_user(
                f"X, {self._name(j)}, holds in {where} what no row of the training data had: it "
                "counts as none of the known categories, and the uncertainty does not show it.",
                UnseenWarning,
            )

    def _categorical_columns(self, X: Any) -> Iterator[tuple[int, Any, Any]]:
        """Number, name and values of the columns of categories."""
        chosen = self.categorical_features
        frame = hasattr(X, "iloc") and getattr(X, "ndim", 2) == 2
        if chosen is None or (isinstance(chosen, str) and not frame):
            if chosen is not None:
                _check_choice(chosen)
            return
        columns = X if frame else np.asarray(X, dtype=object)
        width = columns.shape[1] if columns.ndim == 2 else 0
        names = list(X.columns) if frame else list(range(width))
        if isinstance(chosen, str):
            _check_choice(chosen)
            numbers = [j for j in range(width) if _is_category(X.iloc[:, j])]
        else:
            numbers = _numbers_of(list(chosen), names, width)
        for j in numbers:
            yield j, names[j], X.iloc[:, j] if frame else columns[:, j]

    def _is_guess(self, column: Any) -> bool:
        typed = hasattr(getattr(column, "dtype", None), "categories")
        return isinstance(self.categorical_features, str) and not typed

    def _code(self, j: int, column: Any) -> Floats:
        import pandas as pd

        values, known = _values(column), self._known[j]
        codes = pd.Index(np.array(known, dtype=object)).get_indexer(values).astype(np.float64)
        codes[codes < 0] = _UNKNOWN
        codes[_isna(values)] = len(known)
        return codes


def rows_of(X: Any) -> Any:
    """The index of a frame's rows, by which its user knows them; None of an array."""
    return getattr(X, "index", None) if hasattr(X, "iloc") else None


def _check_choice(chosen: str) -> None:
    if chosen != "from_dtype":
        raise ValueError(
            'categorical_features takes "from_dtype", names or numbers of columns, a truth value '
            f"for each column, or None; got {shown(chosen)}."
        )


def _numbers_of(chosen: list[Any], names: list[Any], width: int) -> list[int]:
    """Numbers of columns that are chosen by truth values, numbers or names."""
    if chosen and all(isinstance(c, bool | np.bool_) for c in chosen):
        if len(chosen) != width:
            raise ValueError(
                f"categorical_features has {len(chosen)} truth values, and X {width} columns."
            )
        return np.flatnonzero(chosen).tolist()
    numbers = []
    for c in chosen:
        if c in names:
            numbers.append(names.index(c))
        elif isinstance(c, int | np.integer) and 0 <= c < width:
            numbers.append(int(c))
        else:
            raise ValueError(f"categorical_features: X has no column {shown(c)}; it has {names}.")
    return numbers


def _is_category(column: Any) -> bool:
    """Whether a column of a frame holds categories, text or truth values."""
    import pandas as pd

    if hasattr(column.dtype, "categories"):
        return True
    return pd.api.types.infer_dtype(column, skipna=True) in ("string", "boolean")


def _values(column: Any) -> NDArray:
    """Cells as objects; numbers of NumPy as Python's, which files hold."""
    values = np.asarray(column, dtype=object)
    return np.array([v.item() if isinstance(v, np.generic) else v for v in values], dtype=object)


def _order(value: Any) -> tuple[str, Any]:
    """Numbers, and text after them."""
    return ("" if isinstance(value, Real) else type(value).__name__), value


def _isna(values: NDArray) -> NDArray[np.bool_]:
    import pandas as pd

    return np.asarray(pd.isna(values))


def _median(column: Floats, gaps: NDArray[np.bool_], weights: Floats | None) -> Real | float:
    """Of what is there: the lower one of two, as weights and repetitions have it alike."""
    if gaps.all():
        return 0.0
    counts = None if weights is None else weights[~gaps]
    return np.quantile(column[~gaps], 0.5, weights=counts, method="inverted_cdf")
