"""Other losses with a nonlinear output: the claims in small, for Bernoulli and Poisson likelihoods.

How the kernel's change falls with the width, how parameters run away without either condition, the
distribution over initialisations, and the posterior. Labels are those of breast_cancer; counts are
synthetic, drawn given the features of diabetes.
"""

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from _claim import Tables, run
from _laws import Floats, Infinite, Reference, statistics, subsets
from _widths import (
    GUIDE,
    STYLES,
    guides,
    networks_table,
    plot_against_width,
    rates_table,
    width_axis,
)
from jax.flatten_util import ravel_pytree
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler

from ntk_uq import MLP, Bernoulli, Poisson
from ntk_uq.datasets import load_dataset, split
from ntk_uq.ensemble import ConvergenceWarning, train_ensemble
from ntk_uq.gradient_flow import integrate
from ntk_uq.kernels import empirical_ntk
from ntk_uq.lazy import measure_laziness
from ntk_uq.likelihoods import Likelihood

NET = MLP()
NUTS = "NUTS"
LABELS, COUNTS = "Bernoulli", "Poisson"
REG, PLAIN, SOFT = "reg = 1", "reg = 0, degenerate", "reg = 0, non-degenerate"
# Networks whose law is measured.
WIDTH = 256


class Problem(NamedTuple):
    """Training points, targets [n, 1] as they are and made non-degenerate, and test points."""

    likelihood: Likelihood
    X: Floats
    y: Floats
    soft: Floats
    X_test: Floats


def problems(n: int, m: int) -> dict[str, Problem]:
    parts = split(load_dataset("breast_cancer"), n_train=n, n_test=m)
    y = (parts.y_train == np.unique(parts.y_train)[1]).astype(float)[:, None]
    labels = Problem(Bernoulli(), parts.X_train, y, 0.8 * y + 0.1, parts.X_test)
    rng = np.random.default_rng(0)
    x = load_diabetes().data
    x = StandardScaler().fit_transform(x)[rng.permutation(len(x))[: n + m]]
    # Body mass index and blood pressure raise the rate, one of the serum values bends it.
    counts = rng.poisson(np.exp(0.5 + 0.4 * x[:n, 2] + 0.2 * x[:n, 3] + 0.3 * np.sin(2 * x[:n, 8])))
    y = counts[:, None].astype(float)
    return {LABELS: labels, COUNTS: Problem(Poisson(), x[:n], y, np.maximum(y, 1), x[n:])}


def conditions(problem: Problem, *more: str) -> dict[str, tuple[Floats, float]]:
    """Targets and regularisation under either condition of the theory, and without."""
    without = {name: (problem.y, 0.0) for name in more}
    return {REG: (problem.y, 1.0), **without, SOFT: (problem.soft, 0.0)}


def measure(quick: bool) -> Tables:
    n, m = (12, 5) if quick else (40, 20)
    tables: dict[str, list[pd.DataFrame]] = {}
    for loss, problem in problems(n, m).items():
        networks = over_widths(problem, quick)
        rates = rates_table(networks, ["condition"], ["kernel_change"])
        found = {
            "widths": networks,
            "rates": rates,
            "times": over_time(problem, quick),
            **laws(problem, quick),
            **bayes(problem, quick),
        }
        for name, table in found.items():
            tables.setdefault(name, []).append(table.assign(loss=loss))
    return {name: pd.concat(parts) for name, parts in tables.items()}


def over_widths(problem: Problem, quick: bool) -> pd.DataFrame:
    """Movement of networks trained to the end, under either condition."""
    widths, members = ([8, 16], 2) if quick else ([64, 128, 256, 512, 1024], 5)
    X, probe = (jnp.asarray(x, jnp.float32) for x in (problem.X, problem.X_test[:12]))
    parts = []
    for condition, (y, reg) in conditions(problem).items():
        laziness = measure_laziness(
            jax.random.key(0), NET, X, jnp.asarray(y, jnp.float32), problem.likelihood, reg=reg,
            widths=widths, X_probe=probe, n_members=members, tol=1e-5,
        )  # fmt: skip
        parts.append(networks_table(laziness, condition=condition))
    return pd.concat(parts)


