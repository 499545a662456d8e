"""Is what was found a solution? Right, or refused: no silent half-solution."""

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.solver import LARGEST_GAP, USELESS_GAP
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.warnings import ConvergenceWarning, warn_user

__all__ = ["check_range", "check_solution", "refuse_unsolved"]

Floats = NDArray[np.float64]

# Rounding of latents, in nats or of the targets' size, that leaves nothing to solve.
_LARGEST_ROUNDING = 1e-4
# What makes a problem easier to solve.
_CURE = "Raise reg, or scale the features (about 1 each), or lower w_std and b_std"


def check_range(
    kernels: Any, targets: Floats, reg: float, uncertainty: Uncertainty, precision: str = ""
) -> float:
    """Refuse at once what no solver can do: prior functions whose last digit is worth too much.

    Takes kernels, or their diagonals; `precision` ends the message of what is solved in single
    precision, as in `check_solution`. Returns the size of prior functions, in nats or in the
    targets' size.
    """
    kernel = kernels.nngp if uncertainty == "initialization" else kernels.ntk
    diagonal = kernel if kernel.ndim == 1 else np.diagonal(kernel)
    variances = diagonal / (reg if uncertainty == "posterior" else 1.0)
    widest = np.sqrt(np.max(variances)) if uncertainty != "none" else 0.0
    finite = all(np.isfinite(k).all() for k in kernels)
    name, dtype = ("single", np.float32) if precision else ("double", np.float64)
    eps = np.finfo(dtype).eps
    scale = max(1.0, float(np.sqrt(np.mean(np.square(targets)))))
    if not finite or not widest * eps < _LARGEST_ROUNDING * scale:
        size = f"of size {widest:.1g} at reg={reg:.3g}" if finite else "not finite"
        raise ValueError(
            f"Functions of this network are {size} at the training points, more than "
            f"{name} precision can solve for: w_std or b_std is far too large for its depth, "
            "or features are. Lower w_std and b_std (about 1), or scale features (about 1 each)."
            + (precision if finite else "")
        )
    return float(widest / scale)


def check_solution(
    predictor: Any, reg: float, tol: float | None = None, precision: str = ""
) -> None:
    """Refuse what is no solution where a kernel is too wide for its reg; warn of a rough one.

    Which is one that has not converged to `tol`, in posterior standard deviations, where a user has
    said how far latents may be off. `precision` ends a message: which it is, and who has a better.
    """
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(predictor)):
        raise ValueError(
            f"reg={reg:.3g} is too small for kernels this large: their range exceeds double "
            f"precision. {_CURE}."
        )
    refuse_unsolved(predictor, reg, precision)
    gap = np.atleast_1d(predictor.gap)
    if tol is not None:
        if not np.all(predictor.converged):
            short = _short_of(tol, gap, predictor.converged)
            warn_user(short + precision, ConvergenceWarning)
    elif np.any(gap > LARGEST_GAP):
        warn_user(_unsolved(gap, reg) + precision, ConvergenceWarning)


def refuse_unsolved(predictor: Any, reg: float, precision: str = "") -> None:
    """Refuse what may be off by a posterior standard deviation."""
    gap = np.atleast_1d(predictor.gap)
    if np.max(gap) > USELESS_GAP:
        raise ValueError(_unsolved(gap, reg) + precision)


def _short_of(tol: float, gap: Floats, converged: NDArray) -> str:
    reached = np.sqrt(2 * np.max(gap))
    cure = "Set a larger tol" if np.max(gap) <= LARGEST_GAP else f"{_CURE}, or set a larger tol"
    return (
        f"tol={tol:.3g} was not reached: {np.sum(~converged)} of {len(gap)} solutions may be up to "
        f"{reached:.1g} posterior standard deviations off, rounding included. The solver ended "
        f"where it gained no more, which is what its precision can reach here. {cure}."
    )


def _unsolved(gap: Floats, reg: float) -> str:
    unsolved = gap > LARGEST_GAP
    return (
        f"{np.sum(unsolved)} of {len(gap)} solutions are up to {np.max(gap):.1g} nats from their "
        f"optimum, as far as their precision can tell: with reg={reg:.3g} the problem is too "
        f"ill-conditioned for the solver. {_CURE}, or see whether equal rows contradict each other."
    )
