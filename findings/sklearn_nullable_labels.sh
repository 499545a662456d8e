#!/usr/bin/env bash
# scikit-learn 1.9.1 with pandas 3.1.1: labels in pandas' nullable integers come back as floats.
#
# A classifier's `classes_` and predictions have the values of the labels, and their type: of a
# Series of dtype int64 they are integers, of one of dtype string strings. Of dtype Int64 without a
# missing value, which read_csv(dtype_backend="numpy_nullable") gives, they are float64, and of
# dtype boolean 0.0 and 1.0, so that predictions of the same table print as 1.0 in place of 1 or
# True.
#
# Seen: Int64 -> [0. 1. 2.] float64; boolean -> [0. 1.] float64; int64 -> [0 1 2] int64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 pandas==3.1.1
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LogisticRegression

X = np.random.default_rng(0).normal(size=(12, 2))
labels = {
    "int64": pd.Series([0, 1, 2] * 4, dtype="int64"),
    "Int64": pd.Series([0, 1, 2] * 4, dtype="Int64"),
    "boolean": pd.Series([False, True] * 6, dtype="boolean"),
}
found = {name: LogisticRegression().fit(X, y).classes_ for name, y in labels.items()}
print("scikit-learn", sklearn.__version__, "pandas", pd.__version__)
for name, classes in found.items():
    print(f"{name}: {classes} {classes.dtype}")
assert found["int64"].dtype == np.int64
assert found["Int64"].dtype == np.float64, "fixed: Int64 labels keep their type"
assert found["boolean"].dtype == np.float64, "fixed: boolean labels keep their type"
PYTHON
