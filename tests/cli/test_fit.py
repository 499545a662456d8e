"""``ntk-uq fit``, and what ``ntk-uq predict`` makes of its models."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from example_tables import (
    CLASSES,
    CSV,
    FIT,
    FRAME,
    QUICK,
    SIZE,
    shell,
)
from scipy import stats
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

import ntk_uq as nuq
from ntk_uq.bayes.samplers import SAMPLERS
from ntk_uq.cli import options
from ntk_uq.tables import read_table
from ntk_uq.tables.tails import CompressedTails


def test_samplers_are_those_that_there_are():
    assert {name: sampler.title for name, sampler in SAMPLERS.items()} == options.SAMPLERS


def fit_and_predict(folder, *options, table=CLASSES, target="y"):
    (folder / "train.csv").write_text(table)
    assert shell("fit", "train.csv", "--target", target, *options) == 0
    assert shell("predict", "model.ntk", "train.csv") == 0
    return pd.read_csv(folder / "predictions.csv")


def by_hand(frame):
    """What the network is to see: numbers in units of their spread, and indicators as they are."""
    missing = frame["weight"].isna()
    median = frame["weight"].quantile(0.5, interpolation="lower")
    numbers = scale(np.column_stack([frame["size"], frame["weight"].fillna(median)]))
    colours = frame["colour"].fillna("none at all")
    columns = [CompressedTails.of(numbers).transform(numbers), missing]
    columns += [colours == colour for colour in ("blue", "red", "none at all")]
    columns += [~frame["sold"], frame["sold"]]
    return np.column_stack(columns).astype(float)


def test_predictions_are_those_of_the_estimator(folder, capsys):
    predictions = fit_and_predict(folder, "--reg", "0.5", "--draws", "4", "--seed", "3")
    clf = nuq.NTKClassifier(nuq.MLP(), reg=0.5, n_draws=4, random_state=3)
    clf.fit(by_hand(FRAME), FRAME["y"])
    expected = clf.predict_distribution(by_hand(FRAME))
    # Latents are solved to a millionth of a posterior standard deviation.
    np.testing.assert_allclose(predictions["probability_yes"], expected.proba()[:, 1], rtol=1e-5)
    np.testing.assert_allclose(predictions["epistemic"], expected.epistemic, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(
        predictions["total_uncertainty"], predictions["aleatoric"] + predictions["epistemic"]
    )
    entropy = stats.entropy(expected.proba(), axis=1)  # nats
    np.testing.assert_allclose(predictions["total_uncertainty"], entropy, rtol=1e-5)
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
    shift, unit = y.mean(), y.std(ddof=0)
    reg = nuq.NTKRegressor(nuq.MLP(), reg=1.0, uncertainty="posterior").fit(X, (y - shift) / unit)
    mean, std = reg.predict(X, return_std=True)
    mean, std, noise = shift + unit * mean, unit * std, unit * reg.noise_
    np.testing.assert_allclose(predictions["prediction"], mean, rtol=1e-7)
    # The noise is found to 1e-5 of itself.
    np.testing.assert_allclose(predictions["epistemic_std"], std, rtol=1e-4)
    total = np.hypot(std, noise)
    np.testing.assert_allclose(predictions["std"], total, rtol=1e-4)
    np.testing.assert_allclose(predictions["lower"], mean - 1.6448536269514722 * total, rtol=1e-4)
    shell("predict", "model.ntk", "train.csv", "--level", "0.5", "-o", "half.csv")
    half = pd.read_csv("half.csv")
    np.testing.assert_allclose(half["upper"], mean + 0.6744897501960817 * total, rtol=1e-4)


@pytest.mark.cases(1)
@pytest.mark.parametrize("producer", [["--method", "exact"], ["--producer", "ensemble"]])
def test_without_uncertainty_the_noise_remains(producer, folder):
    # Strong regularisation, so that noise remains, and an ensemble trains in a few steps.
    options = ["--reg", "100", "--uncertainty", "none", "--drop", "y", *producer]
    options += ["--members", "1"] if "ensemble" in producer else []
    predictions = fit_and_predict(folder, *options, table=CSV, target="price")
    assert predictions["epistemic_std"].eq(0).all()
    np.testing.assert_allclose(predictions["std"], model_of("model.ntk").estimator.noise_[0])


def test_conformal_sets(folder, capsys):
    options = ["--conformal", "0.8", "--sets", "all", "--seed", "1"]
    predictions = fit_and_predict(folder, *QUICK, *options)
    train, held_out = train_test_split(
        np.arange(len(FRAME)), test_size=8, stratify=FRAME["y"], random_state=1
    )
    assert not set(train) & set(held_out)
    p = predictions[["probability_no", "probability_yes"]].to_numpy()
    true = p[np.arange(len(FRAME)), (FRAME["y"] == "yes").astype(int)]
    threshold = np.sort(true[held_out])[8 - 8]  # ceil(9 * 0.8) = 8 of 8 must be at least this
    sets = [
        "|".join(
            c for c, q in zip(("no", "yes"), row, strict=True) if q >= threshold or q == row.max()
        )
        for row in p
    ]
    assert predictions["prediction_set"].fillna("").tolist() == sets
    assert -model_of("model.ntk").conformal.limits == pytest.approx(threshold - 1e-6, rel=1e-9)
    out = capsys.readouterr().out
    assert re.search(r"coverage 0\.\d+|coverage 1", out)
    assert "on average over all rows, by rows that were held out (no: 5, yes: 3)" in out
    by_class = out[out.index("Prediction sets by class") :].splitlines()
    assert [line.split()[0] for line in by_class[2:5]] == ["no", "yes", "all"]
    assert by_class[4].split()[1] == "40"


def test_conformal_intervals(folder):
    options = ["--reg", "1", "--drop", "y", "--conformal", "0.8"]
    predictions = fit_and_predict(folder, *options, table=CSV, target="price")
    _, held_out = train_test_split(np.arange(len(FRAME)), test_size=8, random_state=0)
    scores = np.abs(FRAME["price"] - predictions["prediction"]) / predictions["std"]
    widths = (predictions["upper"] - predictions["prediction"]) / predictions["std"]
    np.testing.assert_allclose(widths, scores[held_out].max(), rtol=1e-9)


def test_sets_and_intervals_of_other_kinds(folder, capsys):
    """By classes, and by sides, of a table whose rare class has its own quantile."""
    many = pd.concat([FRAME] * 5, ignore_index=True).drop(columns="price").to_csv(index=False)
    fit_and_predict(folder, *QUICK, "--conformal", "0.8", table=many)
    rule = model_of("model.ntk").conformal
    assert rule.per_class
    assert rule.limits[0] != rule.limits[1]
    assert "each class is in the sets of its rows" in capsys.readouterr().out
    fit_and_predict(folder, *QUICK, "--conformal", "0.8", "--sets", "adaptive", table=many)
    assert model_of("model.ntk").conformal.score == "aps"
    options = ["--reg", "1", "--drop", "y", "--conformal", "0.5", "--intervals", "asymmetric"]
    predictions = fit_and_predict(folder, *options, table=CSV, target="price")
    rule = model_of("model.ntk").conformal
    upper = (predictions["upper"] - predictions["prediction"]) / predictions["std"]
    np.testing.assert_allclose(upper, rule.above)
    assert rule.above != rule.below


def test_decisions(folder, capsys):
    many = pd.concat([FRAME] * 8, ignore_index=True).drop(columns="price").to_csv(index=False)
    options = ["--threshold", "recall=0.7", "--positive", "no", "--reject", "0.2"]
    predictions = fit_and_predict(folder, *QUICK, *options, table=many)
    decisions = model_of("model.ntk").decisions
    out = capsys.readouterr().out
    assert "with confidence 0.95, at least 0.7 of the positive rows are found" in out
    assert "at most 0.2 of the rows are rejected" in out
    rejected = predictions["total_uncertainty"] > decisions.rejection.value
    positive = predictions["probability_no"] >= decisions.threshold.value
    expected = np.where(rejected, "reject", np.where(positive, "no", "yes"))
    assert (predictions["decision"] == expected).all()
    truth = pd.read_csv("train.csv")["y"]
    recall = np.mean(expected[(truth == "no") & ~rejected] == "no")
    assert f"rejected {rejected.mean():.4g}" in out
    assert f"recall {recall:.4g}" in out
    costs = ["--cost", "yes:no=5", "--cost", "no:yes=1", "--cost", "*:reject=0.3"]
    predictions = fit_and_predict(folder, *QUICK, *costs, table=many)
    p = predictions["probability_yes"]
    expected = np.array(["no", "yes", "reject"])[np.argmin([5 * p, 1 - p, 0 * p + 0.3], axis=0)]
    assert (predictions["decision"] == expected).all()
    paid = np.select([expected == "reject", expected == truth, truth == "yes"], [0.3, 0, 5], 1.0)
    assert f"cost of a decision {paid.mean():.4g}" in capsys.readouterr().out


def test_weights_are_rows(folder):
    weights = np.arange(len(FRAME)) % 3
    table = FRAME.drop(columns="price")
    exact = ["--reg", "1", "--draws", "4", "--class-weight", "yes=2"]
    weighted = fit_and_predict(
        folder, *exact, "--weight", "w", table=table.assign(w=weights).to_csv(index=False)
    )
    repeated = table.loc[np.repeat(table.index, weights)]
    (folder / "repeated.csv").write_text(repeated.to_csv(index=False))
    shell("fit", "repeated.csv", "--target", "y", *exact)
    assert shell("predict", "model.ntk", "train.csv") == 0
    pd.testing.assert_frame_equal(weighted, pd.read_csv("predictions.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "f1=0.9"], "neither precision nor recall"),
        (["--threshold", "0.3", "--cost", "yes:no=1"], "two ways to decide"),
        (["--threshold", "0.3", "--positive", "maybe"], "no class 'maybe'.*no, yes"),
        (["--positive", "yes"], "give that too"),
        (["--cost", "yes=1"], "not TRUE:DECISION=COST"),
        (["--cost", "yes:no=5"], "yes is the cheapest decision for every row"),
        (["--cost", "yes:no=-5", "--cost", "no:yes=-1"], "names the true class first"),
        (["--threshold", "precision=0.9"], "no threshold promises a precision of 0.9"),
        (["--reject", "0.01"], "held-out rows cannot promise"),
        (["--sets", "all"], "say how --conformal works"),
        (["--class-weight", "maybe=2"], "no such class"),
        (["--weight", "colour"], "holds text"),
        (["--weight", "y"], "cannot be the rows' weight"),
        (["--epochs", "3", "--producer", "ensemble"], "--batch-size"),
        (["--batch-size", "3"], "belongs to --producer ensemble"),
    ],
)
def test_decisions_and_weights_that_cannot_be(folder, capsys, options, message):
    quick = [] if "--producer" in options else QUICK
    assert shell(*FIT, *quick, *options) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "model.ntk").exists()


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (
            ["--method", "nystrom", "--inducing", "12", "--storage", "."],
            {"method": "nystrom", "n_inducing": 12, "storage": "."},
        ),
        (["--tol", "0.5"], {"tol": 0.5}),
    ],
    ids=["nystrom", "tol"],
)
def test_options_of_size(options, arguments, folder):
    """Predictions are those of the estimator with its arguments, and of no other."""
    predictions = fit_and_predict(folder, "--reg", "0.5", "--draws", "4", *options)
    clf = nuq.NTKClassifier(nuq.MLP(), reg=0.5, n_draws=4, **arguments)
    expected = clf.fit(by_hand(FRAME), FRAME["y"]).predict_proba(by_hand(FRAME))
    np.testing.assert_allclose(predictions["probability_yes"], expected[:, 1], rtol=1e-5)
    other = nuq.NTKClassifier(nuq.MLP(), reg=0.5, n_draws=4)
    other = other.fit(by_hand(FRAME), FRAME["y"]).predict_proba(by_hand(FRAME))
    assert not np.allclose(predictions["probability_yes"], other[:, 1], rtol=1e-4)


def test_a_divided_kernel(folder, monkeypatch):
    """What reaches the estimator, of a process of several."""
    monkeypatch.setattr("ntk_uq.cli.shell.join", lambda: None)
    assert shell(*FIT, "--reg", "1", "--draws", "4", "--storage", "processes", "--distributed") == 0
    assert model_of("model.ntk").estimator.storage == "processes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--inducing", "9"], "--inducing belongs to --method nystrom; this is exact"),
        (["--method", "gaussian", "--tol", "0.1"], "--tol belongs to --method exact and nystrom"),
        (["--task", "regression", "--target", "size", "--storage", "."], "this is gaussian"),
        (["--producer", "ensemble", "--storage", "."], "--storage belongs to --producer ntk"),
        (["--tol", "0"], "'0' is no positive number"),
        (["--storage", "gone"], "a directory that exists; got 'gone'"),
        (["--storage", "processes"], "divides the kernel among those of --distributed"),
        (
            ["--storage", "processes", "--method", "nystrom", "--distributed"],
            'Of method="nystrom" every process has all features',
        ),
    ],
)
def test_options_of_size_that_do_not_go_together(folder, monkeypatch, capsys, options, message):
    monkeypatch.setattr("ntk_uq.cli.shell.join", lambda: None)
    monkeypatch.setattr("ntk_uq.cli.shell.leave", lambda _: None)
    assert shell(*FIT, *options) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == ["train.csv"]


@pytest.mark.slow
def test_mini_batches_train(folder, recwarn, capsys):
    """With what is the default, and as well as on all rows at once."""
    options = ["--producer", "ensemble", "--members", "2", "--uncertainty", "none"]
    whole = fit_and_predict(folder, *options)
    batches = fit_and_predict(folder, *options, "--batch-size", "8", "--epochs", "60")
    assert not recwarn.list
    assert "warning" not in capsys.readouterr().err
    np.testing.assert_allclose(whole["probability_yes"], batches["probability_yes"], atol=0.05)


def test_what_memory_takes_is_said_before(folder, monkeypatch, capsys):
    monkeypatch.setattr("ntk_uq.analytic.producer.estimate_memory", lambda *_: 2**33)
    monkeypatch.setattr("ntk_uq._common.machine.free_memory", lambda: 2**32)
    assert shell(*FIT, "--drop", "size") == 2
    error = capsys.readouterr().err
    assert "40 rows take about 8.0 GiB, and 4.0 GiB of memory are free" in error
    (pasted,) = re.findall(r"ntk-uq (fit train\.csv .*)", error)
    assert "--drop size --producer ensemble --batch-size 256" in pasted
    assert shell(*pasted.split(), "--members", "1", "--epochs", "1") == 0


def test_a_file_for_the_kernel_is_named(folder, monkeypatch, capsys):
    def needed(*arguments):
        in_memory = arguments[6]
        return 2**33 if in_memory else 2**31

    monkeypatch.setattr("ntk_uq.analytic.producer.estimate_memory", needed)
    monkeypatch.setattr("ntk_uq._common.machine.free_memory", lambda: 2**32)
    assert shell(*FIT) == 2
    assert "in a file, --storage FOLDER, it is 2.0 GiB. Finite" in capsys.readouterr().err
    assert shell(*FIT, "--reg", "1", "--draws", "4", "--storage", ".") == 0


def test_many_rows_are_said_before(folder, monkeypatch, capsys):
    """With a command that keeps what the user chose, where mini-batches have it too."""
    monkeypatch.setattr("ntk_uq.cli.fit._MANY_ROWS", 40)
    assert shell(*FIT, *QUICK, "--seed", "3") == 0
    said = capsys.readouterr().err
    assert "GiB of memory are free; the time grows with the square of the rows" in said
    (pasted,) = re.findall(r"ntk-uq (fit train\.csv .*)", said)
    assert "--reg 1.0 --uncertainty none --seed 3 --producer ensemble" in pasted
    monkeypatch.setattr("ntk_uq.cli.fit._MANY_ROWS", 41)
    assert shell(*FIT, *QUICK) == 0
    assert not capsys.readouterr().err


def model_of(path):
    return nuq.load(path)


@pytest.mark.cases(1)
@pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")
@pytest.mark.parametrize(
    "options",
    [
        # Of these a default run takes the first; an ensemble is trained below memory's limit.
        ["--producer", "bayes", "--sampler", "laplace"],
        ["--producer", "ensemble", "--members", "2", "--uncertainty", "posterior"],
        ["--producer", "bayes", "--chains", "1", "--warmup", "5", "--samples", "4", "--reg", "2"],
    ],
    ids=["laplace", "ensemble", "bayes"],
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


@pytest.mark.filterwarnings("default:Columns of train.csv:UserWarning")
def test_empty_columns_are_said_together(folder, capsys):
    rows = CLASSES.splitlines()
    table = "\n".join(["a,b," + rows[0], *(",," + row for row in rows[1:])]) + "\n"
    fit_and_predict(folder, *QUICK, table=table)
    assert capsys.readouterr().err.count("empty, and left out: a, b.") == 1


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


def table(change=lambda frame: frame):
    return change(FRAME.drop(columns="price")).to_csv(index=False)


def with_cell(column, row, value):
    def change(frame):
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return table(change)


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
        FIT, table(lambda f: f.assign(y=[f"r{i}" for i in range(40)])), "40 different values",
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
        table(lambda f: f.assign(y=[np.inf, *range(1, len(FRAME))])), "infinite value in line 2",
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
    monkeypatch.setattr("ntk_uq.analytic.producer.estimate_memory", lambda *_: 2**60)
    assert shell(*FIT, "--reg", "1") == 2
    assert re.search("40 rows take about .* GiB of memory are free", capsys.readouterr().err)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot interrupt itself there")
def test_interrupted(folder):
    """By a signal, in the middle of the work."""
    code = (
        "import os, signal, sys\n"
        # A child of a job in the background, or of some CI systems, is born deaf to it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ntk_uq import cli\n"
        "from ntk_uq.persistence import files\n"
        "write = files.write_archive\n"
        "def interrupted(*arguments):\n"
        "    write(*arguments)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    write(*arguments)\n"
        "files.write_archive = interrupted\n"
        f"sys.exit(cli.main({[*FIT, *QUICK]!r}))\n"
    )
    (folder / "model.ntk").write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr == "ntk-uq fit: interrupted; nothing was written\n"
    assert (folder / "model.ntk").read_bytes() == b"old"
    assert {file.name for file in folder.iterdir()} == {"train.csv", "model.ntk"}
