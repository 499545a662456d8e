"""What an infinite ensemble takes, known before the work: memory, draws at once, iterations."""

from typing import Literal

import numpy as np

from ntk_uq._common.solver import n_directions
from ntk_uq._common.tiles import tiled_bytes
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq.predictions.first_order import CHECKED

__all__ = ["estimate_memory"]

# Draws solved together, and the numbers in one array over points, outputs and draws: 2**22 doubles
# are 32 MiB. More only cost memory: a few hundred columns already make products with Theta run at
# the machine's rate, and progress is seen between chunks.
_DRAWS_AT_ONCE = 128
_NUMBERS_AT_ONCE = 2**22
# Of these, what a core of a CPU solves together: arrays stay in its cache.
_DRAWS_A_CORE = 32
# Iterations of the solver: so many at least, and more, for hard problems, where they cost little:
# up to so many, and products with Theta of so many operations.
_ITERATIONS, _MOST_ITERATIONS, _MOST_OPERATIONS = 5000, 50_000, 2e12
# Bytes of the solver for each number of a draw, where iterations are in single precision, and what
# they may take where tiles are small, and the share of the tiles where they are not.
_TILED_WORK, _TILED_WORK_SPACE, _TILED_WORK_SHARE = 160, 320 * 2**20, 1 / 13
# Bytes of a number of the deflation's directions, while these are sought: 8 arrays of doubles.
_OF_A_DIRECTION = 8 * 8
# What there is besides: the deflation, blocks of functions and of products.
_TILED_REST = 100 * 2**20
# Of each number of the products that processes take together: what they ask for and its bytes as
# they travel, shares of the products, and their sum.
_OF_A_TURN = 4 * (3 + 2 + 2)
# Bytes of a feature of a point.
_OF_A_FEATURE = 8
# What predictions take besides, a block of test points after the other: 5 arrays of 64 MiB.
_WORK_SPACE = 5 * 2**26


def estimate_memory(
    n: int,
    outputs: int,
    n_draws: int,
    method: str,
    uncertainty: Uncertainty,
    prior_functions: Literal["exact", "networks"] = "exact",
    in_memory: bool = True,
    n_inducing: int = 4096,
    n_features: int = 0,
    n_processes: int = 1,
    of_a_prior: int = 0,
) -> int:
    """Memory that fitting takes at its peak, in bytes, in double precision.

    Parameters
    ----------
    n, outputs : int
        Training points and outputs C.
    n_draws : int
        Draws of method "exact".
    method : {"exact", "gaussian", "nystrom"}
        Which predictor.
    uncertainty : str
        As in `gaussian_predictor`.
    prior_functions : {"exact", "networks"}
        Of method "exact": `InfiniteEnsemble`.
    in_memory : bool
        Whether tiles of Theta are, or in a file.
    n_inducing : int
        Points of method "nystrom".
    n_features : int
        Numbers that fitting keeps of a point: its features, and again where these are scaled.
    n_processes : int
        Processes that share the tiles, each of which solves its part of the draws.
    of_a_prior : int
        Bytes that drawing the prior function of a network takes: `RandomFunctions.memory`.

    Returns
    -------
    int

    Examples
    --------
    >>> f"{estimate_memory(10_000, 10, 256, 'exact', 'initialization') / 2**30:.1f} GiB"
    '7.2 GiB'
    >>> needed = estimate_memory(10_000, 10, 256, "exact", "initialization", "networks")
    >>> f"{needed / 2**30:.1f} GiB"
    '0.8 GiB'
    """
    if method == "nystrom" or (method == "exact" and prior_functions == "networks"):
        draws = 1 if uncertainty == "none" else n_draws
        own = min(_draws_at_once_of_tiles(n, outputs, draws), -(-draws // n_processes))
        solver = _TILED_WORK * n * outputs * own
        if n_processes > 1:
            solver += _OF_A_TURN * n * outputs * own * n_processes
        inducing = min(n, n_inducing) if method == "nystrom" else n
        kernel = 4 * n * inducing if method == "nystrom" else tiled_bytes(n) // n_processes
        factor = 24 * inducing**2 if method == "nystrom" else 0
        kept = 8 * inducing * outputs * draws
        points = _OF_A_FEATURE * n * n_features
        deflation = _OF_A_DIRECTION * n * n_directions(n, outputs, tiled=True)
        # Little is known of what a factor of inducing points takes.
        rest = _WORK_SPACE if method == "nystrom" else _TILED_REST
        work = max(deflation, kept + max(solver, of_a_prior)) + rest
        return (kernel if in_memory else 0) + factor + work + points
    # Counted in n x n matrices and in latents [n, C]; measured in benchmarks/size.py.
    if method == "exact":
        peaks = [(7, 24 * min(n_draws, _draws_at_once(n, outputs)) + 5 * n_draws)]
    elif uncertainty == "none":
        peaks = [(4, 24)]
    else:  # its factors, and then the draws that measure its error
        peaks = [(outputs + 13, 24), (outputs + 9, 29 * CHECKED)]
    numbers = max(matrices * n * n + latents * n * outputs for matrices, latents in peaks)
    return 8 * numbers + _OF_A_FEATURE * n * n_features + _WORK_SPACE


def _draws_at_once(n: int, outputs: int) -> int:
    return max(1, min(_DRAWS_AT_ONCE, _NUMBERS_AT_ONCE // (n * outputs)))


def _draws_at_once_of_tiles(n: int, outputs: int, n_draws: int) -> int:
    """Draws that share products with tiles: as many as possible, in a small part of the memory."""
    space = max(_TILED_WORK_SPACE, int(tiled_bytes(n) * _TILED_WORK_SHARE))
    chunks = -(-n_draws // max(1, space // (_TILED_WORK * n * outputs)))
    return -(-n_draws // chunks)


def _max_iter(n: int, outputs: int) -> int:
    """Iterations that the solver may take."""
    affordable = _MOST_OPERATIONS / (2 * n**2 * outputs * _DRAWS_A_CORE)
    return int(np.clip(affordable, _ITERATIONS, _MOST_ITERATIONS))
