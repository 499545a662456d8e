"""Which criterion and which uncertainty predict best: log loss on held-out data, four data sets.

Outer folds are never seen by a criterion. For every depth, regularisation and uncertainty the
Gaussian predictor is scored on them, and by evidence and cross-validation on the rest; each rule
then picks, and is charged what its pick costs.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from ntk_uq import MLP, Categorical, Kernels
from ntk_uq.selection import cross_validate, log_evidence

REGS = 10.0 ** np.arange(-3, 2.1, 0.5)
DEPTHS = (1, 2, 3)
UNCERTAINTIES = ("initialization", "posterior", "none")


def tables(points):
    for name in ("iris", "wine", "breast_cancer", "digits"):
        x, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
        keep = np.random.default_rng(0).permutation(len(x))[:points]
        yield name, x[keep], labels[keep]


def folds(labels, k, seed):
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    return [held_out for _, held_out in splitter.split(labels, labels)]


def scores(x, labels, outer, inner):
    """Log evidence [F, L, R], and mean log density within and on the outer folds [F, L, R, U]."""
    y = np.eye(labels.max() + 1)[labels]
    problem = (REGS, Categorical(), UNCERTAINTIES)
    evidence, within, without = [], [], []
    for held_out in folds(labels, outer, 0):
        train = np.setdiff1d(np.arange(len(x)), held_out)
        z = StandardScaler().fit(x[train]).transform(x)
        for depth in DEPTHS:
            kernels = MLP(depth=depth).kernels(z)
            known = Kernels(*(k[np.ix_(train, train)] for k in kernels))
            cv = cross_validate(known, y[train], *problem, folds(labels[train], inner, 1))
            test = cross_validate(kernels, y, *problem, [held_out])
            ntk, targets = jnp.asarray(known.ntk), jnp.asarray(y[train])
            evidence.append([log_evidence(ntk, targets, reg, Categorical()) for reg in REGS])
            within.append(cv.mean(axis=2))
            without.append(np.nanmean(test, axis=2))
    shape = (outer, len(DEPTHS), len(REGS))
    return (
        np.reshape(evidence, shape),
        np.reshape(within, (*shape, -1)),
        np.reshape(without, (*shape, -1)),
    )


def picked(scores_without, criterion):
    """Mean log loss on the outer folds where the criterion picks depth and reg in each."""
    best = [np.argmax(fold) for fold in criterion]
    return -np.mean([fold.ravel()[b] for fold, b in zip(scores_without, best, strict=True)])


def rules(evidence, within, without):
    """Log loss of every rule and uncertainty."""
    fixed = np.where((REGS == 1) & (np.array(DEPTHS) == 2)[:, None], 0.0, -np.inf)
    mode = within[..., UNCERTAINTIES.index("none")]
    for u, name in enumerate(UNCERTAINTIES):
        test = without[..., u]
        yield "reg = 1, depth 2", name, picked(test, np.broadcast_to(fixed, test.shape))
        yield "evidence", name, picked(test, evidence)
        yield "cv", name, picked(test, within[..., u])
        yield 'cv of "none"', name, picked(test, mode)
        yield "(hindsight)", name, picked(test, test)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=120, help="at most, of each data set")
    parser.add_argument("--outer", type=int, default=3)
    parser.add_argument("--inner", type=int, default=5)
    options = parser.parse_args()
    results, names = {}, []
    with jax.enable_x64(True):
        for name, x, labels in tables(options.points):
            names.append(name)
            for rule, uncertainty, loss in rules(*scores(x, labels, options.outer, options.inner)):
                results.setdefault((uncertainty, rule), []).append(loss)
    print(f"{'log loss (nats)':34}" + "".join(f"{name:>15}" for name in [*names, "mean"]))
    for (uncertainty, rule), losses in results.items():
        figures = "".join(f"{loss:15.3f}" for loss in [*losses, np.mean(losses)])
        print(f"{uncertainty:16}{rule:18}{figures}")


if __name__ == "__main__":
    main()
