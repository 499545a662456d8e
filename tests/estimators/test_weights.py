"""Weights of points and classes: a weight of two is the row twice."""

import tracemalloc

import jax
import numpy as np
import optax
import pytest
from scipy import stats
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data
from small_problem import FEW, NET

import ntk_uq as nuq
from ntk_uq import selection
from ntk_uq.estimators.weights import counted, distinct
from ntk_uq.likelihoods import Categorical, Gaussian

RNG = np.random.default_rng(0)
# Of sixteen points twelve count.
X, X_TEST = RNG.normal(size=(16, 3)), RNG.normal(size=(8, 3))
LABELS = (X[:, 0] + 0.7 * RNG.normal(size=16) > 0).astype(int)
VALUES = X[:, 0] + 0.3 * RNG.normal(size=16)
WEIGHTS = np.tile([2, 0, 1, 3], 4)
REPEATED = RNG.permutation(np.repeat(np.arange(16), WEIGHTS))


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    "model",
    [
        nuq.NTKClassifier(NET, reg="cv", n_draws=4),
        nuq.NTKClassifier(NET, reg="evidence", method="gaussian", class_weight="balanced"),
        nuq.NTKRegressor(NET, reg="cv"),
        nuq.NTKRegressor(NET, noise=0.3, tune=("b_std",), reg="evidence"),
        nuq.EnsembleClassifier(NET, n_members=2, class_weight={1: 3.0}),
        nuq.EnsembleRegressor(NET, n_members=2, noise=0.3),
        nuq.BayesianClassifier(NET, sampler="laplace", class_weight="balanced"),
        nuq.BayesianRegressor(NET, sampler="laplace", noise=0.3),
        nuq.BayesianRegressor(NET, prior="weights", sampler="laplace", noise=0.3),
    ],
    ids=[
        "ntk-cv",
        "ntk-evidence",
        "ntk-regression-cv",
        "ntk-regression-evidence",
        "ensemble",
        "ensemble-regression",
        "laplace",
        "laplace-regression",
        "network-laplace",
    ],
)
def test_weights_are_repetitions(model):
    """In what is chosen, and in the log probability of every outcome, in any order of rows."""
    y = LABELS if hasattr(model, "class_weight") else VALUES
    weighted = model.fit(X, y, sample_weight=WEIGHTS).predict_distribution(X_TEST)
    reg = getattr(model, "reg_", None)
    repeated = model.fit(X[REPEATED], y[REPEATED]).predict_distribution(X_TEST)
    assert reg == getattr(model, "reg_", None)
    outcomes = np.eye(2) if y is LABELS else [[0.0], [1.0]]
    for outcome in outcomes:
        truth = np.tile(outcome, (8, 1))
        # Laplace's mode of a network is found to a millionth of a posterior standard deviation.
        np.testing.assert_allclose(
            weighted.log_density(truth), repeated.log_density(truth), rtol=0, atol=1e-5
        )


@pytest.mark.cases(1)
@pytest.mark.parametrize("uncertainty", ["none", "posterior"])
def test_held_out_scores_of_repeated_rows(uncertainty):
    """The rows themselves stand in the kernels here; in the estimators they become weights."""
    kept = np.flatnonzero(WEIGHTS)  # into folds of one size
    rows = np.repeat(np.arange(len(kept)), WEIGHTS[kept])
    points, y = X[kept], np.eye(2)[LABELS[kept]]
    folds = [np.arange(k, len(kept), 3) for k in range(3)]
    with jax.enable_x64(True):
        asked = ([0.1, 1.0], Categorical(), [uncertainty])
        weighted = selection.cross_validate(
            NET.kernels(points), y, *asked, folds, weights=WEIGHTS[kept]
        )
        repeated = selection.cross_validate(
            NET.kernels(points[rows]),
            y[rows],
            *asked,
            [np.flatnonzero(np.isin(rows, fold)) for fold in folds],
        )
    np.testing.assert_allclose(weighted[..., rows], repeated, rtol=1e-4)


def test_evidence_of_repeated_rows():
    """By SciPy, of all rows together."""
    kept = np.flatnonzero(WEIGHTS)
    rows = np.repeat(kept, WEIGHTS[kept])
    choice = selection.choose(
        np.random.default_rng(0), NET, X[kept], VALUES[kept, None], Gaussian(0.3), "evidence",
        uncertainty="posterior", weights=WEIGHTS[kept].astype(float),
    )  # fmt: skip
    ntk = NET.kernels(X[rows]).ntk
    for reg, value in zip(choice.curve.regs[6:], choice.curve.scores[0, 6:], strict=True):
        covariance = ntk / reg + 0.09 * np.eye(len(rows))
        expected = stats.multivariate_normal(cov=covariance).logpdf(VALUES[rows])
        assert value == pytest.approx(expected, rel=1e-6)


def test_classes_are_balanced_as_scikit_learn_does():
    model = nuq.NTKClassifier(NET, reg=1.0, method="gaussian")
    for class_weight in ("balanced", {0: 5.0}):
        by_class = model.set_params(class_weight=class_weight).fit(X, LABELS).predict_proba(X_TEST)
        weights = compute_sample_weight(class_weight, LABELS)
        by_point = model.set_params(class_weight=None).fit(X, LABELS, sample_weight=weights)
        np.testing.assert_allclose(by_class, by_point.predict_proba(X_TEST), atol=1e-10)


