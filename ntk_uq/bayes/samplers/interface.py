"""What a sampler says of itself: everything that differs from one to another is asked of it."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from jax import Array
from numpy.typing import NDArray

from ntk_uq._common.leaves import as_numpy
from ntk_uq._common.machine import cores
from ntk_uq._common.progress import Progress
from ntk_uq.bayes.chains import run_chains
from ntk_uq.bayes.posterior import PosteriorDraws, Whitened
from ntk_uq.bayes.priors import in_double

if TYPE_CHECKING:
    from ntk_uq.bayes.convergence import Diagnostics

__all__ = ["ChainSampler", "DrawSampler", "Sampler", "StepSeconds"]


class StepSeconds(NamedTuple):
    """What a problem costs a sampler, on an ordinary CPU core.

    Attributes
    ----------
    dimension : int
        Whitened variables.
    gradient, likelihood : float
        Seconds of one gradient of the potential, and of one evaluation of the likelihood.
    """

    dimension: int
    gradient: float
    likelihood: float


@dataclass(frozen=True)
class Sampler(abc.ABC):
    """A way to the posterior. Its fields are its settings.

    Attributes
    ----------
    name : str
        By which it is asked for, and which draws and files hold.
    title : str
        In sentences and at progress bars.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def tuned(self, **settings: Any) -> Self:
        """The sampler with those settings of a function that it has; None leaves its own."""
        given = {name for name, value in settings.items() if value is not None}
        own = {field.name for field in fields(self)}
        return replace(self, **{name: settings[name] for name in own & given})


@dataclass(frozen=True)
class DrawSampler(Sampler):
    """A sampler whose result are draws.

    They are independent draws from an approximation, unless it is a `ChainSampler`.
    """

    @abc.abstractmethod
    def draw(
        self,
        key: Array,
        posterior: Whitened,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int,
        progress: Progress | None = None,
    ) -> PosteriorDraws:
        """Draws in the shape [num_chains, num_samples]."""

    @abc.abstractmethod
    def cost(
        self, step: StepSeconds, *, num_warmup: int, num_samples: int, num_chains: int
    ) -> tuple[int, float]:
        """Steps in all, and wall seconds."""


@dataclass(frozen=True)
class ChainSampler(DrawSampler):
    """Markov chains, right in the limit of many draws.

    Attributes
    ----------
    steps_statistic : str
        The statistic that counts the work of a draw.
    moves_further : str or None
        Name of the sampler to use where chains have not mixed.
    """

    steps_statistic: ClassVar[str]
    moves_further: ClassVar[str | None] = None

    @abc.abstractmethod
    def init(self, key: Array, posterior: Any) -> Any:
        """State of a chain before its first transition."""

    @abc.abstractmethod
    def stepper(self, state: Any, posterior: Any) -> Callable[[Any], tuple[Any, Array, dict]]:
        """A function from a state to the next one, its position and statistics."""

    def complete(self, stats: dict[str, NDArray]) -> dict[str, NDArray]:
        """Statistics that follow from those recorded."""
        return stats

    def coordinates(self, posterior: Whitened) -> Any:
        """The posterior in the coordinates in which this sampler is at its best."""
        return posterior

    @abc.abstractmethod
    def draw_cost(self, step: StepSeconds) -> tuple[int, float]:
        """Steps of one draw, and seconds of one step."""

    @abc.abstractmethod
    def work(self, diagnostics: "Diagnostics") -> dict[str, str]:
        """What the draws took and where they fell short, figures in words by their headings."""

    def draw(
        self,
        key: Array,
        posterior: Whitened,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int,
        progress: Progress | None = None,
    ) -> PosteriorDraws:
        """Draws of chains that run in parallel, one thread each: [num_chains, num_samples]."""
        chains = run_chains(
            key,
            self.coordinates(posterior),
            self.tuned(num_warmup=num_warmup),
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            progress=progress,
            double=in_double(posterior.prior),
        )
        return PosteriorDraws(as_numpy(posterior.prior), *chains, self.name)

    def cost(
        self, step: StepSeconds, *, num_warmup: int, num_samples: int, num_chains: int
    ) -> tuple[int, float]:
        """Steps in all, and wall seconds; chains run in parallel."""
        per_draw, seconds = self.draw_cost(step)
        n_steps = num_chains * (num_warmup + num_samples) * per_draw
        return n_steps, n_steps / min(num_chains, cores()) * seconds
