import itertools
import subprocess
import sys
from types import SimpleNamespace

import arviz_base
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from scipy import stats
from sklearn.metrics import precision_recall_curve
from stand_ins import comparison, diagnostics

from ntk_uq.calibration import fit_temperature, recall_threshold
from ntk_uq.metrics import (
    coverage_curve,
    detect_errors,
    detect_outliers,
    rejection_curve,
    reliability_curve,
)
from ntk_uq.plots import (
    method_style,
    most_uncertain,
    plot_coverage,
    plot_detection,
    plot_diagnostics,
    plot_feature_scales,
    plot_latent_law,
    plot_latents,
    plot_laziness,
    plot_pit,
    plot_probabilities,
    plot_reg_curve,
    plot_rejection,
    plot_reliability,
    plot_temperature,
    plot_threshold,
    plot_trace,
    plot_uncertainty,
    plot_uncertainty_map,
)
from ntk_uq.predictions import GaussianPrediction, SamplePrediction
from ntk_uq.selection import RegCurve
from ntk_uq.tables import TableEncoder

PLANE = GaussianPrediction(np.zeros((1, 2)), np.eye(2)[None])


@pytest.fixture(scope="module")
def compared():
    return comparison()


@pytest.fixture
def ax():
    return Figure().subplots()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_reliability(compared, ax):
    assert plot_reliability(compared, n_bins=5, ax=ax) is ax
    assert legend(ax) == ["finite", "infinite", "mcmc"]
    curve = reliability_curve(
        compared.y_test, compared.methods["finite"].proba, classes=compared.classes, n_bins=5
    )
    filled = curve.count > 0
    drawn = ax.collections[1].get_offsets()
    np.testing.assert_allclose(drawn, np.c_[curve.confidence, curve.accuracy][filled])


def test_reliability_needs_labels():
    with pytest.raises(ValueError, match="call compare with y_test"):
        plot_reliability(comparison(labelled=False))


@pytest.mark.parametrize("labelled", [True, False])
def test_uncertainty_shows_every_point_once(labelled, ax):
    compared = comparison(labelled=labelled)
    plot_uncertainty(compared, "mcmc", "finite", ax=ax)
    drawn = np.concatenate([c.get_offsets() for c in ax.collections])
    expected = np.c_[compared.methods["mcmc"].epistemic, compared.methods["finite"].epistemic]
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0))
    assert ax.get_xlabel() == "mcmc (nats)"


def test_uncertainty_without_spread(ax):
    compared = comparison()
    compared.methods["finite"].epistemic[:] = 0
    plot_uncertainty(compared, "mcmc", "finite", ax=ax)
    assert ax.get_title() == "Epistemic uncertainty"  # no ranks, no correlation


@pytest.mark.parametrize("moment", ["mean", "std"])
def test_latents(compared, moment, ax):
    plot_latents(compared, "infinite", "finite", moment=moment, ax=ax)
    x = getattr(compared.methods["infinite"], f"latent_{moment}").ravel()
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], x)
    low, high = ax.get_xlim()
    assert low < x.min() <= x.max() < high


def test_probabilities(compared, ax):
    plot_probabilities(compared, 7, ax=ax)
    heights = [bar.get_height() for bar in ax.patches]
    expected = np.concatenate([method.proba[7] for method in compared.methods.values()])
    np.testing.assert_allclose(heights, expected)
    bold = [t.get_text() for t in ax.get_xticklabels() if t.get_fontweight() == "bold"]
    assert bold == [compared.y_test[7]]


def test_long_class_names_are_turned(ax):
    plot_probabilities(comparison(classes=("a" * 20, "b" * 20, "c" * 20)), 0, ax=ax)
    assert ax.get_xticklabels()[0].get_rotation() == 30


@pytest.mark.parametrize("quantity", ["rhat", "ess"])
def test_diagnostics_count_every_latent(quantity, ax):
    plot_diagnostics(diagnostics(), quantity=quantity, ax=ax)
    assert "at " in legend(ax)[-1]


def test_most_uncertain(compared):
    points = most_uncertain(compared, 5)
    entropy = compared.methods["mcmc"].total_uncertainty
    assert entropy[points].min() >= np.delete(entropy, points).max()
    assert len(most_uncertain(compared, 1000)) == compared.n_points


def test_a_method_keeps_its_style(compared):
    styles = {method_style(compared, name) for name in compared.methods}
    assert len({colour for colour, _ in styles}) == len({marker for _, marker in styles}) == 3


