"""Kernels against independent formulas; finite networks against kernels."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import signal, special, stats

from ntk_uq.kernels import empirical_nngp, empirical_ntk
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.convnet import ConvNet
from ntk_uq.networks.infinite_width import dot_product_kernels, mlp_kernel_diag, mlp_kernels
from ntk_uq.networks.mlp import MLP
from ntk_uq.networks.neural_tangents import stax
from ntk_uq.networks.own import Architecture

ACTIVATIONS = ["relu", "erf", "gelu"]


def points(n, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


# --- Oracles: dual activations (v1, v2, c) -> E[a(u1) a(u2)], E[a'(u1) a'(u2)] --------------------


def arc_cosine(v1, v2, c):
    """Cho & Saul 2009, from the angle; exact to the square root of epsilon where it vanishes."""
    norms = np.sqrt(v1 * v2)
    angle = np.arccos(np.clip(c / norms, -1, 1))
    pi = np.arccos(np.asarray(-1, v1.dtype))
    return (
        norms * (np.sin(angle) + (pi - angle) * np.cos(angle)) / (2 * pi),
        (pi - angle) / (2 * pi),
    )


def arcsine(v1, v2, c):
    """Williams 1997; the derivative is the density of a bivariate Gaussian at 0."""
    norms = (1 + 2 * v1) * (1 + 2 * v2)
    return (
        2 / np.pi * np.arcsin(2 * c / np.sqrt(norms)),
        4 / np.pi / np.sqrt(norms - 4 * c**2),
    )


def gelu_quadrature(v1, v2, c):
    """Trapezoidal rule in two independent variables: spectrally accurate for these integrands."""
    nodes, spacing = np.linspace(-9, 9, 200, retstep=True)
    weights = spacing * stats.norm.pdf(nodes)
    s1 = np.sqrt(v1)[..., None, None]
    slope = (c / v1)[..., None, None]
    rest = np.sqrt(np.maximum(v2 - c**2 / v1, 0))[..., None, None]
    u1 = s1 * nodes[:, None]
    u2 = slope * u1 + rest * nodes[None, :]

    def derivative(u):
        return special.ndtr(u) + u * stats.norm.pdf(u)

    def mean(values):
        return np.einsum("...ab,a,b->...", values, weights, weights)

    return (
        mean(u1 * special.ndtr(u1) * u2 * special.ndtr(u2)),
        mean(derivative(u1) * derivative(u2)),
    )


DUALS = {"relu": arc_cosine, "erf": arcsine, "gelu": gelu_quadrature}


def recursion(x1, x2, net, dtype=np.float64):
    """NNGP kernel and NTK of an MLP, layer by layer, from covariances."""
    x1, x2 = x1.astype(dtype), x2.astype(dtype)
    w2, b2 = dtype(net.w_std) ** 2, dtype(net.b_std) ** 2
    d = x1.shape[1]
    c = w2 * (x1 @ x2.T) / d + b2
    v1 = w2 * np.sum(x1**2, axis=1)[:, None] / d + b2 + 0 * c
    v2 = w2 * np.sum(x2**2, axis=1)[None, :] / d + b2 + 0 * c
    dual, ntk = DUALS[net.activation], c
    for _ in range(net.depth):
        product, derivative = dual(v1, v2, c)
        v1, v2 = (w2 * dual(v, v, v)[0] + b2 for v in (v1, v2))
        c = w2 * product + b2
        ntk = w2 * derivative * ntk + c
    return c, ntk


@pytest.mark.cases(4)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("depth", "w_std", "b_std"), [(0, 1.0, 0.5), (1, 2**0.5, 0.0), (2, 2**0.5, 0.3), (5, 0.7, 1.1)]
)
def test_kernels_equal_an_independent_recursion(activation, depth, w_std, b_std):
    net = MLP(depth=depth, activation=activation, w_std=w_std, b_std=b_std)
    x1, x2 = points(5), 2 * points(4, seed=1)
    kernels = net.kernels(x1, x2)
    for name, expected in zip(kernels._fields, recursion(x1, x2, net), strict=True):
        np.testing.assert_allclose(getattr(kernels, name), expected, rtol=1e-12, atol=1e-13)


# x86 only: elsewhere long double is no longer than double, or slow software.
@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="needs extended precision")
@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6, 1e-8, 1e-9])
@pytest.mark.parametrize("b_std", [0.0, 0.3])
def test_relu_kernels_of_nearly_coincident_points(distance, b_std):
    """From covariances the angle is good to epsilon / angle: in float64 not good enough."""
    net = MLP(b_std=b_std)
    x1 = points(9)
    x2 = x1 * (1 + distance) + distance * points(9, seed=1)
    kernels = net.kernels(x1, x2)
    oracle_error = float(10 * np.finfo(np.longdouble).eps / distance)
    precision = max(1e-12, oracle_error)  # 1e-12: epsilon / angle where differences take over
    for name, expected in zip(kernels._fields, recursion(x1, x2, net, np.longdouble), strict=True):
        actual = np.diag(getattr(kernels, name))
        np.testing.assert_allclose(actual, np.diag(expected), rtol=precision)


@pytest.mark.cases(1)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_repeated_rows_give_repeated_kernels(activation):
    """Also where the two copies meet in different blocks."""
    net = MLP(activation=activation)
    x = np.concatenate([points(300), points(300)])
    for kernel, diagonal in zip(net.kernels(x), net.kernel_diag(x), strict=True):
        np.testing.assert_allclose(np.diag(kernel, 300), diagonal[:300], rtol=1e-14)
        np.testing.assert_allclose(np.diag(kernel), diagonal, rtol=1e-14)


def test_relu_kernels_without_bias_are_homogeneous():
    """Collinear points have one direction: no angle arises between them."""
    net = MLP(b_std=0.0)
    x = points(20)
    for scaled, kernel in zip(net.kernels(3 * x, x), net.kernels(x), strict=True):
        np.testing.assert_allclose(scaled, 3 * kernel, rtol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_symmetric_and_positive_semidefinite_to_rounding(activation):
    net = MLP(activation=activation)
    x = points(150)
    x = np.concatenate([x, x + 1e-9 * points(150, seed=1)])
    for kernel in net.kernels(x):
        assert np.array_equal(kernel, kernel.T)
        eigenvalues = np.linalg.eigvalsh(kernel)
        assert eigenvalues[0] > -1e-14 * eigenvalues[-1]


def test_blocks_do_not_depend_on_each_other():
    """Whole, by parts, in another order."""
    net = MLP()
    x = points(600)
    whole = net.kernels(x)
    order = np.random.default_rng(0).permutation(600)
    for kernel, part, shuffled, pair in zip(
        whole, net.kernels(x[:50], x[280:]), net.kernels(x[order]), net.kernels(x, x), strict=True
    ):
        np.testing.assert_allclose(part, kernel[:50, 280:], rtol=1e-14)
        np.testing.assert_allclose(shuffled, kernel[np.ix_(order, order)], rtol=1e-14)
        np.testing.assert_allclose(pair, kernel, rtol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernels_equal_neural_tangents(activation):
    layer = {"relu": stax.Relu, "erf": stax.Erf, "gelu": stax.Gelu}[activation]()
    net = MLP(depth=2, activation=activation, w_std=1.2, b_std=0.4)
    dense = [stax.Dense(1, W_std=1.2, b_std=0.4) for _ in range(3)]
    _, _, kernel_fn = stax.serial(dense[0], layer, dense[1], layer, dense[2])
    theirs = Architecture(net.module, kernel_fn)
    x1, x2 = points(300), points(20, seed=1)
    for ours, other in zip(net.kernels(x1, x2), theirs.kernels(x1, x2), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-10, atol=1e-10)
    # Their arc cosine is good to 1e-8 where points coincide.
    for ours, other in zip(net.kernels(x1), theirs.kernels(x1), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-7, atol=1e-10)
    for ours, other in zip(net.kernel_diag(x1), theirs.kernel_diag(x1), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-7)


def same_points(x, **arguments):
    return mlp_kernels(x, **arguments)


def given_twice(x, **arguments):
    return mlp_kernels(x, x, **arguments)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("activation", "depth", "kernels"),
    [
        ("relu", 2, same_points),
        ("relu", 2, given_twice),
        ("relu", 2, mlp_kernel_diag),
        ("erf", 1, same_points),
        ("gelu", 1, same_points),
    ],
)
def test_derivatives_equal_finite_differences(activation, depth, kernels):
    """With respect to the scales of weights, biases and features; one row is repeated."""
    x = points(6, d=3)
    x[3] = x[0]

    @jax.jit
    def total(parameters):
        w_std, b_std, *scales = parameters
        nngp, ntk = kernels(
            x * jnp.asarray(scales), w_std=w_std, b_std=b_std, depth=depth, activation=activation
        )
        weights = np.linspace(1, 2, ntk.size).reshape(ntk.shape)
        return jnp.sum(weights * (ntk + 0.5 * nngp))

    with jax.enable_x64(True):
        at, step = np.array([1.3, 0.4, 1.0, 0.7, 1.2]), 1e-5
        differences = [
            (total(at + step * unit) - total(at - step * unit)) / (2 * step)
            for unit in np.eye(len(at))
        ]
        np.testing.assert_allclose(jax.grad(total)(at), differences, rtol=1e-7)


def test_derivatives_are_finite_at_zero():
    """A row of zeros and no bias: the kernel vanishes and has a kink."""
    x = jnp.zeros((2, 3)).at[1].set(1.0)

    def total(x, w_std, b_std):
        return sum(
            jnp.sum(kernel)
            for kernel in mlp_kernels(x, w_std=w_std, b_std=b_std, depth=2, activation="relu")
        )

    for gradient in jax.jit(jax.grad(total, (0, 1, 2)))(x, 1.4, 0.0):
        assert jnp.isfinite(gradient).all()


def test_kernels_follow_the_dtype_in_the_functional_layer():
    x = jnp.asarray(points(5), dtype=jnp.float32)
    single = mlp_kernels(x, w_std=2**0.5, b_std=0.3, depth=2, activation="relu")
    double = MLP().kernels(x)
    assert single.ntk.dtype == jnp.float32
    np.testing.assert_allclose(single.ntk, double.ntk, rtol=1e-5)


def test_kernels_are_float64_and_leave_the_configuration_alone():
    kernels = MLP().kernels(points(3).astype(np.float32), [[1, 2, 3, 4]])
    assert kernels.ntk.dtype == kernels.nngp.dtype == np.float64
    assert isinstance(kernels.ntk, np.ndarray)
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == jnp.float32


def test_compiles_once_for_all_sizes_and_scales():
    dot_product_kernels.clear_cache()
    for n, w_std, width in [(3, 1.0, 8), (200, 1.1, 16), (17, 1.2, 32)]:
        MLP(width=width, w_std=w_std).kernels(points(9), points(n))
        MLP(width=width, w_std=w_std).kernels(points(n))
    assert dot_product_kernels._cache_size() == 1


@pytest.mark.parametrize("n", [256, 257, 300, 513, 1024, 1025])
def test_hardly_any_row_of_a_block_is_empty(n):
    """Blocks are of one shape for 32 numbers of points, and together a little more than these."""
    asked = []

    class Counted(MLP):
        def kernel_block(self, x1, x2=None):
            asked.append(x1.shape[0])
            return Kernels(*(np.zeros((x1.shape[0], (x1 if x2 is None else x2).shape[0])),) * 2)

    Counted().kernels(np.ones((n, 1)))
    (size,) = set(asked)
    assert size <= 256
    assert size % 32 == 0
    blocks = -(-n // 256)
    assert len(asked) == blocks * (blocks + 1) // 2
    assert n <= blocks * size < n + (32 * blocks if n <= 1024 else 256)


# --- Finite networks ------------------------------------------------------------------------------


def test_apply_is_the_written_formula():
    net = MLP(width=6, depth=2, activation="erf", w_std=1.3, b_std=0.7)
    params = net.init(jax.random.key(0), 3, 2)
    x = points(5, d=3).astype(np.float32)
    out = x
    for layer, fan_in in zip(params.layers, (3, 6, 6), strict=True):
        weights, biases = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
        out = 1.3 / np.sqrt(fan_in) * out @ weights + 0.7 * biases
        out = out if layer is params.layers[-1] else special.erf(out)
    np.testing.assert_allclose(net.apply(params, x), out, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_finite_activation_is_the_one_of_the_kernel(activation):
    """Its moments by quadrature are those of the kernel's diagonal, to float64's precision."""
    net = MLP(width=1, depth=1, activation=activation, w_std=1.0, b_std=0.0)
    with jax.enable_x64(True):
        params = net.init(jax.random.key(0), 1, 1)
        for layer in params.layers:
            layer.kernel[...] = jnp.ones_like(layer.kernel[...])
        # Gauss-Legendre on half lines: relu has its kink at 0.
        nodes, weights = special.roots_legendre(200)
        u = np.concatenate([-6 * (1 + nodes), 6 * (1 + nodes)])
        values = np.asarray(net.apply(params, u[:, None]))[:, 0]
    mean_square = np.sum(np.tile(6 * weights, 2) * stats.norm.pdf(u) * values**2)
    np.testing.assert_allclose(mean_square, net.kernel_diag([[1.0]]).nngp[0], rtol=1e-12)


def test_initial_parameters_are_standard_normal():
    net = MLP(width=200, depth=2)
    params = net.init(jax.random.key(0), 100, 50)
    for leaf in jax.tree.leaves(params):
        assert stats.kstest(np.asarray(leaf).ravel(), "norm").pvalue > 1e-3


def test_networks_are_decided_by_their_keys():
    net = MLP(width=8, depth=1)
    keys = jax.random.split(jax.random.key(0), 3)
    members = jax.jit(jax.vmap(lambda key: net.init(key, 4, 2)))(keys)
    outputs = np.asarray(jax.jit(jax.vmap(net.apply, (0, None)))(members, points(5)))
    assert outputs.shape == (3, 5, 2)
    alone = jax.jit(lambda key: net.apply(net.init(key, 4, 2), points(5)))
    for member, key in zip(outputs, keys, strict=True):
        np.testing.assert_allclose(member, alone(key), atol=1e-6)
    for a, b in itertools.combinations(outputs, 2):
        assert np.abs(a - b).max() > 0.1
    first, second = members.layers[0].kernel[...][0], members.layers[1].kernel[...][0]
    assert np.intersect1d(first, second).size == 0


def test_output_distribution_approaches_the_prior():
    """Outputs of a very wide network over keys: Gaussian with the NNGP's variance."""
    net = MLP(width=256, depth=1)
    x = points(1)
    keys = jax.random.split(jax.random.key(1), 400)
    outputs = jax.jit(jax.vmap(lambda key: net.apply(net.init(key, 4, 2), x)[0]))(keys)
    scaled = np.asarray(outputs).ravel() / np.sqrt(net.kernel_diag(x).nngp)
    assert stats.kstest(scaled, "norm").pvalue > 1e-3


