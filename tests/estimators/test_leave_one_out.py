"""Leave-one-out of estimators against refits, by scikit-learn and by the estimators themselves."""

import warnings
from functools import partial

import arviz as az
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ntk_uq as nuq

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
TARGET = np.sin(X[:, 0]) + 0.2 * RNG.normal(size=12)
LABELS = np.where(TARGET > 0, "up", "down")


@pytest.mark.parametrize("method", ["gaussian", "exact"])
def test_regression_against_refits_by_scikit_learn(method):
    kernel = RBF(0.8)
    regressor = nuq.NTKRegressor(kernel=kernel, reg=0.5, noise=0.3, method=method).fit(X, TARGET)
    found = nuq.loo(regressor, X, TARGET)
    process = GaussianProcessRegressor(2.0 * kernel, alpha=0.3**2, optimizer=None)
    for i in (0, 7):
        left = np.arange(12) != i
        mean, std = process.fit(X[left], TARGET[left]).predict(X[[i]], return_std=True)
        expected = stats.norm.logpdf(TARGET[i], mean[0], np.hypot(std[0], 0.3))
        assert found.elpd_i.values[i] == pytest.approx(expected, abs=1e-10)
    assert found.elpd == pytest.approx(found.elpd_i.values.sum())
    assert found.p > 0
    assert (found.n_samples, found.n_data_points, found.pareto_k) == (0, 12, None)


@pytest.mark.slow
def test_rows_weights_and_units():
    """Repeated, weighted and left-out rows, two outputs, standardised: as refits say."""
    rows = np.r_[0:5, 0:2]
    y = np.stack([TARGET[rows], 5 - 2 * TARGET[rows]], axis=1)
    weights = RNG.uniform(0.5, 2, 7)
    weights[3] = 0
    regressor = nuq.NTKRegressor(reg=0.7, noise=0.3).fit(X[rows], y, weights)
    found = nuq.loo(regressor, X[rows], y, weights)
    assert list(found.elpd_i["point"].values) == [0, 1, 2, 4, 5, 6]
    folds = np.insert(np.arange(6), 3, 0)  # what counts nothing is in no fold
    refits = nuq.loo_kfold(regressor, X[rows], y, weights, folds=folds)
    np.testing.assert_allclose(found.elpd_i, refits.elpd_i, rtol=1e-8)
    np.testing.assert_allclose(found.p_loo_i, refits.p_kfold_i, rtol=1e-8)
    assert np.array_equal(refits.elpd_i["point"], found.elpd_i["point"])


@pytest.mark.parametrize("weights", [None, np.r_[2.0, np.ones(11)]], ids=["alike", "weighted"])
def test_the_table_of_fit(weights):
    """Categories and gaps, as their features in a pipeline's last step."""
    table = pd.DataFrame(X, columns=["size", "mass"]).assign(kind=np.where(X[:, 1] > 0, "a", "b"))
    table.loc[3, "size"] = None
    settings = {"reg": 1.0, "noise": 0.3}
    whole = nuq.NTKRegressor(nuq.MLP(), **settings)
    for leave_out in (nuq.loo, partial(nuq.loo_kfold, k=3)):
        by_itself = nuq.NTKRegressor(**settings).fit(table, TARGET, weights)
        found = leave_out(by_itself, table, TARGET, weights)
        assert found.elpd == pytest.approx(found.elpd_i.values.sum())
    features = nuq.TableEncoder().fit(table, sample_weight=weights).transform(table)
    centred = TARGET - np.average(TARGET, weights=weights)
    scale = np.sqrt(np.average(centred**2, weights=weights))
    scaled = whole.set_params(noise=0.3 / scale).fit(features, centred / scale, weights)
    expected = nuq.loo(scaled, features, centred / scale, weights)
    found = nuq.loo(by_itself, table, TARGET, weights)
    np.testing.assert_allclose(found.elpd_i, expected.elpd_i - np.log(scale), atol=1e-6)


