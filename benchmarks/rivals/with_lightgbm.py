"""LightGBM: run by against_rivals.py, in an environment of its own.

The number of trees by early stopping in its own cross-validation, `lightgbm.cv`, and with it the
two settings that its makers' guide names first against overfitting: leaves of a tree and points in
a leaf, from their defaults down, since the defaults need more rows than these tables have.
"""

import itertools

import lightgbm
import numpy as np
from _held_out import run
from sklearn.model_selection import StratifiedKFold

PATIENCE, MOST = 50, 2000
LEAVES, LEAST = (4, 8, 31), (2, 5, 20)


def probabilities(x, y, unseen):
    n_classes = int(y.max()) + 1
    settings = {"learning_rate": 0.05, "seed": 0, "num_threads": 1, "verbosity": -1}
    if n_classes == 2:
        settings |= {"objective": "binary", "metric": "binary_logloss"}
    else:
        settings |= {"objective": "multiclass", "metric": "multi_logloss", "num_class": n_classes}
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y))
    tried = []
    for leaves, least in itertools.product(LEAVES, LEAST):
        candidate = settings | {"num_leaves": leaves, "min_data_in_leaf": least}
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        scores = lightgbm.cv(
            candidate, lightgbm.Dataset(x, y), MOST, folds=folds, callbacks=[stop]
        )[f"valid {settings['metric']}-mean"]
        tried.append((min(scores), len(scores), candidate))
    _, trees, best = min(tried, key=lambda one: one[0])
    proba = lightgbm.train(best, lightgbm.Dataset(x, y), trees).predict(unseen)
    return np.stack([1 - proba, proba], axis=1) if n_classes == 2 else proba


if __name__ == "__main__":
    run(__doc__, {"LightGBM": probabilities})
