"""What a file says of its model, what it leaves out, and why it refuses."""

import hashlib
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from flax import nnx
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_problem import FEW, NET, RNG, X
from small_problem import TARGET as Y

import ntk_uq as nuq
from ntk_uq.persistence.opening import model_card

LABELS = np.where(X[:, 0] > 0, "yes", "no")


class Wide(nnx.Module):
    def __init__(self, in_features, out_features, *, rngs):
        self.hidden = nnx.Linear(in_features, 8, rngs=rngs)
        self.readout = nnx.Linear(8, out_features, rngs=rngs)

    def __call__(self, x):
        return self.readout(nnx.tanh(self.hidden(x)))


def saved(model, tmp_path, **options):
    path = tmp_path / "model.ntk"
    nuq.save(model, path, **options)
    return path


def test_the_card_of_a_choice(tmp_path):
    model = nuq.NTKRegressor(NET, reg="evidence", noise=0.1).fit(X, Y)
    card = model_card(saved(model, tmp_path))
    curve = model.reg_curve_
    assert card["chosen"]["reg"] == pytest.approx(model.reg_)
    assert card["chosen"]["log_evidence"] <= curve.scores.max()
    assert card["chosen"]["log_evidence"] >= curve.scores.min()
    assert card["settings"] == {"reg": "evidence", "noise": 0.1}
    (target,) = card["trained_on"]["targets"]
    assert (target["low"], target["high"]) == (Y.min(), Y.max())
    # By hand: shapes and bytes of points and targets, in their order.
    sha = hashlib.sha256(b"(12, 3)" + X.tobytes() + b"(12, 1)" + Y.tobytes())
    assert card["trained_on"]["sha256"] == sha.hexdigest()
    assert nuq.load(tmp_path / "model.ntk")._trained_on == model._trained_on


def test_the_card_says_what_held_out_points_say(tmp_path):
    """Of intervals of 90%, by their definition; of classes in a pipeline, by its probabilities."""
    held_out = RNG.normal(size=(9, 3))
    y = held_out[:, 0] + 0.5 * RNG.normal(size=9)
    model = nuq.NTKRegressor(NET, reg=1.0, noise=0.3).fit(X, Y)
    path = saved(model, tmp_path, held_out=(held_out, y))
    groups = model_card(path)["calibration"]
    mean, std = model.predict(held_out, return_std=True)
    inside = np.abs(y - mean) <= 1.6448536269514722 * np.hypot(std, 0.3)
    assert (groups[0]["points"], groups[0]["promised"]) == (9, pytest.approx(0.9))
    assert groups[0]["found"] == inside.mean()
    assert sum(group["points"] for group in groups[1:]) == 9
    # What was said stays with what is loaded, until it is fitted again.
    assert model_card(saved(nuq.load(path), tmp_path))["calibration"] == groups
    assert model_card(saved(nuq.load(path).fit(X, Y), tmp_path))["calibration"] is None

    pipeline = make_pipeline(StandardScaler(), nuq.NTKClassifier(NET, reg=1.0)).fit(X, LABELS)
    labels = np.where(y > 0, "yes", "no")
    groups = model_card(saved(pipeline, tmp_path, held_out=(held_out, labels)))["calibration"]
    assert groups[0]["promised"] == pytest.approx(pipeline.predict_proba(held_out).max(1).mean())
    assert groups[0]["found"] == np.mean(pipeline.predict(held_out) == labels)

    assert model_card(saved(model, tmp_path))["calibration"] is None
    with pytest.raises(ValueError, match=r"held_out takes a pair \(X, y\)"):
        saved(model, tmp_path, held_out=held_out)


def of_settings(name, **settings):
    regressor = name.endswith("Regressor")
    model = getattr(nuq, name)(**({"noise": 0.1} if regressor else {}), **settings)
    return pytest.param(model, id=" ".join([name, *map(str, settings.values())]))