def test_a_sampled_regression_is_exact_and_compares():
    """The draws are not looked at: another sampler has the same leave-one-out."""
    settings = {"architecture": nuq.MLP(), "noise": 0.3}
    bayes = nuq.BayesianRegressor(sampler="laplace", **settings).fit(X, TARGET)
    limit = nuq.NTKRegressor(reg=1.0, **settings).fit(X, TARGET)
    narrow = nuq.NTKRegressor(reg=1.0, uncertainty="initialization", **settings).fit(X, TARGET)
    results = {
        name: nuq.loo(one, X, TARGET)
        for name, one in {"bayes": bayes, "limit": limit, "narrow": narrow}.items()
    }
    np.testing.assert_allclose(results["bayes"].elpd_i, results["limit"].elpd_i, rtol=1e-8)
    table = az.compare(results, round_to="none")
    assert table.loc["limit", "elpd"] == pytest.approx(results["limit"].elpd)
    assert table["weight"].sum() == pytest.approx(1)
    assert (table["diag_elpd"] == "").all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_classes_by_chains_against_refits():
    """A wide prior, where Pareto's k of plain importance sampling is high."""
    settings = {"reg": 0.05, "num_samples": 1000}
    classifier = nuq.BayesianClassifier(nuq.MLP(), **settings).fit(X, LABELS)
    found = nuq.loo(classifier, X, LABELS)
    refits = nuq.loo_kfold(classifier, X, LABELS, k=12)
    assert az.loo(classifier.posterior_, pointwise=True).pareto_k.max() > 0.7
    assert found.pareto_k.max() < 0.7
    # Either from 2,000 draws, of which at least 400 are effective: five standard errors of a
    # density whose logarithm has a standard deviation of about one.
    np.testing.assert_allclose(found.elpd_i, refits.elpd_i, atol=5 * np.sqrt(2 / 400))


@pytest.mark.slow
@pytest.mark.parametrize("refit", [True, False])
def test_points_with_a_high_k_are_refitted_or_named(refit, monkeypatch):
    classifier = nuq.BayesianClassifier(nuq.MLP(), num_warmup=100, num_samples=200, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nuq.bayes.SamplingWarning)  # chains are short
        classifier.fit(X, LABELS)
    exact = nuq.loo(classifier, X, LABELS)
    # As it would be if the third point were not to be trusted.
    of_draws = nuq.bayes.integrated_loo

    def distrusted(*args, **settings):
        elpd, pareto_k = of_draws(*args, **settings)
        pareto_k[:], pareto_k[2], elpd[2] = 0.0, 2.0, 100.0
        return elpd, pareto_k

    monkeypatch.setattr(nuq.bayes, "integrated_loo", distrusted)
    if not refit:
        with pytest.warns(nuq.bayes.SamplingWarning, match="1 of 12 points"):
            found = nuq.loo(classifier, X, LABELS, refit=False)
        assert found.warning
        assert found.elpd_i[2] == 100
        return
    found = nuq.loo(classifier, X, LABELS)
    assert not found.warning
    assert found.pareto_k[2] == 0
    assert float(found.elpd_i[2]) == pytest.approx(float(exact.elpd_i[2]), abs=0.5)


@pytest.mark.slow
def test_refits_of_draws():
    """A classifier's infinite ensemble: every point by a fit of its own without it."""
    settings = {"architecture": nuq.MLP(depth=0), "reg": 1.0, "n_draws": 16}
    classifier = nuq.NTKClassifier(**settings).fit(X[:6], LABELS[:6])
    found = nuq.loo(classifier, X[:6], LABELS[:6])
    assert found.n_samples == 16
    left = np.arange(6) != 3
    again = nuq.NTKClassifier(**settings | {"n_draws": 2000}).fit(X[:6][left], LABELS[:6][left])
    p = again.predict_proba(X[[3]])[0, list(again.classes_).index(LABELS[3])]
    # 16 draws of a probability are off by less than its standard deviation, 1/2 at most, over 4.
    assert np.exp(found.elpd_i.values[3]) == pytest.approx(p, abs=0.25)


def test_what_is_refused():
    regressor = nuq.NTKRegressor(nuq.MLP(), reg=1.0, noise=0.3).fit(X, TARGET)
    with pytest.raises(ValueError, match="not the data that the estimator was fitted to"):
        nuq.loo(regressor, X[::-1], TARGET[::-1])
    pipe = make_pipeline(StandardScaler(), regressor)
    with pytest.raises(TypeError, match=r"pipe\[:-1\]\.transform"):
        nuq.loo(pipe, X, TARGET)
    for k in (1, 13, 2.5):
        with pytest.raises(ValueError, match="k must be"):
            nuq.loo_kfold(regressor, X, TARGET, k=k)
    with pytest.raises(ValueError, match="none empty"):
        nuq.loo_kfold(regressor, X, TARGET, folds=np.repeat([0, 2], 6))
    with pytest.raises(ValueError, match="an integer for each"):
        nuq.loo_kfold(regressor, X, TARGET, folds=[0, 1])
