"""Settings that every test shares."""

import os
from pathlib import Path

import matplotlib

matplotlib.use("agg")

# Most of the time of a test is compilation: workers, subprocesses and later runs share programs.
# JAX reads these when it is imported, which the tests do after this file.
_CACHE = Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
