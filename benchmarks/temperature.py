"""What a temperature is worth, of each draw's latents and of the mean class probabilities.

Each data set is split in three: training, held-out points for the temperature, test. Prints the log
loss in nats, the calibration error and the temperatures: means over the splits.
"""

import argparse

import numpy as np
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from ntk_uq import MLP, NTKClassifier
from ntk_uq.calibration import fit_temperature, temper
from ntk_uq.metrics import expected_calibration_error, scores

MODELS = {
    "reg=1": {"architecture": MLP(), "reg": 1.0},
    "reg=1, posterior": {"architecture": MLP(), "reg": 1.0, "uncertainty": "posterior"},
    "reg by cv": {},
}


def one_split(name, seed, arguments):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    n = min(len(x) // 3, 150)
    train, held_out, test = order[:n], order[n : 2 * n], order[2 * n : 2 * n + 300]
    x = StandardScaler().fit(x[train]).transform(x)
    model = NTKClassifier(method="gaussian", random_state=seed, **arguments).fit(x[train], y[train])
    before, pred = (model.predict_distribution(x[rows]) for rows in (held_out, test))
    draws = fit_temperature(y[held_out], before)
    mean = fit_temperature(y[held_out], before.proba())
    probabilities = (
        pred.proba(),
        temper(pred.proba(), mean.temperature),
        temper(pred, draws.temperature).proba(),
    )
    losses = [scores(y[test], p)["log_loss"] for p in probabilities]
    errors = [
        expected_calibration_error(y[test], p, norm=2, debiased=True, n_bins=10)
        for p in probabilities
    ]
    return [*losses, *errors, np.log(mean.temperature), np.log(draws.temperature)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    splits = parser.parse_args().splits
    print(f"{'':31}|{'log loss (nats)':^24}|{'calibration error':^24}| temperature")
    print(f"{'data':14} {'model':16}" + 2 * "|     raw    mean   draws " + "|   mean   draws")
    for name in ("iris", "wine", "breast_cancer", "digits"):
        for model, arguments in MODELS.items():
            rows = [one_split(name, seed, arguments) for seed in range(splits)]
            *numbers, mean, draws = np.mean(rows, axis=0)
            print(
                f"{name:14} {model:16}|"
                + " ".join(f"{value:7.3f}" for value in numbers[:3])
                + " | "
                + " ".join(f"{value:7.3f}" for value in numbers[3:])
                + f" | {np.exp(mean):6.2f}  {np.exp(draws):6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
