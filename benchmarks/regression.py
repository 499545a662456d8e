"""Regression with noise by evidence: this package's regressors, and what scikit-learn has.

Five folds of diabetes, and of Friedman's three problems (of the first five of ten features count,
noise 1; features of the others have ranges from 1 to 1,700). Every method predicts a Gaussian of
the target, noise included. `NTKRegressor()` and scikit-learn's Gaussian process with the same
kernel and noise must agree: the largest difference is printed. The Bayesian posterior under this
prior is Gaussian, so it is taken in closed form.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, WhiteKernel
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

import ntk_uq as nuq
from ntk_uq import metrics

Prediction = tuple[np.ndarray, np.ndarray]


class FittedKernel(Kernel):
    """The prior covariance of a fitted regressor, Theta / reg, for scikit-learn."""

    def __init__(self, network: Any, variance: float):
        self.network = network
        self.variance = variance

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> np.ndarray:
        return self.variance * self.network.kernels(X, Y).ntk

    def diag(self, X: Any) -> np.ndarray:
        return self.variance * self.network.kernel_diag(X).ntk

    def is_stationary(self) -> bool:
        return False


def tables(points: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    x, y = load_diabetes(return_X_y=True)
    keep = np.random.default_rng(0).permutation(len(y))[:points]
    yield "diabetes", x[keep], y[keep]
    yield "friedman1", *make_friedman1(points, noise=1.0, random_state=0)
    yield "friedman2", *make_friedman2(points, noise=50.0, random_state=0)
    yield "friedman3", *make_friedman3(points, noise=0.1, random_state=0)


def ours(regressor: Any) -> Callable[..., Prediction]:
    """Mean and standard deviation of the target: those of the latent, and the noise."""

    def predict(x: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> Prediction:
        mean, std = regressor.fit(x, y).predict(unseen, return_std=True)
        return mean, np.hypot(std, regressor.noise_[0])

    return predict


def same_kernel(x: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> Prediction:
    """scikit-learn's process with the kernel, regularisation and noise that ours chose."""
    fitted = nuq.NTKRegressor().fit(x, y)
    kernel = FittedKernel(fitted.architecture_, y.var() / fitted.reg_)
    noise = fitted.noise_[0]
    process = GaussianProcessRegressor(kernel, alpha=noise**2, optimizer=None)
    seen, new = (fitted._validated(part) * fitted._fitted.feature_scales for part in (x, unseen))
    mean, std = process.fit(seen, y - y.mean()).predict(new, return_std=True)
    return mean + y.mean(), np.hypot(std, noise)


def tuned_rbf(x: np.ndarray, y: np.ndarray, unseen: np.ndarray, per_feature: bool) -> Prediction:
    scales = 3 * np.ones(x.shape[1] if per_feature else 1)
    kernel = ConstantKernel() * RBF(scales, (1e-1, 1e4)) + WhiteKernel()
    process = GaussianProcessRegressor(kernel, normalize_y=True).fit(x, y)
    return process.predict(unseen, return_std=True)  # the white kernel's noise included


def ridge(x: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> Prediction:
    return BayesianRidge().fit(x, y).predict(unseen, return_std=True)


def forest(x: np.ndarray, y: np.ndarray, unseen: np.ndarray) -> Prediction:
    """One standard deviation for all points, that of the out-of-bag residuals."""
    model = RandomForestRegressor(300, min_samples_leaf=2, oob_score=True, random_state=0).fit(x, y)
    std = np.sqrt(np.mean((y - model.oob_prediction_) ** 2))
    return model.predict(unseen), np.full(len(unseen), std)


def methods() -> dict[str, Callable[..., Prediction]]:
    return {
        'NTKRegressor("initialization")': ours(nuq.NTKRegressor(uncertainty="initialization")),
        "NTKRegressor()": ours(nuq.NTKRegressor()),
        "  without scores, smooth units": ours(
            nuq.NTKRegressor(reg="evidence", tune=("depth", "embedding", "scales"))
        ),
        "  without scales either": ours(
            nuq.NTKRegressor(reg="evidence", tune=("depth", "embedding"))
        ),
        "  scales by the evidence": ours(
            nuq.NTKRegressor(reg="evidence", tune=("depth", "scales"))
        ),
        "BayesianRegressor()": ours(nuq.BayesianRegressor(sampler="laplace")),
        "GP, same kernel": same_kernel,
        "GP, RBF": lambda *data: tuned_rbf(*data, per_feature=False),
        "GP, RBF, scale per feature": lambda *data: tuned_rbf(*data, per_feature=True),
        "Bayesian ridge": ridge,
        "random forest": forest,
    }


def held_out(predict: Callable[..., Prediction], x: np.ndarray, y: np.ndarray, k: int) -> Any:
    mean, std, seconds = np.empty(len(y)), np.empty(len(y)), []
    for train, test in KFold(k, shuffle=True, random_state=0).split(x):
        scaler = StandardScaler().fit(x[train])
        start = time.process_time()
        mean[test], std[test] = predict(
            scaler.transform(x[train]), y[train], scaler.transform(x[test])
        )
        seconds.append(time.process_time() - start)
    return mean, std, float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path(".cache/regression"))
    parser.add_argument("--quick", action="store_true", help="small and few, to see it run")
    parser.add_argument(
        "--ensemble", action="store_true", help="finite networks too: minutes a fold"
    )
    options = parser.parse_args()
    chosen = methods()
    if options.ensemble:
        chosen["EnsembleRegressor()"] = ours(nuq.EnsembleRegressor(n_members=16))
    if options.quick:
        options.points, options.folds = 40, 2
        chosen = {m: chosen[m] for m in ("NTKRegressor()", "GP, same kernel")}
    warnings.simplefilter("ignore")  # of bounds reached while kernels are tuned
    options.results.mkdir(parents=True, exist_ok=True)
    for name, x, y in tables(options.points):
        rows, predictions = {}, {}
        for method, predict in chosen.items():
            letters = "".join(c for c in method if c.isalnum())
            path = options.results / f"{letters}-{name}-{len(y)}-{options.folds}.npz"
            if not path.exists():
                mean, std, seconds = held_out(predict, x, y, options.folds)
                np.savez(path, mean=mean, std=std, seconds=seconds)
            with np.load(path) as file:
                predictions[method] = mean, std = file["mean"], file["std"]
                seconds = float(file["seconds"])
            rows[method] = metrics.regression_scores(y, mean, std) | {"seconds": seconds}
        print(f"\n{name}, {len(y)} points, {options.folds} folds; seconds of processor time a fold")
        print(pd.DataFrame(rows).T.round(3).to_string())
        gap = [
            np.max(np.abs(a - b)) / y.std()
            for a, b in zip(
                predictions["NTKRegressor()"],
                predictions["GP, same kernel"],
                strict=True,
            )
        ]
        print(
            f"posterior less scikit-learn's with the same kernel, in the target's standard "
            f"deviation: mean {gap[0]:.1e}, standard deviation {gap[1]:.1e}"
        )


if __name__ == "__main__":
    main()