class Residual(nnx.Module):
    """A user's own module, in standard parameterisation."""

    def __init__(self, in_features, out_features, *, rngs):
        self.first = nnx.Linear(in_features, 16, rngs=rngs)
        self.second = nnx.Linear(16, 16, rngs=rngs)
        self.readout = nnx.Linear(16, out_features, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        return self.readout(x + jax.nn.relu(self.second(x)))


def test_any_module_is_an_architecture():
    net = Architecture(Residual, parameterization="own")
    keys = jax.random.split(jax.random.key(0), 3)
    members = jax.jit(jax.vmap(lambda key: net.init(key, 4, 2)))(keys)
    outputs = jax.jit(jax.vmap(net.apply, (0, None)))(members, points(5))
    alone = jax.jit(lambda key: Residual(4, 2, rngs=nnx.Rngs(key))(points(5)))
    for member, key in zip(outputs, keys, strict=True):
        np.testing.assert_allclose(member, alone(key), rtol=1e-5, atol=1e-6)
    first = jax.tree.map(lambda leaf: leaf[0], members)
    gradient = jax.jit(jax.grad(lambda params: net.apply(params, points(5)).sum()))(first)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be an integer, at least 1; got 0"),
        ({"width": 2.5}, "width must be an integer"),
        ({"width": True}, "width must be an integer"),
        ({"depth": -1}, "depth must be an integer, at least 0; got -1"),
        ({"activation": "rely"}, "Unknown activation 'rely': choose one of relu, erf, gelu"),
        ({"activation": ["relu"]}, "must be a name or an elementwise function"),
        ({"w_std": 0.0}, "w_std must be a positive number; got 0"),
        ({"w_std": "1"}, "w_std must be a positive number; got '1'"),
        ({"w_std": math.nan}, "w_std must be a positive number; got nan"),
        ({"b_std": -0.1}, "b_std must be a number, at least 0; got -0.1"),
        ({"b_std": math.inf}, "b_std must be a number, at least 0; got inf"),
    ],
)
def test_bad_specification(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


@pytest.mark.parametrize(
    ("x1", "x2", "message"),
    [
        (np.ones(3), None, r"X1 must be two-dimensional.*shape is \(3,\).*reshape"),
        (np.ones((2, 2, 2)), None, "X1 must be two-dimensional"),
        (np.ones((0, 3)), None, "X1 is empty"),
        (np.ones((2, 0)), None, "X1 is empty"),
        ([[1.0, np.nan]], None, "X1 contains NaN or infinite"),
        ([[1.0, 2.0]], [[np.inf, 1.0]], "X2 contains NaN or infinite"),
        (np.ones((2, 3)), np.ones((2, 4)), "X1 has 3 features, X2 has 4"),
        ([["a", "b"]], None, "X1 must be a numeric array.*Encode text"),
        ([[1.0, 2.0], [3.0]], None, "X1 must be a numeric array.*same length"),
    ],
)
def test_bad_points(x1, x2, message):
    with pytest.raises(ValueError, match=message):
        MLP().kernels(x1, x2)
    if x2 is None:
        with pytest.raises(ValueError, match=message.replace("X1", "X")):
            MLP().kernel_diag(x1)


class WithDropout(nnx.Module):
    def __init__(self, in_features, out_features, *, rngs):
        self.norm = nnx.BatchNorm(in_features, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def test_module_with_other_state_is_refused():
    with pytest.raises(ValueError, match=r"WithDropout holds state.*BatchStat.*tangent kernel"):
        Architecture(WithDropout).init(jax.random.key(0), 4, 2)


def test_bad_module():
    with pytest.raises(ValueError, match="pass the class, not an instance"):
        Architecture(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="kernel_fn must be the third function"):
        Architecture(nnx.Linear, kernel_fn=stax.Dense(1))


# --- Residual connections and images --------------------------------------------------------------


@pytest.mark.cases(1)
@pytest.mark.filterwarnings("ignore:`FanIn` layers")
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_residual_kernels_equal_neural_tangents(activation):
    scales = {"W_std": 1.2, "b_std": 0.4}
    layer = {"relu": stax.Relu, "erf": stax.Erf}[activation]()

    def block():
        branch = stax.serial(layer, stax.Dense(1, **scales))
        return stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum())

    dense = stax.Dense(1, **scales)
    _, _, kernel_fn = stax.serial(dense, block(), block(), layer, dense)
    net = MLP(depth=3, activation=activation, w_std=1.2, b_std=0.4, residual=True)
    theirs = Architecture(net.module, kernel_fn)
    x1, x2 = points(30), points(20, seed=1)
    for ours, other in zip(net.kernels(x1, x2), theirs.kernels(x1, x2), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-10)
    for ours, other in zip(net.kernel_diag(x1), theirs.kernel_diag(x1), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-7)


def test_residual_apply_is_the_written_formula():
    net = MLP(width=6, depth=3, activation="erf", w_std=1.3, b_std=0.7, residual=True)
    params = net.init(jax.random.key(0), 3, 2)
    x = points(5, d=3).astype(np.float32)

    def dense(layer, x):
        weights, biases = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
        return 1.3 / np.sqrt(len(weights)) * x @ weights + 0.7 * biases

    first, second, third, readout = params.layers
    h = dense(first, x)
    h = h + dense(second, special.erf(h))
    h = h + dense(third, special.erf(h))
    np.testing.assert_allclose(
        net.apply(params, x), dense(readout, special.erf(h)), rtol=1e-5, atol=1e-5
    )


def images(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 4, 3, 2)).astype(np.float32)


