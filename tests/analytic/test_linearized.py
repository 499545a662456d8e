"""The posterior of a linearised network, against dense matrices and SciPy."""

import contextlib
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from flax import nnx
from trained_networks import ConvolutionalNetwork

import ntk_uq as nuq
from ntk_uq.analytic import LinearizedEnsemble
from ntk_uq.analytic.linearized import _precision, _TangentProblem
from ntk_uq.networks import Problem

RNG = np.random.default_rng(0)
X, X_TEST = RNG.standard_normal((2, 12, 6, 6, 2))  # as many of each: programs of one shape
LABELS = np.arange(12) % 3
Y = np.eye(3)[LABELS]
REG = 0.7
READOUT = nnx.All(nnx.Param, nnx.PathContains("readout"))


def linearized(chosen=nnx.Param, prior_mean="model"):
    return nuq.Linearized(ConvolutionalNetwork(nnx.Rngs(0)), chosen, prior_mean)


@functools.cache
def dense(chosen=nnx.Param, prior_mean="model"):
    """The prior's mean at X and X_TEST, and J [.., P], by JAX without structure."""
    net = linearized(chosen, prior_mean)
    tangent = net.tangent.cast(jnp.float64)
    both = jnp.asarray(np.concatenate([X, X_TEST]))

    def outputs(params):
        return tangent.outputs(params, both).ravel()

    @jax.jit
    def with_jacobian(params):
        return outputs(params), jax.jacrev(outputs)(params)

    f, jacobian = with_jacobian(tangent.params)
    J = np.concatenate([np.asarray(j).reshape(len(j), -1) for j in jax.tree.leaves(jacobian)], -1)
    f = np.asarray(f)
    if prior_mean == "zero":
        f = f - J @ np.asarray(tangent.vector)
    return f, J


def curvature(f):
    """Softmax's W [nC, nC]."""
    p = scipy.special.softmax(f.reshape(-1, 3), axis=1)
    return scipy.linalg.block_diag(*(np.diag(q) - np.outer(q, q) for q in p))


