"""Write small files of every kind of fitted estimator, and what they predict.

They were written by version 1 of the format, before an estimator held what its producer had fitted,
and `persistence/test_files.py` loads them. Run again only to add a kind: the files that are there
show that what users saved stays readable.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

import ntk_uq as nuq

HERE = Path(__file__).parent
RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 2))
Y = X[:, 0] + 0.1 * RNG.standard_normal(8)
LABELS = np.where(X[:, 0] > 0, "yes", "no")
X_TEST = RNG.standard_normal((3, 2))
NET = nuq.MLP(width=4, depth=1, activation="erf")
FEW = {"num_warmup": 20, "num_samples": 4, "num_chains": 2}
MODELS = {
    "ntk-exact": nuq.NTKClassifier(reg=1.0, n_draws=3, uncertainty="initialization"),
    "ntk-posterior": nuq.NTKClassifier(
        NET, reg=0.5, n_draws=3, uncertainty="posterior", n_trajectories=1
    ),
    "ntk-gaussian": nuq.NTKClassifier(
        reg="evidence", tune=("b_std", "scales"), method="gaussian", uncertainty="posterior"
    ),
    "ntk-mixture": nuq.NTKClassifier(n_draws=8),
    "ntk-none": nuq.NTKClassifier(NET, uncertainty="none"),
    "ntk-regressor": nuq.NTKRegressor(),
    "ntk-regressor-exact": nuq.NTKRegressor(NET, noise=0.1, method="exact", n_draws=3),
    "ensemble": nuq.EnsembleClassifier(NET, n_members=2),
    "ensemble-regressor": nuq.EnsembleRegressor(NET, n_members=2, uncertainty="posterior"),
    "bayes": nuq.BayesianClassifier(**FEW),
    "bayes-weights": nuq.BayesianClassifier(NET, prior="weights", sampler="ess", **FEW),
    "bayes-laplace": nuq.BayesianClassifier(NET, sampler="laplace"),
    "bayes-weights-laplace": nuq.BayesianClassifier(NET, prior="weights", sampler="laplace"),
    "bayes-regressor": nuq.BayesianRegressor(noise=0.1, sampler="vi", **FEW),
}


def predicted(model, x):
    """What a model says at points, by the name of the array."""
    found = {"predict": model.predict(x)}
    # Members are functions anyway, and a sampler's joint draws are turned by eigenvectors, whose
    # signs differ between machines.
    alone = hasattr(model, "ensemble_") or hasattr(model, "draws_")
    for joint in (False,) if alone else (False, True):
        prediction = model.predict_distribution(x, **({"joint": True} if joint else {}))
        kind = "joint" if joint else "alone"
        names = ("samples",) if hasattr(prediction, "samples") else ("mean", "cov")
        for name in names:
            found[f"{kind}-{name}"] = getattr(prediction, name)
        if joint and getattr(prediction, "joint_cov", None) is not None:
            found["joint-cov-of-points"] = prediction.joint_cov
    if getattr(model, "method", None) == "exact":
        found["functions"] = model.sample_functions()(x)
    if hasattr(model, "draws_"):
        found["posterior"] = model.posterior_.posterior["f"].to_numpy()
    for name in ("reg_", "jitter_", "feature_scales_", "noise_", "n_iter_", "converged_"):
        if hasattr(model, name):
            found[name] = np.asarray(getattr(model, name))
    return found


def main(only):
    """All that is not there yet, or what is named."""
    for name, model in MODELS.items():
        path = HERE / f"{name}.ntk"
        if (only and name not in only) or (not only and path.exists()):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of so few draws
            model.fit(X, LABELS if hasattr(model, "predict_proba") else Y)
            nuq.save(model, path)
            np.savez_compressed(path.with_suffix(".npz"), x=X_TEST, **predicted(model, X_TEST))


if __name__ == "__main__":
    main(sys.argv[1:])
