"""The No-U-Turn sampler of NumPyro."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray
from numpyro.infer import NUTS

__all__ = ["NoUTurn"]


@dataclass(frozen=True)
class NoUTurn:
    """The No-U-Turn sampler of NumPyro."""

    num_warmup: int
    target_accept_prob: float
    max_tree_depth: int

    def _kernel(self, posterior: Any) -> NUTS:
        return NUTS(
            potential_fn=posterior.potential,
            target_accept_prob=self.target_accept_prob,
            max_tree_depth=self.max_tree_depth,
        )

    def init(self, key: Array, posterior: Any) -> Any:
        """State of a chain before its first transition."""
        key_position, key_kernel = jax.random.split(key)
        start = posterior.start(key_position)
        return self._kernel(posterior).init(key_kernel, self.num_warmup, start)

    def stepper(self, state: Any, posterior: Any) -> Callable:
        """A function from a state to the next one, its position and statistics."""
        kernel = self._kernel(posterior)
        # Before it samples, a kernel must have made a state; the compiler drops this one.
        kernel.init(jax.random.key(0), self.num_warmup, state.z)

        def step(state: Any) -> tuple[Any, Array, dict[str, Array]]:
            state = kernel.sample(state, (), {})
            stats = {
                "diverging": state.diverging,
                "acceptance_rate": state.accept_prob,
                "n_steps": state.num_steps,
                "step_size": state.adapt_state.step_size,
                "energy": state.energy,
                "lp": posterior.log_joint(state.potential_energy),
            }
            return state, state.z, stats

        return step

    def complete(self, stats: dict[str, NDArray]) -> dict[str, NDArray]:
        """Statistics that follow from those recorded."""
        depth = np.ceil(np.log2(stats["n_steps"] + 1)).astype(int)
        return stats | {
            "tree_depth": depth,
            "reached_max_treedepth": depth >= self.max_tree_depth,
        }
