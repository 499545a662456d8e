"""Save a fitted estimator to a file, and read it."""

import json
import os
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ntk_uq._common.files import ARCHIVE_ERRORS, check_folder, write_result
from ntk_uq._common.versions import versions
from ntk_uq._common.warnings import warn_once, warn_user
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.persistence.archive import TREE, RefusedError, stored, write_archive
from ntk_uq.persistence.card import card_of, innermost
from ntk_uq.persistence.classes import name_of
from ntk_uq.persistence.supplied import as_saved, check_architecture, check_fingerprint
from ntk_uq.persistence.tree import Reader, Writer

__all__ = ["read", "save"]

# Changes when a file of this version could be misread by the one before.
FORMAT_VERSION = 1

# What reading a file can raise whose checksum is right and whose content is not ours: one that
# somebody made.
_MALFORMED = (
    *ARCHIVE_ERRORS, TypeError, IndexError, AttributeError, NotImplementedError, RecursionError,
    ImportError,
)  # fmt: skip


@warn_once()
def save(
    estimator: Any,
    path: str | os.PathLike,
    *,
    data: bool = True,
    held_out: tuple[Any, Any] | None = None,
) -> None:
    """Save a fitted estimator to a file.

    Parameters
    ----------
    estimator : estimator
        Any estimator of this package, fitted; a scikit-learn ``Pipeline`` that ends in one, whose
        steps are `TableEncoder`, ``ColumnTransformer``, ``SimpleImputer``, ``OneHotEncoder``,
        ``OrdinalEncoder`` or one of the scalers; or a `tables.TableModel`.
    path : path
        The file, ``model.ntk`` for example. It is written under another name and then renamed: a
        file that was there stays as it was until the new one is whole. Of several processes of
        `jax.distributed` the first writes it, and the others go on.
    data : bool, default True
        False leaves out all that belongs to single training points, for a file that goes where the
        data may not. Only finite ensembles predict without them; what is learnt of all points stays
        in the file: scales and ranges of features, categories, and the networks; and a SHA-256 sum
        of the data, which identifies them to whoever has them.
    held_out : (X, y), optional
        Points and targets that were held out of the fit, and of all choices. The card of the file
        (``ntk-uq info``) then says, group by group, how often the predicted class is right, or
        intervals of 90% hold the target (`calibration_of_classes`, `calibration_of_intervals`). The
        points themselves are not saved. They are compared with the data of the fit by its sum, and
        row by row with the training points, where the model holds these.

    Raises
    ------
    ValueError
        If the estimator is not fitted, or holds something that is no data, such as a function; the
        message says what. With ``data=False``, if it predicts from its training points. If
        `held_out` are the data of the fit, row by row.
    TypeError
        If the second argument is no path, but the estimator for example.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If the estimator has an `optimizer`: it is left out, and must be set again before another
        `fit`. An architecture of your own is left out too, and given to `load`.
        If rows of `held_out` have the features of training points that the model holds.

    Examples
    --------
    >>> import tempfile
    >>> import ntk_uq as nuq
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = nuq.NTKClassifier(reg=1.0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nuq.save(clf, f"{folder}/iris.ntk")
    ...     again = nuq.load(f"{folder}/iris.ntk")
    >>> bool((again.predict_proba(X) == clf.predict_proba(X)).all())
    True
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"nuq.save(estimator, path) takes a file's path second; got {type(path).__name__}."
        )
    path = Path(path)
    if held_out is not None and not (isinstance(held_out, tuple | list) and len(held_out) == 2):
        raise ValueError(f"held_out takes a pair (X, y); got {type(held_out).__name__}.")
    check_folder(path)
    writer = Writer(data)
    model = writer.encode(_check_saved(estimator), type(estimator).__name__)
    if writer.left_out_optimizer:
        warn_user(
            "The optimizer is made of functions and is left out of the file. Predictions need "
            "none; before another fit of what is loaded, set it: set_params(optimizer=...).",
        )
    tree = {
        "format": "ntk_uq model",
        "version": FORMAT_VERSION,
        "written by": versions("jax", "numpy", "scikit-learn"),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "card": card_of(estimator, data, held_out),
        "architecture": writer.architecture,
        "model": model,
    }
    write_result(path, lambda file: write_archive(file, tree, writer.arrays))


def read(file: IO[bytes], path: Path, architecture: BaseArchitecture | None) -> Any:
    """What an open file holds that is whole: the second half of `load`."""
    try:
        with zipfile.ZipFile(file) as archive:
            tree = json.loads(stored(archive, TREE).read())
            if tree["version"] > FORMAT_VERSION:
                raise RefusedError(
                    f"{path} has the format {tree['version']}, of ntk_uq "
                    f"{tree['written by']['ntk_uq']}; this is {versions()['ntk_uq']}, which "
                    f"reads up to {FORMAT_VERSION}. Install a newer ntk_uq."
                )
            kind = tree.get("card", {}).get("network", {}).get("kind")
            check_architecture(tree["architecture"], architecture, path, kind)
            reader = Reader(archive, architecture)
            if tree["architecture"] is not None:
                recorded = reader.decode(tree["architecture"])
                reader.architecture = as_saved(recorded, architecture, path)
                check_fingerprint(recorded, reader.architecture, path)
            model = reader.decode(tree["model"])
            _warn_of_versions(tree["written by"], path)
            _check_loaded(model)
            held_out = tree.get("card", {}).get("calibration")
            if held_out is not None and not hasattr(model, "held_out"):
                innermost(model)._held_out = held_out
            return model
    except RefusedError as refused:
        raise ValueError(str(refused)) from None
    except _MALFORMED as error:
        raise ValueError(
            f"{path} holds no model that this ntk_uq {versions()['ntk_uq']} can read "
            f"({type(error).__name__}: {error}). It was not written by nuq.save, or by a "
            "newer version."
        ) from error


def _warn_of_versions(written_by: Mapping[str, str], path: Path) -> None:
    there, here = written_by["scikit-learn"], versions("scikit-learn")["scikit-learn"]
    if there.split(".")[:2] != here.split(".")[:2]:
        warn_user(
            f"{path} was written with scikit-learn {there}; this is {here}, which may understand "
            "its steps in another way. Compare a few predictions, or fit again.",
        )


def _check_saved(estimator: Any) -> Any:
    final = _final_step(estimator)
    known = name_of(type(final)) is not None and isinstance(final, BaseEstimator)
    if not (known and type(final).__module__.startswith("ntk_uq.")):
        raise ValueError(
            f"nuq.save takes a fitted estimator of ntk_uq, or a Pipeline that ends in one; got "
            f"{type(final).__name__}."
        )
    if isinstance(estimator, BaseEstimator):
        check_is_fitted(estimator)
    return estimator


def _check_loaded(model: Any) -> Any:
    """The same for what a file holds."""
    try:
        return _check_saved(model)
    except ValueError as error:
        raise ValueError(f"it holds {type(model).__name__}") from error


def _final_step(model: Any) -> Any:
    if name_of(type(model)) == "ntk_uq.tables.TableModel":
        model = model.pipeline
    steps = getattr(model, "steps", None)
    return steps[-1][1] if isinstance(steps, list) and steps else model
