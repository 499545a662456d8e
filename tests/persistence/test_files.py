"""Saved and loaded: the same predictions to the last bit."""

import importlib.util
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from saved_models import (
    LABELS,
    NET,
    RNG,
    X_TEST,
    X,
    Y,
    archive,
    assert_same_predictions,
    entries_of,
    fit,
    round_trip,
)
from sklearn import config_context
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from small_problem import FEW

import ntk_uq as nuq
from ntk_uq.calibration import TemperatureScaled

NTK = [
    {"method": method, "uncertainty": uncertainty, "reg": 1.0, "n_draws": 4}
    for method, uncertainty in itertools.product(
        ("exact", "gaussian"), ("initialization", "posterior", "none")
    )
]
ENSEMBLE = [
    {"architecture": NET, "n_members": 2, "uncertainty": uncertainty}
    for uncertainty in ("initialization", "posterior", "none")
]
CASES = [
    *[(nuq.NTKClassifier, options) for options in NTK],
    (nuq.NTKClassifier, {"n_draws": 4}),
    (nuq.NTKClassifier, {"reg": 0.0, "label_smoothing": 0.1, "method": "gaussian"}),
    (nuq.NTKClassifier, {"reg": "evidence", "tune": ("b_std", "scales"), "method": "gaussian"}),
    *[(nuq.NTKRegressor, options) for options in NTK],
    (nuq.NTKRegressor, {}),
    *[(nuq.EnsembleClassifier, options) for options in ENSEMBLE],
    *[(nuq.EnsembleRegressor, {"noise": 0.1, **options}) for options in ENSEMBLE],
    (nuq.BayesianClassifier, FEW),
    (nuq.BayesianClassifier, {"prior": "nngp", **FEW}),
    (nuq.BayesianClassifier, {"sampler": "vi", **FEW}),
    (nuq.BayesianClassifier, {"sampler": "laplace"}),
    (nuq.BayesianClassifier, {"architecture": NET, "prior": "weights", **FEW}),
    (nuq.BayesianClassifier, {"architecture": NET, "prior": "weights", "sampler": "laplace"}),
    (nuq.BayesianRegressor, {"noise": 0.1, **FEW}),
]


@pytest.mark.cases(4)
@pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")  # of so few draws
@pytest.mark.parametrize(
    ("cls", "options"), CASES, ids=[f"{cls.__name__}-{i}" for i, (cls, _) in enumerate(CASES)]
)
def test_round_trip(cls, options, tmp_path):
    estimator = fit(cls, options)
    again = round_trip(estimator, tmp_path)
    assert type(again) is cls
    assert again.get_params() == estimator.get_params()
    assert vars(again).keys() == vars(estimator).keys()
    assert_same_predictions(estimator, again)
    for name, value in vars(estimator).items():
        if isinstance(value, np.ndarray):
            assert getattr(again, name).dtype == value.dtype, name
            np.testing.assert_array_equal(getattr(again, name), value)
    # What was loaded can be fitted again, and gives the same.
    targets = Y if hasattr(estimator, "noise_") else LABELS
    assert_same_predictions(estimator, again.fit(X, targets))