def over_time(problem: Problem, quick: bool) -> pd.DataFrame:
    """Distance from the start along gradient flow: at infinite width, and of one network."""
    net = replace(NET, width=16 if quick else WIDTH)
    with jax.enable_x64(True):
        X = jnp.asarray(problem.X)
        initial = net.init(jax.random.key(0), in_features=X.shape[1], out_features=1)
        initial = jax.tree.map(lambda leaf: leaf.astype(X.dtype), initial)
        f0, ntk = np.asarray(net.apply(initial, X)), net.kernels(problem.X).ntk
        before = empirical_ntk(net, initial, X)
        parts = []
        for condition, (y, reg) in conditions(problem, PLAIN).items():
            times = np.logspace(-3, 1 if quick else 5, 33)
            alpha = integrate(ntk, y, f0, reg, problem.likelihood, times, rtol=1e-4)
            moved = np.sqrt(np.einsum("tic,ij,tjc->t", alpha, ntk, alpha))
            parts.append(pd.DataFrame({"time": times, "distance": moved, "width": "infinite"}))
            times = np.logspace(-3, 0 if quick else 0.5, 5 if quick else 15)
            rows = []
            path = flow(net, initial, X, y, reg, problem.likelihood, times)
            for time, params in zip(times, path, strict=True):
                change = jnp.linalg.norm(empirical_ntk(net, params, X) - before)
                rows.append((time, distance(params, initial), change / jnp.linalg.norm(before)))
            finite = pd.DataFrame(rows, columns=["time", "distance", "kernel_change"], dtype=float)
            parts.append(finite.assign(width=str(net.width)))
            parts[-2:] = [part.assign(condition=condition) for part in parts[-2:]]
    return pd.concat(parts)


def distance(params: Any, initial: Any) -> float:
    return float(jnp.linalg.norm(ravel_pytree(params)[0] - ravel_pytree(initial)[0]))