def test_without_axes_a_figure_is_made(compared):
    ax = plot_probabilities(compared, 0)
    assert ax.figure.number in pyplot.get_fignums()
    pyplot.close(ax.figure)


def labelled(m=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(3, size=m), rng.dirichlet(np.ones(3), size=m)


def by_label(ax):
    return {line.get_label(): line for line in ax.lines}


def test_reliability_of_curves_is_that_of_the_comparison(compared, ax):
    curves = {
        name: reliability_curve(compared.y_test, method.proba, classes=compared.classes, n_bins=10)
        for name, method in compared.methods.items()
    }
    plot_reliability(curves, ax=ax)
    assert legend(ax) == list(curves)
    other = plot_reliability(compared, ax=Figure().subplots())
    for ours, theirs in zip(ax.collections, other.collections, strict=True):
        for mine, yours in zip(ours.get_paths(), theirs.get_paths(), strict=True):
            np.testing.assert_array_equal(mine.vertices, yours.vertices)
    single = plot_reliability(curves["mcmc"], ax=Figure().subplots())
    assert single.get_legend() is None


def test_rejection(ax):
    y, proba = labelled()
    curves = {"sure": rejection_curve(y, proba), "random": rejection_curve(y, proba, np.ones(40))}
    plot_rejection(curves, ax=ax)
    assert legend(ax)[0] == "best order"
    assert len(ax.lines) == 3  # both have the same best order
    line = by_label(ax)[f"sure: AURC {curves['sure'].aurc:.3f}"]
    np.testing.assert_array_equal(line.get_xdata(), 1 - curves["sure"].coverage)
    np.testing.assert_array_equal(line.get_ydata(), 1 - curves["sure"].error)
    assert legend(plot_rejection(curves["sure"], ax=Figure().subplots()))[1].startswith("AURC")


def test_threshold(ax):
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    score = rng.normal(size=400) + 2 * positive
    rule = recall_threshold(positive, score, 0.8)
    plot_threshold(positive, score, rule, ax=ax)
    precision, recall, thresholds = precision_recall_curve(positive, score)
    lines = by_label(ax)
    np.testing.assert_array_equal(lines["precision"].get_xdata(), thresholds)
    np.testing.assert_allclose(lines["precision"].get_ydata(), precision[:-1])
    np.testing.assert_allclose(lines["recall"].get_ydata(), recall[:-1])
    line = lines[f"threshold {rule.value:.3g}: recall of at least 0.8"]
    assert line.get_xdata()[0] == rule.value


@pytest.mark.parametrize("value", [-np.inf, np.inf])
def test_threshold_that_takes_all_or_none(ax, value):
    """Too few held-out points promise no more: there is no place for a line."""
    plot_threshold(np.array([True, False]), [0.9, 0.2], value, ax=ax)
    assert f"threshold {value}" in by_label(ax)
    assert ax.get_xlim() == (0.2, 0.9)


def test_detection(ax):
    y, proba = labelled()
    found = detect_errors(y, proba)
    plot_detection(found, ax=ax)
    assert legend(ax) == [f"AUROC {found.auroc:.3f}"]
    line = by_label(ax)[legend(ax)[0]]
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(found.auroc)


def test_precision_is_drawn_with_the_prevalence(ax):
    found = {"a": detect_outliers([1, 2, 3], [2, 5]), "b": detect_outliers([1, 2, 3], [4, 5])}
    plot_detection(found, curve="precision_recall", ax=ax)
    assert legend(ax) == [f"a: AUPR {found['a'].aupr:.3f}", "b: AUPR 1.000"]
    (baseline,) = (line for line in ax.lines if set(line.get_ydata()) == {0.4})
    assert baseline.get_linestyle() == "--"
    assert min(by_label(ax)["b: AUPR 1.000"].get_ydata()[-2:]) == 1


def test_pit(ax):
    pit = np.random.default_rng(0).random(500)
    plot_pit(pit, n_bins=5, ax=ax)
    bars = ax.patches[1:]
    counts = [bar.get_height() * 500 / 5 for bar in bars]
    np.testing.assert_allclose(counts, np.histogram(pit, 5, (0, 1))[0])
    band = ax.patches[0]
    ends = np.array([band.get_y(), band.get_y() + band.get_height()]) * 100
    np.testing.assert_allclose(ends, stats.binom.interval(0.95, 500, 0.2))


def test_coverage(ax):
    curve = coverage_curve(np.random.default_rng(0).random(50))
    plot_coverage({"one": curve, "other": curve}, ax=ax)
    assert legend(ax) == ["one", "other"]
    np.testing.assert_array_equal(by_label(ax)["one"].get_ydata(), curve.coverage)


def test_temperature(ax):
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((40, 3))
    y = (latents + rng.gumbel(size=latents.shape)).argmax(axis=1)
    fit = fit_temperature(y, SamplePrediction(3 * latents[None]))
    plot_temperature(fit, ax=ax)
    assert legend(ax) == [f"T = {fit.temperature:.2f}"]
    marker = by_label(ax)[legend(ax)[0]]
    assert marker.get_xydata().tolist() == [[fit.temperature, fit.log_loss]]
    curve = ax.lines[0].get_xydata()
    assert np.all(np.diff(curve[:, 0]) > 0)
    assert [fit.temperature, fit.log_loss] in curve.tolist()
    assert ax.get_ylim()[1] > fit.log_loss_before


class Grid:
    """A classifier of the plane whose uncertainty is known: it grows away from the line x = 0."""

    def __init__(self, classes=("ant", "bee")):
        self.classes_ = np.array(classes)

    def predict_distribution(self, X):
        self.seen = X
        x = np.asarray(X)[:, :1]
        samples = np.stack([x * sign * np.array([1.0, -1.0]) + 0.1 for sign in (1.0, -0.2)])
        return SamplePrediction(samples)


@pytest.mark.parametrize("measure", ["epistemic", "aleatoric", "total_uncertainty"])
def test_uncertainty_map(measure, ax):
    X = np.array([[-1.0, 0.0], [1.0, 5.0], [0.5, 2.0]])
    model = Grid()
    plot_uncertainty_map(model, X, ["ant", "bee", "bee"], measure=measure, n_grid=7, ax=ax)
    grid = np.asarray(model.seen)
    assert grid.shape == (49, 2)
    np.testing.assert_allclose([grid.min(axis=0), grid.max(axis=0)], [[-1.4, -1], [1.4, 6]])
    drawn = ax.collections[0].get_array()
    np.testing.assert_allclose(np.ravel(drawn), getattr(model.predict_distribution(grid), measure))
    assert [len(c.get_offsets()) for c in ax.collections[-2:]] == [1, 2]
    assert legend(ax) == ["ant", "bee"]
    assert ax.figure.axes[-1].get_ylabel().endswith("(nats)")
    # The predicted class changes where the mean latents cross.
    vertices = np.concatenate([p.vertices for p in ax.collections[1].get_paths()])
    np.testing.assert_allclose(vertices[:, 0], 0, atol=0.25)


def test_uncertainty_map_of_a_table_and_of_regression(ax):
    table = pd.DataFrame({"length": [0.0, 1.0], "width": [0.0, 2.0]})
    model = Grid()
    plot_uncertainty_map(model, table, n_grid=3, ax=ax)
    assert list(model.seen.columns) == ["length", "width"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length", "width")
    del model.classes_
    other = plot_uncertainty_map(
        model, table, [1.0, 2.0], measure="std", n_grid=3, ax=Figure().subplots()
    )
    np.testing.assert_allclose(
        np.ravel(other.collections[0].get_array()),
        model.predict_distribution(model.seen).std.max(axis=1),
    )
    assert other.get_legend() is None


def latents(n=400, scale=1.0):
    rng = np.random.default_rng(1)
    theory = GaussianPrediction(np.ones((2, 3)), np.tile(4 * np.eye(3), (2, 1, 1)))
    draws = SamplePrediction(1 + 2 * scale * rng.standard_normal((n, 2, 3)))
    return draws, theory


def test_law_of_a_latent(ax):
    draws, theory = latents()
    plot_latent_law(draws, theory, 1, 2, ax=ax)
    area = sum(bar.get_height() * bar.get_width() for bar in ax.patches)
    assert area == pytest.approx(1)
    x, density = ax.lines[0].get_data()
    np.testing.assert_allclose(density, stats.norm.pdf(x, 1, 2))
    assert legend(ax) == ["400 draws", "theory"]
    p_value = stats.kstest(draws.samples[:, 1, 2], stats.norm(1, 2).cdf).pvalue
    assert ax.get_title().endswith(f"p = {p_value:.2g}")


@pytest.mark.parametrize(("scale", "inside"), [(1.0, True), (1.5, False)])
def test_quantiles_of_a_latent(scale, inside, ax):
    draws, theory = latents(scale=scale)
    plot_latent_law(draws, theory, kind="qq", ax=ax)
    expected, drawn = by_label(ax)["400 draws"].get_data()
    np.testing.assert_array_equal(drawn, np.sort(draws.samples[:, 0, 0]))
    np.testing.assert_allclose(expected, stats.norm.ppf((np.arange(400) + 0.5) / 400, 1, 2))
    vertices = ax.collections[0].get_paths()[0].vertices[1:401]
    np.testing.assert_allclose(vertices[:, 0], expected)
    # The lower edge goes with the quantiles, the upper one comes back.
    edge = ax.collections[0].get_paths()[0].vertices
    upper = edge[402:802][::-1]
    np.testing.assert_allclose(upper[:, 0], expected)
    within = (vertices[:, 1] <= drawn) & (drawn <= upper[:, 1])
    assert (within.mean() > 0.9) == inside


def posterior():
    rng = np.random.default_rng(0)
    return arviz_base.from_dict(
        {
            "posterior": {"f": rng.standard_normal((2, 50, 4, 3))},
            "sample_stats": {"diverging": rng.random((2, 50)) < 0.1},
        },
        dims={"f": ["point", "class"]},
        coords={"point": np.arange(4), "class": ["ant", "bee", "cat"]},
    )


def test_trace(ax):
    tree = posterior()
    assert plot_trace(tree, 2, "bee", ax=ax) is ax
    draws = tree["posterior"]["f"].values[:, :, 2, 1]
    np.testing.assert_array_equal([line.get_ydata() for line in ax.lines], draws)
    divergent = sum(len(marks.get_offsets()) for marks in ax.collections)
    assert divergent == tree["sample_stats"]["diverging"].values.sum()
    assert ax.get_title() == "Training point 2, output bee"


def test_feature_scales(ax):
    """Those that count most, the first of them on top; no picture of what was not learnt."""
    model = SimpleNamespace(
        feature_scales_=np.array([0.5, 2.0, 1.0]), feature_names_in_=["a", "b", "c"]
    )
    plot_feature_scales(model, most=2, ax=ax)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["c", "b"]
    assert [bar.get_width() for bar in ax.patches] == [1.0, 2.0]
    for nothing in (1.0, np.ones(3)):
        with pytest.raises(ValueError, match="count alike"):
            plot_feature_scales(SimpleNamespace(feature_scales_=nothing), ax=ax)


@pytest.mark.parametrize("named", [True, False])
def test_feature_scales_of_a_table_are_those_of_its_encoder(named, ax):
    """Of a column that is left out, one with a gap, and one of categories in between."""
    table = pd.DataFrame(
        {
            "empty": np.full(4, np.nan),
            "kind": ["x", "y", "x", "y"],
            "gap": [1.0, np.nan, 3.0, 4.0],
            "age": [4.0, 2.0, 3.0, 1.0],
        }
    )
    seen = table if named else table.to_numpy()
    with pytest.warns(UserWarning, match="empty"):
        encoder = TableEncoder(categorical_features=[1]).fit(seen)
    model = SimpleNamespace(encoder_=encoder, feature_scales_=np.arange(5.0))
    plot_feature_scales(model, ax=ax)
    gap, age, kind = ("gap", "age", "kind") if named else ("feature 2", "feature 3", "feature 1")
    expected = [gap, age, f"{gap}_missing", f"{kind}_x", f"{kind}_y"]
    assert [text.get_text() for text in ax.get_yticklabels()] == expected
    assert [bar.get_width() for bar in ax.patches] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_features_of_one_name_have_bars_of_their_own(ax):
    model = SimpleNamespace(feature_scales_=np.arange(3.0), feature_names_in_=["a", "a", "b"])
    plot_feature_scales(model, ax=ax)
    assert sorted(bar.get_y() for bar in ax.patches) == [-0.4, 0.6, 1.6]


@pytest.mark.parametrize("errors", [None, np.full((2, 3), 0.1)])
def test_reg_curve(errors, ax):
    curve = RegCurve(
        regs=np.array([0.1, 1.0, 10.0]),
        scores=np.array([[-1.0, -0.5, -2.0], [-2.0, -1.5, -1.0]]),
        errors=errors,
        names=("depth 1", "depth 2"),
        criterion="evidence" if errors is None else "cv",
        reg=1.0,
    )
    plot_reg_curve(curve, ax=ax)
    np.testing.assert_array_equal(by_label(ax)["depth 2"].get_ydata(), curve.scores[1])
    assert len(ax.collections) == (0 if errors is None else 2)
    assert "nats" in ax.get_ylabel()


def test_names_of_decades_stand_apart():
    """Where two pictures stand side by side in a report, by the width of a letter."""
    figure = Figure(figsize=(2.8, 2.4), layout="constrained")
    regs = np.logspace(-4, 2, 13)
    curve = RegCurve(regs, -((np.log(regs) + 3) ** 2)[None], None, ("",), "cv", 0.1)
    axes = plot_reg_curve(curve, ax=figure.subplots())
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    low, high = axes.get_window_extent().intervalx
    boxes = sorted((box for box in boxes if low <= box.x0 <= high), key=lambda box: box.x0)
    assert len(boxes) >= 3
    assert all(a.x1 + a.height / 2 < b.x0 for a, b in itertools.pairwise(boxes))


def test_a_reg_curve_goes_through_what_was_tried(ax):
    """Every second regularisation, and no gap where the others are."""
    scores = np.array([[-1.0, np.nan, -2.0, np.nan, -3.0]])
    errors, regs = 0.1 * np.ones_like(scores), np.logspace(-1, 1, 5)
    plot_reg_curve(RegCurve(regs, scores, errors, ("depth 1",), "cv", 0.1), ax=ax)
    line, band = ax.get_lines()[0], ax.collections[0].get_paths()[0].vertices
    np.testing.assert_array_equal(line.get_xdata(), regs[::2])
    np.testing.assert_array_equal(line.get_ydata(), scores[0, ::2])
    assert np.isfinite(band).all()
    assert set(regs[::2]) <= set(band[:, 0])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda c: plot_reliability(c, methods=["none"]), "No method is named 'none'"),
        (lambda c: plot_uncertainty(c, "mcmc", "none"), "No method is named 'none'"),
        (lambda c: plot_uncertainty(c, "mcmc", "finite", measure="all"), "measure must be"),
        (lambda c: plot_latents(c, "none", "mcmc"), "No method is named 'none'"),
        (lambda c: plot_latents(c, "finite", "mcmc", moment="var"), "moment must be"),
        (lambda c: plot_probabilities(c, 60), r"0 \.\. 59"),
        (lambda c: plot_probabilities(c, -1), r"0 \.\. 59"),
        (lambda c: plot_diagnostics(diagnostics(), quantity="trace"), "quantity must be"),
        (lambda c: plot_diagnostics(diagnostics(n_chains=1)), "only one"),
        (lambda c: plot_laziness({}, "speed"), "quantity must be"),
        (lambda c: plot_rejection(c), "takes a RejectionCurve, or a dict"),
        (lambda c: plot_rejection({}), "takes a RejectionCurve, or a dict"),
        (lambda c: plot_detection({"a": c}), "takes a Detection, or a dict"),
        (lambda c: plot_detection(detect_outliers([1], [2]), curve="pr"), "curve must be"),
        (lambda c: plot_pit([np.nan]), "NaN"),
        (lambda c: plot_pit([1.5]), "between 0 and 1"),
        (lambda c: plot_coverage([0.5]), "takes a CoverageCurve"),
        (lambda c: plot_temperature(2.0), "takes a TemperatureFit"),
        (lambda c: plot_uncertainty_map(Grid(), np.ones((3, 3))), r"shape \[n, 2\]"),
        (lambda c: plot_uncertainty_map(Grid(), np.ones((3, 2)), [1]), r"y must have shape \(3,\)"),
        (lambda c: plot_uncertainty_map(Grid(), np.ones((3, 2)), measure="sd"), "measure must"),
        (lambda c: plot_latent_law(*latents(), kind="box"), "kind must be"),
        (lambda c: plot_latent_law(*latents(), 2), "2 points and 3 outputs"),
        (lambda c: plot_latent_law(*latents(), 0, -1), "2 points and 3 outputs"),
        (lambda c: plot_latent_law(latents()[0], PLANE), "same points and outputs"),
        (lambda c: plot_trace(posterior(), 4), r"0 \.\. 3"),
        (lambda c: plot_trace(posterior(), 0, "dog"), "output must be one of"),
    ],
    ids=range(27),
)
def test_bad_input(compared, draw, message):
    before = pyplot.get_fignums()
    with pytest.raises(ValueError, match=message):
        draw(compared)
    assert pyplot.get_fignums() == before


def test_importing_plots_leaves_pyplot_and_numpyro_alone():
    code = "import sys, ntk_uq.plots; print({'numpyro', 'matplotlib.pyplot'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
