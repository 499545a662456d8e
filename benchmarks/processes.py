"""Processes of one core each against one: seconds of `fit`, and results to the last bit.

Wall seconds are of an idle machine only; the processor time of the process that takes longest says
how well the work is divided on any.
"""

import argparse
import hashlib
import os
import socket
import subprocess
import sys
import time
import warnings

from _timing import heading

METHODS = {
    "members": "EnsembleClassifier(MLP(width=256), n_members=64)",
    "draws": "NTKClassifier(MLP(), reg=0.01, n_draws=256)",
    "draws, networks": 'NTKClassifier(MLP(), reg=0.01, n_draws=256, prior_functions="networks")',
    "chains": "BayesianClassifier(MLP(), num_chains=4, num_samples=200)",
}


def measure(method, points, p):
    """Print wall seconds, seconds of the processor, and what identifies the predictions."""
    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {own[p % len(own)]})
    from ntk_uq._common import processes

    if "JAX_NUM_PROCESSES" in os.environ:
        processes.join()
    from sklearn.datasets import load_digits

    import ntk_uq as nuq  # noqa: F401  (for eval)

    X, y = load_digits(return_X_y=True)
    X, y, test = X[:points] / 16, y[:points], X[-100:] / 16
    warnings.simplefilter("ignore")
    for _ in range(2):  # the first compiles
        model = eval(f"nuq.{METHODS[method]}".replace("(MLP", "(nuq.MLP"))
        processes.once(lambda: None, "start")
        wall, cpu = time.perf_counter(), time.process_time()
        model.fit(X, y)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    samples = model.predict_distribution(test).samples
    print("measured", wall, cpu, hashlib.sha256(samples.tobytes()).hexdigest())


def run(method, points, n):
    """Wall and processor seconds of n processes, the longest, and their predictions."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    several = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(n)} if n > 1 else {}
    command = [sys.executable, __file__, "--method", method, "--points", str(points)]
    started = [
        subprocess.Popen(
            [*command, "--process", str(p)],
            env=os.environ | several | {"JAX_PROCESS_ID": str(p)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for p in range(n)
    ]
    lines = [process.communicate()[0].splitlines()[-1].split() for process in started]
    wall, cpu = (max(float(line[k]) for line in lines) for k in (1, 2))
    return wall, cpu, {line[3] for line in lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few points")
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is not None:
        measure(options.method, options.points, options.process)
        return
    n = options.processes
    heading(f"{n} processes of one core each against one")
    for method in [options.method] if options.method else METHODS:
        points = options.points or (60 if options.quick else 150 if method == "chains" else 1000)
        one, several = (run(method, points, k) for k in (1, n))
        same = "the same predictions" if one[2] == several[2] else "OTHER predictions"
        print(
            f"{method}, {points} points: {one[0] / several[0]:.2f} times faster than one "
            f"({one[0]:.1f} s), {one[1] / several[1]:.2f} times by processor time, {same}",
            flush=True,
        )


if __name__ == "__main__":
    main()
