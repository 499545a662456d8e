"""What else one might pick: classifiers of other packages on the same tables, splits and tuning.

Every method sees the same random splits, at most 300 rows to train on and the rest, at most 2,000,
to test, with features standardised by the training part. It chooses its settings within the
training part by the log loss of three inner folds, or as its makers say (the evidence for Gaussian
processes and Laplace; ours by its defaults). Accuracy, log loss, Brier score and expected
calibration error of the test rows, processor time, mean ranks over tables, whose error comes from
resampling tables and the points within each, and where ours loses most.

`make bench-rivals` gives each package of others an environment of its own, and the tables of the
KEEL repository. Predictions are kept in `--results`, and not made again: a run that was stopped
goes on, `--splits 2` after `--splits 1` makes the second only, and `--kept` makes none.
"""

import argparse
import os
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
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
# Packages in environments of their own: the script that runs there, and its methods.
ELSEWHERE = {
    "catboost": ("with_catboost.py", ("CatBoost",)),
    "lightgbm": ("with_lightgbm.py", ("LightGBM",)),
    "pytabkit": ("with_pytabkit.py", ("RealMLP", "TabM", "xRFM")),
    "laplace": ("with_laplace.py", ("laplace-torch",)),
    "bde": ("with_bde.py", ("sklearn-contrib-bde",)),
}
# Also ranked by themselves: what one would try first.
FIRST = (
    "NTKClassifier()", "CatBoost", "random forest", "ten Adam networks", "SVM, Platt scaling",
    "logistic regression", "xRFM",
)  # fmt: skip


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


def features_and_labels(name: str, keel: Path | None) -> tuple[np.ndarray, np.ndarray]:
    return keel_table(keel, name) if keel and name in KEEL else shipped_table(name)


