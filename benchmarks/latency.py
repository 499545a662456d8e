"""Milliseconds of a prediction in process: one row and 1,000, warm, and rows for the first time.

NTKClassifier() with its defaults, fitted to two classes with 20 features, beside scikit-learn's
random forest of 300 trees on the same points.
"""

import argparse
import time
import warnings

import numpy as np
from _timing import heading, take_turns
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

import ntk_uq as nuq


def first_and_again(function, X):
    """Milliseconds of a first call and of the least of three more."""
    milliseconds = []
    for _ in range(4):
        start = time.perf_counter()
        function(X)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    return milliseconds[0], min(milliseconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1000, help="training points")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--model", help="a file of nuq.save in the place of a fit, where it exists")
    parser.add_argument("--quick", action="store_true", help="few points, twice")
    options = parser.parse_args()
    if options.quick:
        options.points, options.rounds = 40, 2
    X, y = make_classification(options.points, 20, n_informative=8, random_state=0)
    new = np.random.default_rng(0).normal(size=(1100, 20))
    if options.model:
        ours = nuq.load(options.model)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = nuq.NTKClassifier(progress=False).fit(X, y)
    forest = RandomForestClassifier(300, random_state=0).fit(X, y)
    heading(f"predict_proba of a model of {options.points} points, 20 features, two classes")
    for m in (137, 138, 150, 250):
        first, again = first_and_again(ours.predict_proba, new[:m])
        print(f"{m} rows: {first:.0f} ms for the first time, then {again:.1f} ms", flush=True)
    for m in (1, 1000):
        rows = new[:m]
        times = take_turns(
            {
                "ours": lambda rows=rows: ours.predict_proba(rows),
                "forest": lambda rows=rows: forest.predict_proba(rows),
            },
            options.rounds,
        )
        print(
            f"{m} rows: {1e3 * times['ours']:.2f} ms, the forest {1e3 * times['forest']:.2f} ms; "
            f"the forest's time is {times.ratio('forest', 'ours')} times ours",
            flush=True,
        )


if __name__ == "__main__":
    main()
