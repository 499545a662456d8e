"""Random architectures, written once in Flax and once in neural-tangents' stax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ntk_uq as nuq
from ntk_uq.networks.neural_tangents import stax

WIDTH = 4  # the limit does not depend on it

ACTIVATIONS = {
    "relu": (nnx.relu, stax.Relu()),
    "erf": (jax.lax.erf, stax.Erf()),
    "gelu": (lambda u: 0.5 * u * (1 + jax.lax.erf(u / 2**0.5)), stax.Gelu()),
    "leaky": (lambda u: jnp.where(u < 0, 0.2 * u, u), stax.LeakyRelu(0.2)),
    "abs": (abs, stax.Abs()),
    "sin": (lambda u: 0.5 + jnp.sin(0.7 * u) - 0.5, stax.Sin(1.0, 0.7, 0.0)),
    "cos": (lambda u: jnp.cos(u), stax.Cos()),
    "cubic": (lambda u: 0.3 + u * (1 - 0.1 * u * u), stax.Polynomial([0.3, 1.0, 0.0, -0.1])),
}


class FromSteps(nnx.Module):
    """A network of steps, each a function of the values so far that makes its own layers."""

    def __init__(self, steps, in_features, out_features, *, rngs):
        channels = in_features if isinstance(in_features, int) else in_features[-1]
        self.layers = nnx.List()
        self.calls = []
        for kind, *options in steps:
            channels = self.add(kind, options, channels, out_features, rngs)

    def linear(self, options, fan_in, out, rngs, size=None, stride=1, padding="SAME"):
        w_std, b_std = options
        scales = {
            "kernel_init": nnx.initializers.variance_scaling(w_std**2, "fan_in", "normal"),
            "bias_init": nnx.initializers.normal(b_std),
            "rngs": rngs,
        }
        if size is None:
            return nnx.Linear(fan_in, out, **scales)
        return nnx.Conv(fan_in, out, (size, size), strides=stride, padding=padding, **scales)

    def add(self, kind, options, channels, outputs, rngs):
        if kind == "residual":
            name, *scales = options
            self.layers.append(self.linear(scales, channels, channels, rngs))
            self.calls.append(lambda f, x: x + f(ACTIVATIONS[name][0](x)))
        elif kind == "branches":
            first, second, *scales = options
            self.layers.append(
                nnx.List(self.linear(scales, channels, channels, rngs) for _ in range(2))
            )
            self.calls.append(
                lambda f, x: f[0](ACTIVATIONS[first][0](x)) + f[1](ACTIVATIONS[second][0](x))
            )
        elif kind in ("dense", "readout", "conv"):
            scales, extra = options[:2], options[2:]
            out = outputs if kind == "readout" else WIDTH
            self.layers.append(self.linear(scales, channels, out, rngs, *extra))
            self.calls.append(lambda f, x: f(x))
            return out
        else:
            self.layers.append(
                nnx.LayerNorm(channels, epsilon=1e-6, use_scale=False, use_bias=False, rngs=rngs)
            )
            self.calls.append(
                {
                    "norm": lambda f, x: f(x),
                    "activation": lambda f, x: ACTIVATIONS[options[0]][0](x),
                    "mean": lambda f, x: x.mean((1, 2)),
                    "flat": lambda f, x: x.reshape(len(x), -1),
                    "pool": lambda f, x: nnx.avg_pool(x, (2, 2), (1, 2)),
                }[kind]
            )
            if kind == "flat":
                return channels * options[0]
        return channels

    def __call__(self, x):
        for layer, call in zip(self.layers, self.calls, strict=True):
            x = call(layer, x)
        return x


def in_stax(steps):
    layers = []
    for kind, *options in steps:
        match kind:
            case "dense" | "readout":
                layers.append(stax.Dense(1, W_std=options[0], b_std=options[1]))
            case "conv":
                w_std, b_std, size, stride, padding = options
                scales = {"W_std": w_std, "b_std": b_std}
                layers.append(stax.Conv(1, (size, size), (stride, stride), padding, **scales))
            case "residual" | "branches":
                *names, w_std, b_std = options
                branches = [
                    stax.serial(ACTIVATIONS[n][1], stax.Dense(1, W_std=w_std, b_std=b_std))
                    for n in names
                ]
                if kind == "residual":
                    branches = [stax.Identity(), *branches]
                layers += [stax.FanOut(2), stax.parallel(*branches), stax.FanInSum()]
            case "activation":
                layers.append(ACTIVATIONS[options[0]][1])
            case "norm":
                layers.append(stax.LayerNorm(eps=1e-6))
            case "mean":
                layers.append(stax.GlobalAvgPool())
            case "flat":
                layers.append(stax.Flatten())
            case "pool":
                layers.append(stax.AvgPool((2, 2), (1, 2), "VALID"))
    return stax.serial(*layers)[2]


def random_steps(seed):
    """Steps of an architecture for tables or, of odd seeds, images of 6 x 6 x 2."""
    rng = np.random.default_rng(seed)

    def scales():
        # Variances that modules in float32 stand for exactly.
        return float(rng.choice([0.5, 0.8, 1.2, 2.0])) ** 0.5, float(rng.choice([0.0, 0.3, 0.8]))

    def name():
        return str(rng.choice(list(ACTIVATIONS)))

    images = bool(seed % 2)
    steps, side = [], 6
    for _ in range(rng.integers(1, 4 if images else 5)):
        if images and side > 3:
            size, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
            padding = str(rng.choice(["SAME", "VALID"]))
            steps.append(("conv", *scales(), size, stride, padding))
            side = -(-side // stride) if padding == "SAME" else -(-(side - size + 1) // stride)
        else:
            steps.append(("dense", *scales()))
        for _ in range(rng.integers(0, 3)):
            steps.append(
                ("residual", name(), *scales()) if rng.random() < 0.5
                else ("branches", name(), name(), *scales())
            )  # fmt: skip
        if rng.random() < 0.3:
            steps.append(("norm",))
        steps.append(("activation", name()))
    if images:
        pooled = rng.random()
        steps.append(("mean",) if pooled < 0.5 else ("flat", side * side))
    return (*steps, ("readout", *scales()))


@pytest.mark.cases(1)
@pytest.mark.parametrize("seed", [23, *range(23), *range(24, 40)])  # a small one first
@pytest.mark.filterwarnings("ignore:`FanIn` layers")
def test_random_architectures_equal_neural_tangents(seed):
    steps = random_steps(seed)
    shape = (6, 6, 2) if seed % 2 else (5,)
    x = np.random.default_rng(seed).normal(size=(5, *shape))
    # Biases that stax leaves out start at zero in Flax, and stay there.
    ours = nuq.Architecture(functools.partial(FromSteps, steps), b_std=0.0)
    theirs = nuq.Architecture(FromSteps, in_stax(steps))
    for one, other in zip(ours.kernels(x[:3], x[2:]), theirs.kernels(x[:3], x[2:]), strict=True):
        # Their arc cosine loses half of the digits where points coincide.
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * np.abs(other).max())
    for one, other in zip(ours.kernel_diag(x), theirs.kernel_diag(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
