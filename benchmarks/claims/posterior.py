"""The relation to Bayes: two kinds of ensemble against NUTS, over the regularisation.

A picture in one dimension, and digits: the spread of the latents at training points, at other
digits, and at pictures that are no digits.
"""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from _claim import Tables, run
from _laws import Floats, Infinite
from _widths import GUIDE, STYLES, digits
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.special import softmax

from ntk_uq import MLP, Categorical, SamplePrediction
from ntk_uq.analytic import Uncertainty
from ntk_uq.ensemble import train_ensemble
from ntk_uq.metrics import total_variation

NET = MLP()
LINE_NET = MLP(b_std=1.0)
NUTS = "NUTS"
INITIALIZATION: Uncertainty = "initialization"
POSTERIOR: Uncertainty = "posterior"
KINDS = (INITIALIZATION, POSTERIOR)
CORRECTED, MORE, LAPLACE = "posterior, corrected", "posterior, 16 trajectories", "Laplace"
TRAINING, TEST, NO_DIGITS = "training digits", "other digits", "shuffled pixels"
GROUPS = (TRAINING, TEST, NO_DIGITS)
# Two classes on a line, with a gap, and some labels that contradict their neighbours.
LINE_X = np.array([-1.6, -1.4, -1.2, -1.0, -0.8, -0.6, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6])
LINE_Y = np.array([0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1])


def measure(quick: bool) -> Tables:
    regs = [1.0] if quick else [0.01, 0.1, 1.0, 10.0]
    n, m, draws = (12, 10, 64) if quick else (60, 20, 2000)
    line = pd.concat([on_a_line(reg, draws) for reg in ([1.0] if quick else [1.0, 10.0, 100.0])])
    X, y, X_test = digits(n, m)
    found = [on_digits(reg, X, y, X_test, draws, quick) for reg in regs]
    return {"line": line, **{name: pd.concat([f[name] for f in found]) for name in found[0]}}


def on_a_line(reg: float, draws: int) -> pd.DataFrame:
    """Mean and standard deviation of the log odds along the line."""
    X, y = LINE_X[:, None], np.eye(2)[LINE_Y]
    x = np.linspace(-5, 5, 41)
    infinite = Infinite(LINE_NET, X, y, x[:, None], Categorical(), reg)
    samples = {
        NUTS: infinite.nuts(1, draws)[0],
        INITIALIZATION: infinite.draws(0, INITIALIZATION, draws),
        POSTERIOR: infinite.draws(0, POSTERIOR, draws),
        CORRECTED: infinite.draws(2, POSTERIOR, draws, n_trajectories=1),
    }
    rows = []
    for method, latents in samples.items():
        odds = latents[..., 1] - latents[..., 0]
        columns = {"reg": reg, "method": method, "x": x}
        rows.append(pd.DataFrame({**columns, "mean": odds.mean(axis=0), "sd": odds.std(axis=0)}))
    return pd.concat(rows)


