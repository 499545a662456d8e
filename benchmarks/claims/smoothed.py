"""With smoothed labels and no penalty the kernel stays too, if the smoothing is not too weak."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from _claim import Tables, run
from _widths import (
    GUIDE,
    STYLES,
    digits,
    guides,
    networks_table,
    outside_legend,
    plot_against_width,
    rates_table,
    smoothed,
    width_axis,
)
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ntk_uq import MLP, Categorical
from ntk_uq.lazy import measure_laziness

NETWORKS: dict[str, Any] = {
    "MLP, relu": MLP(depth=2),
    "MLP, gelu": MLP(depth=2, activation="gelu"),
}
LEVELS = [0.5, 0.1, 0.01]
QUANTITIES = ["kernel_change", "linearisation_error", "parameter_distance"]


def measure(quick: bool) -> Tables:
    widths, n, members = ([16, 32, 64], 20, 2) if quick else ([64, 128, 256, 512, 1024], 50, 3)
    X, one_hot, X_probe = digits(n, 20)
    parts = []
    for name, net in NETWORKS.items():
        for level in LEVELS:
            laziness = measure_laziness(
                jax.random.key(0), net, X, smoothed(one_hot, level), Categorical(), reg=0.0,
                widths=widths, X_probe=X_probe, n_members=members, tol=1e-4,
            )  # fmt: skip
            parts.append(networks_table(laziness, network=name, smoothing=level))
    networks = pd.concat(parts)
    return {
        "networks": networks,
        "rates": rates_table(networks, ["network", "smoothing"], QUANTITIES),
        "limit": limit(quick, X, one_hot),
    }


def limit(quick: bool, X: Any, one_hot: Any) -> pd.DataFrame:
    """One width, smoothing ever weaker, beside the network of infinite width."""
    width, members = (32, 1) if quick else (512, 2)
    levels = [0.1, 1e-3] if quick else np.logspace(-0.5, -6, 12)
    parts = []
    with jax.enable_x64(True):
        X, one_hot = (jnp.asarray(np.asarray(array), jnp.float64) for array in (X, one_hot))
        for name, net in NETWORKS.items():
            for level in levels:
                y = smoothed(one_hot, level)
                # The loss that a class of probability level / 10 can add is of that size.
                laziness = measure_laziness(
                    jax.random.key(0), net, X, y, Categorical(), reg=0.0, widths=[width],
                    X_probe=X, n_members=members, tol=min(1e-4, 1e-2 * level),
                )  # fmt: skip
                distance, logit = infinite(net, X, y)
                table = networks_table(laziness, network=name, smoothing=level)
                parts.append(table.assign(expected_distance=distance, expected_logit=logit))
    return pd.concat(parts)


def infinite(net: MLP, X: Any, y: Any) -> tuple[float, float]:
    """Root mean square distance of the parameters at infinite width, and the largest mean logit.

    Both over initialisations: f0 ~ GP(0, K) in f* - f0 = Theta beta, |theta - theta0|^2 =
    tr(beta^T Theta beta).
    """
    kernels = net.kernels(X)
    target = np.asarray(Categorical().optimum(y))
    of_target = np.sum(target * np.linalg.solve(kernels.ntk, target))
    of_start = (y.shape[1] - 1) * np.trace(np.linalg.solve(kernels.ntk, kernels.nngp))
    return float(np.sqrt(of_target + of_start)), float(np.abs(target).max())


def show_limit(limit: pd.DataFrame) -> pd.DataFrame:
    """Weaker and weaker smoothing as the page shows it, every other level."""
    columns = {
        "network": "network",
        "smoothing": "smoothing",
        "largest_output": "largest logit",
        "expected_logit": "infinite width: logit",
        "parameter_distance": "distance",
        "expected_distance": "infinite width: distance",
        "kernel_change": "kernel change",
    }
    means = limit.groupby(["network", "smoothing"], sort=False).mean(numeric_only=True)
    shown = means.reset_index()[list(columns)].rename(columns=columns).iloc[1::2]
    digits_of = {"smoothing": "{:.0e}", "kernel change": "{:.3f}"}
    for name in shown.columns[1:]:
        shown[name] = shown[name].map(digits_of.get(name, "{:.1f}").format)
    return shown


def draw(tables: Tables) -> Figure:
    networks, limit = tables["networks"], tables["limit"]
    figure, axes = plt.subplots(2, 2, figsize=(7, 6.8), layout="constrained")
    for ax, (name, part) in zip(axes[0], networks.groupby("network", sort=False), strict=True):
        widths = part["width"].unique()
        for (level, rows), style in zip(
            part.groupby("smoothing", sort=False), STYLES, strict=False
        ):
            plot_against_width(ax, rows, "kernel_change", f"smoothed by {level:g}", style)
        guides(ax, widths, part["kernel_change"].max())
        width_axis(ax, widths)
        ax.set_title(name, fontsize="medium", loc="left")
        ax.set(ylabel="Relative kernel change")
    labels = {
        "parameter_distance": "Distance of the parameters",
        "kernel_change": "Relative kernel change",
    }
    for ax, (quantity, label) in zip(axes[1], labels.items(), strict=True):
        for (name, rows), style in zip(limit.groupby("network", sort=False), STYLES, strict=False):
            mean = rows.groupby("smoothing").mean(numeric_only=True)
            ax.plot(mean.index, mean[quantity], **style, markersize=5, label=name)
            if quantity == "parameter_distance":
                infinite_width = {**GUIDE, "linestyle": style["linestyle"]}
                ax.plot(mean.index, mean["expected_distance"], **infinite_width,
                        label=f"{name}: infinite width")  # fmt: skip
        ax.set(xscale="log", xlabel="Smoothing", ylabel=label, ylim=(0, None))
        ax.invert_xaxis()
    axes[1, 0].legend(frameon=False, fontsize=9, loc="lower right")
    axes[1, 1].legend(frameon=False, fontsize=9, loc="upper left")
    outside_legend(figure, axes[0, 0])
    return figure


if __name__ == "__main__":
    run("smoothed", __doc__, measure, draw)
