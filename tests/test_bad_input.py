"""What cannot be used is refused: a table of calls, for every estimator, and what each is told."""

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import ntk_uq as nuq
from ntk_uq import analytic, ensemble, metrics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
Y = np.arange(12) % 3
NET = nuq.MLP(width=8, depth=1, activation="erf")
CLASSIFIERS = {
    "ntk": nuq.NTKClassifier(NET, n_draws=4),
    "ensemble": nuq.EnsembleClassifier(NET, n_members=1),
    "bayes": nuq.BayesianClassifier(NET, sampler="laplace"),
}
REGRESSORS = {
    "ntk regressor": nuq.NTKRegressor(NET, noise=0.3, n_draws=4),
    "ensemble regressor": nuq.EnsembleRegressor(NET, n_members=1, noise=0.3),
    "bayes regressor": nuq.BayesianRegressor(NET, noise=0.3, sampler="laplace"),
}
ESTIMATORS = {**CLASSIFIERS, **REGRESSORS}


def with_value(array, value):
    array = np.array(array, float)
    array[3, ...] = value
    return array


# What is wrong, the data, and what the message says.
BAD_DATA = [
    ("one axis", X[:, 0], Y, "Expected 2D array, got 1D array"),
    ("three axes", X[:, :, None], Y, "dim 3"),
    ("a number", 3.0, Y, "Expected 2D array, got scalar"),
    ("no points", X[:0], Y[:0], r"0 sample\(s\)"),
    ("no features", X[:, :0], Y, r"0 feature\(s\)"),
    ("one point", X[:1], Y[:1], "minimum of 2 is required"),
    ("missing", with_value(X, np.nan), Y, "X contains NaN"),
    ("infinite", with_value(X, np.inf), Y, "X contains infinity"),
    ("huge", X * 1e160, Y, "Features reach 2e.160"),
    ("text", [["a", "b"]] * 12, Y, "could not convert string to float: 'a'"),
    ("objects", np.array([[{}, {}]] * 12), Y, r"must be a string or a real number"),
    ("complex", X + 1j, Y, "Complex data not supported"),
    ("ragged", [[1, 2], [3]] * 6, Y, "inhomogeneous"),
    ("other lengths", X, Y[:5], r"inconsistent numbers of samples: \[12, 5\]"),
    ("no targets", X, None, "requires y to be passed"),
    ("missing targets", X, with_value(Y, np.nan), "y contains NaN"),
    ("infinite targets", X, with_value(Y, np.inf), "y contains infinity"),
    ("targets of three axes", X, np.zeros((12, 2, 2)), "dim 3"),
]
BAD_LABELS = [
    ("one class", np.zeros(12, int), "two classes"),
    ("real numbers", X[:, 0], "Unknown label type: continuous"),
    ("several columns", np.eye(3)[Y], "1d array|multilabel"),
    ("mixed", np.array([1, "a", 2.5] * 4, object), "[Uu]nknown label type|mix"),
]
BAD_TARGETS = [
    ("words", np.array(["a", "b", "c"] * 4), "could not convert string to float"),
    ("huge", X[:, 0] * 1e160, "Targets reach"),
]
BAD_POINTS = [
    ("fewer features", X[:, :2], "X has 2 features"),
    ("more features", np.c_[X, X], "X has 6 features"),
    ("one axis", X[0], "Expected 2D array, got 1D array"),
    ("no points", X[:0], r"0 sample\(s\)"),
    ("missing", with_value(X, np.nan), "X contains NaN"),
    ("infinite", with_value(X, -np.inf), "X contains infinity"),
    ("huge", X * 1e200, "Features reach"),
    ("text", [["a", "b", "c"]], "could not convert string to float"),
]
BAD_OPTIONS = [
    ("reg", -1.0, "reg must be at least 0"),
    ("reg", np.nan, "reg must be a finite number"),
    ("reg", np.inf, "reg must be a finite number"),
    ("reg", True, "reg must be a finite number"),
    ("reg", "much", "reg must be a"),
    ("reg", [1.0], "reg must be a finite number"),
    ("architecture", "mlp", "architecture takes an ntk_uq architecture"),
    ("architecture", nuq.MLP, "architecture takes an ntk_uq architecture"),
    ("random_state", "x", "cannot be used to seed"),
    ("random_state", -1, "Seed must be|random_state"),
    ("progress", "yes", "progress must be True, False or None"),
]
OWN_OPTIONS = [
    ("ntk", "method", "fast", 'method must be "exact", "gaussian" or "nystrom"'),
    ("ntk", "storage", "no such folder", "storage must be"),
    ("ntk", "prior_functions", "wide", "prior_functions must be"),
    ("ntk", "tol", 0.0, "tol must be positive"),
    ("ntk", "tol", 10.0, "tol must be below 1"),
    ("ntk", "checkpoint", 5, "checkpoint takes the path of a directory, or None; got 5"),
    ("ntk", "checkpoint", __file__, "can be no directory: .* is a file"),
    ("ntk", "n_inducing", 0, "n_inducing must be an integer, at least 1"),
    ("ntk", "uncertainty", "total", "uncertainty must be"),
    ("ntk", "n_draws", 0, "n_draws must be an integer, at least 1"),
    ("ntk", "n_draws", 2.5, "n_draws must be an integer"),
    ("ntk", "n_trajectories", 1, 'n_trajectories is for uncertainty="posterior"'),
    ("ntk", "n_trajectories", -1, "n_trajectories must be an integer"),
    ("ntk", "label_smoothing", 1.0, "label_smoothing must be below 1"),
    ("ntk", "label_smoothing", -0.1, "label_smoothing must be at least 0"),
    ("ntk", "reg", 0.0, "reg=0 with one-hot targets has no solution"),
    ("ntk", "tune", ("width",), "tune takes names among"),
    ("ntk", "tune", ("depth",), "needs a criterion"),
    ("ensemble", "n_members", 0, "n_members must be an integer, at least 1"),
    ("ensemble", "uncertainty", None, "uncertainty must be"),
    ("ensemble", "tol", np.nan, "tol must be a finite number"),
    ("ensemble", "checkpoint", 5, "checkpoint takes the path of a directory, or None; got 5"),
    ("ensemble", "checkpoint", f"{__file__}/run", "can be no directory: .* is a file"),
    ("ensemble", "max_iter", 1.5, "max_iter must be an integer"),
    ("ensemble", "optimizer", "adam", "optimizer takes an optax optimizer"),
    ("ensemble", "batch_size", 4, "batch_size needs an optimizer"),
    ("ensemble", "memory", 10, "one member takes about"),
    ("ensemble", "reg", 0.0, "reg=0 with one-hot targets has no solution"),
    ("bayes", "prior", "normal", "prior must be"),
    ("bayes", "sampler", "gibbs", "sampler must be"),
    ("bayes", "num_samples", 0, "num_samples must be"),
    ("bayes", "num_chains", -1, "num_chains must be"),
    ("bayes", "reg", 0.0, "reg=0 leaves no prior"),
    ("ntk regressor", "noise", 0.0, "noise must be positive"),
    ("ensemble regressor", "noise", -1.0, "noise must be at least 0"),
    ("bayes regressor", "noise", "small", "noise must be a finite number"),
]