def on_digits(reg, X, y, X_test, draws, quick) -> dict[str, pd.DataFrame]:
    """Of each method its distance from NUTS, of directions their spread; NUTS's diagnostics."""
    shuffled = np.random.default_rng(0).permuted(np.asarray(X_test), axis=1)
    x = np.concatenate([X, X_test, shuffled]).astype(float)
    group = np.repeat(GROUPS, [len(X), len(X_test), len(X_test)])
    infinite = Infinite(NET, np.asarray(X, float), np.asarray(y, float), x, Categorical(), reg)
    nuts, diagnostics = infinite.nuts(1, draws)
    samples = {
        INITIALIZATION: infinite.draws(0, INITIALIZATION, draws),
        POSTERIOR: infinite.draws(0, POSTERIOR, draws),
        CORRECTED: infinite.draws(2, POSTERIOR, draws, n_trajectories=1),
        MORE: infinite.draws(2, POSTERIOR, draws, n_trajectories=16),
    }
    if reg == 1:
        for kind, width in product(KINDS, [32, 64] if quick else [256, 512]):
            trained = train_ensemble(
                jax.random.key(0), replace(NET, width=width), X, y, Categorical(), reg=reg,
                uncertainty=kind, n_members=4 if quick else 128,
            )  # fmt: skip
            latents = np.asarray(trained.latents(jnp.asarray(x, X.dtype)))
            samples[f"{kind}, 128 networks of width {width}"] = latents
    mode, cov = infinite.moments(POSTERIOR)
    gaussian = np.random.default_rng(0).multivariate_normal(
        mode.ravel(), cov.reshape(mode.size, -1), size=draws, method="eigh"
    )
    samples[LAPLACE] = gaussian.reshape(draws, *mode.shape)

    prior_ratio = np.sqrt(reg * np.diag(infinite.test.nngp) / np.diag(infinite.test.ntk))
    exact = spread(nuts)
    rows = []
    for method, latents in samples.items():
        ratios = spread(latents) / exact
        for name in GROUPS:
            here = group == name
            own, known = (SamplePrediction(f[:, here], Categorical()) for f in (latents, nuts))
            rows.append(
                {
                    "reg": reg,
                    "method": method,
                    "group": name,
                    "sd_ratio": np.median(ratios[here]),
                    "low": np.quantile(ratios[here], 0.1),
                    "high": np.quantile(ratios[here], 0.9),
                    "prior_ratio": np.median(prior_ratio[here]),
                    "epistemic_ratio": own.epistemic.mean() / known.epistemic.mean(),
                    "total_variation": total_variation(own.proba(), known.proba()).mean(),
                }
            )
    rhat, ess = np.max(diagnostics.rhat), np.min(diagnostics.ess_bulk)
    return {
        "summary": pd.DataFrame(rows),
        "directions": along_eigenvectors(infinite, reg, mode[: len(X)], nuts, samples),
        "sampler": pd.DataFrame([{"reg": reg, "largest_rhat": rhat, "smallest_ess": ess}]),
    }


def along_eigenvectors(infinite, reg, mode, nuts, samples) -> pd.DataFrame:
    """Spread of the training latents along the eigenvectors of the tangent kernel.

    Where the kernels share eigenvectors and the curvature is w everywhere, with eigenvalues k of
    K and t of Theta, that of initialization is k (reg / (reg + w t))^2 and that of the posterior
    t / (reg + w t).
    """
    t, vectors = np.linalg.eigh(infinite.train.ntk)
    k = np.einsum("ij,ik,kj->j", vectors, infinite.train.nngp, vectors)
    p = softmax(mode, axis=1)
    w = np.mean(1 - np.sum(p**2, axis=1)) / (p.shape[1] - 1)  # eigenvalues other than zero
    n = len(t)
    sd = {
        method: spread(np.einsum("ij,sic->sjc", vectors, latents[:, :n]))
        for method, latents in {"NUTS": nuts, **samples}.items()
        if method in (NUTS, *KINDS)
    }
    columns = {
        "reg": reg,
        "eigenvalue": t,
        "predicted": np.sqrt(reg * k / t * reg / (reg + w * t)),
        **{method: sd[method] / sd[NUTS] for method in KINDS},
    }
    return pd.DataFrame(columns)


def spread(latents: Floats) -> Floats:
    """Standard deviation of the logits less their mean, root mean square over classes: [m]."""
    centred = latents - latents.mean(axis=-1, keepdims=True)
    return np.sqrt(centred.var(axis=0, ddof=1).mean(axis=-1))


