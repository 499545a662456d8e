"""Tables in files: separators, lines, gaps and other formats."""

import gzip
import io
import warnings

import numpy as np
import pandas as pd
import pytest
from example_tables import column
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_uq.tables import read_table
from ntk_uq.tables.columns import is_categorical, numbers
from ntk_uq.tables.frames import model_frame
from ntk_uq.tables.reading import decimal_points, read_csv

N = 24


def frame_of(text, target="y", task="classification", **options):
    return model_frame(read_csv(text, "t.csv"), target, task, name="t.csv", **options)


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


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_file_is_a_table_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "table.csv"
    path.write_bytes(content)
    try:
        n_rows, message = len(read_table(path)), "table.csv is read"
    except ValueError as error:
        n_rows, message = 1, str(error)
    assert n_rows >= 1
    assert "table.csv" in message
