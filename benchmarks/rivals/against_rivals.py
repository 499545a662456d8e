"""What else one might pick: classifiers of other packages on the same tables, folds and tuning.

Every method sees the same five outer folds, with features standardised by the training part, and
chooses its settings within the training part by the log loss of three inner folds, or as its
package does (the evidence for Gaussian processes and Laplace; ours by its defaults, five folds).
Accuracy, log loss, Brier score and expected calibration error of the held-out points, processor
time, and mean ranks over tables, whose error comes from resampling tables, and the points within
each, the same for every method.

`make bench-rivals` gives CatBoost, laplace-torch and sklearn-contrib-bde an environment each, and
the tables of the KEEL repository. Predictions are kept in `--results`, and not made again.
"""

import argparse
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import ntk_uq as nuq
from ntk_uq import metrics

MEASURES = ("accuracy", "log_loss", "brier", "ece", "seconds")
SHIPPED = ("iris", "wine", "breast_cancer", "digits", "diabetes_thirds")
KEEL = (
    "sonar", "ionosphere", "heart", "vehicle", "pima",
    # Features that act one by one or in rules, categories, noise, and more points than are taken.
    "australian", "bands", "contraceptive", "hayes-roth", "led7digit", "monk-2", "phoneme",
    "segment", "spambase", "splice", "tic-tac-toe", "wisconsin",
)  # fmt: skip
# Shown beside the others; what is ranked is what a user would pick, and ours by its defaults.
NOT_RANKED = ('NTKClassifier("posterior")', "EnsembleClassifier()")
# Without a floor one certain error is an infinite log loss; it is the same for every method.
FLOOR = 1e-6


class Table(NamedTuple):
    name: str
    X: np.ndarray
    y: np.ndarray


def shipped_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "diabetes_thirds":  # a regression table: its target cut at its terciles
        x, y = datasets.load_diabetes(return_X_y=True)
        return x, np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
    return getattr(datasets, f"load_{name}")(return_X_y=True)


