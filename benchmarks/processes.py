"""Processes of one core each against one: seconds of `fit`, and whether results are the same.

Wall seconds are of an idle machine only; the processor time of the process that takes longest says
how well the work is divided on any.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from _timing import heading

METHODS = {
    "members": "EnsembleClassifier(MLP(width=256), n_members=64)",
    "draws": "NTKClassifier(MLP(), reg=0.01, n_draws=256)",
    "draws, networks": 'NTKClassifier(MLP(), reg=0.01, n_draws=256, prior_functions="networks")',
    "rows": 'NTKClassifier(MLP(), reg=0.01, n_draws=64, prior_functions="networks", '
    'storage="processes")',
    "chains": "BayesianClassifier(MLP(), num_chains=4, num_samples=200)",
}
# A tile of rows holds 1024 points.
POINTS = {"members": 1000, "draws": 1000, "draws, networks": 1000, "rows": 6000, "chains": 150}


def measure(method, points, p, folder):
    """Print wall seconds and seconds of the processor; predictions go to the folder."""
    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {own[p % len(own)]})
    from ntk_uq._common import processes

    if "JAX_NUM_PROCESSES" in os.environ:
        processes.join()
    from sklearn.datasets import load_digits

    import ntk_uq as nuq  # noqa: F401  (for eval)

    X, y = load_digits(return_X_y=True)
    test = X[-100:] / 16
    rows = np.arange(points) % len(X)  # more are the same images with other noise
    noise = np.random.default_rng(0).normal(size=(points, 64))
    X, y = X[rows] / 16 + 0.1 * noise * (np.arange(points) >= len(X))[:, None], y[rows]
    warnings.simplefilter("ignore")
    for _ in range(2):  # the first compiles
        model = eval(f"nuq.{METHODS[method]}".replace("(MLP", "(nuq.MLP"))
        processes.once(lambda: None, "start")
        wall, cpu = time.perf_counter(), time.process_time()
        model.fit(X, y)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    samples = model.predict_distribution(test).samples
    np.save(Path(folder) / f"{p}.npy", samples)
    print("measured", wall, cpu)


def run(method, points, n):
    """Wall and processor seconds of n processes, the longest, and their predictions."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    several = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(n)} if n > 1 else {}
    command = [sys.executable, __file__, "--method", method, "--points", str(points)]
    with tempfile.TemporaryDirectory() as folder:
        started = [
            subprocess.Popen(
                [*command, "--process", str(p), "--folder", folder],
                env=os.environ | several | {"JAX_PROCESS_ID": str(p)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for p in range(n)
        ]
        lines = [process.communicate()[0].splitlines()[-1].split() for process in started]
        predictions = [np.load(Path(folder) / f"{p}.npy") for p in range(n)]
    wall, cpu = (max(float(line[k]) for line in lines) for k in (1, 2))
    return wall, cpu, predictions


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few points")
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is not None:
        measure(options.method, options.points, options.process, options.folder)
        return
    n = options.processes
    heading(f"{n} processes of one core each against one")
    for method in [options.method] if options.method else METHODS:
        points = options.points or (60 if options.quick else POINTS[method])
        one, several = (run(method, points, k) for k in (1, n))
        apart = max(float(np.abs(one[2][0] - other).max()) for other in several[2])
        same = f"latents differ by {apart:.0e}" if apart else "the same predictions"
        print(
            f"{method}, {points} points: {one[0] / several[0]:.2f} times faster than one "
            f"({one[0]:.1f} s), {one[1] / several[1]:.2f} times by processor time, {same}",
            flush=True,
        )


if __name__ == "__main__":
    main()
