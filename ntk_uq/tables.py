"""Tables in files, and models that take their columns by name: what the shell fits and predicts.

A table may hold numbers, categories and missing values. A `TableModel` is a scikit-learn pipeline
that makes numbers of them, with the estimator at its end, and what is needed to say its predictions
in words.
"""

import difflib
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from ntk_uq._checkpoint import write_atomically
from ntk_uq.calibration import conformal_quantile, conformal_threshold, prediction_sets

__all__ = ["TableModel", "fit_table", "read_table", "write_table"]

Floats = NDArray[np.float64]
Task = Literal["classification", "regression"]

# Integers with more distinct values than this are amounts, and text with more is no category,
# unless the user says so.
_MOST_CLASSES = 20
_MOST_CATEGORIES = 50
# Share of the rows that the conformal threshold is taken from.
_HELD_OUT = 0.2
# Rows predicted together: 256 draws of 10 classes are then 40 MiB.
_ROWS_AT_ONCE = 2048
# Between the classes of a prediction set.
_SEPARATOR = "|"
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_PARQUET = (".parquet", ".pq")


# Files.


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV or Parquet file; its name says which (``.parquet``, ``.pq``).

    Parameters
    ----------
    path : path
        The file, or "-" for CSV from standard input.

    Returns
    -------
    DataFrame
        Of a CSV file all values are text, as they were written, and NaN where there is none (or
        NA, NaN, None, null).

    Raises
    ------
    ValueError
        If the file is no table with a header line and at least one row.
    OSError
        If it cannot be read.
    ImportError
        For Parquet, if pyarrow is not installed.
    """
    if path != "-" and not Path(path).is_file():
        kind = "is a folder" if Path(path).is_dir() else "does not exist"
        raise FileNotFoundError(f"The file {path} {kind}.")
    if path == "-":
        table = _read_csv(sys.stdin.buffer, "standard input")
    elif Path(path).suffix.lower() in _PARQUET:
        table = _read_parquet(Path(path))
    else:
        table = _read_csv(path, str(path))
    _check_rows(table, "standard input" if path == "-" else str(path))
    return table


def _read_csv(source: Any, name: str) -> pd.DataFrame:
    try:
        # Without a header pandas leaves repeated names as they are.
        table = pd.read_csv(
            source, header=None, dtype=str, skipinitialspace=True, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{name} is empty.") from error
    except UnicodeError as error:
        raise ValueError(f"{name} is not a text file in UTF-8.") from error
    except pd.errors.ParserError as error:
        where = re.search(r"Expected (\d+) fields in (line \d+), saw (\d+)", str(error))
        why = f"{error}"
        if where:
            why = f"{where[2]} holds {where[3]} values, more values than its header line"
        raise ValueError(f"{name} is not a table of comma-separated values: {why}.") from error
    names = table.iloc[0]
    if names.isna().any():
        raise ValueError(
            f"Column {int(names.isna().argmax()) + 1} of {name} has no name in the header line. "
            "Row numbers, as some programs write them, are best left out of the file."
        )
    table = table.iloc[1:].reset_index(drop=True).astype(object)
    table.columns = pd.Index(names.str.strip(), name=None)
    if len(names) == 1 and re.search(r"[;\t]", names[0]):
        raise ValueError(
            f"{name} has one column only, {names[0]!r}: its values are separated by something "
            "else than commas. Write it with commas."
        )
    _check_names(table, name)
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(_no_pyarrow(path)) from error
    except OSError:
        raise
    except Exception as error:  # pyarrow's own errors, which are not imported here
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    table.columns = table.columns.astype(str)
    _check_names(table, str(path))
    return table.reset_index(drop=True)


def _check_names(table: pd.DataFrame, name: str) -> None:
    repeated = table.columns[table.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"{name} has two columns with the name {repeated[0]!r}: rename one.")


def _no_pyarrow(path: Any) -> str:
    return (
        f"{path} is a Parquet file, which needs pyarrow: pip install 'ntk_uq[parquet]' (or "
        "pyarrow). CSV needs nothing."
    )


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table to a CSV or Parquet file, whole or not at all.

    Parameters
    ----------
    table : DataFrame
        What to write, without its index.
    path : path
        The file, or "-" for CSV to standard output.
    """
    if path == "-":
        table.to_csv(sys.stdout, index=False)
        return

    def write(file: IO[bytes]) -> None:
        if Path(path).suffix.lower() in _PARQUET:
            try:
                table.to_parquet(file, index=False)
            except ImportError as error:
                raise ImportError(_no_pyarrow(path)) from error
        else:
            table.to_csv(file, index=False)

    write_atomically(Path(path), write)


