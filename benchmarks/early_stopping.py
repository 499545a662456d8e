"""Stopping training at a time of gradient flow, in place of regularisation: what each is worth.

`time`, with reg = 0, and `reg`, to the end of training, are each chosen by the log probability of
held-out labels in 5 folds, with the posterior's mode, for one network; both then predict the same
test points. Prints log loss, Brier score, what was chosen (geometric means), and how much longer
the fit at the chosen time takes: means over splits, and the median of the ratios.

    python benchmarks/early_stopping.py [--splits 5] [--points 150]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from ntk_uq import MLP, Categorical, NTKClassifier
from ntk_uq.analytic.flow import follow_flow
from ntk_uq.metrics import scores

TABLES = ("iris", "wine", "breast_cancer", "digits")
UNCERTAINTIES = ("none", "initialization")
TIMES = 10.0 ** np.arange(-3, 3.1, 0.25)
NET = MLP()


def choose_time(x, y, seed):
    """Time of the highest log probability of held-out labels: all folds follow one flow."""
    held_out = np.zeros((5, len(x)), bool)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(folds.split(x, y)):
        held_out[fold, rows] = True
    likelihood = Categorical()
    with jax.enable_x64(True):
        theta, targets = jnp.asarray(NET.kernels(x).ntk), jnp.eye(y.max() + 1)[y]
        zero = jnp.zeros((len(held_out), *targets.shape))
        flow = follow_flow(
            theta, targets, zero, 0.0, likelihood, TIMES, weights=jnp.asarray(~held_out, float)
        )
        found = [
            float(jnp.mean(likelihood.log_density(latents, targets)[held_out]))
            for _, latents in flow
        ]
    return float(TIMES[np.argmax(found)])


def fitted(x, y, **settings):
    """A fitted classifier, and seconds without compiling."""
    clf = NTKClassifier(NET, n_draws=64, progress=False, **settings)
    clf.fit(x, y)
    return clf, clf.fit(x, y).fit_seconds_


def one_split(name, seed, points):
    """Of each uncertainty, [log loss and Brier score of both, what was chosen, ratio of times]."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    n = min(len(x) // 2, points)
    train, test = order[:n], order[n : n + 300]
    x = StandardScaler().fit(x[train]).transform(x)
    chosen = NTKClassifier(NET, reg="cv", uncertainty="none", random_state=seed, progress=False)
    reg = chosen.fit(x[train], y[train]).reg_
    time = choose_time(x[train], y[train], seed)
    rows = []
    for uncertainty in UNCERTAINTIES:
        shared = {"uncertainty": uncertainty, "random_state": seed}
        regularised, to_the_end = fitted(x[train], y[train], reg=reg, **shared)
        stopped, until = fitted(x[train], y[train], reg=0, time=time, **shared)
        both = [scores(y[test], clf.predict_proba(x[test])) for clf in (regularised, stopped)]
        rows.append(
            [*(s["log_loss"] for s in both), *(s["brier"] for s in both), reg, time,
             until / to_the_end]
        )  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--points", type=int, default=150, help="of training, at most")
    parser.add_argument("--data", nargs="+", default=TABLES)
    options = parser.parse_args()
    print(f"{'':29}|{'log loss (nats)':^17}|{'Brier score':^17}|{'chosen':^17}| fit takes")
    print(f"{'data':14}{'uncertainty':15}" + 2 * "|     reg    time " + "|     reg    time | times")
    for name in options.data:
        splits = [one_split(name, seed, options.points) for seed in range(options.splits)]
        for uncertainty, rows in zip(UNCERTAINTIES, np.swapaxes(splits, 0, 1), strict=True):
            loss = np.mean(rows[:, :4], axis=0)
            reg, time = np.exp(np.mean(np.log(rows[:, 4:6]), axis=0))
            print(
                f"{name:14}{uncertainty:15}| {loss[0]:7.3f} {loss[1]:7.3f} | {loss[2]:7.3f} "
                f"{loss[3]:7.3f} | {reg:7.2g} {time:7.2g} | {np.median(rows[:, 6]):.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
