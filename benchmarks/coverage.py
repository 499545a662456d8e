"""Whether the posterior that the data choose holds the truth: simulated classes.

Functions are drawn from a network's prior at random points, and labels from their probabilities:
*noisy* ones as they come, *sure* ones as the class of the higher probability. Of each function
`NTKClassifier()` and its posterior learn from some points, and say intervals of 0.9 for the
probability of a class at others. Of noisy labels the true one is known: how often it is inside, the
mean width, log loss, and how often labels were taken to count. Beside them a posterior that is told
the prior, and has nothing to choose.
"""

import argparse
import warnings

import jax
import numpy as np
import pandas as pd
from scipy.special import expit

import ntk_uq as nuq

# Of the function, the log odds: a difference of two outputs, each with half of the variance.
PRIOR, AMPLITUDE = nuq.MLP(depth=1, b_std=0.5), 1.5
METHODS = {
    "initialization": nuq.NTKClassifier(progress=False),
    "posterior": nuq.NTKClassifier(uncertainty="posterior", progress=False),
    "posterior, trajectories": nuq.NTKClassifier(
        uncertainty="posterior", n_trajectories=3, progress=False
    ),
    "posterior, the prior known": nuq.NTKClassifier(
        PRIOR, reg=2 / AMPLITUDE**2, uncertainty="posterior", n_trajectories=3, progress=False
    ),
}


def simulated(seed, n, m, kind):
    """Points, labels and probabilities of the second class; the last m are for testing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n + m, 3))
    with jax.enable_x64(True):
        kernel = np.asarray(PRIOR.kernels(x).ntk)
    factor = np.linalg.cholesky(kernel + 1e-8 * np.trace(kernel) / len(x) * np.eye(len(x)))
    f = AMPLITUDE * factor @ rng.normal(size=len(x))
    f -= np.median(f)
    p = expit(f) if kind == "noisy" else (f > 0).astype(float)
    return x, (rng.uniform(size=n + m) < p).astype(int), p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, n = [], options.points
    for kind in ("noisy", "sure"):
        for seed in range(options.repeats):
            x, y, p = simulated(seed, n, 500, kind)
            for name, method in METHODS.items():
                model = method.fit(x[:n], y[:n])
                draws = model.predict_distribution(x[n:]).samples
                low, high = np.quantile(expit(draws[..., 1] - draws[..., 0]), (0.05, 0.95), axis=0)
                inside = (low <= p[n:]) & (p[n:] <= high) if kind == "noisy" else np.array(np.nan)
                chance = np.clip(model.predict_proba(x[n:])[:, 1], 1e-6, 1 - 1e-6)
                rows.append(
                    {
                        "labels": kind,
                        "method": name,
                        "coverage": inside.mean(),
                        "width": (high - low).mean(),
                        "log loss": -np.log(np.where(y[n:], chance, 1 - chance)).mean(),
                        "labels count": model.label_weight_,
                    }
                )
            found = (f"{row['coverage']:.2f}" for row in rows[-len(METHODS) :])
            print(kind, seed, *found, flush=True)
    table = pd.DataFrame(rows).groupby(["labels", "method"], sort=False)
    means = table[["coverage", "width", "log loss"]].mean().round(3)
    means["its error"] = table["coverage"].sem().round(3)
    means["labels count"] = table["labels count"].agg(lambda w: " ".join(f"{v:g}" for v in w))
    print(means.to_string())


if __name__ == "__main__":
    main()
