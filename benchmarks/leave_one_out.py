"""Leave-one-out of a classifier by NUTS: importance sampling, integrated and plain, and refits.

Prints expected log predictive densities and Pareto's k: `python benchmarks/leave_one_out.py`, in
a few minutes.
"""

import argparse
import time
import warnings

import arviz as az
import numpy as np
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale

import ntk_uq as nuq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--reg", type=float, nargs="*", default=[1.0, 0.1])
    parser.add_argument("--samples", type=int, default=1000, help="draws of each of two chains")
    args = parser.parse_args()
    X, y = load_wine(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(y))[: args.points]
    X, y = scale(X)[rows], y[rows]
    print("| reg | PSIS | k too high | integrated | k too high, largest | refits | largest gap |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for reg in args.reg:
        clf = nuq.BayesianClassifier(nuq.MLP(), reg=reg, num_samples=args.samples).fit(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = az.loo(clf.posterior_, pointwise=True)
        seconds = [time.process_time()]
        found = nuq.loo(clf, X, y, refit=False)
        seconds.append(time.process_time())
        refits = nuq.loo_kfold(clf, X, y, k=args.points)
        seconds.append(time.process_time())
        high, largest = int((found.pareto_k > found.good_k).sum()), float(found.pareto_k.max())
        gap = float(np.abs(found.elpd_i - refits.elpd_i).max())
        print(
            f"| {reg:g} | {float(plain.elpd):.2f} | {int((plain.pareto_k > plain.good_k).sum())} | "
            f"{found.elpd:.2f} | {high}, {largest:.2f} | {refits.elpd:.2f} | {gap:.2f} |",
            flush=True,
        )
        integrated, refitted = np.diff(seconds)
        print(f"processor seconds: integrated {integrated:.1f}, refits {refitted:.1f}", flush=True)


if __name__ == "__main__":
    main()
