"""Finite ensembles of every kind: against SciPy on tiny networks, and the infinite ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from ntk_uq import Architecture
from ntk_uq.analytic import exact_predictor, gaussian_predictor
from ntk_uq.ensemble import PathWarning, solve_linearised, train_ensemble
from ntk_uq.ensemble.members import draw, label_noise, prior_function
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson, Weighted
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.mlp import MLP

N, M, D, C = 8, 4, 3, 2
MODES = ["initialization", "posterior", "none"]
_RNG = np.random.default_rng(0)
X, X_TEST = (_RNG.normal(size=(rows, D)).astype(np.float32) for rows in (N, M))
LABELS = np.eye(C, dtype=np.float32)[_RNG.integers(C, size=N)]
WEIGHTS = _RNG.uniform(0.5, 2.0, N).astype(np.float32)
PROBLEMS = {
    "categorical": (Categorical(), LABELS),
    "soft": (Categorical(), 0.7 * LABELS + 0.3 / C),
    "bernoulli": (Bernoulli(), LABELS),
    "gaussian": (Gaussian(0.5), _RNG.normal(size=(N, C)).astype(np.float32)),
    "poisson": (Poisson(), _RNG.poisson(2.0, (N, C)).astype(np.float32)),
    "weighted": (Weighted(Categorical(), WEIGHTS), LABELS),
}
# Written out again, in NumPy: the loss of outputs f.
LOSSES = {
    "categorical": lambda f, y: np.sum(np.logaddexp.reduce(f, axis=1) - np.sum(y * f, axis=1)),
    "bernoulli": lambda f, y: np.sum(np.logaddexp(0, f) - y * f),
    "gaussian": lambda f, y: np.sum((y - f) ** 2) / (2 * 0.5**2),
    "poisson": lambda f, y: np.sum(np.exp(f) - y * f),
    "weighted": lambda f, y: WEIGHTS @ (np.logaddexp.reduce(f, axis=1) - np.sum(y * f, axis=1)),
}
LOSSES["soft"] = LOSSES["categorical"]


def arrays(*values):
    return tuple(jnp.asarray(value, float) for value in values)


def train(function, net, problem="categorical", *, reg=0.5, n_members=2, seed=0, **options):
    likelihood, y = PROBLEMS[problem]
    return function(
        jax.random.key(seed), net, *arrays(X, y), likelihood, reg=reg, n_members=n_members,
        **options,
    )  # fmt: skip


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("problem", "uncertainty"),
    [*((problem, "posterior") for problem in PROBLEMS), *(("categorical", u) for u in MODES[::2])],
)
def test_linearised_solution_is_scipys(problem, uncertainty):
    """In the space of parameters, where nothing is dual."""
    net, reg = MLP(width=4, depth=1, activation="erf"), 0.5
    with jax.enable_x64(True):
        trained = train(solve_linearised, net, problem, uncertainty=uncertainty, n_members=1)
        likelihood, y = PROBLEMS[problem]
        initial, tangent = draw(net, jax.random.key(0), 0, D, C)
        x = jnp.asarray(X, float)
        leaves = jax.tree.leaves(jax.jit(jax.jacobian(net.apply))(initial, x))
        jacobian = np.concatenate([np.asarray(leaf).reshape(N, C, -1) for leaf in leaves], axis=2)
        f0 = np.asarray(net.apply(initial, x))
        mode = None if trained.mode is None else jnp.asarray(trained.mode)
        noise = np.asarray(
            label_noise(uncertainty, jax.random.key(0), 0, likelihood, mode, jnp.asarray(y, float))
        )
        flat_tangent = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tangent)])
        latents = np.asarray(trained.latents(x))[0]
    prior = {
        "initialization": f0, "none": 0 * f0, "posterior": jacobian @ flat_tangent / np.sqrt(reg),
    }[uncertainty]  # fmt: skip

    def objective(v):
        f = prior + jacobian @ v
        return LOSSES[problem](f, y) + np.sum(noise * f) + reg / 2 * v @ v

    solution = optimize.minimize(objective, np.zeros(jacobian.shape[2]), tol=1e-8)
    np.testing.assert_allclose(latents, prior + jacobian @ solution.x, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["categorical", "bernoulli", "poisson"])
def test_linearised_solution_without_regularisation_is_the_nearest_interpolation(problem):
    """The smallest step to outputs of which the likelihood asks nothing more, by least squares."""
    net = MLP(width=64, depth=1, activation="erf")
    with jax.enable_x64(True):
        likelihood, y = PROBLEMS[problem]
        y = y.astype(float)
        y = y + 1 if problem == "poisson" else 0.8 * y + 0.2 / C  # non-degenerate
        x = jnp.asarray(X, float)
        solved = solve_linearised(
            jax.random.key(0), net, x, jnp.asarray(y), likelihood, reg=0.0, n_members=1
        )
        initial, _ = draw(net, jax.random.key(0), 0, D, C)
        leaves = jax.tree.leaves(jax.jacobian(net.apply)(initial, x))
        jacobian = np.concatenate([leaf.reshape(N, C, -1) for leaf in leaves], axis=2)
        f0 = np.asarray(net.apply(initial, x))
        latents = np.asarray(solved.latents(x))[0]
        slope = np.asarray(likelihood.gradient(jnp.asarray(latents), jnp.asarray(y)))
    target = (np.log(y / (1 - y)) if problem == "bernoulli" else np.log(y)) - f0
    if problem == "categorical":  # a constant added to all classes is not seen
        target -= target.mean(axis=1, keepdims=True)
        seen = jacobian - jacobian.mean(axis=1, keepdims=True)
    else:
        seen = jacobian
    step, *_ = np.linalg.lstsq(seen.reshape(N * C, -1), target.ravel())
    np.testing.assert_allclose(latents, f0 + jacobian @ step, atol=1e-7)
    np.testing.assert_allclose(slope, 0.0, atol=1e-8)


def test_linearised_without_regularisation_needs_targets_inside():
    with pytest.raises(ValueError, match="smooth the targets"):
        train(solve_linearised, MLP(width=8, depth=1), "categorical", reg=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "uncertainty"),
    [("weighted", "posterior"), ("poisson", "initialization"), ("gaussian", "none")],
)
def test_networks_approach_their_linearisation(problem, uncertainty):
    """Same initialisation, prior function and noise: the distance falls as 1 / sqrt(width)."""
    distances = []
    for width in (32, 512):
        net = MLP(width=width, depth=1, activation="erf")
        trained, exact = (
            np.asarray(train(f, net, problem, reg=2.0, uncertainty=uncertainty).latents(X_TEST))
            for f in (train_tightly, solve_linearised)
        )
        distances.append(np.max(np.abs(trained - exact)))
    assert distances[1] < 0.1
    assert distances[1] < distances[0] / 2


def train_tightly(*args, **kwargs):
    return train_ensemble(*args, tol=1e-6, **kwargs)


@pytest.mark.slow
def test_prior_functions_and_label_noise_have_their_covariance():
    net, reg, members = MLP(width=16, depth=1), 0.5, 4000
    likelihood, y = PROBLEMS["weighted"]
    mode = jnp.asarray(_RNG.normal(size=(N, C)), jnp.float32)
    initial, _ = draw(net, jax.random.key(0), 0, D, C)

    @jax.vmap
    def sample(i):
        _, tangent = draw(net, jax.random.key(0), i, D, C)
        prior = prior_function(net, "posterior", initial, tangent, reg, jnp.asarray(X))
        noise = label_noise("posterior", jax.random.key(0), i, likelihood, mode, jnp.asarray(y))
        return prior + net.apply(initial, X), noise

    prior, noise = (np.asarray(v, float).reshape(members, -1) for v in sample(jnp.arange(members)))
    jacobian = np.concatenate(
        [leaf.reshape(N * C, -1) for leaf in jax.tree.leaves(jax.jacobian(net.apply)(initial, X))],
        1,
    )
    p = np.exp(mode) / np.exp(mode).sum(axis=1, keepdims=True)
    curvature = np.zeros((N, C, N, C))
    for i in range(N):
        curvature[i, :, i] = WEIGHTS[i] * (np.diag(p[i]) - np.outer(p[i], p[i]))
    for draws, cov in [
        (prior, jacobian @ jacobian.T / reg),
        (noise, curvature.reshape(N * C, N * C)),
    ]:
        scale = np.outer(*2 * [np.sqrt(np.diag(cov))])
        # A covariance's standard error is at most scale * sqrt(2 / members).
        assert np.max(np.abs(draws.T @ draws / members - cov) / scale) < 4.5 * np.sqrt(2 / members)
        assert np.max(np.abs(draws.mean(axis=0)) / np.sqrt(np.diag(cov))) < 4.5 / np.sqrt(members)
    correlation = np.corrcoef(prior.T, noise.T)[: N * C, N * C :]
    assert np.max(np.abs(correlation)) < 4.5 / np.sqrt(members)


def infinite(net, problem, reg, uncertainty):
    """Mean and covariance of the infinite ensemble; from draws where it is not Gaussian."""
    likelihood, y = PROBLEMS[problem]
    kernels = net.kernels(np.concatenate([X, X_TEST]))
    with jax.enable_x64(True):
        rows = [Kernels(*(jnp.asarray(k[part, :N]) for k in kernels)) for part in
                (slice(N), slice(N, None))]  # fmt: skip
        diagonal = Kernels(*(jnp.asarray(np.diag(k)[N:]) for k in kernels))
        args = (rows[0], jnp.asarray(y, float), reg, likelihood, uncertainty)
        if problem == "gaussian":
            mean, cov = gaussian_predictor(*args).moments(rows[1], diagonal)
            return np.asarray(mean), np.asarray(cov)
        draws = np.asarray(
            exact_predictor(jax.random.key(9), *args, 20000).latents(rows[1], diagonal)
        )
    return draws.mean(axis=0), np.stack([np.cov(draws[:, j].T) for j in range(M)])


def law_errors(net, function, problem, reg, uncertainty, members):
    """Largest errors of mean and covariance, in standard deviations and variances."""
    mean, cov = infinite(net, problem, reg, uncertainty)
    sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    trained = train(
        function, net, problem, reg=reg, uncertainty=uncertainty, n_members=members, seed=5
    )
    latents = np.asarray(trained.latents(X_TEST))
    sample = np.stack([np.cov(latents[:, j].T) for j in range(M)])
    return (
        np.max(np.abs(latents.mean(axis=0) - mean) / sd),
        np.max(np.abs(sample - cov) / (sd[:, :, None] * sd[:, None, :])),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "uncertainty"),
    [("categorical", "posterior"), ("gaussian", "initialization"), ("gaussian", "posterior")],
)
def test_linearised_ensemble_has_the_law_of_the_infinite_one(problem, uncertainty):
    """The Gaussian's "posterior" is the exact posterior of Gaussian-process regression."""
    members, net = 300, MLP(width=512, depth=1, activation="erf")
    mean_error, cov_error = law_errors(net, solve_linearised, problem, 1.0, uncertainty, members)
    finite_width = 20 / net.width
    assert mean_error < 4 / np.sqrt(members) + finite_width
    assert cov_error < 4.5 * np.sqrt(2 / members) + finite_width


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["erf", "relu"])
@pytest.mark.parametrize("problem", ["categorical", "gaussian", "poisson"])
def test_posterior_ensemble_approaches_the_posterior(problem, activation):
    members, errors = 512, []
    for width in (32, 512):
        net = MLP(width=width, depth=1, activation=activation)
        errors.append(law_errors(net, train_tightly, problem, 2.0, "posterior", members))
    finite_width = 20 / 512
    assert errors[1][0] < 4 / np.sqrt(members) + finite_width
    assert errors[1][1] < 4.5 * np.sqrt(2 / members) + finite_width


