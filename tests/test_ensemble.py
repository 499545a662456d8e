"""Finite ensembles: against SciPy on tiny networks, and against the infinite ensemble."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy import optimize
from sklearn.datasets import load_wine

from ntk_uq.analytic import exact_predictor, gaussian_predictor
from ntk_uq.ensemble import ConvergenceWarning, solve_linearised, train_ensemble
from ntk_uq.ensemble.objective import STUCK
from ntk_uq.likelihoods import Categorical, Gaussian
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.mlp import MLP

# Few points in many dimensions: the NTK is well conditioned, so parameters move little against
# the width and finite-width corrections are small.
N, M, D, C = 8, 5, 12, 3
_RNG = np.random.default_rng(0)
X, X_TEST = (_RNG.normal(size=(rows, D)).astype(np.float32) for rows in (N, M))
Y = np.eye(C, dtype=np.float32)[_RNG.integers(C, size=N)]
SOFT = 0.6 * Y + 0.4 / C
NET = MLP(width=16, depth=1, activation="erf")


def train(net, y=Y, *, reg=1.0, n_members=3, seed=0, **options):
    return train_ensemble(
        jax.random.key(seed), net, jnp.asarray(X), jnp.asarray(y), Categorical(), reg=reg,
        n_members=n_members, **options,
    )  # fmt: skip


def scipy_objective(net, initial, y, reg):
    """Minimum of the objective near the initialisation, in float64 by BFGS."""
    with jax.enable_x64(True):
        initial = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), initial)
        start, unravel = ravel_pytree(initial)

        @jax.jit
        def objective(flat):
            logits = net.apply(unravel(flat), jnp.asarray(X, jnp.float64))
            loss = -jnp.sum(jnp.asarray(y) * jax.nn.log_softmax(logits))
            return loss + 0.5 * reg * jnp.sum((flat - start) ** 2)

        gradient = jax.jit(jax.grad(objective))
        result = optimize.minimize(
            lambda v: float(objective(v)), np.asarray(start), jac=lambda v: np.asarray(gradient(v)),
            method="BFGS", options={"gtol": 1e-6, "maxiter": 5000},
        )  # fmt: skip
        return float(result.fun)


@pytest.mark.cases(1)
@pytest.mark.parametrize("reg", [0.3, 3.0])
def test_objective_is_scipys_on_a_smooth_network(reg):
    trained = train(NET, reg=reg, n_members=2, tol=1e-6)
    assert trained.converged.all()
    for i in range(2):
        expected = scipy_objective(NET, trained.member(i)[0], Y, reg)
        # tol is relative to the objective, and single precision sums it to about 1e-6.
        assert trained.objective[i] == pytest.approx(expected, rel=1e-5)


def test_reported_objective_and_gradient_norm_are_those_of_the_members():
    trained = train(NET, n_members=2)

    @jax.jit
    @jax.value_and_grad
    def objective(params, initial):
        loss = -jnp.sum(Y * jax.nn.log_softmax(NET.apply(params, X)))
        moved = ravel_pytree(params)[0] - ravel_pytree(initial)[0]
        return loss + 0.5 * jnp.sum(moved**2)

    for i in range(2):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], trained.params)
        value, gradient = objective(member, trained.member(i)[0])
        assert trained.objective[i] == pytest.approx(float(value), rel=1e-5)
        norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
        assert trained.grad_norm[i] == pytest.approx(norm, rel=1e-2, abs=1e-4)


def infinite(net, y, reg, n_draws=4000):
    both = np.concatenate([X, X_TEST])
    kernels = net.kernels(both)
    with jax.enable_x64(True):
        train_kernels, cross = (
            Kernels(*(jnp.asarray(k[rows, :N]) for k in kernels))
            for rows in (slice(N), slice(N, None))
        )
        diagonal = Kernels(*(jnp.asarray(np.diag(k)[N:]) for k in kernels))
        problem = (train_kernels, y, reg, Categorical(), "initialization")
        mean, cov = gaussian_predictor(*problem).moments(cross, diagonal)
        if not n_draws:
            return np.asarray(mean), np.asarray(cov), None
        draws = exact_predictor(jax.random.key(9), *problem, n_draws).latents(cross, diagonal)
        return np.asarray(mean), np.asarray(cov), np.asarray(draws)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["erf", "relu"])
@pytest.mark.parametrize(("y", "reg"), [(Y, 0.5), (SOFT, 0.0)], ids=["reg", "smoothed"])
def test_ensemble_has_the_law_of_the_infinite_one(activation, y, reg):
    """Means and covariances within Monte-Carlo error plus a term that falls with the width."""
    members = 512
    errors = []
    for width in (64, 512):
        net = MLP(width=width, activation=activation)
        mean, cov, draws = infinite(net, y, reg)
        if reg > 0:  # the Gaussian is first order, so the exact draws are the yardstick
            mean = draws.mean(axis=0)
            cov = np.stack([np.cov(draws[:, j].T) for j in range(M)])
        sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
        latents = np.asarray(train(net, y, reg=reg, n_members=members, tol=1e-5).latents(X_TEST))
        mean_error = np.max(np.abs(latents.mean(axis=0) - mean) / sd)
        sample = np.stack([np.cov(latents[:, j].T) for j in range(M)])
        cov_error = np.max(np.abs(sample - cov) / (sd[:, :, None] * sd[:, None, :]))
        errors.append((mean_error, cov_error))
    noise = np.sqrt(1 / members + (reg > 0) / 4000)
    # 4 standard errors over 15 means; covariances of correlation r err by sqrt(1 + r^2) <= sqrt 2.
    finite_width = 20 / 512  # the theory's rate is 1 / width, for means and covariances alike
    assert errors[-1][0] < 4 * noise + finite_width
    assert errors[-1][1] < 4.5 * np.sqrt(2) * noise + finite_width


def test_small_ensemble_is_near_the_infinite_one():
    """The default suite's version: one output's mean over members, at a few standard errors."""
    net, members = MLP(width=256, depth=1, activation="erf"), 64
    mean, cov, _ = infinite(net, SOFT, 0.0, n_draws=0)
    sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    latents = np.asarray(train(net, SOFT, reg=0.0, n_members=members).latents(X_TEST))
    z = (latents.mean(axis=0) - mean) / sd * np.sqrt(members)
    assert np.max(np.abs(z)) < 4 + 20 / 256 * np.sqrt(members)
    ratio = latents.std(axis=0, ddof=1) / sd
    assert np.max(np.abs(ratio - 1)) < 4 / np.sqrt(2 * members) + 20 / 256


@pytest.mark.slow
def test_no_regularisation_fits_soft_targets():
    trained = train(MLP(width=128), SOFT, reg=0.0)
    proba = jax.nn.softmax(trained.latents(X), axis=-1)
    # Excess below 1e-4 nats in all: by Pinsker's inequality total variation < sqrt(excess / 2).
    assert np.max(0.5 * np.sum(np.abs(proba - SOFT), axis=-1)) < np.sqrt(1e-4 / 2)


@pytest.mark.slow
def test_much_regularisation_leaves_the_members_where_they_start():
    net = MLP(width=32, depth=1)
    trained = train(net, reg=1e6, n_members=2)
    for i in range(2):
        initial, _ = trained.member(i)
        np.testing.assert_allclose(trained.latents(X)[i], net.apply(initial, X), atol=1e-3)


@pytest.mark.slow
def test_members_are_distinct_reproducible_and_kept():
    net = MLP(width=32, depth=1, activation="erf")
    few, again, many = (np.asarray(train(net, n_members=n).latents(X_TEST)) for n in (3, 3, 9))
    np.testing.assert_array_equal(few, again)
    np.testing.assert_array_equal(many[:3], few)
    other = np.asarray(train(net, n_members=3, seed=1).latents(X_TEST))
    distances = [
        np.linalg.norm(a - b) for i, a in enumerate([*few, *other]) for b in [*few, *other][:i]
    ]
    assert min(distances) > 0.1


@pytest.mark.cases(1)
@pytest.mark.parametrize("function", [train_ensemble, solve_linearised])
def test_points_and_targets_of_any_type_are_those_of_jax(function):
    """NumPy's doubles and integers, where JAX is set to single precision: and no warning."""
    points, targets = np.round(3 * X).astype(int), Y.astype(int)

    def latents(points, targets):
        problem = jax.random.key(0), NET, points, targets, Categorical()
        return function(*problem, reg=1.0, n_members=2).latents(points)

    expected = latents(jnp.asarray(points, jnp.float32), jnp.asarray(targets, jnp.float32))
    for kind in (int, np.float64):
        found = latents(points.astype(kind), targets.astype(kind))
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)


