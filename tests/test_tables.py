"""What is read of a table, and what is refused: by column, by line, with what to do."""

import datetime as dt
import gzip
import importlib.util
import io
import re
import subprocess
import sys
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

import ntk_uq as nuq
from ntk_uq.datasets import load_dataset
from ntk_uq.tables import fit_table, read_table
from ntk_uq.tables.cells import as_known, as_text
from ntk_uq.tables.columns import guess_task, is_categorical, labels, numbers
from ntk_uq.tables.frames import model_frame
from ntk_uq.tables.reading import decimal_points, read_csv

N = 24


def column(*cells, lines=None):
    """A column of a CSV file."""
    return pd.Series(
        [np.nan if cell is None else cell for cell in cells],
        index=pd.Index(lines or range(2, len(cells) + 2), name="line"),
        dtype=object,
        name="x",
    )


def frame_of(text, target="y", task="classification", **options):
    return model_frame(read_csv(text, "t.csv"), target, task, name="t.csv", **options)


# Files.


@st.composite
def written(draw):
    """A table, and a CSV file of it, with the line in which each row begins."""
    width = draw(st.integers(2, 4))
    cell = st.text(st.sampled_from('ab ",;\n\t|é.'), max_size=5)
    rows = draw(st.lists(st.lists(cell, min_size=width, max_size=width), max_size=6))
    separator, ending = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text, lines, line = "", [], 1
    for row in [[f"c{i}" for i in range(width)], *rows]:
        blank = draw(st.integers(0, 2))
        text, line = text + blank * ending, line + blank
        lines.append(line)
        quoted = separator.join('"' + cell.replace('"', '""') + '"' for cell in row)
        text, line = text + quoted + ending, line + 1 + quoted.count("\n")
    return rows, separator, text, lines[1:]


@settings(max_examples=150, deadline=None)
@given(written())
def test_every_cell_and_line_is_as_it_was_written(case):
    rows, separator, text, lines = case
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "t.csv holds nothing but separators")
        table = read_csv(text, "t.csv", separator=separator)
    assert table.index.tolist() == lines
    expected = [[None if not cell.strip() else cell for cell in row] for row in rows]
    assert table.astype(object).where(table.notna(), None).to_numpy().tolist() == expected


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(separator):
    text = 'a,y\n"1;2|3\t4",x\n'.replace(",", separator)
    assert read_csv(text, "t.csv").to_numpy().tolist() == [["1;2|3\t4", "x"]]


def test_the_separator_that_gives_a_table_is_found():
    assert read_csv("a;b, in kg\n1,5;2,5\n1;2\n", "t.csv").columns.tolist() == ["a", "b, in kg"]
    assert read_csv("a b\n1 2\n", "t.csv", separator=" ").to_numpy().tolist() == [["1", "2"]]
    table = read_csv("sep=;\r\na,b;c\r\n1,2;3\r\n", "t.csv")  # as Excel writes it
    assert table.columns.tolist() == ["a,b", "c"]
    assert table.index.tolist() == [3]
    with pytest.raises(ValueError, match=r"commas or semicolons: say by which .--separator"):
        read_csv("a,b;c\n1,2;3\n", "t.csv")


