"""Training an ensemble vmapped over its members, against a loop over them with the same code.

Of networks for images, which a CPU trains one after the other, also against training them together,
and against a loop over compiled gradients.
"""

import argparse
import itertools
import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import optax
from _timing import digits, heading, square_product, take_turns

from ntk_uq import MLP, Categorical, ConvNet, ensemble
from ntk_uq.ensemble.conjugate_gradients import ConjugateGradients
from ntk_uq.ensemble.layout import _layout
from ntk_uq.ensemble.trainer import _Data


def flops(net, x, outputs):
    """Operations of the matrix products of one forward pass, and of forward and backward pass."""
    sizes = [x.shape[1], *[net.width] * net.depth, outputs]
    layers = [2.0 * len(x) * a * b for a, b in itertools.pairwise(sizes)]
    # Backward: gradients of each layer's weights and inputs, but for the first one's inputs.
    return sum(layers), 3 * sum(layers) - layers[0]


def run(net, n, reg, n_members, n_looped, rounds):
    x, y = (jnp.asarray(a, jnp.float32) for a in digits(n))
    likelihood, key = Categorical(), jax.random.key(0)
    data = _Data(x, y, likelihood, jnp.float32(reg), jnp.float32(1e-4))
    _, at_once = _layout(net, ConjugateGradients(), data, None, jax.devices()[:1])

    def train(n_members, at_once):
        with mock.patch("ntk_uq.ensemble.layout._AT_ONCE", at_once):
            return ensemble.train_ensemble(key, net, x, y, likelihood, reg=reg, n_members=n_members)

    # An iteration is a forward pass, a forward and backward pass, and the rest.
    params = jax.vmap(lambda i: net.init(jax.random.fold_in(key, i), x.shape[1], y.shape[1]))(
        jnp.arange(at_once)
    )

    def loss(member):
        return -jnp.sum(likelihood.log_density(net.apply(member, x), y))

    forward, both = jax.jit(jax.vmap(loss)), jax.jit(jax.vmap(jax.value_and_grad(loss)))
    product, product_flops = square_product("float32")
    trained = []

    def chunks():
        trained[:] = [train(n_members, at_once)]
        return trained[0].params

    times = take_turns(
        {
            "chunks": chunks,
            "loop": lambda: train(n_looped, 1).params,
            "forward": lambda: forward(params),
            "both": lambda: both(params),
            "product": product,
        },
        rounds,
    )

    n_iter = trained[0].n_iter
    per_step = n_iter.sum() / n_iter[:n_looped].sum()  # members differ in the steps that they take
    executed = sum(max(n_iter[i : i + at_once]) for i in range(0, n_members, at_once))
    iteration = times["chunks"] / executed
    shares = {
        "forward pass": times["forward"] / iteration,
        "forward and backward pass": times["both"] / iteration,
    }
    shares["rest (line search, updates of parameters)"] = 1 - sum(shares.values())
    rate = product_flops / times["product"]
    forward_flops, both_flops = flops(net, x, y.shape[1])

    def reached(operations, seconds):
        return f"{operations / seconds / rate:.0%}"

    n_params = sum(leaf.size for leaf in jax.tree.leaves(params)) // at_once
    print(
        f"width {net.width}, depth {net.depth}, n = {n}, reg = {reg}, {n_members} members of "
        f"{n_params:,} parameters, float32\n"
        f"  {at_once} at once {1e3 * times['chunks'] / n_members:.0f} ms a member, loop "
        f"{1e3 * times['loop'] / n_looped:.0f} ms (over {n_looped})\n"
        f"  faster than the loop, per step: {times.ratio('loop', 'chunks', per_step)} times\n"
        f"  iterations: {n_iter.min()} to {n_iter.max()}, mean {n_iter.mean():.0f}; members wait "
        f"for the last of their chunk, {n_iter.sum() / (executed * at_once):.0%} of steps count\n"
        f"  fraction of the rate of a large square ({rate / 1e9:.0f} GFLOP/s): "
        f"{reached(n_iter.sum() * (forward_flops + both_flops), times['chunks'])}; "
        f"forward pass alone {reached(at_once * forward_flops, times['forward'])}, "
        f"forward and backward {reached(at_once * both_flops, times['both'])}\n"
        f"  an iteration of {at_once} members takes {1e3 * iteration:.1f} ms: "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
        flush=True,
    )


def run_images(channels, n, rounds, n_members=8, iterations=25):
    x, y = (jnp.asarray(a, jnp.float32) for a in digits(n))
    x = x.reshape(-1, 8, 8, 1)
    net, likelihood, key = ConvNet(width=channels), Categorical(), jax.random.key(0)

    def train(**settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ensemble.ConvergenceWarning)  # equally many iterations
            return ensemble.train_ensemble(
                key, net, x, y, likelihood, reg=1.0, n_members=n_members, max_iter=iterations,
                tol=1e-9, **settings,
            )  # fmt: skip

    in_a_loop = mock.patch("ntk_uq.ensemble.trainer.trains_one_by_one", return_value=False)
    batches = {"optimizer": optax.adam(0.01), "batch_size": n // 5}

    def together():
        with mock.patch("ntk_uq.ensemble.layout.trains_one_by_one", return_value=False), in_a_loop:
            return train().params

    def batches_in_a_loop():
        with in_a_loop:
            return train(**batches).params

    members = [net.init(jax.random.fold_in(key, i), x.shape[1:], 10) for i in range(n_members)]

    def loss(member):
        return -jnp.sum(likelihood.log_density(net.apply(member, x), y))

    forward, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
    times = take_turns(
        {
            "one by one": lambda: train().params,
            "together": together,
            "batches": lambda: train(**batches).params,
            "batches in a loop": batches_in_a_loop,
            "loop": lambda: [(forward(member), both(member)) for member in members],
        },
        rounds,
    )
    print(
        f"images of 8 x 8, {channels} channels, depth 2, n = {n}, {n_members} members, "
        f"{iterations} iterations\n"
        f"  an iteration of all takes {1e3 * times['one by one'] / iterations:.0f} ms, of a loop "
        f"over compiled gradients {1e3 * times['loop']:.0f} ms: "
        f"{times.ratio('one by one', 'loop', 1 / iterations)} times as long\n"
        f"  faster than together: {times.ratio('together', 'one by one')} times\n"
        f"  Adam on mini-batches of {n // 5}: faster than in a loop of one program "
        f"{times.ratio('batches in a loop', 'batches')} times",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--looped", type=int, default=4, help="members that the loop trains")
    parser.add_argument("--reg", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, nargs="+", default=[16], help="of images")
    parser.add_argument("--quick", action="store_true", help="small networks, once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.width, arguments.n, arguments.members = [16], 40, 4
        arguments.looped, arguments.rounds, arguments.channels = 2, 1, [4]
    heading("Ensemble training, vmapped against a loop over members")
    warnings.simplefilter("error", ensemble.ConvergenceWarning)
    for width in arguments.width:
        run(
            MLP(width=width),
            arguments.n,
            arguments.reg,
            arguments.members,
            arguments.looped,
            arguments.rounds,
        )
    for channels in arguments.channels:
        run_images(channels, min(arguments.n, 100), arguments.rounds)


if __name__ == "__main__":
    main()
