"""Each rule against the mean over finite networks, which knows nothing of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import ntk_uq as nuq
from ntk_uq.networks.jacobians import jacobian_kernel
from ntk_uq.networks.neural_tangents import stax

TABLES = np.random.default_rng(0).normal(size=(3, 4))
IMAGES = np.random.default_rng(0).normal(size=(2, 5, 4, 3))


class Network(nnx.Module):
    """Layers by name, and a forward pass that is given."""

    def __init__(self, layers, forward, in_features, out_features, *, width, rngs):
        for name, make in layers.items():
            setattr(self, name, make(in_features, width, rngs))
        self.readout = nnx.Linear(width, out_features, rngs=rngs)
        self.forward = forward

    def __call__(self, x):
        return self.readout(self.forward(self, x))


def first(d, k, rngs):
    return nnx.Linear(d if isinstance(d, int) else d[-1], k, rngs=rngs)


def dense(d, k, rngs):
    return nnx.Linear(k, k, rngs=rngs)


def conv(size=(3, 3), **options):
    return lambda d, k, rngs: nnx.Conv(d[-1], k, size, rngs=rngs, **options)


def conv2(size=(3, 3), **options):
    return lambda d, k, rngs: nnx.Conv(k, k, size, rngs=rngs, **options)


def normal(*shape):
    def make(d, k, rngs):
        sizes = [k if size == "k" else size for size in shape]
        return nnx.Param(jax.random.normal(rngs.params(), sizes))

    return make


def gate(m, x):
    return jax.nn.sigmoid(m.a(x)) * m.b(x)


def split_gate(m, x):
    a, b = jnp.split(m.a(x), 2, axis=-1)
    return jnp.concatenate([jnp.sin(a) * b, m.b(x)[:, : a.shape[1]] + a], axis=-1)


def twice(m, x):
    h = m.a(x)
    return jnp.tanh(m.b(jnp.tanh(m.b(jnp.sin(h)))) + h)


def shared_branches(m, x):
    h = m.a(x)
    return jnp.tanh(h) + m.b(jnp.abs(h)) + nnx.relu(m.c(jnp.sin(h)) + h)


def skip_of_a_function(m, x):
    h = nnx.relu(m.a(x)) + 0.5
    return h + jnp.tanh(m.b(h))


def normed(m, x):
    return jnp.tanh(m.norm(m.b(m.norm1(nnx.relu(m.a(x))))))


def inputs_joined(m, x):
    return jnp.tanh(m.b(jnp.concatenate([x, nnx.relu(m.a(x))], axis=-1)))


def square(m, x):
    return jnp.square(m.a(x)) - 0.3 * m.b(x) ** 3


def pooled(m, x):
    h = nnx.relu(m.a(x))
    return nnx.avg_pool(nnx.relu(m.b(h)), (2, 2), (2, 1), "SAME").mean((1, 2))


def strided(m, x):
    h = nnx.elu(m.a(x))
    return m.flat(jnp.tanh(m.b(h)).reshape(len(x), -1))


def positions(m, x):
    h = m.a(x) + m.place[...]
    h = h + m.b(jnp.broadcast_to(jnp.sin(h + 1).mean((1, 2), keepdims=True), h.shape))
    return jnp.sum(nnx.relu(h)[:, 1:, ::2], (1, 2)) / 4


def transposed(m, x):
    h = nnx.relu(jnp.transpose(m.a(x), (0, 2, 1, 3))).reshape(len(x), 20, -1)
    return jnp.einsum("npk,kl,p->nl", h, m.w[...] / h.shape[-1] ** 0.5, jnp.linspace(0.1, 1, 20))


def group_normed(m, x):
    return jnp.sin(m.norm(m.a(x))).mean((1, 2))


def norm(cls):
    return lambda d, k, rngs: cls(k, rngs=rngs)


def group_norm(d, k, rngs):
    return nnx.GroupNorm(k, num_groups=2, rngs=rngs)


CASES = {
    "relu": ({"a": first, "b": dense}, lambda m, x: nnx.relu(m.b(nnx.relu(m.a(x)))), TABLES),
    "swish": ({"a": first, "b": dense}, lambda m, x: nnx.swish(m.b(nnx.silu(m.a(x)))), TABLES),
    "gelu by tanh": ({"a": first}, lambda m, x: nnx.gelu(m.a(x)), TABLES),
    "shifted": ({"a": first}, lambda m, x: jnp.tanh(m.a(x) + 1) * (m.a(x) > 0.2), TABLES),
    "matrix product": (
        {"w": normal(4, "k"), "b": normal("k")},
        lambda m, x: jnp.where((h := 0.8 * x @ m.w[...] - m.b[...]) > 0, h, 0.1 * jnp.expm1(h)),
        TABLES,
    ),
    "gate": ({"a": first, "b": first}, gate, TABLES),
    "split gate": ({"a": first, "b": first}, split_gate, TABLES),
    "a layer twice": ({"a": first, "b": dense}, twice, TABLES),
    "shared branches": ({"a": first, "b": dense, "c": dense}, shared_branches, TABLES),
    "skip of a function": ({"a": first, "b": dense}, skip_of_a_function, TABLES),
    "norms": (
        {"a": first, "b": dense, "norm": norm(nnx.LayerNorm), "norm1": norm(nnx.RMSNorm)},
        normed,
        TABLES,
    ),
    "inputs joined": (
        {"a": first, "b": lambda d, k, rngs: nnx.Linear(d + k, k, rngs=rngs)},
        inputs_joined,
        TABLES,
    ),
    "powers": ({"a": first, "b": first}, square, TABLES),
    "pooled": ({"a": conv(), "b": conv2(kernel_dilation=2)}, pooled, IMAGES),
    "strided": (
        {
            "a": conv(strides=2, padding="VALID"),
            "b": conv2((2, 1), padding="SAME"),
            "flat": lambda d, k, rngs: nnx.Linear(2 * k, k, rngs=rngs),
        },
        strided,
        IMAGES,
    ),
    "positions": ({"a": first, "b": dense, "place": normal(5, 4, "k")}, positions, IMAGES),
    "transposed": ({"a": first, "w": normal("k", "k")}, transposed, IMAGES),
    "group norm": ({"a": conv(), "norm": group_norm}, group_normed, IMAGES),
}


SOFT = {
    "softplus": (jax.nn.softplus, lambda u: jnp.log1p(jnp.exp(u))),
    "mish": (jax.nn.mish, lambda u: u * jnp.tanh(jnp.log1p(jnp.exp(u)))),
    "log sigmoid": (jax.nn.log_sigmoid, lambda u: -jnp.log1p(jnp.exp(-u))),
    "log cosh": (
        lambda u: jnp.logaddexp(u, -u),
        lambda u: jnp.log(jnp.exp(u) + jnp.exp(-u)),
    ),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", SOFT)
def test_functions_whose_derivative_is_written_out(name):
    """As the same function in operations that JAX derives by itself."""
    ours, plain = (
        nuq.Architecture(
            functools.partial(Network, {"a": first}, lambda m, x, phi=phi: phi(m.a(x)), width=8)
        ).kernels(TABLES)
        for phi in SOFT[name]
    )
    for kernel, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(kernel, expected, rtol=1e-8)


def in_two(first_layer, second_layer):
    """Two convolutions by 3 x 3, and the mean over positions."""

    def forward(m, x):
        h = nnx.relu(second_layer(m.b, nnx.relu(first_layer(m.a, x)) + 0.1))
        return h.mean((1, 2))

    return forward


def plainly(layer, x):
    return layer(x)


def padded(mode):
    return lambda layer, x: layer(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode))


@pytest.mark.cases(1)
@pytest.mark.parametrize(("mode", "padding"), [("constant", "SAME"), ("wrap", "CIRCULAR")])
def test_padding_by_hand(mode, padding):
    """As the padding of the convolution: of zeros, or of the other side's positions."""

    def kernels(forward, padding):
        layers = {
            "a": conv(padding=padding, use_bias=False),
            "b": conv2(padding=padding, use_bias=False),
        }
        net = functools.partial(Network, layers, forward, width=8)
        return nuq.Architecture(net).kernels(IMAGES)

    ours = kernels(in_two(padded(mode), padded(mode)), "VALID")
    theirs = kernels(in_two(plainly, plainly), padding)
    for kernel, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(kernel, expected, rtol=1e-12)