# Columns.


def numbers(column: pd.Series, name: str, *, missing: bool = False) -> Floats:
    """A column as numbers, NaN where a value is missing.

    Parameters
    ----------
    column : Series
        As `read_table` gives it.
    name : str
        Where it is from, for errors.
    missing : bool
        Whether values may be missing.

    Raises
    ------
    ValueError
        If it holds text or infinite values, or misses one; the message names the line.
    """
    values = _parsed(column)
    text = np.isnan(values) & column.notna().to_numpy()
    if text.any():
        raise ValueError(
            f"Column {column.name!r} of {name} holds text, {column[text.argmax()]!r} in "
            f"{_line(text)}, where numbers belong. Correct it, leave empty what is missing, or "
            "drop the column."
        )
    if np.isinf(values).any():
        raise ValueError(
            f"Column {column.name!r} of {name} has an infinite value in {_line(np.isinf(values))}. "
            "Correct it, or leave it empty if it is not known."
        )
    if not missing and np.isnan(values).any():
        raise ValueError(
            f"Column {column.name!r} of {name} has a missing value in {_line(np.isnan(values))}. "
            "Fill in or drop such rows first."
        )
    return values


def labels(column: pd.Series, name: str) -> NDArray:
    """A column as classes: integers if all of them are, text otherwise.

    Parameters
    ----------
    column : Series
        As `read_table` gives it.
    name : str
        Where it is from, for errors.

    Raises
    ------
    ValueError
        If one is missing, or they are real numbers; the message says where.
    """
    _check_present(column, name)
    values = _parsed(column)
    if np.isnan(values).any() or pd.api.types.is_bool_dtype(column):
        return _text(column).to_numpy(dtype=np.str_)
    if not np.array_equal(values, np.round(values)):
        raise ValueError(
            f"The target {column.name!r} of {name} holds {column.nunique():,} distinct real "
            "numbers; classes must be integers or text."
        )
    if np.abs(values).max() > 2**53:  # codes, which float64 does not tell apart
        return _text(column).to_numpy(dtype=np.str_)
    return values.astype(np.int64)


def _check_rows(table: pd.DataFrame, name: str) -> None:
    if not len(table):
        raise ValueError(f"{name} has column names and no rows.")


def check_columns(table: pd.DataFrame, names: Sequence[str], name: str) -> None:
    """Raise a ValueError, with what may have been meant, if the table lacks a column."""
    for column in names:
        if column not in table:
            alike = {str(c).lower(): c for c in table.columns}
            close = difflib.get_close_matches(column.lower(), alike, n=1)
            meant = f" (did you mean {alike[close[0]]!r}?)" if close else ""
            raise ValueError(
                f"{name} has no column {column!r}{meant}; it has {abridged(table.columns)}."
            )


def _check_present(column: pd.Series, name: str) -> None:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"The target {column.name!r} of {name} is missing in {_line(missing)}. (NA, NaN, None "
            "and null count as missing.) Leave such rows out."
        )


def _parsed(column: pd.Series) -> Floats:
    """Numbers where there are some, NaN elsewhere."""
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _text(column: pd.Series) -> pd.Series:
    """A column as objects: text, and NaN where it is missing."""
    present = column.notna()
    text = pd.Series(np.nan, index=column.index, dtype=object, name=column.name)
    text[present] = [str(value).strip() for value in column[present]]
    return text


def _line(flags: NDArray[np.bool_]) -> str:
    """Where the first flag is, counting the header as line 1."""
    return f"line {flags.argmax() + 2}"


