"""When a sum over units is a number: where the law of large numbers holds for what is made of it.

A mean over n units differs from its limit by about 1/sqrt(n), a multiple of the mean by as many
times more. So a sum divided by sqrt(n) is as random as any unit, however wide the network.
"""

import math
from dataclasses import dataclass, replace

__all__ = ["Sum", "combined", "joined"]

# Fluctuations of at most this part of a unit's own are those of a finite width.
_FLUCTUATION = 1 / 4
# Rounding of factors that are given in single precision.
_ROUNDING = 1e-4
# Means over so few units in still more groups: as the width grows, the groups become more.
_FEW = 8


@dataclass(frozen=True)
class Sum:
    """A sum over units, or what was made of it, as a multiple of their mean.

    Attributes
    ----------
    times : float
        What the mean is multiplied by: the number of units at first, 1 after division by it.
    units : int
        Over how many units it is.
    groups : int
        How many sums over other units there are beside it.
    nought : bool
        Whether the mean is 0 in the limit, so that nothing but its fluctuation is left.
    size : float
        What the units were multiplied by before they were summed.
    """

    times: float
    units: int
    groups: int
    nought: bool
    size: float = 1.0

    def multiple(self, factor: float) -> "Sum":
        """Times a number."""
        return replace(self, times=self.times * abs(factor))

    def of_units(self) -> "Sum":
        """The same of units of size 1."""
        return replace(self, times=self.times * self.size, size=1.0)

    def power(self, degree: float) -> "Sum":
        """A power: of a multiple the multiple of a power."""
        times, size = (x**degree if x else 0.0 for x in (self.times, self.size))
        return replace(self, times=times, size=size, nought=self.nought and degree > 0)

    def why_random(self, beside: float = 1.0) -> str | None:
        """Why it is no number, if it is not, beside units that are multiplied by a number."""
        if self.units <= _FEW and self.units < self.groups:
            return (
                f"takes means over {self.units} units each, of {self.groups} groups, for numbers: "
                "of few units they are random"
            )
        most = max(self.units / max(self.units - 1, 1), _FLUCTUATION * math.sqrt(self.units))
        times = self.times * (self.size / beside if beside else 1.0)
        if times <= (1 + _ROUNDING) * most:
            return None
        return (
            f"takes a sum over {self.units} units for a number, which is random if it is not "
            f"divided by {self.units}: it is {times:.4g} times a mean, and fluctuates by "
            f"{times / math.sqrt(self.units):.2g} of what a unit does"
        )


def joined(*sums: Sum | None) -> Sum | None:
    """A sum of several, or a function of them."""
    known = [s for s in sums if s is not None]
    if not known:
        return None
    return Sum(
        max(s.times for s in known),
        min(s.units for s in known),
        max(s.groups for s in known),
        len(known) == len(sums) and all(s.nought for s in known),
        max(s.size for s in known),
    )


def combined(one: Sum | None, other: Sum | None) -> Sum | None:
    """A product of two."""
    both = joined(one, other)
    if one is None or other is None or both is None:
        # A factor that is given for each point changes nothing.
        return one or other
    return replace(
        both,
        times=one.times * other.times,
        size=one.size * other.size,
        nought=one.nought or other.nought,
    )
