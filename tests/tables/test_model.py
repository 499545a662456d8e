"""Models that take their columns by name."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from example_tables import FRAME, Saw, column, fitted
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

import ntk_uq as nuq
from ntk_uq.datasets import load_dataset
from ntk_uq.tables import fit_table, read_table
from ntk_uq.tables.cells import as_known
from ntk_uq.tables.columns import guess_task
from ntk_uq.tables.frames import model_frame
from ntk_uq.tables.reading import decimal_points, read_csv


@pytest.fixture(scope="module")
def model():
    return fitted()


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


def test_a_constant_that_changes_is_said():
    table = pd.DataFrame({"a": 1000.0, "b": np.arange(12) % 5, "y": list("uv") * 6})
    clf = nuq.NTKClassifier(reg=1.0, method="gaussian", uncertainty="none")
    model = fit_table(table, "y", clf)
    model.predict(table)
    with pytest.warns(UserWarning, match="'a' .* holds 1001 in row 3, and was 1000 in every row"):
        model.predict(table.assign(a=table["a"].where(table.index != 3, 1001.0)))


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
    with pytest.warns(
        UserWarning, match="holds .7. in row 0 and 11 more, none of the classes .*0, 1"
    ):
        assert integers.scores(table.assign(y=7), predictions)["log loss"] == np.inf


class SawNumbers(RegressorMixin, BaseEstimator):
    noise, uncertainty = None, "posterior"

    def fit(self, X, y):
        self.y_ = y
        return self


def test_task_is_the_estimators():
    table = pd.DataFrame({"a": np.arange(12) % 5, "y": np.arange(12) % 3})
    assert fit_table(table, "y", SawNumbers()).estimator.y_.dtype == float
    assert fit_table(table, "y", Saw()).task == "classification"


def test_columns_are_found_by_name(model):
    frame = FRAME.drop(columns=["price", "y"])
    shuffled = frame[["sold", "colour", "weight", "size"]].assign(extra="x")
    pd.testing.assert_frame_equal(model.predict(shuffled), model.predict(frame))


def test_a_row_is_predicted_alone_as_among_others(model):
    together = model.predict(FRAME)
    alone = pd.concat([model.predict(FRAME.iloc[[i]]) for i in range(3)], ignore_index=True)
    pd.testing.assert_frame_equal(alone, together.iloc[:3], rtol=1e-12)


def test_many_rows_are_predicted_in_parts(model, monkeypatch):
    whole = model.predict(FRAME)
    monkeypatch.setattr("ntk_uq.tables.model._ROWS_AT_ONCE", 7)
    pd.testing.assert_frame_equal(model.predict(FRAME), whole, rtol=1e-12)


def test_new_categories_and_gaps_are_said(model):
    frame = FRAME.drop(columns="y").assign(colour="green")
    with pytest.warns(UserWarning, match=r"'colour' .* 'green' in row 0 and 39 more"):
        model.predict(frame)
    frame = FRAME.copy()
    frame.loc[3, "size"] = np.nan
    with pytest.warns(UserWarning, match=r"'size' .* is empty in row 3, and was nowhere"):
        model.predict(frame)
    frame = FRAME.assign(sold=None)
    with pytest.warns(UserWarning, match=r"'sold' .* holds nothing in row 0"):
        model.predict(frame)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2020-01-01", periods=len(FRAME)), "holds dates or times"),
        (pd.to_timedelta(np.arange(len(FRAME)), unit="h"), "holds dates or times"),
        ([[1, 2]] * len(FRAME), "of the type list, neither numbers nor text"),
        ([b"x"] * len(FRAME), "of the type bytes"),
    ],
)
def test_typed_columns_that_are_no_features(column, message):
    with pytest.raises(ValueError, match=message):
        fit_table(FRAME.assign(odd=column), "y", nuq.NTKClassifier(), drop=["price"])


class Finite(ClassifierMixin, BaseEstimator):
    """Looks at what it is given."""

    def fit(self, X, y):
        assert np.isfinite(X).all()
        assert len(X) == len(y)
        assert X.shape[1] >= 1
        return self


CELLS = ["", "1", "2", "-3.5", "1e400", "nan", "inf", "NA", "x", " y ", "True", "2020-01-02", "?",
         "é|", '"', '"a,b"', "0x10", "1_000", "99999999999999999999", "\t", "-"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_table_is_fitted_or_refused(data):
    width = data.draw(st.integers(1, 4))
    row = st.lists(st.sampled_from(CELLS), min_size=width, max_size=width)
    rows = data.draw(st.lists(row, min_size=1, max_size=8))
    header = ["y", "a", "b", "c"][:width]
    text = "\n".join(",".join(cells) for cells in [header, *rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            fit_table(read_csv(text, "the table"), "y", Finite())
            message = "the table is fitted"
        except ValueError as error:
            message = str(error)
    assert re.search(r"the table|'y'", message)
