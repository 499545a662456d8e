"""Time per member to come near the best objective that any method finds.

The default, untuned, against optax's Adam over learning rates and lengths of a cosine schedule (the
best of the grid, for each accuracy), and optax's L-BFGS. Networks are trained one beside another,
as many as `train_ensemble` would. Seconds a step are measured in turns; steps to an accuracy are
counted on each method's own path, so that no clock is read while it is followed.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _timing import digits, heading, take_turns

from ntk_uq import MLP, Categorical
from ntk_uq.ensemble.conjugate_gradients import ConjugateGradients
from ntk_uq.ensemble.layout import _AT_ONCE
from ntk_uq.ensemble.objective import Member, Problem, objective

ACCURACIES = (1e-2, 2e-3)


class Adam:
    """Full-batch Adam with a cosine schedule; the objective is that of the step before."""

    def __init__(self, rate, length):
        self.name, self.length = f"Adam {rate:g}, {length} steps", length
        self.optimizer = optax.adam(optax.cosine_decay_schedule(rate, length))

    def start(self, problem, member):
        return member.initial, self.optimizer.init(member.initial), jnp.inf

    def step(self, problem, member, state):
        params, inner, _ = state
        (value, _), gradient = jax.value_and_grad(objective, 2, has_aux=True)(
            problem, member, params
        )
        updates, inner = self.optimizer.update(gradient, inner, params)
        return optax.apply_updates(params, updates), inner, value

    def value(self, state):
        return state[-1]


class LBFGS(Adam):
    """optax.lbfgs with its default (zoom) line search."""

    def __init__(self, length):
        self.name, self.length, self.optimizer = "L-BFGS", length, optax.lbfgs()

    def step(self, problem, member, state):
        params, inner, _ = state

        def loss(params):
            return objective(problem, member, params)[0]

        value, gradient = optax.value_and_grad_from_state(loss)(params, state=inner)
        updates, inner = self.optimizer.update(
            gradient, inner, params, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(params, updates), inner, value


class Default(ConjugateGradients):
    """The default; the objective is that of the step itself."""

    name = "default"

    def __init__(self, length):
        object.__setattr__(self, "length", length)

    def value(self, state):
        return state.objective


def run(width, n, reg, n_members, rates, lengths, rounds):
    x, y = (jnp.asarray(a, jnp.float32) for a in digits(n))
    net = MLP(width=width)
    problem = Problem(net.apply, x, y, Categorical(), jnp.float32(reg), jnp.float32(0.0))

    def member(i):
        initial = net.init(jax.random.fold_in(jax.random.key(0), i), x.shape[1], y.shape[1])
        return Member(initial, jnp.zeros_like(y), jnp.zeros_like(y), jax.random.key(0))

    members = jax.vmap(member)(jnp.arange(n_members))
    methods = [
        Default(max(lengths)),
        LBFGS(max(lengths)),
        *(Adam(rate, length) for rate in rates for length in lengths),
    ]
    steps = {m.name: jax.jit(jax.vmap(functools.partial(m.step, problem))) for m in methods}
    starts = {m.name: jax.vmap(functools.partial(m.start, problem))(members) for m in methods}

    paths = {}
    for method in methods:
        state, values = starts[method.name], []
        for _ in range(method.length):
            state = steps[method.name](members, state)
            values.append(np.asarray(method.value(state)))
        paths[method.name] = np.array(values)  # [steps, members]
    best = np.min([path.min(axis=0) for path in paths.values()], axis=0)

    # L-BFGS evaluates as often as its line search asks: its seconds are those of a whole path.
    def whole_path():
        state = starts["L-BFGS"]
        for _ in range(counted["L-BFGS"]):
            state = steps["L-BFGS"](members, state)
        return state

    excess = {name: np.mean((path - best) / best, axis=1) for name, path in paths.items()}
    counted = {"L-BFGS": min(30, max(lengths))}
    adam = next(m.name for m in methods if m.name.startswith("Adam"))
    times = take_turns(
        {
            "default": lambda: steps["default"](members, starts["default"]),
            "Adam": lambda: steps[adam](members, starts[adam]),
            "L-BFGS": whole_path,
        },
        rounds,
    )
    seconds = {
        "default": times["default"], "Adam": times["Adam"],
        "L-BFGS": times["L-BFGS"] / counted["L-BFGS"],
    }  # fmt: skip
    print(
        f"width {width}, n = {n}, reg = {reg}, {n_members} members at once; best objective "
        f"{best.mean():.2f} nats; milliseconds a step and member: "
        + ", ".join(f"{name} {1e3 * s / n_members:.1f}" for name, s in seconds.items())
    )
    for accuracy in ACCURACIES:
        print(f"  within {accuracy:g} of the best:")
        reached = {}
        for kind in seconds:
            candidates = [
                (int(np.argmax(curve < accuracy)) + 1, name)
                for name, curve in excess.items()
                if name.startswith(kind) and (curve < accuracy).any()
            ]
            if candidates:
                count, name = min(candidates)
                reached[kind] = count * seconds[kind]
                print(f"    {name}: {count} steps, {reached[kind] / n_members:.3f} s a member")
            else:
                closest = min(c.min() for k, c in excess.items() if k.startswith(kind))
                print(f"    {kind}: not reached, {closest:.1e} at best")
        if "default" in reached:
            ratios = [
                f"{reached[k] / reached['default']:.2f} {k}" for k in reached if k != "default"
            ]
            print(f"    times of the default's: {', '.join(ratios)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--reg", type=float, default=1.0)
    parser.add_argument("--members", type=int, help="at once; by default as many as in training")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    parser.add_argument("--lengths", type=int, nargs="+", default=[40, 80, 160, 320])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small networks, once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.width, arguments.n, arguments.members, arguments.rounds = [16], 40, 2, 1
        arguments.rates, arguments.lengths = [0.1], [20]
    heading("Time to an accuracy, against Adam and L-BFGS")
    for width in arguments.width:
        members = arguments.members or max(1, min(_AT_ONCE, 1024 // width))
        run(
            width,
            arguments.n,
            arguments.reg,
            members,
            arguments.rates,
            arguments.lengths,
            arguments.rounds,
        )


if __name__ == "__main__":
    main()