@pytest.mark.parametrize("readout", ["pool", "flatten"])
def test_convolutional_apply_is_the_written_formula(readout):
    net = ConvNet(width=5, depth=2, readout=readout, activation="erf", w_std=1.3, b_std=0.7)
    params = net.init(jax.random.key(0), (4, 3, 2), 2)
    x = images(3)
    h = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    for layer in params.layers:
        weights, biases = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
        h = np.stack(
            [
                np.sum([signal.correlate2d(i[..., c], weights[..., c, o], "valid")
                        for c in range(i.shape[-1])], axis=0) for i in h for o in range(5)
            ]
        ).reshape(3, 5, 4, 3)  # fmt: skip
        h = special.erf(1.3 / np.sqrt(weights[..., 0].size) * np.moveaxis(h, 1, -1) + 0.7 * biases)
        h, last = np.pad(h, [(0, 0), (1, 1), (1, 1), (0, 0)]), h
    last = last.mean(axis=(1, 2)) if readout == "pool" else last.reshape(3, -1)
    weights, biases = np.asarray(params.readout.kernel[...]), np.asarray(params.readout.bias[...])
    expected = 1.3 / np.sqrt(len(weights)) * last @ weights + 0.7 * biases
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.cases(1)
@pytest.mark.parametrize(("readout", "activation"), [("pool", "relu"), ("flatten", "erf")])
def test_convolutional_networks_approach_their_kernels(readout, activation):
    net = ConvNet(width=256, depth=1, readout=readout, activation=activation)
    x, members = images(3), 60
    nngp, ntk = [], []
    for key in jax.random.split(jax.random.key(0), members):
        params = net.init(key, x.shape[1:], 8)
        nngp.append(empirical_nngp(net, params, x))
        ntk.append(empirical_ntk(net, params, x, trace=True))
    for samples, kernel in zip((nngp, ntk), net.kernels(x), strict=True):
        error = np.mean(samples, axis=0) - kernel
        standard_error = np.std(samples, axis=0, ddof=1) / np.sqrt(members)
        finite_width = 3 / net.width * np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        assert (np.abs(error) < 4 * standard_error + finite_width).all()