def show(tables: Tables) -> pd.DataFrame:
    """Standard deviations relative to NUTS's by group, and distances at the other digits."""
    summary = tables["summary"]
    order = list(dict.fromkeys(summary["method"]))
    index = {"index": ["reg", "method"], "columns": "group"}
    spreads = summary.pivot(**index, values="sd_ratio")[list(GROUPS)]
    spreads.columns = [f"sd ratio, {group}" for group in spreads.columns]
    for name in ("epistemic_ratio", "total_variation"):
        title = f"{name.replace('_', ' ')}, {TEST}"
        spreads[title] = summary.pivot(**index, values=name)[TEST]
    rank = {method: i for i, method in enumerate(order)}
    return spreads.sort_index(key=lambda level: level.map(lambda v: rank.get(v, v))).round(3)


def draw(tables: Tables) -> Figure:
    line, summary = tables["line"], tables["summary"]
    figure = plt.figure(figsize=(7, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    regs = line["reg"].unique()
    axes = top.subplots(1, len(regs), squeeze=False)[0]
    for ax, reg in zip(axes, regs, strict=True):
        draw_line(ax, line[line["reg"] == reg])
        ax.set_title(f"reg = {reg:g}", fontsize=10)
    axes[0].set(ylabel="Log odds: mean ± 2 sd")
    handles, labels = axes[0].get_legend_handles_labels()
    top.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    against_reg, explained = bottom.subplots(1, 2)
    draw_against_reg(against_reg, summary)
    draw_directions(explained, tables["directions"])
    return figure


def draw_line(ax, line: pd.DataFrame) -> None:
    limit = 1.1 * (line["mean"].abs() + 2 * line["sd"]).max()
    for method, part in line.groupby("method", sort=False):
        low, high = part["mean"] - 2 * part["sd"], part["mean"] + 2 * part["sd"]
        if method == NUTS:
            ax.fill_between(part["x"], low, high, color="0.8", label=NUTS, linewidth=0)
        else:
            style = STYLES[(INITIALIZATION, POSTERIOR, CORRECTED).index(method)]
            style = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.3}
            ax.plot(part["x"], low, **style)
            ax.plot(part["x"], high, **style, label=method)
    ax.plot(
        LINE_X, np.where(LINE_Y, 0.93, -0.93) * limit, "|", color="black", markersize=7,
        label="labels (1 above)",
    )  # fmt: skip
    ax.set(xlabel="x", ylim=(-limit, limit))


def draw_against_reg(ax, summary: pd.DataFrame) -> None:
    rows = summary[summary["method"] == INITIALIZATION]
    for group, style in zip(GROUPS, STYLES, strict=False):
        part = rows[rows["group"] == group]
        errors = [part["sd_ratio"] - part["low"], part["high"] - part["sd_ratio"]]
        ax.errorbar(
            part["reg"], part["sd_ratio"], yerr=errors, **style, markersize=5, capsize=2,
            label=group,
        )  # fmt: skip
    rows = summary[summary["method"] == POSTERIOR].groupby("reg")["sd_ratio"].median()
    ax.plot(rows.index, rows, **STYLES[3], markersize=5, label="posterior draws, all")
    prior = summary.groupby("reg")["prior_ratio"].median()
    ax.plot(prior.index, prior, **GUIDE, linestyle="-", label="prior functions")
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="reg", ylabel="Sd of initialization / NUTS's")
    ax.set_ylim(0.011, 3)
    ax.legend(frameon=False, fontsize=9, loc="lower right")


def draw_directions(ax, directions: pd.DataFrame) -> None:
    for (reg, part), style in zip(directions.groupby("reg"), STYLES, strict=False):
        ax.plot(
            part["eigenvalue"], part[INITIALIZATION], color=style["color"],
            marker=style["marker"], linestyle="none", markersize=3.5, label=f"reg = {reg:g}",
        )  # fmt: skip
        ax.plot(part["eigenvalue"], part["predicted"], color=style["color"], linewidth=1)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="Eigenvalue of Θ(X, X)")
    ax.set(ylabel="Sd of initialization / NUTS's", ylim=(0.011, 6))
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="upper center", columnspacing=1)


if __name__ == "__main__":
    run("posterior", __doc__, measure, draw)
