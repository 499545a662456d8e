"""BayesianClassifier and BayesianRegressor: contract, closed forms, and ArviZ."""

import pickle
import warnings

import arviz as az
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel
from sklearn.utils.estimator_checks import check_estimator

from ntk_uq import MLP, BayesianClassifier, BayesianRegressor, NTKRegressor

NET = MLP(width=32, depth=1, activation="erf")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
LABELS = np.digitize(X[:, 0] + 0.3 * RNG.normal(size=20), [-0.4, 0.4])
TARGET = 10 + 5 * np.sin(2 * X[:, 0]) + RNG.normal(size=20)
TARGETS = np.c_[TARGET, 3 * X[:, 1]]
X_TEST = RNG.normal(size=(7, 3))
FEW = {"num_warmup": 20, "num_samples": 20}
LONG = {"num_warmup": 300, "num_samples": 2000}
few_draws = pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")


def z_scores(prediction, mean, variance):
    """Errors of mean and variance in Monte-Carlo standard errors."""
    draws = prediction.samples.reshape(prediction.n_chains, -1, *prediction.mean.shape)
    for values, expected in ((draws, mean), ((draws - mean) ** 2, variance)):
        ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
        yield np.abs(values.mean((0, 1)) - expected) / (values.std((0, 1)) / np.sqrt(ess))


def assert_moments(prediction, mean, variance, level=1e-3):
    """At a familywise level, by Bonferroni's bound."""
    for z in z_scores(prediction, mean, variance):
        assert z.max() < stats.norm.isf(level / 4 / z.size), z


class NetworkKernel(Kernel):
    """A kernel of the network as scikit-learn's, which wants a constructor."""

    def __init__(self, prior="ntk", reg=1.0):
        self.prior = prior
        self.reg = reg

    def __call__(self, X, Y=None, eval_gradient=False):
        kernels = NET.kernels(X, Y)
        return kernels.ntk / self.reg if self.prior == "ntk" else kernels.nngp

    def diag(self, X):
        return np.diag(self(X))

    def is_stationary(self):
        return False


@pytest.mark.parametrize(("prior", "reg"), [("ntk", 0.5), ("nngp", 1.0)])
def test_regression_is_scikit_learns_gaussian_process(prior, reg):
    ours = BayesianRegressor(NET, reg=reg, prior=prior, noise=0.7, **LONG).fit(X, TARGET)
    kernel = NetworkKernel(prior, reg)
    theirs = GaussianProcessRegressor(kernel, alpha=0.7**2, optimizer=None).fit(X, TARGET)
    mean, std = theirs.predict(X_TEST, return_std=True)
    assert_moments(ours.predict_distribution(X_TEST), mean[:, None], std[:, None] ** 2)
    np.testing.assert_array_equal(ours.noise_, [0.7])
    predicted, spread = ours.predict(X_TEST, return_std=True)
    assert predicted.shape == spread.shape == (7,)


def test_regression_in_units_of_the_target_is_the_closed_form():
    """Two outputs, standardised and with the noise estimated, as NTKRegressor does."""
    ours = BayesianRegressor(**LONG).fit(X, TARGETS)
    theirs = NTKRegressor(reg=1.0, uncertainty="posterior").fit(X, TARGETS)
    np.testing.assert_allclose(ours.noise_, theirs.noise_, rtol=1e-8)
    mean, std = theirs.predict(X_TEST, return_std=True)
    assert_moments(ours.predict_distribution(X_TEST), mean, std**2)
    joint = ours.predict_distribution(X_TEST, joint=True)
    assert_moments(joint, mean, std**2)
    # posterior_ is in the units of the target, too.
    mean, std = theirs.predict(X, return_std=True)
    f = ours.posterior_.posterior["f"]
    assert f.dims == ("chain", "draw", "point", "output")
    np.testing.assert_allclose(f.mean(("chain", "draw")), mean, atol=5 * np.max(std) / 400**0.5)
    np.testing.assert_allclose(ours.posterior_.observed_data["y"], TARGETS)
    expected = stats.norm.logpdf(TARGETS, f.values, ours.noise_).sum(-1)
    np.testing.assert_allclose(ours.posterior_.log_likelihood["y"], expected)


def test_noise_is_estimated_under_the_prior():
    """With the NNGP prior the evidence is that of the NNGP kernel."""
    fitted = BayesianRegressor(NET, prior="nngp", num_warmup=50, num_samples=500)
    noise = fitted.fit(X, TARGET).noise_[0]

    def evidence(noise):
        cov = NET.kernels(X).nngp + noise**2 * np.eye(20)
        return stats.multivariate_normal.logpdf(TARGET, cov=cov)

    assert evidence(noise) > max(evidence(0.98 * noise), evidence(1.02 * noise))


@few_draws
@pytest.mark.slow
@pytest.mark.parametrize("estimator", [BayesianClassifier, BayesianRegressor])
def test_scikit_learns_checks(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(estimator(**FEW))


@few_draws
def test_pickle_and_clone():
    for model, y in ((BayesianClassifier(NET, **FEW), LABELS), (BayesianRegressor(**FEW), TARGET)):
        fitted = clone(model).fit(X, y)
        tree = fitted.posterior_
        assert fitted.posterior_ is tree
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict(X_TEST), fitted.predict(X_TEST))
        assert again.posterior_.equals(tree)
        assert clone(fitted).get_params() == model.get_params()
        refitted = fitted.set_params(random_state=1).fit(X, y)
        assert not refitted.posterior_.equals(tree)


def test_nothing_is_drawn_before_fit():
    assert not hasattr(BayesianClassifier(), "posterior_")


_ = az