BAD_FILES = {
    "short": ("a,b\n\n1,2\n3\n", "line 4 holds 1 value, fewer values than its header line 1"),
    "long": ("a,b\n1,2,3\n", "line 2 holds 3 values, more .* not quoted, .*row.names"),
    "end": ("a,b\n1,2,\n", "line 2 holds 3 values, .* separator at the end"),
    "title": (
        "Report\n\na,b,c\n1,2,3\n",
        "line 3 holds 3 values, .* header line 1 .* further down",
    ),
    "after a line break": ('a,b\n"1\n\n1",2\n3\n', "line 5 holds 1 value"),
    "open quote": ('a,b\n1,2\n"3,4\n5,6\n', "row that begins in line 3. Is a quotation mark open"),
    "text after a quote": ('a,b\n"1"2,3\n', "begins in line 2"),
    "gap or none": ("a\n1\n\n2\n", "nothing in line 3: write NA"),
    "twice": ("a,a\n1,2\n", "two columns with the name 'a'"),
    "nameless": (",,a\n1,2,3\n", "several columns without a name"),
    "nothing": ("\n \n", "is empty"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name):
    text, message = BAD_FILES[name]
    with pytest.raises(ValueError, match=f"^t.csv .*{message}"):
        read_csv(text, "t.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04...", "workbook .* save the sheet as CSV UTF-8"),
        (b"PAR1...", "is a Parquet file: give it a name that ends in .parquet"),
        ("a,b\n1,2\n".encode("utf-16"), "is in UTF-16"),
        ("a,b\n1,2\n3,größer\n".encode("cp1252"), "line 3 holds something else. .*iconv"),
    ],
)
def test_other_formats_are_named(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t.csv")


def test_compressed(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfa,b\n1,2\n"))
    assert read_table(tmp_path / "t.csv.gz").columns.tolist() == ["a", "b"]


def test_gaps_are_those_of_pandas_and_what_is_said():
    text = "a,b\n" + "".join(f"{a},x\n" for a in ("1", "NA", "null", "?", "-", " ", "n/a", "-999"))
    read = read_csv(text, "t.csv", missing=["?"])["a"]
    by_pandas = pd.read_csv(io.StringIO(text), na_values=["?"], skipinitialspace=True)["a"]
    assert read.isna().tolist() == by_pandas.isna().tolist()
    assert read.dropna().tolist() == ["1", "-", "-999"]


def test_a_trailing_separator_is_no_column():
    assert read_csv("a,b,\n1,2,\n3,4,\n", "t.csv").columns.tolist() == ["a", "b"]


def test_a_row_of_separators_is_said():
    with pytest.warns(UserWarning, match="nothing but separators in line 3 and 1 more"):
        assert len(read_csv("a,b\n1,2\n,\n , \n", "t.csv")) == 3


def test_row_numbers_of_pandas_and_r():
    frame = pd.DataFrame({"a": np.arange(N) % 5, "y": list("uv") * (N // 2)})
    written = frame.to_csv()
    assert written == frame.to_csv(index_label="")  # R names it "", too
    with pytest.raises(ValueError, match=r"^Column 1 of t.csv has no name. .*--drop ''"):
        frame_of(written)
    assert frame_of(written, drop=[""]).numeric == ("a",)


# Numbers in another notation, dates, text among numbers.

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


def test_decimal_commas():
    table = read_csv("a;b;c\n1,5;7;x,y\n-,25;8;1,5,2\n1e3;?;\n", "t.csv")
    points = decimal_points(table, ["a", "b", "c"], "t.csv")
    assert numbers(points["a"], "t.csv").tolist() == [1.5, -0.25, 1000.0]
    assert points["b"].tolist() == ["7", "8", "?"]
    assert points["c"].tolist()[:2] == ["x,y", "1,5,2"]
    assert table["a"][2] == "1,5"
    with pytest.raises(ValueError, match=r"'1.234' in line 2, a number with a point"):
        decimal_points(column("1.234", "2").to_frame(), ["x"], "t.csv")
    decimal_points(column("1.234", "2").to_frame(), [], "t.csv")
    with pytest.raises(ValueError, match=r"'1.234,5' in line 2, .* thousands"):
        is_categorical(decimal_points(column("1.234,5").to_frame(), ["x"], "t.csv")["x"], "t.csv")


# Codes, categories and truth.


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


class Saw(ClassifierMixin, BaseEstimator):
    """Keeps what it is given."""

    def fit(self, X, y):
        self.X_, self.classes_ = X, np.unique(y)
        return self


def encoded(model, table):
    features = model._features(table, "t")
    model._warn_of_news(features, "t")
    return model.pipeline[:-1].transform(features)


@pytest.mark.parametrize(
    ("fitted", "predicted"),
    [
        (["2", "10", "3"], [2.0, 10.0, 3.0]),
        (["2", "10", "3"], ["2.0", "10.", "3.00"]),
        ([2.0, 10.0, 3.0], pd.Series([2, 10, 3], dtype="Int64")),
        ([2, 10, 3], pd.Series([2, 10, 3], dtype="category")),
        (["True", "False", "True"], [True, False, True]),
        ([True, False, None], ["TRUE", "false", None]),
        (pd.Series([True, False, None], dtype="boolean"), ["True", "False", ""]),
        ([" a", "b ", "c"], ["a", "b", " c "]),
        (["2", "2.0", "3"], ["2", "2.0", "3.0"]),
    ],
    ids=range(9),
)
@pytest.mark.filterwarnings("ignore:.* count as two categories:UserWarning")
def test_codes_are_known_again(fitted, predicted):
    """One code in the ways in which programs write it; an empty cell makes reals of integers."""
    fit = pd.DataFrame(
        {"x": list(fitted) if isinstance(fitted, list) else fitted, "y": list("uuv")}
    )
    model = fit_table(pd.concat([fit] * 2), "y", Saw(), categorical=["x"])
    new = pd.DataFrame({"x": predicted}).replace("", None)
    np.testing.assert_array_equal(encoded(model, new), model.estimator.X_[:3])


def test_what_is_like_two_known_codes_is_unknown():
    assert as_known(column("2.00", "1", None), ["2", "2.0", "1"]).tolist()[:2] == ["2.00", "1"]
    assert as_known(column("02.0", "7.5"), ["2", "7.50"]).tolist() == ["02.0", "7.5"]


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
            assert guess_task(truth.dropna(), "t")[0] == "classification"
            assert labels(truth.dropna(), "t")[0] == "True"


# What is only suspicious.


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


def test_a_constant_that_changes_is_said():
    table = pd.DataFrame({"a": 1000.0, "b": np.arange(12) % 5, "y": list("uv") * 6})
    clf = nuq.NTKClassifier(reg=1.0, method="gaussian", uncertainty="none")
    model = fit_table(table, "y", clf)
    model.predict(table)
    with pytest.warns(UserWarning, match="'a' .* holds 1001 in row 3, and was 1000 in every row"):
        model.predict(table.assign(a=table["a"].where(table.index != 3, 1001.0)))


# Frames, and the types of Parquet.


def test_frames_name_their_rows():
    table = pd.DataFrame({"a": ["1", "2", "x", "3"], "y": list("uvuv")}, index=list("klmn"))
    with pytest.raises(ValueError, match="'x' in row 'm'"):
        model_frame(table, "y", "classification", name="t")
    table = table.set_axis([7, 7, 8, 8])
    with pytest.raises(ValueError, match="'x' in row 8"):
        model_frame(table, "y", "classification", name="t")
    fitted = fit_table(table.assign(a=[1, 2, None, 3], b=list("cdcd")), "y", Saw())
    np.testing.assert_array_equal(fitted.estimator.X_[:, 0], [1, 2, 2, 3])
    with pytest.raises(ValueError, match="two columns with the name 'a'"):
        fit_table(pd.concat([table, table[["a"]]], axis=1), "y", Saw())


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


# Ordinary tables go through without a word: warnings are errors here.


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_ordinary_numbers(load, tmp_path):
    frame = load(as_frame=True).frame
    frame.to_csv(tmp_path / "t.csv", index=False)
    read = model_frame(read_table(tmp_path / "t.csv"), "target", "classification", name="t")
    assert read.numeric == tuple(frame.columns.drop("target"))
    np.testing.assert_allclose(read.features, frame.drop(columns="target"), rtol=1e-15)
    np.testing.assert_array_equal(read.y, frame["target"])
    assert len(load_dataset(str(tmp_path / "t.csv"), "target").y) == len(frame)


def passengers():
    rng = np.random.default_rng(0)
    n = 200
    age = rng.integers(1, 80, n).astype(float)
    return pd.DataFrame(
        {
            "survived": rng.integers(0, 2, n),
            "class": rng.choice(["1st", "2nd", "3rd"], n),
            "sex": rng.choice(["male", "female"], n),
            "age": np.where(rng.random(n) < 0.2, np.nan, age),
            "sibsp": rng.integers(0, 4, n),
            "fare": rng.gamma(2.0, 20.0, n).round(4),
            "embarked": np.where(rng.random(n) < 0.02, None, rng.choice(list("SCQ"), n)),
            "adult_male": rng.random(n) < 0.5,
            "deck": pd.Categorical(np.where(rng.random(n) < 0.7, None, rng.choice(list("ABC"), n))),
            "group": rng.choice(["0-17", "18-24", "55+"], n),
        }
    )


@pytest.mark.parametrize("kind", ["csv", "csv of Germans", "parquet"])
def test_ordinary_categories_and_gaps(kind, tmp_path):
    frame, path = passengers(), tmp_path / ("t.parquet" if kind == "parquet" else "t.csv")
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_csv(path, index=False, sep=";", decimal=",", encoding="utf-8-sig")
    table = read_table(path)
    if kind == "csv of Germans":
        table = decimal_points(table, table.columns, "t")
    assert guess_task(table["survived"], "t")[0] == "classification"
    read = model_frame(table, "survived", "classification", name="t")
    assert read.numeric == ("age", "sibsp", "fare")
    for name in read.numeric:
        np.testing.assert_array_equal(read.features[name], frame[name])
    for name in read.categorical:
        assert read.features[name].isna().tolist() == frame[name].isna().tolist()
        known = frame[name].notna()
        assert read.features[name][known.to_numpy()].tolist() == list(map(str, frame[name][known]))


# Models.


def test_scores_take_the_target_as_the_model_has_it():
    table = pd.DataFrame({"a": np.arange(12) % 5, "y": ["1", "a", "1", "b"] * 3})
    clf = nuq.NTKClassifier(reg=1.0, method="gaussian", uncertainty="none")
    with pytest.warns(UserWarning, match="both numbers and text"):
        model = fit_table(table, "y", clf)
    ones = table[table["y"] == "1"]
    predictions = model.predict(ones)
    expected = (predictions["prediction"] == "1").mean()
    for y in ("1", 1, 1.0):
        assert model.scores(ones.assign(y=y), predictions)["accuracy"] == expected
    integers = fit_table(table.assign(y=np.arange(12) % 2), "y", clf)
    predictions = integers.predict(table)
    with pytest.warns(UserWarning, match="Without scores: .* holds text, 'a'"):
        assert integers.scores(table.assign(y="a"), predictions) == {}


class SawNumbers(RegressorMixin, BaseEstimator):
    noise, uncertainty = None, "posterior"

    def fit(self, X, y):
        self.y_ = y
        return self


def test_task_is_the_estimators():
    table = pd.DataFrame({"a": np.arange(12) % 5, "y": np.arange(12) % 3})
    assert fit_table(table, "y", SawNumbers()).estimator.y_.dtype == float
    assert fit_table(table, "y", Saw()).task == "classification"


def test_what_is_wrong_with_a_table_is_said_at_once(tmp_path):
    """Without what takes seconds to import."""
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "1,5%\n" * 30)
    code = (
        "import sys; from ntk_uq.cli import main\n"
        f"for command in (['fit', {str(path)!r}, '--target', 'y'],\n"
        f"                ['compare', '--data', {str(path)!r}, '--target', 'a']):\n"
        "    print(main(command), {'jax', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ended.stdout.splitlines() == ["2 set()"] * 2, ended.stderr
    assert ended.stderr.count("'5%' in line 2") == 2
