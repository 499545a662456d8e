#!/usr/bin/env bash
# jax 0.12.0.1: with an unknown number of rows a slice of columns becomes a gather.
#
# Indexing picks what it compiles to by the shape. x[:, 1:2] of an array whose sizes are known is one
# slice. When rows are a symbolic dimension, as for jax.export, the same expression is a broadcast and
# a gather, though columns are known and rows are taken whole. Who translates exported programs to
# another format, ONNX for example, meets an operation that no trace with known rows had shown.
# jax.lax.slice_in_dim gives a slice in both.
#
# Seen: known rows -> slice; symbolic rows -> broadcast_in_dim, gather; slice_in_dim -> slice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'PYTHON'
import jax
import numpy as np
from jax import export


def operations(function, shape):
    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, np.float32))
    return [equation.primitive.name for equation in traced.eqns]


def indexed(x):
    return x[:, 1:2]


def sliced(x):
    return jax.lax.slice_in_dim(x, 1, 2, axis=1)


symbolic = export.symbolic_shape("rows, 3")
known, unknown = operations(indexed, (4, 3)), operations(indexed, symbolic)
asked = operations(sliced, symbolic)
print("jax", jax.__version__)
print("known rows:", *known)
print("symbolic rows:", *unknown)
print("symbolic rows, slice_in_dim:", *asked)
assert known == asked == ["slice"]
assert "gather" in unknown
x = np.arange(12, dtype=np.float32).reshape(4, 3)
np.testing.assert_array_equal(jax.jit(indexed)(x), jax.jit(sliced)(x))
PYTHON
