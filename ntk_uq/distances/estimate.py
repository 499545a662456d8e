"""A quantity with its Monte-Carlo error, and what this error alone would give."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

# What rounding leaves of a distance of zero between numbers of order one.
ROUNDING = 1e-14


@dataclass(frozen=True)
class Estimate:
    """A quantity that compares two methods, and what Monte-Carlo error makes of it.

    Attributes
    ----------
    value : float
        The estimate.
    se : float
        Its Monte-Carlo standard error, from the finite number of draws of both methods. The test
        points count as given: how the value varies over other test points is not in it.
    noise : float
        The value to expect if both methods had the same distribution and differed by Monte-Carlo
        error only: less where their draws share random numbers.
    moves : {"up", "down", "either"}
        Where a difference moves the value from `noise`.

    Examples
    --------
    >>> from ntk_uq.distances import Estimate
    >>> Estimate(value=0.05, se=0.01, noise=0.02).is_significant
    True
    """

    value: float
    se: float
    noise: float
    moves: Literal["up", "down", "either"] = "up"

    @property
    def is_significant(self) -> bool:
        """Whether the value is further from `noise` than two standard errors, and than rounding."""
        excess = self.value - self.noise
        if self.moves == "either":
            excess = abs(excess)
        rounding = 100 * ROUNDING * max(abs(self.value), abs(self.noise))
        return (-excess if self.moves == "down" else excess) > 2 * self.se + rounding


UNKNOWN = Estimate(np.nan, np.nan, np.nan)
