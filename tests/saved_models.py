"""Estimators to save, and what a file must keep of them."""

import io
import zipfile

import numpy as np
import small_problem
from sklearn.base import RegressorMixin
from small_problem import NET, X_TEST, X

import ntk_uq as nuq
from ntk_uq.persistence.archive import SEAL, digest_of

RNG, Y = small_problem.RNG, small_problem.TARGET
LABELS = np.array(["no", "perhaps", "yes"])[small_problem.LABELS]
__all__ = ["LABELS", "NET", "RNG", "X_TEST", "X", "Y"]


def fit(cls, options, X=X):
    targets = Y if issubclass(cls, RegressorMixin) else LABELS
    return cls(**options).fit(X, targets)


def round_trip(estimator, tmp_path, **options):
    path = tmp_path / "model.ntk"
    nuq.save(estimator, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.ntk"]
    return nuq.load(path, **options)


def assert_same_predictions(estimator, again, X=X_TEST):
    before, after = estimator.predict_distribution(X), again.predict_distribution(X)
    assert type(before) is type(after)
    for name in ("mean", "cov"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    np.testing.assert_array_equal(estimator.predict(X), again.predict(X))
    if hasattr(estimator, "classes_"):
        np.testing.assert_array_equal(estimator.predict_proba(X), again.predict_proba(X))


def archive(entries, *, compression=zipfile.ZIP_STORED):
    """A file with a good checksum that holds what somebody else wrote."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in entries.items():
            written.writestr(name, content)
        written.comment = SEAL + b"0" * 64
    size = len(file.getvalue()) - 64
    return file.getvalue()[:size] + digest_of(file, size)


def entries_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}
