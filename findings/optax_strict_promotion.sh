#!/usr/bin/env bash
# optax 0.2.8 on JAX 0.12.0.1: Adam cannot be used under JAX's own check of dtypes.
#
# With jax_numpy_dtype_promotion="strict", which users set to find promotions in their code, the
# update of adam raises TypePromotionError for plain float32 parameters: its bias correction mixes an
# int32 step count with a float32 decay. sgd, and what a user writes around both, pass.
#
# Seen: sgd -> ok; adam -> TypePromotionError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.12.0.1
"$folder/env/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_numpy_dtype_promotion", "strict")
parameters = jnp.ones(3, jnp.float32)
found = {}
for name, optimizer in {"sgd": optax.sgd(0.01), "adam": optax.adam(0.01)}.items():
    try:
        optimizer.update(parameters, optimizer.init(parameters), parameters)
        found[name] = "ok"
    except Exception as error:
        found[name] = type(error).__name__
print("optax", optax.__version__, "jax", jax.__version__, found)
assert found == {"sgd": "ok", "adam": "TypePromotionError"}, "changed"
PYTHON
