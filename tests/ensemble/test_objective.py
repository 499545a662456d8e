"""What a member minimises, and when it is stuck."""

import jax.numpy as jnp
import pytest

from ntk_uq.ensemble.objective import STUCK, Member, Problem, newton_start, objective
from ntk_uq.likelihoods import Poisson


@pytest.mark.parametrize("noise", [0.0, 0.5, -0.5])
def test_a_stall_is_a_share_of_what_the_terms_weigh(noise):
    """Whatever the sign of label noise, which may cancel all other terms."""
    x, y = jnp.ones((1, 1)), jnp.full((8, 1), 2.0)
    problem = Problem(lambda w, x: w * x, x, y, Poisson(), jnp.float32(1.0), jnp.float32(1e-4))
    quiet = Member(jnp.float32(0.0), jnp.zeros((8, 1)), jnp.zeros((8, 1)), None)
    noisy = quiet._replace(noise=jnp.full((8, 1), noise))
    w = jnp.float32(1.5)
    allowed, without = (newton_start(problem, m, w).allowed for m in (noisy, quiet))
    linear = objective(problem, noisy, w)[0] - objective(problem, quiet, w)[0]
    assert float(allowed) == pytest.approx(float(without + STUCK * abs(linear)), rel=1e-5)