def test_unconverged_members_are_named():
    with pytest.warns(ConvergenceWarning, match=r"2 of 2 members .* max_iter=3 iterations: 0, 1"):
        trained = train(NET, n_members=2, max_iter=3)
    assert not trained.converged.any()
    assert list(trained.n_iter) == [3, 3]


def newton_shares(net, points, y, likelihood, reg, trained):
    """Decreases that a Newton step predicts, as shares of the objective: dense, in float64."""

    @jax.jit
    def derivatives(member):
        initial, params = member
        start, _ = ravel_pytree(initial)
        flat, unravel = ravel_pytree(params)

        def outputs(v):
            return net.apply(unravel(v), points)

        f, jacobian = outputs(flat), jax.jacobian(outputs)(flat)
        curvature = jax.vmap(
            jax.hessian(lambda g, target: -likelihood.log_density(g[None], target[None])[0])
        )(f, y)
        best = jnp.where(
            likelihood.degenerate(y), 0.0, likelihood.log_density(likelihood.optimum(y), y)
        )
        loss = jnp.sum(best - likelihood.log_density(f, y))
        return flat - start, jacobian, -likelihood.gradient(f, y), curvature, loss

    def share(i):
        moved, jacobian, slope, curvature, excess = map(
            np.asarray, derivatives(as_double(trained.member(i)))
        )
        gradient = np.einsum("icp,ic->p", jacobian, slope) + reg * moved
        bent = np.einsum("icd,idp->icp", curvature, jacobian)
        hessian = np.einsum("icp,icq->pq", jacobian, bent) + reg * np.eye(len(moved))
        decrease = 0.5 * gradient @ np.linalg.lstsq(hessian, gradient)[0]
        excess = excess + 0.5 * reg * np.sum(moved**2)
        return float(decrease / (max(excess, 1.0) if reg > 0 else 1.0))

    with jax.enable_x64(True):
        as_double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)  # noqa: E731
        points, y = as_double(points), as_double(y)
        return [share(i) for i in range(len(trained.converged))]


