"""What a column is taken for, and what is refused or said."""

import datetime as dt
import importlib.util
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from example_tables import (
    column,
)

from ntk_uq.tables import read_table
from ntk_uq.tables.cells import as_text
from ntk_uq.tables.columns import guess_task, is_categorical, labels, numbers
from ntk_uq.tables.frames import model_frame

N = 24


def test_text_among_numbers():
    few = column(*"123456?8")
    for task in (lambda: is_categorical(few, "t"), lambda: guess_task(few, "t")):
        with pytest.raises(ValueError, match="numbers, and text in some rows: '\\?' in line 8"):
            task()
    sentinel = column(*["-"] * 6, "1.5", "2")
    with pytest.raises(ValueError, match=r"'-' in line 2.*--missing '-'"):
        is_categorical(sentinel, "t")
    drive = column(*["f"] * 4, *["r"] * 3, *["4"] * 2)
    with pytest.warns(
        UserWarning, match="text, and numbers in some rows .'4' in line 9 and 1 more"
    ):
        assert is_categorical(drive, "t")
    with pytest.warns(UserWarning, match="both numbers and text .'4' in line 9 and 1 more"):
        assert set(labels(drive, "t")) == {"f", "r", "4"}


def test_a_stray_cell_makes_no_classes():
    target = column(*[f"{i / 8}" for i in range(30)], "high")
    for refuse in (guess_task, labels):
        with pytest.raises(ValueError, match="text in some rows: 'high' in line 32"):
            refuse(target, "t")


def test_categories_that_differ_in_spelling_are_said():
    for pair in (("Red", "red"), ("2", "2.0"), ("a  b", "a b"), ("é", "e\u0301")):
        with pytest.warns(UserWarning, match="which count as two categories"):
            is_categorical(column(*pair), "t", chosen=True)
    with pytest.warns(UserWarning, match="'yes' and 'Yes', which count as two classes"):
        labels(column("yes", "no", "Yes"), "t")


def test_pandas_categories_stay_categories():
    table = pd.DataFrame({"x": pd.Categorical([1, 2, 3] * 4), "y": list("uuv") * 4})
    assert model_frame(table, "y", "classification", name="t").categorical == ("x",)
    assert guess_task(table["x"], "t") == ("classification", "3 categories")


def test_truth_is_a_category_in_any_dtype():
    for cells in ([True, False], [True, None]):
        for dtype in (object, "boolean"):
            truth = pd.Series(cells, dtype=dtype, name="x")
            assert is_categorical(truth, "t")
            assert guess_task(truth.dropna(), "t") == ("classification", "truth values")
            assert labels(truth.dropna(), "t")[0] == "True"


@pytest.mark.parametrize(
    "ids",
    [range(1, N + 1), range(N, 0, -1), [3 * i * i for i in range(N)],
     np.random.default_rng(0).permutation(N + 9)[:N]],
    ids=["counting", "down", "rising", "shuffled"],
)  # fmt: skip
def test_row_numbers_are_said(ids):
    with pytest.warns(UserWarning, match="'x' of t looks like numbers of the rows"):
        assert not is_categorical(column(*map(str, ids)), "t")


def test_dates_in_digits_are_said():
    days = pd.date_range("2023-12-01", periods=N).strftime("%Y%m%d")
    with pytest.warns(UserWarning, match="holds dates in digits, 20231201"):
        assert not is_categorical(column(*days), "t")


def test_names_of_rows_are_said():
    with pytest.warns(UserWarning, match=r"24 different texts in 24 rows, .*\(--drop x"):
        assert is_categorical(column(*[f"{i} kg" for i in range(N)]), "t")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([dt.date(2024, 1, 1), None], "dates or times"),
        ([dt.time(1), None], "dates or times"),
        ([pd.Timestamp("2024-01-01", tz="UTC")] * 2, "dates or times"),
        (pd.period_range("2024", periods=2, freq="M"), "dates or times"),
        (pd.Categorical(pd.date_range("2024-01-01", periods=2)), "dates or times"),
        ([1 + 2j, 0], "complex numbers"),
        ([{"a": 1}, None], "of the type dict"),
        ([np.ones(2), None], "of the type ndarray"),
    ],
    ids=range(8),
)
def test_types_that_are_neither_numbers_nor_text(cells, message):
    """In a feature, a target, and where numbers are expected; never a count of nanoseconds."""
    odd = pd.Series(cells, name="x")
    for look in (is_categorical, guess_task, labels, numbers):
        with pytest.raises(ValueError, match=f"'x' of t holds .*{message}"):
            look(odd, "t")


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="the extra parquet")
@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_numbers_of_any_type_are_numbers(backend, tmp_path):
    exact = [Decimal("1.50"), None, Decimal("-2")]
    table = pd.DataFrame({"a": [1, None, 3], "b": exact, "c": ["x", None, "y"], "y": list("uvu")})
    table["c"] = table["c"].astype("category")
    table.index.name = "key"
    table.set_axis(["k", "l", "m"]).rename_axis("key").to_parquet(tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert read.columns.tolist() == ["key", "a", "b", "c", "y"]  # a named index is a column
    assert read.index.tolist() == [1, 2, 3]
    for typed in (read, pd.read_parquet(tmp_path / "t.parquet", dtype_backend=backend)):
        assert np.array_equal(
            numbers(typed["a"], "t", missing=True), [1, np.nan, 3], equal_nan=True
        )
        assert not is_categorical(typed["b"], "t")
        assert np.array_equal(
            numbers(typed["b"], "t", missing=True), [1.5, np.nan, -2], equal_nan=True
        )
        assert is_categorical(typed["c"], "t")
        assert as_text(typed["c"]).dropna().tolist() == ["x", "y"]
