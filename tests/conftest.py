"""Settings that every test shares."""

import ctypes
import gc
import os
import sys
from pathlib import Path

import matplotlib
import psutil
import pytest

from ntk_uq._common.machine import cores, free_memory

matplotlib.use("agg")

# Most of the time of a test is compilation: workers, subprocesses and later runs share programs.
# JAX reads these when it is imported, which the tests do after this file.
_CACHE = Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Unoptimised programs compile in under half the time, and round in another way than those of
# users: `make slow` and the pages run the latter.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# What a worker takes at most, programs that it has compiled included.
_WORKER_BYTES = 2 * 2**30
# Above this it forgets them.
_MANY_BYTES = 1.6 * 2**30
# More of them would compile the same programs side by side.
_MOST_WORKERS = 4


def pytest_xdist_auto_num_workers() -> int:
    """As many as cores carry and memory holds: on a laptop with 8 cores and 8 GB, three or so."""
    return max(1, min(cores(), free_memory() // _WORKER_BYTES, _MOST_WORKERS))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test's cases the default run takes a few, evenly spread: the others are slow."""
    cases = {}
    for item in items:
        if item.get_closest_marker("cases"):
            cases.setdefault((item.module, item.originalname), []).append(item)
    for group in cases.values():
        (most,) = group[0].get_closest_marker("cases").args
        chosen = {i * len(group) // most for i in range(most)}
        for i, item in enumerate(group):
            if i not in chosen:
                item.add_marker("slow")


@pytest.fixture(autouse=True)
def _precision(request):
    """Double where a test, or its file, is marked so: its oracle is exact to rounding."""
    if request.node.get_closest_marker("double_precision") is None:
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _forgotten_programs():
    """A worker that has grown forgets its programs after a test: they are most of its memory."""
    yield
    if "jax" in sys.modules and psutil.Process().memory_info().rss > _MANY_BYTES:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if sys.platform == "linux":  # glibc keeps what is freed in small pieces
            getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
