"""Probabilities of held-out rows, for a rival in an environment of its own."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def run(about: str | None, rules: dict[str, Rule]) -> None:
    """Read problems (npz: X, y, unseen), write probabilities of the unseen rows, and seconds.

    A problem ``NAME.problem.npz`` becomes ``NAME.npz``; one process does all, for what it imports
    can take longer than a fit.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("rule", choices=list(rules))
    parser.add_argument("problems", nargs="+", type=Path)
    options = parser.parse_args()
    for path in options.problems:
        with np.load(path) as problem:
            x, y, unseen = (problem[name] for name in ("X", "y", "unseen"))
        start = time.process_time()
        proba = rules[options.rule](x, y, unseen)
        seconds = time.process_time() - start
        result = path.with_name(path.name.replace(".problem.npz", ".npz"))
        np.savez(result, proba=proba, seconds=seconds)
        path.unlink()
        print(f"done: {result.stem}, {seconds:.0f} s", file=sys.stderr, flush=True)
