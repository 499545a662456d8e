"""What a criterion says along the regularisations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntk_uq._common.leaves import read_only
from ntk_uq._common.words import in_a_line

__all__ = ["RegCurve"]

Floats = NDArray[np.float64]


@in_a_line
@dataclass(frozen=True)
class RegCurve:
    """What a criterion says of each regularisation. Its arrays are read-only.

    Attributes
    ----------
    regs : array of shape [R]
        Regularisations.
    scores : array of shape [K, R]
        Log evidence of the data, or mean log predictive density of a held-out point, in nats; one
        row a network, NaN where it was not tried.
    errors : array of shape [K, R] or None
        Standard error of the mean over points, as if those of one fold, which share a fit, were
        independent; None for the evidence.
    names : tuple of K strings
        What each row belongs to.
    criterion : {"evidence", "cv"}
        Which of the two.
    reg : float
        The regularisation chosen.
    n_points : int or None
        How many training points took part, taken at random where there are more.

    Examples
    --------
    >>> import numpy as np
    >>> regs, scores = np.array([0.1, 1.0, 10.0]), np.array([[-0.9, -0.5, -0.7]])
    >>> curve = RegCurve(regs, scores, None, ("depth 1",), "cv", reg=1.0)
    >>> bool(curve.regs[curve.scores[0].argmax()] == curve.reg)
    True
    """

    regs: Floats
    scores: Floats
    errors: Floats | None
    names: tuple[str, ...]
    criterion: str
    reg: float
    n_points: int | None = None  # earlier files have none

    def __post_init__(self) -> None:
        for name in ("regs", "scores", "errors"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, read_only(getattr(self, name)))
