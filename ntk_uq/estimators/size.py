"""Does a problem fit this machine? Said before the work, in a user's words."""

import numpy as np

from ntk_uq._common import checks
from ntk_uq._common.machine import memory_limit
from ntk_uq._common.words import shown
from ntk_uq.analytic import InfiniteEnsemble
from ntk_uq.likelihoods import Categorical
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.problem import Problem

__all__ = ["problem_of_size", "refuse_too_large"]

_PART = "Fit a part of the points (memory grows with their square), "
_CURES = {
    "gaussian": f'{_PART}or use method="exact", or train a finite ensemble.',
    "exact": f"{_PART}fewer draws, or train a finite ensemble.",
    "in memory": 'Give storage="a directory" on a disk with so much space, in which the kernel '
    'then stands in a file, or storage="processes" on several machines, or take '
    'method="nystrom", which approximates, with fewer n_inducing, fit a part of the points, or '
    "train a finite ensemble.",
}


def refuse_too_large(producer: InfiniteEnsemble, problem: Problem) -> None:
    """Raise an error with a cure if fitting takes more memory than there is."""
    (n, outputs), needed, present = problem.targets.shape, producer.memory(problem), memory_limit()
    if needed <= present:
        return
    in_memory = producer.takes_networks(problem) and producer.storage is None
    cure = "in memory" if in_memory else "gaussian" if producer.method == "gaussian" else "exact"
    raise MemoryError(
        f"{n} training points with {outputs} outputs take {needed / 2**30:.1f} GiB by "
        f"method={producer.method!r}, and this machine has {present / 2**30:.1f} GiB. "
        f"{_CURES[cure]}"
    )


def problem_of_size(
    network: BaseArchitecture,
    reg: float,
    n: int,
    outputs: int,
    n_features: int | tuple[int, ...],
) -> Problem:
    """A problem that takes no memory itself, for what one of its size would take."""
    shape = n_features if isinstance(n_features, tuple) else (n_features,)
    counts = ("n", n, 1), ("outputs", outputs, 1), *(("n_features", size, 0) for size in shape)
    for name, value, least in counts:
        checks.count(name, value, least)
    axes = network.ndim
    if shape != (0,) and axes not in (None, 1 + len(shape)):
        raise ValueError(
            f"{type(network).__name__} takes points with {axes - 1} axes of their own; got "
            f"n_features={shown(n_features)}."
        )
    points, targets = np.broadcast_to(0.0, (n, *shape)), np.broadcast_to(0.0, (n, outputs))
    return Problem(points, targets, Categorical(), reg, None, network)
