"""The samplers by their names."""

from typing import Any

from ntk_uq.bayes.samplers.interface import Sampler
from ntk_uq.bayes.samplers.laplace import Laplace
from ntk_uq.bayes.samplers.nuts import NoUTurn
from ntk_uq.bayes.samplers.slices import EllipticalSlices
from ntk_uq.bayes.samplers.variational import Variational

__all__ = ["SAMPLERS", "sampler_named", "samplers_of"]

SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler for sampler in (NoUTurn(), EllipticalSlices(), Variational(), Laplace())
}


def samplers_of(kind: type) -> dict[str, Any]:
    """Those of a kind: `Sampler`, `DrawSampler` or `ChainSampler`."""
    return {name: sampler for name, sampler in SAMPLERS.items() if isinstance(sampler, kind)}


def sampler_named(name: Any, asks: str, kind: type = Sampler) -> Any:
    """The sampler of a kind that a name stands for.

    Parameters
    ----------
    name : str
        What was given.
    asks : str
        How a refusal begins, ``sampler must be`` for example.
    kind : type
        As of `samplers_of`.

    Raises
    ------
    ValueError
        If none has the name. The message lists those that there are.
    """
    found = samplers_of(kind)
    if not isinstance(name, str) or name not in found:
        *others, last = (f'"{key}"' for key in found)
        raise ValueError(f"{asks} {', '.join(others)} or {last}; got {name!r}.")
    return found[name]
