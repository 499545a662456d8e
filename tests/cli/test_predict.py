"""``ntk-uq predict``: its streams, its mistakes and its scores."""

import io
import re
import subprocess
import sys

import pandas as pd
import pytest
from example_tables import (
    CLASSES,
    FIT,
    FRAME,
    QUICK,
    shell,
)

import ntk_uq as nuq


def test_keep_and_standard_streams(folder, capsys, monkeypatch):
    shell("fit", "train.csv", "--target", "y", *QUICK)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CLASSES.encode())))
    capsys.readouterr()
    assert shell("predict", "model.ntk", "-", "-o", "-", "--keep", "sold") == 0
    out = capsys.readouterr().out
    written = pd.read_csv(io.StringIO(out))
    assert written.columns[:2].tolist() == ["sold", "prediction"]
    assert (written["sold"] == FRAME["sold"]).all()


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


@pytest.mark.slow
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