GOLDEN = Path(__file__).parents[1] / "golden"
spec = importlib.util.spec_from_file_location("make", GOLDEN / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


def test_every_golden_file_is_tried():
    assert {path.stem for path in GOLDEN.glob("*.ntk")} == golden.MODELS.keys()


@pytest.mark.filterwarnings("ignore:.* was written with scikit-learn")
@pytest.mark.parametrize("name", golden.MODELS)
def test_files_that_users_have(name, tmp_path):
    """Written by the first version of the format: they say what they said then."""
    again = nuq.load(GOLDEN / f"{name}.ntk")
    # Prior functions of finite networks are drawn again in single precision.
    tolerance = 1e-5 if name == "ensemble-regressor" else 1e-6
    with np.load(GOLDEN / f"{name}.npz") as expected:
        found = golden.predicted(again, expected["x"])
        assert {"x", *found} == set(expected)
        for what, values in found.items():
            message = f"{name}: {what}"
            if values.dtype.kind == "U":
                np.testing.assert_array_equal(values, expected[what], err_msg=message)
            else:
                np.testing.assert_allclose(
                    values, expected[what], tolerance, tolerance, err_msg=message
                )
    # And are saved again, and stay themselves.
    assert_same_predictions(again, round_trip(again, tmp_path), golden.X_TEST)


@pytest.mark.filterwarnings("ignore:.* was written with scikit-learn")
def test_files_written_before_the_discrepancy_was_measured(tmp_path):
    known = nuq.load(GOLDEN / "ntk-gaussian.ntk")
    entries = entries_of((GOLDEN / "ntk-gaussian.ntk").read_bytes())
    tree = json.loads(entries["ntk_uq.json"])
    del tree["model"]["attributes"]["discrepancy_"]
    del tree["model"]["attributes"]["predictor_"]["parameters"]["discrepancy"]
    path = tmp_path / "old.ntk"
    path.write_bytes(archive({**entries, "ntk_uq.json": json.dumps(tree)}))
    old = nuq.load(path)
    assert old.predictor_.discrepancy is old.discrepancy_ is None
    assert_same_predictions(known, old, golden.X_TEST)


@pytest.mark.cases(1)
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_joint_draws_and_functions_are_the_same(uncertainty, tmp_path):
    estimator = fit(nuq.NTKClassifier, {"uncertainty": uncertainty, "reg": 1.0, "n_draws": 4})
    again = round_trip(estimator, tmp_path)
    joint, joint_again = (e.predict_distribution(X_TEST, joint=True) for e in (estimator, again))
    np.testing.assert_array_equal(joint.samples, joint_again.samples)
    draws, draws_again = (e.sample_functions()(X_TEST) for e in (estimator, again))
    np.testing.assert_array_equal(draws, draws_again)


def test_fresh_process(tmp_path):
    """Without double precision, with x64 untouched, from another directory."""
    estimator = fit(nuq.NTKClassifier, {"reg": 1.0, "n_draws": 4})
    nuq.save(estimator, tmp_path / "model.ntk")
    np.save(tmp_path / "X.npy", X_TEST)
    code = (
        "import jax, numpy as np, ntk_uq as nuq\n"
        "clf = nuq.load('model.ntk')\n"
        "assert not jax.config.jax_enable_x64\n"
        "np.save('proba.npy', clf.predict_proba(np.load('X.npy')))\n"
    )
    # Deprecations are of what is imported, in versions that the others have left behind.
    strict = ("-W", "error", "-W", "ignore::DeprecationWarning")
    subprocess.run([sys.executable, *strict, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "proba.npy"), estimator.predict_proba(X_TEST))


@pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")
def test_posterior_for_arviz_is_kept(tmp_path):
    estimator = fit(nuq.BayesianClassifier, FEW)
    again = round_trip(estimator, tmp_path)
    assert again.posterior_.equals(estimator.posterior_)
    assert again.diagnostics_.warnings == estimator.diagnostics_.warnings
    assert again.draws_.prior.factor.dtype == np.float64


@pytest.mark.parametrize(
    "labels",
    [
        [3, -1],
        np.array([0.0, 1.0]),
        [True, False],
        ["a", "bé"],
        np.array(["one", "two"], object),
        np.array([200, 100], np.uint8),
    ],
    ids=["int", "float", "bool", "str", "object", "uint8"],
)
def test_classes_of_any_kind(labels, tmp_path):
    y = np.asarray(labels)[(X[:, 0] > 0).astype(int)]
    estimator = nuq.NTKClassifier(reg=1.0, n_draws=4).fit(X, y)
    again = round_trip(estimator, tmp_path)
    assert again.classes_.dtype == estimator.classes_.dtype
    assert again.predict(X_TEST).tolist() == estimator.predict(X_TEST).tolist()


@pytest.mark.slow
def test_arguments_of_any_kind(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    state = np.random.RandomState(3)
    state.standard_normal(5)
    estimator = nuq.EnsembleClassifier(
        NET, n_members=np.int64(2), reg=np.float32(1.0), random_state=state,
        checkpoint=tmp_path / "run", tol=1e-3,
    ).fit(frame, LABELS, sample_weight=np.arange(12.0))  # fmt: skip
    nuq.save(estimator, tmp_path / "model.ntk")
    again = nuq.load(tmp_path / "model.ntk")
    assert_same_predictions(estimator, again, frame)
    assert again.feature_names_in_.tolist() == ["a", "b", "c"]
    assert type(again.n_members) is np.int64
    assert type(again.reg) is np.float32
    assert again.checkpoint == tmp_path / "run"
    assert again.random_state.randint(10**9) == state.randint(10**9)


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "saving.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, names)
    assert names["tree"]["version"] == 1


def test_what_is_routed_is_kept(tmp_path):
    with config_context(enable_metadata_routing=True):
        clf = nuq.EnsembleClassifier(NET, n_members=2).set_fit_request(sample_weight="weights")
    again = round_trip(clf.fit(X, LABELS), tmp_path)
    assert again.get_metadata_routing().fit.requests == {"sample_weight": "weights"}


def test_targets_of_several_outputs(tmp_path):
    estimator = nuq.NTKRegressor(reg=1.0).fit(X, np.column_stack([Y, -Y]))
    assert_same_predictions(estimator, round_trip(estimator, tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.ensemble.ConvergenceWarning")
def test_images(tmp_path):
    images = RNG.standard_normal((8, 4, 4, 1))
    estimator = nuq.EnsembleClassifier(nuq.ConvNet(width=2, depth=1), n_members=2, max_iter=2)
    estimator.fit(images, LABELS[:8])
    assert_same_predictions(estimator, round_trip(estimator, tmp_path), images)


# Pipelines.


@pytest.fixture(scope="module")
def table():
    return pd.DataFrame(
        {
            "size": [1.0, np.nan, 3.0, 2.5] * 3,
            "weight": np.arange(12.0),
            "colour": np.array(["red", "blue", np.nan, "red"] * 3, object),
        }
    )


def columns():
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("n", numbers, ["size", "weight"]), ("c", words, ["colour"])])


def test_pipeline(table, tmp_path):
    pipeline = make_pipeline(columns(), nuq.NTKClassifier(reg=1.0, n_draws=4)).fit(table, LABELS)
    again = round_trip(pipeline, tmp_path)
    unseen = table.assign(colour="green", weight=np.nan)[["colour", "weight", "size"]]
    for frame in (table, unseen):
        np.testing.assert_array_equal(again.predict_proba(frame), pipeline.predict_proba(frame))
    assert repr(again) == repr(pipeline)
    assert again.feature_names_in_.tolist() == table.columns.tolist()
    again.fit(table, LABELS)


def ntk():
    return nuq.NTKClassifier(reg=1.0, n_draws=4)


def cached(tmp_path):
    return make_pipeline(StandardScaler(), ntk(), memory=str(tmp_path))


# What is saved, made when its test runs, and the error that it must give.
NOT_SAVED = {
    "not fitted": (ntk, NotFittedError, "not fitted"),
    "not fitted pipeline": (
        lambda: make_pipeline(StandardScaler(), ntk()),
        NotFittedError,
        "not fitted",
    ),
    "another package's": (
        lambda: LogisticRegression().fit(X, LABELS),
        ValueError,
        "LogisticRegression",
    ),
    "a step alone": (lambda: StandardScaler().fit(X), ValueError, "got StandardScaler"),
    "an architecture": (lambda: NET, ValueError, "got MLP"),
    "a class": (lambda: nuq.NTKClassifier, ValueError, "takes a fitted estimator"),
    "nothing": (lambda: None, ValueError, "got NoneType"),
    "unknown step": (
        lambda: make_pipeline(PCA(3), ntk()).fit(X, LABELS),
        ValueError,
        r"PCA, which a file of data cannot hold. Steps that can be saved: ColumnTransformer",
    ),
    "function": (
        lambda: make_pipeline(FunctionTransformer(np.abs), ntk()).fit(X, LABELS),
        ValueError,
        "FunctionTransformer",
    ),
    "object in an argument": (
        lambda: ntk().fit(X, LABELS).set_params(progress=print),
        ValueError,
        r"NTKClassifier\.progress is the function print",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), NOT_SAVED.values(), ids=NOT_SAVED)
def test_what_cannot_be_saved_says_why(make, error, message, tmp_path):
    thing = make()
    with pytest.raises(error, match=message):
        nuq.save(thing, tmp_path / "model.ntk")
    assert not list(tmp_path.iterdir())


def test_a_cache_is_refused(tmp_path):
    pipeline = cached(tmp_path / "cache").fit(X, LABELS)
    with pytest.raises(ValueError, match="a cache that may hold code"):
        nuq.save(pipeline, tmp_path / "model.ntk")


def test_the_path_comes_second(fitted, tmp_path):
    with pytest.raises(TypeError, match=r"nuq.save\(estimator, path\).* got NTKClassifier"):
        nuq.save(tmp_path / "model.ntk", fitted)


def test_bad_places(fitted, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        nuq.save(fitted, tmp_path)
    with pytest.raises(FileNotFoundError, match="missing does not exist: create it"):
        nuq.save(fitted, tmp_path / "missing" / "model.ntk")
    with pytest.raises(FileNotFoundError):
        nuq.load(tmp_path / "model.ntk")
    with pytest.raises(IsADirectoryError):
        nuq.load(tmp_path)


def test_an_interrupted_save_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    path = tmp_path / "model.ntk"
    path.write_bytes(b"old")
    written = []

    def interrupt(*arguments, **_):
        written.append(arguments)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nuq.save(fitted, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.ntk"]


@pytest.mark.slow
def test_temperature(tmp_path):
    clf = nuq.NTKClassifier(reg=1.0, method="gaussian")
    scaled = TemperatureScaled(clf, cv=2).fit(X, LABELS)
    assert_same_predictions(scaled, round_trip(scaled, tmp_path))
