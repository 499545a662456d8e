#!/usr/bin/env bash
# pandas 3.1.1 with pyarrow 26.0.1: to_numeric fails on a decimal column with a missing value.
#
# Prices come out of Parquet files as decimal128 columns. pd.to_numeric(errors="coerce") is to turn
# any column into numbers, what it cannot turn into NaN. A decimal column in pandas' Arrow dtype it
# returns as objects (the Decimals), and where a value is missing it raises ValueError of a length
# mismatch. .astype("float64[pyarrow]") handles both.
#
# Seen: without a missing value -> object; with one -> ValueError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 pyarrow==26.0.1
"$folder/env/bin/python" - <<'PYTHON'
from decimal import Decimal

import pandas as pd
import pyarrow as pa

dtype = pd.ArrowDtype(pa.decimal128(10, 2))
print("pandas", pd.__version__, "pyarrow", pa.__version__)
found = {}
for name, values in {
    "whole": [Decimal("1.50"), Decimal("2.00")],
    "missing": [Decimal("1.50"), None, Decimal("2.00")],
}.items():
    try:
        found[name] = str(pd.to_numeric(pd.Series(values, dtype=dtype), errors="coerce").dtype)
    except ValueError as error:
        found[name] = f"ValueError: {error}"
    print(f"{name}: {found[name]}")
assert found["whole"] == "object", "changed: without a missing value"
assert found["missing"].startswith("ValueError"), "fixed: with a missing value"
PYTHON