# --- Optimizers -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 3])
def test_optax_reaches_the_same_minimum(batch_size):
    net, passes = MLP(width=512, depth=1, activation="erf"), 400  # narrow ones have other minima
    updates = passes * (1 if batch_size is None else N // batch_size)
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.01, updates), momentum=0.9)
    walked = train(train_ensemble, net, optimizer=optimizer, batch_size=batch_size, max_iter=passes)
    searched = train(train_ensemble, net, tol=1e-6)
    assert walked.converged.all()
    np.testing.assert_allclose(walked.objective, searched.objective, rtol=1e-3)


@pytest.mark.slow
def test_weights_and_mini_batches_keep_together():
    net = MLP(width=64, depth=1, activation="erf")
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 800))
    options = {"optimizer": optimizer, "batch_size": 4, "max_iter": 400}
    walked = train(train_ensemble, net, "weighted", **options)
    searched = train(train_ensemble, net, "weighted", tol=1e-6)
    np.testing.assert_allclose(walked.objective, searched.objective, rtol=1e-3)


@pytest.mark.slow
def test_weight_two_counts_a_point_twice():
    net = MLP(width=32, depth=1, activation="erf")
    twice = [0, 0, 1, 2, 3, 4, 5, 6, 7, 7]
    weights = jnp.asarray([2.0, 1, 1, 1, 1, 1, 1, 2])
    key, options = jax.random.key(0), {"reg": 0.5, "n_members": 2, "tol": 1e-6}
    weighted = train_ensemble(
        key, net, *arrays(X, LABELS), Weighted(Categorical(), weights), **options
    )
    repeated = train_ensemble(key, net, *arrays(X[twice], LABELS[twice]), Categorical(), **options)
    np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-5)
    np.testing.assert_allclose(weighted.latents(X_TEST), repeated.latents(X_TEST), atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "leaves"),
    [(optax.adam(0.05), True), (optax.adamw(0.05), True), (optax.sgd(0.05, 0.9), False)],
)
def test_leaving_the_span_of_the_jacobian_is_said(optimizer, leaves):
    with pytest.warns() as record:
        train(
            train_ensemble, MLP(width=8, depth=1), "soft", reg=0.0, optimizer=optimizer, max_iter=2
        )
    assert any(w.category is PathWarning for w in record) == leaves


