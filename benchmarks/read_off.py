"""Kernels read off a module of three layers, against MLP's own closed form: ratio of times.

relu and erf have a closed form, which is recognised; swish and tanh have none, and are set against
MLP's erf.

    python benchmarks/read_off.py [--points 2000]
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from _timing import heading, take_turns
from flax import nnx

import ntk_uq as nuq

# What is read off, and MLP's activation beside it.
FUNCTIONS = {
    "relu": (nnx.relu, "relu"),
    "erf": (jax.lax.erf, "erf"),
    "swish": (nnx.swish, "erf"),
    "tanh": (jnp.tanh, "erf"),
}


class Network(nnx.Module):
    """Three layers as one writes them in Flax."""

    def __init__(self, activation, in_features, out_features, *, rngs):
        he = {"kernel_init": nnx.initializers.he_normal(), "rngs": rngs}
        self.first = nnx.Linear(in_features, 64, **he)
        self.second = nnx.Linear(64, 64, **he)
        self.readout = nnx.Linear(64, out_features, **he)
        self.activation = activation

    def __call__(self, x):
        """Outputs of points [n, d]."""
        h = self.activation(self.first(x))
        return self.readout(self.activation(self.second(h)))


def main():
    """Print a line for each activation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    heading(f"Kernels of {options.points} points, read off a module, against MLP's closed form")
    X = np.random.default_rng(0).normal(size=(options.points, 20))
    for name, (function, other) in FUNCTIONS.items():
        module = nuq.Architecture(functools.partial(Network, function))
        mlp = nuq.MLP(activation=other)
        times = take_turns(
            {
                "read off": functools.partial(module.kernels, X),
                "MLP": functools.partial(mlp.kernels, X),
            },
            options.rounds,
        )
        print(
            f"  {name:6} {1e3 * times['read off']:.0f} ms, MLP's {other} "
            f"{1e3 * times['MLP']:.0f} ms: {times.ratio('read off', 'MLP')} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
