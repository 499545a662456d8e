"""Time to train: this package's default, optax's Adam and L-BFGS, and Adam in PyTorch.

All start from the same parameters and minimise the same objective on digits. For each method, the
seconds a member until the mean objective is within 1e-2, and within 2e-3, of the best that any
method finds, relative to it. Rates and schedules of the rivals are tuned: the best one counts.
PyTorch runs in an environment of its own (`make bench-torch` sets it up).
"""

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntk_uq import MLP, Categorical, ensemble
from ntk_uq.datasets import load_dataset, split

GOALS = (1e-2, 2e-3)
RATES, STEPS = (0.01, 0.03, 0.1), (40, 80, 160)


def objective(net, x, y, reg, params, initial):
    loss = -jnp.sum(Categorical().log_density(net.apply(params, x), y))
    moved = jax.tree.map(jnp.subtract, params, initial)
    return loss + 0.5 * reg * optax.tree_utils.tree_norm(moved, squared=True)


def ours(key, net, x, y, reg, members, limits):
    """Objective after so many iterations, each a run of its own: [(seconds, objectives)]."""
    trace = []
    for limit in limits:
        train = partial(
            ensemble.train_ensemble, key, net, x, y, Categorical(), reg=reg, n_members=members,
            max_iter=limit,
        )  # fmt: skip
        train()  # compiles
        start = time.perf_counter()
        trained = train()
        trace.append((time.perf_counter() - start, trained.objective.tolist()))
        if trained.converged.all():
            break
    return trace


def with_optax(optimizer, initial, value, steps, checks=20, line_search=False):
    """Objectives along one run of an optax optimizer: [(seconds, objectives)]."""

    def one(params, state, start):
        loss, gradient = jax.value_and_grad(value)(params, start)
        extra = {}
        if line_search:
            extra = {"value": loss, "grad": gradient, "value_fn": partial(value, initial=start)}
        updates, state = optimizer.update(gradient, state, params, **extra)
        return optax.apply_updates(params, updates), state

    step = jax.jit(jax.vmap(one), donate_argnums=(0, 1))
    look = jax.jit(jax.vmap(value))
    start_state = jax.jit(jax.vmap(optimizer.init))

    def copy():
        return jax.tree.map(jnp.copy, initial)

    jax.block_until_ready(step(copy(), start_state(initial), initial))
    params, state = copy(), start_state(initial)
    jax.block_until_ready(look(params, initial))
    every = max(1, steps // checks)
    seconds, trace = 0.0, []
    for _ in range(steps // every):
        begin = time.perf_counter()
        for _ in range(every):
            params, state = step(params, state, initial)
        jax.block_until_ready(params)
        seconds += time.perf_counter() - begin
        trace.append((seconds, look(params, initial).tolist()))
    return trace


def with_pytorch(python, net, x, y, reg, initial, rates, steps):
    with tempfile.TemporaryDirectory() as folder:
        problem, result = Path(folder, "problem.npz"), Path(folder, "result.json")
        parameters = {}
        for i, layer in enumerate(initial.layers):
            parameters[f"p{2 * i}"] = np.asarray(layer.kernel[...])
            parameters[f"p{2 * i + 1}"] = np.asarray(layer.bias[...])
        np.savez(
            problem, x=x, y=y, reg=reg, w_std=net.w_std, b_std=net.b_std, layers=net.depth + 1,
            **parameters,
        )  # fmt: skip
        script = Path(__file__).with_name("torch_training.py")
        command = [python, str(script), str(problem), str(result), "--rates", *map(str, rates)]
        subprocess.run([*command, "--steps", *map(str, steps)], check=True)
        return json.loads(result.read_text())


def _family(name):
    """Method without its settings."""
    return name.split(" with ")[0]


def report(runs, members):
    best = min(np.mean(objectives) for trace in runs.values() for _, objectives in trace)
    print(f"  best mean objective: {best:.3f} nats")
    reached = {}
    for goal in GOALS:
        limit = best * (1 + goal)
        for name, trace in runs.items():
            times = [s for s, objectives in trace if np.mean(objectives) <= limit]
            reached[name, goal] = min(times, default=np.inf)
    families = {_family(name) for name in runs}
    for goal in GOALS:
        print(f"  seconds a member to within {goal:g}:")
        own = reached["ntk_uq", goal]
        for family in sorted(families):
            name = min((n for n in runs if _family(n) == family), key=lambda n: reached[n, goal])
            seconds = reached[name, goal]
            print(
                f"    {name:42s} {seconds / members:8.3f}   {seconds / own:6.2f} times ntk_uq's"
                if np.isfinite(seconds)
                else f"    {family:42s} never"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", help="interpreter with PyTorch; none leaves it out")
    parser.add_argument("--width", type=int, nargs="+", default=[1024, 64])
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--reg", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="a small problem, to see it run")
    arguments = parser.parse_args()
    rates, steps = RATES, STEPS
    if arguments.quick:
        arguments.width, arguments.n, rates, steps = [32], 60, (0.03,), (20,)
    warnings.simplefilter("ignore", ensemble.ConvergenceWarning)
    parts = split(load_dataset("digits"), n_train=arguments.n)
    x = jnp.asarray(parts.X_train, jnp.float32)
    y = jnp.asarray(np.eye(10)[parts.y_train], jnp.float32)
    for width in arguments.width:
        net, key, reg, members = (
            MLP(width=width),
            jax.random.key(0),
            arguments.reg,
            arguments.members,
        )
        print(f"\nwidth {width}, n = {len(x)}, reg = {reg}, {members} members")
        trained = ensemble.train_ensemble(
            key, net, x, y, Categorical(), reg=reg, n_members=members, max_iter=1
        )
        starts = [trained.member(i)[0] for i in range(members)]
        initial = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)

        def value(params, initial, net=net):
            return objective(net, x, y, arguments.reg, params, initial)

        limits = (5, 10, 12, 14, 16, 18, 20, 25, 30, 40, 60, 100, 200)
        runs = {"ntk_uq": ours(key, net, x, y, reg, members, limits)}
        for rate in rates:
            for n in steps:
                schedule = optax.cosine_decay_schedule(rate, n)
                runs[f"optax Adam with {rate:g} over {n} steps"] = with_optax(
                    optax.adam(schedule), initial, value, n
                )
        runs["optax L-BFGS"] = with_optax(
            optax.lbfgs(), initial, value, 10 if arguments.quick else 60, line_search=True
        )
        if arguments.torch_python:
            runs |= with_pytorch(arguments.torch_python, net, x, y, reg, initial, rates, steps)
        report(runs, members)


if __name__ == "__main__":
    main()
