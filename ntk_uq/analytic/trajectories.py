"""Draws of the posterior brought beyond first order, by Hamiltonian trajectories."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import log_ndtr, ndtr
from numpy.typing import ArrayLike

from ntk_uq._common.coordinates import Preconditioned
from ntk_uq._common.rules import own_rules
from ntk_uq.analytic.budget import _draws_at_once
from ntk_uq.analytic.exact import ExactPredictor, _standard_normal
from ntk_uq.likelihoods import Likelihood

__all__ = ["correct_draws"]
# Leapfrog steps of Hamiltonian trajectories, times d^(1/4) in d = nC dimensions. They are halved,
# so many times at most, until this share of trials is accepted, one from each of as many draws.
_HAMILTONIAN_STEP = 0.8
_HALVINGS, _ACCEPTED, _TRIALS = 6, 0.65, 32


@own_rules()
def correct_draws(
    key: Array,
    predictor: ExactPredictor,
    y: ArrayLike,
    likelihood: Likelihood,
    n_trajectories: int = 1,
) -> ExactPredictor:
    r"""Bring draws of "posterior" nearer to the posterior, by Hamiltonian Monte Carlo.

    Draws are right to first order. A step of a Markov chain that leaves the posterior invariant
    takes their distribution no further from it, and each draw makes a few: trajectories of a
    quarter of a period in coordinates in which the posterior is nearly N(0, I), accepted or not
    by Metropolis' rule. The first draws are tried for a step that is mostly accepted. docs:
    "Ensembles as posterior samples".

    Parameters
    ----------
    key : Array
        PRNG key, another than that of the draws. Draw i has a random stream of its own.
    predictor : ExactPredictor
        Draws of uncertainty "posterior".
    y : Array of shape [n, C]
        Targets as the likelihood takes them.
    likelihood : Likelihood
        Observation model, of which the draws are.
    n_trajectories : int
        Trajectories of each draw. One mends most of the spread for reg near 1, and little of the
        means; where the prior is wide, for small reg, draws start farther away, and 16 are safe.

    Returns
    -------
    ExactPredictor
        Its `alpha` is zero: all is in the values at the training points. `gap` and `converged` are
        of the solutions from which the trajectories began.

    Raises
    ------
    ValueError
        If the draws are of another uncertainty.

    References
    ----------
    Neal 2011, "MCMC using Hamiltonian dynamics".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.analytic import exact_predictor
    >>> net, X, y = MLP(), jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> problem = net.kernel_block(X), y, 1.0, Categorical(), "posterior"
    >>> draws = exact_predictor(jax.random.key(0), *problem, 4)
    >>> correct_draws(jax.random.key(1), draws, y, Categorical()).alpha.shape
    (4, 2, 2)
    """
    if predictor.uncertainty != "posterior":
        raise ValueError(
            'correct_draws takes draws of uncertainty "posterior": there is no posterior that '
            f'those of "{predictor.uncertainty}" would be near.'
        )
    factor = jnp.asarray(predictor.factor)
    y = jnp.asarray(y, factor.dtype)
    coordinates = Preconditioned.create(factor, y, likelihood)

    def whitened(draws: range) -> Array:
        # f = L w + Theta alpha = L z, with Theta = reg L L^T.
        chunk = slice(draws.start, draws.stop)
        pull = jnp.einsum("ji,sjc->sic", factor, jnp.asarray(predictor.alpha)[chunk])
        return jnp.asarray(predictor.whitened)[chunk] + predictor.reg * pull

    n_draws, at_once = len(predictor.alpha), _draws_at_once(*y.shape)
    trials = whitened(range(min(n_draws, at_once, _TRIALS)))
    step = _accepted_step(jax.random.fold_in(key, 0), coordinates, trials)
    parts = []
    for start in range(0, n_draws, at_once):
        draws = range(start, min(start + at_once, n_draws))
        z = whitened(draws)
        momenta, levels = _standard_normal(
            key, draws, (n_trajectories, *y.shape), (n_trajectories, 2), dtype=z.dtype
        )
        parts.append(_corrected(coordinates, z, momenta, levels, step)[0])
    return replace(
        predictor, whitened=jnp.concatenate(parts), alpha=jnp.zeros_like(predictor.alpha)
    )


def _accepted_step(key: Array, coordinates: Preconditioned, z: Array) -> float:
    """The step of leapfrog integration that most trial trajectories from some draws survive."""
    momenta, levels = _standard_normal(key, range(len(z)), (1, *z.shape[1:]), (1, 2), dtype=z.dtype)
    for halvings in range(_HALVINGS + 1):
        step = _HAMILTONIAN_STEP * coordinates.targets.size**-0.25 * 0.5**halvings
        _, accepted = _corrected(coordinates, z, momenta, levels, step)
        if float(jnp.mean(accepted)) >= _ACCEPTED:
            break
    return step


@jax.jit
def _corrected(
    coordinates: Preconditioned, z: Array, momenta: Array, levels: Array, step: float
) -> tuple[Array, Array]:
    """Whitened variables [S, n, C] after T trajectories of each draw, and which were accepted."""

    def one(z: Array, momenta: Array, levels: Array) -> tuple[Array, Array]:
        u, accepted = _trajectories(coordinates, step, coordinates.position(z), momenta, levels)
        return coordinates.outcome(u)[0], accepted

    return jax.vmap(one)(z, momenta, levels)


def _trajectories(
    coordinates: Preconditioned, step: float, u: Array, momenta: Array, levels: Array
) -> tuple[Array, Array]:
    """Where T trajectories end, one after the other, and which of them were accepted, [T]."""
    n_leaps = jnp.ceil(0.5 * jnp.pi / step).astype(int)

    def energy(u: Array, momentum: Array) -> Array:
        return coordinates.potential(u) + 0.5 * jnp.sum(momentum**2)

    def force(u: Array) -> Array:
        return -jax.grad(coordinates.potential)(u)

    def trajectory(u: Array, noise: tuple[Array, Array]) -> tuple[Array, Array]:
        momentum, (for_size, for_level) = noise
        # A step of one length could be a fraction of a period of some direction.
        size = step * (0.8 + 0.4 * ndtr(for_size))

        def leap(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            u, momentum, pull = state
            momentum = momentum + 0.5 * size * pull
            u = u + size * momentum
            pull = force(u)
            return u, momentum + 0.5 * size * pull, pull

        new, end, _ = lax.fori_loop(0, n_leaps, leap, (u, momentum, force(u)))
        accepted = log_ndtr(for_level) < energy(u, momentum) - energy(new, end)
        return jnp.where(accepted, new, u), accepted

    return lax.scan(trajectory, u, (momenta, levels))
