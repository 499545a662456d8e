"""Noise of an aerofoil, by five skewed features: errors of regressors with their defaults.

The table that sklearn-contrib-bde ships, and its split: a fifth of 1,503 rows is held out. All is
standardised by the training rows, and root mean square errors are in standard deviations of the
target. The table lies in the environment of `make bench-rivals`, or where its package is unpacked:

    pip install --no-deps --target FOLDER sklearn-contrib-bde==1.0.2
    python benchmarks/airfoil.py --table FOLDER/bde/data/airfoil.csv
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import ntk_uq as nuq


def radial() -> GaussianProcessRegressor:
    """A process with a scale for each feature."""
    return GaussianProcessRegressor(ConstantKernel() * RBF(np.ones(5)) + WhiteKernel())


METHODS: dict[str, Callable[[], Any]] = {
    "NTKRegressor()": nuq.NTKRegressor,
    "  without scores, smooth": lambda: nuq.NTKRegressor(
        reg="evidence", tune=("depth", "embedding", "scales")
    ),
    "GP, RBF, scale per feature": radial,
    "histogram boosting": lambda: HistGradientBoostingRegressor(random_state=0),
    "random forest": lambda: RandomForestRegressor(300, random_state=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found = Path(".venv-rivals/bde").glob("**/bde/data/airfoil.csv")
    parser.add_argument("--table", type=Path, default=next(found, None), help="airfoil.csv")
    options = parser.parse_args()
    if options.table is None or not options.table.exists():
        parser.error("there is no table: --table FILE, as above")
    warnings.simplefilter("ignore")  # of bounds reached while kernels are tuned
    table = pd.read_csv(options.table).to_numpy(float)
    known, unseen = train_test_split(table, test_size=0.2, random_state=42)
    scaler = StandardScaler().fit(known)
    known, unseen = scaler.transform(known), scaler.transform(unseen)
    print(f"{len(known)} rows to train, {len(unseen)} to test")
    ours = None
    for name, new in METHODS.items():
        start = time.process_time()
        mean = new().fit(known[:, :-1], known[:, -1]).predict(unseen[:, :-1])
        seconds = time.process_time() - start
        rmse = float(np.sqrt(np.mean((mean - unseen[:, -1]) ** 2)))
        ours = rmse if ours is None else ours
        print(
            f"{name:28} RMSE {rmse:.4f}, {rmse / ours:.2f} times ours, {seconds:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()
