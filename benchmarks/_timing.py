"""Timing that a busy machine disturbs least: alternatives take turns, and medians are compared."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from ntk_uq._common.machine import cores
from ntk_uq.datasets import load_dataset, split

# Seconds that a turn takes at least: much more than a clock's grain or a thread's start.
_SHORTEST = 0.1


class Times:
    """Seconds a call of several functions that took turns, [rounds] each."""

    def __init__(self, seconds: dict[str, list[float]]):
        self._seconds = seconds

    def __getitem__(self, name: str) -> float:
        """Median seconds."""
        return float(np.median(self._seconds[name]))

    def ratio(self, slow: str, fast: str, per: float = 1.0) -> str:
        """How many times faster, with the range over rounds: load disturbs a round as a whole."""
        ratios = per * np.divide(self._seconds[slow], self._seconds[fast])
        return f"{np.median(ratios):.3g} ({ratios.min():.3g} to {ratios.max():.3g})"


def take_turns(functions: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """Time each function once a round, after a first call that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(rounds):
        for name, function in functions.items():
            seconds[name].append(_seconds(function))
    return Times(seconds)


def _seconds(function: Callable[[], Any]) -> float:
    """Wall seconds a call, over as many as a turn takes."""
    calls, start, elapsed = 0, time.perf_counter(), 0.0
    while elapsed < _SHORTEST:
        jax.block_until_ready(function())
        calls, elapsed = calls + 1, time.perf_counter() - start
    return elapsed / calls


def square_product(dtype: str, size: int = 2000) -> tuple[Callable[[], Any], float]:
    """A large matrix product, and its floating-point operations: the machine's rate."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a), 2.0 * size**3


def digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Training points [n, 64] and one-hot targets [n, 10] as `ntk-uq compare` takes them."""
    parts = split(load_dataset("digits"), n_train=n)
    return parts.X_train, np.eye(10)[parts.y_train]


def heading(title: str) -> None:
    """Say what is measured, on what."""
    load = psutil.getloadavg()[0]
    print(
        f"\n{title}\n{cores()} CPU cores, load {load:.1f}; medians (range) of rounds taken in turn"
    )
