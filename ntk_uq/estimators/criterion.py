"""Whether data can choose what they are asked to: an estimator's criterion, and what it tunes."""

from collections.abc import Sequence
from typing import Any

from ntk_uq._common.words import shown
from ntk_uq.estimators.tasks import check_reg
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.kernel_function import KernelFunction

__all__ = ["check_criterion"]

_TUNABLE = ("depth", "embedding", "w_std", "b_std", "scales")


def check_criterion(reg: Any, tune: Any, network: BaseArchitecture, is_given: bool) -> None:
    """Refuse a criterion that is none, and what it cannot choose.

    Parameters
    ----------
    reg, tune
        As an estimator takes them.
    network : BaseArchitecture
        What is tuned.
    is_given : bool
        Whether it is the user's; else None for `reg` is a criterion too.
    """
    if isinstance(tune, str) or not isinstance(tune, Sequence):
        raise ValueError(f'tune takes a tuple of names, ("depth",) for example; got {shown(tune)}.')
    tune = tuple(tune)
    unknown = [name for name in tune if name not in _TUNABLE]
    if unknown:
        raise ValueError(f"tune takes names among {_TUNABLE}; got {shown(unknown[0])}.")
    if reg is None and not is_given and not tune:
        return
    if not isinstance(reg, str):
        if tune:
            raise ValueError(
                f'tune={shown(tune)} needs a criterion: reg="cv", or reg="evidence"; got '
                f"reg={shown(reg)}."
            )
        if reg is not None:
            check_reg(reg)
        return
    if reg not in ("evidence", "cv"):
        raise ValueError(f'reg must be a number, "evidence" or "cv"; got {shown(reg)}.')
    climbed = [name for name in tune if name in ("w_std", "b_std")]
    if reg == "cv" and climbed:
        raise ValueError(
            f'reg="cv" does not tune {climbed[0]}: it is found by a gradient, that of '
            'reg="evidence".'
        )
    if "embedding" in tune and climbed:
        raise ValueError(
            f'tune takes no {climbed[0]} with "embedding"; got {shown(tune)}. Choose the embedding '
            "first, and tune the rest of the architecture_ that it finds."
        )
    _check_tunable(network, tune)


def _check_tunable(network: Any, tune: tuple[str, ...]) -> None:
    of_any: tuple[str, ...] = ("scales", "embedding") if network.ndim == 2 else ("scales",)
    if isinstance(network, KernelFunction):  # nothing is known of its derivatives
        of_any = ()
    missing = [name for name in tune if name not in (*of_any, *network.tunable)]
    if missing:
        raise ValueError(
            f"{type(network).__name__} has no {missing[0]} to tune; an MLP "
            "has depth, w_std and b_std, any architecture can have scales tuned, and one for "
            "tables an embedding of its features."
        )
    if "b_std" in tune and network.b_std == 0:
        raise ValueError("b_std=0 stays 0 on a logarithmic scale: start from 0.1, or so.")