def split(
    y: np.ndarray, seed: int, most: int = 300, most_test: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, at most two thirds, and rows to test whose class is among them."""
    order = np.random.default_rng(seed).permutation(len(y))
    n = min(most, 2 * len(y) // 3)
    train, test = order[:n], order[n : n + most_test]
    return train, test[np.isin(y[test], y[train])]


class Problem(NamedTuple):
    """A split of a table; classes are numbered as they occur in the training part."""

    table: str
    seed: int
    X: np.ndarray
    y: np.ndarray
    unseen: np.ndarray
    truth: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.table}-{len(self.y)}-{len(self.truth)}-{self.seed}"


def problem(name: str, keel: Path | None, seed: int, most: int, most_test: int) -> Problem:
    x, y = features_and_labels(name, keel)
    train, test = split(y, seed, most, most_test)
    classes, labels = np.unique(y[train], return_inverse=True)
    scaler = StandardScaler().fit(x[train])
    known, unseen = scaler.transform(x[train]), scaler.transform(x[test])
    return Problem(name, seed, known, labels, unseen, np.searchsorted(classes, y[test]))


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


def here(make: Callable[[], Any], one: Problem) -> dict[str, Any]:
    """Class probabilities of the test rows [m, C], and seconds of fit, tuning and prediction.

    Of ours also once more, when programs are compiled.
    """
    result: dict[str, Any] = {}
    for name in ("seconds", "again") if isinstance(make(), nuq.NTKClassifier) else ("seconds",):
        start = time.process_time()
        result["proba"] = make().fit(one.X, one.y).predict_proba(one.unseen)
        result[name] = time.process_time() - start
    return result


def elsewhere(python: str, script: str, method: str, problems: dict[Path, Problem]) -> None:
    """The same by a script in an environment of its own, which writes the results."""
    paths = {path.with_suffix(".problem.npz"): one for path, one in problems.items()}
    for path, one in paths.items():
        np.savez(path, X=one.X, y=one.y, unseen=one.unseen)
    command = [python, str(Path(__file__).with_name(script)), method, *map(str, paths)]
    # Tables are small: threads would wait for each other.
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def predictions(
    problems: list[Problem], methods: dict[str, Any], folder: Path, make: bool = True
) -> dict[tuple[str, str], Any]:
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for method, rule in methods.items():
        letters = "".join(c if c.isalnum() else "_" for c in method)
        paths = {folder / f"{letters}-{one.name}.npz": one for one in problems}
        missing = {path: one for path, one in paths.items() if make and not path.exists()}
        if missing and isinstance(rule, tuple):
            elsewhere(*rule, method, missing)
        elif missing:
            for path, one in missing.items():
                np.savez(path, **here(rule, one))
                print(f"done: {method}, {one.name}", flush=True)
        for path, one in paths.items():
            if path.exists():
                with np.load(path) as file:
                    results[method, one.name] = dict(file)
    return results


def floored(proba: np.ndarray) -> np.ndarray:
    proba = np.maximum(proba, FLOOR)
    return proba / proba.sum(axis=1, keepdims=True)


def measure(one: Problem, result: dict[str, Any]) -> dict[str, float]:
    seconds = float(result["seconds"])
    return metrics.scores(one.truth, floored(result["proba"])) | {"seconds": seconds}


def mean_ranks(losses: np.ndarray) -> np.ndarray:
    """Mean over tables of each method's rank: [M] for mean losses [T, M], 1 the lowest."""
    return pd.DataFrame(losses).rank(axis=1).to_numpy().mean(axis=0)


def rank_table(
    problems: list[Problem], methods: list[str], results: dict, loss: str, resamples: int = 1000
) -> pd.DataFrame:
    """Mean rank with its standard error, and the mean difference in loss to the first method."""
    of_table: dict[str, list[np.ndarray]] = {}
    for one in problems:
        rules = [floored(results[m, one.name]["proba"]) for m in methods]
        losses = [metrics.pointwise_losses(one.truth, proba)[loss] for proba in rules]
        of_table.setdefault(one.table, []).append(np.stack(losses, axis=1))
    points = [np.concatenate(parts) for parts in of_table.values()]
    means = np.array([p.mean(axis=0) for p in points])
    rng, ranks, gaps = np.random.default_rng(0), [], []
    for _ in range(resamples):
        drawn = [points[t] for t in rng.integers(len(points), size=len(points))]
        resampled = np.array([p[rng.integers(len(p), size=len(p))].mean(axis=0) for p in drawn])
        ranks.append(mean_ranks(resampled))
        gaps.append((resampled - resampled[:, :1]).mean(axis=0))
    ahead = means[:, :1] < means
    frame = pd.DataFrame(
        {
            "mean rank": mean_ranks(means),
            "±": np.std(ranks, axis=0),
            "mean": means.mean(axis=0),
            "less ours": (means - means[:, :1]).mean(axis=0),
            "± ": np.std(gaps, axis=0),
            "ours ahead on": [f"{n} of {len(means)}" for n in ahead.sum(axis=0)],
        },
        index=methods,
    )
    return frame.sort_values("mean rank")


def worst(losses: pd.DataFrame) -> pd.DataFrame:
    """Where ours loses most: losses [method, table], the first method's against the best other."""
    ours, others = losses.iloc[0], losses.iloc[1:]
    frame = pd.DataFrame({"ours": ours, "best other": others.min(), "which": others.idxmin()})
    frame["excess"] = frame["ours"] / frame["best other"] - 1
    return frame.sort_values("excess", ascending=False)


def times_as_long(problems: list[Problem], methods: list[str], results: dict) -> pd.Series:
    """Processor time against ours once it is compiled: the median over tables of the ratio."""
    seconds = np.array([[results[m, one.name]["seconds"] for one in problems] for m in methods])
    ours = np.array([results[methods[0], one.name]["again"] for one in problems])
    return pd.Series(np.median(seconds / ours, axis=1), methods).sort_values()


def report(problems: list[Problem], methods: list[str], results: dict) -> None:
    rows = {
        (m, one.table, one.seed): measure(one, results[m, one.name])
        for m in methods
        for one in problems
    }
    frame = pd.DataFrame(rows).T.groupby(level=[0, 1]).mean()
    names = list(dict.fromkeys(one.table for one in problems))
    ranked = [m for m in methods if m not in NOT_RANKED]
    print(f"\n{len(names)} tables, {len(problems)} splits in all")
    for name in ("log_loss", "brier"):
        losses = frame[name].unstack().loc[methods, names]
        print(f"\n{name} of each table")
        print(losses.round(3).T.to_string())
        if len(ranked) > 1:
            print(f"\n{name}: ours against the best other of each table")
            print(worst(losses.loc[ranked]).round(3).to_string())
    print("\nmeans over tables; seconds of processor time: fit, tuning and prediction of a split")
    print(frame.groupby(level=0).mean().loc[methods, list(MEASURES)].round(3).to_string())
    if all("again" in results[methods[0], one.name] for one in problems):
        print(
            f"\nprocessor time, median over tables: times {methods[0]}'s second call in a process"
        )
        print(times_as_long(problems, methods, results).round(2).to_string())
    for title, group in (
        ("", ranked),
        (" among the first seven", [m for m in FIRST if m in ranked]),
    ):
        for loss in ("log_loss", "brier") if len(group) > 1 else ():
            print(f"\nranks by {loss}{title}")
            print(rank_table(problems, group, results, loss).round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=300, help="rows to train on, at most")
    parser.add_argument("--test", type=int, default=2000, help="rows to test, at most")
    parser.add_argument("--splits", type=int, default=1, help="random splits of each table")
    parser.add_argument("--tables", nargs="+", help="some of them")
    parser.add_argument("--keel", type=Path, help="folder with the KEEL repository's .dat files")
    for package in ELSEWHERE:
        parser.add_argument(f"--{package}-python", help=f"interpreter with {package}")
    parser.add_argument("--results", type=Path, default=Path(".cache/rivals"))
    parser.add_argument("--only", nargs="+", help="methods whose names begin so")
    parser.add_argument("--kept", action="store_true", help="report what every method has, no more")
    parser.add_argument("--quick", action="store_true", help="small and few, to see it run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of convergence and of bounds, during tuning
    methods: dict[str, Any] = dict(METHODS)
    for package, (script, names) in ELSEWHERE.items():
        if python := getattr(options, f"{package}_python"):
            methods |= dict.fromkeys(names, (python, script))
    chosen = options.tables or SHIPPED + (KEEL if options.keel else ())
    if options.quick:
        chosen, options.train, options.test, options.splits = chosen[:2], 40, 40, 1
        methods = {name: METHODS[name] for name in ("NTKClassifier()", "logistic regression")}
    if options.only:
        methods = {m: f for m, f in methods.items() if m.startswith(tuple(options.only))}
    problems = [
        problem(name, options.keel, seed, options.train, options.test)
        for seed in range(options.splits)
        for name in chosen
    ]
    results = predictions(problems, methods, options.results, make=not options.kept)
    complete = [one for one in problems if all((m, one.name) in results for m in methods)]
    report(complete, list(methods), results)


if __name__ == "__main__":
    main()
