"""ArviZ's functions take `posterior_` as it is, as far as the table of docs/bayes.md says."""

import csv
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import arviz as az
import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax

from ntk_uq import MLP, BayesianClassifier, BayesianRegressor
from ntk_uq.bayes import SamplingWarning, predictions_group

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import arviz_functions

ROOT = Path(__file__).parents[2]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(14, 2))
TARGET = X[:, 0] + 0.3 * RNG.normal(size=14)
CLASSES = np.array(["ant", "bee", "cat"])
LABELS = CLASSES[np.digitize(TARGET, [-0.4, 0.4])]
TABLE = list(csv.DictReader(arviz_functions.TABLE.read_text().splitlines()))


@pytest.fixture(scope="module")
def trees():
    counts = {"num_warmup": 100, "num_samples": 100, "num_chains": 2}
    net = MLP(depth=1)
    with warnings.catch_warnings():  # chains are short
        warnings.simplefilter("ignore", SamplingWarning)
        return {
            "regressor": BayesianRegressor(net, noise=0.3, **counts).fit(X, TARGET).posterior_,
            "classifier": BayesianClassifier(net, **counts).fit(X, LABELS).posterior_,
        }


# The table is of the ArviZ that constraints.txt pins: others have other functions and messages.
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)
of_the_table = pytest.mark.skipif(
    any(version(name) != PINNED[name] for name in ("arviz-stats", "arviz-plots")),
    reason="the table is of another ArviZ",
)


def test_what_does_not_take_the_tree_is_known():
    """What it wants in its place is no posterior's to have: docs/bayes.md."""
    wants_a_wrapper = {"arviz_stats.lfo_cv", "arviz_stats.loo_kfold", "arviz_stats.reloo"}
    wants_functions = {"arviz_stats.loo_moment_match"}
    of_numbers = {"arviz_stats.bayesian_r2", "arviz_stats.residual_r2"}
    failing = {
        task: {row["function"] for row in TABLE if row[task] != arviz_functions.WORKS}
        for task in ("regressor", "classifier")
    }
    known = wants_a_wrapper | wants_functions
    assert failing["classifier"] == known | of_numbers
    assert failing["regressor"] == known | {"arviz_plots.plot_ppc_rootogram"}  # of counts


@of_the_table
def test_the_table_has_every_function_of_a_tree():
    """Of the ArviZ that is installed: `python benchmarks/arviz_functions.py` writes it anew."""
    called = [
        (f"{function.__module__.split('.')[0]}.{name}", arviz_functions.given(name))
        for name, function in arviz_functions.functions()
    ]
    assert [(row["function"], row["called with"]) for row in TABLE] == called
    assert len(called) > 80


# Backwards, so that the few of the default run are of both packages, on predictions and on draws.
@of_the_table
@pytest.mark.cases(10)
@pytest.mark.parametrize("task", ["regressor", "classifier"])
@pytest.mark.parametrize(
    "row", sorted(TABLE, key=lambda row: row["function"][::-1]), ids=lambda row: row["function"]
)
@pytest.mark.filterwarnings("ignore")  # chains are short
def test_functions_do_as_the_table_says(row, task, trees):
    name = row["function"].split(".")[1]
    assert arviz_functions.result(name, trees[task], X) == row[task]


def test_codes_densities_and_prior(trees):
    tree = trees["classifier"]
    assert tree.observed_data.attrs["classes"] == ["ant", "bee", "cat"]
    codes = np.searchsorted(CLASSES, LABELS)
    np.testing.assert_array_equal(tree.observed_data["y"], codes)
    assert set(np.unique(tree.posterior_predictive["y"])) <= {0, 1, 2}
    density = log_softmax(tree.posterior["f"].values, axis=-1)[..., np.arange(14), codes]
    np.testing.assert_allclose(tree.log_likelihood["y"], density, rtol=1e-8)
    tree = trees["regressor"]
    assert tree.posterior_predictive["y"].dims == ("chain", "draw", "point")
    density = stats.norm.logpdf(TARGET, tree.posterior["f"].values[..., 0], 0.3)
    np.testing.assert_allclose(tree.log_likelihood["y"], density, rtol=1e-8)
    # The prior's draws have the kernel's variance: 200 of them, within four standard errors.
    variance = MLP(depth=1).kernel_diag(X).ntk
    ratio = tree.prior["f"].values[..., 0].var(axis=(0, 1)) / variance
    assert np.all(np.abs(ratio - 1) < 4 * np.sqrt(2 / 200))
    # Log densities of draws differ as -|z|^2 / 2, with z = L^-1 f.
    factor = np.linalg.cholesky(MLP(depth=1).kernels(X).ntk)
    z = np.linalg.solve(factor, tree.posterior["f"].values.reshape(-1, 14).T)
    np.testing.assert_allclose(
        tree.log_prior["z"].values.ravel(), -0.5 * np.sum(z**2, axis=0), rtol=1e-3
    )


@pytest.mark.filterwarnings("ignore")  # chains are short
def test_test_points_are_a_group_of_their_own():
    """Of the posterior's chains and draws: at the training points their latents are these."""
    counts = {"num_warmup": 100, "num_samples": 100, "num_chains": 2}
    clf = BayesianClassifier(MLP(depth=1), **counts).fit(X, LABELS)
    at_training = {"key": jax.random.key(0), "prediction": clf.predict_distribution(X)}
    group = predictions_group(**at_training, output_names=clf.classes_)
    tree = clf.posterior_
    assert group["f"].dims == tree.posterior["f"].dims
    np.testing.assert_allclose(group["f"], tree.posterior["f"], atol=1e-2)
    new = clf.predict_distribution(X[:3] + 0.1)
    tree["predictions"] = predictions_group(
        jax.random.key(1), new, output_names=clf.classes_, points=["p", "q", "r"]
    )
    assert tree.predictions["y"].dims == ("chain", "draw", "point")
    assert tree.predictions.attrs["classes"] == ["ant", "bee", "cat"]
    np.testing.assert_array_equal(tree.predictions["point"], ["p", "q", "r"])
    assert "f[p, ant]" in az.summary(tree, group="predictions", var_names="f").index
    # Codes are drawn with the probabilities of their own latents: 600 in all.
    p = np.exp(log_softmax(tree.predictions["f"].values, axis=-1)).reshape(-1, 3)
    count = np.bincount(tree.predictions["y"].values.ravel(), minlength=3)
    assert np.all(np.abs(count - p.sum(0)) < 4 * np.sqrt((p * (1 - p)).sum(0) + 1))
    closed = BayesianRegressor(MLP(depth=1), noise=0.3, sampler="laplace").fit(X, TARGET)
    prediction = closed.predict_distribution(X)
    with pytest.raises(TypeError, match="which has draws; got GaussianPrediction"):
        predictions_group(jax.random.key(0), prediction, output_names=[0])
