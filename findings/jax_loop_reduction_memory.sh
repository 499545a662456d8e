#!/usr/bin/env bash
# jaxlib 0.12.0.1 on CPUs: a loop keeps 2.6 kB of every reduction it has done, until the program
# ends, while as many programs run as XLA's pool has threads, one for each core.
#
# On one core a single program is enough: lax.while_loop around jnp.sum of a float64 array
# [128, 3, 32] grows by 127 MB in 50,000 steps and by 254 MB in 100,000; 10^6 steps with ten sums
# each would take 26 GB. On two cores it takes two programs at once, from two Python threads, and
# more than one sum in the loop (one: nothing, eight: 2 GB in 50,000 steps); with one program a
# thread is idle, and clears up. Loops in loops grow as well, but are not needed.
# jax_cpu_enable_async_dispatch and xla_cpu_multi_thread_eigen change nothing.
#
# The reductions are those that XLA gives to YNNPACK ("__ynn_fusion" in the compiled program), if
# large enough to be divided: not of [64, 3, 32], and in float32 of [512, 3, 32] but not of
# [128, 3, 32]. As its source reads, xla/backends/cpu/runtime/ynnpack/slinky_threadpool.cc puts a
# task for each into a queue; a caller that does all of the task itself returns without taking it
# out, and so does no one where no thread of the pool is free.
#
# jaxlib 0.11.1 and 0.11.2 do the same, 0.11.0 does not. Nothing grows without
# YNNPACK: XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= for a process, or
# compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""} of an outermost jax.jit.
#
# Seen: peak memory in MB over that of ten steps, of 20,000 steps with two sums each by one program
# on one thread: 102, of 40,000 203, without YNNPACK 0; on two threads 3. Of 10,000 steps with eight
# sums each by two programs on two threads: 400 three times, 275 once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5
cat >"$folder/grow.py" <<'PYTHON'
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

jax.config.update("jax_enable_x64", True)
programs, sums, steps, ynn = map(int, sys.argv[1:])
options = {} if ynn else {"xla_cpu_experimental_ynn_fusion_type": ""}


@partial(jax.jit, compiler_options=options)
def loop(x, steps):
    def step(state):
        k, x = state
        total = sum(jnp.sum(x * (1 + 1e-3 * i), axis=(0, 1)) for i in range(sums))
        return k + 1, x + 1e-9 * jnp.sin(total)

    return lax.while_loop(lambda state: state[0] < steps, step, (0, x))[1]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


x = jnp.ones((128, 3, 32))
jax.block_until_ready(loop(x, 10))
before = peak()
with ThreadPoolExecutor(programs) as pool:
    list(pool.map(lambda _: jax.block_until_ready(loop(x, steps)), range(programs)))
print(round(peak() - before))
PYTHON
grow() { # threads of XLA's pool, programs at once, sums, steps, with YNNPACK
  PJRT_NPROC=$1 JAX_PLATFORMS=cpu "$folder/env/bin/python" "$folder/grow.py" "${@:2}"
}
one=$(grow 1 1 2 20000 1)
twice=$(grow 1 1 2 40000 1)
idle=$(grow 2 1 2 40000 1)
without=$(grow 1 1 2 40000 0)
two=$(grow 2 2 8 10000 1)
echo "one thread: $one MB, $twice MB in twice the steps, $without MB without YNNPACK"
echo "two threads: $idle MB by one program, $two MB by two with eight sums"
# What two threads do is a race: told, and not asserted.
((one > 50 && twice > 3 * one / 2 && idle < 30 && without < 30)) || { echo "changed"; exit 1; }
