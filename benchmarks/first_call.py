"""Seconds of a classifier's whole use: fit and predict_proba, in a new process and once more.

Beside it scikit-learn's Gaussian process classifier on the same points, with a fixed radial kernel
and with one that it fits.
"""

import argparse
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
    "scikit-learn, kernel fixed",
    "scikit-learn, kernel fitted",
)


def make(name):
    if name.startswith("scikit-learn"):
        kernel = ConstantKernel(10.0) * RBF(5.0)
        optimizer = None if name.endswith("fixed") else "fmin_l_bfgs_b"
        return GaussianProcessClassifier(kernel, optimizer=optimizer, random_state=0)
    from ntk_uq import MLP, NTKClassifier

    return NTKClassifier(MLP(), reg=1.0) if "MLP" in name else NTKClassifier()


def measure(name, points, rounds):
    """Print the seconds of each round."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, _ = train_test_split(
        X / 16, y, train_size=points, test_size=points, random_state=0, stratify=y
    )
    for _ in range(rounds):
        start = time.perf_counter()
        make(name).fit(X, y).predict_proba(X_test)
        print(time.perf_counter() - start)


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
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        first, *later = map(float, result.stdout.split())
        warm[name] = min(later)
        print(f"{name}: first call {first:.1f} s, then {min(later):.2f} s", flush=True)
    fitted = warm["scikit-learn, kernel fitted"] / warm["NTKClassifier()"]
    print(f"NTKClassifier() against scikit-learn with its kernel fitted: {fitted:.1f} times faster")


if __name__ == "__main__":
    main()