class Own:
    """A user's likelihood: logistic noise, log p = f - y - 2 log(1 + exp(f - y))."""

    def log_density(self, f, y):
        return jnp.sum(f - y - 2 * jax.nn.softplus(f - y), axis=-1)

    def gradient(self, f, y):
        return 1 - 2 * jax.nn.sigmoid(f - y)

    def curvature(self, f, y):
        from ntk_uq.likelihoods import Curvature

        p = jax.nn.sigmoid(f - y)
        return Curvature(2 * p * (1 - p), None)

    def response(self, f):
        return f

    def degenerate(self, y):
        return jnp.zeros(len(y), bool)

    def optimum(self, y):
        return y

    def identified(self, f):
        return f

    def check_targets(self, y):
        pass


@jax.tree_util.register_static
class Registered(Own):
    pass


@pytest.mark.slow
def test_a_users_own_likelihood():
    y = PROBLEMS["gaussian"][1]
    net = MLP(width=256, depth=1, activation="erf")
    args = (jax.random.key(0), net, *arrays(X, y), Registered())
    for uncertainty in MODES:
        options = {"reg": 2.0, "n_members": 2, "uncertainty": uncertainty}
        trained, exact = train_tightly(*args, **options), solve_linearised(*args, **options)
        np.testing.assert_allclose(trained.latents(X_TEST), exact.latents(X_TEST), atol=0.1)


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "y", "message"),
    [
        ("categorical", 1.01 * LABELS, "class probabilities, from 0 to 1; got 1.01 in row 0"),
        ("categorical", 0.9 * LABELS, "must sum to one over the classes; row 0 sums to 0.9"),
        ("bernoulli", -LABELS, "probabilities of a one .* got -1"),
        ("poisson", LABELS - 1, "counts, from 0 to inf; got -1"),
        ("poisson", LABELS / 2, "whole numbers; got 0.5"),
        ("gaussian", LABELS[:3], r"same n; got \(8, 3\) and \(3, 2\)"),
        ("gaussian", LABELS[:, 0], r"y \[n, C\], with the same n; got \(8, 3\) and \(8,\)"),
    ],
)
def test_bad_targets(problem, y, message):
    with pytest.raises(ValueError, match=message):
        train_ensemble(
            jax.random.key(0), MLP(width=8), *arrays(X, y), PROBLEMS[problem][0], reg=1.0,
            n_members=1,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": -1.0}, "reg must be at least 0; got -1"),
        ({"uncertainty": "laplace"}, 'uncertainty must be "initialization", "posterior" or "none"'),
        ({"uncertainty": "posterior", "reg": 0.0}, "needs reg > 0"),
        ({"reg": 0.0}, "degenerate targets .* has no solution"),
        ({"batch_size": 3}, "batch_size needs an optimizer"),
        ({"batch_size": 9, "optimizer": optax.sgd(0.1)}, "between 1 and the 8 points; got 9"),
        ({"memory": 1000}, "one member takes about .* Give more memory"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        train(train_ensemble, MLP(width=8, depth=1), **options)


def test_unregistered_likelihood():
    with pytest.raises(ValueError, match=r"Own is not known to JAX: .* register_static"):
        train_ensemble(
            jax.random.key(0), MLP(width=8), *arrays(X, LABELS), Own(), reg=1.0, n_members=1
        )


def test_module_with_outputs_of_the_wrong_shape():
    from flax import nnx

    class Squeezed(nnx.Linear):
        def __call__(self, x):
            return super().__call__(x)[:, 0]

    with pytest.raises(
        ValueError, match=r"outputs of shape \(8,\) where the targets have \(8, 2\)"
    ):
        train(train_ensemble, Architecture(Squeezed))
