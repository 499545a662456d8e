"""``ntk-uq info``: what a file says of its model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_tables import FIT, FRAME, QUICK, SIZE, WEIGHT, shell
from flax import nnx
from sklearn.model_selection import train_test_split
from small_problem import LABELS, X

import ntk_uq as nuq
from ntk_uq.cli.info import _arguments, _choice
from ntk_uq.persistence.card import _chosen

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_model_of_a_table(folder, capsys):
    shell(*FIT, *QUICK)
    capsys.readouterr()
    assert shell("info", "model.ntk", "--json") == 0
    card = json.loads(capsys.readouterr().out)
    there = WEIGHT[FRAME["weight"].notna()]
    assert card["model"] == "TableModel"
    assert card["estimator"] == "NTKClassifier"
    assert card["holds_training_points"]
    assert card["chosen"] == {"reg": 1.0, "by": None}
    assert card["network"]["depth"] == 2
    trained_on = card["trained_on"]
    assert trained_on["rows"] == len(FRAME)
    assert trained_on["target"] == "y"
    assert trained_on["classes"] == [list(p) for p in sorted(FRAME["y"].value_counts().items())]
    features = {feature.pop("name"): feature for feature in trained_on["features"]}
    assert features["size"] == {"low": SIZE.min(), "high": SIZE.max(), "missing": 0}
    missing = int(FRAME["weight"].isna().sum())
    assert features["weight"] == {"low": there.min(), "high": there.max(), "missing": missing}
    assert features["colour"] == {"categories": ["blue", "red"]}

    assert shell("info", "model.ntk") == 0
    out = capsys.readouterr().out
    assert "NTKClassifier, in a TableModel" in out
    assert "Trained on 40 rows, target 'y'" in out
    assert f"weight: {there.min():.6g} to {there.max():.6g}, {missing} missing" in out
    assert "It holds its training points" in out


def test_calibration_is_of_rows_that_were_held_out(folder, capsys):
    """The same rows, held out by hand, predicted by the model."""
    shell(*FIT, *QUICK, "--conformal", "0.7", "--sets", "all")
    capsys.readouterr()
    shell("info", "model.ntk", "--json")
    groups = json.loads(capsys.readouterr().out)["calibration"]
    y = FRAME["y"].to_numpy()
    _, rows = train_test_split(np.arange(len(y)), test_size=8, stratify=y, random_state=0)
    held_out = FRAME.iloc[rows]
    predicted = nuq.load("model.ntk").predict(held_out)
    confidence = predicted[["probability_no", "probability_yes"]].max(axis=1).to_numpy()
    right = predicted["prediction"].to_numpy() == y[rows]
    assert groups[0]["points"] == 8
    assert groups[0]["promised"] == pytest.approx(confidence.mean())
    assert groups[0]["found"] == right.mean()
    blue = (held_out["colour"] == "blue").to_numpy()
    (of_blue,) = [g for g in groups if (g["by"], g["group"]) == ("colour", "blue")]
    assert of_blue["points"] == blue.sum()
    assert of_blue["promised"] == pytest.approx(confidence[blue].mean())

    shell("info", "model.ntk")
    assert "Calibration on 8 rows that were held out" in capsys.readouterr().out
    shell(*FIT, *QUICK)
    capsys.readouterr()
    shell("info", "model.ntk")
    assert "Calibration: unknown, as no rows were held out" in capsys.readouterr().out


def test_what_is_promised_and_decided(folder, capsys):
    """As fit said it."""
    cost = ["--cost", "yes:no=5", "--cost", "no:yes=1"]
    shell(*FIT, *QUICK, "--conformal", "0.7", *cost)
    said = capsys.readouterr().out
    shell("info", "model.ntk")
    out = capsys.readouterr().out
    promise = "each class is in the sets of its rows with probability at least 0.7"
    assert f"Prediction sets: {promise}, by" in said
    assert f"  promised: {promise}\n" in out
    decided = "ecisions: those of the least expected cost, if the probabilities are right"
    assert f"D{decided}" in said
    assert f"  d{decided}" in out


@pytest.mark.filterwarnings("ignore:.* was written with scikit-learn")
def test_a_model_of_an_earlier_version(capsys):
    assert shell("info", GOLDEN / "ntk-gaussian.ntk") == 0
    out = capsys.readouterr().out
    assert "reg 1.446, by the evidence" in out
    assert "an earlier version kept nothing" in out


@pytest.mark.filterwarnings("ignore:.* was written with scikit-learn")
def test_a_mixture(capsys):
    path = GOLDEN / "ntk-mixture.ntk"
    shell("info", path, "--json")
    mixture = json.loads(capsys.readouterr().out)["chosen"]["mixture"]
    held = nuq.load(path).mixture_
    assert [one["weight"] for one in mixture["networks"]] == held.weights.tolist()
    assert mixture["held_out_log_probability"] == held.score
    shell("info", path)
    assert "with it, mixed: " in capsys.readouterr().out


def test_columns_that_are_empty(tmp_path, capsys):
    """A frame's, which the estimator leaves out, whether of numbers or of categories."""
    nothing = np.full(10, np.nan)
    frame = pd.DataFrame({"x": np.arange(10.0), "gone": nothing})
    frame["none"] = pd.Categorical(nothing, ["a", "b"])
    clf = nuq.NTKClassifier(reg=1.0, method="gaussian")
    with pytest.warns(UserWarning, match="gone, none"):
        clf.fit(frame, [0, 1] * 5)
    nuq.save(clf, tmp_path / "model.ntk")
    shell("info", tmp_path / "model.ntk")
    lines = capsys.readouterr().out.splitlines()
    assert "  x: 0 to 9" in lines
    assert "  gone: empty in all rows, and left out" in lines
    assert "  none: empty in all rows, and left out" in lines


def test_many_numbers_of_a_setting():
    """The scale of each feature of a wide table would fill the screen."""
    network = {"kind": "Net", "scales": [0.5, *[1.0] * 74, 4.18104], "w_std": [1.0, 1.5]}
    expected = "Net(scales=76 numbers from 0.5 to 4.18, w_std=[1.0, 1.5])"
    assert _arguments(network) == expected


def test_labels_that_count_more():
    chosen = {"reg": 1.0, "by": None, "label_weight": 1000.0}
    assert _choice(chosen) == "reg 1, each label counting 1,000 times, as given"


def test_a_strength_that_nobody_gave():
    """Of a trained network, which takes 1."""
    trained = nuq.Linearized(nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
    for reg, how in ((None, "as none was given"), (1.0, "as given")):
        model = nuq.NTKClassifier(trained, reg=reg, uncertainty="none").fit(X, LABELS)
        assert _choice(_chosen(model)) == f"reg 1, {how}"


def test_mistakes(folder, capsys):
    assert shell("info", "nothing.ntk") == 2
    assert "there is no model nothing.ntk" in capsys.readouterr().err
    (folder / "other.ntk").write_text("some text")
    assert shell("info", "other.ntk") == 2
    assert "is no file of nuq.save" in capsys.readouterr().err
