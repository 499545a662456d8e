"""JAX's configuration is the user's: no setting of it breaks or changes what is computed."""

import re
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_uq as nuq
from ntk_uq import analytic, bayes, ensemble, kernels

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), np.arange(12) % 3
NET = nuq.MLP(width=8, depth=1, activation="erf")
FEW = {"num_warmup": 8, "num_samples": 8, "num_chains": 2}
TRAINING = {"n_members": 2, "max_iter": 20}
# Of each producer what computes most: label noise, corrections, choices, Optax.
ESTIMATORS = {
    "ntk": nuq.NTKClassifier(NET, reg=1.0, n_draws=4, uncertainty="posterior", n_trajectories=1),
    "ensemble": nuq.EnsembleClassifier(NET, uncertainty="posterior", tol=0.1, **TRAINING),
    "bayes": nuq.BayesianClassifier(NET, prior="weights", **FEW),
    "bayes vi": nuq.BayesianClassifier(NET, sampler="vi", **FEW),
    "ntk regressor": nuq.NTKRegressor(reg="evidence", tune=("scales",)),
    "ensemble regressor": nuq.EnsembleRegressor(NET, tol=0.1, **TRAINING),
    "bayes regressor": nuq.BayesianRegressor(NET, **FEW),
    "bayes laplace": nuq.BayesianRegressor(NET, sampler="laplace"),
}


@contextmanager
def numpy_strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def predicted(estimator):
    prediction = estimator.fit(X, Y).predict_distribution(X)
    if hasattr(estimator, "classes_"):
        return prediction.proba(), prediction.epistemic
    return prediction.mean, prediction.log_density(Y[:, None])


@pytest.mark.cases(2)
@pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_strict_promotion_changes_nothing(name):
    estimator = ESTIMATORS[name]
    plain = predicted(estimator)
    with numpy_strict():
        strict = predicted(estimator)
        if isinstance(estimator, nuq.BayesianClassifier):
            assert estimator.posterior_.posterior.sizes["chain"] >= 1
        # What the user's own code is told stays as it was, also after a failed fit.
        with pytest.raises(ValueError, match="infinity"):
            estimator.fit(np.full_like(X, np.inf), Y)
        with pytest.raises(ValueError, match="rank_promotion"):
            jnp.ones(3) + jnp.ones((2, 3))
        with pytest.raises(ValueError, match="dtype promotion"):
            jnp.ones(3, jnp.float32) + jnp.ones(3, jnp.int32)
    for a, b in zip(plain, strict, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_functional_layer_under_strict_promotion():
    key, points, targets = jax.random.key(0), jnp.asarray(X, jnp.float32), jnp.eye(3)[Y]
    categorical = nuq.Categorical()
    with numpy_strict():
        blocks = nuq.Kernels(*NET.kernels(X))
        problem = blocks, targets, 1.0, categorical, "initialization"
        gaussian = analytic.gaussian_predictor(*problem)
        diagonal = nuq.Kernels(*map(np.diagonal, blocks))
        gaussian.moments(blocks, diagonal)
        exact = analytic.exact_predictor(key, *problem, 3)
        exact.latents(blocks, diagonal)
        analytic.FunctionDraws(key, NET.kernels, X, exact)(X[:2])
        arguments = key, NET, points, targets, categorical
        trained = ensemble.train_ensemble(*arguments, reg=1.0, n_members=1, tol=0.1)
        trained.latents(points)
        ensemble.solve_linearised(*arguments, reg=1.0, n_members=1).latents(points)
        kernels.empirical_ntk(NET, trained.member(0)[1], points)
        bayes.sample_latents(
            key, jnp.asarray(blocks.ntk), targets, categorical,
            num_warmup=4, num_samples=4, num_chains=1,
        )  # fmt: skip
        network = NET.init(key, 3, 3)
        assert network(points).shape == network(points[0])[None].repeat(12, 0).shape == (12, 3)
        nuq.Gaussian(jnp.ones(2)).gradient(jnp.ones((4, 12, 2)), jnp.ones((12, 2)))


def rounding_of_products(program):
    """Precisions of the products in a program's text: of both factors, or None."""
    products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", program)
    assert products
    return {(re.findall(r"HIGHEST|HIGH|DEFAULT", product) or [None])[0] for product in products}


@pytest.fixture
def programs(tmp_path):
    """The texts of programs that are compiled from here on, by the names of their functions."""

    def read():
        found = {}
        for path in tmp_path.glob("*.mlir"):
            name = re.search(r"jit_(.*?)_?_compile", path.name)[1]
            found[name] = found.get(name, "") + path.read_text()
        return found

    jax.config.update("jax_dump_ir_to", str(tmp_path))
    yield read
    jax.config.update("jax_dump_ir_to", "")


def test_no_product_is_rounded_as_accelerators_would(programs):
    # Of shapes that no other test has: a program that is known is not compiled again.
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(37, 5)), np.arange(37) % 3
    net = nuq.MLP(width=11, depth=1, activation="erf")
    draws = {"n_draws": 3, "uncertainty": "posterior", "prior_functions": "networks"}
    nuq.NTKClassifier(net, reg=1.0, **draws).fit(points, labels).predict(points)
    training = {"n_members": 2, "uncertainty": "posterior", "tol": 0.1}
    nuq.EnsembleClassifier(net, reg=1.0, **training).fit(points, labels).predict(points)
    found = programs()
    # A prior function, what iterations of draws do, training.
    for name in ("_outputs", "first", "turn", "_start", "_iterate", "_finish"):
        assert rounding_of_products(found[name]) == {"HIGHEST"}, name


@pytest.mark.parametrize("name", ["tensorfloat32", "highest", None])
def test_rounding_of_networks_is_as_the_user_says(name):
    params, points = NET.init(jax.random.key(0), 3, 3), jnp.asarray(X, jnp.float32)

    def text(function):
        with jax.default_matmul_precision(name):
            return jax.jit(lambda x: function(x)).lower(points).as_text()

    of_network, of_kernel = text(lambda x: NET.apply(params, x)), text(NET.kernel_block)
    assert rounding_of_products(of_network) == {"HIGH" if name == "tensorfloat32" else "HIGHEST"}
    assert rounding_of_products(of_kernel) == {"HIGHEST"}