def laplace(chosen, prior_mean):
    """Mode in the parameters by SciPy's BFGS, and the Gaussian about it: mean, cov at X_TEST."""
    m, J = dense(chosen, prior_mean)
    n = Y.size

    def objective(theta):
        f = (m + J @ theta)[:n].reshape(-1, 3)
        value = -np.sum(Y * scipy.special.log_softmax(f, axis=1)) + 0.5 * REG * theta @ theta
        slope = J[:n].T @ (scipy.special.softmax(f, axis=1) - Y).ravel() + REG * theta
        return value, slope

    found = scipy.optimize.minimize(
        objective, np.zeros(J.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    f = m + J @ found.x
    precision = J[:n].T @ curvature(f[:n]) @ J[:n] + REG * np.eye(J.shape[1])
    cov = J[n:] @ np.linalg.solve(precision, J[n:].T)
    return f[n:].reshape(-1, 3), cov.reshape(12, 3, 12, 3)


def fitted(net, **settings):
    problem = Problem(X, Y, nuq.Categorical(), REG, jax.random.key(0), net)
    return LinearizedEnsemble(**settings).fit(problem)


@pytest.mark.cases(1)
@pytest.mark.parametrize("prior_mean", ["model", "zero"])
@pytest.mark.parametrize("chosen", [READOUT, nnx.Param], ids=["readout", "all"])
def test_gaussian_is_laplace_by_the_normal_equations(chosen, prior_mean):
    """The whole generalised Gauss-Newton matrix, in the space of parameters, by NumPy."""
    net = linearized(chosen, prior_mean)
    with jax.enable_x64(True):
        mean, cov = laplace(chosen, prior_mean)
    found = fitted(net, method="gaussian")
    # BFGS's mode is known to gtol / reg in the parameters, and the solver's to a gap of 1e-9 nats.
    prediction = found.latents(X_TEST, joint=True)
    np.testing.assert_allclose(prediction.mean, mean, atol=1e-4)
    np.testing.assert_allclose(prediction.joint_cov, cov, atol=1e-4 * cov.max())
    alone = found.latents(X_TEST)
    np.testing.assert_allclose(alone.cov, np.einsum("icid->icd", prediction.joint_cov), atol=1e-10)
    mode = fitted(net, uncertainty="none").latents(X_TEST)
    np.testing.assert_allclose(mode.mean, mean, atol=1e-4)
    assert not mode.cov.any()


def test_all_forms_of_the_kernel_agree(monkeypatch):
    """Kernel, Jacobian and products of it: the same draws."""
    net = linearized(READOUT)
    settings = {"n_draws": 6}
    with_factor = fitted(net, **settings).latents(X_TEST).samples
    monkeypatch.setattr("ntk_uq.analytic.linearized.memory_limit", lambda: 0)
    by_products = fitted(net, **settings).latents(X_TEST).samples
    # Gaps of 1e-9 nats are 5e-5 posterior standard deviations, of about 1.
    np.testing.assert_allclose(by_products, with_factor, atol=1e-3)
    with pytest.raises(MemoryError, match="exact"):
        fitted(net, method="gaussian")


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("reg", "preconditioner"),
    [(1e-4, "Support"), (REG, "CoupledDeflation")],
    ids=["wide", "narrow"],
)
def test_tiles_have_the_draws_of_the_matrix(monkeypatch, reg, preconditioner):
    """In single precision, each draw by Newton's steps where its prior is wide."""
    net, used, modes = linearized(), [], []
    problem = Problem(X, Y, nuq.Categorical(), reg, jax.random.key(0), net)
    choose, solve = _TangentProblem.deflation_of_draws, _TangentProblem.mode

    def chosen(self, latents, f0):
        deflation = choose(self, latents, f0)
        used.append(type(deflation).__name__)
        return deflation

    def first_mode(self):
        """Label noise is of the same mode in both, as draws are compared and not laws."""
        modes.append(solve(self))
        alpha, latents, gap = modes[0]
        return np.asarray(alpha, self.dtype), jnp.asarray(latents, self.dtype), gap

    monkeypatch.setattr(_TangentProblem, "deflation_of_draws", chosen)
    monkeypatch.setattr(_TangentProblem, "mode", first_mode)
    of_matrix = LinearizedEnsemble(n_draws=6).fit(problem)
    monkeypatch.setattr("ntk_uq.analytic.linearized._DOUBLE_ROWS", Y.size - 1)
    monkeypatch.setattr("ntk_uq._common.tiles.TILE_ROWS", 8)
    of_tiles = LinearizedEnsemble(n_draws=6).fit(problem)
    assert used == ["CoupledDeflation", preconditioner]
    assert of_tiles.predictor.converged.all()
    # The objective is reg-strongly convex: gaps of 1e-5 nats leave latents anywhere within 0.005
    # standard deviations of the prior, the mode's of 1e-6 within 0.0015. As much again for what
    # single precision makes of the problem.
    prior = np.sqrt(np.einsum("icic->ic", net.tangent.kernel(X_TEST)) / reg)
    apart = np.abs(of_tiles.latents(X_TEST).samples - of_matrix.latents(X_TEST).samples)
    assert np.max(apart / prior) < 0.01
    at_points = np.sqrt(np.einsum("icic->ic", net.tangent.kernel(X)) / reg)
    latents, of_single = (np.asarray(found[1], float) for found in modes)
    assert np.max(np.abs(of_single - latents) / at_points) < 0.003


def test_progress_moves_while_tiles_solve_all_draws_at_once(monkeypatch):
    net, bars = linearized(), {}

    @contextlib.contextmanager
    def bar(label, total, show):
        bars[label] = []
        yield lambda done, total, **figures: bars[label].append((done, total))

    monkeypatch.setattr("ntk_uq.analytic.linearized.progress_bar", bar)
    monkeypatch.setattr("ntk_uq.analytic.linearized._DOUBLE_ROWS", Y.size - 1)
    fitted(net, n_draws=6)
    done, total = np.array(bars["posterior draws"]).T
    assert (total == 6).all()
    assert (np.diff(done) >= 0).all()
    assert done[-1] == 6
    # One chunk, which would be told once.
    assert len(set(done[done < 6])) > 1


@pytest.mark.parametrize(
    ("gibibytes", "rows", "expected"),
    [
        (16, 20_000, "float64"),  # of 3 GiB
        (4, 20_000, "float32"),
        (4, 8_000, "float64"),
        (16, 60_000, "float32"),
    ],
)
def test_kernels_are_double_where_memory_allows(monkeypatch, gibibytes, rows, expected):
    monkeypatch.setattr("ntk_uq.analytic.linearized.memory_limit", lambda: gibibytes * 2**30)
    tangent = SimpleNamespace(size=80_000, dtype=jnp.dtype("float32"))
    assert _precision(tangent, rows) == expected


@pytest.mark.cases(1)
@pytest.mark.parametrize("chosen", [nnx.Param, READOUT], ids=["all", "readout"])
def test_draws_of_regression_are_the_posterior(chosen):
    """For a Gaussian likelihood draws have exactly the closed form's law: their second moments."""
    net, draws, noise = linearized(chosen), 1000, 0.5
    targets = RNG.standard_normal((12, 3))
    with jax.enable_x64(True):
        m, J = dense(chosen)
    n = targets.size
    precision = J[:n].T @ J[:n] / noise**2 + REG * np.eye(J.shape[1])
    gain = np.linalg.solve(precision, J[:n].T) / noise**2
    mean = m[n:] + J[n:] @ gain @ (targets.ravel() - m[:n])
    cov = J[n:] @ np.linalg.solve(precision, J[n:].T)

    def solved(**settings):
        problem = Problem(X, targets, nuq.Gaussian(noise), REG, jax.random.key(0), net)
        return LinearizedEnsemble(**settings).fit(problem).latents(X_TEST, joint=True)

    closed = solved(method="gaussian")
    np.testing.assert_allclose(closed.mean.ravel(), mean, atol=1e-5)
    np.testing.assert_allclose(closed.joint_cov.reshape(cov.shape), cov, atol=1e-6 * cov.max())
    samples = solved(n_draws=draws).samples.reshape(draws, -1)
    variance = np.diag(cov)
    assert np.all(np.abs(samples.mean(0) - mean) < 5 * np.sqrt(variance / draws))
    error = np.sqrt((np.outer(variance, variance) + cov**2) / draws)
    assert np.all(np.abs(np.cov(samples.T) - cov) < 5 * error)


@pytest.mark.slow
def test_draws_are_functions_of_their_parameters():
    """Latents anywhere are those of the moved parameters; their spread is Laplace's to first order.

    Without label noise draws would be narrower by far (docs, "Relation to Bayes"). What first order
    leaves out at this reg, and the error of 256 draws (4%), are less than a quarter.
    """
    net = linearized()
    found = fitted(net, n_draws=256)
    with jax.enable_x64(True):
        m, J = dense()
    again = m + J @ np.asarray(found.predictor.moved[0], np.float64)
    samples = found.latents(X_TEST).samples
    np.testing.assert_allclose(samples[0].ravel(), again[Y.size :], atol=1e-8)
    np.testing.assert_array_equal(found.functions()(X_TEST), samples)
    gaussian = fitted(net, method="gaussian").latents(X_TEST)
    sd = np.sqrt(np.einsum("icc->ic", gaussian.cov))
    assert np.abs(samples.std(axis=0) / sd - 1).max() < 0.25


def test_refusals():
    net = linearized()
    with pytest.raises(ValueError, match="one network"):
        fitted(net, uncertainty="initialization")
    with pytest.raises(ValueError, match="3 outputs, and the targets 2"):
        LinearizedEnsemble().fit(
            Problem(X, np.eye(2)[LABELS % 2], nuq.Categorical(), 1.0, None, net)
        )
    with pytest.raises(ValueError, match="reg > 0"):
        LinearizedEnsemble().fit(Problem(X, Y, nuq.Categorical(), 0.0, None, net))
    with pytest.raises(ValueError, match="key"):
        LinearizedEnsemble().fit(Problem(X, Y, nuq.Categorical(), 1.0, None, net))
