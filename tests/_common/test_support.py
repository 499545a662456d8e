"""The preconditioner of each draw's own, against the Hessian as a matrix."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_uq._common.deflation import deflate_coupled
from ntk_uq._common.solver import large_directions, solve_dual
from ntk_uq._common.support import Support
from ntk_uq._common.tiles import SymmetricTiles
from ntk_uq.likelihoods import Bernoulli, Categorical, Poisson

pytestmark = pytest.mark.double_precision

N, C, S, REG = 7, 3, 2, 0.3
RNG = np.random.default_rng(0)
ROOT = 3 * RNG.standard_normal((N * C, N * C))
THETA = ROOT @ ROOT.T  # couples the outputs
LATENTS = 8 * RNG.standard_normal((N, C, S))
R = RNG.standard_normal((N, C, S))
Y = np.eye(C)[np.arange(N) % C]


@pytest.fixture
def tiles(monkeypatch):
    monkeypatch.setattr("ntk_uq._common.tiles.TILE_ROWS", 8)
    return SymmetricTiles(N * C, np.float64).fill(lambda rows, columns: THETA[rows, columns])


def per_draw(function):
    return jax.vmap(function, in_axes=(-1, None), out_axes=-1)


def own_steps(tiles, y=Y, most=3):
    """With a deflation of a few directions for the first steps."""
    curvature = Categorical().curvature(jnp.zeros(y.shape), jnp.asarray(y))
    directions = large_directions(tiles, jnp.asarray(y), most=most)
    return Support(tiles, REG, deflate_coupled(directions, REG, curvature))


def applied(tiles, likelihood, r=R):
    curvature = per_draw(likelihood.curvature)(jnp.asarray(LATENTS), Y)
    ntk_r = (THETA @ r.reshape(N * C, -1)).reshape(r.shape)
    return own_steps(tiles).apply(curvature, np.ones(r.shape[-1], bool), r, ntk_r)


def hessian(likelihood, draw):
    """-d^2 log p, by automatic differentiation."""

    def loss(f):
        return -jnp.sum(likelihood.log_density(f, Y))

    return np.asarray(jax.hessian(loss)(jnp.asarray(LATENTS[..., draw]))).reshape(N * C, N * C)


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Poisson()], ids=str)
def test_with_all_entries_the_hessian_is_inverted(monkeypatch, tiles, likelihood):
    monkeypatch.setattr("ntk_uq._common.support._SHARE", 0.0)
    steepest, ntk_steepest = applied(tiles, likelihood)
    for draw in range(S):
        matrix = REG * np.eye(N * C) + hessian(likelihood, draw) @ THETA
        expected = REG * np.linalg.solve(matrix, R[..., draw].ravel())
        scale = np.abs(expected).max()
        np.testing.assert_allclose(steepest[..., draw].ravel(), expected, atol=1e-7 * scale)
        pushed = THETA @ expected
        scale = np.abs(pushed).max()
        np.testing.assert_allclose(ntk_steepest[..., draw].ravel(), pushed, atol=1e-7 * scale)


def test_what_is_left_out_is_small(tiles):
    """Of a tenth of reg: the preconditioned Hessian is that much from one, at all but few."""
    for draw in range(S):
        columns = np.repeat(np.eye(N * C).reshape(N, C, -1)[..., None], S, axis=-1)
        steepest = [applied(tiles, Categorical(), columns[:, :, k])[0] for k in range(N * C)]
        inverse = np.stack([np.ravel(s[..., draw]) for s in steepest], axis=1) / REG
        product = inverse @ (REG * np.eye(N * C) + hessian(Categorical(), draw) @ THETA)
        assert np.abs(np.linalg.eigvals(product) - 1).max() < 0.1 * C * N


def test_few_entries_make_a_positive_preconditioner(monkeypatch, tiles):
    monkeypatch.setattr("ntk_uq._common.support._MOST", 4)
    columns = np.eye(N * C).reshape(N, C, -1)
    for draw in range(S):
        one = [
            applied(tiles, Categorical(), np.repeat(columns[..., k : k + 1], S, axis=-1))[1]
            for k in range(N * C)
        ]
        matrix = np.stack([np.ravel(b[..., draw]) for b in one], axis=1)  # Theta B
        scale = np.abs(matrix).max()
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-10 * scale)
        assert np.linalg.eigvalsh(matrix).min() > 0
        assert not np.allclose(matrix, THETA, rtol=0.01)


def test_solutions_are_those_without(tiles):
    """Of a wide prior, in a tenth of the products."""
    f0 = jnp.asarray(LATENTS.transpose(2, 0, 1) * 20)
    theta = jnp.asarray(THETA.reshape(N, C, N, C))
    plain = solve_dual(theta, REG, jnp.asarray(Y), f0, Categorical())
    support = own_steps(tiles)
    found = solve_dual(tiles, REG, jnp.asarray(Y), f0, Categorical(), deflation=support)
    assert bool(plain.converged.all())
    assert bool(found.converged.all())
    # Gaps of 1e-12 nats leave latents within 1.4e-6 prior standard deviations, of 20 or so.
    np.testing.assert_allclose(found.latents, plain.latents, atol=1e-3)
    assert found.n_products < plain.n_products / 2


def test_where_more_is_curved_than_it_takes_steps_become_conjugate(monkeypatch):
    """Ten entries of some ninety: twice the products of no preconditioner, and not ten times."""
    monkeypatch.setattr("ntk_uq._common.support._MOST", 10)
    random = np.random.default_rng(0)
    root = 0.75 * random.normal(size=(180, 180))
    theta = root @ root.T
    tiles = SymmetricTiles(180, np.float64).fill(lambda rows, columns: theta[rows, columns])
    y, f0 = (
        jnp.asarray(np.eye(3)[np.arange(60) % 3]),
        jnp.asarray(20 * random.normal(size=(4, 60, 3))),
    )
    plain = solve_dual(tiles, REG, y, f0, Categorical())
    found = solve_dual(tiles, REG, y, f0, Categorical(), deflation=own_steps(tiles, y))
    assert bool(found.converged.all())
    # An iteration takes two products, and the first fifty are of Newton's kind.
    assert found.n_products < 4 * plain.n_products


def test_first_steps_of_a_wide_prior_share_a_deflation(monkeypatch):
    """Its draws are far from all data: more is curved than Newton's steps take."""
    monkeypatch.setattr("ntk_uq._common.support._MOST", 10)
    random = np.random.default_rng(0)
    n, draws = 100, 4
    directions, _ = np.linalg.qr(random.normal(size=(3 * n, 3 * n)))
    root = directions * (1000 / np.arange(1, 3 * n + 1))
    theta = root @ root.T
    tiles = SymmetricTiles(3 * n, np.float64).fill(lambda rows, columns: theta[rows, columns])
    y = jnp.asarray(np.eye(3)[np.arange(n) % 3])
    prior = (random.normal(size=(draws, 3 * n)) @ root.T) / np.sqrt(REG)
    v, _ = large_directions(tiles, y, most=40)
    f0, start = (jnp.asarray(a.reshape(draws, n, 3)) for a in (prior, -prior @ v @ v.T))
    support = own_steps(tiles, y, most=40)
    solve = partial(solve_dual, tiles, REG, y, f0, Categorical(), start=start, deflation=support)
    found = solve(max_iter=6)
    monkeypatch.setattr("ntk_uq._common.solver.SHARED_STEPS", 0)
    by_newton = solve(max_iter=6)
    assert found.n_products < by_newton.n_products
    assert found.gap.max() < 0.1 * by_newton.gap.max()
