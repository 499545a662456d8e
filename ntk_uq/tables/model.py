"""Tables in files, and models that take their columns by name: what the shell fits and predicts.

A table may hold numbers, categories and missing values. A `TableModel` is an estimator that makes
numbers of them, or a pipeline of a `TableEncoder` and one, and what is needed to say its
predictions in words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from ntk_uq._common.warnings import UnseenWarning, unsaid, warn_user
from ntk_uq.calibration import (
    ConformalIntervals,
    ConformalSets,
    calibration_of_classes,
    calibration_of_intervals,
    conformal_intervals,
    conformal_sets,
    coverage_by_class,
    prediction_sets,
)
from ntk_uq.tables.cells import Floats, as_known, as_text
from ntk_uq.tables.columns import Task, check_present, labels, numbers
from ntk_uq.tables.decisions import Decisions, check_promises, decisions_from
from ntk_uq.tables.encoder import TableEncoder
from ntk_uq.tables.frames import (
    SEPARATOR,
    ModelFrame,
    check_held_out,
    feature_frame,
    model_frame,
    typed,
)
from ntk_uq.tables.places import and_others, check_columns, check_rows, example, first
from ntk_uq.tables.plan import DecisionPlan, check_plan

__all__ = ["TableModel", "fit_table"]

# Rows predicted together: 256 draws of 10 classes are then 40 MiB.
_ROWS_AT_ONCE = 2048
# Categories of a column by which calibration is told.
_MOST_GROUPS = 8

Sets = Literal["class", "all", "adaptive"]
Intervals = Literal["symmetric", "asymmetric"]


# Models.


@dataclass(frozen=True, eq=False)
class TableModel:
    """A fitted estimator that takes the columns of a table by their names.

    What ``ntk-uq fit`` saves and `load` gives back.

    Attributes
    ----------
    pipeline : Pipeline
        Ends in an estimator of this package, which takes the columns as they are where it has no
        architecture of its own; else a `TableEncoder` stands before it.
    task : {"classification", "regression"}
        What the target is.
    target : str
        Its name.
    numeric, categorical : tuple of str
        Names of the columns that are used, and what they hold.
    level : float or None
        What the conformal sets or intervals promise, where rows were held out for them.
    quantile : float or None
        Of files of earlier versions: the least probability in a conformal set, or the factor of the
        standard deviation in a conformal interval.
    conformal : ConformalSets, ConformalIntervals or None
        What makes the sets or intervals.
    decisions : Decisions or None
        How rows are decided.
    held_out : tuple of dict, or None
        Where rows were held out, the rows of `calibration_of_classes`, or of
        `calibration_of_intervals` without a conformal rule, on them; groups are also the categories
        of columns that have at most 8.

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
    conformal: ConformalSets | ConformalIntervals | None = None
    decisions: Decisions | None = None
    held_out: tuple[dict[str, Any], ...] | None = None  # earlier files have none

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
            ``|``) where the model has a conformal level, and ``decision``, a class or "reject",
            where it decides. For numbers: ``prediction`` (the mean),
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
            For classes: accuracy, log loss in nats, of two classes the area under the ROC curve and
            the average precision of the second, and coverage and mean size of the prediction sets;
            for numbers: root mean squared error and coverage of the intervals. Empty where there is
            no target.

        Warns
        -----
        UserWarning
            If the target is there, and is none; or holds a class that the model does not know.
        """
        if self.target not in table:
            return {}
        try:
            y = self._truth(table[self.target], name)
        except ValueError as error:
            warn_user(f"Without scores: {error}")
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
        unknown = pd.Series(~hit.any(axis=1), index=table.index)
        if unknown.any():
            warn_user(
                f"The target {self.target!r} of {name} holds "
                f"{example(pd.Series(y, index=table.index), unknown)}{and_others(unknown)}, none "
                f"of the classes of the model ({', '.join(map(str, self.estimator.classes_))}): no "
                "prediction of such a row is right, and the log loss is infinite."
            )
        with np.errstate(divide="ignore"):  # a class that was not in training: infinite
            log_loss = -np.mean(np.log(np.sum(hit * proba, axis=1)))
        scores = {
            "accuracy": float(np.mean(hit[np.arange(len(y)), proba.argmax(axis=1)])),
            "log loss": float(log_loss),
        }
        if len(self.estimator.classes_) == 2 and 0 < hit[:, 1].sum() < len(y):
            scores["AUC"] = float(roc_auc_score(hit[:, 1], proba[:, 1]))
            scores["average precision"] = float(average_precision_score(hit[:, 1], proba[:, 1]))
        members = self._sets(proba)
        if members is not None:
            scores["coverage"] = float(np.mean(np.any(members & hit, axis=1)))
            scores["set size"] = float(np.mean(members.sum(axis=1)))
        if self.decisions is not None:
            decided = predictions["decision"].to_numpy(dtype=np.str_)
            scores |= self.decisions.scores(y, decided, self.estimator.classes_)
        return scores

    def coverage(
        self, table: pd.DataFrame, predictions: pd.DataFrame, *, name: str = "the table"
    ) -> pd.DataFrame | None:
        """How often the sets hold the truth, and how large they are, class by class.

        Parameters
        ----------
        table, predictions, name
            As in `scores`.

        Returns
        -------
        DataFrame or None
            As `calibration.coverage_by_class` gives it. None without sets or target, or where the
            target holds a class that the model does not know.
        """
        if self.target not in table or not self._classifies:
            return None
        classes = self.estimator.classes_
        proba = predictions[[f"probability_{c}" for c in classes]].to_numpy()
        members = self._sets(proba)
        try:
            return (
                None
                if members is None
                else coverage_by_class(
                    self._truth(table[self.target], name), members, classes=classes
                )
            )
        except ValueError:
            return None

    @property
    def _classifies(self) -> bool:
        return self.task == "classification"

    def _features(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        used = [*self.numeric, *self.categorical]
        check_columns(table, used, name, ", which the model was fitted to")
        features = feature_frame(table[used], self.numeric, self.categorical, name)
        for column, known in self._categories:
            features[column] = as_known(features[column], known)
        return features if self._encoder is None else typed(features, self.categorical)

    @property
    def _categories(self) -> Iterable[tuple[str, NDArray]]:
        """Columns of categories, with those that were in the training data."""
        encoder = self._encoder
        if encoder is not None:
            return ((name, encoder.categories_[name]) for name in self.categorical)
        if not self.categorical:
            return ()
        # Of files of earlier versions.
        one_hot = self.pipeline[0].named_transformers_["categorical"]
        return zip(self.categorical, one_hot.categories_, strict=True)

    @property
    def _encoder(self) -> TableEncoder | None:
        first = self.pipeline[0]
        return first if isinstance(first, TableEncoder) else getattr(first, "encoder_", None)

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
        with unsaid(UnseenWarning):  # `_warn_of_news` says it by line
            for step in self.pipeline[:-1] if len(self.pipeline) > 1 else ():
                features = step.transform(features)
            return self.estimator.predict_distribution(features)

    def _warn_of_news(self, features: pd.DataFrame, name: str) -> None:
        def warn(column: str, what: str, news: pd.Series, why: str) -> None:
            warn_user(
                f"Column {column!r} of {name} {what} in {first(news, news)}{and_others(news)}, "
                f"{why}, and the uncertainty does not show it.",
            )

        for column, known in self._categories:
            values = features[column]
            gaps = self._has_gaps(column, known)
            news = ~values.isin(known) & ~(values.isna() & gaps)
            if news.any():
                texts = values[news].dropna()
                example = repr(texts.iloc[0]) if len(texts) else "nothing"
                why = "which no row of the training data had: it counts as none of the known"
                warn(column, f"holds {example}", news, f"{why} categories")
        known_gaps, constants = self._of_numbers
        for number, column in enumerate(self.numeric):
            values = features[column]
            if values.isna().any() and number not in known_gaps:
                why = "and was nowhere empty in the training data: its median is taken"
                warn(column, "is empty", values.isna(), why)
            if number in constants:
                value = constants[number]
                news = values.notna() & ~np.isclose(values, value)
                if news.any():
                    why = f"and was {value:g} in every row of the training data: it has no scale"
                    warn(column, f"holds {values[news].iloc[0]:g}", news, why)

    def _has_gaps(self, column: str, known: NDArray) -> bool:
        """Whether a column of categories had gaps in the training data."""
        encoder = self._encoder
        return bool(pd.isna(known).any()) if encoder is None else encoder.knows_gaps(column)

    @property
    def _of_numbers(self) -> tuple[set[int], dict[int, float]]:
        """Columns of numbers with gaps in the training data, and those that never varied."""
        encoder = self._encoder
        if encoder is not None:  # numbers come first
            gaps = {n for n, name in enumerate(self.numeric) if encoder.knows_gaps(name)}
            return gaps, dict(encoder.constants())
        if not self.numeric:
            return set(), {}
        gaps = set(self.pipeline[0].named_transformers_["numeric"].indicator_.features_.tolist())
        scaler = getattr(self.estimator, "_scaler", None)
        if scaler is None:
            return gaps, {}
        # scikit-learn divides by 1 where a column does not vary.
        still = np.flatnonzero(~np.isclose(scaler.scale_**2, scaler.var_)[: len(self.numeric)])
        return gaps, {int(number): float(scaler.mean_[number]) for number in still}

    def _sets(self, proba: Floats) -> NDArray[np.bool_] | None:
        if isinstance(self.conformal, ConformalSets):
            return self.conformal.sets(proba)
        return None if self.quantile is None else prediction_sets(proba, self.quantile)

    def _classes(self, prediction: Any) -> pd.DataFrame:
        proba, classes = prediction.proba(), self.estimator.classes_
        columns = {"prediction": classes[proba.argmax(axis=1)]}
        columns |= {f"probability_{c}": p for c, p in zip(classes, proba.T, strict=True)}
        columns["total_uncertainty"] = prediction.total_uncertainty
        columns["aleatoric"] = prediction.aleatoric
        columns["epistemic"] = prediction.epistemic
        members = self._sets(proba)
        if members is not None:
            columns["prediction_set"] = [
                SEPARATOR.join(str(c) for c in classes[row]) for row in members
            ]
        if self.decisions is not None:
            columns["decision"] = self.decisions.decide(
                proba, prediction.total_uncertainty, classes
            )
        return pd.DataFrame(columns)

    def _intervals(self, prediction: Any, level: float) -> pd.DataFrame:
        mean, epistemic, std = _moments(self.estimator, prediction)
        factor = stats.norm.ppf((1 + level) / 2) if self.quantile is None else self.quantile
        rule = self.conformal
        if not isinstance(rule, ConformalIntervals):
            rule = ConformalIntervals(factor, factor, level, False)
        lower, upper = rule.interval(mean, std)
        return pd.DataFrame(
            {
                "prediction": mean,
                "std": std,
                "epistemic_std": epistemic,
                "lower": lower,
                "upper": upper,
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
    sets: Sets = "class",
    intervals: Intervals = "symmetric",
    weight: str | None = None,
    decide: DecisionPlan | None = None,
    seed: int = 0,
    name: str = "the table",
) -> TableModel:
    """Fit an estimator to a table.

    Its columns become features as `TableEncoder` says.

    Parameters
    ----------
    table : DataFrame
        Features and target.
    target : str
        Column of the target.
    estimator : estimator
        Of this package, a classifier or a regressor as `task` says.
    task : {"classification", "regression"}, optional
        None takes the estimator's.
    drop : sequence of str
        Columns to leave out.
    categorical : sequence of str
        Columns of numbers that are codes of categories, and of text with many values.
    conformal : float, optional
        Probability with which sets or intervals shall hold the truth. A fifth of the rows, taken
        at random, is held out for it.
    sets : {"class", "all", "adaptive"}
        What the sets promise: "class" coverage for each class; "all" on average over all rows, by
        the smallest sets; "adaptive" on average, by sets that grow where the model is unsure
        (`calibration.conformal_sets`, "aps"). No set is empty.
    intervals : {"symmetric", "asymmetric"}
        Whether either side of the intervals has its own quantile: for skewed targets.
    weight : str, optional
        Column of the rows' weights: 2 is the row twice. It is no feature. Rows that are held out
        count once: the promise is of rows.
    decide : DecisionPlan, optional
        What shall be decided of each row. Thresholds that keep a promise take it from the rows that
        are held out, a fifth of all.
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
    frame = model_frame(
        table, target, task, drop=drop, categorical=categorical, weight=weight, name=name
    )
    return fit_frame(
        frame,
        estimator,
        conformal=conformal,
        sets=sets,
        intervals=intervals,
        decide=decide,
        seed=seed,
    )


