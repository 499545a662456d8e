"""Sums over units: numbers in the limit where they are means, else as random as a unit."""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import ntk_uq as nuq
from ntk_uq.networks.jacobians import jacobian_kernel
from ntk_uq.networks.read_off import UnreadableError
from ntk_uq.networks.read_off.large_numbers import Sum, combined, joined

X = np.random.default_rng(0).normal(size=(3, 4))
WIDTH = 64
OVER = {"axis": -1, "keepdims": True}


class Network(nnx.Module):
    forward = None

    def __init__(self, in_features, out_features, *, width=WIDTH, rngs):
        self.q = nnx.Linear(in_features, width, rngs=rngs)
        self.k = nnx.Linear(in_features, width, rngs=rngs)
        self.v = nnx.Linear(in_features, width, rngs=rngs)
        self.one = nnx.Linear(1, width, rngs=rngs)
        self.norm = nnx.RMSNorm(width, epsilon=0.0, use_scale=False, rngs=rngs)
        self.readout = nnx.Linear(width, out_features, rngs=rngs)

    def __call__(self, x):
        return self.readout(type(self).forward(self, self.q(x), self.k(x), self.v(x)))


def network(forward):
    return nuq.Architecture(type("Mine", (Network,), {"forward": forward}))


def gate(m, q, k, v):
    return v * jax.nn.sigmoid((q * k).sum(**OVER) / math.sqrt(q.shape[-1]))  # here


def larger_gate(m, q, k, v):
    return v * jax.nn.sigmoid((q * k).sum(**OVER) / 4)  # here


def enlarged_mean(m, q, k, v):
    return v * jax.nn.sigmoid((q * k).mean(**OVER) * math.sqrt(q.shape[-1]))  # here


def scaled_before(m, q, k, v):
    return v * jax.nn.sigmoid((q * k / 8).sum(**OVER))  # here


def enlarged_units(m, q, k, v):
    return v * jax.nn.sigmoid((8 * q + k).mean(**OVER))  # here


def diverges(m, q, k, v):
    return v * jnp.tanh(nnx.relu(q).sum(**OVER) / math.sqrt(q.shape[-1]))  # here


def no_difference(m, q, k, v):
    return v * jnp.tanh((q**2 - k**2).sum(**OVER) / math.sqrt(q.shape[-1]))  # here


def length(m, q, k, v):
    return v * jax.nn.sigmoid(jnp.linalg.norm(q, **OVER))  # here


def half_a_cosine(m, q, k, v):
    return v * jax.nn.sigmoid((q * k).sum(**OVER) / jnp.linalg.norm(q, **OVER))  # here


def shift(m, q, k, v):
    return nnx.relu(v + (q * k).sum(**OVER) / math.sqrt(q.shape[-1]))  # here


def factor(m, q, k, v):
    return v * (q * k).mean(**OVER) * math.sqrt(q.shape[-1])  # here


def shifted_factor(m, q, k, v):
    return v * (1 + (q * k).sum(**OVER) / math.sqrt(q.shape[-1]))  # here


def squared(m, q, k, v):
    return v + ((q * k).sum(**OVER) / math.sqrt(q.shape[-1])) ** 2  # here


def weighted(m, q, k, v):
    return nnx.relu(v + m.one((q * k).sum(**OVER) / math.sqrt(q.shape[-1])))  # here


def sign(m, q, k, v):
    return jnp.where((q * k).mean(**OVER) > 0, v, -v)  # here


def divided(m, q, k, v):
    return v / (q * k).mean(**OVER)  # here


