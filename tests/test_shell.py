"""``ntk-uq fit`` and ``ntk-uq predict``, and the tables that they take."""

import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split

import ntk_uq as nuq
from ntk_uq.cli import main
from ntk_uq.tables import fit_table, read_table
from ntk_uq.tables.reading import read_csv

PAGE = Path(__file__).parents[1] / "docs" / "shell.md"
RNG = np.random.default_rng(0)
N = 40
SIZE = RNG.standard_normal(N).round(3)
WEIGHT = (RNG.standard_normal(N) + 3).round(3)
FRAME = pd.DataFrame(
    {
        "size": SIZE,
        "weight": np.where(np.arange(N) % 7 == 0, np.nan, WEIGHT),
        "colour": np.where(np.arange(N) % 5 == 0, None, np.where(SIZE > 0.5, "red", "blue")),
        "sold": np.arange(N) % 2 == 0,
        "y": np.where(SIZE + 0.3 * WEIGHT > 1, "yes", "no"),
        "price": (2 * SIZE + 0.1 * RNG.standard_normal(N)).round(4),
    }
)
CSV = FRAME.to_csv(index=False)
CLASSES = FRAME.drop(columns="price").to_csv(index=False)
QUICK = ["--reg", "1", "--method", "gaussian", "--uncertainty", "none"]


