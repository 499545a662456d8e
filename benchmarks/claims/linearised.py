"""Trained network, linearised network and closed form: their distances fall with width.

All start from the same initial function. The linearised network has its own tangent kernel at the
initial parameters; the closed form has that of infinite width.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd
from _claim import Tables, run
from _widths import STYLES, digits, guides, plot_against_width, rates_table, smoothed, width_axis
from jax import Array
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ntk_uq import MLP, Categorical, ConvNet
from ntk_uq._common.solver import solve_dual
from ntk_uq.ensemble import solve_linearised, train_ensemble

NETWORKS: dict[str, Any] = {
    "MLP, relu": MLP(depth=2),
    "MLP, gelu": MLP(depth=2, activation="gelu"),
    "ConvNet, relu": ConvNet(depth=2),
}
REG, SMOOTHED = "reg = 1", "smoothed by 0.1, reg = 0"
PAIRS = {
    "trained_linearised": "trained − linearised",
    "linearised_infinite": "linearised − infinite width",
    "trained_infinite": "trained − infinite width",
}
LIKELIHOOD = Categorical()


def measure(quick: bool) -> Tables:
    widths, n, members = ([16, 32, 64], 10, 2) if quick else ([64, 128, 256, 512, 1024], 50, 3)
    channels, n_images, conv_members = ([4, 8, 16], 10, 2) if quick else ([8, 16, 32, 64], 20, 8)
    rows = []
    for name, net in NETWORKS.items():
        images = isinstance(net, ConvNet)
        with jax.enable_x64(not images):  # convolutions are slow in double precision
            X, one_hot, X_test = digits(n_images if images else n, 20, images=images,
                                        dtype=jnp.float32 if images else jnp.float64)  # fmt: skip
            ntk, test_ntk = (jnp.asarray(net.kernels(x, X).ntk, X.dtype) for x in (X, X_test))
            conditions = [(REG, one_hot, 1.0)]
            if not images:
                conditions.append((SMOOTHED, smoothed(one_hot, 0.1), 0.0))
            for condition, y, reg in conditions:
                for width in channels if images else widths:
                    found = distances(
                        replace(net, width=width),
                        X,
                        y,
                        reg,
                        X_test,
                        conv_members if images else members,
                        ntk,
                        test_ntk,
                    )
                    rows += [(name, condition, width, *row) for row in found]
    networks = pd.DataFrame(rows, columns=["network", "condition", "width", "member", *PAIRS])
    return {
        "networks": networks,
        "rates": rates_table(networks, ["network", "condition"], [*PAIRS]),
    }


def distances(net, X, y, reg, X_test, members, ntk, test_ntk) -> list[tuple]:
    """Root mean square differences of logits, relative to what training changed."""
    key = jax.random.key(0)
    trained = train_ensemble(key, net, X, y, LIKELIHOOD, reg=reg, n_members=members, tol=1e-5)
    solved = solve_linearised(key, net, X, y, LIKELIHOOD, reg=reg, n_members=members)
    # Bound of the objective's distance to its minimum, in nats: what the precision allows.
    tol = 1e-12 if X.dtype == jnp.float64 else 1e-6
    rows = []
    pairs = zip(trained.latents(X_test), solved.latents(X_test), strict=True)
    for i, (finite, linear) in enumerate(pairs):
        initial, _ = trained.member(i)
        f0, f0_test = net.apply(initial, X), net.apply(initial, X_test)
        if reg > 0:
            alpha = solve_dual(ntk, reg, y, f0[None], LIKELIHOOD, tol=tol).alpha[0]
        else:
            alpha = jnp.linalg.solve(ntk, LIKELIHOOD.optimum(y) - LIKELIHOOD.identified(f0))
        infinite = f0_test + test_ntk @ alpha
        changed = size(finite - f0_test)
        differences = (finite - linear, linear - infinite, finite - infinite)
        rows.append((i, *(size(difference) / changed for difference in differences)))
    return rows


def size(difference: Array) -> float:
    """Root mean square of logits, less what softmax does not see."""
    return float(jnp.sqrt(jnp.mean(LIKELIHOOD.identified(difference) ** 2)))


def draw(tables: Tables) -> Figure:
    networks = tables["networks"]
    panels = list(networks.groupby(["network", "condition"], sort=False))
    figure, axes = plt.subplots(3, 2, figsize=(7, 9), layout="constrained", sharey=True)
    for ax, ((name, condition), part) in zip(axes.flat, panels, strict=False):
        widths = part["width"].unique()
        for (quantity, label), style in zip(PAIRS.items(), STYLES, strict=False):
            plot_against_width(ax, part, quantity, label, style)
        guides(ax, widths, part[[*PAIRS]].max().max())
        width_axis(ax, widths)
        ax.set_title(f"{name}; {condition}", fontsize=9, loc="left")
        ax.set(ylabel="Relative difference of logits")
        if "ConvNet" in name:
            ax.set(xlabel="Channels")
    *_, last = axes.flat
    last.axis("off")
    last.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="center", fontsize=9)
    return figure


if __name__ == "__main__":
    run("linearised", __doc__, measure, draw)
