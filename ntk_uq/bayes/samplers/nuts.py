"""The No-U-Turn sampler of NumPyro."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from numpyro.infer import NUTS

from ntk_uq._common.coordinates import Preconditioned
from ntk_uq.bayes.posterior import Whitened
from ntk_uq.bayes.samplers.interface import ChainSampler, StepSeconds

if TYPE_CHECKING:
    from ntk_uq.bayes.convergence import Diagnostics

__all__ = ["NoUTurn"]

# For estimates: step size x d^(1/4), measured as 0.8 to 1.5 for d = nC from 40 to 12,000.
_STEP_SIZE = 1.0


@dataclass(frozen=True)
class NoUTurn(ChainSampler):
    """The No-U-Turn sampler of NumPyro.

    Attributes
    ----------
    num_warmup : int
        Draws in which step size and mass matrix adapt.
    target_accept_prob : float
        Mean acceptance probability that the step size is adapted to.
    max_tree_depth : int
        A trajectory has at most 2**max_tree_depth - 1 steps.
    """

    num_warmup: int = 500
    target_accept_prob: float = 0.8
    max_tree_depth: int = 10

    name: ClassVar[str] = "nuts"
    title: ClassVar[str] = "NUTS"
    steps_statistic: ClassVar[str] = "n_steps"

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

    def coordinates(self, posterior: Whitened) -> Whitened | Preconditioned:
        """The posterior in the coordinates that NUTS is faster in.

        Softmax couples the outputs, and coordinates common to them, which a factor of size n
        allows, do not fit well: in effective samples a second they gain at n = 100, and lose at
        n = 300.
        """
        prior, targets, likelihood = posterior
        if not prior.linear:
            return posterior
        curvature = jax.eval_shape(
            likelihood.curvature, jnp.zeros(targets.shape, prior.factor.dtype), targets
        )
        if curvature.direction is not None:
            return posterior
        return Preconditioned.create(prior.factor, targets, likelihood)

    def draw_cost(self, step: StepSeconds) -> tuple[int, float]:
        """Leapfrog steps of one draw, half a period in the next full tree, and seconds of each."""
        step_size = _STEP_SIZE * step.dimension**-0.25
        return 2 ** math.ceil(math.log2(math.pi / step_size + 1)) - 1, step.gradient

    def work(self, diagnostics: "Diagnostics") -> dict[str, str]:
        """What the draws took and where they fell short, figures in words by their headings."""
        return {
            "Divergent draws": f"{diagnostics.n_divergent:,}",
            "Draws cut short": f"{diagnostics.n_max_treedepth:,} reached the greatest tree depth",
            "Work": f"{diagnostics.steps_per_draw:.0f} leapfrog steps a draw, mean acceptance "
            f"probability {diagnostics.acceptance_rate:.2f}",
        }