@pytest.mark.cases(4)
@pytest.mark.filterwarnings("ignore::ntk_uq._common.warnings.SamplingWarning")
@pytest.mark.parametrize(
    "model",
    [
        of_settings("NTKClassifier", architecture=NET),
        of_settings("NTKClassifier"),
        of_settings("NTKRegressor", architecture=NET),
        of_settings("NTKRegressor", architecture=NET, reg="evidence", tune=("scales",)),
        of_settings("BayesianClassifier", architecture=NET, sampler="laplace"),
        of_settings("BayesianRegressor", architecture=NET, sampler="laplace", prior="weights"),
        of_settings("BayesianRegressor", architecture=NET, sampler="ess", **FEW),
    ],
)  # fmt: skip
def test_rows_of_the_fit_are_none_that_were_held_out(model, tmp_path):
    y = LABELS if hasattr(model, "class_weight") else Y
    model.fit(X, y)
    others = np.concatenate([X[[5, 2]], X[:4] + 0.1])
    with pytest.warns(UserWarning, match="2 of 6 rows have the features of training points"):
        saved(model, tmp_path, held_out=(others, y[[5, 2, 0, 1, 2, 3]]))
    saved(model, tmp_path, held_out=(others[2:], y[:4]))
    with pytest.raises(ValueError, match="the data of the fit"):
        saved(model, tmp_path, held_out=(X, y))


def test_networks_know_the_sum_of_their_data(tmp_path):
    """Also in a pipeline, of a table, and frozen, where a temperature is fitted."""
    table = pd.DataFrame(X, columns=list("abc")).assign(d=np.tile(["u", "v"], 6))
    model = nuq.EnsembleClassifier(n_members=2).fit(table, LABELS)
    with pytest.raises(ValueError, match="the data of the fit"):
        saved(model, tmp_path, held_out=(table, LABELS))
    with pytest.raises(ValueError, match="the data of the fit"):
        nuq.TemperatureScaled(FrozenEstimator(model)).fit(table, LABELS)
    pipeline = make_pipeline(StandardScaler(), nuq.EnsembleRegressor(NET, n_members=2, noise=0.1))
    with pytest.raises(ValueError, match="the data of the fit"):
        saved(pipeline.fit(X, Y), tmp_path, held_out=(X.tolist(), Y.tolist()))


def test_what_held_out_points_say_stands_in_a_file_once(tmp_path):
    model = nuq.NTKRegressor(NET, noise=0.1).fit(X, Y)
    path = saved(model, tmp_path, held_out=(X + 0.1, Y))
    again = saved(nuq.load(path), tmp_path)
    with zipfile.ZipFile(again) as archive:
        tree = json.loads(archive.read("ntk_uq.json"))
    assert "_held_out" not in json.dumps(tree["model"])
    assert len(tree["card"]["calibration"]) > 1


def test_networks_predict_without_their_data(tmp_path):
    model = nuq.EnsembleRegressor(NET, n_members=2, noise=0.3, uncertainty="posterior").fit(X, Y)
    again = nuq.load(saved(model, tmp_path, data=False))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert model.ensemble_.mode is not None
    assert again.ensemble_.mode is None
    again.set_params(n_members=3, warm_start=True)
    with pytest.raises(ValueError, match="saved with data=False"):
        again.fit(X, Y)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nuq.NTKRegressor(NET, noise=0.1), "kernels with its training points"),
        (nuq.BayesianRegressor(NET, noise=0.1, sampler="laplace"), "kernels with its"),
    ],
    ids=["kernel", "process"],
)
def test_kernels_cannot_do_without_theirs(model, why, tmp_path):
    model.fit(X, Y)
    with pytest.raises(ValueError, match=f"{why}.*train a finite ensemble"):
        saved(model, tmp_path, data=False)
    assert not (tmp_path / "model.ntk").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq._common.warnings.LazinessWarning")
def test_a_module_in_its_own_parameterisation_is_known(tmp_path):
    """As ensembles of an Architecture were saved before the other was the default."""
    own = nuq.Architecture(Wide, parameterization="own")
    model = nuq.EnsembleClassifier(own, n_members=2).fit(X, LABELS)
    path = saved(model, tmp_path)
    card = model_card(path)  # which takes no code
    assert card["network"]["module"] == "Wide"
    counts = [["no", int(np.sum(X[:, 0] <= 0))], ["yes", int(np.sum(X[:, 0] > 0))]]
    assert card["trained_on"]["classes"] == counts
    assert not card["holds_training_points"]
    with pytest.raises(ValueError, match=r'give Architecture\(\.\.\., parameterization="own"\)'):
        nuq.load(path, architecture=nuq.Architecture(Wide))
    np.testing.assert_array_equal(nuq.load(path, architecture=own).predict(X), model.predict(X))
