"""Which uncertainty of which producer tells inputs from elsewhere: digits.

Trained on some of the images of the digits 0 to 7. Inside: images of these classes that were not
trained on. Outside: the digits 8 and 9, noise, and the inside images with other contrast,
brightness, blur or place. Each measure of uncertainty is scored by `metrics.detect_outliers`:
AUROC (0.5 is chance), AUPR, and the share of inside points that is raised as well when 95% of the
outside points are.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.special import entr
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ntk_uq as nuq
from ntk_uq import metrics
from ntk_uq.bayes import SamplingWarning

KNOWN = 8  # classes trained on; the others are outside
BRIGHTEST = 16.0  # of a pixel of these images


def splits(n_train: int, n_test: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, inside images, images of the held-out classes."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order], labels[order]
    known = labels < KNOWN
    inside, unknown = images[known], images[~known]
    train, test = slice(n_train), slice(n_train, n_train + n_test)
    return inside[train], labels[known][train], inside[test], unknown[:n_test]


def outside(inside: np.ndarray, unknown: np.ndarray) -> dict[str, np.ndarray]:
    """Sets of images from elsewhere, each [k, 64]."""
    rng, pictures = np.random.default_rng(1), inside.reshape(-1, 8, 8)
    changed = {
        "half contrast": 0.5 * pictures,
        "double contrast": 2 * pictures,
        "brighter": pictures + BRIGHTEST / 2,
        "inverted": BRIGHTEST - pictures,
        "blurred": ndimage.gaussian_filter(pictures, (0, 1, 1)),
        "shifted": np.roll(pictures, 2, axis=2),
        "pixels shuffled": rng.permuted(pictures.reshape(-1, 64), axis=1),
    }
    return {
        "held-out classes": unknown,
        "uniform noise": rng.uniform(0, BRIGHTEST, inside.shape),
        **{name: values.reshape(-1, 64) for name, values in changed.items()},
    }


def of_probabilities(proba: np.ndarray) -> dict[str, np.ndarray]:
    return {"total": entr(proba).sum(axis=1), "1 - max probability": 1 - proba.max(axis=1)}


def of_distribution(prediction: Any) -> dict[str, np.ndarray]:
    """Measures of uncertainty of a prediction: [m] each."""
    # Softmax ignores what is common to all classes, and so does the variance that counts.
    centred = np.eye(prediction.mean.shape[1]) - 1 / prediction.mean.shape[1]
    variance = np.einsum("cd,mde,ec->m", centred, prediction.cov, centred)
    return of_probabilities(prediction.proba()) | {
        "aleatoric": prediction.aleatoric,
        "epistemic": prediction.epistemic,
        "latent variance": variance,
    }


def producers(small: int) -> dict[str, tuple[Any, int | None]]:
    """Estimators, and how many training points they take (None: all)."""
    return {
        "NTKClassifier()": (nuq.NTKClassifier(), None),
        'NTKClassifier("posterior")': (nuq.NTKClassifier(uncertainty="posterior"), None),
        'NTKClassifier("none")': (nuq.NTKClassifier(uncertainty="none", method="gaussian"), None),
        "EnsembleClassifier()": (nuq.EnsembleClassifier(n_members=16), None),
        "BayesianClassifier(laplace)": (nuq.BayesianClassifier(sampler="laplace"), None),
        f"BayesianClassifier(NUTS), n = {small}": (
            nuq.BayesianClassifier(num_warmup=300, num_samples=300),
            small,
        ),
        "random forest": (RandomForestClassifier(300, random_state=0), None),
        "logistic regression": (
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            None,
        ),
    }


def measures(model: Any) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    if hasattr(model, "predict_distribution"):
        return lambda x: of_distribution(model.predict_distribution(x))
    return lambda x: of_probabilities(model.predict_proba(x))


def study(
    models: dict[str, tuple[Any, int | None]],
    data: tuple[np.ndarray, ...],
    folder: Path,
) -> pd.DataFrame:
    """AUROC, AUPR and FPR95 of every producer, measure and set."""
    x, y, inside, unknown = data
    frames = []
    for name, (model, n) in models.items():
        letters = "".join(c for c in name if c.isalnum())
        path = folder / f"{letters}-{len(x)}-{len(inside)}.csv"
        if not path.exists():
            measure = measures(model.fit(x[:n], y[:n]))
            usual, rows = measure(inside), []
            for place, points in outside(inside, unknown).items():
                for kind, values in measure(points).items():
                    if np.ptp(usual[kind]) == 0:  # the mode has no spread
                        continue
                    found = metrics.detect_outliers(usual[kind], values)
                    rows.append((name, kind, place, found.auroc, found.aupr, found.fpr95))
            columns = ["producer", "measure", "outside", "auroc", "aupr", "fpr95"]
            pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
            print(f"done: {name}", flush=True)
        frames.append(pd.read_csv(path))
    return pd.concat(frames)


def picture(result: pd.DataFrame, path: Path) -> None:
    """AUROC as a map: producers and measures down, sets across."""
    import matplotlib.pyplot as plt

    wide = result.pivot_table(
        index=["producer", "measure"], columns="outside", values="auroc", sort=False
    )
    figure, ax = plt.subplots(figsize=(8, 9), layout="constrained")
    image = ax.imshow(wide, vmin=0, vmax=1, cmap="RdBu", aspect="auto")
    ax.set_xticks(range(wide.shape[1]), wide.columns, rotation=45, ha="right")
    ax.set_yticks(range(len(wide)), [", ".join(index) for index in wide.index])
    figure.colorbar(image, label="AUROC")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=300)
    parser.add_argument("--test", type=int, default=300, help="points of each set")
    parser.add_argument("--small", type=int, default=60, help="training points for NUTS")
    parser.add_argument("--results", type=Path, default=Path(".cache/out_of_distribution"))
    parser.add_argument("--output", type=Path, help="write the picture to this file")
    parser.add_argument("--only", nargs="+", help="producers whose names begin so")
    parser.add_argument("--quick", action="store_true", help="small and few, to see it run")
    options = parser.parse_args()
    matplotlib.use("agg")
    warnings.simplefilter("ignore", SamplingWarning)
    models = producers(options.small)
    if options.quick:
        options.train, options.test = 60, 40
        models = {
            'NTKClassifier("none")': models['NTKClassifier("none")'],
            "random forest": models["random forest"],
        }
    if options.only:
        models = {k: model for k, model in models.items() if k.startswith(tuple(options.only))}
    options.results.mkdir(parents=True, exist_ok=True)
    result = study(models, splits(options.train, options.test), options.results)
    for score in ("auroc", "aupr", "fpr95"):
        wide = result.pivot_table(
            index=["producer", "measure"], columns="outside", values=score, sort=False
        )
        print(f"\n{score}")
        print(wide.assign(mean=wide.mean(axis=1)).round(2).to_string())
    if options.output:
        picture(result, options.output)


if __name__ == "__main__":
    main()
