"""What the experiments over widths share: digits, rates as a table, and lines against the width."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ntk_uq.lazy import Laziness, fit_rate

# Colours of Okabe and Ito, with a marker and a line style each for print in grey.
STYLES: list[dict[str, Any]] = [
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
]
GUIDE = {"color": "0.45", "linewidth": 1}
# Widths whose slope is reported beside that over all of them.
LARGEST = 3


def digits(
    n_train: int, n_probe: int, *, images: bool = False, dtype: Any = jnp.float32
) -> tuple[Any, Any, Any]:
    """Training points, one-hot labels, and probe points.

    Pixels less their mean over the training images, all divided by one standard deviation: with
    one for each pixel, those that are nearly always empty would be large where they are not.
    """
    pixels, labels = load_digits(return_X_y=True)
    train, probe, y, _ = train_test_split(
        pixels, labels, train_size=n_train, test_size=n_probe, stratify=labels, random_state=0
    )
    shape = (-1, 8, 8, 1) if images else (-1, 64)
    mean = train.mean(axis=0)
    scale = (train - mean).std()
    X, X_probe = (jnp.asarray((x - mean).reshape(shape) / scale, dtype) for x in (train, probe))
    return X, jnp.asarray(np.eye(10)[y], dtype), X_probe


def smoothed(one_hot: Any, smoothing: float) -> Any:
    """Targets of which a part is spread over all classes."""
    return (1 - smoothing) * one_hot + smoothing / one_hot.shape[1]


def networks_table(laziness: Laziness, **columns: Any) -> pd.DataFrame:
    """One row for each network."""
    shape = laziness.kernel_change.shape
    widths, members = np.broadcast_arrays(laziness.widths[:, None], np.arange(shape[1]))
    quantities = {
        name: getattr(laziness, name).ravel()
        for name in (
            "kernel_change", "parameter_distance", "linearisation_error", "largest_output",
            "n_iter", "converged",
        )
    }  # fmt: skip
    return pd.DataFrame(
        {**columns, "width": widths.ravel(), "member": members.ravel(), **quantities}
    )


def rates_table(networks: pd.DataFrame, by: list[str], quantities: list[str]) -> pd.DataFrame:
    """Exponents of the width with 95% intervals: over all widths, and over the largest."""
    rows = []
    for group, part in networks.groupby(by, sort=False):
        for quantity in quantities:
            values = part.pivot(index="width", columns="member", values=quantity)
            for chosen in (values, values.iloc[-LARGEST:]):
                rate = fit_rate(chosen.index, chosen.to_numpy())
                widths = f"{chosen.index[0]} to {chosen.index[-1]}"
                rows.append((*group, quantity, widths, *rate))
    return pd.DataFrame(rows, columns=[*by, "quantity", "widths", "exponent", "low", "high"])


def show_rates(rates: pd.DataFrame, quantity: str, by: list[str]) -> pd.DataFrame:
    """Rates of one quantity as the page shows them, "exponent [low, high]"."""
    rows = []
    for group, part in rates[rates["quantity"] == quantity].groupby(by, sort=False):
        text = [f"{r.exponent:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in part.itertuples()]
        of_group = [f"{value:g}" if isinstance(value, float) else value for value in group]
        rows.append((*of_group, part["widths"].iloc[0], *text))
    return pd.DataFrame(rows, columns=[*by, "widths", "all widths", f"{LARGEST} largest widths"])


def plot_against_width(
    ax: Axes, networks: pd.DataFrame, quantity: str, label: str, style: dict[str, Any]
) -> None:
    """Geometric means over networks as a line, and each network as a point."""
    logarithms = np.log(networks.set_index("width")[quantity]).groupby("width").mean()
    ax.plot(logarithms.index, np.exp(logarithms), **style, markersize=5, label=label)
    points = {**style, "linestyle": "none"}
    ax.plot(networks["width"], networks[quantity], **points, markersize=3, alpha=0.35)


def width_axis(ax: Axes, widths: Sequence[int]) -> None:
    """Logarithmic axes, the measured widths as ticks."""
    ax.set(xscale="log", yscale="log", xlabel="Width")
    ax.set_xticks(sorted(widths), labels=[f"{width:,}" for width in sorted(widths)])
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def guides(ax: Axes, widths: Sequence[int], start: float) -> None:
    """Lines of two powers of the width, to hold slopes against."""
    x = np.array([min(widths), max(widths)], float)
    for exponent, text, dash in ((-0.5, "−1/2", (0, (6, 3))), (-1.0, "−1", (0, (1, 2)))):
        label = f"width to the {text}"
        ax.plot(x, start * (x / x[0]) ** exponent, **GUIDE, linestyle=dash, label=label)


def outside_legend(figure: Figure, ax: Axes) -> None:
    """Legend of one panel for all, above them."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
