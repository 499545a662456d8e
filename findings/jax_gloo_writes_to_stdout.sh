#!/usr/bin/env bash
# JAX 0.12.0.1 on CPUs, two processes: the first collective writes a line of Gloo to standard output.
#
# What a program prints for others to read (a table, JSON) then begins with "[Gloo] Rank 0 is connected
# to 1 peer ranks...", in every process and past sys.stdout, so that redirect_stdout does not catch it.
# Logs belong on standard error.
#
# Seen: standard output of rank 0 is that line and then the program's own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check jax==0.12.0.1
cat >"$folder/two.py" <<'PYTHON'
import json
import sys

import jax

rank, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
import numpy as np
from jax.experimental import multihost_utils

gathered = multihost_utils.process_allgather(np.array([float(rank)]))
print(json.dumps({"sum": float(gathered.sum()), "jax": jax.__version__}), flush=True)
jax.distributed.shutdown()
PYTHON
port=$("$folder/env/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$folder/env/bin/python" "$folder/two.py" 1 "$port" >/dev/null 2>&1 &
"$folder/env/bin/python" "$folder/two.py" 0 "$port" >"$folder/out" 2>/dev/null
wait
cat "$folder/out"
"$folder/env/bin/python" - "$folder/out" <<'PYTHON'
import json
import sys

lines = open(sys.argv[1]).read().splitlines()
assert json.loads(lines[-1])["sum"] == 1.0, "changed"
assert any("Gloo" in line for line in lines[:-1]), "changed"
PYTHON
