"""A table of numbers, categories and gaps: how its columns are encoded, and what that costs.

Each split draws another table: 15 numbers, a few skewed, one in twenty cells of three empty, and
categories of 3, 8, 15 and 30 levels whose frequencies fall like 1 / rank. One row in five is
positive; that depends on numbers, on levels, and on one interaction of both. Log loss in nats at
test rows, mean over the splits, and the standard error of the difference from `NTKClassifier()` on
the data frame.

python benchmarks/mixed_table.py                 # in Python, 800 rows
python benchmarks/mixed_table.py --shell 10000   # by `ntk-uq fit`: what it says, seconds, memory
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import ntk_uq as nuq

LEVELS = {"site": 3, "device": 8, "region": 15, "product": 30}


def mixed_table(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The table, and the answer."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, 15))
    signal = -3.6 + 0.9 * numbers[:, 0] - 0.7 * numbers[:, 1] + 0.5 * numbers[:, 2] ** 2
    signal += 0.4 * numbers[:, 3] * numbers[:, 4]
    columns: dict[str, Any] = {}
    for name, levels in LEVELS.items():
        shares = 1 / np.arange(1, levels + 1)
        level = rng.choice(levels, n, p=shares / shares.sum())
        signal += 0.8 * rng.normal(size=levels)[level]
        columns[name] = pd.Categorical.from_codes(level, [f"{name} {k}" for k in range(levels)])
    signal += 0.8 * numbers[:, 5] * (columns["site"].codes == 0)
    y = (rng.random(n) < 1 / (1 + np.exp(-signal))).astype(int)
    numbers[:, :3] = np.where(rng.random((n, 3)) < 0.05, np.nan, numbers[:, :3])
    numbers[:, 10:13] = np.exp(numbers[:, 10:13])
    table = pd.DataFrame(numbers, columns=[f"x{j}" for j in range(15)])
    return table.assign(**columns), y


def standardised() -> ColumnTransformer:
    """Indicators as numbers like others, which the estimator then standardises."""
    return ColumnTransformer(
        [
            (
                "numbers",
                SimpleImputer(strategy="median", add_indicator=True),
                make_column_selector(dtype_include=float),
            ),
            (
                "categories",
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                make_column_selector(dtype_include="category"),
            ),
        ]
    )


METHODS: dict[str, Callable[[], Any]] = {
    "NTKClassifier() on the data frame": lambda: nuq.NTKClassifier(),
    "NTKClassifier() on standardised indicators": lambda: make_pipeline(
        standardised(), nuq.NTKClassifier()
    ),
    "logistic regression behind TableEncoder()": lambda: make_pipeline(
        nuq.TableEncoder(),
        LogisticRegressionCV(
            l1_ratios=(0,), max_iter=1000, scoring="neg_log_loss", use_legacy_attributes=False
        ),
    ),
    "histogram boosting": lambda: HistGradientBoostingClassifier(
        categorical_features="from_dtype", early_stopping=True, random_state=0
    ),
}


def by_shell(rows: int, test: int) -> None:
    """A file in, a model and predictions out, and what the shell says meanwhile."""
    table, y = mixed_table(rows + test, seed=0)
    table = table.assign(answer=np.array(["no", "yes"])[y])
    with tempfile.TemporaryDirectory() as folder:
        table[:rows].to_csv(f"{folder}/train.csv", index=False)
        table[rows:].to_csv(f"{folder}/test.csv", index=False)

        def run(*arguments: str) -> tuple[str, float]:
            command = [sys.executable, "-m", "ntk_uq.cli", *arguments]
            start = time.perf_counter()
            said = subprocess.run(
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=True,
            ).stdout
            print("$ ntk-uq", *arguments)
            print(said)
            return said, time.perf_counter() - start

        said, seconds = run("fit", "train.csv", "--target", "answer", "-o", "model.ntk")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB, on Linux
        print(f"fit: {seconds:.0f} s, {peak:.1f} GiB, {len(said.splitlines())} lines\n")
        _, seconds = run("predict", "model.ntk", "test.csv", "-o", "predictions.csv")
        print(f"predict: {seconds:.0f} s, {test} rows\n")
    boosting = METHODS["histogram boosting"]().fit(table[:rows].drop(columns="answer"), y[:rows])
    proba = boosting.predict_proba(table[rows:].drop(columns="answer"))
    print(f"histogram boosting: log loss {log_loss(y[rows:], proba):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--test", type=int, default=2500)
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--shell", type=int, metavar="ROWS")
    arguments = parser.parse_args()
    if arguments.shell:
        return by_shell(arguments.shell, arguments.test)
    losses: dict[str, list[float]] = {name: [] for name in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for seed in range(arguments.splits):
        table, y = mixed_table(arguments.train + arguments.test, seed)
        cut = arguments.train
        for name, new in METHODS.items():
            start = time.perf_counter()
            proba = new().fit(table[:cut], y[:cut]).predict_proba(table[cut:])
            seconds[name] += time.perf_counter() - start
            losses[name].append(log_loss(y[cut:], proba))
    first = np.array(next(iter(losses.values())))
    print(f"{arguments.train} rows, {arguments.splits} tables, {np.mean(y):.1%} positive\n")
    print("| method | log loss | difference | seconds |\n|---|---|---|---|")
    for name, values in losses.items():
        change = np.array(values) - first
        error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
        print(
            f"| {name} | {np.mean(values):.4f} | {change.mean():+.4f} ± {error:.4f} "
            f"| {seconds[name] / len(values):.0f} |"
        )


if __name__ == "__main__":
    main()
