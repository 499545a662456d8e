"""BayesianClassifier and BayesianRegressor: contract, closed forms, and ArviZ."""

import pickle

import arviz as az
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from flax import nnx
from scipy import stats
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel
from small_problem import FEW
from small_problem import LABELS as SMALL_LABELS
from small_problem import X as SMALL

from ntk_uq import (
    MLP,
    Architecture,
    BayesianClassifier,
    BayesianRegressor,
    NTKClassifier,
    NTKRegressor,
)
from ntk_uq.analytic import FirstOrderWarning
from ntk_uq.bayes.samplers import SAMPLERS, ChainSampler, DrawSampler, samplers_of

NET = MLP(width=32, depth=1, activation="erf")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
LABELS = np.digitize(X[:, 0] + 0.3 * RNG.normal(size=20), [-0.4, 0.4])
TARGET = 10 + 5 * np.sin(2 * X[:, 0]) + RNG.normal(size=20)
TARGETS = np.c_[TARGET, 3 * X[:, 1]]
X_TEST = RNG.normal(size=(7, 3))
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


@pytest.mark.cases(1)
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


@pytest.mark.slow
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
    fitted = BayesianRegressor(NET, prior="nngp", sampler="laplace")  # as before any sampler
    noise = fitted.fit(X, TARGET).noise_[0]

    def evidence(noise):
        cov = NET.kernels(X).nngp + noise**2 * np.eye(20)
        return stats.multivariate_normal.logpdf(TARGET, cov=cov)

    assert evidence(noise) > max(evidence(0.98 * noise), evidence(1.02 * noise))


@pytest.mark.slow
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


# Approximations


def binary_kernel():
    """The difference of two logits has twice the kernel of either."""
    return NetworkKernel("ntk", reg=0.25)  # Theta / 0.25 = 2 (Theta / 0.5)


@pytest.mark.slow
def test_laplace_is_scikit_learns_gaussian_process_classifier():
    labels = (LABELS > 0).astype(int)
    ours = BayesianClassifier(NET, reg=0.5, sampler="laplace").fit(X, labels)
    theirs = GaussianProcessClassifier(binary_kernel(), optimizer=None).fit(X, labels)
    prediction = ours.predict_distribution(X_TEST)
    difference = np.array([-1.0, 1.0])
    mean, variance = theirs.latent_mean_and_variance(X_TEST)
    np.testing.assert_allclose(prediction.mean @ difference, mean, rtol=1e-4, atol=1e-5)
    spread = np.einsum("c,mcd,d->m", difference, prediction.cov, difference)
    np.testing.assert_allclose(spread, variance, rtol=1e-4)
    # Of the average of a logistic function, theirs is an approximation, good to about 1e-3.
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    latents = mean + np.sqrt(variance) * nodes[:, None]
    exact = weights @ expit(latents) / weights.sum()
    np.testing.assert_allclose(theirs.predict_proba(X_TEST)[:, 1], exact, atol=2e-3)
    np.testing.assert_allclose(ours.predict_proba(X_TEST)[:, 1], exact, atol=2e-3)


def test_laplace_is_the_infinite_ensembles_posterior_mode():
    """What docs/design says: NTKClassifier(uncertainty="posterior", method="gaussian")."""
    ours = BayesianClassifier(NET, reg=0.5, sampler="laplace").fit(X, LABELS)
    theirs = NTKClassifier(NET, reg=0.5, uncertainty="posterior", method="gaussian").fit(X, LABELS)
    for joint in (False, True):
        a, b = (model.predict_distribution(X_TEST, joint=joint) for model in (ours, theirs))
        np.testing.assert_allclose(a.mean, b.mean, atol=1e-6)
        np.testing.assert_allclose(a.cov, b.cov, atol=1e-6)
    np.testing.assert_allclose(a.joint_cov, b.joint_cov, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"reg": 1e-3},
        pytest.param({"prior": "nngp"}, marks=pytest.mark.slow),
        {"prior": "weights"},
    ],
)
def test_laplace_warns_where_the_posterior_is_no_gaussian(options):
    net = MLP(width=4, depth=1, activation="erf", w_std=30.0 if "prior" in options else 1.4)
    with pytest.warns(FirstOrderWarning, match='sampler="nuts"') as caught:
        laplace = BayesianClassifier(net, sampler="laplace", **options).fit(X, LABELS)
    (found,) = [w for w in caught if w.category is FirstOrderWarning]
    assert found.filename == __file__
    assert ("raise reg" in str(found.message)) == ("reg" in options)
    assert np.mean(laplace.discrepancy_.total_variation) > 0.1