def in_heads(m, q, k, v):
    q, k, v = (a.reshape(-1, 2, WIDTH // 2) for a in (q, k, v))
    score = (q * k).sum(**OVER) / math.sqrt(WIDTH // 2)
    return (v * jax.nn.sigmoid(score)).reshape(-1, WIDTH)  # here


def pairs(m, q, k, v):
    means = nnx.relu(q).reshape(-1, WIDTH // 2, 2).mean(-1)
    halves = v.reshape(-1, 2, WIDTH // 2)
    return (halves * means[:, None]).reshape(-1, WIDTH)  # here


REFUSED = {
    gate: "logistic",
    larger_gate: "logistic",
    enlarged_mean: "logistic",
    scaled_before: "logistic",
    enlarged_units: "logistic",
    diverges: "tanh",
    no_difference: "tanh",
    length: "logistic",
    half_a_cosine: "logistic",
    shift: "add",
    factor: "mul",
    shifted_factor: "mul",
    squared: "add",
    weighted: "dot_general",
    sign: "gt",
    divided: "div",
    in_heads: "logistic",
    pairs: "mul",
}


@pytest.mark.cases(6)
@pytest.mark.parametrize("forward", REFUSED, ids=lambda f: f.__name__)
def test_random_sums_are_refused(forward):
    lines, start = inspect.getsourcelines(forward)
    line = start + next(i for i, text in enumerate(lines) if "# here" in text)
    with pytest.raises(UnreadableError, match=f"read off: {REFUSED[forward]}, ") as raised:
        network(forward).kernels(X)
    assert f"{__file__}:{line} ({forward.__name__})" in str(raised.value)
    assert 'Architecture(Mine, kernels="empirical")' in str(raised.value)


def test_what_to_divide_by_is_said():
    with pytest.raises(UnreadableError, match="divided by 64: it is 8 times a mean"):
        network(gate).kernels(X)


NORMS = {
    "rms": lambda m, q: m.norm(q),
    "of small units": lambda m, q: m.norm(q / 32),
    "length": lambda m, q: q / jnp.linalg.norm(q, **OVER) * math.sqrt(WIDTH),
    "scaled length": lambda m, q: q / (jnp.linalg.norm(q, **OVER) / math.sqrt(WIDTH)),
    "not zero": lambda m, q: q / jnp.maximum(jnp.linalg.norm(q, **OVER), 1e-9) * 8,
    "zero is one": lambda m, q: q / jnp.where((s := jnp.linalg.norm(q, **OVER)) == 0, 1, s) * 8,
    "power": lambda m, q: q * (q**2).mean(**OVER) ** -0.5,
    "deviation": lambda m, q: (q - q.mean(**OVER)) / q.std(**OVER),
    "sums": lambda m, q: (q - q.sum(**OVER) / WIDTH) * lax.rsqrt((q**2 / WIDTH).sum(**OVER)),
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", [name for name in NORMS if name != "rms"])
def test_normalisation_by_hand(name):
    """As that of the library, of a layer whose mean is 0."""

    def kernels(norm):
        return network(lambda m, q, k, v: nnx.relu(norm(m, q))).kernels(X)

    for kernel, expected in zip(kernels(NORMS[name]), kernels(NORMS["rms"]), strict=True):
        np.testing.assert_allclose(kernel, expected, rtol=1e-5)


def test_sums_over_positions_count():
    """Of channels' sums over an image, divided by the root of how many numbers these are."""

    class Convolutional(nnx.Module):
        of_all = False

        def __init__(self, in_features, out_features, *, rngs):
            self.q = nnx.Conv(3, 16, (3, 3), rngs=rngs)
            self.readout = nnx.Linear(16, out_features, rngs=rngs)

        def __call__(self, x):
            q = self.q(x)
            count = q[0].size if type(self).of_all else math.sqrt(q[0].size)
            gate = jax.nn.sigmoid(q.sum((1, 2), keepdims=True).sum(**OVER) / count)
            return self.readout((q * gate).mean((1, 2)))

    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3))
    with pytest.raises(UnreadableError, match=r"logistic, .* 24 times a mean"):
        nuq.Architecture(Convolutional).kernels(images)
    whole = type("Whole", (Convolutional,), {"of_all": True})
    half = type(
        "Half", (Convolutional,), {"__call__": lambda m, x: m.readout(m.q(x).mean((1, 2)) / 2)}
    )
    for kernel, expected in zip(
        *(nuq.Architecture(c).kernels(images) for c in (whole, half)), strict=True
    ):
        np.testing.assert_allclose(kernel, expected, rtol=1e-5)


def mean_gate(m, q, k, v):
    return v * jax.nn.sigmoid((q * k).mean(**OVER))


def second_moment_gate(m, q, k, v):
    return v * jax.nn.sigmoid(2 * (q * q).mean(**OVER) + jnp.linalg.norm(k, **OVER) / 8)


def cosine(m, q, k, v):
    lengths = jnp.linalg.norm(q, **OVER) * jnp.linalg.norm(k, **OVER)
    return nnx.relu(v + (q * k).sum(**OVER) / lengths)


def weighted_mean(m, q, k, v):
    return nnx.relu(v + m.one((q * q).mean(**OVER)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def tangent_kernels(net, members):
    def member(key):
        params = net.init(key, X.shape[1], 4)
        return jacobian_kernel(net, params, jnp.asarray(X, jnp.float32), None, True)

    return lax.map(member, jax.random.split(jax.random.key(0), members), batch_size=16)


def in_standard_errors(forward, ntk, members=300):
    """How far finite networks' mean is from a kernel, beyond what the width explains."""
    samples = np.asarray(tangent_kernels(network(forward), members), float)
    error = np.abs(samples.mean(0) - ntk)
    beyond = np.maximum(error - 4 / WIDTH * np.sqrt(np.outer(np.diag(ntk), np.diag(ntk))), 0)
    return (beyond / (samples.std(0, ddof=1) / np.sqrt(members))).max()


@pytest.mark.cases(1)
@pytest.mark.parametrize("forward", [mean_gate, second_moment_gate, cosine, weighted_mean])
def test_means_are_numbers(forward):
    assert in_standard_errors(forward, network(forward).kernels(X).ntk) < 4.5


@pytest.mark.slow
@pytest.mark.parametrize("forward", [gate, larger_gate])
def test_the_law_of_large_numbers_does_not_hold(forward):
    """Finite networks of a random gate differ from those of a mean, which is 1/2 in the limit."""
    assert in_standard_errors(forward, network(mean_gate).kernels(X).ntk, 1_000) > 6


def test_sums():
    whole = Sum(64, 64, 1, False)
    assert whole.why_random() is not None
    assert whole.multiple(1 / 64).why_random() is None
    assert whole.multiple(-1 / 63).why_random() is None  # an unbiased variance
    assert whole.multiple(1 / 8).why_random() is not None
    assert whole.power(0.5).multiple(1 / 8).why_random() is None
    assert combined(whole, whole.power(-1)).why_random() is None
    assert combined(whole, None) == whole
    centred = Sum(64, 64, 1, True)
    assert joined(centred, centred).nought
    assert combined(centred, whole).nought
    assert not joined(centred, whole).nought
    assert joined(None) is None
    small = Sum(64, 64, 1, False, size=1 / 64)
    assert small.why_random() is None
    assert small.why_random(beside=1 / 64) is not None
    assert Sum(1, 2, 32, False).why_random() is not None
    assert Sum(1, 32, 2, False).why_random() is None
