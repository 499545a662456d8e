#!/usr/bin/env bash
# scikit-learn 1.9.1 with pandas 3.1.1: a frame of dates alone is taken as integers, one with a date
# beside a number is refused.
#
# Times are no numbers, and an estimator says so by TypeError where a datetime column stands beside
# a float. Where all columns are datetimes (or timedeltas) it fits without a word: validation turns
# them into counts of the column's unit since 1970, so that the coefficients depend on whether the
# column is stored in seconds or nanoseconds.
#
# Seen: dates beside a float -> TypeError; dates alone -> fitted, the coefficient of dates in
# seconds about 1e9 times that of the same dates in nanoseconds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 pandas==3.1.1
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LinearRegression

days = pd.Series(pd.date_range("2024-01-01", periods=10, freq="D"))
y = np.arange(10.0)
print("scikit-learn", sklearn.__version__, "pandas", pd.__version__)
try:
    LinearRegression().fit(pd.DataFrame({"day": days, "size": y**2}), y)
    beside = "fitted"
except TypeError as error:
    beside = f"TypeError: {str(error)[:60]}"
print("beside a float:", beside)
slopes = {
    unit: LinearRegression().fit(pd.DataFrame({"day": days.astype(f"datetime64[{unit}]")}), y).coef_[0]
    for unit in ("s", "ns")
}
print("alone:", slopes, "ratio", slopes["s"] / slopes["ns"])
assert beside.startswith("TypeError"), "changed: dates beside numbers"
assert abs(slopes["s"] / slopes["ns"] / 1e9 - 1) < 1e-3, "changed: dates alone"
PYTHON
