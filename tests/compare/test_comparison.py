import warnings
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stand_ins import StandIn

from ntk_uq.bayes import SamplingWarning
from ntk_uq.calibration import TemperatureScaled
from ntk_uq.compare import Comparison, ComparisonWarning, compare
from ntk_uq.compare.summary import error_of_epistemic
from ntk_uq.distances import Draws
from ntk_uq.distances.measures import estimate_tv
from ntk_uq.distances.pair import Pair
from ntk_uq.estimators import NTKClassifier, NTKRegressor
from ntk_uq.metrics import regression_scores, scores
from ntk_uq.networks import MLP, BaseArchitecture, FeatureEmbedding
from ntk_uq.predictions import GaussianPrediction, SamplePrediction

N_POINTS, N_CLASSES = 12, 3


def _tv(first, second):
    return estimate_tv(Pair(Draws(first), Draws(second)))


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


DISTANCES = (
    "tv",
    "kl",
    "bures_wasserstein",
    "energy",
    "epistemic_ratio",
    "rank_correlation",
    "rejection_agreement",
)


def test_table_holds_what_the_predictions_say(comparison):
    table = comparison.table
    assert list(table.index) == ["finite", "gaussian", "mcmc"]
    distances = [column for name in DISTANCES for column in (name, f"{name}_se")]
    distances.insert(2, "tv_noise")
    assert list(table.columns) == [
        "accuracy",
        "log_loss",
        "brier",
        "ece",
        "total_uncertainty",
        "aleatoric",
        "epistemic",
        "epistemic_se",
        *distances,
        "n_effective",
        "effective_per_second",
        "fit_seconds",
        "predict_seconds",
    ]
    method = comparison.methods["finite"]
    row = table.loc["finite"]
    assert row["log_loss"] == scores(comparison.y_test, method.proba)["log_loss"]
    assert row["epistemic"] == pytest.approx(row["total_uncertainty"] - row["aleatoric"])
    by_hand = np.abs(method.proba - comparison.methods["mcmc"].proba).sum(axis=1) / 2
    assert row["tv"] == pytest.approx(by_hand.mean())
    ratio = row["epistemic"] / table.loc["mcmc", "epistemic"]
    assert row["epistemic_ratio"] == pytest.approx(ratio)
    assert row["fit_seconds"] == 1.5
    assert row["n_effective"] == pytest.approx(32)
    seconds = row["fit_seconds"] + row["predict_seconds"]
    assert row["effective_per_second"] == pytest.approx(32 / seconds)
    reference = table.loc["mcmc"]
    assert (reference[[*DISTANCES[:4], "tv_se", "tv_noise", "energy_se"]] == 0).all()
    assert (reference[list(DISTANCES[4:])] == 1).all()
    # The Gaussian is no set of draws, and of functions it knows nothing.
    unknown = ["energy", "energy_se", "n_effective", "effective_per_second"]
    assert list(table.columns[table.isna().any()]) == unknown
    assert list(table.index[table.isna().any(axis=1)]) == ["gaussian"]
    assert comparison.n_points == N_POINTS


def test_distance_table_tells_what_is_beyond_error(comparison):
    table = comparison.distance_table
    assert list(table.columns) == ["value", "se", "noise", "significant"]
    assert set(table.index.get_level_values("from")) == {"mcmc"}
    tv = comparison.distance("finite", "mcmc").tv
    row = table.loc["finite", "mcmc", "tv"]
    assert (row["value"], row["se"], row["noise"]) == (tv.value, tv.se, tv.noise)
    assert row["significant"] == tv.is_significant
    pairs = replace(comparison, reference=None).distance_table
    assert len(pairs) == 3 * 8


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
    tv = _tv(first, second)
    expected = np.abs(softmax(first.mean, axis=1) - softmax(second.mean, axis=1)).sum(axis=1) / 2
    assert tv.value == pytest.approx(expected.mean())
    # Rounding in the average over nodes is all that is left.
    assert tv.se < 1e-12
    assert tv.noise < 1e-12
    assert tv.is_significant
    assert not _tv(first, first).is_significant


# Draws of each side, chains, autocorrelation.
SAMPLERS = {
    "independent": (200, None, 0.0),
    "few": (40, None, 0.0),
    "chains": (800, 2, 0.5),
}


@cache
def simulate(sampler, shift, n_replicates=150):
    """Distances between two methods whose means differ by `shift`, over fresh draws of both."""
    n_draws, n_chains, autocorrelation = SAMPLERS[sampler]
    rng = np.random.default_rng(11)
    return [
        _tv(
            sample_prediction(rng, n_draws, latent_mean(), n_chains, autocorrelation),
            sample_prediction(rng, n_draws, latent_mean() + shift * latent_mean(5)),
        )
        for _ in range(n_replicates)
    ]


