"""Saved and loaded: the same predictions to the last bit, and nothing that is not whole."""

import importlib.util
import io
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import jax
import numpy as np
import optax
import pandas as pd
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import ntk_uq as nuq
from ntk_uq.calibration import TemperatureScaled
from ntk_uq.persistence.archive import SEAL, digest_of

RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 3))
Y = X[:, 0] + 0.1 * RNG.standard_normal(16)
LABELS = np.where(X[:, 0] > 0, "yes", "no")
X_TEST = RNG.standard_normal((5, 3))
NET = nuq.MLP(width=8, depth=1, activation="erf")  # smooth: so narrow a relu network ends on kinks
SMALL = {"num_warmup": 20, "num_samples": 20, "num_chains": 2}

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
    (nuq.BayesianClassifier, SMALL),
    (nuq.BayesianClassifier, {"prior": "nngp", **SMALL}),
    (nuq.BayesianClassifier, {"sampler": "vi", **SMALL}),
    (nuq.BayesianClassifier, {"sampler": "laplace"}),
    (nuq.BayesianClassifier, {"architecture": NET, "prior": "weights", **SMALL}),
    (nuq.BayesianClassifier, {"architecture": NET, "prior": "weights", "sampler": "laplace"}),
    (nuq.BayesianRegressor, {"noise": 0.1, **SMALL}),
]


def fit(cls, options, X=X):
    targets = Y if issubclass(cls, RegressorMixin) else LABELS
    return cls(**options).fit(X, targets)


def round_trip(estimator, tmp_path, **options):
    path = tmp_path / "model.ntk"
    nuq.save(estimator, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.ntk"]
    return nuq.load(path, **options)


def assert_same_predictions(estimator, again, X=X_TEST):
    before, after = estimator.predict_distribution(X), again.predict_distribution(X)
    assert type(before) is type(after)
    for name in ("mean", "cov"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    np.testing.assert_array_equal(estimator.predict(X), again.predict(X))
    if hasattr(estimator, "classes_"):
        np.testing.assert_array_equal(estimator.predict_proba(X), again.predict_proba(X))


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


GOLDEN = Path(__file__).parent / "golden"
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
    estimator = fit(nuq.BayesianClassifier, SMALL)
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
    ).fit(frame, LABELS, sample_weight=np.arange(16.0))  # fmt: skip
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
    page = (Path(__file__).parents[1] / "docs" / "saving.md").read_text()
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.ensemble.ConvergenceWarning")
def test_optimizer_is_left_out_and_said(tmp_path):
    estimator = nuq.EnsembleClassifier(NET, n_members=2, optimizer=optax.sgd(0.1), max_iter=2)
    estimator.fit(X, LABELS)
    with pytest.warns(UserWarning, match=r"optimizer .* left out .* set_params"):
        again = round_trip(estimator, tmp_path)
    assert again.optimizer is None
    assert_same_predictions(estimator, again)


# A network of the user's own.


class Wide(nnx.Module):
    def __init__(self, in_features, out_features, *, rngs, scale=1.0):
        self.linear = nnx.Linear(in_features, out_features, rngs=rngs)
        self.scale = scale

    def __call__(self, x):
        return self.scale * self.linear(x)


def wider(*sizes, rngs):
    return Wide(*sizes, rngs=rngs, scale=2.0)


class OfUsers(nuq.MLP):
    """Kernels as MLP's."""


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("estimator", "other"),
    [
        (
            nuq.EnsembleClassifier(nuq.Architecture(Wide), n_members=2),
            nuq.Architecture(wider),
        ),
        (nuq.NTKClassifier(OfUsers(width=8), method="gaussian"), OfUsers(width=8, b_std=0.2)),
    ],
    ids=["ensemble", "ntk"],
)
def test_an_architecture_of_the_users_is_given_again(estimator, other, tmp_path):
    estimator.fit(X, LABELS)
    again = round_trip(estimator, tmp_path, architecture=estimator.architecture)
    assert_same_predictions(estimator, again)
    path = tmp_path / "model.ntk"
    with pytest.raises(ValueError, match=r"give the same one, nuq\.load\(path, architecture="):
        nuq.load(path)
    with pytest.raises(ValueError, match=r"is not the one .* was fitted with: its network differs"):
        nuq.load(path, architecture=other)
    with pytest.raises(ValueError, match="takes an ntk_uq architecture"):
        nuq.load(path, architecture=Wide)


