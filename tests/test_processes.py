"""Processes beside one in which JAX has started: docs/devices, "Several processes"."""

import multiprocessing

import numpy as np
import pytest
from joblib import Parallel, delayed

import ntk_uq as nuq


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_fitted_model_in_a_process_of_its_own(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    X = np.linspace(-1, 1, 12)[:, None]
    model = nuq.NTKClassifier(nuq.MLP(width=8, depth=1), method="gaussian").fit(X, X[:, 0] > 0)
    with multiprocessing.get_context(method).Pool(1) as pool:
        (proba,) = pool.map(model.predict_proba, [X])
    np.testing.assert_allclose(proba, model.predict_proba(X), rtol=1e-9)


@pytest.mark.slow
def test_a_fitted_model_in_processes_of_joblib():
    X = np.linspace(-1, 1, 12)[:, None]
    model = nuq.NTKClassifier(nuq.MLP(width=8, depth=1), method="gaussian").fit(X, X[:, 0] > 0)
    parts = Parallel(n_jobs=2)(delayed(model.predict_proba)(part) for part in (X[:6], X[6:]))
    np.testing.assert_allclose(np.concatenate(parts), model.predict_proba(X), rtol=1e-9)