def test_circular_padding_of_a_hidden_layer():
    """In the limit it goes round as neural-tangents' does."""
    layers = {
        name: make(padding="CIRCULAR", use_bias=False) for name, make in (("a", conv), ("b", conv2))
    }

    def forward(m, x):
        return nnx.relu(m.b(nnx.relu(m.a(x)))).mean((1, 2))

    net = functools.partial(Network, layers, forward, width=8)
    around = {"W_std": 1.0, "padding": "CIRCULAR"}
    _, _, kernel_fn = stax.serial(
        stax.Conv(1, (3, 3), **around),
        stax.Relu(),
        stax.Conv(1, (3, 3), **around),
        stax.Relu(),
        stax.GlobalAvgPool(),
        stax.Dense(1, W_std=1.0, b_std=0.3),
    )
    ours = nuq.Architecture(net).kernels(IMAGES)
    theirs = nuq.Architecture(net, kernel_fn).kernels(IMAGES)
    for kernel, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(kernel, expected, rtol=1e-6)


@functools.partial(jax.jit, static_argnums=(0, 2))
def sample(net, x, members):
    """NNGP kernel and NTK of networks at initialisation, [members, n, n] each."""
    shape = x.shape[1] if x.ndim == 2 else x.shape[1:]

    def member(key):
        params = net.init(key, shape, 4)
        f = net.apply(params, x)
        ntk = jax.jit(jacobian_kernel, static_argnums=(0, 4))(net, params, x, None, True)
        return f @ f.T / 4, ntk

    return lax.map(member, jax.random.split(jax.random.key(0), members), batch_size=16)


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", CASES)
def test_finite_networks_approach_the_kernels(name):
    layers, forward, x = CASES[name]
    net = nuq.Architecture(functools.partial(Network, layers, forward))
    width, members = 128, 256
    finite = net.with_width(width)
    limit = finite.kernels(x)
    for samples, kernel in zip(
        sample(finite, jnp.asarray(x, jnp.float32), members), limit, strict=True
    ):
        samples = np.asarray(samples, float)
        error = samples.mean(0) - kernel
        standard_error = samples.std(0, ddof=1) / np.sqrt(members)
        finite_width = 4 / width * np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        print(name, np.abs(error / kernel).max(), (np.abs(error) / standard_error).max())
        assert (np.abs(error) < 4.5 * standard_error + finite_width).all()
