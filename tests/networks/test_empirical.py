"""Empirical kernels: what they are, and that they approach the infinite-width kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ntk_uq.kernels import empirical_nngp, empirical_ntk
from ntk_uq.networks import MLP, Architecture, jacobians


def points(n, d=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)), dtype=jnp.float32)


def dense_jacobian(net, params, x):
    """[n * C, parameters], from one call for all points."""
    leaves = jax.tree.leaves(jax.jacobian(net.apply)(params, x))
    return np.concatenate([leaf.reshape(leaf.shape[0] * leaf.shape[1], -1) for leaf in leaves], 1)


@pytest.mark.slow
def test_empirical_ntk_equals_the_dense_product():
    net = MLP(width=8, depth=2, activation="gelu")
    with jax.enable_x64(True):
        x1, x2 = points(4).astype(float), points(3, seed=1).astype(float)
        params = net.init(jax.random.key(0), 3, 2)
        full = empirical_ntk(net, params, x1, x2)
        trace = empirical_ntk(net, params, x1, x2, trace=True)
        expected = dense_jacobian(net, params, x1) @ dense_jacobian(net, params, x2).T
    assert full.dtype == trace.dtype == jnp.float64
    np.testing.assert_allclose(full, expected.reshape(4, 2, 3, 2), rtol=1e-12)
    np.testing.assert_allclose(trace, np.einsum("icjc->ij", full) / 2, rtol=1e-12)


def test_empirical_ntk_of_a_linear_model_is_its_kernel():
    """By hand: w_std^2 x.x'/d + b_std^2 for equal outputs, whatever the parameters."""
    net = MLP(depth=0, w_std=1.5, b_std=0.5)
    x = points(5)
    ntk = empirical_ntk(net, net.init(jax.random.key(0), 3, 2), x)
    expected = np.einsum("ij,cd->icjd", 1.5**2 * x @ x.T / 3 + 0.5**2, np.eye(2))
    np.testing.assert_allclose(ntk, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.cases(1)
@pytest.mark.parametrize(("depth", "residual"), [(0, False), (2, False), (3, True)])
def test_sum_over_layers_equals_the_product_of_jacobians(depth, residual):
    net = MLP(width=8, depth=depth, activation="erf", w_std=1.3, b_std=0.7, residual=residual)
    general = Architecture(net.module)  # of which nothing is known but its outputs
    with jax.enable_x64(True):
        x1, x2 = points(4).astype(float), points(3, seed=1).astype(float)
        params = net.init(jax.random.key(0), 3, 2)
        for other in (None, x2):
            for trace in (False, True):
                layers, jacobians = (
                    empirical_ntk(architecture, params, x1, other, trace=trace)
                    for architecture in (net, general)
                )
                np.testing.assert_allclose(layers, jacobians, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_blocks_of_points_do_not_change_the_result(monkeypatch):
    net = Architecture(MLP(width=16, depth=1).module)
    params = net.init(jax.random.key(0), 3, 2)
    x1, x2 = points(7), points(5, seed=1)
    whole = [
        empirical_ntk(net, params, x1, other, trace=trace)
        for other in (None, x2)
        for trace in (False, True)
    ]
    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    monkeypatch.setattr(jacobians, "_BLOCK_BYTES", 3 * 2 * 4 * n_parameters)
    blocks = []
    monkeypatch.setattr(
        jacobians,
        "_jacobian",
        lambda net, params, x, jacobian=jacobians._jacobian: (
            blocks.append(len(x)) or jacobian(net, params, x)
        ),
    )
    parts = [
        empirical_ntk(net, params, x1, other, trace=trace)
        for other in (None, x2)
        for trace in (False, True)
    ]
    assert max(blocks) == 3
    for part, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-5)


def test_empirical_nngp_averages_over_outputs():
    net = MLP(width=8, depth=1)
    params = net.init(jax.random.key(0), 3, 4)
    x1, x2 = points(3), points(2, seed=1)
    f1, f2 = (np.asarray(net.apply(params, x)) for x in (x1, x2))
    expected = np.mean([np.outer(f1[:, c], f2[:, c]) for c in range(4)], axis=0)
    np.testing.assert_allclose(empirical_nngp(net, params, x1, x2), expected, rtol=1e-5)
    symmetric = empirical_nngp(net, params, x1)
    np.testing.assert_allclose(symmetric, empirical_nngp(net, params, x1, x1), rtol=1e-6)


# --- Finite width against infinite ----------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 2))
def empirical_sample(net, x, n_members):
    """NTK and NNGP of networks at initialisation, [members, n, n] each.

    The NNGP from as many outputs as units: with few, the outputs' own sampling error would hide
    the hidden layers'. The NTK of the first output.
    """

    def member(key):
        params = net.init(key, x.shape[1], net.width)
        nngp = empirical_nngp(net, params, x)
        readout = params.layers[-1]
        readout.kernel = nnx.Param(readout.kernel[:, :1])
        readout.bias = nnx.Param(readout.bias[:1])
        return empirical_ntk(net, params, x, trace=True), nngp

    keys = jax.random.split(jax.random.key(net.width), n_members)
    return jax.lax.map(member, keys, batch_size=32)


def slope_with_error(x, y, y_error):
    """Weighted least squares line through independent points: its slope and standard error."""
    weights = y_error**-2
    centred = x - np.average(x, weights=weights)
    precision = np.sum(weights * centred**2)
    return np.sum(weights * centred * y) / precision, precision**-0.5


def mean_with_error(values):
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


def check_convergence(specification, widths, n_members):
    """Error of one network falls as width^-1/2; the mean over networks meets the limit."""
    x = points(4)
    limit = MLP(**specification).kernels(x)
    log_errors = []
    for width in widths:
        sample = empirical_sample(MLP(width=width, **specification), x, n_members)
        for empirical, exact in zip(sample, (limit.ntk, limit.nngp), strict=True):
            deviations = (np.asarray(empirical, dtype=float) - exact) / np.linalg.norm(exact)
            square, square_error = mean_with_error(np.sum(deviations**2, axis=(1, 2)))
            log_errors.append((np.log(square) / 2, square_error / (2 * square)))
            bias, bias_error = mean_with_error(
                np.tensordot(deviations, exact / np.linalg.norm(exact))
            )
            # Of order 1/width; its constant is below 1/2 in every case here.
            assert abs(bias) < 4 * bias_error + 0.5 / width
    log_errors = np.reshape(log_errors, (len(widths), 2, 2))
    for kernel, (log_error, its_error) in zip(
        ("ntk", "nngp"), log_errors.transpose(1, 2, 0), strict=True
    ):
        slope, slope_error = slope_with_error(np.log(widths), log_error, its_error)
        print(f"{specification} {kernel}: slope {slope:.3f} +- {slope_error:.3f}")
        assert slope_error < 0.05
        assert abs(slope + 0.5) < 4 * slope_error


@pytest.mark.slow
def test_empirical_kernels_approach_the_limit():
    check_convergence({"depth": 2}, widths=(32, 128), n_members=1024)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "erf", "gelu"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_rate_of_approach_to_the_limit(activation, depth):
    specification = {"depth": depth, "activation": activation, "w_std": 1.2, "b_std": 0.5}
    check_convergence(specification, widths=(64, 128, 256), n_members=1536)