def fit_frame(
    frame: ModelFrame,
    estimator: Any,
    *,
    conformal: float | None = None,
    sets: Sets = "class",
    intervals: Intervals = "symmetric",
    decide: DecisionPlan | None = None,
    seed: int = 0,
) -> TableModel:
    """The same, of a table that is understood."""
    features, y, task, name = frame.features, frame.y, frame.task, frame.name
    if task == "regression" and _draws_one(estimator):
        raise ValueError(
            "One member or draw has no spread, and gives no standard deviation: take two or more, "
            'or uncertainty="none".'
        )
    features = typed(features, frame.categorical)
    steps = [("estimator", estimator)]
    if getattr(estimator, "architecture", estimator) is not None:
        steps = [("columns", TableEncoder()), *steps]
    pipeline = Pipeline(steps)
    model = TableModel(pipeline, task, frame.target, frame.numeric, frame.categorical)
    train, held_out = np.arange(len(y)), np.arange(0)
    if decide is not None and task == "regression":
        raise ValueError("decisions are between classes, and this is a regression")
    if decide is not None:
        check_plan(decide, np.unique(y))
    holds_out = conformal is not None or (decide is not None and decide.needs_held_out)
    if holds_out:
        train, held_out = _hold_out(y, task, conformal, seed, name)
    if decide is not None and decide.needs_held_out:
        check_promises(decide, np.unique(y), y[held_out])
    weights = {}
    if frame.weights is not None:
        weights = {f"{step}__sample_weight": frame.weights[train] for step, _ in steps}
    pipeline.fit(features.iloc[train], y[train], **weights)
    if not holds_out:
        return replace(
            model,
            decisions=None if decide is None else decisions_from(decide, pipeline[-1].classes_),
        )
    prediction, truth = model._distribution(features.iloc[held_out]), y[held_out]
    calibration = _calibration(model, prediction, truth, features.iloc[held_out])
    model = replace(model, held_out=tuple(calibration.to_dict("records")))
    if decide is not None:
        decisions = decisions_from(
            decide,
            pipeline[-1].classes_,
            truth,
            prediction.proba(),
            np.asarray(prediction.total_uncertainty),
        )
        model = replace(model, decisions=decisions)
    if conformal is None:
        return model
    return replace(
        model,
        level=conformal,
        conformal=_conformal(pipeline[-1], prediction, truth, conformal, sets, intervals, name),
    )