def keel_table(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as they are, an indicator for each value of a text."""
    frame = pd.read_csv(folder / f"{name}.dat", header=None, skipinitialspace=True)
    features = pd.get_dummies(frame.iloc[:, :-1], dtype=float).to_numpy(float)
    return features, np.unique(frame.iloc[:, -1], return_inverse=True)[1]


def tables(keel: Path | None, points: int) -> list[Table]:
    """Each table, or as many of its rows taken at random."""
    result = []
    for name in SHIPPED + (KEEL if keel else ()):
        x, y = keel_table(keel, name) if keel and name in KEEL else shipped_table(name)
        keep = np.random.default_rng(0).permutation(len(y))[:points]
        result.append(Table(name, x[keep], y[keep]))
    return result


class TenNetworks(ClassifierMixin, BaseEstimator):
    """Networks trained by Adam from ten seeds, without a pull towards their initialisation."""

    def __init__(self, alpha: float = 1e-4, n_members: int = 10):
        self.alpha = alpha
        self.n_members = n_members

    def fit(self, X: np.ndarray, y: np.ndarray) -> "TenNetworks":
        self.members_ = [
            MLPClassifier((64, 64), alpha=self.alpha, random_state=seed).fit(X, y)
            for seed in range(self.n_members)
        ]
        self.classes_ = self.members_[0].classes_
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.mean([member.predict_proba(X) for member in self.members_], axis=0)


def tuned(estimator: Any, **grid: list) -> GridSearchCV:
    inner = StratifiedKFold(3, shuffle=True, random_state=1)
    return GridSearchCV(estimator, grid, scoring="neg_log_loss", cv=inner, error_score="raise")


class TunedNetworks(ClassifierMixin, BaseEstimator):
    """Ten networks with the weight decay that one of them prefers."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "TunedNetworks":
        search = tuned(TenNetworks(n_members=1), alpha=[1e-4, 1e-1, 1.0, 10.0]).set_params(
            refit=False
        )
        alpha = search.fit(X, y).best_params_["alpha"]
        self.ensemble_ = TenNetworks(alpha).fit(X, y)
        self.classes_ = self.ensemble_.classes_
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self.ensemble_.predict_proba(X)


METHODS: dict[str, Callable[[], Any]] = {
    "NTKClassifier()": nuq.NTKClassifier,
    'NTKClassifier("posterior")': lambda: nuq.NTKClassifier(uncertainty="posterior"),
    "EnsembleClassifier()": nuq.EnsembleClassifier,
    "logistic regression": lambda: tuned(
        LogisticRegression(max_iter=2000), C=[0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    ),
    "random forest": lambda: tuned(
        RandomForestClassifier(200, random_state=0),
        max_features=["sqrt", 0.5],
        min_samples_leaf=[1, 3],
    ),
    "gradient boosting": lambda: tuned(
        HistGradientBoostingClassifier(random_state=0),
        learning_rate=[0.03, 0.1],
        max_leaf_nodes=[4, 16],
    ),
    "SVM, Platt scaling": lambda: tuned(
        CalibratedClassifierCV(SVC(random_state=0), ensemble=False),
        estimator__C=[1.0, 10.0, 100.0],
        estimator__gamma=[0.003, 0.01, 0.03, 0.1],
    ),
    "Gaussian process": lambda: GaussianProcessClassifier(
        ConstantKernel(1.0, (1e-3, 1e5)) * RBF(3.0, (1e-2, 1e3)), random_state=0
    ),
    "ten Adam networks": TunedNetworks,
}


def folds(y: np.ndarray, k: int) -> np.ndarray:
    """The fold of each point: [n]."""
    splitter, fold = StratifiedKFold(k, shuffle=True, random_state=0), np.empty(len(y), int)
    for i, (_, held_out) in enumerate(splitter.split(y, y)):
        fold[held_out] = i
    return fold


def held_out_predictions(make: Callable[[], Any], table: Table, fold: np.ndarray) -> dict[str, Any]:
    """Class probabilities [n, C] of each point when it was held out, and seconds a fold."""
    proba, seconds = np.zeros((len(table.y), len(np.unique(table.y)))), []
    for k in np.unique(fold):
        train = fold != k
        model = make_pipeline(StandardScaler(), clone(make()))
        start = time.process_time()
        model.fit(table.X[train], table.y[train])
        proba[~train] = model.predict_proba(table.X[~train])
        seconds.append(time.process_time() - start)
    return {"proba": proba, "seconds": np.median(seconds)}


def elsewhere(python: str, script: str, table: Table, fold: np.ndarray, path: Path) -> None:
    """The same by a script in an environment of its own."""
    problem = path.with_suffix(".problem.npz")
    np.savez(problem, X=table.X, y=table.y, fold=fold)
    command = [python, str(Path(__file__).with_name(script)), str(problem), str(path)]
    subprocess.run(command, check=True)
    problem.unlink()


def predictions(
    all_tables: list[Table], methods: dict[str, Any], k: int, folder: Path
) -> dict[tuple[str, str], Any]:
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for method, make in methods.items():
        for table in all_tables:
            letters = "".join(c if c.isalnum() else "_" for c in method)
            path = folder / f"{letters}-{table.name}-{len(table.y)}.npz"
            if not path.exists():
                fold = folds(table.y, k)
                if isinstance(make, tuple):
                    elsewhere(*make, table, fold, path)
                else:
                    np.savez(path, **held_out_predictions(make, table, fold))
                print(f"done: {method}, {table.name}", flush=True)
            with np.load(path) as file:
                results[method, table.name] = dict(file)
    return results


def floored(proba: np.ndarray) -> np.ndarray:
    proba = np.maximum(proba, FLOOR)
    return proba / proba.sum(axis=1, keepdims=True)


def measure(table: Table, result: dict[str, Any]) -> dict[str, float]:
    return metrics.scores(table.y, floored(result["proba"])) | {"seconds": float(result["seconds"])}


def mean_ranks(losses: np.ndarray) -> np.ndarray:
    """Mean over tables of each method's rank: [M] for mean losses [T, M], 1 the lowest."""
    return pd.DataFrame(losses).rank(axis=1).to_numpy().mean(axis=0)


def rank_table(
    all_tables: list[Table], methods: list[str], results: dict, loss: str, resamples: int = 1000
) -> pd.DataFrame:
    """Mean rank with its standard error, and the mean difference in loss to the first method."""
    points = [
        np.stack(
            [
                metrics.pointwise_losses(t.y, floored(results[m, t.name]["proba"]))[loss]
                for m in methods
            ],
            axis=1,
        )
        for t in all_tables
    ]
    means = np.array([p.mean(axis=0) for p in points])
    rng, ranks, gaps = np.random.default_rng(0), [], []
    for _ in range(resamples):
        drawn = [points[t] for t in rng.integers(len(points), size=len(points))]
        resampled = np.array([p[rng.integers(len(p), size=len(p))].mean(axis=0) for p in drawn])
        ranks.append(mean_ranks(resampled))
        gaps.append((resampled - resampled[:, :1]).mean(axis=0))
    gap = (means - means[:, :1]).mean(axis=0)
    frame = pd.DataFrame(
        {
            "mean rank": mean_ranks(means),
            "±": np.std(ranks, axis=0),
            "loss less ours": gap,
            "± ": np.std(gaps, axis=0),
            "ours ranks better": np.mean(np.array(ranks)[:, :1] < np.array(ranks), axis=0),
        },
        index=methods,
    )
    return frame.sort_values("mean rank")


def report(all_tables: list[Table], methods: list[str], results: dict) -> None:
    rows = {(m, t.name): measure(t, results[m, t.name]) for m in methods for t in all_tables}
    frame = pd.DataFrame(rows).T
    for name in ("log_loss", "brier"):
        print(f"\n{name} of each table")
        print(frame[name].unstack().loc[methods, [t.name for t in all_tables]].round(3).to_string())
    print("\nmeans over tables; seconds of processor time: one fold's fit, tuning and prediction")
    print(frame.groupby(level=0).mean().loc[methods, list(MEASURES)].round(3).to_string())
    ranked = [m for m in methods if m not in NOT_RANKED]
    for loss in ("log_loss", "brier") if ranked else ():
        print(f"\nranks by {loss}")
        print(rank_table(all_tables, ranked, results, loss).round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200, help="at most, of each table")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--keel", type=Path, help="folder with the KEEL repository's .dat files")
    parser.add_argument("--laplace-python", help="interpreter with laplace-torch")
    parser.add_argument("--catboost-python", help="interpreter with catboost")
    parser.add_argument("--bde-python", help="interpreter with sklearn-contrib-bde")
    parser.add_argument("--results", type=Path, default=Path(".cache/rivals"))
    parser.add_argument("--only", nargs="+", help="methods whose names begin so")
    parser.add_argument("--quick", action="store_true", help="small and few, to see it run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of convergence and of bounds, during tuning
    methods: dict[str, Any] = dict(METHODS)
    if options.catboost_python:
        methods["CatBoost"] = (options.catboost_python, "with_catboost.py")
    if options.laplace_python:
        methods["laplace-torch"] = (options.laplace_python, "with_laplace.py")
    if options.bde_python:
        methods["sklearn-contrib-bde"] = (options.bde_python, "with_bde.py")
    chosen = tables(options.keel, options.points)
    if options.quick:
        chosen = [table._replace(X=table.X[:60], y=table.y[:60]) for table in chosen[:2]]
        methods = {name: METHODS[name] for name in ("NTKClassifier()", "logistic regression")}
        options.folds = 2
    if options.only:
        methods = {m: f for m, f in methods.items() if m.startswith(tuple(options.only))}
    report(chosen, list(methods), predictions(chosen, methods, options.folds, options.results))


if __name__ == "__main__":
    main()
