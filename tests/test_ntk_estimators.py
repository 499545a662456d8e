"""NTKClassifier and NTKRegressor: choosing reg and the kernel, and predictions of functions."""

import math
import re
import warnings
from contextlib import nullcontext
from decimal import Decimal, localcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from ntk_uq import (
    MLP,
    BayesianClassifier,
    FeatureEmbedding,
    NormalScores,
    NTKClassifier,
    NTKRegressor,
    load,
    save,
    selection,
)
from ntk_uq._common.solver import solve_dual
from ntk_uq.analytic import FirstOrderWarning, exact_predictor, gaussian_predictor
from ntk_uq.ensemble import ConvergenceWarning
from ntk_uq.estimators.weights import distinct
from ntk_uq.likelihoods import Categorical, Weighted
from ntk_uq.plots import plot_mixture, plot_reg_curve

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
LABELS = np.digitize(X[:, 0] + 0.3 * RNG.normal(size=40), [-0.4, 0.4])
TARGET = 10 + 5 * np.sin(2 * X[:, 0]) + RNG.normal(size=40)
X_TEST = RNG.normal(size=(7, 3))
NET = MLP(depth=1, activation="erf")


class NetworkKernel(Kernel):
    """The NTK as a kernel of scikit-learn, which wants a constructor."""

    def __init__(self):
        super().__init__()

    def __call__(self, X, Y=None, eval_gradient=False):
        return NET.kernels(X, Y).ntk

    def diag(self, X):
        return NET.kernel_diag(X).ntk

    def is_stationary(self):
        return False


