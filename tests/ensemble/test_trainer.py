"""Training of members, chunk by chunk: what its programs are made of."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntk_uq import Categorical, ConvNet
from ntk_uq.ensemble import ConvergenceWarning, layout, train_ensemble, trainer
from ntk_uq.ensemble.conjugate_gradients import ConjugateGradients
from ntk_uq.ensemble.optax_method import Optax

NET = ConvNet(width=3, depth=1, activation="erf")
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4, 4, 1)), jnp.float32)
Y = jnp.eye(2)[jnp.arange(6) % 2]


def convolutions(jaxpr, in_loop=False):
    """Of a program: the parameters of each, and whether it is in the body of a loop."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield eqn.params, in_loop
        inner = in_loop or eqn.primitive.name in ("while", "scan")
        for program in jax.tree.leaves(list(eqn.params.values())):
            program = getattr(program, "jaxpr", program)
            if hasattr(program, "eqns"):
                yield from convolutions(program, inner)


METHODS = {
    "descent": ConjugateGradients(),
    "passes": Optax(optax.adam(0.01)),
    "batches": Optax(optax.adam(0.01), batch_size=4),
}


def a_newton_product(of, members, state, data, _):
    start = trainer._newton(of, members, state, data, None)
    return trainer._newton(of, members, state, data, start)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of CPUs")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("work", [trainer._advance, a_newton_product])
def test_a_cpu_has_convolutions_of_one_network_and_outside_of_loops(work, method):
    method = METHODS[method]
    data = trainer._Data(X, Y, Categorical(), jnp.float32(1), jnp.float32(1e-4))
    mesh, chunk = layout._layout(NET, method, data, None, jax.devices()[:1])
    of = trainer._Programs(NET, method, mesh)
    indices = np.arange(chunk, dtype=np.uint32)
    members, state = trainer._start(of, "initialization", jax.random.key(0), indices, data, None)
    program = jax.make_jaxpr(partial(work, of))(members, state, data, 1)
    found = list(convolutions(program.jaxpr))
    assert len(found) >= 3  # of the line search or the objective, and forward and backward
    for params, in_loop in found:
        assert not in_loop
        assert params["feature_group_count"] == params["batch_group_count"] == 1


@pytest.mark.parametrize("settings", [{}, {"optimizer": optax.adam(0.01), "batch_size": 2}])
def test_members_one_by_one_are_those_trained_together(monkeypatch, settings):
    def train():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after three iterations
            return train_ensemble(
                jax.random.key(0), NET, X, Y, Categorical(), reg=1.0, n_members=2, max_iter=3,
                tol=1e-9, devices=jax.devices()[:1], **settings,
            )  # fmt: skip

    alone = train()
    for module in (layout, trainer):
        monkeypatch.setattr(module, "trains_one_by_one", lambda platform, X: False)
    together = train()
    np.testing.assert_array_equal(alone.n_iter, together.n_iter)
    np.testing.assert_allclose(alone.latents(X), together.latents(X), atol=1e-4)


@pytest.mark.parametrize("far", [0.0, 1.0])
def test_a_minimum_is_judged_alike_one_by_one(monkeypatch, far):
    """At a minimum, and where a member that counts as done has far to go."""
    method = ConjugateGradients()
    data = trainer._Data(X, Y, Categorical(), jnp.float32(0.01), jnp.float32(1e-5))
    mesh, chunk = layout._layout(NET, method, data, None, jax.devices()[:1])
    of = trainer._Programs(NET, method, mesh)
    members, state = trainer._start(
        of, "initialization", jax.random.key(0), np.arange(chunk, dtype=np.uint32), data, None
    )
    while not far and not np.all(state.converged):
        state = trainer._advance(of, members, state, data, 1)
    state = state._replace(converged=jnp.ones_like(state.converged))
    alone = trainer._judged(of, members, state, data).converged
    monkeypatch.setattr(trainer, "trains_one_by_one", lambda platform, X: False)
    jax.clear_caches()  # the choice is made when a program is traced
    together = trainer._judged(of, members, state, data).converged
    assert bool(alone[0]) == bool(together[0]) == (far == 0)
