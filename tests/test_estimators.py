"""The three classifiers as their users meet them: contract, agreement, and bad input."""

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_problem import FEW, LABELS, NET, X_TEST, X
from stand_ins import default_features

from ntk_uq import MLP, BayesianClassifier, EnsembleClassifier, NTKClassifier

CLASSIFIERS = {
    "ntk-exact": NTKClassifier(NET, n_draws=4),
    "ntk-gaussian": NTKClassifier(NET, method="gaussian"),
    "ensemble": EnsembleClassifier(NET, n_members=3),
    "bayes": BayesianClassifier(NET, **FEW),
}
Y = LABELS
# Twenty draws are not many, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")


@pytest.fixture(scope="module", params=CLASSIFIERS)
def fitted(request):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone(CLASSIFIERS[request.param]).fit(X, Y)


def test_probabilities_and_labels(fitted):
    proba = fitted.predict_proba(X_TEST)
    assert proba.shape == (8, 3)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(fitted.predict(X_TEST), proba.argmax(axis=1))
    assert fitted.n_features_in_ == 3
    assert fitted.fit_seconds_ > 0


def test_probabilities_do_not_depend_on_the_other_points(fitted):
    whole = fitted.predict_proba(X_TEST)
    order = np.array([7, 2, 5])
    np.testing.assert_allclose(fitted.predict_proba(X_TEST[order]), whole[order], atol=1e-9)
    one_by_one = np.concatenate([fitted.predict_proba(x[None]) for x in X_TEST])
    np.testing.assert_allclose(one_by_one, whole, atol=1e-9)


def test_uncertainties_add_up(fitted):
    pred = fitted.predict_distribution(X_TEST)
    assert pred.mean.shape == (8, 3)
    assert pred.cov.shape == (8, 3, 3)
    np.testing.assert_allclose(pred.total_uncertainty, pred.aleatoric + pred.epistemic, atol=1e-12)
    assert np.all(pred.epistemic >= 0)
    assert np.all(pred.total_uncertainty <= np.log(3) + 1e-12)
    assert pred.sample(jax.random.key(0), 4).shape == (4, 8, 3)


def test_string_labels_come_back(fitted):
    names = np.array(["setosa", "versicolor", "virginica"])
    renamed = clone(fitted).fit(X, names[Y])
    assert list(renamed.classes_) == sorted(names)
    np.testing.assert_array_equal(renamed.predict(X_TEST), names[fitted.predict(X_TEST)])


def test_same_seed_same_predictions(fitted):
    again = clone(fitted).fit(X, Y).predict_proba(X_TEST)
    np.testing.assert_array_equal(again, fitted.predict_proba(X_TEST))


def test_without_an_architecture_features_are_standardised():
    scale, shift = np.array([1e3, 1.0, 1e-3]), np.array([5.0, -2.0, 1e4])
    plain = NTKClassifier(reg=1.0, n_draws=4).fit(X, Y).predict_proba(X_TEST)
    moved = NTKClassifier(reg=1.0, n_draws=4).fit(X * scale + shift, Y)
    np.testing.assert_allclose(moved.predict_proba(X_TEST * scale + shift), plain, atol=1e-5)
    by_hand = NTKClassifier(MLP(), n_draws=4).fit(default_features(X, X), Y)
    found = by_hand.predict_proba(default_features(X, X_TEST))
    np.testing.assert_allclose(found, plain, atol=1e-10)


def test_works_in_scikit_learns_machinery():
    X_iris, y_iris = load_iris(return_X_y=True)
    # Flowers that differ, and folds of one size: repeated rows become weights of fewer points.
    first = np.sort(np.unique(X_iris, axis=0, return_index=True)[1])
    rows = np.concatenate([first[y_iris[first] == k][:48] for k in range(3)])
    model = make_pipeline(StandardScaler(), NTKClassifier(NET, n_draws=16))
    scores = cross_val_score(model, X_iris[rows], y_iris[rows], scoring="neg_log_loss", cv=3)
    assert np.mean(scores) > -0.25  # predicting the class frequencies scores -log 3 = -1.10


@pytest.mark.slow
def test_posterior_is_wider_than_the_spread_over_initialisations():
    """GP(0, Theta / reg) has more variance than GP(0, K) for reg = 1, as Theta >= K."""
    ntk = NTKClassifier(NET, n_draws=64).fit(X, Y).predict_distribution(X_TEST)
    posterior = BayesianClassifier(NET, num_warmup=100, num_samples=200).fit(X, Y)
    ratio = posterior.predict_distribution(X_TEST).std / ntk.std
    assert np.mean(ratio) > 1.2