def ids(table):
    """Numbered, since an option may be wrong in several ways."""
    return [f"{i}-{'-'.join(str(part) for part in row[:2])}" for i, row in enumerate(table)]


def copy(name):
    return ESTIMATORS[name].__class__(**ESTIMATORS[name].get_params(deep=False))


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(request):
    return copy(request.param).fit(X, Y)


@pytest.mark.parametrize(
    ("points", "targets", "message"),
    [row[1:] for row in BAD_DATA],
    ids=[row[0].replace(" ", "-") for row in BAD_DATA],
)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_data(name, points, targets, message):
    # A dictionary is no number: NumPy says so by another exception.
    with pytest.raises((ValueError, TypeError), match=message):
        copy(name).fit(points, targets)


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [(n, *row[1:]) for n in CLASSIFIERS for row in BAD_LABELS]
    + [(n, *row[1:]) for n in REGRESSORS for row in BAD_TARGETS],
)
def test_targets(name, targets, message):
    with pytest.raises((ValueError, TypeError), match=message):
        copy(name).fit(X, targets)


@pytest.mark.parametrize(
    ("points", "message"),
    [row[1:] for row in BAD_POINTS],
    ids=[row[0].replace(" ", "-") for row in BAD_POINTS],
)
def test_points(fitted, points, message):
    for method in ("predict", "predict_distribution"):
        with pytest.raises(ValueError, match=message):
            getattr(fitted, method)(points)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(("option", "value", "message"), BAD_OPTIONS, ids=ids(BAD_OPTIONS))
def test_options(name, option, value, message):
    with pytest.raises(ValueError, match=message):
        copy(name).set_params(**{option: value}).fit(X, Y)


@pytest.mark.parametrize(("name", "option", "value", "message"), OWN_OPTIONS, ids=ids(OWN_OPTIONS))
def test_own_options(name, option, value, message):
    with pytest.raises(ValueError, match=message):
        copy(name).set_params(**{option: value}).fit(X, Y)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_huge_numbers_before_they_are_standardised(name):
    automatic = copy(name).set_params(architecture=None)
    with pytest.raises(ValueError, match="Features reach"):
        automatic.fit(X * 1e200, Y)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_not_fitted(name):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        copy(name).predict(X)
    with pytest.raises(ValueError, match="Invalid parameter 'regularisation'"):
        copy(name).set_params(regularisation=1.0)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_failed_fit_leaves_the_estimator_as_it_was(name):
    estimator = copy(name).fit(X, Y)
    before = estimator.predict(X)
    with pytest.raises(ValueError, match="X contains NaN"):
        estimator.fit(with_value(X, np.nan), Y)
    np.testing.assert_array_equal(estimator.predict(X), before)


FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
DAYS = pd.date_range("2020-01-01", periods=12)


def with_column(values):
    return FRAME.assign(b=values)


def gap(values, missing):
    """Values, and one that is missing in row 3."""
    return [missing if row == 3 else value for row, value in enumerate(values)]


# Frames and arrays that are no numbers, and where that is said to be.
BAD_FRAMES = [
    ("dates", with_column(DAYS), "column 'b', holds dates"),
    ("dates with a zone", with_column(DAYS.tz_localize("UTC")), "column 'b', holds dates"),
    # NumPy makes numbers of these where no other column forbids it.
    ("dates only", pd.DataFrame({"b": DAYS}), "column 'b', holds dates"),
    ("array of dates", DAYS.to_numpy()[:, None], "X holds dates, datetime64"),
    ("durations", pd.DataFrame({"b": DAYS - DAYS[0]}), "column 'b', holds durations"),
    ("array of durations", (DAYS - DAYS[0]).to_numpy()[:, None], "holds durations"),
    ("months", with_column(DAYS.to_period("D")), "column 'b', row 0: .*not 'Period'"),
    ("one date", with_column(gap(range(12), DAYS[0])), "column 'b', row 3: .*not 'Timestamp'"),
    ("text", with_column(list("abc") * 4), "column 'b', row 0: .*OneHotEncoder"),
    ("one text", with_column(gap(range(12), "?")), r"column 'b', row 3: .*'\?'.*TableEncoder"),
    ("text dtype", with_column(pd.array(list("abc") * 4, "string")), "column 'b', row 0"),
    ("categories", with_column(pd.Categorical(list("abc") * 4)), "column 'b', is categorical"),
    ("numeric categories", with_column(pd.Categorical(Y)), "column 'b', is categorical"),
    ("NA", with_column(pd.Series(gap(X[:, 0], pd.NA), dtype=object)), "NaN .*column 'b', row 3"),
    ("None", with_column(pd.Series(gap(X[:, 0], None), dtype=object)), "NaN .*column 'b', row 3"),
    ("Float64", with_column(pd.array(gap(X[:, 0], pd.NA), "Float64")), "NaN .*column 'b', row 3"),
    ("boolean", with_column(pd.array(gap(Y > 0, pd.NA), "boolean")), "NaN .*column 'b', row 3"),
    ("NaN", with_column(gap(X[:, 0], np.nan)), "NaN .*column 'b', row 3.*SimpleImputer"),
    ("infinite", with_column(gap(X[:, 0], np.inf)), "infinity in column 'b', row 3"),
    ("objects with NA", np.array([gap(r, 0) for r in X.tolist()] + [[pd.NA] * 3]), "row 12 and 2"),
]
NUMERIC_FRAMES = [
    FRAME.astype("Float64"),
    FRAME.astype(object),
    with_column(pd.array(Y, "Int64")),
    with_column(pd.array(Y > 0, "boolean")),
    with_column(Y > 0),
]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_frames(fitted_to_frame, name):
    for label, frame, message in BAD_FRAMES:
        with pytest.raises((ValueError, TypeError), match=message):
            copy(name).fit(frame, Y[np.arange(len(frame)) % 12])
        if list(getattr(frame, "columns", ())) == ["a", "b", "c"]:
            with pytest.raises((ValueError, TypeError), match=message):
                fitted_to_frame[name].predict(frame)
        assert label  # of the case, in a traceback
    for frame in NUMERIC_FRAMES:
        expected = fitted_to_frame[name].predict(
            pd.DataFrame(frame.to_numpy(float), columns=[*"abc"])
        )
        np.testing.assert_array_equal(fitted_to_frame[name].predict(frame), expected)


@pytest.fixture(scope="module")
def fitted_to_frame():
    return {name: copy(name).fit(FRAME, Y) for name in ESTIMATORS}


WORDS = list("abc") * 4
BAD_SERIES = [
    ("NA", pd.Series(gap(WORDS, pd.NA))),
    ("None", np.array(gap(WORDS, None), object)),
    ("NaN", np.array(gap(WORDS, np.nan), object)),
    ("list with NaN", gap(WORDS, np.nan)),  # an array of text would have a class "nan"
    ("numbers and None", np.array(gap(Y, None), object)),
    ("Int64", pd.Series(gap(Y, pd.NA), dtype="Int64")),
    ("boolean", pd.Series(gap(Y > 0, pd.NA), dtype="boolean")),
    ("string", pd.Series(gap(WORDS, pd.NA), dtype="string")),
    ("category", pd.Series(gap(WORDS, None), dtype="category")),
    ("float", np.array(gap(Y, np.nan), float)),
]


