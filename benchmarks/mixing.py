"""What the mixture of `NTKClassifier()` gains over the best of its networks alone.

Of each table as many random splits as are asked for, at most 300 rows to train on and at most 2,000
to test. The networks are chosen once; *one* is the first of the mixture with all the draws, *mixed*
the estimator as it is, and *no twins* the mixture without the networks that see normal scores, its
other weights alike. Log loss in nats, Brier score and calibration error of the held-out rows, and
mean differences with their standard errors over splits.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from rivals.against_rivals import FLOOR, KEEL, features_and_labels, floored, split

import ntk_uq as nuq
from ntk_uq import metrics

SHIPPED = ("iris", "wine", "breast_cancer", "digits")
MEASURES = ("log_loss", "brier", "ece")
TABLES = KEEL[KEEL.index("australian") :]


def probabilities(x, y, unseen, uncertainty):
    """Of the three, and processor time of the estimator as it is, fit and prediction."""
    start = time.process_time()
    model = nuq.NTKClassifier(uncertainty=uncertainty, progress=False).fit(x, y)
    found = {"mixed": model.predict_proba(unseen)}
    seconds = time.process_time() - start
    parts, weights = [], []
    for one in model.mixture_.components:
        if isinstance(one.architecture, nuq.NormalScores):
            continue
        alone = nuq.NTKClassifier(one.architecture, one.reg, uncertainty, progress=False)
        points, test = (model.encoder_.transform(z) * one.feature_scales for z in (x, unseen))
        counts = np.full(len(y), one.label_weight)
        parts.append(alone.fit(points, y, sample_weight=counts).predict_proba(test))
        weights.append(one.weight)
    found |= {"one": parts[0], "no twins": np.average(parts, axis=0, weights=weights)}
    return found, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keel", type=Path, help="folder with the KEEL repository's .dat files")
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--tables", nargs="+", default=[*SHIPPED, *TABLES])
    parser.add_argument("--uncertainty", default="initialization")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for name in options.tables:
        if name not in SHIPPED and options.keel is None:
            continue
        x, y = features_and_labels(name, options.keel)
        for seed in range(options.splits):
            train, test = split(y, seed)
            known, labels = np.unique(y[train], return_inverse=True)
            found, seconds = probabilities(x[train], labels, x[test], options.uncertainty)
            truth = np.searchsorted(known, y[test])
            row = {"seconds": seconds}
            for rule, proba in found.items():
                scores = metrics.scores(truth, floored(proba))
                row |= {f"{measure}, {rule}": scores[measure] for measure in MEASURES}
            rows[name, seed] = row
            print(name, seed, {k: round(v, 3) for k, v in row.items()}, flush=True)
    table = pd.DataFrame(rows).T
    print(f"Probabilities are at least {FLOOR:g} in the log loss.")
    print(table.groupby(level=0).mean().round(3).to_string())
    print(table.mean().round(4).to_string())
    for measure in MEASURES:
        for rule in ("mixed", "no twins"):
            gain = table[f"{measure}, {rule}"] - table[f"{measure}, one"]
            error = gain.std() / np.sqrt(len(gain))
            print(f"{measure}, {rule} less one: {gain.mean():+.4f} ± {error:.4f}")


if __name__ == "__main__":
    main()