def test_weights_that_are_all_one_change_nothing():
    model = nuq.NTKClassifier(NET, reg=1.0, n_draws=4)
    plain = model.fit(X, LABELS).predict_proba(X_TEST)
    weighted = model.fit(X, LABELS, sample_weight=np.ones(16)).predict_proba(X_TEST)
    np.testing.assert_array_equal(plain, weighted)


def test_weights_that_cannot_be():
    model = nuq.NTKClassifier(NET, reg=1.0)
    with pytest.raises(ValueError, match="class_weight must be positive"):
        model.set_params(class_weight={0: 0.0}).fit(X, LABELS)
    with pytest.raises(ValueError, match="class_weight"):
        model.set_params(class_weight="even").fit(X, LABELS)
    with pytest.raises(ValueError, match="Negative values in data"):
        model.set_params(class_weight=None).fit(X, LABELS, sample_weight=-np.ones(16))
    with pytest.warns(UserWarning, match="reg is 16 times as strong"):
        model.fit(X, LABELS, sample_weight=np.full(16, 1 / 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        nuq.NTKClassifier(NET, reg=1.0, n_draws=4),
        nuq.NTKRegressor(NET, noise=0.3),
        nuq.BayesianClassifier(NET, num_warmup=4, num_samples=4, num_chains=1),
        nuq.BayesianRegressor(NET, sampler="laplace", noise=0.3),
    ],
    ids=lambda m: type(m).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_check_of_scikit_learn(model):
    """The one that is hard; tests/test_sklearn_contract.py runs all of them."""
    check_sample_weight_equivalence_on_dense_data(type(model).__name__, model)


@pytest.mark.filterwarnings("ignore")
def test_rows_of_the_posterior_stay_those_that_were_given():
    model = nuq.BayesianClassifier(NET, sampler="ess", **FEW)
    model.fit(X[REPEATED], LABELS[REPEATED])
    tree = model.posterior_
    assert tree["posterior"]["f"].sizes["point"] == len(REPEATED)
    f = tree["posterior"]["f"].to_numpy()
    same = [np.flatnonzero(REPEATED == row) for row in np.unique(REPEATED)]
    assert all(np.array_equal(f[:, :, rows[0]], f[:, :, rows[-1]]) for rows in same)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", [[0.0, -0.0, 1.0, -2.5], [0.0, 1.0, np.nan]])
def test_equal_rows_are_those_of_numpy(values, dtype):
    """In its order, the first of each; gaps in one column are equal to one another."""
    points = RNG.choice(values, size=(60, 3)).astype(dtype)
    targets = np.eye(2)[RNG.integers(0, 2, 60)]
    weights = RNG.uniform(size=60)
    rows = np.column_stack([np.nan_to_num(points), np.isnan(points), targets])
    _, first, member = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    assert len(first) < 60
    found = counted(points, targets, weights)
    expected = points[first], targets[first], np.bincount(member.ravel(), weights), member.ravel()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].dtype == np.float64


def test_halves_of_a_point_are_one():
    """Each of its rows counts half, and all points are one then: that is not all rows as ones."""
    halves, labels = np.concatenate([X, X[:1]]), np.append(LABELS, LABELS[0])
    weights = np.array([0.5, *np.ones(15), 0.5])
    model = nuq.NTKClassifier(NET, reg=1.0, method="gaussian")
    whole = model.fit(X, LABELS).predict_proba(X_TEST)
    found = model.fit(halves, labels, sample_weight=weights).predict_proba(X_TEST)
    np.testing.assert_allclose(found, whole, atol=1e-10)


def test_rows_that_all_differ_are_not_copied():
    targets = np.eye(2)[LABELS]
    assert distinct(X, targets, None)[0] is X
    tracemalloc.start()
    many = np.random.default_rng(0).normal(size=(1000, 500))
    before, _ = tracemalloc.get_traced_memory()
    distinct(many, np.zeros((1000, 1)), None)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most - before < many.nbytes / 10


@pytest.mark.filterwarnings("ignore:Hardly anything is learnt")
def test_points_in_a_file_are_copied_twice(tmp_path):
    """In double precision, for what is computed of them, and for the device."""
    features = RNG.normal(size=(2000, 1000)).astype(np.float32)
    np.save(tmp_path / "x.npy", features)
    labels = (features[:, 0] > 0).astype(int)
    model = nuq.EnsembleClassifier(
        nuq.MLP(width=2, depth=1), 1, uncertainty="none", optimizer=optax.adam(0.01),
        batch_size=500, max_iter=1,
    )  # fmt: skip
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = model.fit(features.astype(float), labels).predict_proba(features[:5])  # and compiles
    tracemalloc.start()
    found = model.fit(mapped, labels).predict_proba(features[:5])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, whole)
    # Two in double precision, one in single, and what else a fit takes.
    assert most < 4 * mapped.nbytes