def test_approximations_have_nothing_to_diagnose():
    laplace = BayesianClassifier(NET, sampler="laplace").fit(X, LABELS)
    assert laplace.diagnostics_ is None
    assert not hasattr(laplace, "draws_")
    with pytest.raises(AttributeError, match="draws nothing"):
        _ = laplace.posterior_
    variational = laplace.set_params(sampler="vi", num_samples=50).fit(X, LABELS)
    assert variational.diagnostics_ is None
    assert not hasattr(variational, "laplace_")
    prediction = variational.predict_distribution(X_TEST)
    assert prediction.samples.shape == (100, 7, 3)
    assert prediction.n_chains is None
    assert "elbo" in variational.posterior_.sample_stats


@pytest.mark.slow
@few_draws
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "nuts"])
def test_samplers_agree_with_nuts(sampler):
    """Mean class probabilities: the error of an approximation, about 0.1, and of few draws."""
    arguments = {"reg": 2.0, "num_warmup": 200, "num_samples": 500}
    nuts = BayesianClassifier(NET, **arguments).fit(X, LABELS).predict_proba(X_TEST)
    other = BayesianClassifier(NET, sampler=sampler, **arguments).fit(X, LABELS)
    tolerance = 0.05 if sampler in samplers_of(ChainSampler) else 0.12
    np.testing.assert_allclose(other.predict_proba(X_TEST), nuts, atol=tolerance)


# Finite networks


@pytest.mark.slow
@few_draws
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_finite_networks(sampler):
    arguments = {"prior": "weights", "sampler": sampler, "num_warmup": 100, "num_samples": 100}
    net = MLP(width=8, depth=1, activation="erf")
    model = BayesianClassifier(net, **arguments).fit(X, LABELS)
    prediction = model.predict_distribution(X_TEST)
    np.testing.assert_allclose(model.predict_proba(X_TEST).sum(axis=1), 1)
    assert model.score(X, LABELS) > 0.6
    alone = np.concatenate([model.predict_proba(x[None]) for x in X_TEST])
    np.testing.assert_allclose(alone, model.predict_proba(X_TEST), atol=1e-9)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X_TEST), model.predict_proba(X_TEST))
    if sampler not in samplers_of(DrawSampler):
        joint = model.predict_distribution(X_TEST, joint=True)
        np.testing.assert_allclose(joint.cov, prediction.cov, atol=1e-9)
    else:
        assert prediction.joint
        assert model.draws_.whitened.shape == (2, 100, 8 * 4 + 3 * 9)
        assert model.posterior_.posterior["f"].shape == (2, 100, 20, 3)


def without_a_limit(in_features, out_features, *, rngs):
    return Sorted(in_features, out_features, rngs=rngs)


class Sorted(nnx.Linear):
    def __call__(self, x):
        return jnp.sort(super().__call__(x), axis=-1)


def test_finite_network_without_a_kernel():
    linear = Architecture(without_a_limit)
    model = BayesianRegressor(linear, prior="weights", noise=1.0, num_warmup=100)
    assert model.fit(X, TARGET).predict(X_TEST).shape == (7,)
    with pytest.raises(ValueError, match="cannot be read off: sort"):
        model.set_params(noise=None).fit(X, TARGET)
    with pytest.raises(ValueError, match="cannot be read off: sort"):
        model.set_params(prior="ntk", noise=1.0).fit(X, TARGET)


# ArviZ


@pytest.fixture(scope="module")
def sampled():
    names = np.array(["ant", "bee", "cat"])
    model = BayesianClassifier(NET, reg=4.0, num_warmup=300, num_samples=600)
    return model.fit(X, names[LABELS])


def test_posterior_is_labelled(sampled):
    tree = sampled.posterior_
    assert set(tree.children) == {
        "prior",
        "prior_predictive",
        "log_prior",
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "sample_stats",
    }
    assert tree.posterior["f"].dims == ("chain", "draw", "point", "class")
    assert list(tree.posterior["class"].values) == ["ant", "bee", "cat"]
    np.testing.assert_array_equal(tree.posterior["point"], np.arange(20))
    np.testing.assert_array_equal(tree.observed_data["y"], LABELS)
    assert tree.observed_data.attrs["classes"] == ["ant", "bee", "cat"]
    # Predicted classes come at the frequencies of their mean probabilities.
    predicted = tree.posterior_predictive["y"]
    assert predicted.dims == ("chain", "draw", "point")
    p = softmax(tree.posterior["f"].values, axis=-1).mean((0, 1))
    shares = np.mean(predicted.values[..., None] == np.arange(3), axis=(0, 1))
    z = (shares - p) / np.sqrt(p * (1 - p) / 1200)
    assert np.abs(z).max() < stats.norm.isf(5e-4 / z.size)
    # Nats, of the class observed.
    log_p = np.log(softmax(tree.posterior["f"].values, axis=-1))
    expected = np.take_along_axis(log_p, LABELS[None, None, :, None], axis=-1)[..., 0]
    np.testing.assert_allclose(tree.log_likelihood["y"], expected, rtol=1e-9)


