"""With a penalty the tangent kernel stays where it was: its change in training falls with width."""

from typing import Any

import jax
import pandas as pd
from _claim import Tables, run
from _widths import (
    STYLES,
    digits,
    guides,
    networks_table,
    outside_legend,
    plot_against_width,
    rates_table,
    width_axis,
)
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ntk_uq import MLP, Categorical, ConvNet
from ntk_uq.lazy import measure_laziness

NETWORKS: dict[str, Any] = {
    "MLP, relu": MLP(depth=2),
    "MLP, gelu": MLP(depth=2, activation="gelu"),
    "ConvNet, relu": ConvNet(depth=2),
}
REGS = [0.1, 1.0, 10.0]
QUANTITIES = ["kernel_change", "linearisation_error", "parameter_distance"]


def measure(quick: bool) -> Tables:
    widths, n, members = ([16, 32, 64], 20, 2) if quick else ([64, 128, 256, 512, 1024], 50, 3)
    channels, n_images, conv_members = ([4, 8, 16], 10, 2) if quick else ([8, 16, 32, 64], 20, 8)
    parts = []
    for name, net in NETWORKS.items():
        images = isinstance(net, ConvNet)
        X, one_hot, X_probe = digits(n_images if images else n, 20, images=images)
        for reg in (1.0,) if images else REGS:
            laziness = measure_laziness(
                jax.random.key(0), net, X, one_hot, Categorical(), reg=reg,
                widths=channels if images else widths, X_probe=X_probe,
                n_members=conv_members if images else members, tol=1e-5,
            )  # fmt: skip
            parts.append(networks_table(laziness, network=name, reg=reg))
    networks = pd.concat(parts)
    return {"networks": networks, "rates": rates_table(networks, ["network", "reg"], QUANTITIES)}


def draw(tables: Tables) -> Figure:
    networks = tables["networks"]
    figure, axes = plt.subplots(2, 2, figsize=(7, 6.8), layout="constrained")
    panels = [(name, "kernel_change") for name in NETWORKS]
    panels.append(("MLP, relu", "parameter_distance"))
    for ax, (name, quantity) in zip(axes.flat, panels, strict=True):
        of_network = networks[networks["network"] == name]
        widths = of_network["width"].unique()
        for reg, style in zip(REGS, STYLES, strict=False):
            part = of_network[of_network["reg"] == reg]
            if not part.empty:
                plot_against_width(ax, part, quantity, f"reg = {reg:g}", style)
        width_axis(ax, widths)
        ax.set_title(name, fontsize="medium", loc="left")
        if quantity == "kernel_change":
            guides(ax, widths, of_network[quantity].max())
            ax.set(ylabel="Relative kernel change")
        else:
            ax.set(yscale="linear", ylim=(0, None), ylabel="Distance of the parameters")
        if "ConvNet" in name:
            ax.set(xlabel="Channels")
    outside_legend(figure, axes[0, 0])
    return figure


if __name__ == "__main__":
    run("regularised", __doc__, measure, draw)
