"""Any activation at infinite width, against integrals in two dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problem import X as x

from ntk_uq import MLP, ConvNet, NTKClassifier
from ntk_uq.networks import hermite
from ntk_uq.networks.activations import dual_of
from ntk_uq.networks.infinite_width import dot_product_kernels

# Standard deviations of two variables, and their correlation.
PAIRS = [(1.0, 1.0, 0.5), (1.0, 1.0, 0.99), (0.5, 1.5, -0.3), (1.5, 1.5, 0.99), (1.0, 1.0, 1.0)]
WIDE = [(2.0, 2.0, 0.5), (2.0, 2.0, 0.9), (2.0, 2.0, 0.99)]

CLOSED = {
    "relu": lambda u: 1.5 * jnp.maximum(u, 0),
    "leaky": lambda u: jnp.where(u < 0, 0.1 * u, u),
    "abs": jnp.abs,
    "erf": lambda u: 2 * jax.lax.erf(-0.5 * u),
    "gelu": lambda u: 0.5 * u * jax.lax.erfc(-u / 2**0.5),
    "sin": lambda u: jnp.sin(0.7 * u + 0.3),
    "exp": lambda u: 2 * jnp.exp(-0.3 * u),
}
SMOOTH = {
    "tanh": jnp.tanh,
    "swish": lambda u: u * jax.nn.sigmoid(u),
    "softplus": jax.nn.softplus,
    "cubic": lambda u: u**3 - 0.5 * u**2 + 1,
    "sin and line": lambda u: jnp.sin(u) + 0.2 * u,
}
KINKED = {
    "elu": (jax.nn.elu, 1e-4),
    "selu": (jax.nn.selu, 5e-3),
    "hard tanh": (jax.nn.hard_tanh, 1e-2),
}


def integrals(function, s1, s2, c, steps):
    """E[f f'] and E[f' f''] by the trapezoidal rule, in coordinates that keep kinks aligned."""
    x = np.linspace(-8.5, 8.5, steps)
    weights = np.exp(-(x[:, None] ** 2 + x**2) / 2) * (x[1] - x[0]) ** 2 / (2 * np.pi)
    a, b = np.sqrt((1 + c) / 2), np.sqrt((1 - c) / 2)
    u, v = s1 * (a * x[:, None] + b * x), s2 * (a * x[:, None] - b * x)
    slope = hermite.derivative(function)
    return [
        float(np.sum(np.asarray(f(jnp.asarray(u))) * np.asarray(f(jnp.asarray(v))) * weights))
        for f in (function, slope)
    ]


def moments(function, s1, s2, c):
    dual = dual_of(function)
    s1, s2, h = (jnp.full((1, 1), value) for value in (s1, s2, 1 - c))
    complement, derivative = dual.pair(s1, s2, h)
    value = dual.spread(s1) * dual.spread(s2) * (1 - complement)
    return float(value[0, 0]), float(derivative[0, 0])


def errors(function, pairs=PAIRS, steps=300):
    """Of a smooth function the rule converges exponentially: its poles are many steps away."""
    with jax.enable_x64(True):
        pairs = [(moments(function, *pair), integrals(function, *pair, steps)) for pair in pairs]
    return np.array([np.subtract(*pair) for pair in pairs])


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_to_what_is_stated(name):
    assert (np.abs(errors(SMOOTH[name])) < [1e-10, 1e-9]).all()
    assert (np.abs(errors(SMOOTH[name], WIDE)) < [1e-9, 1e-7]).all()


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", ["erf", "gelu", "sin", "exp"])
def test_closed_forms_that_are_smooth(name):
    assert "_by_series" not in dual_of(CLOSED[name]).pair.__qualname__
    assert np.abs(errors(CLOSED[name])).max() < 1e-10


@pytest.mark.parametrize("name", ["relu", "leaky", "abs"])
def test_broken_lines_by_the_arc_cosine(name):
    """Cho & Saul: with slopes r and l, E[f f'] = r^2 J(c) + l^2 J(c) - 2 r l J(-c) in J of relu."""
    right, left = {"relu": (1.5, 0.0), "leaky": (1.0, 0.1), "abs": (1.0, -1.0)}[name]
    for s1, s2, c in PAIRS:
        with jax.enable_x64(True):
            value, slope = moments(CLOSED[name], s1, s2, c)

        def order_one(t):
            return (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi)

        t = np.arccos(c)
        same, across = order_one(t), order_one(np.pi - t)
        expected = s1 * s2 * ((right**2 + left**2) * same - 2 * right * left * across)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        share = (np.pi - t) / (2 * np.pi)
        np.testing.assert_allclose(
            slope, (right**2 + left**2) * share + 2 * right * left * (0.5 - share), rtol=1e-12
        )


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", KINKED)
def test_functions_with_kinks_to_what_is_stated(name):
    function, stated = KINKED[name]
    assert np.abs(errors(function, steps=1200)).max() < stated


def test_a_function_is_an_activation():
    """Finite and infinite, by name or as a function; kernels are positive semidefinite."""
    named, given = (MLP(width=8, depth=1, activation=tanh) for tanh in ("tanh", jnp.tanh))
    for one, other in zip(named.kernels(x), given.kernels(x), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.linalg.eigvalsh(one)[0] > -1e-13 * np.trace(one)
    erf, same = (MLP(depth=1, activation=erf) for erf in (lambda u: special_erf(u), "erf"))
    for one, other in zip(erf.kernels(x), same.kernels(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    params = given.init(jax.random.key(0), 3, 2)
    np.testing.assert_array_equal(given.apply(params, x), named.apply(params, x))
    assert (
        NTKClassifier(given, reg=1.0, method="gaussian").fit(x, x[:, 0] > 0).score(x, x[:, 0] > 0)
    )
    assert given.holds_functions
    assert not named.holds_functions


def special_erf(u):
    return 1 - jax.lax.erfc(u)


@pytest.mark.parametrize("readout", ["flatten", pytest.param("pool", marks=pytest.mark.slow)])
def test_convolutions_with_any_activation(readout):
    """Read off where stax has no layer; equal to stax where it has."""
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1))
    stax = ConvNet(depth=1, readout=readout, activation="erf").kernels(x)
    ours = ConvNet(depth=1, readout=readout, activation=special_erf).kernels(x)
    for one, other in zip(ours, stax, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7)


@pytest.mark.parametrize(
    ("function", "said"),
    [(np.sin, "jnp.sin in place of np.sin"), (jax.nn.softmax, "one unit at a time")],
)
def test_no_activations(function, said):
    with pytest.raises(ValueError, match=said):
        MLP(activation=function).kernels(x)


def test_a_function_is_compiled_once():
    """Copies of a function would be other functions to JAX, each with a program of its own."""
    x, net = np.eye(3), MLP(depth=1, activation=jax.nn.silu)
    net.kernels(x)
    programs = dot_product_kernels._cache_size()
    net.kernels(x)
    assert dot_product_kernels._cache_size() == programs


def test_a_function_is_looked_at_by_few_programs(monkeypatch):
    shapes = []

    def counted(u, *functions):
        shapes.append(u.shape)
        return values_at(u, *functions)

    values_at = hermite.values_at
    monkeypatch.setattr(hermite, "values_at", counted)
    assert hermite.is_odd(lambda u: jnp.tanh(u))  # a new one: rules are kept
    # Two quadratures, and the derivative at both; then all grids at once.
    assert len(shapes) == 5


def test_a_mean_square_that_overflows_is_none():
    """E[exp(2 u^2)] is infinite: NaN is no number that is close to another."""
    with pytest.raises(hermite.NoMomentError, match="no moments"):
        MLP(activation=lambda u: jnp.exp(u**2)).kernels(x)
    small = np.array([[0.0, 1.0, -1.0]])
    assert np.isfinite(MLP(activation=lambda u: jnp.exp(u**2 / 10)).kernels(small).ntk).all()
