"""Numbers in another notation, codes with leading zeros, and what is a category all the same."""

import re

import pandas as pd
import pytest
from example_tables import column

from ntk_uq.tables.columns import guess_task, is_categorical, labels, numbers

N = 24


DATES = ["2024/01/01", "01-01-2024", "01 Jan 2024", "2024.01.01", "2024-01", "2024-01-01",
         "2024-01-01 10:00", "2024-01-01T10:00:00Z", "2024-01-01 00:00:00+00:00", "1.2.2024",
         "01.02.24", "12/31/1999", "1/2/2024 3:04 PM", "Jan 1, 2024", "January 2024", "Jan-24",
         "1. März 2024", "Mon, 01 Jan 2024", "2024Q1", "2024-W05", "01/2024",
         "12:30:05"]  # fmt: skip
NOTATIONS = {
    "1,5": "a comma: .* --decimal , ", "1,200": "a comma: .* write the number without",
    "1,200.50": "thousands", "1.234,56": "thousands", "1 200": "thousands", "1'200": "thousands",
    "1\u00a0234": "thousands", "1.234.567": "thousands", "$12": "currency or per cent",
    "12 €": "currency", "-$1,200.5": "currency", "5%": "currency or per cent", "5 %": "per cent",
    "(12)": "negative number", "12-": "negative number", "\u22125": "negative number",
    "1.5D+03": "another exponent",
} | dict.fromkeys(DATES, "a date or time: make a number of it")  # fmt: skip
CATEGORIES = ["18-24", "55+", "1st", "36 months", "Market 12", "A1", "10.0.1", "12a", "Q1", "4wd",
              "1990-1999", "red, blue", "3-5", "<5", "Monday", "May", "250g", "1/2"]  # fmt: skip


@pytest.mark.parametrize("cell", NOTATIONS)
def test_other_notations_are_refused_and_explained(cell):
    message = f"'x' of t.csv .*{re.escape(repr(cell))} in line 4, which is .*{NOTATIONS[cell]}"
    amounts = column("3", None, cell, cell, "4", lines=[2, 3, 4, 7, 8])
    with pytest.raises(ValueError, match=message + ".*--categorical x.*--drop x"):
        is_categorical(amounts, "t.csv")
    with pytest.raises(ValueError, match=message + ".*--task classification"):
        guess_task(amounts.dropna(), "t.csv")
    with pytest.raises(
        ValueError, match=f"{re.escape(repr(cell))} in line 4, where numbers belong"
    ):
        numbers(amounts, "t.csv", missing=True)
    assert is_categorical(amounts, "t.csv", chosen=True)


@pytest.mark.parametrize("cell", CATEGORIES)
def test_categories_are_no_amounts(cell):
    assert is_categorical(column(*[cell, "other"] * N), "t.csv")
    assert guess_task(column(*[cell, "other"] * N), "t.csv") == ("classification", "text")


def test_leading_zeros_are_codes():
    codes = column("80331", "01067", "0.5", "0")
    with pytest.raises(ValueError, match=r"'01067' in line 3, a number with leading zeros.*--cat"):
        is_categorical(codes, "t.csv")
    assert is_categorical(codes, "t.csv", chosen=True)
    assert not is_categorical(column("0", "0.5", "-0.1", "10"), "t.csv")
    classes = column("007", "7", "07")
    assert labels(classes, "t.csv").tolist() == ["007", "7", "07"]
    assert guess_task(classes, "t.csv")[0] == "classification"


def test_integers_that_float64_does_not_hold():
    large = [2**53 + 1, 2**60, 5]
    for cells in (column(*map(str, large)), pd.Series(large, name="x")):
        with pytest.raises(ValueError, match=f"{2**53 + 1}'? in (line 2|row 0)"):
            is_categorical(cells, "t.csv")
    assert not is_categorical(column(str(2**60), "1e300", "5"), "t.csv")