def test_an_architecture_that_is_held_is_not_given(tmp_path):
    with pytest.raises(ValueError, match="holds its architecture"):
        round_trip(fit(nuq.NTKClassifier, {"reg": 1.0}), tmp_path, architecture=NET)


# Pipelines.


@pytest.fixture(scope="module")
def table():
    return pd.DataFrame(
        {
            "size": [1.0, np.nan, 3.0, 2.5] * 4,
            "weight": np.arange(16.0),
            "colour": np.array(["red", "blue", np.nan, "red"] * 4, object),
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


def test_pipeline_with_a_network_of_the_users(tmp_path):
    net = nuq.Architecture(Wide)
    pipeline = make_pipeline(StandardScaler(), nuq.EnsembleClassifier(net, n_members=2))
    pipeline.fit(X, LABELS)
    again = round_trip(pipeline, tmp_path, architecture=net)
    np.testing.assert_array_equal(again.predict_proba(X_TEST), pipeline.predict_proba(X_TEST))


def cached(tmp_path):
    return make_pipeline(StandardScaler(), nuq.NTKClassifier(reg=1.0), memory=str(tmp_path))


# What is saved, and the error that it must give.
NOT_SAVED = {
    "not fitted": (nuq.NTKClassifier(), NotFittedError, "not fitted"),
    "not fitted pipeline": (
        make_pipeline(StandardScaler(), nuq.NTKClassifier()),
        NotFittedError,
        "not fitted",
    ),
    "another package's": (LogisticRegression().fit(X, LABELS), ValueError, "LogisticRegression"),
    "a step alone": (StandardScaler().fit(X), ValueError, "got StandardScaler"),
    "an architecture": (NET, ValueError, "got MLP"),
    "a class": (nuq.NTKClassifier, ValueError, "takes a fitted estimator"),
    "nothing": (None, ValueError, "got NoneType"),
    "unknown step": (
        make_pipeline(PCA(2), nuq.NTKClassifier(reg=1.0)).fit(X, LABELS),
        ValueError,
        r"PCA, which a file of data cannot hold. Steps that can be saved: ColumnTransformer",
    ),
    "function": (
        make_pipeline(FunctionTransformer(np.abs), nuq.NTKClassifier(reg=1.0)).fit(X, LABELS),
        ValueError,
        "FunctionTransformer",
    ),
    "object in an argument": (
        nuq.NTKClassifier(reg=1.0).fit(X, LABELS).set_params(progress=print),
        ValueError,
        r"NTKClassifier\.progress is the function print",
    ),
}


@pytest.mark.parametrize(("thing", "error", "message"), NOT_SAVED.values(), ids=NOT_SAVED)
def test_what_cannot_be_saved_says_why(thing, error, message, tmp_path):
    with pytest.raises(error, match=message):
        nuq.save(thing, tmp_path / "model.ntk")
    assert not list(tmp_path.iterdir())


def test_a_cache_is_refused(tmp_path):
    pipeline = cached(tmp_path / "cache").fit(X, LABELS)
    with pytest.raises(ValueError, match="a cache that may hold code"):
        nuq.save(pipeline, tmp_path / "model.ntk")


@pytest.fixture(scope="module")
def fitted():
    return fit(nuq.NTKClassifier, {"method": "gaussian", "uncertainty": "none", "reg": 1.0})


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


# Damage.


@pytest.fixture(scope="module")
def whole(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.ntk"
    nuq.save(fitted, path)
    return path.read_bytes()


@pytest.fixture
def refuses(tmp_path):
    def check(content, message):
        path = tmp_path / "model.ntk"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            nuq.load(path)

    return check


def test_truncated(whole, refuses):
    for length in [*range(0, 400, 7), *range(400, len(whole), 101), len(whole) - 1]:
        refuses(whole[:length], "is empty|is no file of|is damaged")


def test_any_changed_byte(whole, refuses):
    for place in [*range(0, 64), *range(64, len(whole), 53), *range(len(whole) - 90, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        refuses(bytes(changed), "is no file of|is damaged")


def test_appended_and_swapped(whole, refuses):
    refuses(whole + b"\0", "is damaged")
    refuses(whole + whole, "is damaged")
    refuses(b"\0" + whole, "is no file of")


def archive(entries, *, compression=zipfile.ZIP_STORED):
    """A file with a good checksum that holds what somebody else wrote."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in entries.items():
            written.writestr(name, content)
        written.comment = SEAL + b"0" * 64
    size = len(file.getvalue()) - 64
    return file.getvalue()[:size] + digest_of(file, size)


def entries_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def altered(whole, **changes):
    entries = entries_of(whole)
    tree = json.loads(entries["ntk_uq.json"])
    return archive({**entries, "ntk_uq.json": json.dumps({**tree, **changes})})


def test_what_the_forger_makes_is_read_if_it_is_right(whole, tmp_path, fitted):
    """Else the refusals below would show nothing."""
    (tmp_path / "model.ntk").write_bytes(altered(whole))
    assert_same_predictions(fitted, nuq.load(tmp_path / "model.ntk"))


def test_newer_format(whole, refuses):
    refuses(
        altered(whole, version=2, **{"written by": {"ntk_uq": "9.9"}}),
        r"format 2, of ntk_uq 9\.9; this is .* reads up to 1. Install a newer",
    )


def test_another_scikit_learn_warns(whole, tmp_path):
    path = tmp_path / "model.ntk"
    path.write_bytes(altered(whole, **{"written by": {"scikit-learn": "1.2.0"}}))
    with pytest.warns(UserWarning, match=r"written with scikit-learn 1\.2\.0"):
        nuq.load(path)


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


PICKLE = pickle.dumps(Exploit())
_buffer = io.BytesIO()
np.save(_buffer, np.array([Exploit()], object), allow_pickle=True)
PICKLED_ARRAY = _buffer.getvalue()

FOREIGN = {
    "text": b"a,b\n1,2\n",
    "pickle": PICKLE,
    "html": b"<html></html>" * 10,
    "zip": (lambda: archive({"other.json": "{}"}))(),
    "npz": PICKLED_ARRAY,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files(content, refuses):
    refuses(content, "is no file of nuq.save")


def estimator_tree(**parameters):
    return {"object": "ntk_uq.estimators.NTKClassifier", "parameters": parameters}


FORGED_MODELS = {
    "pickled array": {"array": 99},
    "no such array": {"array": 12345},
    "array by name": {"array": "../../etc/passwd"},
    "unknown class": {"object": "os.system", "parameters": {"command": "true"}},
    "class of this package": {"object": "ntk_uq.estimators._NTK", "parameters": {}},
    "function of this package": {"object": "ntk_uq.persistence.load", "parameters": {"path": "x"}},
    "class by another way": {"object": "ntk_uq.estimators.os.system", "parameters": {}},
    "unknown kind": {"pickle": "gASV"},
    "two kinds": {"tuple": [], "list": []},
    "empty kind": {},
    "number": 3,
    "nothing": None,
    "not an estimator": {"object": "ntk_uq.architectures.MLP", "parameters": {"width": 3}},
    "refused by the class": {"object": "ntk_uq.architectures.MLP", "parameters": {"width": -3}},
    "unknown parameter": estimator_tree(colour="red"),
    "not fitted": estimator_tree(),
    "object type": {"dtype": "evil"},
    "bad float": {"float": "one"},
    "deep": None,  # replaced below
    "unidentified architecture": estimator_tree(architecture={"supplied": "architecture"}),
    "cache": {
        "object": "sklearn.pipeline.Pipeline",
        "parameters": {"steps": [], "memory": "/tmp", "transform_input": None, "verbose": False},
    },
}


@pytest.mark.parametrize("name", FORGED_MODELS)
def test_forged_trees(name, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = {**entries_of(whole), "arrays/99.npy": PICKLED_ARRAY}
    tree = json.loads(entries["ntk_uq.json"])
    text = json.dumps({**tree, "model": FORGED_MODELS[name]})
    if name == "deep":
        text = text.replace('"model": null', '"model": ' + "[" * 100_000 + "]" * 100_000)
    Path("model.ntk").write_bytes(
        archive({"ntk_uq.json": text, **{k: v for k, v in entries.items() if k != "ntk_uq.json"}})
    )
    with pytest.raises(ValueError, match="holds no model that this ntk_uq"):
        nuq.load("model.ntk")
    assert not Path("exploited").exists()


def test_the_exploit_would_work(tmp_path, monkeypatch):
    """Else its absence would show nothing."""
    monkeypatch.chdir(tmp_path)
    np.load(io.BytesIO(PICKLED_ARRAY), allow_pickle=True)
    assert Path("exploited").exists()


def test_forged_archives(whole, refuses):
    entries = entries_of(whole)
    refuses(archive({"ntk_uq.json": "{"}), "holds no model")
    refuses(archive({"ntk_uq.json": "[]"}), "holds no model")
    refuses(archive({"ntk_uq.json": b"\xff"}), "holds no model")
    refuses(archive(entries, compression=zipfile.ZIP_DEFLATED), "is compressed")
    without_arrays = {"ntk_uq.json": entries["ntk_uq.json"]}
    refuses(archive(without_arrays), "holds no model")
    emptied = {name: b"" if name.endswith(".npy") else text for name, text in entries.items()}
    refuses(archive(emptied), "holds no model")


def test_an_array_that_claims_to_be_huge(whole, refuses):
    entries = entries_of(whole)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**5)}
    )
    (name, *_) = [name for name in entries if name.endswith(".npy")]
    refuses(archive({**entries, name: header.getvalue()}), "holds no model")


def test_networks_must_fit_the_architecture(tmp_path):
    nuq.save(fit(nuq.EnsembleClassifier, ENSEMBLE[0]), tmp_path / "model.ntk")
    entries = entries_of((tmp_path / "model.ntk").read_bytes())
    text = entries["ntk_uq.json"].decode()
    for old, new, message in [
        ('"width": 8', '"width": 9', "networks of another architecture"),
        ('"depth": 1', '"depth": 1000000000', "fewer parameters than layers"),
    ]:
        assert old in text
        (tmp_path / "model.ntk").write_bytes(
            archive({**entries, "ntk_uq.json": text.replace(old, new)})
        )
        with pytest.raises(ValueError, match=message):
            nuq.load(tmp_path / "model.ntk")


def places(node, place=()):
    """Where something could stand in a tree."""
    yield place
    if not isinstance(node, dict | list):
        return
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        yield from places(child, (*place, key))


FORGED = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5), st.sampled_from([[], {}, *FORGED_MODELS.values()]),
    st.dictionaries(
        st.sampled_from(["array", "scalar", "key", "objects", "tuple", "dict", "slice", "float",
                         "dtype", "scalar type", "path", "random state", "supplied", "object"]),
        st.one_of(st.integers(-1, 3), st.lists(st.integers(-1, 10**9), max_size=3)),
        min_size=1, max_size=2,
    ),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_forgery_is_read_or_refused(whole, tmp_path_factory, data):
    entries = entries_of(whole)
    tree = json.loads(entries["ntk_uq.json"])
    *way, last = data.draw(st.sampled_from([place for place in places(tree) if place]))
    node = tree
    for key in way:
        node = node[key]
    node[last] = data.draw(FORGED)
    path = tmp_path_factory.mktemp("any") / "model.ntk"
    path.write_bytes(archive({**entries, "ntk_uq.json": json.dumps(tree)}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was written with scikit-learn")
        try:
            message = repr(nuq.load(path)) and "model.ntk"
        except ValueError as error:
            message = str(error)
    assert "model.ntk" in message


def test_loading_changes_nothing_global(whole, tmp_path):
    (tmp_path / "model.ntk").write_bytes(whole)
    before = dict(jax.config.values)
    nuq.load(tmp_path / "model.ntk")
    assert dict(jax.config.values) == before