def abridged(names: Sequence[Any], most: int = 12) -> str:
    """The first of many names."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _is_categorical(column: pd.Series, name: str, chosen: bool) -> bool:
    """Whether a feature holds categories, and not numbers; an error if it holds neither."""
    where = f"Column {column.name!r} of {name}"
    drop = f"leave it out (--drop {column.name})"
    if (
        pd.api.types.is_datetime64_any_dtype(column)
        or isinstance(column.dtype, pd.PeriodDtype)
        or pd.api.types.is_timedelta64_dtype(column)
    ):
        raise ValueError(f"{where} holds dates or times: make numbers of them, or {drop}.")
    present = column.dropna()
    if pd.api.types.is_object_dtype(column):
        scalars = (str, bool, int, float, Decimal, np.generic)
        odd = [value for value in present if not isinstance(value, scalars)]
        if odd:
            raise ValueError(
                f"{where} holds values of the type {type(odd[0]).__name__}, neither numbers nor "
                f"text: {drop}."
            )
    if chosen or pd.api.types.is_bool_dtype(column):
        return True
    parsed = _parsed(present)
    if not np.isnan(parsed).any():
        return False
    text = _text(present)
    if text.map(lambda value: bool(_DATE.fullmatch(value))).all():
        raise ValueError(f"{where} holds dates or times: make numbers of them, or {drop}.")
    if np.isnan(parsed).mean() < 0.5:
        odd_value = text[np.isnan(parsed)].iloc[0]
        raise ValueError(
            f"{where} holds numbers, and text in some rows: {odd_value!r} in line "
            f"{text.index[np.isnan(parsed)][0] + 2}. Correct it or leave empty what is missing; or "
            f"take every value as a category (--categorical {column.name}), or {drop}."
        )
    if text.nunique() > _MOST_CATEGORIES:
        raise ValueError(
            f"{where} holds {text.nunique()} different texts, {text.iloc[0]!r} for example: too "
            f"many for categories (at most {_MOST_CATEGORIES}). If they are some all the same, say "
            f"so (--categorical {column.name}); or {drop}."
        )
    return True


def guess_task(column: pd.Series) -> tuple[Task, str]:
    """What a target asks for, and why."""
    distinct = column.nunique()
    values = _parsed(column)
    if np.isnan(values).any() or pd.api.types.is_bool_dtype(column):
        return "classification", "text"
    written_real = column.map(lambda value: "." in str(value)).any()
    if not written_real and distinct <= _MOST_CLASSES:
        return "classification", f"{distinct} distinct integers"
    return "regression", "real numbers" if written_real else f"{distinct} distinct integers"


# Models.


@dataclass(frozen=True, eq=False)
class TableModel:
    """A fitted estimator that takes the columns of a table by their names.

    What ``ntk-uq fit`` saves and `load` gives back.

    Attributes
    ----------
    pipeline : Pipeline
        Imputes and encodes the columns, and ends in an estimator of this package.
    task : {"classification", "regression"}
        What the target is.
    target : str
        Its name.
    numeric, categorical : tuple of str
        Names of the columns that are used, and what they hold.
    level : float or None
        What the conformal sets or intervals promise, where rows were held out for them.
    quantile : float or None
        For classes the least probability in a conformal set; for numbers the factor of the standard
        deviation in a conformal interval.

    Examples
    --------
    >>> import pandas as pd
    >>> import ntk_uq as nuq
    >>> from ntk_uq.tables import fit_table
    >>> table = pd.DataFrame({"size": [1, 2, None, 4], "kind": list("abab"), "t": list("xxyy")})
    >>> model = fit_table(table, "t", nuq.NTKClassifier(reg=1.0))
    >>> model.numeric, model.categorical
    (('size',), ('kind',))
    >>> model.predict(table).columns.tolist()
    ['prediction', 'probability_x', 'probability_y', 'total_uncertainty', 'aleatoric', 'epistemic']
    """

    pipeline: Pipeline
    task: Task
    target: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    level: float | None = None
    quantile: float | None = None

    @property
    def estimator(self) -> Any:
        """The estimator at the end of the pipeline."""
        return self.pipeline[-1]

    def predict(self, table: pd.DataFrame, *, level: float = 0.9, name: str = "the table") -> Any:
        """Predictions for the rows of a table.

        Parameters
        ----------
        table : DataFrame
            Has the columns that the model was fitted to, in any order. Others are not looked at.
        level : float, default 0.9
            Probability of the interval of a regression that was fitted without one.
        name : str
            What the table is called in errors.

        Returns
        -------
        DataFrame
            For classes: ``prediction``, ``probability_<class>``, ``total_uncertainty``,
            ``aleatoric`` and ``epistemic`` in nats, and ``prediction_set`` (classes separated by
            ``|``) where the model has a conformal level. For numbers: ``prediction`` (the mean),
            ``std`` of the observation, ``epistemic_std`` of the mean alone, and the interval
            ``lower`` to ``upper``.

        Raises
        ------
        ValueError
            If a column is missing, or holds what it did not hold in training.

        Warns
        -----
        UserWarning
            Where a category, or a gap in a column of numbers, was not seen in training.
        """
        _check_rows(table, name)
        features = self._features(table, name)
        self._warn_of_news(features, name)
        parts = []
        for start in range(0, len(features), _ROWS_AT_ONCE):
            prediction = self._distribution(features.iloc[start : start + _ROWS_AT_ONCE])
            parts.append(
                self._classes(prediction)
                if self._classifies
                else self._intervals(prediction, level)
            )
        return pd.concat(parts, ignore_index=True)

    def scores(
        self, table: pd.DataFrame, predictions: pd.DataFrame, *, name: str = "the table"
    ) -> dict[str, float]:
        """How good predictions are, where the table has the target.

        Parameters
        ----------
        table : DataFrame
            What was predicted.
        predictions : DataFrame
            From `predict`.
        name : str
            What the table is called in warnings.

        Returns
        -------
        dict of str to float
            For classes: accuracy, log loss in nats, and coverage and mean size of the prediction
            sets; for numbers: root mean squared error and coverage of the intervals. Empty where
            there is no target.

        Warns
        -----
        UserWarning
            If the target is there, and is none.
        """
        if self.target not in table:
            return {}
        try:
            y = (
                labels(table[self.target], name)
                if self._classifies
                else numbers(table[self.target], name)
            )
        except ValueError as error:
            warnings.warn(f"Without scores: {error}", UserWarning, stacklevel=2)
            return {}
        if not self._classifies:
            errors = y - predictions["prediction"].to_numpy()
            inside = predictions["lower"].to_numpy() <= y, y <= predictions["upper"].to_numpy()
            return {
                "root mean squared error": float(np.sqrt(np.mean(errors**2))),
                "coverage": float(np.mean(np.logical_and(*inside))),
            }
        proba = predictions[[f"probability_{c}" for c in self.estimator.classes_]].to_numpy()
        hit = y[:, None] == self.estimator.classes_
        with np.errstate(divide="ignore"):  # a class that was not in training: infinite
            log_loss = -np.mean(np.log(np.sum(hit * proba, axis=1)))
        scores = {
            "accuracy": float(np.mean(hit[np.arange(len(y)), proba.argmax(axis=1)])),
            "log loss": float(log_loss),
        }
        if self.quantile is not None:
            members = prediction_sets(proba, self.quantile)
            scores["coverage"] = float(np.mean(np.any(members & hit, axis=1)))
            scores["set size"] = float(np.mean(members.sum(axis=1)))
        return scores

    @property
    def _classifies(self) -> bool:
        return self.task == "classification"

    def _features(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        missing = [c for c in (*self.numeric, *self.categorical) if c not in table]
        if missing:
            raise ValueError(
                f"{name} lacks {'columns' if len(missing) > 1 else 'the column'} "
                f"{abridged([repr(c) for c in missing])}, which the model was fitted to; it has "
                f"{abridged(table.columns)}."
            )
        return _features(table, self.numeric, self.categorical, name)

    def _distribution(self, features: pd.DataFrame) -> Any:
        return self.estimator.predict_distribution(self.pipeline[:-1].transform(features))

    def _warn_of_news(self, features: pd.DataFrame, name: str) -> None:
        columns = self.pipeline[0].named_transformers_
        if self.categorical:
            for column, known in zip(
                self.categorical, columns["categorical"].categories_, strict=True
            ):
                values = features[column]
                news = ~values.isin(known) & ~(values.isna() & pd.isna(known).any())
                if news.any():
                    example = (
                        "nothing"
                        if values[news].isna().all()
                        else repr(values[news].dropna().iloc[0])
                    )
                    warnings.warn(
                        f"Column {column!r} of {name} holds {example} in {_line(news.to_numpy())}"
                        f"{_and_others(news)}, which no row of the training data had: it counts "
                        "as none of the known categories, and the uncertainty does not show it.",
                        UserWarning,
                        stacklevel=3,
                    )
        if self.numeric:
            known_gaps = set(columns["numeric"].indicator_.features_.tolist())
            for number, column in enumerate(self.numeric):
                gaps = features[column].isna()
                if gaps.any() and number not in known_gaps:
                    warnings.warn(
                        f"Column {column!r} of {name} is empty in {_line(gaps.to_numpy())}"
                        f"{_and_others(gaps)}, and was nowhere empty in the training data: its "
                        "median is taken, and the uncertainty does not show it.",
                        UserWarning,
                        stacklevel=3,
                    )

    def _classes(self, prediction: Any) -> pd.DataFrame:
        proba, classes = prediction.proba(), self.estimator.classes_
        columns = {"prediction": classes[proba.argmax(axis=1)]}
        columns |= {f"probability_{c}": p for c, p in zip(classes, proba.T, strict=True)}
        columns["total_uncertainty"] = prediction.total_uncertainty
        columns["aleatoric"] = prediction.aleatoric
        columns["epistemic"] = prediction.epistemic
        if self.quantile is not None:
            columns["prediction_set"] = [
                _SEPARATOR.join(str(c) for c in classes[members])
                for members in prediction_sets(proba, self.quantile)
            ]
        return pd.DataFrame(columns)

    def _intervals(self, prediction: Any, level: float) -> pd.DataFrame:
        mean, epistemic, std = _moments(self.estimator, prediction)
        factor = stats.norm.ppf((1 + level) / 2) if self.quantile is None else self.quantile
        return pd.DataFrame(
            {
                "prediction": mean,
                "std": std,
                "epistemic_std": epistemic,
                "lower": mean - factor * std,
                "upper": mean + factor * std,
            }
        )


def fit_table(
    table: pd.DataFrame,
    target: str,
    estimator: Any,
    *,
    task: Task | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    conformal: float | None = None,
    seed: int = 0,
    name: str = "the table",
) -> TableModel:
    """Fit an estimator to a table.

    Numbers that are missing are replaced by the column's median, with a further column that says
    where; categories become a column each, a missing one being a category too.

    Parameters
    ----------
    table : DataFrame
        Features and target.
    target : str
        Column of the target.
    estimator : estimator
        Of this package, a classifier or a regressor as `task` says. It should standardise its
        features, as it does without an architecture.
    task : {"classification", "regression"}, optional
        None takes the estimator's.
    drop : sequence of str
        Columns to leave out.
    categorical : sequence of str
        Columns of numbers that are codes of categories, and of text with many values.
    conformal : float, optional
        Probability with which sets or intervals shall hold the truth. A fifth of the rows, taken
        at random, is held out for it.
    seed : int
        Decides which rows are held out.
    name : str
        What the table is called in errors.

    Returns
    -------
    TableModel

    Raises
    ------
    ValueError
        If the table cannot be used; the message names column and line.

    Warns
    -----
    UserWarning
        If a column is empty and left out.
    """
    _check_rows(table, name)
    check_columns(table, (target, *drop, *categorical), name)
    if target in drop or target in categorical:
        raise ValueError(f"{target!r} is the target: it cannot be dropped or encoded.")
    task = task or ("regression" if hasattr(estimator, "noise") else "classification")
    y = _target(table[target], task, name)
    if task == "regression" and _draws_one(estimator):
        raise ValueError(
            "One member or draw has no spread, and gives no standard deviation: take two or more, "
            'or uncertainty="none".'
        )
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for column in table.columns.drop([target, *drop]):
        if table[column].isna().all():
            warnings.warn(
                f"Column {column!r} of {name} is empty: it is left out.", UserWarning, stacklevel=2
            )
            continue
        kinds[_is_categorical(table[column], name, column in categorical)].append(column)
    numeric, encoded = tuple(kinds[False]), tuple(kinds[True])
    if not numeric + encoded:
        raise ValueError(f"{name} has no column beside the target {target!r}: features are needed.")
    features = _features(table, numeric, encoded, name)
    pipeline = Pipeline([("columns", _encoder(numeric, encoded)), ("estimator", estimator)])
    if conformal is None:
        return TableModel(pipeline.fit(features, y), task, target, numeric, encoded)
    train, held_out = _hold_out(y, task, conformal, seed, name)
    pipeline.fit(features.iloc[train], y[train])
    model = TableModel(pipeline, task, target, numeric, encoded)
    prediction = model._distribution(features.iloc[held_out])
    if task == "classification":
        classes = pipeline[-1].classes_
        quantile = conformal_threshold(y[held_out], prediction.proba(), conformal, classes=classes)
    else:
        mean, _, std = _moments(pipeline[-1], prediction)
        quantile = conformal_quantile(np.abs(y[held_out] - mean) / std, conformal)
    return TableModel(pipeline, task, target, numeric, encoded, conformal, quantile)


def _target(column: pd.Series, task: Task, name: str) -> NDArray:
    _check_present(column, name)
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


def _features(
    table: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str], name: str
) -> pd.DataFrame:
    columns = {column: numbers(table[column], name, missing=True) for column in numeric}
    texts = {column: _text(table[column]).to_numpy() for column in categorical}
    return pd.DataFrame({**columns, **{c: pd.Series(t, dtype=object) for c, t in texts.items()}})


def _encoder(numeric: Sequence[str], categorical: Sequence[str]) -> ColumnTransformer:
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = [("numeric", imputer, list(numeric)), ("categorical", encoder, list(categorical))]
    return ColumnTransformer([step for step in steps if step[2]])


def _hold_out(
    y: NDArray, task: Task, level: float, seed: int, name: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to fit to, and rows to take the conformal quantile from."""
    size = int(np.ceil(_HELD_OUT * len(y)))
    stratify = None
    if task == "classification":
        distinct, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            raise ValueError(
                f"Class {distinct[counts.argmin()]} of {name} has one row only, and cannot be both "
                "fitted and held out. Leave it out, join it to another, or fit without --conformal."
            )
        long = [c for c in distinct if _SEPARATOR in str(c)]
        if long:
            raise ValueError(
                f"Class {long[0]!r} of {name} holds {_SEPARATOR!r}, which separates the classes of "
                "a prediction set: rename it, or fit without --conformal."
            )
        size, stratify = max(size, len(distinct)), y
    if size < level / (1 - level):
        raise ValueError(
            f"A conformal level of {level:g} takes {int(np.ceil(level / (1 - level)))} rows that "
            f"are held out, a fifth of all; {name} has {len(y)} rows. Lower the level, or fit "
            "without --conformal."
        )
    train, held_out = train_test_split(
        np.arange(len(y)), test_size=size, stratify=stratify, random_state=seed
    )
    return train, held_out


def _moments(estimator: Any, prediction: Any) -> tuple[Floats, Floats, Floats]:
    """Mean, its standard deviation, and the observation's: [m] each."""
    mean, epistemic = prediction.mean[:, 0], prediction.std[:, 0]
    if getattr(estimator, "uncertainty", "") == "none":  # one function, whose spread is no number
        epistemic = np.zeros_like(mean)
    return mean, epistemic, np.sqrt(epistemic**2 + estimator.noise_[0] ** 2)


def _draws_one(estimator: Any) -> bool:
    """Whether predictions are of one function, although their spread is asked for."""
    drawn = getattr(estimator, "n_members", 2)
    if getattr(estimator, "method", "") == "exact":
        drawn = estimator.n_draws
    return drawn == 1 and estimator.uncertainty != "none"


def _and_others(flags: pd.Series) -> str:
    return f" and {flags.sum() - 1} more" if flags.sum() > 1 else ""
