"""The distribution over initialisations: closed form and exact draws against trained networks.

512 networks of several widths, with reg = 1 and with smoothed labels and reg = 0, are held against
the law of the infinitely wide one: means, standard deviations, correlations, quantiles and tests.
What a sample of the law itself would show comes from exact draws.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from _claim import Tables, run
from _laws import Floats, Infinite, Reference, quantile_errors, statistics, subsets
from _widths import GUIDE, STYLES, digits, smoothed, width_axis
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.stats import norm

from ntk_uq import MLP, Categorical, ConvNet
from ntk_uq.ensemble import solve_linearised, train_ensemble
from ntk_uq.networks.architecture import BaseArchitecture

REG, SMOOTHED = "one-hot, reg = 1", "smoothed by 0.2, reg = 0"
PROBABILITIES = np.array([0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95,
                          0.975, 0.99])  # fmt: skip
MLP_NAME, CONV_NAME = "MLP", "ConvNet"
CLOSED_FORM, LINEARISED = "closed form", "linearised"


def measure(quick: bool) -> Tables:
    members, draws, replicates = (16, 256, 5) if quick else (512, 8192, 100)
    n, m = (12, 3) if quick else (40, 12)
    mlps, convs = ([8, 16], [4]) if quick else ([32, 128, 512], [4, 16])
    X, one_hot, X_test = digits(n, m if not quick else 10)
    X_test = X_test[:m]
    targets = {REG: (one_hot, 1.0), SMOOTHED: (smoothed(one_hot, 0.2), 0.0)}
    problems: list[tuple[str, str, BaseArchitecture, Any, Any, list[int]]] = [
        (condition, MLP_NAME, MLP(), X, X_test, mlps) for condition in targets
    ]
    problems.append((REG, CONV_NAME, ConvNet(readout="flatten"), coarse(X), coarse(X_test), convs))
    found, quantiles, latents = [], [], []
    for condition, name, net, x, x_test, widths in problems:
        y, reg = targets[condition]
        reference, samples = theory(net, x, y, x_test, reg, draws, members)
        for width in widths:
            wide: Any = replace(net, width=width)
            if reg > 0 and width < widths[-1] and name == MLP_NAME:
                solved = solve_linearised(
                    jax.random.key(0), wide, x, y, Categorical(), reg=reg, n_members=members
                )
                latents_there = np.asarray(solved.latents(x_test), float)
                samples[f"{width}, {LINEARISED}"] = coordinates(latents_there)
            trained = train_ensemble(
                jax.random.key(0), wide, x, y, Categorical(), reg=reg, n_members=members, tol=1e-5
            )
            samples[str(width)] = coordinates(np.asarray(trained.latents(x_test), float))
        copies = subsets(0, samples.pop("law"), members, replicates)
        expected = pd.DataFrame([statistics(copy, reference) for copy in copies])
        low, high = expected.quantile(0.025), expected.quantile(0.975)
        errors = [quantile_errors(copy, reference, PROBABILITIES) for copy in copies]
        bands = np.quantile(errors, [0.025, 0.975], axis=0)
        for width, sample in samples.items():
            for statistic, value in statistics(sample, reference).items():
                limits = low[statistic], expected[statistic].median(), high[statistic]
                found.append((condition, name, width, statistic, value, *limits))
            columns = {"condition": condition, "network": name, "width": width}
            quantiles.append(
                pd.DataFrame(
                    {
                        **columns,
                        "probability": PROBABILITIES,
                        "error": quantile_errors(sample, reference, PROBABILITIES),
                        "low": bands[0],
                        "high": bands[1],
                    }
                )
            )
            if name == MLP_NAME and width in (str(widths[0]), str(widths[-1])):
                sd, own = np.sqrt(np.diag(reference.cov)), sample.std(axis=0, ddof=1)
                latents.append(pd.DataFrame({**columns, "law": sd, "networks": own})[::2])
    names = ["condition", "network", "width", "statistic", "value", "low", "median", "high"]
    return {
        "statistics": pd.DataFrame(found, columns=names),
        "quantiles": pd.concat(quantiles),
        "latents": pd.concat(latents),
    }


def coarse(X: Any) -> Any:
    """Pictures of 4 x 4 means over 2 x 2 pixels."""
    return jnp.asarray(X.reshape(-1, 4, 2, 4, 2, 1).mean(axis=(2, 4)))


def coordinates(latents: Floats) -> Floats:
    """Logits less their mean over the classes, of all classes but the last: [S, m (C - 1)]."""
    centred = latents - latents.mean(axis=-1, keepdims=True)
    return centred[..., :-1].reshape(len(latents), -1)


def theory(net, X, y, X_test, reg, draws, members) -> tuple[Reference, dict[str, Floats]]:
    """The law, fresh draws of it ("law"), and where it is not the law draws of the closed form."""
    X, y, X_test = (np.asarray(array, float) for array in (X, y, X_test))
    infinite = Infinite(net, X, y, X_test, Categorical(), reg)
    exact = coordinates(infinite.draws(0, "initialization", 2 * draws))
    mean, cov = infinite.moments("initialization")
    gaussian = np.random.default_rng(0).multivariate_normal(
        mean.ravel(), cov.reshape(mean.size, -1), size=draws, method="eigh"
    )
    closed_form = coordinates(gaussian.reshape(draws, *mean.shape))
    if reg > 0:
        reference = Reference.of_draws(exact[:draws])
        return reference, {"law": exact[draws:], CLOSED_FORM: closed_form[:members]}
    project = np.kron(np.eye(len(mean)), np.eye(10)[:-1] - 0.1)
    mean, cov = project @ mean.ravel(), project @ cov.reshape(mean.size, -1) @ project.T
    return Reference(exact[:draws], mean, cov, True), {"law": exact[draws:]}


# Statistics of the page's table, and what they are called there.
SHOWN = {
    "mean_shift": "mean shift (sd)",
    "sd_ratio": "sd ratio",
    "correlation_error": "correlation error",
    "mean_test": "mean test",
    "cov_test": "covariance test",
    "ks_rejected": "KS rejected",
    "energy": "energy distance",
}


def show(tables: Tables) -> pd.DataFrame:
    """Statistics as text, those outside what a sample of the law shows in 95% of cases with a *."""
    rows = {}
    for key, problem in tables["statistics"].groupby(["condition", "network"], sort=False):
        for width, part in problem.groupby("width", sort=False):
            part = part.set_index("statistic")
            rows[(*key, width)] = {
                title: text(name, part["value"][name])
                + ("" if part["low"][name] <= part["value"][name] <= part["high"][name] else " *")
                for name, title in SHOWN.items()
            }
        rows[(*key, "the law itself")] = {
            title: " to ".join(text(name, part[end][name]) for end in ("low", "high"))
            for name, title in SHOWN.items()
        }
    index = pd.MultiIndex.from_tuples(rows, names=["condition", "network", "width"])
    return pd.DataFrame(list(rows.values()), index=index)


def text(statistic: str, value: float) -> str:
    if statistic == "ks_rejected":
        return f"{value:.0%}"
    return f"{value:.4f}" if statistic == "energy" else f"{value:.3f}"


def draw(tables: Tables) -> Figure:
    found, quantiles, latents = (tables[n] for n in ("statistics", "quantiles", "latents"))
    figure, axes = plt.subplots(3, 2, figsize=(7, 9), layout="constrained")
    for column, condition in enumerate((REG, SMOOTHED)):
        scatter, worm, against_width = axes[:, column]
        scatter.set_title(condition, fontsize=10)
        draw_deviations(scatter, latents[latents["condition"] == condition])
        draw_quantiles(worm, quantiles[quantiles["condition"] == condition])
        draw_widths(against_width, found[found["condition"] == condition])
    return figure


def draw_deviations(ax, latents: pd.DataFrame) -> None:
    latents = latents.astype({"width": str})
    for (width, part), style in zip(
        latents.groupby("width", sort=False), STYLES[::2], strict=False
    ):
        ax.plot(
            part["law"], part["networks"], linestyle="none", color=style["color"],
            marker=style["marker"], markersize=3.5, label=f"width {width}",
        )  # fmt: skip
    ends = [0.95 * latents["law"].min(), 1.05 * latents["law"].max()]
    ax.plot(ends, ends, **GUIDE, linestyle="--")
    ax.set(xlabel="Standard deviation, infinite width", ylabel="Standard deviation, 512 networks")
    ax.legend(frameon=False)


def draw_quantiles(ax, quantiles: pd.DataFrame) -> None:
    part = quantiles[quantiles["network"] == MLP_NAME]
    part = part[~part["width"].str.contains(LINEARISED)]
    first = part[part["width"] == part["width"].iloc[-1]]
    score = norm.ppf(first["probability"])
    ax.fill_between(score, first["low"], first["high"], color="0.85", label="95% of samples")
    for (width, rows), style in zip(
        part.groupby("width", sort=False), line_styles(part), strict=True
    ):
        label = width if width == CLOSED_FORM else f"width {width}"
        ax.plot(score, rows["error"], **style, markersize=4, label=label)
    ax.set(xlabel="Normal score of the quantile", ylabel="Quantile error (sd)")
    ax.legend(frameon=False, fontsize=9)


def line_styles(part: pd.DataFrame) -> list[dict[str, Any]]:
    """One for each width; the closed form comes first and is black."""
    widths = part["width"].unique()
    closed = [{"color": "black", "marker": "x", "linestyle": ":"}] * (widths[0] == CLOSED_FORM)
    return closed + STYLES[: len(widths) - len(closed)]


def draw_widths(ax, found: pd.DataFrame) -> None:
    finite = found[found["width"].astype(str).str.fullmatch("[0-9]+")].astype({"width": int})
    styles = iter(STYLES)
    for statistic, label, base in (("mean_shift", "mean", 0), ("sd_ratio", "sd", 1)):
        for name, rows in finite[finite["statistic"] == statistic].groupby("network", sort=False):
            style = next(styles)
            errors = (rows["value"] - base).abs()
            ax.plot(rows["width"], errors, **style, label=f"{label}, {name}")
            limit = np.maximum(rows["high"] - base, base - rows["low"])
            ax.plot(rows["width"], limit, color=style["color"], linewidth=0.8)
    ax.set_ylabel("Error (sd)")
    width_axis(ax, finite["width"].unique())
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.35)
    ax.legend(frameon=False, fontsize=9, loc="upper right")


if __name__ == "__main__":
    run("spread", __doc__, measure, draw)
