"""What calibrating the default classifier on its own out-of-fold predictions is worth.

Of each table and split `NTKClassifier()` predicts its training points out of five folds, the whole
choice made anew in each, and a calibrator learns from these; the test points' predictions are then
corrected. Prints the mean log loss, Brier score and calibration error, how many nats a point each
calibrator loses or gains, with the standard error over tables and splits, and how often it gained.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rivals.against_rivals import KEEL, SHIPPED, floored, problem
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold

import ntk_uq as nuq
from ntk_uq import metrics
from ntk_uq.calibration import fit_temperature, temper

Floats = np.ndarray


class _Known(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities [n, C] are known; points are the numbers of their rows."""

    def __init__(self, proba: Floats):
        self.proba = proba
        self.classes_ = np.arange(proba.shape[1])

    def fit(self, X: Floats, y: Floats) -> "_Known":
        return self

    def predict(self, X: Floats) -> Floats:
        return np.argmax(self.predict_proba(X), axis=1)

    def predict_proba(self, X: Floats) -> Floats:
        return self.proba[np.asarray(X, int)[:, 0]]


def by_sklearn(method: str) -> Any:
    def calibrated(known: Floats, y: Floats, unseen: Floats) -> Floats:
        rows = np.arange(len(known) + len(unseen))[:, None]
        model = FrozenEstimator(_Known(np.concatenate([known, unseen])))
        calibrator = CalibratedClassifierCV(model, method=method).fit(rows[: len(known)], y)
        return calibrator.predict_proba(rows[len(known) :])

    return calibrated


def by_temperature(known: Floats, y: Floats, unseen: Floats) -> Floats:
    return temper(unseen, fit_temperature(y, known).temperature)


def by_matrix(known: Floats, y: Floats, unseen: Floats) -> Floats:
    """Multinomial logistic regression on log probabilities, its penalty by cross-validation."""
    logs = [np.log(p) - np.log(p).mean(axis=1, keepdims=True) for p in (known, unseen)]
    model = LogisticRegressionCV(
        Cs=7,
        cv=5,
        scoring="neg_log_loss",
        max_iter=1000,
        use_legacy_attributes=False,
        l1_ratios=(0,),
    )
    return model.fit(logs[0], y).predict_proba(logs[1])


CALIBRATORS = {
    "none": lambda known, y, unseen: unseen,
    "temperature": by_temperature,
    "temperature, scikit-learn": by_sklearn("temperature"),
    "matrix scaling": by_matrix,
    "sigmoid, scikit-learn": by_sklearn("sigmoid"),
    "isotonic, scikit-learn": by_sklearn("isotonic"),
}


def predicted(x: Floats, y: Floats, unseen: Floats, classes: int) -> Floats:
    """Probabilities [m, C] of a default fit, zero for classes that it has not seen."""
    model = nuq.NTKClassifier(progress=False, random_state=0).fit(x, y)
    proba = np.zeros((len(unseen), classes))
    proba[:, model.classes_] = model.predict_proba(unseen)
    return floored(proba)


def one_split(one: Any) -> list[dict[str, Any]]:
    x, y = one.X, one.y
    classes = y.max() + 1
    known = np.empty((len(y), classes))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for train, held_out in folds.split(x, y):
        known[held_out] = predicted(x[train], y[train], x[held_out], classes)
    unseen = predicted(x, y, one.unseen, classes)
    rows = []
    for name, calibrate in CALIBRATORS.items():
        proba = floored(calibrate(known, y, unseen))
        ece = metrics.expected_calibration_error(one.truth, proba)
        scores = metrics.scores(one.truth, proba)
        rows.append({"calibrator": name, "problem": one.name, **scores, "ece": ece})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keel", type=Path, help="folder with the KEEL repository's .dat files")
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--train", type=int, default=300, help="rows to train on, at most")
    parser.add_argument("--test", type=int, default=2000, help="rows to test, at most")
    parser.add_argument("--quick", action="store_true", help="small and few, to see it run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tables = SHIPPED + (KEEL if options.keel else ())
    if options.quick:
        tables, options.splits, options.train, options.test = tables[:1], 1, 60, 60
    rows = []
    for seed in range(options.splits):
        for table in tables:
            rows += one_split(problem(table, options.keel, seed, options.train, options.test))
            print(f"{table}, split {seed}", end=" ", flush=True)
    found = pd.DataFrame(rows)
    losses = found.pivot(index="problem", columns="calibrator", values="log_loss")
    lost = losses.sub(losses["none"], axis=0)
    table = found.groupby("calibrator", sort=False)[["log_loss", "brier", "ece"]].mean()
    table["lost"] = lost.mean()
    table["error"] = lost.std() / np.sqrt(len(lost))
    table["gained"] = (lost < 0).sum()
    print(f"\n{len(lost)} splits; losses in nats\n{table.round(4).to_string()}")


if __name__ == "__main__":
    main()
