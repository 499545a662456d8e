"""Draws for many points: prior functions of random networks, and products with Theta in tiles.

Nothing here takes n^3 operations or a second array of n^2 numbers. docs/theory: "Many points".
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from ntk_uq._common import processes
from ntk_uq._common.checkpoint import Checkpoint, digest, name_without_addresses, probes
from ntk_uq._common.deflation import Deflation
from ntk_uq._common.divided_tiles import DividedTiles, found_by_first, together
from ntk_uq._common.linalg import cholesky
from ntk_uq._common.low_rank import LowRank
from ntk_uq._common.machine import give_back
from ntk_uq._common.progress import Progress, by_gaps, progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import (
    MODE_TOLERANCE,
    DualSolution,
    Products,
    deflate_at_mode,
    n_directions,
    solve_dual,
)
from ntk_uq._common.tiles import SymmetricTiles
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.words import in_a_line
from ntk_uq.analytic.budget import _draws_at_once_of_tiles, _max_iter
from ntk_uq.analytic.exact import _standard_normal
from ntk_uq.likelihoods import require_condition
from ntk_uq.likelihoods.interface import in_single_precision
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.problem import Problem
from ntk_uq.networks.random_functions import RandomFunctions

__all__ = [
    "PRIOR_WIDTH",
    "NetworkDraws",
    "inducing_ntk",
    "network_draws",
    "prior_memory",
    "tiled_ntk",
]

# Width of the networks whose functions stand for draws of the prior, or more where the user's has
# more: covariances are off by less than a hundredth, which no thousand draws can see.
PRIOR_WIDTH = 512
# Test points times draws times outputs whose latents are held at once, beside the result.
_LATENTS_AT_ONCE = 2**23


@in_a_line
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NetworkDraws:
    """Draws of the trained predictor whose prior functions are random networks.

    Each is a function: its value at a point depends on no other point that is asked for. The n
    points are those of training, or inducing ones where only these learn.

    Attributes
    ----------
    alpha : array of shape [S, n, C]
        Dual coefficients of each draw.
    gap : array of shape [S]
        Upper bound of each objective's distance to its minimum, in nats, rounding included.
    converged : array of shape [S]
        Whether each draw's problem was solved to the tolerance.
    prior : RandomFunctions or None
        The prior functions; None for "none".
    reg : float
        Regularisation.
    uncertainty : str
        Which prior functions.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.analytic import InfiniteEnsemble
    >>> from ntk_uq.networks import Problem
    >>> X, x = np.array([[-1.0], [1.0]]), np.array([[0.0], [2.0], [3.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, jax.random.key(0), MLP())
    >>> fitted = InfiniteEnsemble(n_draws=4, prior_functions="networks").fit(problem)
    >>> fitted.predictor.latents(MLP().kernels(x, X).ntk, x).shape
    (4, 3, 2)
    """

    alpha: Any
    gap: Any
    converged: Any
    prior: RandomFunctions | None = field(metadata={"static": True})
    reg: float = field(metadata={"static": True})
    uncertainty: Uncertainty = field(metadata={"static": True})

    def latents(self, cross: NDArray, x: NDArray) -> NDArray[np.float64]:
        """Draws of the latents at m test points, jointly: [S, m, C].

        Parameters
        ----------
        cross : array of shape [m, n]
            NTK between test and training points.
        x : array of shape [m, d]
            Test points.
        """
        n_draws, n, outputs = self.alpha.shape
        latents = np.empty((n_draws, len(x), outputs))
        size = max(1, _LATENTS_AT_ONCE // (n * outputs))
        for start in range(0, n_draws, size):
            draws = range(start, min(start + size, n_draws))
            alpha = np.asarray(self.alpha[draws.start : draws.stop], np.float64)
            trained = cross @ alpha.transpose(1, 0, 2).reshape(n, -1)
            latents[draws.start : draws.stop] = trained.reshape(-1, len(draws), outputs).swapaxes(
                0, 1
            )
            if self.prior is not None:
                latents[draws.start : draws.stop] += self.prior(draws, x)
        return latents


def tiled_ntk(
    architecture: BaseArchitecture,
    points: NDArray,
    storage: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> SymmetricTiles:
    """NTK of points in tiles: entries computed in double precision, and rounded once.

    Parameters
    ----------
    architecture : BaseArchitecture
        Whose kernel.
    points : array of shape [n, d]
        Points.
    storage : path or "processes", optional
        Directory of a file for the tiles; None keeps them in memory, "processes" a part of them in
        the memory of each process of `jax.distributed`.
    progress : callable, optional
        ``progress(done, total)`` is told tiles.
    """

    def block(rows: slice, columns: slice) -> NDArray:
        others = None if rows == columns else points[columns]
        return architecture.kernels(points[rows], others).ntk

    if storage == "processes":
        return DividedTiles(len(points)).fill(block, progress)
    return SymmetricTiles(len(points), directory=storage).fill(block, progress)


def inducing_ntk(
    architecture: BaseArchitecture,
    points: NDArray,
    inducing: NDArray,
    directory: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> tuple[LowRank, NDArray]:
    r"""NTK of points as m of them see it, :math:`\Theta_{XZ}\Theta_{ZZ}^{-1}\Theta_{ZX}`.

    Parameters
    ----------
    architecture : BaseArchitecture
        Whose kernel.
    points : array of shape [n, d]
        Points X.
    inducing : array of shape [m, d]
        Points Z.
    directory : path, optional
        Where a file for the features is made; None keeps them in memory.
    progress : callable, optional
        ``progress(done, total)`` is told blocks.

    Returns
    -------
    ntk : LowRank
        With features :math:`F = \Theta_{XZ} L^{-\top}`, where :math:`\Theta_{ZZ} = L L^\top`.
    factor : array of shape [m, m]
        L: dual coefficients alpha of the points are :math:`L^{-\top} F^\top \alpha` of Z.

    References
    ----------
    Quinonero-Candela & Rasmussen 2005, "subset of regressors".
    """
    with own_rules(), jax.enable_x64(True):
        factor = np.asarray(cholesky(jnp.asarray(architecture.kernels(inducing).ntk))[0])

    def block(rows: slice) -> NDArray:
        cross = architecture.kernels(points[rows], inducing).ntk
        return solve_triangular(factor, cross.T, lower=True, check_finite=False).T

    return LowRank(len(points), len(inducing), directory).fill(block, progress), factor


def network_draws(
    problem: Problem,
    points: NDArray,
    uncertainty: Uncertainty,
    n_draws: int,
    tol: float,
    *,
    ntk: Products,
    coefficients: Callable[[NDArray], NDArray] = np.asarray,
    checkpoint: str | os.PathLike | None = None,
    progress: bool | None = False,
) -> NetworkDraws:
    """Solve the problem for the prior functions of random networks.

    Parameters
    ----------
    problem : Problem
        Data, likelihood, regularisation, key and network.
    points : array of shape [n, d]
        Training points as the network sees them.
    uncertainty : {"initialization", "posterior", "none"}
        Which prior functions.
    n_draws : int
        Number of draws.
    tol : float
        Wanted distance of latents to the solution, in posterior standard deviations.
    ntk : SymmetricTiles or LowRank
        NTK of the points.
    coefficients : callable, optional
        What is kept of dual coefficients [S, n, C].
    checkpoint : path, optional
        Directory for the mode and for solved draws: a run that was killed goes on from there.
    progress : bool or None
        Progress bars; None shows them at a terminal only.

    Returns
    -------
    NetworkDraws
    """
    targets = jnp.asarray(problem.targets, jnp.float32)
    likelihood = in_single_precision(problem.loss)
    require_condition(likelihood, targets, problem.reg)
    n, outputs = targets.shape
    prior = prior_functions(problem, uncertainty, outputs)
    size = _draws_at_once_of_tiles(n, outputs, n_draws)
    if isinstance(ntk, DividedTiles):  # none waits while others solve
        size = min(size, -(-n_draws // processes.count()))
    kept = coefficients(np.zeros((1, n, outputs), np.float32)).shape[1:]
    run = None
    if checkpoint is not None:
        of_kernel = f"{type(ntk).__name__} {kept[0]}"
        run = _checkpoint(checkpoint, problem, points, prior, uncertainty, tol, size, of_kernel)
    nats = 0.5 * tol**2  # of the gap, whose root times sqrt(2) bounds the latents' distance
    solve = partial(
        solve_dual, ntk, problem.reg, targets, likelihood=likelihood, tol=nats,
        max_iter=_max_iter(n, outputs),
    )  # fmt: skip
    near = partial(deflate_at_mode, ntk, problem.reg, targets, likelihood)
    begin = partial(_beginning, n, near, solve, nats, uncertainty, progress)
    like = _beginning_like(n, outputs)
    begin_once = partial(_once, run, "mode", like, begin)
    mode = found_by_first(ntk, begin_once, f"mode of {digest(targets)}")
    if prior is None:
        return _predictor(problem, uncertainty, None, [_kept(mode, coefficients)])
    mode = jax.tree.map(jnp.asarray, mode)
    deflation, label_noise = mode.deflation, None
    if uncertainty != "initialization":
        label_noise = likelihood.curvature(mode.latents[0], targets)

    def chunk(draws: range, told: Callable[[Any], None] | None) -> dict[str, NDArray]:
        give_back()  # what the draws before have left
        f0 = jnp.asarray(prior(draws, points))
        of_draws: dict[str, Any] = {
            name: jnp.broadcast_to(v, f0.shape) for name, v in _from(mode).items()
        }
        if label_noise is not None:
            of_noise = jax.random.fold_in(cast(jax.Array, problem.key), 3)
            (z,) = _standard_normal(of_noise, draws, targets.shape, dtype=np.float32)
            of_draws["linear"] = label_noise.sqrt_matvec(z)
            # A wide prior's f0 is far from the mode: start where the deflation takes it there.
            along = jnp.einsum("nk,snc->skc", deflation.basis, f0)
            of_draws["start"] -= jnp.einsum("nk,skc->snc", deflation.basis, along)
            of_draws["ntk_start"] -= jnp.einsum("nk,skc->snc", deflation.ntk_basis, along)
        found = solve(f0, **of_draws, deflation=deflation, told=told)
        return _kept(found, coefficients)

    def chunks(share: Sequence[range]) -> list[dict[str, NDArray]]:
        found, done, total = [], 0, sum(map(len, share))
        with progress_bar("infinite ensemble", total, progress) as bar, together(ntk):
            for draws in share:
                told = by_gaps(bar, nats, range(done, done + len(draws)), total)
                name = f"draws-{draws.start}-{draws.stop}"
                like = _draws_like(len(draws), kept)
                found.append(_once(run, name, like, partial(chunk, draws, told)))
                done += len(draws)
                if bar is not None:
                    bar(done, total)
        return found

    of_chunks = [range(n_draws)[start : start + size] for start in range(0, n_draws, size)]
    key = jax.random.key_data(cast(jax.Array, problem.key))
    task = f"draws of {digest((key, targets))}, {size} at once"
    parts = processes.divided(chunks, of_chunks, task)
    return _predictor(problem, uncertainty, prior, parts)


def prior_functions(
    problem: Problem, uncertainty: Uncertainty, n_outputs: int
) -> RandomFunctions | None:
    """Prior functions of random networks, from the problem's key; None for "none"."""
    if uncertainty == "none":
        return None
    if problem.key is None:
        raise ValueError('method="exact" draws: give the problem a key.')
    seed = np.asarray(jax.random.key_data(jax.random.fold_in(problem.key, 0)), np.uint64)
    seed_numbers = tuple(int(number) for number in seed)
    return _prior(problem.architecture, uncertainty, problem.reg, n_outputs, seed_numbers)


def prior_memory(
    architecture: BaseArchitecture, uncertainty: Uncertainty, in_features: Any, n_outputs: int
) -> int:
    """Bytes that drawing a prior function takes: `RandomFunctions.memory`; 0 for "none"."""
    if uncertainty == "none":
        return 0
    return _prior(architecture, uncertainty, 1.0, n_outputs, (0,)).memory(in_features)


def _prior(
    architecture: BaseArchitecture,
    uncertainty: Uncertainty,
    reg: float,
    n_outputs: int,
    seed: tuple[int, ...],
) -> RandomFunctions:
    wide = cast(BaseArchitecture, architecture.widened(PRIOR_WIDTH))
    if uncertainty == "initialization":
        return RandomFunctions(wide, "nngp", 1.0, n_outputs, seed)
    return RandomFunctions(wide, "ntk", reg**-0.5, n_outputs, seed)


class _Beginning(NamedTuple):
    """Where draws begin: the mode, or near it, and a deflation of the curvature there."""

    deflation: Any
    alpha: Any
    latents: Any
    gap: Any
    converged: Any


def _beginning(
    n: int,
    near_mode: Callable[..., tuple[Deflation, DualSolution]],
    solve: Callable[..., DualSolution],
    nats: float,
    uncertainty: Uncertainty,
    progress: bool | None,
) -> _Beginning:
    """Deflate, and go on to the mode itself where it is asked for: all but initial functions."""
    alone = partial(by_gaps, draws=range(1), total=1, steps=100)  # per cent
    with progress_bar("deflation", 1, progress) as bar:
        deflation, mode = near_mode(told=alone(bar, MODE_TOLERANCE * n))
    if uncertainty != "initialization":
        with progress_bar("mode", 1, progress) as bar:
            zero, told = jnp.zeros(mode.alpha.shape, np.float32), alone(bar, nats)
            mode = solve(zero, **_from(mode), deflation=deflation, told=told)
    gap = np.asarray(mode.gap, np.float64)
    return _Beginning(deflation, mode.alpha, mode.latents, gap, mode.converged)


def _beginning_like(n: int, outputs: int) -> _Beginning:
    """Shapes of the same."""
    k = n_directions(n, outputs, tiled=True)
    single, double, of = np.float32, np.float64, cast(Any, jax.ShapeDtypeStruct)
    return _Beginning(
        Deflation(of((n, k), single), of((n, k), single), of((k * outputs, k * outputs), single)),
        alpha=of((1, n, outputs), double),
        latents=of((1, n, outputs), single),
        gap=of((1,), double),
        converged=of((1,), bool),
    )


def _from(mode: DualSolution | _Beginning) -> dict[str, Any]:
    """Where a solve starts that starts at the mode, whose prior function is zero."""
    return {"start": mode.alpha, "ntk_start": mode.latents}


def _kept(
    solution: DualSolution | _Beginning, coefficients: Callable[[NDArray], NDArray]
) -> dict[str, NDArray]:
    return {
        "alpha": coefficients(np.asarray(solution.alpha)),
        "gap": np.asarray(solution.gap, np.float64),
        "converged": np.asarray(solution.converged),
    }


def _predictor(
    problem: Problem,
    uncertainty: Uncertainty,
    prior: RandomFunctions | None,
    parts: list[dict[str, NDArray]],
) -> NetworkDraws:
    kept = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return NetworkDraws(**kept, prior=prior, reg=problem.reg, uncertainty=uncertainty)


def _once(run: Checkpoint | None, name: str, like: Any, solve: Callable[[], Any]) -> Any:
    """What was solved before, or is solved now and kept."""
    found = None if run is None else run.load(name, like)
    if found is None:
        found = solve()
        if run is not None:
            run.save(name, found)
    return found


def _draws_like(count: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Shapes of what is kept of so many draws."""
    of = jax.ShapeDtypeStruct
    return {
        "alpha": of((count, *shape), np.float64),
        "gap": of((count,), np.float64),
        "converged": of((count,), bool),
    }


def _checkpoint(
    directory: str | os.PathLike,
    problem: Problem,
    points: NDArray,
    prior: RandomFunctions | None,
    uncertainty: Uncertainty,
    tol: float,
    draws_at_once: int,
    kernel: str,
) -> Checkpoint:
    """Checkpoint labelled with all that draws depend on, but for their number."""
    few = probes(points)
    f0 = [] if prior is None else prior(range(1), few).ravel().tolist()
    key = None if problem.key is None else jax.random.key_data(problem.key)
    return Checkpoint(
        directory,
        {
            "architecture": name_without_addresses(problem.architecture),
            "X": digest(points),
            "y": digest(problem.targets),
            "likelihood": f"{type(problem.loss).__name__} {digest(problem.loss)}",
            "uncertainty": uncertainty,
            "reg": repr(float(problem.reg)),
            "tol": repr(float(tol)),
            "key": digest(key),
            "draws at once": str(draws_at_once),
            "kernel": kernel,
            "kernel at points": problem.architecture.kernels(few).ntk.ravel().tolist(),
            "prior function at points": f0,
            "coefficients": "double",
        },
    )
