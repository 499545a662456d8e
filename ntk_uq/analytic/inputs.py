"""What the functions of this wing ask of kernels and targets, at their doors."""

import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from ntk_uq._common.blocks import placed
from ntk_uq._common.solver import LARGEST_GAP, interpolation_gap, solve_dual
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import Kernels


def _arrays(kernels: Kernels, y: ArrayLike) -> tuple[Kernels, Array]:
    """As JAX arrays, in the precision of the kernels."""
    if not (isinstance(kernels, tuple | list) and len(kernels) == 2):
        raise ValueError(
            "kernels takes Kernels(nngp, ntk), as architecture.kernels(X) gives them; got "
            f"{type(kernels).__name__}."
        )
    nngp, ntk = (placed(kernel) for kernel in kernels)
    n, shapes = len(ntk), [nngp.shape, ntk.shape]
    if np.ndim(y) != 2 or shapes != [(n, n), (n, n)] or np.shape(y)[0] != n:
        raise ValueError(
            "Kernels of n points are [n, n] and their targets [n, C], for classes one-hot rows; "
            f"got {nngp.shape}, {ntk.shape} and {np.shape(y)}."
        )
    # What JAX holds may be traced.
    targets = y.astype(ntk.dtype) if isinstance(y, Array) else placed(np.asarray(y, ntk.dtype))
    return Kernels(nngp, ntk), targets


def objective_gap(
    ntk: ArrayLike, y: Array, reg: float, f0: Array, alpha: Array, likelihood: Likelihood
) -> tuple[Array, Array]:
    """Bound of each objective's distance to its minimum for coefficients from anywhere: [S].

    And whether that is what a solution has.
    """
    ntk = placed(ntk)
    if reg == 0:
        gap, _ = interpolation_gap(ntk, y, f0, alpha, likelihood)
        return gap, gap <= LARGEST_GAP
    judged = solve_dual(ntk, reg, y, f0, likelihood, start=alpha, max_iter=0)
    return judged.gap, judged.converged
