"""Which criterion and which uncertainty predict best: log loss on held-out data, four data sets.

Outer folds are never seen by a criterion. For every depth, regularisation and uncertainty the
Gaussian predictor is scored on them, and by evidence and cross-validation on the rest; each rule
then picks, and is charged what its pick costs; or averages all, by weights from cross-validation.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax
from sklearn import datasets
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from ntk_uq import MLP, Categorical, Kernels
from ntk_uq.selection import cross_validate, log_evidence

REGS = 10.0 ** np.arange(-3, 2.1, 0.5)
DEPTHS = (0, 1, 2, 3)
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
    """Log evidence and log densities, of points within and outside, fold by fold.

    Evidence [F, L, R]; within, F times [L, R, U, n]; without, F times [L, R, U, m].
    """
    y = np.eye(labels.max() + 1)[labels]
    problem = (REGS, Categorical(), UNCERTAINTIES)
    evidence, within, without = [], [], []
    for held_out in folds(labels, outer, 0):
        train = np.setdiff1d(np.arange(len(x)), held_out)
        z = StandardScaler().fit(x[train]).transform(x)
        for parts in (evidence, within, without):
            parts.append([])
        for depth in DEPTHS:
            kernels = MLP(depth=depth).kernels(z)
            known = Kernels(*(k[np.ix_(train, train)] for k in kernels))
            inside = folds(labels[train], inner, 1)
            within[-1].append(cross_validate(known, y[train], *problem, inside))
            outside = cross_validate(kernels, y, *problem, [held_out])
            without[-1].append(outside[..., held_out])
            ntk, targets = jnp.asarray(known.ntk), jnp.asarray(y[train])
            evidence[-1].append([log_evidence(ntk, targets, reg, Categorical()) for reg in REGS])
    return np.array(evidence), *([np.array(fold) for fold in parts] for parts in (within, without))


def mixture_weights(within):
    """Weights of settings by held-out log densities, [K, n]: half as likelihoods, half stacked.

    Pseudo Bayesian model averaging, and stacking by expectation maximisation from equal weights
    (Yao et al. 2018), stopped early.
    """
    densities = np.exp(within - within.max(axis=0))
    stacked = np.full(len(within), 1 / len(within))
    for _ in range(20):
        joint = stacked[:, None] * densities
        stacked = np.mean(joint / joint.sum(axis=0), axis=1)
    return (softmax(within.sum(axis=1)) + stacked) / 2


def averaged(within, without):
    """Mean log loss without, where all settings are averaged: lists of [L, R, n] and [L, R, m]."""
    losses = []
    for inside, outside in zip(within, without, strict=True):
        settings = [part.reshape(-1, part.shape[-1]) for part in (inside, outside)]
        usable = np.all([np.isfinite(part).all(axis=1) for part in settings], axis=0)
        inside, outside = (part[usable] for part in settings)
        losses.append(-np.log(mixture_weights(inside) @ np.exp(outside)))
    return np.mean(np.concatenate(losses))


def picked(without, criterion):
    """Mean log loss without, where the criterion [L, R] picks depth and reg in each fold."""
    losses = []
    for outside, fold in zip(without, criterion, strict=True):
        losses.append(-outside.reshape(-1, outside.shape[-1])[np.nanargmax(fold)])
    return np.mean(np.concatenate(losses))


def rules(evidence, within, without):
    """Log loss of every rule and uncertainty. Rules that pick do so among networks."""
    networks = slice(DEPTHS.index(1), None)
    fixed = np.where((REGS == 1) & (np.array(DEPTHS[networks]) == 2)[:, None], 0.0, -np.inf)
    for u, name in enumerate(UNCERTAINTIES):
        inside, outside = ([fold[..., u, :] for fold in part] for part in (within, without))
        test = [fold[networks] for fold in outside]
        mode = [fold[networks, :, UNCERTAINTIES.index("none")].mean(axis=-1) for fold in within]
        cv = [fold[networks].mean(axis=-1) for fold in inside]
        yield "reg = 1, depth 2", name, picked(test, [fixed] * len(test))
        yield "evidence", name, picked(test, evidence[:, networks])
        yield "cv", name, picked(test, cv)
        yield 'cv of "none"', name, picked(test, mode)
        yield "average", name, averaged([fold[networks] for fold in inside], test)
        yield "average, linear too", name, averaged(inside, outside)
        yield "(hindsight)", name, picked(test, [fold.mean(axis=-1) for fold in test])


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
    print(f"{'log loss (nats)':36}" + "".join(f"{name:>15}" for name in [*names, "mean"]))
    for (uncertainty, rule), losses in results.items():
        figures = "".join(f"{loss:15.3f}" for loss in [*losses, np.mean(losses)])
        print(f"{uncertainty:16}{rule:20}{figures}")


if __name__ == "__main__":
    main()
