from functools import cache

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import softmax
from sklearn.exceptions import NotFittedError
from stand_ins import StandIn

from ntk_uq.compare import Comparison, _distance, _epistemic_se, compare
from ntk_uq.metrics import scores
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

N_POINTS, N_CLASSES = 12, 3


def latent_mean(seed=0):
    return 1.5 * np.random.default_rng(seed).standard_normal((N_POINTS, N_CLASSES))


def draw_latents(rng, n_draws, mean, autocorrelation=0.0):
    """Draws [S, m, C] that move all points together; a stationary AR(1) process over the draws."""
    mixing = np.linalg.cholesky(0.7 * np.ones((N_POINTS, N_POINTS)) + 0.3 * np.eye(N_POINTS))
    noise = rng.standard_normal((n_draws, N_POINTS, N_CLASSES))
    noise[1:] *= np.sqrt(1 - autocorrelation**2)
    noise = lfilter([1.0], [1.0, -autocorrelation], noise, axis=0)
    return mean + 1.2 * np.einsum("ij,sjc->sic", mixing, noise)


def sample_prediction(rng, n_draws, mean, n_chains=None, autocorrelation=0.0):
    chains = [
        draw_latents(rng, n_draws // (n_chains or 1), mean, autocorrelation)
        for _ in range(n_chains or 1)
    ]
    return SamplePrediction(np.concatenate(chains), n_chains=n_chains, joint=True)


@pytest.fixture
def comparison():
    rng = np.random.default_rng(3)
    methods = {
        "finite": StandIn(sample_prediction(rng, 32, latent_mean())),
        "gaussian": StandIn(
            GaussianPrediction(latent_mean(), np.broadcast_to(np.eye(3), (N_POINTS, 3, 3)) * 1.2**2)
        ),
        "mcmc": StandIn(sample_prediction(rng, 400, latent_mean(), n_chains=2)),
    }
    y = latent_mean().argmax(axis=1)
    return compare(methods, np.zeros((N_POINTS, 2)), y, reference="mcmc")


def test_table_holds_what_the_predictions_say(comparison):
    table = comparison.table
    assert list(table.index) == ["finite", "gaussian", "mcmc"]
    assert list(table.columns) == [
        "accuracy",
        "log_loss",
        "brier",
        "ece",
        "total_uncertainty",
        "aleatoric",
        "epistemic",
        "epistemic_se",
        "tv",
        "tv_se",
        "tv_noise",
        "fit_seconds",
        "predict_seconds",
    ]
    method = comparison.methods["finite"]
    row = table.loc["finite"]
    assert row["log_loss"] == scores(comparison.y_test, method.proba)["log_loss"]
    assert row["epistemic"] == pytest.approx(row["total_uncertainty"] - row["aleatoric"])
    by_hand = np.abs(method.proba - comparison.methods["mcmc"].proba).sum(axis=1) / 2
    assert row["tv"] == pytest.approx(by_hand.mean())
    assert row["fit_seconds"] == 1.5
    assert (table.loc["mcmc", ["tv", "tv_se", "tv_noise"]] == 0).all()
    assert not table.isna().any().any()
    assert comparison.n_points == N_POINTS


def test_columns_follow_what_is_known():
    stand_in = StandIn(sample_prediction(np.random.default_rng(0), 8, latent_mean()))
    table = compare({"only": stand_in}, np.zeros((N_POINTS, 1))).table
    assert not {"accuracy", "ece", "tv"} & set(table.columns)
    assert "epistemic" in table


def test_one_draw_has_unknown_error():
    rng = np.random.default_rng(0)
    methods = {
        "one": StandIn(SamplePrediction(draw_latents(rng, 1, latent_mean()))),
        "many": StandIn(sample_prediction(rng, 100, latent_mean())),
    }
    with np.errstate(all="raise"):
        row = compare(methods, np.zeros((N_POINTS, 1)), reference="many").table.loc["one"]
    assert np.isnan(row["tv_se"])
    assert row["epistemic"] == 0


def test_predictions_without_spread_have_no_error():
    certain = np.zeros((N_POINTS, 3, 3))
    first = GaussianPrediction(latent_mean(), certain)
    second = GaussianPrediction(latent_mean(1), certain)
    distance = _distance(first, second)
    expected = np.abs(softmax(first.mean, axis=1) - softmax(second.mean, axis=1)).sum(axis=1) / 2
    assert distance.tv == pytest.approx(expected.mean())
    # Rounding in the average over nodes is all that is left.
    assert distance.se < 1e-12
    assert distance.noise < 1e-12
    assert distance.is_significant
    assert not _distance(first, first).is_significant


# Draws of each side, chains, autocorrelation.
SAMPLERS = {
    "independent": (200, None, 0.0),
    "few": (40, None, 0.0),
    "chains": (800, 2, 0.5),
}


@cache
def simulate(sampler, shift, n_replicates=300):
    """Distances between two methods whose means differ by `shift`, over fresh draws of both."""
    n_draws, n_chains, autocorrelation = SAMPLERS[sampler]
    rng = np.random.default_rng(11)
    return [
        _distance(
            sample_prediction(rng, n_draws, latent_mean(), n_chains, autocorrelation),
            sample_prediction(rng, n_draws, latent_mean() + shift * latent_mean(5)),
        )
        for _ in range(n_replicates)
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
def test_standard_error_is_the_spread_over_fresh_draws(sampler, shift):
    distances = simulate(sampler, shift)
    spread = np.std([d.tv for d in distances], ddof=1)
    reported = np.sqrt(np.mean([d.se**2 for d in distances]))
    # The spread of 300 replicates is known within 1 / sqrt(600) = 4%, three of which are allowed;
    # besides, the linearisation may be an eighth too small, and batch means of 20 batches of
    # 20 draws miss some of the autocorrelation.
    assert 0.75 < reported / spread < 1.13


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_the_distance_between_samples_of_one_distribution(sampler):
    distances = simulate(sampler, 0.0)
    tv = np.array([d.tv for d in distances])
    noise = np.array([d.noise for d in distances])
    standard_error = np.std(tv - noise) / np.sqrt(len(tv))
    # Estimated standard errors are too small by 1 / (4 degrees of freedom) each on average, and
    # batch means by a few percent more.
    assert abs((tv - noise).mean()) < 4 * standard_error + 0.04 * tv.mean()
    false_alarms = np.mean([d.is_significant for d in distances])
    assert false_alarms < 0.1


def test_real_differences_are_found():
    assert np.mean([d.is_significant for d in simulate("independent", 1.0, 50)]) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_standard_error_of_epistemic_uncertainty(sampler):
    n_draws, n_chains, autocorrelation = SAMPLERS[sampler]
    rng = np.random.default_rng(2)
    values, errors = [], []
    for _ in range(300):
        prediction = sample_prediction(rng, n_draws, latent_mean(), n_chains, autocorrelation)
        values.append(prediction.epistemic.mean())
        errors.append(_epistemic_se(prediction))
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1) < 1.2


def test_points_that_move_together_count_as_one():
    rng = np.random.default_rng(0)
    together = np.repeat(rng.standard_normal((200, 1, N_CLASSES)), N_POINTS, axis=1)
    one = SamplePrediction(together[:, :1])
    assert _epistemic_se(SamplePrediction(together)) == pytest.approx(_epistemic_se(one))


def stand_in(**changes):
    prediction = SamplePrediction(np.zeros((4, N_POINTS, N_CLASSES)))
    result = StandIn(prediction, changes.pop("classes", (0, 1, 2)))
    for name in changes.pop("without", ()):
        delattr(result, name)
    return result


@pytest.mark.parametrize(
    ("estimators", "keywords", "error", "message"),
    [
        ([stand_in()], {}, TypeError, "dict of names"),
        ({}, {}, ValueError, "at least one"),
        ({1: stand_in()}, {}, TypeError, "must be strings"),
        ({"a": object()}, {}, TypeError, "no predict_distribution"),
        ({"a": stand_in(without=["classes_"])}, {}, NotFittedError, "'a' is not fitted"),
        (
            {"a": stand_in(), "b": stand_in(classes=(0, 1, 5))},
            {},
            ValueError,
            r"'a' has \[0, 1, 2\], 'b' has \[0, 1, 5\]",
        ),
        ({"a": stand_in()}, {"reference": "nuts"}, ValueError, "names no method"),
        ({"a": stand_in()}, {"y_test": [0, 1]}, ValueError, r"must have shape \(12,\)"),
        ({"a": stand_in()}, {"y_test": [7] * N_POINTS}, ValueError, r"trained on: \[7\]"),
        ({"a": stand_in()}, {"X_test": np.full((N_POINTS, 2), np.nan)}, ValueError, "NaN"),
        ({"a": stand_in()}, {"X_test": np.zeros(N_POINTS)}, ValueError, "2D array"),
    ],
)
def test_bad_input(estimators, keywords, error, message):
    X_test = keywords.pop("X_test", np.zeros((N_POINTS, 2)))
    with pytest.raises(error, match=message):
        compare(estimators, X_test, **keywords)


def test_every_pair_has_a_distance(comparison):
    assert isinstance(comparison, Comparison)
    assert list(comparison.distances) == [
        ("finite", "gaussian"),
        ("finite", "mcmc"),
        ("gaussian", "mcmc"),
    ]
    assert comparison.distance("mcmc", "finite") == comparison.distance("finite", "mcmc")
    assert comparison.distance("finite", "finite").tv == 0
    assert comparison.distance("finite", "mcmc").tv == comparison.table.loc["finite", "tv"]
