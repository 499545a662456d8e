"""Markov chains, one thread each, that are heard when interrupted."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from ntk_uq._common.machine import cores
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.bayes.posterior import Floats

__all__ = ["THREAD_NAMES", "Chains", "run_chains"]

# Draws between two looks at the interrupt flag and two reports of progress: at most so many, and
# where they are slow as many as take about so long. The last block of a chain is cut to length.
_BLOCK, _BLOCK_SECONDS = 20, 1.0
_REPORT_SECONDS = 0.1
# For so long an interrupt waits for chains to end; one in a longer draw ends by itself after it.
_PATIENCE_SECONDS = 3.0
# How names of their threads begin.
THREAD_NAMES = "ntk_uq chain"


class Chains(NamedTuple):
    """Draws [chain, draw, ...] and what they took."""

    whitened: Floats
    latents: Floats
    sample_stats: Mapping[str, NDArray]
    seconds: float


@partial(jax.jit, static_argnames="sampler")
def _start(key: Array, posterior: Any, sampler: Any) -> Any:
    return sampler.init(key, posterior)


@partial(jax.jit, static_argnames="sampler")
def _advance(state: Any, posterior: Any, sampler: Any, count: Array) -> Any:
    """Make `count` draws of a block: the new state, and (z, f, statistics) of each."""
    step = sampler.stepper(state, posterior)

    def draw(state: Any) -> tuple[Any, tuple]:
        state, position, stats = step(state)
        return state, (*posterior.outcome(position), stats)

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(draw, state)[1])
    return lax.scan(
        lambda state, i: lax.cond(i < count, draw, lambda state: (state, nothing), state),
        state,
        jnp.arange(_BLOCK),
    )


def run_chains(
    key: Array,
    posterior: Any,
    sampler: Any,
    *,
    num_warmup: int,
    num_samples: int,
    num_chains: int,
    progress: Progress | None,
    double: bool,
) -> Chains:
    """Run the chains, one thread each; JAX lets go of the interpreter while it computes.

    Parameters
    ----------
    key : Array
        PRNG key. Chain i uses ``fold_in(key, i)``.
    posterior : Whitened or Preconditioned
        What is sampled.
    sampler : samplers.ChainSampler
        How.
    num_warmup, num_samples, num_chains : int
        Draws that are dropped and kept, of each chain, and chains.
    progress : callable or None
        ``progress(done, total)`` is told draws over all chains, warm-up included.
    double : bool
        Whether chains run in double precision.
    """
    length = num_warmup + num_samples
    drawn = [0] * num_chains
    stop = threading.Event()

    def run_chain(index: int) -> Any:
        # JAX's settings are a thread's own, so every thread makes them.
        with own_rules(), jax.enable_x64(double):
            state = _start(jax.random.fold_in(key, index), posterior, sampler)
            kept = []
            count = 1
            while drawn[index] < length:
                if stop.is_set():
                    return None
                last = min(length - drawn[index], count)
                begin = time.perf_counter()
                state, block = jax.block_until_ready(
                    _advance(state, posterior, sampler, jnp.asarray(last))
                )
                per_draw = (time.perf_counter() - begin) / last
                count = int(np.clip(_BLOCK_SECONDS / per_draw, 1, _BLOCK))
                # Draws of this block past the warm-up.
                first = max(num_warmup - drawn[index], 0)
                if first < last:
                    kept.append(
                        jax.tree.map(lambda x, s=slice(first, last): np.asarray(x)[s], block)
                    )
                drawn[index] += last
            return jax.tree.map(lambda *parts: np.concatenate(parts), *kept)

    start = time.perf_counter()
    pool = ThreadPoolExecutor(min(num_chains, cores()), THREAD_NAMES)
    chains = [pool.submit(run_chain, index) for index in range(num_chains)]
    try:
        running = set(chains)
        while running:
            ended, running = wait(running, _REPORT_SECONDS, return_when=FIRST_EXCEPTION)
            for chain in ended:
                chain.result()
            if progress is not None:
                progress(sum(drawn), num_chains * length)
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        pool.shutdown(wait=not wait(chains, _PATIENCE_SECONDS).not_done)
    whitened, latents, stats = jax.tree.map(
        lambda *parts: np.stack(parts), *(chain.result() for chain in chains)
    )
    return Chains(whitened, latents, sampler.complete(stats), time.perf_counter() - start)
