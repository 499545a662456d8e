import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from stand_ins import comparison, diagnostics

from ntk_uq.metrics import reliability_curve
from ntk_uq.plots import (
    method_style,
    most_uncertain,
    plot_diagnostics,
    plot_latents,
    plot_probabilities,
    plot_reliability,
    plot_uncertainty,
)


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
    assert "nan" in ax.get_title()


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
    ],
    ids=range(9),
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
