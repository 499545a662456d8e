"""Parameters of an estimator's network by name, as searches set them."""

from dataclasses import replace
from typing import Any

from ntk_uq._common.words import shown
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["with_params"]


def with_params(network: Any, params: dict[str, Any]) -> Any:
    """Another architecture, with some parameters of its own.

    Parameters
    ----------
    network : BaseArchitecture or None
        The one that is there.
    params : dict
        Values by name.

    Raises
    ------
    ValueError
        If there is no network, or it has no such parameter.
    """
    if network is None:
        name, value = next(iter(params.items()))
        raise ValueError(
            f"architecture__{name} needs an architecture to change; architecture=None is MLP() on "
            f"standardised features. Give one, architecture=MLP({name}={shown(value)}) for "
            "example, in a pipeline behind StandardScaler() if the features are to be standardised "
            "still."
        )
    known = network.get_params() if isinstance(network, BaseArchitecture) else {}
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise ValueError(
            f"Invalid parameter {unknown[0]!r} for architecture {shown(network)}. "
            f"Valid parameters are: {list(known)!r}."
        )
    return replace(network, **params)