@pytest.mark.slow
def test_convolutional_kernels_do_not_depend_on_blocks(monkeypatch):
    net = ConvNet(depth=1)
    x = images(5)
    whole = net.kernels(x)
    monkeypatch.setattr("ntk_uq.networks.convnet._TILE_BYTES", 4 * 8 * 12**2)  # 2 x 2 points
    for kernel, blocks, diagonal in zip(whole, net.kernels(x), net.kernel_diag(x), strict=True):
        np.testing.assert_allclose(blocks, kernel, rtol=1e-12)
        np.testing.assert_allclose(diagonal, np.diag(kernel), rtol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"readout": "mean"}, 'readout must be "pool" or "flatten"'),
        ({"kernel_size": 0}, "kernel_size must be an integer, at least 1"),
        ({"depth": 0}, "depth must be an integer, at least 1"),
        ({"activation": "rely"}, "Unknown activation 'rely'"),
    ],
)
def test_convnet_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**arguments)


def test_tables_and_images_are_not_confused():
    with pytest.raises(ValueError, match=r"must be images, \[points, height, width, channels\]"):
        ConvNet().kernels(points(3))
    with pytest.raises(ValueError, match="ConvNet takes images"):
        ConvNet().init(jax.random.key(0), 4, 2)
    with pytest.raises(ValueError, match="must be two-dimensional"):
        MLP().kernels(images(3))


def test_progress_of_kernels_counts_every_row_of_blocks():
    seen = []
    MLP(depth=1).kernels(points(600), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