def test_posterior_regression_is_scikit_learns_gaussian_process():
    ours = NTKRegressor(NET, reg=1.0, noise=0.7, uncertainty="posterior").fit(X, TARGET)
    theirs = GaussianProcessRegressor(NetworkKernel(), alpha=0.7**2, optimizer=None).fit(X, TARGET)
    for a, b in zip(*(r.predict(X_TEST, return_std=True) for r in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_regression_in_other_units():
    """Targets are standardised where no architecture is given: units do not matter."""
    plain = NTKRegressor(uncertainty="posterior", reg=1.0).fit(X, TARGET)
    other = NTKRegressor(uncertainty="posterior", reg=1.0).fit(X, 1000 * TARGET - 5)
    (mean, std), (mean2, std2) = (r.predict(X_TEST, return_std=True) for r in (plain, other))
    np.testing.assert_allclose(mean2, 1000 * mean - 5, rtol=1e-6)
    np.testing.assert_allclose(std2, 1000 * std, rtol=1e-6)
    np.testing.assert_allclose(other.noise_, 1000 * plain.noise_, rtol=1e-4)
    both = NTKRegressor(uncertainty="posterior", reg=1.0).fit(X, np.c_[TARGET, 1000 * TARGET - 5])
    np.testing.assert_allclose(both.predict(X_TEST), np.c_[mean, mean2], rtol=1e-6)


@pytest.mark.slow
def test_noise_is_recovered():
    x = np.linspace(-2, 2, 200)[:, None]
    y = np.sin(2 * x[:, 0]) + 0.3 * RNG.normal(size=200)
    fitted = NTKRegressor().fit(x, y)
    # The standard error of a standard deviation from about 190 degrees of freedom is 5%.
    assert abs(fitted.noise_[0] / 0.3 - 1) < 4 * 0.05
    assert fitted.reg_curve_.criterion == "evidence"


@pytest.fixture(scope="module")
def automatic():
    return NTKClassifier(n_draws=16).fit(X, LABELS)


def test_without_arguments_network_and_reg_are_cross_validated(automatic):
    curve = automatic.reg_curve_
    assert curve.criterion == "cv"
    # Thirteen networks, and rounds of learning the scales of the best.
    assert curve.scores.shape == (len(curve.names), 13)
    assert sum("scales" not in name for name in curve.names) == 13
    learnt = not np.all(automatic.feature_scales_ == 1)
    eligible = np.array([("scales" in name) == learnt for name in curve.names])
    scores = np.where(eligible[:, None], curve.scores, np.nan)
    k, r = np.unravel_index(np.nanargmax(scores), scores.shape)
    assert automatic.reg_ == curve.reg == curve.regs[r]
    network, name = automatic.architecture_, curve.names[k].split(", scales learnt")[0]
    if isinstance(network, FeatureEmbedding):
        assert name == f"depth {network.network.depth}, features embedded at {network.frequency}"
    else:
        assert name == f"depth {network.depth}"


def test_curve_is_drawn(automatic):
    ax, curve = plot_reg_curve(automatic.reg_curve_), automatic.reg_curve_
    assert ax.get_xscale() == "log"
    drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    best = np.argsort(-np.nanmax(curve.scores, axis=1), kind="stable")[:4]
    for k in best:
        tried = curve.scores[k][~np.isnan(curve.scores[k])]
        np.testing.assert_array_equal(drawn[curve.names[k]], tried)
    assert len(ax.get_lines()) == len(curve.names) + 1
    assert ax.get_lines()[-1].get_xdata()[0] == automatic.reg_


def test_without_arguments_networks_predict_together(automatic, tmp_path):
    """Each by its weight; the first is the best alone, and every second sees normal scores."""
    components = automatic.mixture_.components
    assert len(components) in (2, 4)
    assert math.isclose(automatic.mixture_.weights.sum(), 1.0)
    assert components[0].reg == automatic.reg_
    assert components[0].architecture == automatic.architecture_
    curve = automatic.reg_curve_
    at_reg = curve.scores[:, curve.regs == curve.reg]
    assert np.nanmin(np.abs(at_reg - components[0].score)) < 1e-6
    for plain, twin in zip(components[::2], components[1::2], strict=True):
        assert (plain.weight, plain.reg) == (twin.weight, twin.reg)
        assert isinstance(twin.architecture, NormalScores)
        assert not isinstance(plain.architecture, NormalScores)
    draws = [len(member.predictor.alpha) for member in automatic._fitted.members]
    assert draws == [16 * one.weight for one in components]
    save(automatic, tmp_path / "model.ntk")
    again = load(tmp_path / "model.ntk")
    np.testing.assert_array_equal(again.predict_proba(X_TEST), automatic.predict_proba(X_TEST))
    for one, other in zip(components, again.mixture_.components, strict=True):
        assert (one.name, one.architecture, one.score) == (
            other.name, other.architecture, other.score,
        )  # fmt: skip
    answers = automatic.as_function()(X_TEST.astype(np.float32))
    np.testing.assert_allclose(answers.proba, automatic.predict_proba(X_TEST), atol=1e-2)
    bars = plot_mixture(automatic.mixture_).patches
    assert [bar.get_width() for bar in bars][::-1] == [one.weight for one in components]


@pytest.mark.slow
def test_a_mixture_of_networks_as_a_user_would_fit_them(automatic):
    points = automatic.encoder_.transform(X)
    test = automatic.encoder_.transform(X_TEST)
    expected = 0.0
    for one in automatic.mixture_.components:
        alone = NTKClassifier(one.architecture, one.reg, n_draws=256)
        alone.fit(points * one.feature_scales, LABELS)
        expected = expected + one.weight * alone.predict_proba(test * one.feature_scales)
    # 16 draws: a probability's standard deviation over networks is below a tenth here.
    np.testing.assert_allclose(automatic.predict_proba(X_TEST), expected, atol=4 * 0.1 / 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"uncertainty": "none"},
        {"method": "gaussian"},
        {"architecture": MLP(depth=1), "reg": "cv"},
        {"reg": 1.0},
        {"reg": "cv", "tune": ("depth",)},
    ],
)
def test_one_network_predicts_where_more_is_said(options):
    assert NTKClassifier(n_draws=4, **options).fit(X, LABELS).mixture_ is None


@pytest.mark.slow
def test_a_posterior_is_a_mixture_too_and_a_single_draw_is_the_best_network():
    model = NTKClassifier(uncertainty="posterior", n_draws=8).fit(X, LABELS)
    assert sum(len(member.predictor.alpha) for member in model._fitted.members) == 8
    single = NTKClassifier(n_draws=1).fit(X, LABELS)
    assert len(single._fitted.members) == 1
    assert single._fitted.members[0].reg == single.reg_


def test_indicators_have_no_normal_scores():
    """Two values are what they are, and no network has a twin."""
    x = (X > 0).astype(float)
    choice = selection.choose(
        np.random.default_rng(0), NET, x, np.eye(3)[LABELS], Categorical(), "cv", mix=True,
        uncertainty="none",
    )  # fmt: skip
    architectures = {one.architecture for one in choice.mixture.components}
    assert architectures == {NET}


