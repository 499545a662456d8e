#!/usr/bin/env bash
# JAX 0.12.0.1: jnp.asarray of a NumPy array compiles a program, jit(stage), for each shape and
# dtype; jnp.array and jax.device_put of the same array, whose results are equal, compile none.
#
# A function that goes over data of changing length, and hands each part to JAX by jnp.asarray,
# so compiles at every new length, 15 to 20 ms each on one core of a small machine, though nothing
# is computed. One would expect a transfer, as the other two are: asarray promises to do less than
# array, which copies. The compilations show in jax.monitoring and with jax_log_compiles, under a
# name that tells nobody where they come from.
#
# Seen: programs compiled for five lengths: asarray 5, array 0, device_put 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5
"$folder/env/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

compiled = []


def listen(event, seconds, **about):
    if event.endswith("backend_compile_duration"):
        compiled.append(about.get("fun_name"))


jax.monitoring.register_event_duration_secs_listener(listen)
counts = {}
for move in (jnp.asarray, jnp.array, jax.device_put):
    compiled.clear()
    for length in range(3, 8):
        moved = move(np.ones(length, np.float32))
        assert moved.shape == (length,) and float(np.asarray(moved).sum()) == length
    counts[move.__name__] = len(compiled)
    print(move.__name__, len(compiled), sorted(set(compiled)))
assert counts == {"asarray": 5, "array": 0, "device_put": 0}, counts
PYTHON
