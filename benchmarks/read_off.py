"""Kernels read off a module of three layers, against MLP's own closed form: ratio of times.

python benchmarks/read_off.py [n]
"""

import functools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import ntk_uq as nuq


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


def best(function, repeats=4):
    """Least time of a few calls, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    """Print a line for each activation."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    X = np.random.default_rng(0).normal(size=(n, 20))
    erf = best(lambda: nuq.MLP(activation="erf").kernels(X))
    print(f"{n} points   {'read off':>10} {'MLP':>10}  ratio")
    for name, function in {
        "relu": nnx.relu,
        "erf": jax.lax.erf,
        "swish": nnx.swish,
        "tanh": jnp.tanh,
    }.items():
        net = nuq.Architecture(functools.partial(Network, function))
        ours = best(lambda net=net: net.kernels(X))
        if name in ("relu", "erf"):
            theirs, of = best(lambda name=name: nuq.MLP(activation=name).kernels(X)), name
        else:
            theirs, of = erf, "erf"
        print(f"{name:11}{ours:10.2f} s {theirs:8.2f} s  {ours / theirs:.2f} (MLP's {of})")


if __name__ == "__main__":
    main()