def _calibration(
    model: TableModel, prediction: Any, truth: NDArray, features: pd.DataFrame
) -> pd.DataFrame:
    """What was promised of rows that were held out, and what came."""
    groups = {}
    for name in model.categorical:
        values = as_text(features[name]).fillna("nothing").to_numpy(dtype=np.str_)
        if len(np.unique(values)) <= _MOST_GROUPS:
            groups[name] = values
    if model.task == "classification":
        classes = model.estimator.classes_
        return calibration_of_classes(truth, prediction.proba(), classes=classes, groups=groups)
    mean, _, std = _moments(model.estimator, prediction)
    return calibration_of_intervals(truth, mean, std, groups=groups)


def _conformal(
    estimator: Any,
    prediction: Any,
    truth: NDArray,
    conformal: float,
    sets: Sets,
    intervals: Intervals,
    name: str,
) -> ConformalSets | ConformalIntervals:
    """What makes sets or intervals, from the rows that were held out."""
    if hasattr(estimator, "classes_"):
        classes, proba = estimator.classes_, prediction.proba()
        kind: dict[str, Any] = {"per_class": sets == "class"}
        kind["score"] = "aps" if sets == "adaptive" else "lac"
        rule = conformal_sets(truth, proba, conformal, classes=classes, **kind)
        _warn_of_small_classes(rule, classes, name)
        return rule
    mean, _, std = _moments(estimator, prediction)
    return conformal_intervals(truth, mean, std, conformal, asymmetric=intervals == "asymmetric")


def _warn_of_small_classes(rule: ConformalSets, classes: NDArray, name: str) -> None:
    least = int(np.ceil(rule.level / (1 - rule.level) * (1 - 1e-12)))
    small = [str(c) for c, n in zip(classes, rule.counts, strict=True) if n < least]
    if rule.per_class and small:
        warn_user(
            f"Of class {', '.join(small)} of {name} fewer than {least} rows are held out, a fifth "
            f"of all, which a promise of {rule.level:g} for a class takes: it is in every set. "
            "Lower the level, or promise an average over all rows (--sets all).",
        )


def _hold_out(
    y: NDArray, task: Task, level: float | None, seed: int, name: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to fit to, and rows to take the conformal quantile from."""
    size = check_held_out(y, task, level, name)
    stratify = y if task == "classification" else None
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
