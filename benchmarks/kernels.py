"""Kernels of an infinitely wide network, against neural-tangents and a matrix product."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from _timing import heading, take_turns

from ntk_uq import MLP
from ntk_uq.networks.neural_tangents import stax


def stax_kernel_fn(net):
    """The same network in neural-tangents, jitted; both kernels."""

    def dense(width):
        return stax.Dense(width, W_std=net.w_std, b_std=net.b_std, parameterization="ntk")

    activation = {"relu": stax.Relu, "erf": stax.Erf, "gelu": stax.Gelu}[net.activation]()
    *_, kernel_fn = stax.serial(*[dense(net.width), activation] * net.depth, dense(1))
    return jax.jit(lambda x1, x2: tuple(kernel_fn(x1, x2, ("nngp", "ntk"))))


def run(net, n, rounds):
    x1, x2 = np.random.default_rng(0).normal(size=(2, n, 64))
    points, others = jnp.asarray(x1), jnp.asarray(x2)
    neural_tangents = stax_kernel_fn(net)
    gram = jax.jit(lambda a, b: a @ b.T)
    times = take_turns(
        {
            "neural_tangents": lambda: neural_tangents(points, others),
            "symmetric": lambda: net.kernels(x1),
            "pairs": lambda: net.kernels(x1, x2),
            "block": lambda: net.kernel_block(points, others),
            "gram": lambda: gram(points, others),
        },
        rounds,
    )
    ours, theirs = net.kernels(x1, x2), neural_tangents(points, others)
    error = max(np.max(np.abs(a - b)) / np.max(a) for a, b in zip(ours, theirs, strict=True))
    print(
        f"{net.activation}, depth {net.depth}, {n} x {n} pairs of {x1.shape[1]} features, float64\n"
        f"  neural-tangents {times['neural_tangents']:.2f} s; kernels(X1, X2) "
        f"{times['pairs']:.2f} s, kernels(X) {times['symmetric']:.2f} s, kernel_block(x1, x2) "
        f"{times['block']:.2f} s\n"
        "  faster than neural-tangents: "
        f"kernels(X1, X2) {times.ratio('neural_tangents', 'pairs')} times, "
        f"kernels(X) {times.ratio('neural_tangents', 'symmetric')}, "
        f"kernel_block {times.ratio('neural_tangents', 'block')}\n"
        f"  in matrix products X1 X2^T: kernels(X1, X2) {times['pairs'] / times['gram']:.1f}, "
        f"kernels(X) {times['symmetric'] / times['gram']:.1f}, "
        f"neural-tangents {times['neural_tangents'] / times['gram']:.1f}\n"
        f"  largest difference from neural-tangents, over the largest entry: {error:.0e}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few points, once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.rounds = 50, 1
    heading("Kernels against jitted neural-tangents")
    with jax.enable_x64(True):
        for activation in ("relu", "erf"):
            run(MLP(activation=activation), arguments.n, arguments.rounds)


if __name__ == "__main__":
    main()
