"""Labelled tables: those that scikit-learn ships, and files; and their split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ntk_uq._common.words import in_a_line
from ntk_uq.tables.frames import model_frame, typed
from ntk_uq.tables.places import abridged, check_columns
from ntk_uq.tables.reading import decimal_points, read_table

__all__ = ["SHIPPED", "Dataset", "Split", "load_dataset", "split"]

_DESCRIPTIONS = {
    "digits": "8 × 8 images of handwritten digits",
    "iris": "flowers of three species of iris, four measures each",
    "wine": "chemical analyses of wines of three cultivars",
    "breast_cancer": "cell nuclei in images of breast tissue, two diagnoses",
}
SHIPPED = tuple(_DESCRIPTIONS)


@in_a_line
@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled table.

    Attributes
    ----------
    name, description : str
        What it is.
    X : array of shape [n, d], or DataFrame
        Features; of a file as numbers, and text for categories, with gaps.
    y : array of shape [n]
        Labels, integers or strings.
    images : array of shape [n, height, width] or None
        The rows as pictures, where they are some.
    """

    name: str
    description: str
    X: NDArray[np.float64] | pd.DataFrame
    y: NDArray
    images: NDArray[np.float64] | None = None


@in_a_line
@dataclass(frozen=True, eq=False)
class Split:
    """Training and test part of a `Dataset`; features in units of the training part."""

    X_train: NDArray[np.float64]
    X_test: NDArray[np.float64]
    y_train: NDArray
    y_test: NDArray
    images_test: NDArray[np.float64] | None


def load_dataset(
    source: str,
    target: str | None = None,
    *,
    separator: str | None = None,
    decimal: str = ".",
    missing: Sequence[str] = (),
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
) -> Dataset:
    """Load one of scikit-learn's classification tables, or a CSV or Parquet file.

    Parameters
    ----------
    source : str
        ``"digits"``, ``"iris"``, ``"wine"``, ``"breast_cancer"``, or the path of a CSV file with a
        header line, or of a Parquet file. All columns of the file but the target are features:
        numbers, categories and gaps, as in `ntk_uq.tables.fit_table`.
    target : str, optional
        Column of the file that holds the classes: integers or text.
    separator, missing
        As in `ntk_uq.tables.read_table`.
    decimal : {".", ","}
        What stands before the decimals of numbers in the file.
    drop, categorical : sequence of str
        As in `ntk_uq.tables.fit_table`.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If there is no such table or file, or it cannot be used; the message names column and
        line.

    Warns
    -----
    UserWarning
        As in `ntk_uq.tables.fit_table`.

    Examples
    --------
    >>> from ntk_uq.datasets import load_dataset
    >>> wine = load_dataset("wine")
    >>> wine.X.shape, wine.y[:2]
    ((178, 13), array(['class_0', 'class_0'], dtype='<U7'))
    """
    if source in SHIPPED:
        if target is not None:
            raise ValueError(f"{source} has its own target: leave out target={target!r}.")
        if separator is not None or decimal != "." or missing or drop or categorical:
            raise ValueError(f"{source} is no file: leave out how it should be read.")
        return _load_shipped(source)
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{source} is neither a file nor one of {', '.join(SHIPPED)}.")
    table = read_table(path, separator=separator, missing=missing)
    if target is None:
        raise ValueError(
            f"Name the column of {path} that holds the classes with target (--target at the "
            f"shell): {abridged(table.columns)}."
        )
    check_columns(table, [target, *drop, *categorical], str(path))
    if decimal == ",":
        as_written = {target, *drop, *categorical}
        table = decimal_points(table, table.columns.drop(list(as_written)), str(path))
    frame = model_frame(
        table, target, "classification", drop=drop, categorical=categorical, name=str(path)
    )
    return Dataset(
        name=path.name,
        description=f"{len(table):,} rows, target {target!r}",
        X=typed(frame.features, frame.categorical),
        y=frame.y,
    )


def split(dataset: Dataset, *, n_train: int, n_test: int | None = None, seed: int = 0) -> Split:
    """Split at random, with the classes in equal proportions, and standardise the features.

    Parameters
    ----------
    dataset : Dataset
        The table.
    n_train : int
        Training points.
    n_test : int, optional
        Test points; by default all that are left.
    seed : int
        Seed of the split.

    Returns
    -------
    Split
        Features less their mean and divided by their standard deviation over the training points;
        those of a file as `TableEncoder` makes them, learnt from the training points.

    Raises
    ------
    ValueError
        If there are not points enough, of each class and in all.

    Examples
    --------
    >>> from ntk_uq.datasets import load_dataset, split
    >>> split(load_dataset("iris"), n_train=30).X_test.shape
    (120, 4)
    """
    n = len(dataset.y)
    labels, counts = np.unique(dataset.y, return_counts=True)
    if len(labels) < 2:
        raise ValueError(
            f"{dataset.name} holds one class only ({labels[0]!s}): there is nothing to tell apart."
        )
    if counts.min() < 2:
        raise ValueError(
            f"Class {labels[counts.argmin()]!s} of {dataset.name} has one row only, and cannot be "
            "in both the training and the test part. Leave it out, or join it to another."
        )
    if not len(labels) <= n_train <= n - len(labels):
        raise ValueError(
            f"{n_train} training points are asked for, but {dataset.name} has {n} rows and "
            f"{len(labels)} classes: choose between {len(labels)} and {n - len(labels)}, so that "
            "each class can be in both parts."
        )
    if n_test is not None and not len(labels) <= n_test <= n - n_train:
        raise ValueError(
            f"{n_test} test points are asked for, but {n_train} of {n} rows are for training: "
            f"choose between {len(labels)} and {n - n_train}."
        )
    # Here, as a mistake in a file should not wait for it.
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    from ntk_uq.tables.encoder import TableEncoder

    train, test = train_test_split(
        np.arange(n), train_size=n_train, test_size=n_test, stratify=dataset.y, random_state=seed
    )
    encoder: Any
    if isinstance(dataset.X, pd.DataFrame):
        encoder, X_train, X_test = TableEncoder(), dataset.X.iloc[train], dataset.X.iloc[test]
    else:
        encoder, X_train, X_test = StandardScaler(), dataset.X[train], dataset.X[test]
    return Split(
        X_train=encoder.fit(X_train).transform(X_train),
        X_test=encoder.transform(X_test),
        y_train=dataset.y[train],
        y_test=dataset.y[test],
        images_test=None if dataset.images is None else dataset.images[test],
    )


def _load_shipped(name: str) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return Dataset(
        name=name,
        description=_DESCRIPTIONS[name],
        X=np.asarray(bunch.data, dtype=np.float64),
        y=np.asarray(bunch.target_names)[bunch.target],
        images=getattr(bunch, "images", None),
    )