@pytest.mark.parametrize(("case", "labels"), BAD_SERIES, ids=[case for case, _ in BAD_SERIES])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_missing_labels(name, case, labels):
    with pytest.raises(ValueError, match=r"y contains NaN .* in row 3\. Leave such rows out"):
        copy(name).fit(X, labels)


@pytest.mark.parametrize("name", REGRESSORS)
def test_missing_targets(name):
    for values in ([*gap(X[:, 0], None)], pd.Series(gap(X[:, 0], pd.NA), dtype="Float64")):
        with pytest.raises(ValueError, match=r"y contains NaN .* in row 3"):
            copy(name).fit(X, values)
    with pytest.raises(ValueError, match="y, column 'late', holds dates"):
        copy(name).fit(X, pd.DataFrame({"early": X[:, 0], "late": DAYS}))
    for values, message in (
        (DAYS, "y holds dates"), (DAYS - DAYS[0], "y holds durations"),
        (WORDS, "row 0: .*classifiers"), (pd.Categorical(WORDS), "categorical"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            copy(name).fit(X, values)


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_labels_that_are_no_names(name):
    for labels, message in (
        (DAYS, "dates or durations"), (DAYS - DAYS[0], "dates or durations"),
        (["a", 1, "b"] * 4, "mix of text and numbers, 'a' in row 0 and 1 in row 1"),
        (pd.cut(X[:, 0], 3), r"row 0 is Interval.*astype\(str\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            copy(name).fit(X, labels)
    # scikit-learn makes real numbers of these.
    for labels in (pd.array(Y, "Int64"), pd.array(Y > 0, "boolean")):
        classes = copy(name).fit(X, pd.Series(labels)).classes_
        assert classes.dtype.kind == np.asarray(labels).dtype.kind


KERNELS, KEY = NET.kernels(X), jax.random.key(0)
HOT = np.eye(3)[Y]
PREDICTION = nuq.SamplePrediction(np.zeros((2, 12, 3)))
CALLS = [
    (lambda: nuq.MLP(activation="rely"), "one of relu, erf, gelu.*or give the function itself"),
    (lambda: nuq.MLP(residual="yes"), "residual must be True or False"),
    (lambda: nuq.NTKClassifier(NET).fit(np.zeros((12, 4, 4, 1)), Y), "dim 4.*ConvNet"),
    (lambda: nuq.NTKClassifier(reg="evidence", tune="depth").fit(X, Y), "tune takes a tuple"),
    (lambda: nuq.NTKClassifier(reg="evidence", tune=None).fit(X, Y), "tune takes a tuple"),
    (lambda: nuq.EnsembleClassifier(NET, reg="cv").fit(X, Y), "NTK estimators choose it"),
    (lambda: nuq.EnsembleClassifier(nuq.Architecture(lambda *_, rngs: "net")).fit(X, Y),
     "must return a flax.nnx.Module; it returned str"),
    (lambda: NET.kernels(DAYS.to_numpy()[:, None]), "date or a duration"),
    (lambda: analytic.gaussian_predictor(KERNELS, HOT, 1.0, nuq.Categorical(), "all"),
     "uncertainty must be"),
    (lambda: analytic.gaussian_predictor(KERNELS, Y, 1.0, nuq.Categorical(), "none"),
     "one-hot rows"),
    (lambda: analytic.gaussian_predictor(KERNELS.ntk, HOT, 1.0, nuq.Categorical(), "none"),
     r"kernels takes Kernels\(nngp, ntk\)"),
    (lambda: analytic.exact_predictor(KEY, KERNELS, HOT, 1.0, nuq.Categorical(), "none", 0),
     "n_draws must be"),
    (lambda: ensemble.train_ensemble(KEY, NET, X, HOT, nuq.Categorical(), reg=1.0, n_members=0),
     "n_members must be"),
    (lambda: metrics.scores(Y, PREDICTION), r"prediction.proba\(\)"),
    (lambda: PREDICTION.log_density(Y), r"shape \(12, 3\).*one-hot"),
    # One axis would broadcast to a matrix of all targets at all points.
    (lambda: nuq.GaussianPrediction(np.zeros((12, 1)), np.ones((12, 1, 1)), nuq.Gaussian())
     .log_density(X[:, 0]), r"shape \(12, 1\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CALLS, ids=range(len(CALLS)))
def test_calls_of_newcomers(call, message):
    with pytest.raises(ValueError, match=message):
        call()