@pytest.mark.cases(3)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
def test_standard_error_is_the_spread_over_fresh_draws(sampler, shift):
    distances = simulate(sampler, shift)
    spread = np.std([d.value for d in distances], ddof=1)
    reported = np.sqrt(np.mean([d.se**2 for d in distances]))
    # The spread of 150 replicates is known within 1 / sqrt(300) = 6%, three of which are allowed;
    # besides, the linearisation may be an eighth too small, and batch means of 20 batches of
    # 20 draws miss some of the autocorrelation.
    assert 0.7 < reported / spread < 1.18


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_the_distance_between_samples_of_one_distribution(sampler):
    distances = simulate(sampler, 0.0)
    tv = np.array([d.value for d in distances])
    noise = np.array([d.noise for d in distances])
    standard_error = np.std(tv - noise) / np.sqrt(len(tv))
    # Estimated standard errors are too small by 1 / (4 degrees of freedom) each on average, and
    # batch means by a few percent more.
    assert abs((tv - noise).mean()) < 4 * standard_error + 0.04 * tv.mean()
    false_alarms = np.mean([d.is_significant for d in distances])
    assert false_alarms < 0.1


def test_real_differences_are_found():
    assert np.mean([d.is_significant for d in simulate("independent", 1.0, 50)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_standard_error_of_epistemic_uncertainty(sampler):
    n_draws, n_chains, autocorrelation = SAMPLERS[sampler]
    rng = np.random.default_rng(2)
    values, errors = [], []
    for _ in range(300):
        prediction = sample_prediction(rng, n_draws, latent_mean(), n_chains, autocorrelation)
        values.append(prediction.epistemic.mean())
        errors.append(error_of_epistemic(prediction))
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1) < 1.2


def test_points_that_move_together_count_as_one():
    rng = np.random.default_rng(0)
    together = np.repeat(rng.standard_normal((200, 1, N_CLASSES)), N_POINTS, axis=1)
    one = SamplePrediction(together[:, :1])
    assert error_of_epistemic(SamplePrediction(together)) == pytest.approx(error_of_epistemic(one))


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
        (
            {"a": stand_in(without=["fit_seconds_", "classes_"])},
            {},
            NotFittedError,
            "'a' is not fitted",
        ),
        (
            {"a": stand_in(), "b": stand_in(without=["classes_"])},
            {},
            ValueError,
            "'b' is a regressor and 'a' a classifier",
        ),
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
    assert set(comparison.distances) == set(permutations(["finite", "gaussian", "mcmc"], 2))
    there, back = comparison.distance("finite", "mcmc"), comparison.distance("mcmc", "finite")
    assert there.tv == back.tv
    assert there.kl != back.kl
    assert there.epistemic_ratio.value == pytest.approx(1 / back.epistemic_ratio.value)
    itself = comparison.distance("finite", "finite")
    assert itself.tv.value == itself.energy.value == 0
    assert itself.rank_correlation.value == itself.epistemic_ratio.value == 1
    assert not itself.epistemic_ratio.is_significant
    assert there.tv.value == comparison.table.loc["finite", "tv"]
    with pytest.raises(ValueError, match="No method is named 'nuts'"):
        comparison.distance("finite", "nuts")


@pytest.mark.slow
def test_functions_are_drawn_jointly_at_some_of_many_points():
    # 400 points of 3 outputs are too many: every other is taken.
    X, y = np.linspace(-3, 3, 20)[:, None], np.repeat([0, 1, 2, 0], 5)
    settings = {"architecture": MLP(width=16), "reg": 1.0}
    methods = {
        "a": NTKClassifier(n_draws=64, **settings).fit(X, y),
        "b": NTKClassifier(method="gaussian", **settings).fit(X, y),
        "c": NTKClassifier(n_draws=64, uncertainty="posterior", **settings).fit(X, y),
    }
    X_test = np.linspace(-2, 2, 400)[:, None]
    energies = compare(methods, X_test, reference="a").table
    assert np.isfinite(energies["energy"]).all()
    assert abs(energies.loc["b", "energy"]) < 3 * energies.loc["b", "energy_se"]
    assert energies.loc["c", "energy"] > 5 * energies.loc["c", "energy_se"]


@pytest.mark.slow
def test_errors_with_one_seed_and_with_different_seeds():
    """The spread over seeds is what is reported, and the energy distance has no bias."""
    rng = np.random.default_rng(0)
    X, y, X_test = rng.standard_normal((12, 2)), rng.integers(0, 3, 12), rng.standard_normal((8, 2))
    repeats = 25
    first, second = (
        [
            NTKClassifier(MLP(width=16, depth=1), reg=reg, n_draws=64, random_state=seed).fit(X, y)
            for seed in range(repeats)
        ]
        for reg in (1.0, 0.8)
    )
    names = ("tv", "bures_wasserstein", "energy", "epistemic_ratio")
    found = {}
    for apart in (0, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ComparisonWarning)
            compared = [
                compare({"a": a, "b": b}, X_test).distance("a", "b")
                for a, b in zip(first, np.roll(second, apart), strict=True)
            ]
        for name in names:
            estimates = [getattr(distance, name) for distance in compared]
            value, se = np.array([(estimate.value, estimate.se) for estimate in estimates]).T
            found[apart, name] = value
            # The spread is known within 1 / sqrt(2 * 25); linearisation may be an eighth too small.
            ratio = np.sqrt(np.mean(se**2)) / value.std(ddof=1)
            slack = 4 / np.sqrt(2 * repeats)
            assert 7 / 8 - slack < ratio < 1 + slack
    shared, apart = found[0, "energy"], found[1, "energy"]
    error = np.hypot(shared.std(), apart.std()) / np.sqrt(repeats)
    assert abs(shared.mean() - apart.mean()) < 4 * error
    assert shared.mean() > 10 * shared.std() / np.sqrt(repeats)
    for name in names:  # what is common cancels
        assert found[0, name].std() < 0.5 * found[1, name].std()


def test_chains_too_short_are_said():
    rng = np.random.default_rng(4)
    methods = {
        "slow": StandIn(sample_prediction(rng, 400, latent_mean(), 2, 0.99)),
        "fast": StandIn(sample_prediction(rng, 400, latent_mean(), 2, 0.0)),
    }
    with pytest.warns(SamplingWarning, match="standard errors are too small"):
        compared = compare(methods, np.zeros((N_POINTS, 2)))
    assert "too short" in compared.methods["slow"].warnings[0]
    assert compared.methods["fast"].warnings == ()


@pytest.mark.slow
def test_pipelines_are_their_last_step():
    rng = np.random.default_rng(0)
    X, y = 5 + 3 * rng.standard_normal((24, 2)), np.repeat([0, 1], 12)
    scaler = StandardScaler().fit(X)
    alone = NTKClassifier(MLP(width=16), reg=1.0, n_draws=4).fit(scaler.transform(X), y)
    piped = make_pipeline(StandardScaler(), clone(alone)).fit(X, y)
    compared = compare({"piped": piped, "again": clone(piped).fit(X, y)}, X, y, reference="piped")
    assert compared.methods["piped"].proba == pytest.approx(
        alone.predict_proba(scaler.transform(X))
    )
    assert compared.table.loc["again", "tv"] == 0
    assert compared.methods["piped"].estimator.startswith("make_pipeline(StandardScaler(), NTKClas")


@pytest.mark.slow
def test_a_mode_has_no_uncertainty(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((24, 2)), np.repeat([0, 1, 2], 8)
    settings = {"architecture": MLP(width=16), "reg": 1.0, "n_draws": 64}
    methods = {
        name: NTKClassifier(uncertainty=uncertainty, method=method, **settings).fit(X, y)
        for name, uncertainty, method in (
            ("mode", "none", "exact"),
            ("closed form", "none", "gaussian"),
            ("posterior", "posterior", "exact"),
        )
    }
    compared = compare(methods, X + 0.1, y, reference="posterior")
    mode, closed_form = (
        compared.distance(name, "posterior") for name in methods if name != "posterior"
    )
    assert mode.epistemic_ratio.value == 0
    assert mode.epistemic_ratio.is_significant
    assert mode.energy.value == pytest.approx(closed_form.energy.value, abs=1e-6)
    assert mode.energy.is_significant
    assert mode.bures_wasserstein.value == pytest.approx(closed_form.bures_wasserstein.value)
    compared.to_html(tmp_path / "report.html")
    assert "surer of itself than posterior" in (tmp_path / "report.html").read_text()


def test_scaled_estimators_are_compared_too():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((24, 2)), np.repeat([0, 1], 12)
    plain = NTKClassifier(MLP(width=16), reg=1.0, n_draws=4).fit(X, y)
    scaled = TemperatureScaled(FrozenEstimator(plain)).fit(X + 0.2, y)
    compared = compare({"plain": plain, "scaled": scaled}, X + 0.1, y, reference="plain")
    assert np.isfinite(compared.table.loc["scaled", ["tv", "energy"]]).all()
    assert np.isnan(compared.table.loc["scaled", "fit_seconds"])


@dataclass(frozen=True)
class Sized(BaseArchitecture):
    """An architecture whose width must be given."""

    width: int

    def kernel_block(self, x1, x2=None):
        return MLP().kernel_block(x1, x2)

    def kernel_diag_block(self, x):
        return MLP().kernel_diag_block(x)


def test_different_problems_are_said():
    rng = np.random.default_rng(0)
    X, y = 3 * rng.standard_normal((24, 2)), np.repeat([0, 1], 12)
    settings = {"n_draws": 4, "reg": 1.0}
    base = NTKClassifier(MLP(width=16), **settings).fit(X, y)
    others = {
        "reg": NTKClassifier(MLP(width=16), n_draws=4, reg=0.5),
        "architecture": NTKClassifier(MLP(width=16, depth=1), **settings),
        "label_smoothing": NTKClassifier(MLP(width=16), label_smoothing=0.1, **settings),
        "features": NTKClassifier(**settings),
    }
    for setting, other in others.items():
        with pytest.warns(ComparisonWarning, match=f"{setting}.* (is|are) "):
            compared = compare({"base": base, "other": other.fit(X, y)}, X)
        (sentence,) = compared.differences
        assert "base" in sentence
        assert "other" in sentence
    # The limit of infinite width does not depend on the width, which may have no default.
    for narrow, wide in ((MLP(width=16), MLP(width=32)), (Sized(8), Sized(32))):
        both = {str(n.width): NTKClassifier(n, **settings).fit(X, y) for n in (narrow, wide)}
        assert not compare(both, X).differences


def test_regressors():
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (30, 1))
    y = np.sin(2 * X[:, 0]) + 0.2 * rng.standard_normal(30)
    settings = {"architecture": MLP(width=16), "reg": 1.0, "noise": 0.2}
    methods = {
        "posterior": NTKRegressor(**settings).fit(X, y),
        "draws": NTKRegressor(method="exact", **settings).fit(X, y),
        "initialization": NTKRegressor(uncertainty="initialization", **settings).fit(X, y),
    }
    X = np.linspace(-2, 2, 30)[:, None]
    y = np.sin(2 * X[:, 0])
    compared = compare(methods, X, y, reference="posterior")
    table = compared.table
    assert compared.classes is None
    assert not {"accuracy", "tv", "kl"} & set(table.columns)
    prediction = methods["posterior"].predict_distribution(X)
    found = regression_scores(y, prediction.mean[:, 0], np.hypot(prediction.std[:, 0], 0.2))
    assert table.loc["posterior", "crps"] == pytest.approx(found["crps"])
    assert table.loc["posterior", "rmse"] == pytest.approx(found["rmse"])
    assert table.loc["posterior", "epistemic"] == pytest.approx(prediction.std.mean(), rel=2e-3)
    assert table.loc["posterior", "aleatoric"] == pytest.approx(0.2)
    # Draws of the same Gaussian, and the narrower spread over initialisations.
    same, other = (compared.distance(name, "posterior") for name in ("draws", "initialization"))
    assert not same.bures_wasserstein.is_significant
    assert not same.energy.is_significant
    assert not same.epistemic_ratio.is_significant
    assert other.epistemic_ratio.value < 0.9
    assert compared.distance_table.loc["initialization", "posterior", "energy"]["significant"]
    with pytest.raises(ValueError, match="about class probabilities"):
        compared.to_html("unused.html")
    with pytest.raises(ValueError, match=r"must have shape \(30,\)"):
        compare(methods, X, y[:5])


def test_plot_has_a_panel_for_each_measure(comparison):
    figure = comparison.plot()
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == [measure.panel for measure in comparison.measures.values()]
    assert len(titles) == 8
    assert "Total variation" in titles
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["finite", "gaussian"]
    with pytest.raises(ValueError, match="call compare with reference="):
        replace(comparison, reference=None).plot()


def test_the_width_of_an_inner_network_is_no_difference():
    """Behind an embedding, of scales or of scores; the depth is one."""
    X, y = np.random.default_rng(0).standard_normal((12, 2)), np.repeat([0, 1], 6)
    methods = {
        str(network): NTKClassifier(FeatureEmbedding(network), reg=1.0, n_draws=2).fit(X, y)
        for network in (MLP(width=16, depth=1), MLP(width=32, depth=1))
    }
    assert compare(methods, X, y).differences == ()
    other = NTKClassifier(FeatureEmbedding(MLP(width=16, depth=2)), reg=1.0, n_draws=2).fit(X, y)
    with pytest.warns(UserWarning, match="architecture is FeatureEmbedding"):
        compare({**methods, "other": other}, X, y)
