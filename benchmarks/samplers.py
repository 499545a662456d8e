"""Effective samples a second of the samplers on Gaussian-process posteriors: digits."""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from _timing import digits, heading

from ntk_uq import MLP, Categorical, bayes
from ntk_uq._common.coordinates import Preconditioned
from ntk_uq.bayes.chains import run_chains
from ntk_uq.bayes.samplers.nuts import NoUTurn


def preconditioned_nuts(key, prior, targets, **sizes):
    """NUTS in coordinates that fit the curvature at the mode, one factor for all outputs."""
    chains = run_chains(
        key,
        Preconditioned.create(prior.factor, jnp.asarray(targets), Categorical()),
        NoUTurn(sizes["num_warmup"], 0.8, 10),
        **sizes,
        progress=None,
        double=True,
    )
    return bayes.PosteriorDraws(prior, *chains)


def chosen(sampler):
    """A sampler of the package."""

    def sample(key, prior, targets, **sizes):
        return bayes.sample_latents(key, prior, targets, Categorical(), sampler=sampler, **sizes)

    return sample


SAMPLERS = {
    "NUTS": chosen("nuts"),
    "NUTS, preconditioned": preconditioned_nuts,
    "elliptical slices": chosen("ess"),
}


def run(n, reg, sizes, rounds):
    x, y = digits(n)
    prior = bayes.GaussianProcessPrior.from_covariance(jnp.asarray(MLP().kernels(x).ntk / reg))
    print(f"n = {n}, C = {y.shape[1]}, reg = {reg}: smallest effective sample size over latents")
    speeds = {name: [] for name in SAMPLERS}
    for number in range(-1, rounds):
        for name, sample in SAMPLERS.items():
            few = {"num_warmup": 1, "num_samples": 4, "num_chains": 1}  # compiles
            start = time.perf_counter()
            draws = sample(jax.random.key(number + 1), prior, y, **(few if number < 0 else sizes))
            seconds = time.perf_counter() - start
            if number < 0:
                continue
            result = bayes.diagnostics(draws)
            speeds[name].append(result.ess_bulk.min() / seconds)
            if number == 0:
                print(
                    f"  {name:24} bulk {result.ess_bulk.min():5.0f}  tail "
                    f"{result.ess_tail.min():5.0f}  R-hat {result.rhat_max:.3f}  work a draw "
                    f"{result.steps_per_draw:4.0f}  {seconds:6.1f} s, warm-up included",
                    flush=True,
                )
    for name in list(SAMPLERS)[1:]:
        ratios = np.divide(speeds["NUTS"], speeds[name])
        print(
            f"  NUTS is faster than {name}, in effective samples a second: {np.median(ratios):.3g} "
            f"times ({ratios.min():.3g} to {ratios.max():.3g})",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--reg", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--warmup", type=int, default=500)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few points and draws, once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.reg, arguments.rounds = [20], [1.0], 1
        arguments.warmup, arguments.samples = 50, 100
    sizes = {
        "num_warmup": arguments.warmup,
        "num_samples": arguments.samples,
        "num_chains": 2,
    }
    heading("Samplers, in effective samples a second")
    with jax.enable_x64(True):
        for n in arguments.n:
            for reg in arguments.reg:
                run(n, reg, sizes, arguments.rounds)


if __name__ == "__main__":
    main()
