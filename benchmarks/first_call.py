"""Seconds of a classifier's whole use: fit and predict_proba, in a new process and once more.

Beside it scikit-learn's Gaussian process classifier on the same points, with a fixed radial kernel
and with one that it fits. Of ours also what JAX compiles, from an empty cache: programs, their
seconds, and how many more a fit of one point less takes.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from _timing import heading
from sklearn.datasets import load_digits
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.model_selection import train_test_split

METHODS = (
    "NTKClassifier(MLP(), reg=1.0)",
    "NTKClassifier()",
    "EnsembleClassifier(MLP(), n_members=4, reg=1.0)",
    "scikit-learn, kernel fixed",
    "scikit-learn, kernel fitted",
)


def make(name):
    if name.startswith("scikit-learn"):
        kernel = ConstantKernel(10.0) * RBF(5.0)
        optimizer = None if name.endswith("fixed") else "fmin_l_bfgs_b"
        return GaussianProcessClassifier(kernel, optimizer=optimizer, random_state=0)
    from ntk_uq import MLP, EnsembleClassifier, NTKClassifier

    if name.startswith("Ensemble"):
        return EnsembleClassifier(MLP(), n_members=4, reg=1.0)
    return NTKClassifier(MLP(), reg=1.0) if "MLP" in name else NTKClassifier()


def count_programs():
    """Programs that are compiled from now on: a list of their seconds, tracing included."""
    import jax

    seconds, before = [], 0.0

    def listen(event, duration, **_):
        nonlocal before
        if event.endswith(("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration")):
            before += duration
        elif event.endswith("backend_compile_duration"):
            seconds.append(before + duration)
            before = 0.0

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seconds


def measure(name, points, rounds):
    """Print seconds of each round, and of the programs of the first and of one for another n."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, _ = train_test_split(
        X / 16, y, train_size=points, test_size=points, random_state=0, stratify=y
    )
    programs = [] if name.startswith("scikit-learn") else count_programs()

    def use(X, y):
        start, known = time.perf_counter(), len(programs)
        make(name).fit(X, y).predict_proba(X_test)
        return time.perf_counter() - start, programs[known:]

    first, *later = (use(X, y) for _ in range(rounds))
    _, others = use(X[:-1], y[:-1])
    json.dump([first[0], [seconds for seconds, _ in later], first[1], others], sys.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="few points, twice")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.points, options.rounds = 40, 2
    if options.method:
        measure(options.method, options.points, options.rounds)
        return
    heading(f"Fit and predict_proba, {options.points} digits each")
    size = ["--points", str(options.points), "--rounds", str(options.rounds)]
    warm = {}
    for name in METHODS:
        command = [sys.executable, __file__, "--method", name, *size]
        bare = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=bare)
        first, later, programs, others = json.loads(result.stdout)
        warm[name] = min(later)
        compiled = (
            f"; {len(programs)} programs in {sum(programs):.1f} s, "
            f"{len(others)} more in {sum(others):.1f} s for another n"
        )
        print(
            f"{name}: first call {first:.1f} s, then {min(later):.2f} s{compiled * bool(programs)}",
            flush=True,
        )
    fitted = warm["scikit-learn, kernel fitted"] / warm["NTKClassifier()"]
    print(f"NTKClassifier() against scikit-learn with its kernel fitted: {fitted:.1f} times faster")


if __name__ == "__main__":
    main()
