"""Tables in files, and models that take their columns by name: what the shell fits and predicts.

A table may hold numbers, categories and missing values. A `TableModel` is a scikit-learn pipeline
that makes numbers of them, with the estimator at its end, and what is needed to say its predictions
in words.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from ntk_uq.calibration import conformal_quantile, conformal_threshold, prediction_sets
from ntk_uq.tables.cells import Floats, as_known, as_text
from ntk_uq.tables.columns import Task, check_present, labels, numbers
from ntk_uq.tables.frames import ModelFrame, feature_frame, model_frame
from ntk_uq.tables.places import and_others, check_columns, check_rows, first

__all__ = ["TableModel", "fit_table"]

# Share of the rows that the conformal threshold is taken from.
_HELD_OUT = 0.2
# Rows predicted together: 256 draws of 10 classes are then 40 MiB.
_ROWS_AT_ONCE = 2048
# Between the classes of a prediction set.
_SEPARATOR = "|"


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
        check_rows(table, name)
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
            y = self._truth(table[self.target], name)
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
        used = [*self.numeric, *self.categorical]
        check_columns(table, used, name, ", which the model was fitted to")
        features = feature_frame(table[used], self.numeric, self.categorical, name)
        for column, known in self._categories:
            features[column] = as_known(features[column], known)
        return features

    @property
    def _categories(self) -> Iterable[tuple[str, NDArray]]:
        """Columns of categories, with those that were in the training data."""
        if not self.categorical:
            return ()
        encoder = self.pipeline[0].named_transformers_["categorical"]
        return zip(self.categorical, encoder.categories_, strict=True)

    def _truth(self, column: pd.Series, name: str) -> NDArray:
        """A target, as the estimator's are."""
        if not self._classifies:
            return numbers(column, name)
        classes = self.estimator.classes_
        if classes.dtype.kind in "iu":
            y = labels(column, name)
            return numbers(column, name) if y.dtype.kind == "U" else y
        check_present(column, name)
        return as_known(as_text(column), classes).to_numpy(dtype=np.str_)

    def _distribution(self, features: pd.DataFrame) -> Any:
        return self.estimator.predict_distribution(self.pipeline[:-1].transform(features))

    def _warn_of_news(self, features: pd.DataFrame, name: str) -> None:
        def warn(column: str, what: str, news: pd.Series, why: str) -> None:
            warnings.warn(
                f"Column {column!r} of {name} {what} in {first(news, news)}{and_others(news)}, "
                f"{why}, and the uncertainty does not show it.",
                UserWarning,
                stacklevel=4,
            )

        for column, known in self._categories:
            values = features[column]
            news = ~values.isin(known) & ~(values.isna() & pd.isna(known).any())
            if news.any():
                texts = values[news].dropna()
                example = repr(texts.iloc[0]) if len(texts) else "nothing"
                why = "which no row of the training data had: it counts as none of the known"
                warn(column, f"holds {example}", news, f"{why} categories")
        if not self.numeric:
            return
        known_gaps = set(self.pipeline[0].named_transformers_["numeric"].indicator_.features_)
        scaler = getattr(self.estimator, "_scaler", None)
        for number, column in enumerate(self.numeric):
            values = features[column]
            if values.isna().any() and number not in known_gaps:
                why = "and was nowhere empty in the training data: its median is taken"
                warn(column, "is empty", values.isna(), why)
            # scikit-learn divides by 1 where a column does not vary.
            if scaler is not None and not np.isclose(
                scaler.scale_[number] ** 2, scaler.var_[number]
            ):
                value = scaler.mean_[number]
                news = values.notna() & ~np.isclose(values, value)
                if news.any():
                    why = f"and was {value:g} in every row of the training data: it has no scale"
                    warn(column, f"holds {values[news].iloc[0]:g}", news, why)

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
        If a column is empty and left out, or looks like something else than it is taken for: row
        numbers, dates in digits, numbers among text, one category in two spellings.
    """
    task = task or ("regression" if hasattr(estimator, "noise") else "classification")
    frame = model_frame(table, target, task, drop=drop, categorical=categorical, name=name)
    return fit_frame(frame, estimator, conformal=conformal, seed=seed)


def fit_frame(
    frame: ModelFrame, estimator: Any, *, conformal: float | None = None, seed: int = 0
) -> TableModel:
    """The same, of a table that is understood."""
    features, y, task, name = frame.features, frame.y, frame.task, frame.name
    if task == "regression" and _draws_one(estimator):
        raise ValueError(
            "One member or draw has no spread, and gives no standard deviation: take two or more, "
            'or uncertainty="none".'
        )
    encoder = _encoder(frame.numeric, frame.categorical)
    pipeline = Pipeline([("columns", encoder), ("estimator", estimator)])
    model = TableModel(pipeline, task, frame.target, frame.numeric, frame.categorical)
    if conformal is None:
        pipeline.fit(features, y)
        return model
    train, held_out = _hold_out(y, task, conformal, seed, name)
    pipeline.fit(features.iloc[train], y[train])
    prediction = model._distribution(features.iloc[held_out])
    if task == "classification":
        classes = pipeline[-1].classes_
        quantile = conformal_threshold(y[held_out], prediction.proba(), conformal, classes=classes)
    else:
        mean, _, std = _moments(pipeline[-1], prediction)
        quantile = conformal_quantile(np.abs(y[held_out] - mean) / std, conformal)
    return replace(model, level=conformal, quantile=quantile)


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