def flow(net, initial, X, y, reg, likelihood, times) -> list[Any]:
    """Parameters of a network along gradient flow, at increasing times."""
    start, unravel = ravel_pytree(initial)
    y = jnp.asarray(y)

    @jax.jit
    def velocity(flat):
        f, pull_back = jax.vjp(lambda p: net.apply(p, X), unravel(flat))
        return ravel_pytree(pull_back(likelihood.gradient(f, y)))[0] - reg * (flat - start)

    span = (0, times[-1])
    found = solve_ivp(
        lambda _, flat: np.asarray(velocity(flat)), span, np.asarray(start), method="RK23",
        t_eval=times, rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    return [unravel(jnp.asarray(flat)) for flat in found.y.T]


def laws(problem: Problem, quick: bool) -> dict[str, pd.DataFrame]:
    """Trained networks against the law at infinite width, and a sample of the law itself."""
    members, draws, replicates = (16, 128, 5) if quick else (512, 8192, 100)
    found, latents = [], []
    for condition, (y, reg) in conditions(problem).items():
        infinite = Infinite(NET, problem.X, y, problem.X_test, problem.likelihood, reg)
        exact = infinite.draws(0, "initialization", 2 * draws)[..., 0]
        reference = Reference.of_draws(exact[:draws])
        copies = subsets(0, exact[draws:], members, replicates)
        expected = pd.DataFrame([statistics(copy, reference) for copy in copies])
        trained = train_ensemble(
            jax.random.key(1), replace(NET, width=16 if quick else WIDTH),
            *(jnp.asarray(a, jnp.float32) for a in (problem.X, y)), problem.likelihood, reg=reg,
            n_members=members, tol=1e-5,
        )  # fmt: skip
        sample = np.asarray(trained.latents(jnp.asarray(problem.X_test, jnp.float32)), float)[
            ..., 0
        ]
        for statistic, value in statistics(sample, reference).items():
            limits = expected[statistic].quantile([0.025, 0.5, 0.975])
            found.append((condition, statistic, value, *limits))
        latents.append(
            pd.DataFrame(
                {
                    "condition": condition,
                    "law_mean": reference.mean,
                    "law_sd": np.sqrt(np.diag(reference.cov)),
                    "mean": sample.mean(axis=0),
                    "sd": sample.std(axis=0, ddof=1),
                }
            )
        )
    columns = ["condition", "statistic", "value", "low", "median", "high"]
    return {"laws": pd.DataFrame(found, columns=columns), "latents": pd.concat(latents)}


def bayes(problem: Problem, quick: bool) -> dict[str, pd.DataFrame]:
    """Ensembles of either kind against NUTS, at the test points."""
    draws = 64 if quick else 4000
    points, sampler = [], []
    for reg in (0.1, 1.0, 10.0):
        infinite = Infinite(NET, problem.X, problem.y, problem.X_test, problem.likelihood, reg)
        nuts, diagnostics = infinite.nuts(1, draws)
        samples = {
            NUTS: nuts,
            "initialization": infinite.draws(0, "initialization", draws),
            "posterior": infinite.draws(0, "posterior", draws),
            "posterior, corrected": infinite.draws(2, "posterior", draws, n_trajectories=1),
            "posterior, 16 trajectories": infinite.draws(2, "posterior", draws, n_trajectories=16),
        }
        for method, latents in samples.items():
            columns = {
                "reg": reg,
                "method": method,
                "point": np.arange(len(problem.X_test)),
                "mean": latents[..., 0].mean(axis=0),
                "sd": latents[..., 0].std(axis=0),
            }
            points.append(pd.DataFrame(columns))
        sampler.append((reg, np.max(diagnostics.rhat), np.min(diagnostics.ess_bulk)))
    columns = ["reg", "largest_rhat", "smallest_ess"]
    return {"posterior": pd.concat(points), "sampler": pd.DataFrame(sampler, columns=columns)}


def show(tables: Tables) -> dict[str, pd.DataFrame]:
    """Tables of the page."""
    rates = tables["rates"].drop_duplicates().copy()
    rates["exponent"] = [
        f"{r.exponent:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in rates.itertuples()
    ]
    laws = tables["laws"].copy()
    inside = laws["value"].between(laws["low"], laws["high"])
    laws["networks"] = [
        f"{value:.3f}{'' if ok else ' *'}" for value, ok in zip(laws["value"], inside, strict=True)
    ]
    laws["the law itself"] = [f"{r.low:.3f} to {r.high:.3f}" for r in laws.itertuples()]
    laws["statistic"] = laws["statistic"].str.replace("_", " ")
    return {
        "rates": rates.set_index(["loss", "condition", "widths"])[["exponent"]],
        "laws": laws.set_index(["loss", "condition", "statistic"])[["networks", "the law itself"]],
        "posterior": against_nuts(tables["posterior"]),
        "sampler": tables["sampler"].set_index(["loss", "reg"]).round(3),
    }


def against_nuts(posterior: pd.DataFrame) -> pd.DataFrame:
    """Median over points of the ratio of standard deviations, and of shifts of the mean."""
    wide = posterior.set_index(["loss", "reg", "point", "method"]).unstack("method")
    rows = {}
    for method in dict.fromkeys(posterior["method"]):
        if method != NUTS:
            ratio = wide["sd"][method] / wide["sd"][NUTS]
            shift = (wide["mean"][method] - wide["mean"][NUTS]).abs() / wide["sd"][NUTS]
            rows[f"sd ratio, {method}"] = ratio.groupby(level=["loss", "reg"]).median()
            rows[f"mean shift (sd), {method}"] = shift.groupby(level=["loss", "reg"]).median()
    return pd.DataFrame(rows).round(3)


def draw(tables: Tables) -> Figure:
    figure, axes = plt.subplots(3, 2, figsize=(7, 8.6), layout="constrained")
    for column, loss in enumerate((LABELS, COUNTS)):
        own = {name: table[table["loss"] == loss] for name, table in tables.items()}
        axes[0, column].set_title(loss, fontsize=10)
        draw_widths(axes[0, column], own["widths"])
        draw_times(axes[1, column], own["times"])
        draw_spreads(axes[2, column], own["latents"], own["posterior"])
    for row in axes:
        row[1].set_ylabel("")
    return figure


def draw_widths(ax, networks: pd.DataFrame) -> None:
    for condition, style in zip((REG, SOFT), STYLES, strict=False):
        part = networks[networks["condition"] == condition]
        plot_against_width(ax, part, "kernel_change", condition, style)
    widths = networks["width"].unique()
    highest, lowest = networks["kernel_change"].max(), networks["kernel_change"].min()
    guides(ax, widths, 1.3 * highest)
    ax.set_ylabel("Relative kernel change")
    width_axis(ax, widths)
    ax.set_ylim(0.12 * lowest, 2 * highest)
    ax.legend(frameon=False, loc="lower left", fontsize=9)


def draw_times(ax, times: pd.DataFrame) -> None:
    styles = (STYLES[0], STYLES[2], STYLES[1])
    for (condition, part), style in zip(
        times.groupby("condition", sort=False), styles, strict=True
    ):
        infinite = part["width"] == "infinite"
        line = {"color": style["color"], "linestyle": style["linestyle"]}
        ax.plot(part["time"][infinite], part["distance"][infinite], **line)
        dots = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
        ax.plot(part["time"][~infinite], part["distance"][~infinite], **dots, markersize=4)
        ax.plot([], [], **style, markersize=4, label=condition)
    ax.set(xscale="log", xlabel="Time", ylabel="Distance from the start")
    ax.legend(frameon=False, fontsize=9)


def draw_spreads(ax, latents: pd.DataFrame, posterior: pd.DataFrame) -> None:
    part = latents[latents["condition"] == REG]
    pairs = {"networks / exact draws": (part["law_sd"], part["sd"])}
    wide = posterior[posterior["reg"] == 1].pivot(index="point", columns="method", values="sd")
    for method in ("posterior", "initialization"):
        pairs[f"{method} / NUTS"] = (wide[NUTS], wide[method])
    for (label, (x, y)), style in zip(pairs.items(), STYLES, strict=False):
        ax.plot(
            x, y, linestyle="none", color=style["color"], marker=style["marker"], markersize=4,
            label=label,
        )  # fmt: skip
    ends = np.array([0, 1.05 * max(np.max(x) for x, _ in pairs.values())])
    ax.plot(ends, ends, **GUIDE, linestyle="--", label="equal")
    ax.set(xlabel="Latent sd of the reference", ylabel="Latent sd of the ensemble")
    ax.legend(frameon=False, fontsize=9)


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    run("other_losses", __doc__, measure, draw)
