"""How far first order holds: what the fit measures on 32 draws, against the truth.

Total variation between mean class probabilities of the closed form and of the truth, mean over
points. The truth is, for "initialization", exact draws; for "posterior", NUTS under the same prior.
"""

import argparse
import warnings

import numpy as np
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from ntk_uq import MLP, BayesianClassifier, NTKClassifier
from ntk_uq.analytic import FirstOrderWarning
from ntk_uq.bayes import SamplingWarning
from ntk_uq.metrics import total_variation

STANDARD, RAW = "standardised", "as they are"
# Data, training points, features, their factor, regularisations.
INITIALIZATION = [
    ("iris", 75, STANDARD, 1, (0.1, 1, 10, 100)),
    ("wine", 100, STANDARD, 1, (0.1, 1, 10, 100)),
    ("digits", 100, STANDARD, 1, (0.1, 1, 10, 100)),
    *(("iris", 75, STANDARD, factor, (1,)) for factor in (3, 10, 30, 100, 1000)),
    *(("digits", 100, STANDARD, factor, (1,)) for factor in (3, 10, 100)),
    *(("wine", 100, RAW, factor, (1,)) for factor in (0.1, 1, 10)),
]
POSTERIOR = [
    ("iris", 75, STANDARD, 1, (100, 10, 1, 0.1, 0.01, 1e-4)),
    ("wine", 100, STANDARD, 1, (10, 1, 0.1)),
    ("digits", 100, STANDARD, 1, (10, 1, 0.1)),
    ("wine", 100, RAW, 0.1, (1,)),
]


def load(name, n, features, factor):
    """Training points, labels and test points."""
    x, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, labels = x[order], labels[order]
    if features == STANDARD:
        x = StandardScaler().fit(x[:n]).transform(x)
    return factor * x[:n], labels[:n], factor * x[n : n + 60]


def measure(uncertainty, name, n, features, factor, reg, draws):
    x, labels, x_test = load(name, n, features, factor)
    gaussian = NTKClassifier(MLP(), reg=reg, uncertainty=uncertainty, method="gaussian")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = gaussian.fit(x, labels).discrepancy_
        warned = any(w.category is FirstOrderWarning for w in caught)
    if uncertainty == "posterior":
        truth = BayesianClassifier(MLP(), reg=reg, num_samples=draws // 2)
    else:
        truth = NTKClassifier(MLP(), reg=reg, n_draws=draws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)  # R-hat is printed
        truth.fit(x, labels)
    at = {"train": x, "test": x_test}
    known = {
        where: np.mean(total_variation(gaussian.predict_proba(z), truth.predict_proba(z)))
        for where, z in at.items()
    }
    ratio = np.median(found.sd_ratio)
    skewness = np.sqrt(np.mean(found.skewness**2))
    rhat = f"{truth.diagnostics_.rhat_max:.2f}" if uncertainty == "posterior" else ""
    print(
        f"{name:7} {features:13}{factor:6g}{reg:8g}{found.total_variation.mean():10.3f}"
        f"{known['train']:10.3f}{known['test']:8.3f}{'  yes' if warned else '   no':>9}"
        f"{ratio:10.2f}{skewness:10.2f}{rhat:>8}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000, help="of the truth")
    parser.add_argument("--quick", action="store_true", help="a problem of each kind, few draws")
    arguments = parser.parse_args()
    for uncertainty, rows in (("initialization", INITIALIZATION), ("posterior", POSTERIOR)):
        print(
            f"\n{uncertainty}\ndata    features        times   reg  measured  training    test"
            "   warned  sd ratio  skewness   R-hat"
        )
        for *problem, regs in rows[:1] if arguments.quick else rows:
            for reg in regs[:1] if arguments.quick else regs:
                draws = 40 if arguments.quick else arguments.draws
                measure(uncertainty, *problem, reg, draws)


if __name__ == "__main__":
    main()
