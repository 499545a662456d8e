"""ArviZ's functions take `posterior_` as it is: those on draws, and those on predictions."""

import arviz_plots
import arviz_stats
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax

from ntk_uq import MLP, BayesianClassifier, BayesianRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(14, 2))
TARGET = X[:, 0] + 0.3 * RNG.normal(size=14)
CLASSES = np.array(["ant", "bee", "cat"])
LABELS = CLASSES[np.digitize(TARGET, [-0.4, 0.4])]

# Of arviz-stats and arviz-plots, with the arguments that they insist on. docs/bayes has the table.
STATS = {
    "bfmi": {}, "diagnose": {}, "ess": {}, "hdi": {}, "loo": {}, "loo_expectations": {},
    "loo_influence": {}, "loo_metrics": {}, "loo_pit": {}, "loo_r2": {"var_name": "y"},
    "loo_score": {}, "loo_subsample": {"observations": 8}, "mcse": {}, "metrics": {}, "psense": {},
    "psense_summary": {"var_names": "f"}, "qds": {}, "rhat": {}, "summary": {},
}  # fmt: skip
PLOTS = [
    "plot_autocorr", "plot_convergence_dist", "plot_dist", "plot_energy", "plot_ess", "plot_forest",
    "plot_loo_interval", "plot_loo_pava", "plot_loo_pit", "plot_mcse", "plot_parallel",
    "plot_ppc_dist", "plot_ppc_dist_pit", "plot_ppc_interval", "plot_ppc_pit", "plot_ppc_tstat",
    "plot_prior_posterior", "plot_rank", "plot_ridge", "plot_trace",
]  # fmt: skip
OF_DRAWS = {"coords": {"point": [0, 1]}}


@pytest.fixture(scope="module")
def trees():
    counts = {"num_warmup": 100, "num_samples": 100, "num_chains": 2}
    net = MLP(depth=1)
    return {
        "regression": BayesianRegressor(net, noise=0.3, **counts).fit(X, TARGET).posterior_,
        "classes": BayesianClassifier(net, **counts).fit(X, LABELS).posterior_,
    }


@pytest.mark.cases(10)
@pytest.mark.parametrize("task", ["regression", "classes"])
@pytest.mark.parametrize("name", sorted(STATS, key=lambda name: name[::-1]))
@pytest.mark.filterwarnings("ignore")  # chains are short, and some points weigh much
def test_statistics(name, task, trees):
    assert getattr(arviz_stats, name)(trees[task], **STATS[name]) is not None or name == "diagnose"


@pytest.mark.cases(8)
@pytest.mark.parametrize("task", ["classes", "regression"])
@pytest.mark.parametrize("name", sorted(PLOTS, key=lambda name: name[::-1]))
@pytest.mark.filterwarnings("ignore")
def test_plots(name, task, trees):
    on_predictions = name.startswith(("plot_ppc", "plot_loo"))
    arguments = {} if on_predictions or name == "plot_energy" else OF_DRAWS
    getattr(arviz_plots, name)(trees[task], backend="matplotlib", **arguments)
    plt.close("all")


def test_codes_densities_and_prior(trees):
    tree = trees["classes"]
    assert tree.observed_data.attrs["classes"] == ["ant", "bee", "cat"]
    codes = np.searchsorted(CLASSES, LABELS)
    np.testing.assert_array_equal(tree.observed_data["y"], codes)
    assert set(np.unique(tree.posterior_predictive["y"])) <= {0, 1, 2}
    density = log_softmax(tree.posterior["f"].values, axis=-1)[..., np.arange(14), codes]
    np.testing.assert_allclose(tree.log_likelihood["y"], density, rtol=1e-8)
    tree = trees["regression"]
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
