"""A network that sees a function of the points, which has no parameters."""

from dataclasses import replace
from typing import Any, Self, cast

from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["BehindInputMap"]


class BehindInputMap(BaseArchitecture):
    """What is the network's own, whatever it sees of the points: for frozen dataclasses.

    Attributes
    ----------
    network : architecture for tables
        What sees the function.
    """

    network: BaseArchitecture

    def __post_init__(self) -> None:
        network = self.network
        if not isinstance(network, BaseArchitecture) or network.ndim not in (2, None):
            raise ValueError(
                f"network must be an architecture that takes tables, as MLP() does; got {network!r}"
            )

    @property
    def holds_functions(self) -> bool:  # type: ignore[override]
        """Whether no file can hold it: as of its network."""
        return self.network.holds_functions

    @property
    def has_closed_form(self) -> bool:  # type: ignore[override]
        """Whether kernels are formulas: as of its network."""
        return self.network.has_closed_form

    @property
    def _standard_normal(self) -> bool:  # type: ignore[override]
        return self.network._standard_normal

    def widened(self, width: int) -> Self | None:
        """The same with a network at least so wide, if that can be widened."""
        network = self.network.widened(width)
        return None if network is None else replace(cast(Any, self), network=network)
