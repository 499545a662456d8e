#!/usr/bin/env bash
# jax 0.12.0.1: a NumPy array that a jitted function holds in single precision is taken for single in
# double precision as well.
#
# 64-bit types are off by default: a float64 array of NumPy in the closure of a jitted function, which
# hands it to another jitted one, is a float32 constant there. The array itself is not changed. But
# while that function lives, the same object given to device_put within enable_x64 comes back as an
# array that says float64 and holds float32 numbers, and a jitted function of it ends in an error of
# the runtime, a buffer of half the size that its program expects. A copy is taken as it should be.
#
# Seen: copy -> float64; the array itself -> dtype float64, numbers float32; jitted -> JaxRuntimeError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5
JAX_PLATFORMS=cpu "$folder/env/bin/python" - 2>"$folder/errors" <<'PYTHON'
import jax
import numpy as np

total = jax.jit(lambda a, x: a.sum() + x.sum())
held = np.random.default_rng(0).random((2, 66))
function = jax.jit(lambda x: total(held, x))
function(np.ones(3, np.float32))

with jax.enable_x64(True):
    copied, same = jax.device_put(held.copy()), jax.device_put(held)
    try:
        jax.jit(lambda a: a + 0)(held)
        called = "a result"
    except jax.errors.JaxRuntimeError as error:
        called = "RuntimeProgramInputMismatch" if "expected parameter" in str(error) else str(error)

print("jax", jax.__version__)
print("a copy: dtype", copied.dtype, "numbers", np.asarray(copied).dtype)
print("the array: dtype", same.dtype, "numbers", np.asarray(same).dtype)
print("a jitted function of the array:", called)
assert held.dtype == np.float64
assert np.asarray(copied).dtype == np.float64
assert (same.dtype, np.asarray(same).dtype) == (np.float64, np.float32)
assert called == "RuntimeProgramInputMismatch"
PYTHON
