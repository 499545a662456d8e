"""Values in messages are what a user would write."""

import dataclasses

import numpy as np
import pytest
from small_problem import LABELS, NET, TARGET, X

import ntk_uq as nuq
from ntk_uq._common import checks
from ntk_uq._common.words import shown


def test_numbers_and_texts_are_plain_wherever_they_stand():
    assert shown(np.float64(0.5)) == "0.5"
    assert shown(("depth", np.int64(2), np.str_("a"))) == "('depth', 2, 'a')"
    assert "w_std=1.5," in shown(dataclasses.replace(NET, w_std=np.float64(1.5)))
    assert shown("cv") == "'cv'"


def test_results_print_in_a_line():
    """However many points they hold; `print(clf.diagnostics_)` has five."""
    fitted = [
        nuq.NTKClassifier(NET, reg=1.0, n_draws=8).fit(X, LABELS),
        nuq.EnsembleClassifier(NET, n_members=2).fit(X, LABELS),
        nuq.BayesianClassifier(NET, sampler="laplace").fit(X, LABELS),
    ]
    results = [model.predict_distribution(X) for model in fitted]
    results += [nuq.compare({"limit": fitted[0]}, X, LABELS)]
    results += [fitted[0].predictor_, fitted[1].ensemble_]
    results += [model._fitted for model in fitted]
    for result in results:
        assert len(repr(result)) < 400
        assert "\n" not in repr(result)
    assert repr(results[0]).startswith("SamplePrediction(samples=float64[8, 12, 3], likelihood=")


NUMBER, COUNT = np.float64(-1.0), np.int64(-1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: checks.level_between("level", NUMBER),
        lambda: checks.count("n", COUNT),
        lambda: checks.real("reg", NUMBER, 0.0),
        lambda: nuq.MLP(w_std=NUMBER),
        lambda: nuq.MLP(b_std=NUMBER),
        lambda: nuq.MLP(activation=NUMBER),
        lambda: nuq.Gaussian(NUMBER),
        lambda: nuq.NTKClassifier(NET, reg=NUMBER).fit(X, LABELS),
        lambda: nuq.NTKClassifier(NET, label_smoothing=np.float64(2.0)).fit(X, LABELS),
        lambda: nuq.NTKClassifier(NET, time=NUMBER).fit(X, LABELS),
        lambda: nuq.NTKClassifier(NET, reg=1.0, tune=(COUNT,)).fit(X, LABELS),
        lambda: nuq.NTKClassifier(NET).fit(X, np.full(12, "a")),
        lambda: nuq.NTKRegressor(NET, noise=NUMBER).fit(X, TARGET),
        lambda: nuq.EnsembleClassifier(NET, n_members=COUNT).fit(X, LABELS),
        lambda: nuq.EnsembleClassifier(NUMBER).fit(X, LABELS),
        lambda: nuq.FeatureEmbedding(frequency=NUMBER),
        lambda: nuq.TemperatureScaled(
            nuq.NTKClassifier(NET, reg=1.0, n_draws=2), cv=2, prior_std=NUMBER
        ).fit(X, LABELS),
    ],
    ids=map(str, range(17)),
)
def test_messages_have_no_types_of_numpy(call):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert "np." not in str(caught.value)
