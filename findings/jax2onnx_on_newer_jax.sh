#!/usr/bin/env bash
# jax2onnx 0.13.0 and 0.17.1 beside JAX 0.12.0.1, which their metadata admit: what is jitted is not exported.
#
# Requirements give a lower bound of jax alone, so that an installer puts either release beside the
# newest JAX without a word. A plain function of one operation is exported; with jax.jit around it, or
# around anything that it calls, the export ends in an AttributeError for a name that JAX took away.
#
# Seen, both releases: plain -> exported; jitted -> AttributeError ... ClosedJaxpr.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.13.0 0.17.1; do
  "${PYTHON:-python3}" -m venv --clear "$folder/env"
  "$folder/env/bin/pip" install --quiet --disable-pip-version-check "jax2onnx==$version" jax==0.12.0.1
  # Of plugins that it skips it prints tracebacks.
  "$folder/env/bin/python" - "$version" 2>/dev/null <<'PYTHON'
import sys

import jax
from jax2onnx import to_onnx


def outcome(function):
    try:
        to_onnx(function, [("B", 2)])
        return "exported"
    except AttributeError as error:
        return f"AttributeError: {error}"


found = outcome(lambda x: x + 1.0), outcome(jax.jit(lambda x: x + 1.0))
print("jax2onnx", sys.argv[1], "jax", jax.__version__, "plain:", found[0], "jitted:", found[1])
assert found[0] == "exported" and found[1].startswith("AttributeError"), "changed"
assert "ClosedJaxpr" in found[1], "changed"
PYTHON
done
