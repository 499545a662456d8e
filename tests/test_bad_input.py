"""What cannot be used is refused: a table of calls, for every estimator, and what each is told."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import ntk_uq as nuq

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
    ("ntk", "method", "fast", 'method must be "exact" or "gaussian"'),
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