def test_user_configuration_of_jax_changes_nothing(fitted):
    assert not jax.config.jax_enable_x64
    with jax.enable_x64(True):
        again = clone(fitted).fit(X, Y).predict_proba(X_TEST)
    np.testing.assert_array_equal(again, fitted.predict_proba(X_TEST))


def _bad_inputs():
    nan, inf = X.copy(), X.copy()
    nan[3, 1], inf[0, 0] = np.nan, np.inf
    yield "X holds NaN", nan, Y, "NaN"
    yield "X holds infinity", inf, Y, "infinity"
    yield "X is 1-dimensional", X[:, 0], Y, "Reshape your data"
    yield "X is 3-dimensional", X[None], Y, "dim 3"
    yield "X is text", np.full(X.shape, "a"), Y, "convert"
    yield "X is empty", X[:0], Y[:0], "0 sample"
    yield "X has no features", X[:, :0], Y, "0 feature"
    yield "lengths differ", X, Y[:-1], "inconsistent"
    yield "one class only", X, np.zeros(12, int), "at least two classes"
    yield "one point", X[:1], Y[:1], "minimum of 2"
    yield "labels are real numbers", X, Y + 0.5, "Unknown label type"
    yield "labels hold NaN", X, np.where(Y == 0, np.nan, Y), "NaN"
    yield "labels are a matrix", X, np.stack([Y, Y], axis=1), "1d array"
    yield "no labels", X, None, "y"


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [pytest.param(*case[1:], id=case[0]) for case in _bad_inputs()],
)
def test_bad_data(name, data, labels, message):
    with pytest.raises(ValueError, match=message):
        clone(CLASSIFIERS[name]).fit(data, labels)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (NTKClassifier(reg=-1.0), "reg must be at least 0"),
        (NTKClassifier(reg=np.nan), "reg must be a finite number"),
        (NTKClassifier(reg="large"), "reg must be"),
        (NTKClassifier(reg=0), "one-hot targets.*label_smoothing"),
        (EnsembleClassifier(reg=0), "one-hot targets.*label_smoothing"),
        (BayesianClassifier(reg=0), "no prior"),
        (NTKClassifier(label_smoothing=1.0), "label_smoothing must be below 1"),
        (NTKClassifier(label_smoothing=-0.1), "label_smoothing must be at least 0"),
        (NTKClassifier(method="approximate"), 'method must be "exact", "gaussian" or "nystrom"'),
        (NTKClassifier(uncertainty="epistemic"), "uncertainty must be"),
        (EnsembleClassifier(uncertainty="all"), "uncertainty must be"),
        (NTKClassifier(n_draws=0), "n_draws must be an integer, at least 1"),
        (NTKClassifier(n_draws=2.5), "n_draws must be an integer"),
        (EnsembleClassifier(n_members=0), "n_members must be an integer, at least 1"),
        (EnsembleClassifier(n_members=True), "n_members must be an integer"),
        (BayesianClassifier(prior="flat"), 'prior must be "ntk"'),
        (BayesianClassifier(num_chains=0), "num_chains must be an integer"),
        (BayesianClassifier(num_samples=3), "num_samples must be at least 4"),
        (NTKClassifier(architecture="mlp"), "architecture takes"),
        (NTKClassifier(architecture=MLP), "architecture takes"),
        (NTKClassifier(random_state="zero"), "seed"),
    ],
    ids=lambda v: str(v)[:60],
)
def test_bad_arguments(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, Y)


@pytest.mark.slow
def test_prior_without_reg_says_that_reg_has_no_effect():
    model = BayesianClassifier(NET, prior="nngp", reg=2.0, num_warmup=10, num_samples=10)
    with pytest.warns(UserWarning, match="reg=2.0 has no effect"):
        model.fit(X, Y)


def test_bad_test_points(fitted):
    with pytest.raises(ValueError, match="expecting 3 features"):
        fitted.predict_proba(X_TEST[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict(np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="not fitted"):
        clone(fitted).predict(X_TEST)


def test_sampling_too_much_is_refused_before_it_starts():
    big = np.random.default_rng(0).normal(size=(5000, 2))
    with pytest.raises(ValueError, match=r"NUTS on 5000 points and 10 outputs would take"):
        BayesianClassifier(NET).fit(big, np.arange(5000) % 10)
