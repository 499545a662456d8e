"""ArviZ's functions on `posterior_`: which take it as it is, and why others do not.

Every public function of arviz-stats and arviz-plots that takes a tree, or what another makes of
one, is called with the posterior of a regressor and of a classifier of three classes:
`python benchmarks/arviz_functions.py` writes the table of these calls to docs/arviz.csv.
"""

import csv
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import arviz_plots
import arviz_stats
import jax
import numpy as np
import xarray
from matplotlib import pyplot as plt
from xarray import DataTree

import ntk_uq as nuq

TABLE = Path(__file__).parents[1] / "docs" / "arviz.csv"
HEADER = ["function", "called with", "regressor", "classifier"]
WORKS = "yes"

# First arguments that are a tree, several of them, or what another function makes of one.
_OF_A_TREE = {
    *("data", "dt", "dts", "data1", "idata", "i", "loo_orig", "compare_dict", "cmp_df"),
    *("elpd_data", "wrapper"),
}
_POINTS = 'coords={"point": [0, 1]}'
# What is given beside the tree, or in its place. Otherwise it is the tree alone, and to plots of
# draws the latents of two points.
_GIVEN = {
    "bayes_factor": 'tree, var_names="f"',
    "bayesian_r2": 'more, pred_mean="mu", scale="noise"',
    "ci_in_rope": "tree, rope=(-1, 1)",
    "combine_plots": f"tree, plots=[(plot_trace, {{}}), (plot_rank, {{}})], {_POINTS}",
    "compare": '{"one": tree, "other": tree}',
    "ecdf": "tree.posterior.dataset",
    "generate_survival_curves": 'tree, var_names="y"',
    "kaplan_meier": 'tree, var_names="y"',
    "kl_divergence": "tree, tree, num_samples=100",
    "lfo_cv": "tree, wrapper, min_observations=8, forecast_horizon=1",
    "loo_approximate_posterior": "tree, log_p, log_q",
    "loo_i": "0, tree",
    "loo_kfold": "tree, wrapper",
    "loo_moment_match": "tree, loo(tree, pointwise=True)",
    "loo_r2": 'tree, var_name="y"',
    "loo_subsample": "tree, observations=8",
    "plot_bf": 'tree.isel(point=[0]), var_names="f", ref_val=0.0',
    "plot_compare": 'compare({"one": tree, "other": tree})',
    "plot_ecdf_pit": 'calibration, var_names="log_likelihood"',
    "plot_khat": "loo(tree, pointwise=True)",
    "plot_lm": 'with_x, x="x"',
    "plot_pair_focus": f'tree, focus_var="f", focus_var_coords=one, {_POINTS}',
    "plot_ppc_pava_residuals": 'with_x, x_var="x"',
    "plot_psense_dist": f"more, {_POINTS}",
    "plot_psense_quantities": f"more, {_POINTS}",
    "psense_summary": 'tree, var_names="f"',
    "reloo": "wrapper",
    "residual_r2": 'more, pred_mean="mu"',
    "rhat_nested": "tree, superchain_ids=[0, 0]",
    "update_subsample": "loo_subsample(tree, observations=8), tree, observations=2",
    "wasserstein": "tree, tree, num_samples=100",
    "weight_predictions": "[tree, tree]",
}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Those that are public and take a tree, or what is made of one, by name."""
    for module in (arviz_stats, arviz_plots):
        for name in sorted(vars(module)):
            function = getattr(module, name)
            if inspect.isfunction(function) and not name.startswith("_"):
                if next(iter(inspect.signature(function).parameters), None) in _OF_A_TREE:
                    yield name, function


def given(name: str) -> str:
    """The arguments, as they stand in the table."""
    if name in _GIVEN:
        return _GIVEN[name]
    of_draws = name.startswith("plot_") and not name.startswith(("plot_ppc", "plot_loo"))
    return f"tree, {_POINTS}" if of_draws and name != "plot_energy" else "tree"


def result(name: str, tree: DataTree, features: np.ndarray) -> str:
    """Whether the function takes the tree; if not, what it says."""
    f = tree.posterior["f"]
    last = f.dims[-1]
    with_x = tree.copy()
    with_x["constant_data"] = DataTree(xarray.Dataset({"x": ("point", features[:, 0])}))
    names = {
        **vars(arviz_stats),
        **vars(arviz_plots),
        "tree": tree,
        "with_x": with_x,
        "more": _with_more(tree),
        "one": {"point": 0, last: f[last].values[0]},
        "log_p": np.zeros(f.sizes["chain"] * f.sizes["draw"]),
        "log_q": np.zeros(f.sizes["chain"] * f.sizes["draw"]),
        "wrapper": None,
        "calibration": _calibration() if "calibration" in given(name) else None,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chains are short, and some points weigh much
            eval(f"{name}({given(name)})", names)
    except Exception as error:
        said = re.sub(r"\s+", " ", str(error)).strip("'\" ")
        return f"{type(error).__name__}: {said[:100]}{'…' if len(said) > 100 else ''}"
    finally:
        plt.close("all")
    return WORKS


def _with_more(tree: DataTree) -> DataTree:
    """With a quantity of interest, and of a regressor what R² is of, as its output has an axis."""
    f = tree.posterior["f"]
    further = {"mean": f.mean("point")}
    if f.dims[-1] == "output":
        mu = f.squeeze("output", drop=True)
        further |= {"mu": mu, "noise": xarray.full_like(mu.isel(point=0, drop=True), 0.3)}
    more = tree.copy()
    more["posterior"] = DataTree(tree.posterior.dataset.assign(further))
    return more


def _calibration() -> DataTree:
    """Of a sampler that needs no chain; ArviZ sees the form."""

    def prior_itself(key: Any, prior: Any, targets: Any, likelihood: Any) -> Any:
        return jax.random.normal(key, (99, *targets.shape))

    return nuq.bayes.simulation_based_calibration(
        jax.random.key(0), np.eye(2), nuq.Gaussian(1.0), sampler=prior_itself, simulations=20
    )


def posteriors(features: np.ndarray, num_samples: int = 100) -> dict[str, DataTree]:
    """Of targets that follow the first feature."""
    target = features[:, 0] + 0.3 * np.random.default_rng(1).normal(size=len(features))
    labels = np.array(["ant", "bee", "cat"])[np.digitize(target, [-0.4, 0.4])]
    counts = {"num_warmup": 100, "num_samples": num_samples, "num_chains": 2, "progress": False}
    net = nuq.MLP(depth=1)
    return {
        "regressor": nuq.BayesianRegressor(net, noise=0.3, **counts)
        .fit(features, target)
        .posterior_,
        "classifier": nuq.BayesianClassifier(net, **counts).fit(features, labels).posterior_,
    }


def main() -> None:
    features = np.random.default_rng(0).normal(size=(14, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trees = posteriors(features)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for name, function in functions():
            module = function.__module__.split(".")[0]
            results = [result(name, tree, features) for tree in trees.values()]
            writer.writerow([f"{module}.{name}", given(name), *results])


if __name__ == "__main__":
    plt.switch_backend("agg")
    main()