@pytest.mark.slow
@pytest.mark.parametrize("make", [NTKClassifier, NTKRegressor])
@pytest.mark.parametrize("frequency", [1, 2])
def test_features_that_act_by_themselves_are_seen_by_themselves(make, frequency):
    """A sum of waves of six features: for angles that is hard, for an additive model easy."""
    rng = np.random.default_rng(frequency)
    x = rng.normal(size=(240, 6))
    f = np.sin(2 * frequency * x).sum(axis=1)
    y = f if make is NTKRegressor else f > 0
    model = make(n_draws=16).fit(x[:160], y[:160])
    assert isinstance(model.architecture_, FeatureEmbedding)
    plain = make(MLP(depth=2), reg=model._criterion, n_draws=16).fit(x[:160], y[:160])
    assert model.score(x[160:], y[160:]) > plain.score(x[160:], y[160:]) + 0.1


@pytest.mark.slow
def test_a_curve_is_of_the_last_fit():
    model = NTKClassifier(NET, reg="cv", method="gaussian").fit(X, LABELS)
    assert model.reg_curve_.reg == model.reg_
    assert not hasattr(model.set_params(reg=1.0).fit(X, LABELS), "reg_curve_")


@pytest.mark.slow
def test_scales_of_rows_that_come_twice():
    """Equal rows with equal targets, or nearly: what is learnt is what one of each teaches."""
    x, rng = X[:25], np.random.default_rng(2)
    y = np.sin(2 * x[:, 0])
    model = NTKRegressor(MLP(depth=1), reg="evidence", tune=("scales",))
    once = clone(model).fit(x, y)
    for apart in (0.0, 1e-4):
        again = y + apart * rng.normal(size=25)
        copies = "25 points count more than once" if apart == 0 else None
        with pytest.warns(UserWarning, match=copies) if copies else nullcontext():
            twice = clone(model).fit(np.r_[x, x], np.r_[y, again])
        assert np.all(twice.feature_scales_[1:] < 0.1 * twice.feature_scales_[0])
        # All interpolate a function without noise of the one feature.
        np.testing.assert_allclose(twice.predict(X_TEST), once.predict(X_TEST), atol=0.05)


def test_a_search_that_does_not_move_is_said(monkeypatch):
    stuck = selection.Optimum({"reg": 1.0, "scales": np.ones(3)}, 0.0, False, False, 2)
    monkeypatch.setattr("ntk_uq.selection.by_evidence.maximise_evidence", lambda *a, **k: stuck)
    with pytest.warns(ConvergenceWarning, match="reg, scales by the evidence has not left"):
        NTKRegressor(NET, reg="evidence", tune=("scales",), noise=0.3).fit(X, TARGET)


# The evidence takes a wide prior for such sure labels, where first order ends, which is said.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.analytic.FirstOrderWarning")
def test_evidence_finds_the_feature_that_matters():
    model = NTKClassifier(
        NET, reg="evidence", tune=("scales",), method="gaussian", uncertainty="posterior"
    ).fit(X, LABELS)
    assert np.argmax(model.feature_scales_) == 0
    assert np.all(model.feature_scales_[1:] < 0.5 * model.feature_scales_[0])
    assert model.predict_proba(X_TEST).shape == (7, 3)


def test_an_architecture_keeps_reg_one():
    assert NTKClassifier(NET, n_draws=4).fit(X, LABELS).reg_ == 1.0


