"""Laziness: the rates of the theory, and what happens without its condition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ntk_uq import Architecture, EnsembleClassifier
from ntk_uq.cli import main
from ntk_uq.ensemble import LazinessWarning, train_ensemble
from ntk_uq.ensemble.trained import linearisation
from ntk_uq.lazy import fit_rate, kernel_change, measure_laziness
from ntk_uq.likelihoods import Categorical
from ntk_uq.networks.empirical import empirical_ntk
from ntk_uq.networks.mlp import MLP
from ntk_uq.plots import plot_laziness

_RNG = np.random.default_rng(0)
X, X_PROBE = (jnp.asarray(_RNG.normal(size=(n, 3)), jnp.float32) for n in (10, 6))
Y = jnp.asarray(np.eye(2)[_RNG.integers(2, size=10)], jnp.float32)
NET = MLP(depth=1, activation="erf")


def measure(y=Y, *, reg, widths=(32, 512), net=NET, **options):
    return measure_laziness(
        jax.random.key(0), net, X, y, Categorical(), reg=reg, widths=widths, X_probe=X_PROBE,
        **options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("reg", "smoothing"), [(1.0, 0.0), (0.0, 0.3)])
def test_movement_falls_with_width_under_either_condition(reg, smoothing):
    """As 1 / sqrt(width), with parameters that move as far at any width."""
    lazy = measure((1 - smoothing) * Y + smoothing / 2, reg=reg)
    assert lazy.converged.all()
    for quantity in ("kernel_change", "linearisation_error"):
        assert lazy.rate(quantity).exponent < -0.3
    assert abs(lazy.rate("parameter_distance").exponent) < 0.15


@pytest.mark.slow
def test_without_either_condition_networks_run_away():
    short, long, held = (
        measure(reg=reg, widths=[64], tol=0.0, max_iter=n)
        for reg, n in [(0.0, 10), (0.0, 60), (1.0, 60)]
    )
    assert not long.converged.any()
    for quantity in ("kernel_change", "largest_output", "parameter_distance"):
        few, many = (getattr(lazy, quantity).mean() for lazy in (short, long))
        assert many > 1.3 * few
    assert long.kernel_change.mean() > 3 * held.kernel_change.mean()


@pytest.mark.slow
def test_plain_arrays_are_measured_as_those_of_jax():
    double = [np.asarray(a, np.float64) for a in (X, Y, X_PROBE)]
    options = {"reg": 1.0, "widths": [4], "n_members": 1}
    problems = (X, Y, X_PROBE), double
    found, expected = (
        measure_laziness(jax.random.key(0), NET, x, y, Categorical(), X_probe=probe, **options)
        for x, y, probe in problems
    )
    np.testing.assert_array_equal(found.kernel_change, expected.kernel_change)


@pytest.mark.slow
def test_a_linear_model_is_its_linearisation():
    lazy = measure(reg=1.0, net=MLP(depth=0), widths=[8])
    assert lazy.kernel_change.max() < 1e-6
    assert lazy.linearisation_error.max() < 1e-4
    assert lazy.parameter_distance.min() > 0.1


def test_rate_is_that_of_the_power_law_within_its_interval():
    widths = np.array([10, 30, 100, 300])
    inside = 0
    for seed in range(200):
        noise = 0.1 * np.random.default_rng(seed).normal(size=(4, 5))
        rate = fit_rate(widths, 3.0 * widths[:, None] ** -0.5 * np.exp(noise))
        inside += rate.low < -0.5 < rate.high
    assert abs(inside - 190) < 4 * np.sqrt(200 * 0.95 * 0.05)
    assert np.isnan(fit_rate([1, 10], [[1.0], [0.1]]).low)
    with pytest.raises(ValueError, match="two widths at least"):
        fit_rate([10], [[1.0, 2.0]])


def test_no_width_to_vary():
    with pytest.raises(ValueError, match="takes no width"):
        measure(reg=1.0, net=Architecture(NET.module))


class Own(nnx.Module):
    """In Flax's parameterisation, whose weights are small and move far."""

    def __init__(self, in_features, out_features, *, rngs, width=8):
        self.first = nnx.Linear(in_features, width, rngs=rngs)
        self.last = nnx.Linear(width, out_features, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)))


def test_any_network_with_a_width():
    net = Architecture(Own)
    ways = net, lambda width: Architecture(partial(Own, width=width))
    found = [measure(reg=1.0, net=way, widths=[16], n_members=2).kernel_change for way in ways]
    np.testing.assert_array_equal(*found)
    net = net.with_width(16)
    trained = train_ensemble(jax.random.key(0), net, X, Y, Categorical(), reg=1.0, n_members=1)
    start, end = trained.member(0)
    before, after = (empirical_ntk(net, p, X_PROBE, trace=True) for p in (start, end))
    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert kernel_change(net, start, end, X_PROBE) == pytest.approx(expected, rel=1e-5)


def test_members_share_the_program_of_their_linearisation(monkeypatch):
    traced = []

    def counted(*arguments):
        traced.append(arguments)
        return linearisation(*arguments)

    monkeypatch.setattr("ntk_uq.lazy.linearisation", counted)
    measure(reg=1.0, widths=[16], n_members=3)
    assert len(traced) == 1


def test_leaving_the_lazy_regime_is_said():
    labels = np.arange(10) % 2
    own = Architecture(Own, parameterization="own")
    with pytest.warns(
        LazinessWarning, match=r'changed by [\d.e+]+ times .*or parameterization="ntk"'
    ):
        model = EnsembleClassifier(own, n_members=1, reg=1e-3).fit(np.asarray(X), labels)
    assert kernel_change(own, *model.ensemble_.member(0), X[:8]) > 1
    EnsembleClassifier(own, n_members=1, reg=100.0).fit(np.asarray(X), labels)  # and not here


@pytest.mark.slow
def test_command_prints_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ntk_uq.cli.lazy._ITERATIONS", (2, 4))
    picture = tmp_path / "lazy.png"
    options = ["--widths", "8", "16", "--members", "2", "--n-train", "20", "--max-iter", "5"]
    assert main(["lazy", "--data", "iris", *options, "--depth", "1", "-o", str(picture)]) == 0
    out = capsys.readouterr().out
    for text in ("reg = 1", "labels smoothed by 0.1", "one-hot labels", "rate", "iterations"):
        assert text in out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert main(["lazy", "--widths", "8", "-o", str(picture)]) == 2
    assert "a rate needs two widths" in capsys.readouterr().err


@pytest.mark.slow
def test_plot_shows_every_network_and_the_rate():
    lazy = measure(reg=1.0)  # as above: compiled already
    ax = plot_laziness({"reg = 1": lazy}, "parameter_distance")
    points = np.concatenate([line.get_ydata() for line in ax.get_lines()])
    assert np.isin(lazy.parameter_distance.ravel(), points).all()
    assert str(lazy.rate("parameter_distance")) in ax.get_legend().get_texts()[0].get_text()
