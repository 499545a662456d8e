"""What has no limit is refused by the operation's name, the line, and what to do."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ntk_uq as nuq
from ntk_uq.networks.read_off import RULES, NoLimitError, UnreadableError, elementwise, rule

X = np.random.default_rng(0).normal(size=(3, 4))
IMAGES = np.random.default_rng(0).normal(size=(2, 4, 4, 3))


def max_pool(m, h):
    return nnx.max_pool(h, (2, 2)).mean((1, 2))  # here


def attention(m, h):
    h = h.reshape(len(h), 16, -1)
    scores = h @ jnp.swapaxes(h, 1, 2)  # here
    return (scores @ h).mean(1)


def softmax(m, h):
    return jax.nn.softmax(h.mean((1, 2)))  # here


def maximum(m, h):
    return jnp.max(h, axis=(1, 2))  # here


def tied_transposed(m, h):
    return nnx.relu(h.mean((1, 2)) @ m.b.kernel[...]) @ m.b.kernel[...].T  # here


def unit_by_unit(m, h):
    return h.mean((1, 2)) * jnp.linspace(0.0, 1.0, h.shape[-1])  # here


def of_two(m, h):
    g = h.mean((1, 2))
    return jnp.tanh(m.b(nnx.relu(g)) * m.c(jnp.sin(g)))  # here


def one_gate(m, h):
    return h.mean((1, 2)) * jax.nn.sigmoid(m.gate(h.mean((1, 2))))  # here


def mixer(m, h):
    h = nnx.relu(h).reshape(len(h), 16, -1)
    return jnp.einsum("npk,pq->nqk", h, m.mix[...]).mean(1)  # here


def sorted_units(m, h):
    return jnp.sort(h.mean((1, 2)), axis=-1)  # here


def detached(m, h):
    return jax.lax.stop_gradient(h.mean((1, 2)))  # here


def other_positions(m, h):
    return m.b(h).mean((1, 2)) + m.b(h.mean((1, 2)))  # here


def joined_layers(m, h):
    h = h.reshape(len(h), 16, -1)
    return jnp.concatenate([nnx.relu(h), m.b(nnx.relu(h))], axis=1).mean(1)  # here


def few_units(m, h):
    pairs = nnx.relu(h.mean((1, 2))).reshape(len(h), 4, 2)
    return m.narrow(pairs.mean(-1))  # here


def whole_numbers(m, h):
    return h.mean((1, 2)).astype(int) + m.b.bias[...] * h.mean((1, 2))


@jax.custom_jvp
def straight_through(u):
    return jnp.round(u)


straight_through.defjvps(lambda t, out, u: t)


def straight(m, h):
    return straight_through(h.mean((1, 2)))  # here


def pole(m, h):
    return 1 / h.mean((1, 2))


REFUSED = {
    other_positions: "dot_general",
    joined_layers: "concatenate",
    few_units: "dot_general",
    straight: "custom_jvp_call",
    max_pool: "reduce_window_max",
    attention: "dot_general",
    softmax: "reduce_max",
    maximum: "reduce_max",
    tied_transposed: "dot_general",
    unit_by_unit: "mul",
    of_two: "tanh",
    one_gate: "mul",
    mixer: "dot_general",
    sorted_units: "sort",
    detached: "stop_gradient",
}


class Network(nnx.Module):
    forward = None

    def __init__(self, in_features, out_features, *, rngs):
        self.a = nnx.Linear(in_features[-1], 8, rngs=rngs)
        self.b = nnx.Linear(8, 8, rngs=rngs)
        self.c = nnx.Linear(8, 8, rngs=rngs)
        self.gate = nnx.Linear(8, 1, rngs=rngs)
        self.narrow = nnx.Linear(4, 8, rngs=rngs)
        self.mix = nnx.Param(jax.random.normal(rngs.params(), (16, 16)))
        self.readout = nnx.Linear(8, out_features, rngs=rngs)

    def __call__(self, x):
        return self.readout(type(self).forward(self, self.a(x)))


@pytest.mark.cases(4)
@pytest.mark.parametrize("forward", REFUSED, ids=lambda f: f.__name__)
def test_refused_by_name_and_line(forward):
    network = type("Mine", (Network,), {"forward": forward})
    lines, start = inspect.getsourcelines(forward)
    line = start + next(i for i, text in enumerate(lines) if "# here" in text)
    with pytest.raises(UnreadableError) as raised:
        nuq.Architecture(network).kernels(IMAGES)
    text = str(raised.value)
    assert f"kernels of Mine cannot be read off: {REFUSED[forward]}, " in text
    assert f"{__file__}:{line} ({forward.__name__})" in text
    assert "kernel_fn=" in text
    assert 'Architecture(Mine, kernels="empirical")' in text


def test_the_line_to_paste_works():
    """Of max pooling, where the mean over networks is the way."""

    class Pooled(nnx.Module):
        def __init__(self, in_features, out_features, *, rngs):
            self.conv = nnx.Conv(in_features[-1], 4, (3, 3), rngs=rngs)
            self.readout = nnx.Linear(16, out_features, rngs=rngs)

        def __call__(self, x):
            x = nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), strides=(2, 2))
            return self.readout(x.reshape(len(x), -1))

    names = {"nuq": nuq, "Pooled": Pooled}
    with pytest.raises(UnreadableError, match="reduce_window_max") as raised:
        nuq.Architecture(Pooled).kernels(IMAGES)
    (line,) = re.findall(r"nuq\.Architecture\(.*?\)", str(raised.value))
    assert eval(line, names).kernels(IMAGES).ntk.shape == (len(IMAGES),) * 2
    with pytest.raises(UnreadableError, match=r'\(Pooled, parameterization="own", kernels="emp'):
        nuq.Architecture(Pooled, parameterization="own").kernels(IMAGES)
    with pytest.raises(UnreadableError, match=r"Architecture\(module, "):
        nuq.Architecture(functools.partial(Pooled)).kernels(IMAGES)


class Soft(nnx.Module):
    def __init__(self, in_features, out_features, *, rngs):
        self.readout = nnx.Linear(in_features, out_features, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.readout(x))


@pytest.mark.cases(1)
@pytest.mark.parametrize("forward", [pole, lambda m, h: jnp.log(h.mean((1, 2)))])
def test_functions_without_moments(forward):
    network = type("Mine", (Network,), {"forward": forward})
    with pytest.raises(UnreadableError, match="no moments over a layer's values"):
        nuq.Architecture(network).kernels(IMAGES)


def centred(x):
    return x - x.mean(0)  # here


def batch_flattened(x):
    return jnp.cumsum(x.reshape(-1)).reshape(x.shape)  # here


def of_their_number(x):
    return x / len(x)


BATCHES = {
    centred: "reduce_sum",
    batch_flattened: "cumsum",
    of_their_number: "depends on their number",
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("mix", BATCHES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kernels", ["read_off", "empirical"])
def test_points_that_depend_on_their_batch(mix, kernels):
    """At one point alone the mean over a batch is the point: read there, all would seem well."""

    class Mixing(nnx.Module):
        def __init__(self, in_features, out_features, *, rngs):
            self.hidden = nnx.Linear(in_features, 8, rngs=rngs)
            self.readout = nnx.Linear(8, out_features, rngs=rngs)

        def __call__(self, x):
            return self.readout(jnp.sin(mix(self.hidden(x))))

    with pytest.raises(UnreadableError, match=f"no function of one point.*{BATCHES[mix]}") as error:
        nuq.Architecture(Mixing, kernels=kernels).kernels(X)
    if mix is not of_their_number:
        _, start = inspect.getsourcelines(mix)
        assert f"{__file__}:{start + 1} ({mix.__name__})" in str(error.value)


def test_outputs_that_are_not_gaussian():
    with pytest.raises(UnreadableError, match="Soft has outputs that are not Gaussian"):
        nuq.Architecture(Soft).kernels(X)


class LogSoftmax(Soft):
    def __call__(self, x):
        return jax.nn.log_softmax(self.readout(x))


def test_outputs_are_no_layer():
    with pytest.raises(UnreadableError, match=r"LogSoftmax cannot be read off: reduce_max, "):
        nuq.Architecture(LogSoftmax).kernels(X)


def test_a_rule_of_the_users():
    """An operation without a rule is refused; with one of the user's it is carried out."""

    saved = dict(RULES)
    try:
        RULES.pop("tanh")

        class Tanh(Network):
            def __call__(self, x):
                return self.readout(jnp.tanh(self.a(x)).mean((1, 2)))

        with pytest.raises(UnreadableError, match=r"tanh, .*, is an operation without a rule"):
            nuq.Architecture(Tanh).kernels(IMAGES)

        @rule("tanh")
        def _(operation, x):
            return elementwise(operation, x)

        assert nuq.Architecture(Tanh).kernels(IMAGES).ntk.shape == (2, 2)

        @rule("tanh")
        def _(operation, x):
            raise NoLimitError("is not wanted")

        class Again(Tanh):
            pass

        with pytest.raises(UnreadableError, match="is not wanted"):
            nuq.Architecture(Again).kernels(IMAGES)
    finally:
        RULES.update(saved)
