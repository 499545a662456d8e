"""The outer folds of a table, for a rival in an environment of its own."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler


def run(
    about: str | None,
    chosen: Callable[[np.ndarray, np.ndarray], Any],
    probabilities: Callable[[np.ndarray, np.ndarray, np.ndarray, Any], np.ndarray],
) -> None:
    """Read a table and its folds (npz); write probabilities of the held-out points and seconds.

    The setting is ``chosen`` in the first fold and kept for the others, and the seconds are those
    of the first fold, which hold the choice.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("problem")
    parser.add_argument("result")
    options = parser.parse_args()
    problem = np.load(options.problem)
    x, y, fold = (problem[name] for name in ("X", "y", "fold"))
    proba, seconds, setting = np.zeros((len(y), len(np.unique(y)))), [], None
    for k in np.unique(fold):
        train = fold != k
        scaler = StandardScaler().fit(x[train])
        known, unseen = scaler.transform(x[train]), scaler.transform(x[~train])
        start = time.process_time()
        setting = setting or chosen(known, y[train])
        proba[~train] = probabilities(known, y[train], unseen, setting)
        seconds.append(time.process_time() - start)
        print(f"fold {k}: {seconds[-1]:.0f} s", file=sys.stderr, flush=True)
    np.savez(options.result, proba=proba, seconds=seconds[0])
