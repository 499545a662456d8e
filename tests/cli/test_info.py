"""``ntk-uq info``: what a file says of its model."""

import json
from pathlib import Path

from example_tables import FIT, FRAME, QUICK, SIZE, WEIGHT, shell

import ntk_uq as nuq

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


def test_a_model_of_an_earlier_version(capsys):
    assert shell("info", GOLDEN / "ntk-gaussian.ntk") == 0
    out = capsys.readouterr().out
    assert "reg 1.446, by the evidence" in out
    assert "an earlier version kept nothing" in out


def test_a_mixture(capsys):
    path = GOLDEN / "ntk-mixture.ntk"
    shell("info", path, "--json")
    mixture = json.loads(capsys.readouterr().out)["chosen"]["mixture"]
    held = nuq.load(path).mixture_
    assert [one["weight"] for one in mixture["networks"]] == held.weights.tolist()
    assert mixture["held_out_log_probability"] == held.score
    shell("info", path)
    assert "with it, mixed: " in capsys.readouterr().out


def test_mistakes(folder, capsys):
    assert shell("info", "nothing.ntk") == 2
    assert "there is no model nothing.ntk" in capsys.readouterr().err
    (folder / "other.ntk").write_text("some text")
    assert shell("info", "other.ntk") == 2
    assert "is no file of nuq.save" in capsys.readouterr().err