WINE = load_wine()
STANDARDISED = (WINE.data - WINE.data.mean(axis=0)) / WINE.data.std(axis=0)
SLOW = optax.sgd(1e-9)  # so small a rate that nothing is gained, far from the minimum


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("points", "likelihood", "reg", "options", "stuck"),
    [
        (100 * WINE.data, Categorical(), 1.0, {"depth": 2}, True),
        (STANDARDISED, Categorical(), 1.0, {}, False),
        (STANDARDISED, Gaussian(0.5), 1.0, {"activation": "erf"}, False),
        (STANDARDISED, Categorical(), 1.0, {"optimizer": SLOW}, True),
        (STANDARDISED, Gaussian(0.1), 1.0, {"optimizer": SLOW}, True),
        (STANDARDISED, Categorical(), 0.0, {"optimizer": SLOW}, True),
        (STANDARDISED, Categorical(), 1.0, {"optimizer": SLOW, "batch_size": 9}, True),
    ],
    ids=["unscaled", "scaled", "squares", "optax", "optax squares", "no reg", "mini-batches"],
)
def test_a_stall_is_no_convergence(points, likelihood, reg, options, stuck):
    """What counts as converged has a small Newton step; what does not, is told with a cure.

    Not in mini-batches: their number of passes is the user's to say, and `converged` tells.
    """
    network = {"depth": 1, **{k: options[k] for k in options.keys() & {"depth", "activation"}}}
    net = MLP(width=16, **network)
    options = {k: options[k] for k in options.keys() - network.keys()}
    points = points[::6].astype(np.float32)
    y = np.eye(3, dtype=np.float32)[WINE.target[::6]]
    y = y if reg > 0 else 0.7 * y + 0.1
    problem = jax.random.key(0), net, jnp.asarray(points), jnp.asarray(y), likelihood
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        trained = train_ensemble(*problem, reg=reg, n_members=3, max_iter=300, **options)
    shares = newton_shares(net, points, y, likelihood, reg, trained)
    # Within what single precision and the bound from below leave open.
    assert np.all(np.array(shares)[trained.converged] < 1.02 * STUCK)
    assert np.all(np.array(shares)[~trained.converged & (trained.n_iter < 300)] > 0.98 * STUCK)
    assert trained.converged.all() == (not stuck)
    said = " ".join(str(w.message) for w in record if w.category is ConvergenceWarning)
    assert ("cale the features" in said) == (stuck and "batch_size" not in options)


@pytest.mark.slow
def test_a_stall_is_told_in_spite_of_label_noise():
    with (
        pytest.warns(ConvergenceWarning, match="4 of 4 shifted networks"),
        pytest.warns(ConvergenceWarning, match="3 of 3 members stopped short of a minimum"),
    ):
        train(NET, uncertainty="posterior", optimizer=SLOW)


def test_linearised_networks_that_are_not_solved_are_told():
    net = MLP(width=16, depth=1)
    with pytest.warns(ConvergenceWarning, match=r"2 of 2 linearised .* float32\. Use double"):
        solved = solve_linearised(
            jax.random.key(0), net, jnp.asarray(1e3 * X), jnp.asarray(Y), Gaussian(1.0), reg=1e-9,
            n_members=2,
        )  # fmt: skip
    assert not solved.converged.any()


@pytest.mark.slow
def test_progress_counts_members_of_every_chunk():
    seen = []
    train(
        MLP(width=16, depth=1), n_members=11,
        progress=lambda done, total, gap: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (11, 11)
    assert all(done <= total == 11 for done, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
