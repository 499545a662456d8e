"""Cross-entropy on one-hot labels without regularisation: logits and kernel drift without bound.

Networks of several widths follow gradient flow, as do, for comparison, networks with either
condition of the theory. The infinite network follows the flow of the linearised model.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from _claim import Tables, run
from _widths import STYLES, digits, smoothed, width_axis
from jax.flatten_util import ravel_pytree
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.integrate import RK23
from scipy.stats import linregress

from ntk_uq import MLP, Categorical
from ntk_uq.gradient_flow import integrate
from ntk_uq.kernels import empirical_ntk

NET = MLP(depth=2)
ONE_HOT, REG, SMOOTHED = "one-hot, reg = 0", "one-hot, reg = 1", "smoothed by 0.1, reg = 0"
# Local error of the parameters, relative to how far they have moved, and absolute, of all together.
RELATIVE, ABSOLUTE = 1e-2, 1e-2
# Growth is fitted to the last part of the time, in factors of e.
LATE = np.log(1e3)


def measure(quick: bool) -> Tables:
    widths, members, n = ([16, 32], 1, 20) if quick else ([64, 256, 1024], 3, 100)
    last, last_held = (1.0, 1.0) if quick else (1e4, 1e2)
    X, one_hot, X_probe = digits(n, 20)
    rows = []
    for width in widths:
        for member in range(members if width < 1000 else 1):
            rows += follow(width, member, ONE_HOT, X, one_hot, 0.0, X_probe, last)
    middle = widths[1]
    rows += follow(middle, 0, REG, X, one_hot, 1.0, X_probe, last_held / 10)
    rows += follow(middle, 0, SMOOTHED, X, smoothed(one_hot, 0.1), 0.0, X_probe, last_held)
    columns = ["condition", "width", "member", "time", "kernel_change", "largest_logit", "loss"]
    finite = pd.DataFrame(rows, columns=columns)
    infinite = follow_infinite(widths[-1], X, one_hot, X_probe, last)
    return {"finite": finite, "infinite": infinite, "growth": growth(finite, infinite)}


def grid(last: float) -> np.ndarray:
    """Four times in each decade."""
    return np.logspace(-3, np.log10(last), round(4 * (np.log10(last) + 3)) + 1)


def start(width: int, member: int) -> tuple[MLP, Any]:
    net = replace(NET, width=width)
    key = jax.random.fold_in(jax.random.key(0), member)
    return net, net.init(key, in_features=64, out_features=10)


def follow(width, member, condition, X, y, reg, X_probe, last) -> list[tuple]:
    """Gradient flow of one network, measured as it goes."""
    net, initial = start(width, member)
    before = empirical_ntk(net, initial, X_probe, trace=True)
    rows = []
    for time, params in gradient_flow(net, initial, X, y, reg, grid(last)):
        after = empirical_ntk(net, params, X_probe, trace=True)
        change = jnp.linalg.norm(after - before) / jnp.linalg.norm(before)
        largest = jnp.max(jnp.abs(net.apply(params, X_probe)))
        loss = excess_loss(np.asarray(net.apply(params, X)), y)
        rows.append((condition, width, member, time, float(change), float(largest), loss))
    return rows


def gradient_flow(net, initial, X, y, reg, times) -> Iterator[tuple[float, Any]]:
    """Parameters at increasing times, by an adaptive explicit Runge-Kutta method of order 3."""
    flat, unravel = ravel_pytree(initial)
    with jax.enable_x64(True):
        targets = jnp.asarray(np.asarray(y), jnp.float64)

    @jax.jit
    def velocity(moved):
        moved = moved.astype(flat.dtype)
        f, pull_back = jax.vjp(lambda p: net.apply(p, X), unravel(flat + moved))
        # In double precision: that of single ends where a probability comes within 1e-7 of one.
        descent = targets - jax.nn.softmax(f.astype(targets.dtype), axis=-1)
        return ravel_pytree(pull_back(descent.astype(f.dtype)))[0] - reg * moved

    def rate(_, moved):
        with jax.enable_x64(True):
            return np.asarray(velocity(moved))

    absolute = ABSOLUTE / np.sqrt(flat.size)
    solver = RK23(rate, 0.0, np.zeros(flat.size), times[-1], rtol=RELATIVE, atol=absolute)
    for time in times:
        while solver.t < time:
            solver.step()
        yield time, unravel(flat + jnp.asarray(solver.dense_output()(time), flat.dtype))


def excess_loss(f: np.ndarray, y: Any) -> float:
    """Cross-entropy less its least value, in nats a training point."""
    f, y = np.asarray(f, np.float64), np.asarray(y, np.float64)
    lead = f - f.max(axis=1, keepdims=True)
    rest = np.exp(lead).sum(axis=1) - 1  # all but the largest, without cancellation
    log_density = lead - np.log1p(rest)[:, None]
    entropy = -np.sum(y * np.log(np.where(y > 0, y, 1)), axis=1)
    return float(np.mean(-np.sum(y * log_density, axis=1) - entropy))


def follow_infinite(width, X, y, X_probe, last) -> pd.DataFrame:
    """Flow of the infinite network, from the initial outputs of the first network of `width`."""
    net, initial = start(width, 0)
    at_start, probe_at_start = (np.asarray(net.apply(initial, x)) for x in (X, X_probe))
    ntk, probe_ntk = (net.kernels(np.asarray(x, float), np.asarray(X, float)).ntk
                      for x in (X, X_probe))  # fmt: skip
    times = grid(last)
    alpha = integrate(ntk, y, at_start, 0.0, Categorical(), times, rtol=1e-4)
    largest = np.abs(probe_at_start + probe_ntk @ alpha).max(axis=(1, 2))
    loss = [excess_loss(at_start + ntk @ a, y) for a in alpha]
    return pd.DataFrame({"time": times, "largest_logit": largest, "loss": loss})


def growth(finite: pd.DataFrame, infinite: pd.DataFrame) -> pd.DataFrame:
    """What a factor of e in time adds, over the last part of the run of each network."""
    free = finite[finite["condition"] == ONE_HOT]
    networks = [(f"{width}", part) for (width, _), part in free.groupby(["width", "member"])]
    rows = []
    for width, part in [*networks, ("infinite", infinite)]:
        late = part[np.log(part["time"]) > np.log(part["time"].max()) - LATE]
        log_time = np.log(late["time"])
        kernel = np.nan
        if "kernel_change" in late:
            kernel = linregress(log_time, late["kernel_change"]).slope
        logit = linregress(log_time, late["largest_logit"]).slope
        loss = linregress(log_time, np.log(late["loss"])).slope
        rows.append((width, logit, kernel, loss))
    return pd.DataFrame(rows, columns=["width", "logit", "kernel_change", "loss_exponent"])


def show(tables: Tables) -> pd.DataFrame:
    """Growth as the page shows it: means over networks of each width."""
    means = tables["growth"].groupby("width", sort=False).mean()
    means.columns = ["largest logit", "kernel change", "exponent of the loss"]
    return means.round(3).reset_index()


def draw(tables: Tables) -> Figure:
    finite, infinite = tables["finite"], tables["infinite"]
    figure, axes = plt.subplots(2, 2, figsize=(7, 6.8), layout="constrained")
    (logits, losses), (kernels, by_width) = axes
    free = finite[finite["condition"] == ONE_HOT]
    widths = sorted(free["width"].unique())
    held = [(REG, {"color": "0.5", "linestyle": (0, (1, 1))}),
            (SMOOTHED, {"color": "0.5", "linestyle": (0, (6, 2))})]  # fmt: skip
    for ax, quantity in ((logits, "largest_logit"), (losses, "loss"), (kernels, "kernel_change")):
        for width, style in zip(widths, STYLES, strict=False):
            for member, part in free[free["width"] == width].groupby("member"):
                label = f"width {width:,}" if member == 0 else None
                ax.plot(part["time"], part[quantity], **style, markersize=4, markevery=4, lw=1.2,
                        label=label)  # fmt: skip
        if quantity in infinite:
            ax.plot(infinite["time"], infinite[quantity], color="black", label="infinite width")
        for condition, style in held:
            part = finite[finite["condition"] == condition]
            if quantity != "loss":
                label = f"{condition} (width {part['width'].iloc[0]:,})"
                ax.plot(part["time"], part[quantity], **style, linewidth=2, label=label)
        ax.set(xscale="log", xlabel="Time (learning rate × steps)")
    logits.set(ylabel="Largest logit, probe points")
    losses.set(yscale="log", ylabel="Loss (nats a training point)")
    kernels.set(ylabel="Relative kernel change")
    last = free["time"].max()
    for time, style in zip((last / 1e4, last / 1e2, last), STYLES, strict=False):
        part = free[np.isclose(free["time"], time)]
        mean = part.groupby("width")["kernel_change"].mean()
        by_width.plot(mean.index, mean, **style, markersize=5, label=f"time {time:,.0f}")
    width_axis(by_width, widths)
    by_width.set(ylabel="Relative kernel change")
    by_width.legend(frameon=False, fontsize=9)
    figure.legend(*logits.get_legend_handles_labels(), loc="outside upper center", ncols=2,
                  frameon=False, fontsize=9)  # fmt: skip
    return figure


if __name__ == "__main__":
    run("runaway", __doc__, measure, draw)