def test_arviz_takes_the_posterior(sampled):
    tree = sampled.posterior_
    summary = az.summary(tree, round_to="none")
    assert len(summary) == 60
    np.testing.assert_allclose(summary["r_hat"].max(), sampled.diagnostics_.rhat_max)
    loo = az.loo(tree)
    assert -20 * np.log(3) < loo.elpd < 0
    wider = BayesianClassifier(NET, reg=50.0, num_warmup=300, num_samples=600).fit(X, LABELS)
    table = az.compare({"reg 4": tree, "reg 50": wider.posterior_})
    # With reg = 50 the prior allows little else than probabilities of a third.
    assert list(table.index) == ["reg 4", "reg 50"]
    assert az.ess(tree)["f"].shape == (20, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plot",
    ["plot_trace", "plot_trace_dist", "plot_rank", "plot_ess", "plot_mcse", "plot_forest"],
)
def test_arviz_plots_the_posterior(sampled, plot):
    getattr(az, plot)(sampled.posterior_, coords={"point": [0], "class": ["ant"]})


@few_draws
def test_arviz_plots_energy_and_predictions(sampled):
    az.plot_energy(sampled.posterior_)
    regression = BayesianRegressor(NET, noise=1.0, **FEW).fit(SMALL, TARGET[: len(SMALL)])
    az.plot_ppc_dist(regression.posterior_, kind="ecdf", num_samples=20)


@few_draws
@pytest.mark.parametrize(
    "names", [np.array(["a", "b", "c"]), np.arange(3), np.array([0.0, 1.0, 2.0])], ids=str
)
def test_posterior_is_saved_and_loaded(names, tmp_path):
    tree = BayesianClassifier(NET, **FEW).fit(SMALL, names[SMALL_LABELS]).posterior_
    tree.to_netcdf(tmp_path / "posterior.nc")
    loaded = az.from_netcdf(tmp_path / "posterior.nc")
    assert loaded.identical(tree)
    np.testing.assert_array_equal(loaded.posterior["class"], names)


@few_draws
def test_boolean_classes_are_saved(tmp_path):
    model = BayesianClassifier(NET, sampler="ess", **FEW)  # which compiles sooner than NUTS
    tree = model.fit(SMALL, SMALL_LABELS > 0).posterior_
    tree.to_netcdf(tmp_path / "posterior.nc")
    assert az.from_netcdf(tmp_path / "posterior.nc").equals(tree)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": "flat"}, 'prior must be "ntk", "nngp" or "weights"; got .flat.'),
        ({"sampler": "gibbs"}, 'sampler must be "nuts", .*; got .gibbs.'),
        ({"num_warmup": 0}, "num_warmup must be an integer, at least 1"),
        ({"num_samples": 2}, "num_samples must be at least 4"),
        (
            {"architecture": MLP(), "prior": "weights", "num_warmup": 5000},
            r"NUTS on 20 points and the 266243 parameters of MLP\(.* would take .*narrower network",
        ),
        (
            {"prior": "weights", "sampler": "ess", "num_samples": 10**8},
            r"Elliptical slices on 20 points and the \d+ parameters .* would take",
        ),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        BayesianClassifier(**({"architecture": NET} | arguments)).fit(X, LABELS)


def test_too_many_points_are_refused_with_what_to_do():
    X = RNG.normal(size=(20_000, 2))
    with pytest.raises(ValueError, match=r"NUTS on 20000 points .*NTKRegressor\(uncert"):
        BayesianRegressor(NET, noise=1.0).fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"Variational inference on 20000 points"):
        BayesianRegressor(NET, noise=1.0, sampler="vi").fit(X, X[:, 0])
    with pytest.raises(
        MemoryError, match=r'sampler="laplace" on 20000 points and 10 outputs takes'
    ):
        BayesianClassifier(NET, sampler="laplace").fit(X, np.arange(20_000) % 10)


def test_reg_without_effect_is_said():
    with pytest.warns(UserWarning, match=r"prior='weights' is N\(0, I\).*reg=2.0 has no effect"):
        BayesianClassifier(MLP(width=4, depth=1), prior="weights", reg=2.0, sampler="laplace").fit(
            X, LABELS
        )