def shell(*arguments):
    """Exit status of the command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text(CLASSES)
    return tmp_path


@pytest.fixture(scope="module")
def model():
    frame = FRAME.drop(columns="price")
    clf = nuq.NTKClassifier(reg=1.0, method="gaussian", uncertainty="none")
    return fit_table(frame, "y", clf)


def fit_and_predict(folder, *options, table=CLASSES, target="y"):
    (folder / "train.csv").write_text(table)
    assert shell("fit", "train.csv", "--target", target, *options) == 0
    assert shell("predict", "model.ntk", "train.csv") == 0
    return pd.read_csv(folder / "predictions.csv")


def by_hand(frame):
    """What the estimator is to see, by pandas alone."""
    missing = frame["weight"].isna()
    colours = frame["colour"].fillna("none at all")
    columns = [frame["size"], frame["weight"].fillna(frame["weight"].median()), missing]
    columns += [colours == colour for colour in ("blue", "red", "none at all")]
    columns += [~frame["sold"], frame["sold"]]
    return np.column_stack(columns).astype(float)


def test_predictions_are_those_of_the_estimator(folder, capsys):
    predictions = fit_and_predict(folder, "--reg", "0.5", "--draws", "16", "--seed", "3")
    clf = nuq.NTKClassifier(reg=0.5, n_draws=16, random_state=3).fit(by_hand(FRAME), FRAME["y"])
    expected = clf.predict_distribution(by_hand(FRAME))
    np.testing.assert_allclose(predictions["probability_yes"], expected.proba()[:, 1], rtol=1e-12)
    np.testing.assert_allclose(predictions["epistemic"], expected.epistemic, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        predictions["total_uncertainty"], predictions["aleatoric"] + predictions["epistemic"]
    )
    entropy = stats.entropy(expected.proba(), axis=1)  # nats
    np.testing.assert_allclose(predictions["total_uncertainty"], entropy, rtol=1e-9)
    assert (predictions["prediction"] == clf.predict(by_hand(FRAME))).all()
    accuracy = np.mean(predictions["prediction"] == FRAME["y"])
    out = capsys.readouterr().out
    assert "'y' holds text, so this is classification" in out
    assert "40 rows, 2 columns of numbers, 2 of categories, 2 classes" in out
    assert f"accuracy {accuracy:.4g}, log loss" in out
    assert {file.name for file in folder.iterdir()} == {
        "train.csv", "model.ntk", "predictions.csv",
    }  # fmt: skip


def test_regression(folder, capsys):
    options = ["--reg", "1", "--uncertainty", "posterior", "--drop", "y"]
    predictions = fit_and_predict(folder, *options, table=CSV, target="price")
    assert "real numbers, so this is regression" in capsys.readouterr().out
    X, y = by_hand(FRAME), FRAME["price"]
    reg = nuq.NTKRegressor(reg=1.0, uncertainty="posterior").fit(X, y)
    mean, std = reg.predict(X, return_std=True)
    np.testing.assert_allclose(predictions["prediction"], mean, rtol=1e-9)
    np.testing.assert_allclose(predictions["epistemic_std"], std, rtol=1e-6)
    total = np.hypot(std, reg.noise_)
    np.testing.assert_allclose(predictions["std"], total, rtol=1e-9)
    np.testing.assert_allclose(predictions["lower"], mean - 1.6448536269514722 * total, rtol=1e-9)
    shell("predict", "model.ntk", "train.csv", "--level", "0.5", "-o", "half.csv")
    half = pd.read_csv("half.csv")
    np.testing.assert_allclose(half["upper"], mean + 0.6744897501960817 * total, rtol=1e-9)


@pytest.mark.parametrize("producer", [["--method", "exact"], ["--producer", "ensemble"]])
def test_without_uncertainty_the_noise_remains(producer, folder):
    options = ["--reg", "1", "--uncertainty", "none", "--drop", "y", *producer]
    options += ["--members", "1"] if "ensemble" in producer else []
    predictions = fit_and_predict(folder, *options, table=CSV, target="price")
    assert predictions["epistemic_std"].eq(0).all()
    np.testing.assert_allclose(predictions["std"], model_of("model.ntk").estimator.noise_[0])


def test_conformal_sets(folder, capsys):
    predictions = fit_and_predict(folder, *QUICK, "--conformal", "0.8", "--seed", "1")
    train, held_out = train_test_split(
        np.arange(N), test_size=8, stratify=FRAME["y"], random_state=1
    )
    assert not set(train) & set(held_out)
    p = predictions[["probability_no", "probability_yes"]].to_numpy()
    true = p[np.arange(N), (FRAME["y"] == "yes").astype(int)]
    threshold = np.sort(true[held_out])[8 - 8]  # ceil(9 * 0.8) = 8 of 8 must be at least this
    sets = [
        "|".join(c for c, p in zip(("no", "yes"), row, strict=True) if p >= threshold) for row in p
    ]
    assert predictions["prediction_set"].fillna("").tolist() == sets
    assert model_of("model.ntk").quantile == pytest.approx(threshold, rel=1e-12)
    assert re.search(r"coverage 0\.\d+|coverage 1", capsys.readouterr().out)


def test_conformal_intervals(folder):
    options = ["--reg", "1", "--drop", "y", "--conformal", "0.8"]
    predictions = fit_and_predict(folder, *options, table=CSV, target="price")
    _, held_out = train_test_split(np.arange(N), test_size=8, random_state=0)
    scores = np.abs(FRAME["price"] - predictions["prediction"]) / predictions["std"]
    widths = (predictions["upper"] - predictions["prediction"]) / predictions["std"]
    np.testing.assert_allclose(widths, scores[held_out].max(), rtol=1e-9)


def model_of(path):
    return nuq.load(path)


@pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")
@pytest.mark.parametrize(
    "options",
    [
        ["--producer", "ensemble", "--members", "2", "--uncertainty", "posterior"],
        ["--producer", "bayes", "--chains", "1", "--warmup", "5", "--samples", "4", "--reg", "2"],
        ["--producer", "bayes", "--sampler", "laplace"],
    ],
    ids=["ensemble", "bayes", "laplace"],
)
def test_other_producers(options, folder):
    predictions = fit_and_predict(folder, *options)
    assert predictions["epistemic"].gt(0).all()
    estimator = model_of("model.ntk").estimator
    assert type(estimator).__name__.lower().startswith(options[1][:5])
    names = {"--members": "n_members", "--uncertainty": "uncertainty", "--reg": "reg",
             "--chains": "num_chains", "--warmup": "num_warmup", "--samples": "num_samples",
             "--sampler": "sampler", "--producer": None}  # fmt: skip
    given = {
        names[option]: value for option, value in zip(options[::2], options[1::2], strict=True)
    }
    given.pop(None)
    assert {name: str(getattr(estimator, name)) for name in given} == {
        name: value if value != "2" or name != "reg" else "2.0" for name, value in given.items()
    }


# Columns and kinds.


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


def test_codes_can_be_categories(folder):
    table = "code,t\n" + "".join(f"{[3, 10, 200][i % 3]},{'xyz'[i % 3]}\n" for i in range(30))
    predictions = fit_and_predict(folder, *QUICK, "--categorical", "code", table=table, target="t")
    assert model_of("model.ntk").categorical == ("code",)
    assert predictions["prediction"].tolist() == ["x", "y", "z"] * 10


@pytest.mark.filterwarnings("default:Column .gone.:UserWarning")
def test_an_empty_column_is_left_out(folder, capsys):
    table = CLASSES.replace("size,", "gone,size,").replace("\n", "\n,").removesuffix(",")
    fit_and_predict(folder, *QUICK, table=table)
    assert "'gone' of train.csv is empty: it is left out" in capsys.readouterr().err
    assert model_of("model.ntk").numeric == ("size", "weight")


@pytest.mark.filterwarnings("default:The target .t. .* holds both:UserWarning")
@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["0", "1", "2"], "classification", [0, 1, 2]),
        (["a", "b", "1"], "classification", ["1", "a", "b"]),
        (["True", "False", "True"], "classification", ["False", "True"]),
        (["1.0", "2.0", "3.0"], "regression", None),
        ([str(i) for i in range(30)], "regression", None),
    ],
)
def test_task_by_the_target(values, task, classes, folder, capsys):
    rows = "".join(f"{i % 7},{values[i % len(values)]}\n" for i in range(30))
    (folder / "train.csv").write_text("a,t\n" + rows)
    options = QUICK if task == "classification" else ["--reg", "1"]
    assert shell("fit", "train.csv", "--target", "t", *options) == 0
    assert f"so this is {task}." in capsys.readouterr().out
    fitted = model_of("model.ntk")
    assert fitted.task == task
    if classes:
        assert fitted.estimator.classes_.tolist() == classes


def test_task_can_be_said(folder, capsys):
    rows = "".join(f"{i % 7},{i % 3}\n" for i in range(30))
    (folder / "train.csv").write_text("a,t\n" + rows)
    assert shell("fit", "train.csv", "--target", "t", "--task", "regression", "--reg", "1") == 0
    assert "so this is" not in capsys.readouterr().out
    assert model_of("model.ntk").task == "regression"


def test_keep_and_standard_streams(folder, capsys, monkeypatch):
    shell("fit", "train.csv", "--target", "y", *QUICK)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CLASSES.encode())))
    capsys.readouterr()
    assert shell("predict", "model.ntk", "-", "-o", "-", "--keep", "sold") == 0
    out = capsys.readouterr().out
    written = pd.read_csv(io.StringIO(out))
    assert written.columns[:2].tolist() == ["sold", "prediction"]
    assert (written["sold"] == FRAME["sold"]).all()


def test_byte_order_mark_and_spaces(folder):
    text = "\ufeff" + CLASSES.replace(",", ", ")
    (folder / "train.csv").write_text(text, encoding="utf-8")
    table = read_table("train.csv")
    assert table.columns.tolist() == ["size", "weight", "colour", "sold", "y"]
    assert table["y"].tolist() == FRAME["y"].tolist()


def test_a_file_is_read_as_is_said(folder):
    """Semicolons, decimal commas and a mark of gaps, in either file, change no prediction."""
    frame = FRAME.drop(columns="y")
    written = frame.to_csv(sep=";", decimal=",", na_rep="?", encoding="utf-8-sig")
    (folder / "other.csv").write_text(written)
    how = ["--decimal", ",", "--missing", "?"]
    options = ["--target", "price", "--reg", "1"]
    frame.to_csv("plain.csv", index=False)
    assert shell("fit", "plain.csv", *options, "-o", "a.ntk") == 0
    assert shell("fit", "other.csv", *options, *how, "--drop", "", "-o", "b.ntk") == 0
    assert shell("predict", "a.ntk", "plain.csv", "-o", "a.csv", "--keep", "size") == 0
    assert shell("predict", "a.ntk", "other.csv", *how, "-o", "b.csv", "--keep", "size") == 0
    assert shell("predict", "b.ntk", "plain.csv", "-o", "c.csv", "--keep", "size") == 0
    assert (folder / "c.csv").read_bytes() == (folder / "a.csv").read_bytes()
    kept = (folder / "b.csv").read_text().replace('"', "").splitlines()[1]
    assert kept.startswith(str(SIZE[0]).replace(".", ","))  # as it was written
    pd.testing.assert_frame_equal(
        pd.read_csv("b.csv").drop(columns="size"), pd.read_csv("a.csv").drop(columns="size")
    )


@pytest.mark.filterwarnings("default:Without scores:UserWarning")
def test_a_target_that_is_none_leaves_predictions(folder, capsys):
    shell("fit", "train.csv", "--target", "y", *QUICK)
    (folder / "test.csv").write_text("size,weight,colour,sold,y\n1,2,red,True,\n")
    capsys.readouterr()
    assert shell("predict", "model.ntk", "test.csv") == 0
    output = capsys.readouterr()
    assert "Without scores: The target 'y' of test.csv is missing in line 2" in output.err
    assert "Against" not in output.out
    assert len(pd.read_csv("predictions.csv")) == 1


# Parquet.


def typed():
    return FRAME.drop(columns="price").astype({"colour": "category"})


def test_typed_tables(folder, monkeypatch):
    (folder / "train.parquet").touch()
    monkeypatch.setattr(pd, "read_parquet", lambda _: typed())
    assert shell("fit", "train.parquet", "--target", "y", *QUICK) == 0
    assert shell("predict", "model.ntk", "train.parquet", "-o", "a.csv") == 0
    assert shell("predict", "model.ntk", "train.csv", "-o", "b.csv") == 0
    assert (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes()


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="the extra parquet")
def test_parquet(folder):
    typed().to_parquet("train.parquet")
    assert shell("fit", "train.parquet", "--target", "y", *QUICK) == 0
    assert shell("predict", "model.ntk", "train.parquet", "-o", "a.parquet") == 0
    assert shell("predict", "model.ntk", "train.csv", "-o", "b.csv") == 0
    written = pd.read_parquet("a.parquet")
    pd.testing.assert_frame_equal(written, pd.read_csv("b.csv"), check_dtype=False)
    (folder / "bad.parquet").write_bytes(b"PAR1 no")
    assert shell("fit", "bad.parquet", "--target", "y") == 2


def without_pyarrow(*_, **__):
    raise ImportError("Unable to find a usable engine")


def test_parquet_without_pyarrow(folder, monkeypatch, capsys):
    (folder / "train.parquet").touch()
    monkeypatch.setattr(pd, "read_parquet", without_pyarrow)
    assert shell("fit", "train.parquet", "--target", "y") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs pyarrow: pip install 'ntk_uq[parquet]'" in line
    shell("fit", "train.csv", "--target", "y", *QUICK)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", without_pyarrow)
    assert shell("predict", "model.ntk", "train.csv", "-o", "a.parquet") == 2
    assert not list(folder.glob("a.parquet*"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2020-01-01", periods=N), "holds dates or times"),
        (pd.to_timedelta(np.arange(N), unit="h"), "holds dates or times"),
        ([[1, 2]] * N, "of the type list, neither numbers nor text"),
        ([b"x"] * N, "of the type bytes"),
    ],
)
def test_typed_columns_that_are_no_features(column, message):
    with pytest.raises(ValueError, match=message):
        fit_table(FRAME.assign(odd=column), "y", nuq.NTKClassifier(), drop=["price"])


# Anything.


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


# Bad input: the arguments, the table, and what the one line on standard error must say.


def table(change=lambda frame: frame):
    return change(FRAME.drop(columns="price")).to_csv(index=False)


def with_cell(column, row, value):
    def change(frame):
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return table(change)


FIT = ["fit", "train.csv", "--target", "y"]
BAD_FITS = {
    "no command's argument": (["fit"], None, "required: FILE, --target"),
    "no target": (["fit", "train.csv"], None, "required: --target"),
    "file absent": (["fit", "gone.csv", "--target", "y"], None, "file gone.csv does not exist"),
    "file is a folder": (["fit", ".", "--target", "y"], None, "file . is a folder"),
    "file empty": (FIT, "", "train.csv is empty"),
    "blank lines": (FIT, "\n\n\n", "train.csv is empty"),
    "header only": (FIT, "a,y\n", "has column names and no rows"),
    "not text": (FIT, b"\xff\xfe\x00\x01", "not a text file in UTF-8"),
    "long row": (FIT, "a,y\n1,x\n2,y,3\n", "line 3 holds 3 values, more values than its header"),
    "open quote": (FIT, 'a,y\n1,"x\n2,y\n', "not a table of comma-separated values"),
    "unnamed column": (FIT, ",y\n1,x\n2,z\n", "Column 1 of train.csv has no name"),
    "repeated name": (FIT, "a,a,y\n1,2,x\n", "two columns with the name 'a'"),
    "no such target": (["fit", "train.csv", "--target", "z"], None, "no column 'z'; it has size"),
    "nearly a target": (
        ["fit", "train.csv", "--target", "Colours"], None, r"'Colours' \(did you mean 'colour'\?",
    ),
    "some separator": (FIT, "a;b,y\n1;2,x\n", "semicolons: say by which \\(--separator"),
    "decimal commas": (
        FIT, "a;y\n" + '1,5;x\n2,5;z\n' * 5, "'1,5' in line 2, .* with a comma: .* --decimal ,",
    ),
    "separator": ([*FIT, "--separator", "; "], None, "'; ' is not one character, nor \"tab\""),
    "stray text in a target": (
        FIT, "a,y\n" + "".join(f"{i % 7},{i / 8}\n" for i in range(30)) + "1,high\n",
        "'y' .* numbers, and text in some rows: 'high' in line 32",
    ),
    "short row": (FIT, "a,y\n\n1,x\n2\n", "line 4 holds 1 value, fewer values than its header"),
    "target alone": (FIT, "y\nx\nz\nx\nz\n", "no column beside the target 'y'"),
    "all dropped": ([*FIT, "--drop", "a"], "a,y\n1,x\n2,z\n3,x\n4,z\n", "no column beside"),
    "no such dropped": ([*FIT, "--drop", "z"], None, "no column 'z'"),
    "no such category": ([*FIT, "--categorical", "z"], None, "no column 'z'"),
    "target dropped": ([*FIT, "--drop", "y"], None, "'y' is the target"),
    "one class": (FIT, table(lambda f: f.assign(y="yes")), r"one class only \(yes\)"),
    "target missing": (FIT, with_cell("y", 4, ""), "target 'y' of train.csv is missing in line 6"),
    "class for each row": (
        FIT, table(lambda f: f.assign(y=[f"r{i}" for i in range(N)])), "40 different values",
    ),
    "real classes": (
        [*FIT, "--task", "classification"], table(lambda f: f.assign(y=f["size"])),
        "distinct real numbers; classes must be integers or text",
    ),
    "regression on text": ([*FIT, "--task", "regression"], None, "'y' of train.csv holds text"),
    "constant target": (
        [*FIT, "--task", "regression"], table(lambda f: f.assign(y=3)), "is 3 in every row",
    ),
    "one member": (
        ["fit", "train.csv", "--target", "size", "--producer", "ensemble", "--members", "1"],
        None, "One member or draw has no spread",
    ),
    "one draw": (
        ["fit", "train.csv", "--target", "size", "--method", "exact", "--draws", "1"],
        None, "take two or more",
    ),
    "infinite": (FIT, with_cell("size", 2, "-inf"), "'size' .* an infinite value in line 4"),
    "infinite target": (
        [*FIT, "--task", "regression"],
        table(lambda f: f.assign(y=[np.inf, *range(1, N)])), "infinite value in line 2",
    ),
    "text among numbers": (
        FIT, with_cell("size", 2, "?"), "'size' .* numbers, and text in some rows: '\\?' in line 4",
    ),
    "free text": (
        FIT, "note,y\n" + "".join(f"text {i}x,{i % 2}\n" for i in range(60)),
        r"'note' .* 60 different texts, .* \(--drop note\)",
    ),
    "dates": (FIT, table(lambda f: f.assign(day="2020-01-02")), "'day' .* which is a date"),
    "one row": (FIT, "a,y\n1,x\n", "one class only"),
    "unknown task": ([*FIT, "--task", "guess"], None, "--task: invalid choice: 'guess'"),
    "unknown producer": ([*FIT, "--producer", "svm"], None, "--producer: invalid choice"),
    "unknown uncertainty": ([*FIT, "--uncertainty", "big"], None, "--uncertainty: invalid choice"),
    "another's option": (
        [*FIT, "--members", "3"], None, "--members belongs to --producer ensemble; ntk has --draws",
    ),
    "bayes' uncertainty": (
        [*FIT, "--producer", "bayes", "--uncertainty", "none"], None, "bayes has --sampler",
    ),
    "reg of another": (
        [*FIT, "--producer", "bayes", "--reg", "cv"], None, "--reg cv belongs to --producer ntk",
    ),
    "reg negative": ([*FIT, "--reg", "-1"], None, '\'-1\' is no positive number, nor "cv"'),
    "reg a word": ([*FIT, "--reg", "strong"], None, "'strong' is no positive number"),
    "no draws": ([*FIT, "--draws", "0"], None, "--draws: '0' is no whole number of 1"),
    "seed": ([*FIT, "--seed", "-1"], None, "--seed"),
    "level one": ([*FIT, "--conformal", "1"], None, "'1' is no probability between 0 and 1"),
    "level a percentage": ([*FIT, "--conformal", "90%"], None, "'90%' is no probability"),
    "level too high": (
        [*FIT, "--conformal", "0.99"], None, "takes 99 rows that are held out, .* has 40 rows",
    ),
    "class of one row": (
        [*FIT, "--conformal", "0.8"], with_cell("y", 1, "perhaps"), "Class perhaps .* one row only",
    ),
    "bar in a class": (
        [*FIT, "--conformal", "0.8"], table(lambda f: f.assign(y=f["y"] + "|no")), "holds '|'",
    ),
    "output in no folder": ([*FIT, "-o", "gone/m.ntk"], None, "folder gone does not exist"),
    "output a folder": ([*FIT, "-o", "."], None, "not a regular file"),
    "output is the input": ([*FIT, "-o", "./train.csv"], None, "would be overwritten"),
    "unknown option": ([*FIT, "--colour"], None, "unrecognized arguments: --colour"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FITS)
def test_bad_fits(name, folder, capsys):
    arguments, content, message = BAD_FITS[name]
    if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (folder / "train.csv").write_bytes(content)
    assert shell(*arguments) == 2
    output = capsys.readouterr()
    assert len(output.err.splitlines()) == 1, output.err
    assert re.match(rf"ntk-uq(?: fit)?: error: .*{message}", output.err)
    assert [file.name for file in folder.iterdir()] == ["train.csv"]


PREDICT = ["predict", "model.ntk", "test.csv"]
BAD_PREDICTIONS = {
    "no arguments": (["predict"], None, "required: MODEL, FILE"),
    "model absent": (["predict", "gone.ntk", "test.csv"], None, "no model gone.ntk; ntk-uq fit"),
    "model a folder": (["predict", ".", "test.csv"], None, "no model ."),
    "model foreign": (["predict", "test.csv", "test.csv"], None, "no file of nuq.save"),
    "model damaged": (["predict", "damaged.ntk", "test.csv"], None, "is damaged"),
    "model from Python": (
        ["predict", "bare.ntk", "test.csv"], None, "holds one NTKClassifier, saved from Python",
    ),
    "table absent": (["predict", "model.ntk", "gone.csv"], None, "gone.csv does not exist"),
    "table empty": (PREDICT, "", "test.csv is empty"),
    "no rows": (PREDICT, "size,weight,colour,sold\n", "no rows"),
    "column missing": (PREDICT, "size,colour,sold\n1,red,True\n", "no column 'weight', which"),
    "columns missing": (PREDICT, "size,sold\n1,True\n", "'weight', nor 'colour', which"),
    "text for numbers": (
        PREDICT, "size,weight,colour,sold\n1,2,red,True\nbig,2,red,True\n",
        "'size' of test.csv holds text, 'big' in line 3",
    ),
    "infinite": (PREDICT, "size,weight,colour,sold\n1,inf,red,True\n", "infinite value in line 2"),
    "repeated name": (PREDICT, "size,size\n1,2\n", "two columns with the name 'size'"),
    "keep absent": ([*PREDICT, "--keep", "id"], None, "no column 'id'"),
    "keep taken": (
        [*PREDICT, "--keep", "epistemic"],
        "size,weight,colour,sold,epistemic\n1,2,red,True,1\n", "have a column of that name",
    ),
    "level for classes": ([*PREDICT, "--level", "0.9"], None, "this is a classification"),
    "level": ([*PREDICT, "--level", "2"], None, "no probability between 0 and 1"),
    "output in no folder": ([*PREDICT, "-o", "gone/p.csv"], None, "folder gone does not exist"),
    "output is the table": ([*PREDICT, "-o", "test.csv"], None, "would be overwritten"),
    "output is the model": ([*PREDICT, "-o", "model.ntk"], None, "would be overwritten"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PREDICTIONS)
def test_bad_predictions(name, model, folder, capsys):
    arguments, content, message = BAD_PREDICTIONS[name]
    (folder / "train.csv").rename("test.csv")
    if content is not None:
        (folder / "test.csv").write_text(content)
    nuq.save(model, "model.ntk")
    nuq.save(model.estimator, "bare.ntk")
    (folder / "damaged.ntk").write_bytes((folder / "model.ntk").read_bytes()[:-1])
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert shell(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1, output.err
    assert re.match(rf"ntk-uq(?: predict)?: error: .*{message}", output.err)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_folder_that_cannot_be_written_to(folder, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert shell(*FIT) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_full_disk(folder, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert shell(*FIT, *QUICK) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == ["train.csv"]


def test_too_large_is_said(folder, monkeypatch, capsys):
    monkeypatch.setattr("ntk_uq.analytic.estimate_memory", lambda *_: 2**60)
    assert shell(*FIT, "--reg", "1") == 2
    assert "40 training points with 2 outputs take" in capsys.readouterr().err


def test_interrupted(folder):
    """By a signal, in the middle of the work."""
    code = (
        "import os, signal, sys\n"
        # A child of a job in the background, or of some CI systems, is born deaf to it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ntk_uq import cli, persistence\n"
        "write = persistence._write\n"
        "def interrupted(*arguments):\n"
        "    write(*arguments)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    write(*arguments)\n"
        "persistence._write = interrupted\n"
        f"sys.exit(cli.main({[*FIT, *QUICK]!r}))\n"
    )
    (folder / "model.ntk").write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr == "ntk-uq fit: interrupted; nothing was written\n"
    assert (folder / "model.ntk").read_bytes() == b"old"
    assert {file.name for file in folder.iterdir()} == {"train.csv", "model.ntk"}


def test_a_reader_that_has_enough(folder):
    """As `head` has; the rest of what is written has no place to go."""
    shell(*FIT, *QUICK)
    pd.concat([FRAME] * 50).drop(columns=["y", "price"]).to_csv("long.csv", index=False)
    command = [sys.executable, "-m", "ntk_uq.cli", "predict", "model.ntk", "long.csv", "-o", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"prediction,")
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr.read() == b""


def test_the_page_runs(folder, capsys):
    blocks = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    for language, text in blocks:
        if language == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "ntk-uq"
            assert shell(*arguments) == 0, line
    out = capsys.readouterr().out
    assert "Against the target 'cultivar' in test.csv: accuracy 0.9" in out
    assert "cultivar,prediction,probability_class_0" in out


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_help(command, capsys):
    assert shell(command, "--help") == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "exit status: 0" in out
    examples = re.findall(rf"ntk-uq {command} [^|\n]*", out.partition("examples:")[2])
    assert len(examples) >= 3


def test_help_loads_nothing():
    code = (
        "import sys; from ntk_uq.cli import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'jax', 'sklearn', 'pandas'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "set()"