def test_at_most_some_points_choose(monkeypatch):
    monkeypatch.setattr("ntk_uq.selection.choice._MOST_POINTS", 20)
    seen = []
    monkeypatch.setattr(
        "ntk_uq.selection.choice.cross_validate",
        lambda kernels, *a, **k: seen.append(len(kernels.ntk)) or 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        NTKClassifier(reg="cv").fit(X, LABELS)
    assert seen == [20]


@pytest.mark.slow
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_joint_predictions(uncertainty):
    closed = NTKClassifier(NET, uncertainty=uncertainty, method="gaussian").fit(X, LABELS)
    pred = closed.predict_distribution(X_TEST, joint=True)
    alone = closed.predict_distribution(X_TEST)
    np.testing.assert_allclose(pred.cov, alone.cov, atol=1e-9)
    draws = NTKClassifier(NET, uncertainty=uncertainty, n_draws=1000).fit(X, LABELS)
    samples = draws.predict_distribution(X_TEST, joint=True).samples.reshape(1000, -1)
    # First order and exact differ by a few per cent here, a sample correlation by 1 / sqrt(1000).
    joint = pred.joint_cov.reshape(21, 21)
    correlation = joint / np.sqrt(np.outer(np.diag(joint), np.diag(joint)))
    np.testing.assert_allclose(np.corrcoef(samples.T), correlation, atol=0.05 + 4.5 / np.sqrt(1000))


_HARD = {
    "duplicates": np.r_[X[:20], X[:20]],
    "nearly duplicates": np.r_[X[:20], X[:20] + 1e-8 * RNG.normal(size=(20, 3))],
    "constant feature": np.c_[X, np.ones(40)],
    "collinear features": np.c_[X, X[:, 0] + 1e-9 * RNG.normal(size=40)],
    "large features": 1e4 * X,
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("points", _HARD.values(), ids=_HARD)
@pytest.mark.parametrize("reg", [1e-8, 1e-3, 1.0, 1e8])
@pytest.mark.parametrize("method", ["gaussian", "exact"])
def test_right_or_refused(points, reg, method):
    """Ill-conditioned problems: the solution, which a warning may call a rough one, or an error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        refusal = ""
        try:
            model = NTKClassifier(NET, reg=reg, method=method, n_draws=2).fit(points, LABELS)
        except ValueError as error:
            refusal = str(error)
    if refusal:
        assert "Raise reg" in refusal
        assert reg < 1
        assert points is not _HARD["constant feature"]
        return
    proba = model.predict_proba(points)
    assert np.all(np.isfinite(proba))
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    # Stationarity of the objective, by its derivative in the latents of the network. Rows that are
    # equal in point and label are one of their weight.
    distinct_points, targets, weights, _ = distinct(points, np.eye(3)[LABELS], None)
    weights = np.ones(len(targets)) if weights is None else weights
    predictor = model.predictor_
    gaps = np.atleast_1d(predictor.gap)
    draws = [(predictor.alpha, None)]
    if method == "exact":
        draws = zip(predictor.alpha, predictor.whitened, strict=True)
    for gap, (alpha, whitened) in zip(gaps, draws, strict=True):
        f0 = 0 if whitened is None else exactly(predictor.factor) @ exactly(whitened)
        ntk = NET.kernels(distinct_points).ntk
        excess = exact_gap(ntk, reg, targets, f0, alpha, weights[:, None])
        # The solver saw f0 rounded, which moves the root of the gap by far less than this.
        assert math.sqrt(excess) <= math.sqrt(gap) + 1e-8
    assert np.max(gaps) < 0.5
    rough = any(warning.category is ConvergenceWarning for warning in said)
    assert rough == bool(np.max(gaps) > 5e-5)


def exactly(array):
    """Floats as decimals, which lose nothing."""
    return np.vectorize(Decimal, otypes=[object])(np.asarray(array, np.float64))


def exact_gap(ntk, reg, y, f0, alpha, weights=1.0):
    """<r, r>_Theta / (2 reg) of cross-entropy with 50 digits: what any machine has to bound."""
    with localcontext() as context:
        context.prec = 50
        ntk, reg, y, alpha = exactly(ntk), Decimal(reg), exactly(y), exactly(alpha)
        f = f0 + ntk @ alpha
        p = np.vectorize(Decimal.exp, otypes=[object])(f - f.max(axis=1, keepdims=True))
        r = exactly(weights) * (y - p / p.sum(axis=1, keepdims=True)) - reg * alpha
        return float(max(np.sum(r * (ntk @ r)) / (2 * reg), Decimal(0)))


@pytest.mark.cases(1)
@pytest.mark.parametrize("copies", [2, 40], ids=["pairs", "one point"])
@pytest.mark.parametrize("reg", [1e-6, 1e-4, 1e-2])
def test_a_certificate_counts_what_rounding_hides(copies, reg):
    """Equal rows whose labels contradict, far from zero: coefficients of 1 / reg that cancel."""
    points = 30 * np.tile(X[: 40 // copies], (copies, 1))
    ntk, y = MLP().kernels(points).ntk, np.eye(3)[LABELS]
    f0 = np.random.default_rng(1).normal(size=(2, 40, 3))
    with jax.enable_x64(True):
        problem = (jnp.asarray(a) for a in (ntk, reg, y, f0))
        found = solve_dual(*problem, Categorical(), max_iter=50_000)
    gaps = np.asarray(found.gap)
    for gap, alpha, prior in zip(gaps, found.alpha, f0, strict=True):
        assert exact_gap(ntk, reg, y, exactly(prior), alpha) <= gap
    np.testing.assert_array_equal(found.converged, gaps <= 1e-12)
    # And is worth having. A product with Theta of entries below b in 40 points has errors below
    # 40^2 eps theta b. So has f, where b = 1 / reg, and r a quarter of that, by W < 1 / 4. They are
    # counted four times, twice as two products may differ by, over the 120 entries of r.
    eps, theta = np.finfo(float).eps, np.max(np.diag(ntk))
    error = 8 * 40**2 * eps * theta
    lost, hidden = math.sqrt(120) * error, 120 * theta * (error / (4 * reg)) ** 2
    assert np.all(gaps < 1e-12 + (np.sqrt(lost) + np.sqrt(hidden)) ** 2 / (2 * reg))


@pytest.mark.slow
def test_what_is_no_solution_is_refused():
    """Equal rows that contradict each other far from zero.

    Their coefficients are of size 1 / reg: to round these alone moves the latents by 1e-4, and the
    objective by thousands of nats. No double-precision solution is any good.
    """
    points, options = 100 * np.r_[X[:20], X[:20]], {"reg": 1e-8}
    for model in (
        NTKClassifier(MLP(), n_draws=2, **options),
        NTKClassifier(MLP(), method="gaussian", **options),
        BayesianClassifier(MLP(), sampler="laplace", **options),
    ):
        with pytest.raises(ValueError, match=r"equal rows contradict"):
            model.fit(points, LABELS)


@pytest.mark.slow
def test_what_is_far_out_is_tried_before_all_is_solved(monkeypatch):
    """The problem of the last test under a prior of a million nats: two draws tell."""
    asked, solve = [], exact_predictor

    def spy(*args, **kwargs):
        asked.append(args[-1])
        return solve(*args, **kwargs)

    monkeypatch.setattr("ntk_uq.analytic.producer.exact_predictor", spy)
    model = NTKClassifier(MLP(), reg=1e-8, uncertainty="posterior", n_draws=256)
    with pytest.raises(ValueError, match="lower w_std"):
        model.fit(100 * np.r_[X[:20], X[:20]], LABELS)
    assert asked == [2]


@pytest.mark.parametrize("method", ["exact", "gaussian"])
@pytest.mark.parametrize("w_std", [1e6, 1e120])
def test_a_network_beyond_double_precision_is_refused_at_once(monkeypatch, method, w_std):
    for solver in ("exact_predictor", "gaussian_predictor"):
        monkeypatch.setattr(f"ntk_uq.analytic.producer.{solver}", lambda *a, **k: 1 / 0)
    with pytest.raises(ValueError, match="w_std or b_std is far too large"):
        NTKClassifier(MLP(w_std=w_std), method=method).fit(X, LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_a_duplicate_counts_twice(uncertainty):
    """Each row twice, or once with weight 2: the same predictor."""
    args = {"uncertainty": uncertainty, "method": "gaussian", "reg": 0.5}
    twice = NTKClassifier(NET, **args).fit(np.r_[X, X], np.r_[LABELS, LABELS])
    with jax.enable_x64(True):
        once = gaussian_predictor(
            NET.kernels(X),
            np.eye(3)[LABELS],
            0.5,
            Weighted(Categorical(), jnp.full(40, 2.0)),
            uncertainty,
        )
        mean, cov = once.moments(NET.kernels(X_TEST, X), NET.kernel_diag(X_TEST))
    found = twice.predict_distribution(X_TEST)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.cov, cov, atol=1e-6)


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("ntk_uq.estimators.size.memory_limit", lambda: 400 * 2**10)
    with pytest.raises(MemoryError, match=r"40 training points.*GiB by method='exact'"):
        NTKClassifier(NET).fit(X, LABELS)


def test_functions_are_consistent():
    model = NTKClassifier(NET, n_draws=4).fit(X, LABELS)
    functions = model.sample_functions()
    first = functions(X_TEST)
    assert first.shape == (4, 7, 3)
    np.testing.assert_allclose(functions(X_TEST[::-1])[:, ::-1], first, atol=1e-4)
    with pytest.raises(ValueError, match='method="exact"'):
        NTKClassifier(NET, method="gaussian").fit(X, LABELS).sample_functions()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reg": "large"}, 'reg must be a number, "evidence" or "cv"'),
        ({"tune": ("depth",)}, "needs a criterion"),
        ({"reg": 1.0, "tune": ("depth",)}, "needs a criterion"),
        ({"reg": "cv", "tune": ("b_std",)}, "does not tune b_std"),
        ({"reg": "evidence", "tune": ("embedding", "w_std")}, 'no w_std with "embedding"'),
        ({"reg": "evidence", "tune": ("width",)}, "tune takes names among"),
        ({"reg": "evidence", "label_smoothing": 0.1}, "labels as they are"),
        ({"architecture": MLP(b_std=0.0), "reg": "evidence", "tune": ("b_std",)}, "stays 0"),
        ({"reg": 0.0, "label_smoothing": 0.1, "uncertainty": "posterior"}, "variance is infinite"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        NTKClassifier(**arguments).fit(X, LABELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": 0.0}, "noise must be positive"),
        ({"uncertainty": "initialization", "reg": 0.0}, "without a scale"),
        ({"noise": 0.1, "reg": 0.0}, "variance is infinite"),
    ],
)
def test_refusals_of_regression(arguments, message):
    with pytest.raises(ValueError, match=message):
        NTKRegressor(**arguments).fit(X, TARGET)


@pytest.mark.slow
def test_the_page_on_choosing_runs():
    page = (Path(__file__).parents[1] / "docs" / "choosing.md").read_text()
    names = {"X": X, "y": LABELS, "X_test": X_TEST}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, names)
    np.testing.assert_allclose(names["functions"](X_TEST[:5]).shape, (256, 5, 3))


@pytest.mark.parametrize("method", ["exact", "gaussian"])
def test_a_mode_has_no_spread(method):
    """And no Monte-Carlo error, though there is one draw only."""
    options = {"noise": 0.3, "reg": 1.0}
    regressor = NTKRegressor(uncertainty="none", method=method, **options).fit(X, X[:, 0])
    mean, std = regressor.predict(X[:4], return_std=True)
    np.testing.assert_array_equal(std, 0)
    ridge = NTKRegressor(uncertainty="posterior", method="gaussian", **options).fit(X, X[:, 0])
    np.testing.assert_allclose(mean, ridge.predict(X[:4]), atol=1e-6)
    classifier = NTKClassifier(reg=1.0, uncertainty="none", method=method).fit(X, X[:, 0] > 0)
    prediction = classifier.predict_distribution(X[:4])
    np.testing.assert_array_equal(prediction.cov, 0)
    np.testing.assert_array_equal(prediction.proba_mcse(), 0)
    np.testing.assert_allclose(prediction.proba(), softmax(prediction.mean, axis=1), rtol=1e-12)
    np.testing.assert_allclose(prediction.epistemic, 0, atol=1e-12)


# The closed form outside first order


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uncertainty", "factor", "reg"),
    [("posterior", 1.0, 1e-3), ("posterior", 100.0, 1.0), ("initialization", 100.0, 1.0)],
)
def test_closed_form_warns_where_first_order_fails(uncertainty, factor, reg):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = {"reg": reg, "uncertainty": uncertainty}
        closed = NTKClassifier(MLP(), method="gaussian", **options).fit(factor * X, LABELS)
    (found,) = [w for w in caught if w.category is FirstOrderWarning]
    assert found.filename == __file__
    for cure in ('method="exact"', "raise reg", "scale the features"):
        assert cure in str(found.message)
    exact = NTKClassifier(MLP(), n_draws=500, **options).fit(factor * X, LABELS)
    assert exact.discrepancy_ is None
    a, b = (model.predict_proba(factor * X) for model in (closed, exact))
    distance = np.mean(np.abs(a - b).sum(axis=1)) / 2
    # The mean of 32 draws, the differences of which in a probability are below one.
    assert np.mean(closed.discrepancy_.total_variation) == pytest.approx(distance, abs=0.1)
    assert distance > 0.1


@pytest.mark.parametrize("reg", [0.1, 1.0, 10.0])
def test_closed_form_is_silent_where_first_order_holds(reg):
    closed = NTKClassifier(MLP(), method="gaussian", reg=reg).fit(X, LABELS)  # no warning
    assert np.mean(closed.discrepancy_.total_variation) < 0.05
    assert closed.predictor_.discrepancy is closed.discrepancy_
