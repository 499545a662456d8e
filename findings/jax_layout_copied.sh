#!/usr/bin/env bash
# jaxlib 0.12.0.1 on CPUs: an array that is put into another order in memory, so that a matrix
# product can read it as it lies, is copied at every call.
#
# jax.device_put(a, Format(Layout((1, 0, 2)), sharding)) puts the middle axis of a [80, 1000, 2]
# first, and the program that takes it is compiled for that order: its entry has the layout
# {2,0,1}. x @ a.transpose(1, 0, 2).reshape(1000, 160) is then a product with what lies in memory,
# and no more than a bitcast. The program has a transposing copy of all of it all the same, before
# the product, which takes two to three times as long as the product with the flat array [1000, 160];
# jnp.einsum("mi,sic->smc", x, a) has one too. Of a matrix [n, n] in column order, as LAPACK's
# triangular solve takes it, there is none.
#
# Seen: copies in the compiled program, for the array in another order 1 or more, for the flat one
# 0; microseconds of a call with one row 140 to 150 and 46 to 75.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.5.5
cat >"$folder/layout.py" <<'PYTHON'
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout

a = jnp.asarray(np.random.default_rng(0).normal(size=(80, 1000, 2)), jnp.float32)
x = jnp.ones((1, 1000), jnp.float32)
ordered = jax.device_put(a, Format(Layout((1, 0, 2)), a.sharding))
flat = jnp.asarray(np.ascontiguousarray(np.asarray(a).transpose(1, 0, 2)).reshape(1000, 160))


def of_ordered(x, a):
    return x @ a.transpose(1, 0, 2).reshape(1000, 160)


def of_flat(x, a):
    return x @ a


counts = []
for name, function, array in (("ordered", of_ordered, ordered), ("flat", of_flat, flat)):
    program = jax.jit(function)
    text = program.lower(x, array).compile().as_text()
    entry = re.search(r"entry_computation_layout=\{\((.*?)\)->", text).group(1)
    counts.append(len(re.findall(r" copy\(", text)))
    jax.block_until_ready(program(x, array))
    start = time.perf_counter()
    for _ in range(300):
        jax.block_until_ready(program(x, array))
    each = 1e6 * (time.perf_counter() - start) / 300
    print(f"{name}: takes {entry}; {counts[-1]} copies; {each:.0f} microseconds a call")
assert "80,1000,2]{2,0,1}" in jax.jit(of_ordered).lower(x, ordered).compile().as_text()
assert counts[0] >= 1 and counts[1] == 0, counts
PYTHON
"$folder/env/bin/python" "$folder/layout.py"
