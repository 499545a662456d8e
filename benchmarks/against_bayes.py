"""How near the ensembles are to the Bayesian posterior, and what brings them nearer.

Every method is measured by the total variation of its class probabilities from those of a NUTS
reference with the same prior GP(0, Theta / reg), mean over test points. Tables are in markdown.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats
from jax import lax
from sklearn.datasets import make_classification

from ntk_uq import MLP, BayesianClassifier, Categorical, EnsembleClassifier, NTKClassifier
from ntk_uq._common.coordinates import Preconditioned
from ntk_uq._common.linalg import cholesky
from ntk_uq._common.solver import solve_dual
from ntk_uq.analytic import ExactPredictor, correct_draws, discrepancy
from ntk_uq.bayes import SamplingWarning
from ntk_uq.datasets import Dataset, load_dataset, split
from ntk_uq.distances import Draws, Estimate
from ntk_uq.distances.measures import estimate_epistemic_ratio, estimate_tv
from ntk_uq.distances.pair import Pair
from ntk_uq.ensemble import ConvergenceWarning
from ntk_uq.predictions import SamplePrediction

NET, LIKELIHOOD = MLP(), Categorical()
N_TEST = 150


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set of n training points, and a regularisation."""

    name: str
    n: int
    reg: float
    X: Any
    y: Any
    X_test: Any

    def __str__(self):
        return f"{self.name}, n = {self.n}, reg = {self.reg:g}"

    @property
    def one_hot(self):
        return jnp.asarray(np.unique(self.y)[:, None] == self.y, float).T


def problem(name: str, n: int, reg: float) -> Problem:
    if name == "synthetic":
        X, y = make_classification(
            1000,
            n_features=10,
            n_informative=6,
            n_classes=3,
            flip_y=0.05,
            random_state=0,
        )
        data = Dataset(name, "three classes of two clusters each, 5% of labels at random", X, y)
    else:
        data = load_dataset(name)
    parts = split(data, n_train=n, n_test=min(N_TEST, len(data.y) - n))
    return Problem(name, n, reg, parts.X_train, parts.y_train, parts.X_test)


# --- Corrections: draws of `uncertainty="posterior"` in, nearer draws out -------------------------


def training_latents(predictor: ExactPredictor, reg: float):
    """Whitened variables z [S, n, C] of the draws, f(X) = L z for L L^T = Theta / reg."""
    factor = jnp.asarray(predictor.factor)
    return predictor.whitened + reg * jnp.einsum("ij,sic->sjc", factor, predictor.alpha)


def with_latents(predictor: ExactPredictor, whitened) -> ExactPredictor:
    """The same predictor with other draws: nothing is left to train, all is in the prior function.

    A function f = f0 + Theta alpha is also the prior function with these values at the training
    points, since Theta(x, X) Theta(X, X)^-1 f(X) is what the prior predicts of it elsewhere.
    """
    return replace(predictor, whitened=whitened, alpha=jnp.zeros_like(whitened))


def renew_noise(key, predictor: ExactPredictor, ntk, y, reg: float, *, discrete: bool = False):
    """Solve again, with label noise of the curvature at each draw's own solution, not at the mode.

    The noise is fresh: that which has led to a solution is not independent of it.
    """
    f0 = jnp.einsum("ij,sjc->sic", predictor.factor, predictor.whitened)
    latents = f0 + jnp.einsum("ij,sjc->sic", ntk, predictor.alpha)
    if discrete:
        noise = LIKELIHOOD.sample(key, latents) - LIKELIHOOD.response(latents)
    else:
        xi = jax.random.normal(key, latents.shape, latents.dtype)
        noise = LIKELIHOOD.curvature(latents, y).sqrt_matvec(xi)
    return replace(predictor, alpha=solve(ntk, reg, y, f0, noise, predictor.alpha))


def mode_noise(key, predictor: ExactPredictor, ntk, y, reg: float):
    """Solve again with the discrete noise onehot(label) - p, labels drawn from p at the mode."""
    f0 = jnp.einsum("ij,sjc->sic", predictor.factor, predictor.whitened)
    mode = solve_dual(ntk, reg, y, jnp.zeros_like(y)[None], LIKELIHOOD).latents
    noise = LIKELIHOOD.sample(key, jnp.broadcast_to(mode, f0.shape)) - LIKELIHOOD.response(mode)
    return replace(predictor, alpha=solve(ntk, reg, y, f0, noise, predictor.alpha))


def solve(ntk, reg, y, f0, noise, start, tol=1e-12, at_once=64):
    parts = [
        solve_dual(ntk, reg, y, f0[s], LIKELIHOOD, linear=noise[s], start=start[s], tol=tol).alpha
        for s in (slice(i, i + at_once) for i in range(0, len(f0), at_once))
    ]
    return jnp.concatenate(parts)


class Coordinates(NamedTuple):
    """Variables u, of which f(X) = centre + factor u; a priori, or nearly a posteriori, N(0, I).

    With g = factor u, the log density is, up to a constant,
    -|u|^2 / 2 + log p(y | centre + g) - alpha . g + g . D g / 2.
    All of centre, alpha and D are zero for the prior's whitened variables.
    """

    factor: Any  # [n, n]
    centre: Any  # [n, C]
    alpha: Any
    curvature: Any

    def apply(self, u):
        return jnp.einsum("ij,sjc->sic", self.factor, u)

    def log_weight(self, g, y):
        log_density = jnp.sum(LIKELIHOOD.log_density(self.centre + g, y), axis=-1)
        return log_density + jnp.sum(0.5 * self.curvature * g**2 - self.alpha * g, axis=(1, 2))


@partial(jax.jit, static_argnames="n_steps")
def slice_steps(key, coordinates: Coordinates, u, y, n_steps: int):
    """Steps of elliptical slice sampling (Murray, Adams, MacKay 2010), all draws side by side.

    A step costs one product with the factor: between two functions an ellipse needs none.
    """

    def step(state, key):
        u, g = state
        key_u, key_level, key_angle = jax.random.split(key, 3)
        other_u = jax.random.normal(key_u, u.shape, u.dtype)
        other_g = coordinates.apply(other_u)
        level = coordinates.log_weight(g, y)
        level = level + jnp.log(jax.random.uniform(key_level, level.shape, u.dtype))

        def at(angle, a, b):
            return jnp.cos(angle)[:, None, None] * a + jnp.sin(angle)[:, None, None] * b

        def inside(angle):
            return coordinates.log_weight(at(angle, g, other_g), y) >= level

        def shrink(state):
            angle, low, high, done, count = state
            low = jnp.where(~done & (angle < 0), angle, low)
            high = jnp.where(~done & (angle >= 0), angle, high)
            part = jax.random.uniform(jax.random.fold_in(key_angle, count), angle.shape, u.dtype)
            angle = jnp.where(done, angle, low + part * (high - low))
            return angle, low, high, inside(angle), count + 1

        first = 2 * jnp.pi * jax.random.uniform(key_angle, level.shape, u.dtype)
        state = (first, first - 2 * jnp.pi, first, inside(first), 1)
        angle, *_ = lax.while_loop(lambda s: ~jnp.all(s[3]), shrink, state)
        return (at(angle, u, other_u), at(angle, g, other_g)), None

    (u, _), _ = lax.scan(step, (u, coordinates.apply(u)), jax.random.split(key, n_steps))
    return u


def corrections(predictor, ntk, y, reg) -> dict[str, Callable[[], ExactPredictor]]:
    """Name, and the function that corrects draws."""
    keys = jax.random.split(jax.random.key(5), 3)
    factor, zero = jnp.asarray(predictor.factor), jnp.zeros_like(y)
    plain = Coordinates(factor, zero, zero, zero)
    renewed: list[ExactPredictor] = []  # what the corrections of renewed draws start from

    def renew():
        renewed[:] = [renew_noise(keys[0], predictor, ntk, y, reg)]
        return renewed[0]

    def slices(count, *, start="posterior", preconditioned=False):
        def run():
            base = renewed[0] if start == "renewed" else predictor
            z = training_latents(base, reg)
            if not preconditioned:
                return with_latents(base, slice_steps(keys[1], plain, z, y, count))
            how = Preconditioned.create(factor, y, LIKELIHOOD)
            nearly = Coordinates(how.factor, how.mode, how.alpha, how.curvature)
            u = slice_steps(keys[1], nearly, jax.vmap(how.position)(z), y, count)
            return with_latents(base, jax.vmap(lambda one: how.outcome(one)[0])(u))

        return run

    def trajectories(count, *, start="posterior"):
        def run():
            base = renewed[0] if start == "renewed" else predictor
            if start == "normal":
                how = Preconditioned.create(factor, y, LIKELIHOOD)
                u = jax.random.normal(keys[2], predictor.alpha.shape, factor.dtype)
                base = with_latents(base, jax.vmap(lambda one: how.outcome(one)[0])(u))
            return correct_draws(keys[1], base, y, LIKELIHOOD, count)

        return run

    return {
        "5 slice steps": slices(5),
        "20 slice steps": slices(20),
        "5 slice steps, preconditioned": slices(5, preconditioned=True),
        "1 HMC trajectory": trajectories(1),
        "3 HMC trajectories": trajectories(3),
        "N(0, I) + 5 HMC trajectories": trajectories(5, start="normal"),
        "discrete noise": lambda: mode_noise(keys[2], predictor, ntk, y, reg),
        "renewed noise": renew,
        "renewed + 5 slice steps": slices(5, start="renewed"),
        "renewed + 1 HMC trajectory": trajectories(1, start="renewed"),
    }


# --- Measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A method against the reference."""

    tv: Estimate
    epistemic_ratio: Estimate
    seconds: float


def cpu_seconds(function, repeat=True):
    """Result, and processor seconds of all threads; without compilation where it could matter."""
    start = time.process_time()
    result = function()
    seconds = time.process_time() - start
    if repeat and seconds < 5:
        start = time.process_time()
        result = function()
        seconds = time.process_time() - start
    return result, seconds


class Reference:
    """NUTS at the test points."""

    def __init__(self, problem: Problem, warmup: int, samples: int, prior="ntk", width=512):
        self.sampler = BayesianClassifier(
            replace(NET, width=width),
            reg=problem.reg if prior == "ntk" else 1.0,
            prior=prior,
            num_warmup=warmup,
            num_samples=samples,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingWarning)  # what was reached is printed
            _, self.seconds = cpu_seconds(lambda: self.sampler.fit(problem.X, problem.y))
        prediction = self.sampler.predict_distribution(problem.X_test, joint=True)
        self.draws = Draws(prediction, seed=1)
        self.diagnostics = self.sampler.diagnostics_

    def __str__(self):
        found = self.diagnostics
        return (
            f"smallest ESS {found.ess_min:,.0f}, R-hat up to {found.rhat_max:.3f}, "
            f"{self.seconds:.0f} CPU s"
        )

    def measure(self, prediction, seconds=np.nan) -> Result:
        pair = Pair(Draws(prediction), self.draws)
        return Result(estimate_tv(pair), estimate_epistemic_ratio(pair)[0], seconds)


def fitted(problem: Problem, estimator):
    """Prediction of an estimator, and its processor seconds for fitting and predicting."""

    def run():
        estimator.fit(problem.X, problem.y)
        if getattr(estimator, "method", None) == "exact" or hasattr(estimator, "sampler"):
            return estimator.predict_distribution(problem.X_test, joint=True)
        return estimator.predict_distribution(problem.X_test)

    return cpu_seconds(run, repeat=not isinstance(estimator, EnsembleClassifier))


def estimators(problem: Problem, n_draws: int) -> dict[str, Any]:
    gaussian = partial(NTKClassifier, NET, reg=problem.reg, method="gaussian")
    exact = partial(NTKClassifier, NET, reg=problem.reg, n_draws=n_draws)
    return {
        "mode": gaussian(uncertainty="none"),
        "Laplace": gaussian(uncertainty="posterior"),
        "variational": BayesianClassifier(
            NET, reg=problem.reg, sampler="vi", num_samples=n_draws, num_chains=1
        ),
        "initialization, Gaussian": gaussian(uncertainty="initialization"),
        "initialization": exact(uncertainty="initialization"),
        "posterior": exact(uncertainty="posterior"),
    }


def measure_methods(problem, reference, n_draws, names) -> dict[str, Result]:
    """Results of the methods and corrections of these names; corrections come last."""
    results: dict[str, Result] = {}
    for name, estimator in estimators(problem, n_draws).items():
        if name in names:
            prediction, seconds = fitted(problem, estimator)
            results[name] = reference.measure(prediction, seconds)
    # The draws of "posterior", which is the last.
    kernels = NET.kernels(problem.X)
    cross, test = NET.kernels(problem.X_test, problem.X), NET.kernels(problem.X_test)
    base, renewal = results["posterior"].seconds, 0.0
    with jax.enable_x64(True):
        ntk, y = jnp.asarray(kernels.ntk), jnp.asarray(problem.one_hot)
        predictor = jax.tree.map(jnp.asarray, estimator.predictor_)
        for name, correct in corrections(predictor, ntk, y, problem.reg).items():
            if name not in names:
                continue
            better, seconds = cpu_seconds(lambda c=correct: jax.block_until_ready(c()))
            renewal = seconds if name == "renewed noise" else renewal
            seconds += renewal if name.startswith("renewed +") else 0.0
            latents = np.asarray(better.joint_latents(jax.random.key(7), cross, test))
            prediction = SamplePrediction(latents, joint=True)
            alone = name.startswith("N(0, I)")  # of such draws nothing need be trained
            results[name] = reference.measure(prediction, seconds + (0.0 if alone else base))
    return results


# --- Printing -------------------------------------------------------------------------------------


def number(estimate: Estimate, digits=4) -> str:
    return f"{estimate.value:.{digits}f} ± {estimate.se:.{digits}f}"


def factor(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"


def print_row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_header(*cells):
    print_row(*cells)
    print_row(*("---" for _ in cells))


METHODS = ("mode", "Laplace", "variational", "initialization", "posterior")
STEPS = ("1 HMC trajectory", "3 HMC trajectories", "N(0, I) + 5 HMC trajectories")


def methods(problems, arguments):
    """A row a problem: total variation from NUTS. Then epistemic ratios, then times."""
    names = (*METHODS, *STEPS)
    print("\nTotal variation from NUTS; in the last column, what Monte-Carlo error alone gives\n")
    print_header("problem", *names, "noise")
    found, references = {}, {}
    for one in problems:
        references[one] = reference = Reference(one, arguments.warmup, arguments.samples)
        results = found[one] = measure_methods(one, reference, arguments.draws, names)
        cells = (number(results[name].tv) for name in names)
        print_row(one, *cells, f"{results['posterior'].tv.noise:.4f}")
        reference.draws = None  # memory
    print("\nMean epistemic uncertainty over NUTS's\n")
    print_header("problem", *names)
    for one, results in found.items():
        print_row(one, *(number(results[name].epistemic_ratio, 3) for name in names))
    print(f"\nNUTS's processor time over the method's, {arguments.draws} draws\n")
    print_header("problem", *names, "NUTS: CPU s", "smallest ESS", "largest R-hat")
    for one, results in found.items():
        reference = references[one]
        print_row(
            one,
            *(factor(reference.seconds / results[name].seconds) for name in names),
            f"{reference.seconds:.0f}",
            f"{reference.diagnostics.ess_min:,.0f}",
            f"{reference.diagnostics.rhat_max:.3f}",
        )


def all_corrections(problems, arguments):
    """A table a problem: what may bring draws of "posterior" nearer."""
    for one in problems:
        reference = Reference(one, arguments.warmup, arguments.samples)
        print(f"\n{one}; {arguments.draws} draws; NUTS: {reference}\n")
        print_header("draws", "total variation", "noise", "epistemic ratio", "time")
        found = measure_methods(one, reference, arguments.draws, Everything())
        for name, result in found.items():
            print_row(
                name,
                number(result.tv),
                f"{result.tv.noise:.4f}",
                number(result.epistemic_ratio, 3),
                f"{result.seconds / found['posterior'].seconds:.2f}",
            )
        importance(one, arguments.draws)


def importance(one, n_draws):
    """Pareto's k of the weights from N(0, I) in preconditioned coordinates to the posterior."""
    with jax.enable_x64(True):
        y = jnp.asarray(one.one_hot)
        factor, _ = cholesky(jnp.asarray(NET.kernels(one.X).ntk) / one.reg)
        how = Preconditioned.create(factor, y, LIKELIHOOD)
        nearly = Coordinates(how.factor, how.mode, how.alpha, how.curvature)
        u = jax.random.normal(jax.random.key(8), (n_draws, *y.shape), factor.dtype)
        log_weights = nearly.log_weight(nearly.apply(u), y)
    _, k = array_stats.psislw(np.asarray(log_weights))
    print(f"\nImportance weights from N(0, I): Pareto's k = {float(k):.1f}")


class Everything:
    def __contains__(self, name):
        return True


def trajectories(problems, arguments):
    """At single points: what first order leaves of the latents' error, and what trajectories do."""
    for one in problems:

        def prediction(estimator, one=one):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SamplingWarning)
                return estimator.fit(one.X, one.y).predict_distribution(one.X_test)

        size = {"num_warmup": arguments.warmup, "num_samples": 2 * arguments.samples}
        nuts = prediction(BayesianClassifier(NET, reg=one.reg, **size))
        print(f"\n{one}: latents less their mean over classes, against NUTS\n")
        print_header("draws", "mean error: rms", "largest", "sd ratio: median", "total variation")
        draws = {
            f"posterior, {count} trajectories": NTKClassifier(
                NET, reg=one.reg, uncertainty="posterior", n_trajectories=count,
                n_draws=4 * arguments.samples,
            )
            for count in (0, 1, 3, 16)
        }  # fmt: skip
        again = BayesianClassifier(NET, reg=one.reg, random_state=1, **size)
        for name, estimator in {**draws, "NUTS again": again}.items():
            found = discrepancy(prediction(estimator), nuts)
            print_row(
                name,
                f"{np.sqrt(np.mean(found.mean_shift**2)):.3f}",
                f"{np.max(np.abs(found.mean_shift)):.3f}",
                f"{np.median(found.sd_ratio):.3f}",
                f"{np.mean(found.total_variation):.4f}",
            )


def widths(problems, arguments):
    """Finite ensembles against the same reference, as width grows."""
    for one in problems:
        reference = Reference(one, arguments.warmup, arguments.samples)
        print(f"\n{one}: {arguments.members} networks; NUTS: {reference}\n")
        print_header(
            "uncertainty", "width", "total variation", "noise", "epistemic ratio", "converged"
        )
        for uncertainty in ("posterior", "initialization"):
            rows = {
                f"{width:,}": EnsembleClassifier(
                    replace(NET, width=width),
                    arguments.members,
                    reg=one.reg,
                    uncertainty=uncertainty,
                )
                for width in arguments.widths
            }
            rows["infinite"] = NTKClassifier(
                NET, reg=one.reg, uncertainty=uncertainty, n_draws=arguments.members
            )
            for width, estimator in rows.items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # counted below
                    result = reference.measure(fitted(one, estimator)[0])
                print_row(
                    uncertainty,
                    width,
                    number(result.tv),
                    f"{result.tv.noise:.4f}",
                    number(result.epistemic_ratio, 3),
                    f"{np.mean(getattr(estimator, 'converged_', True)):.0%}",
                )


def priors(problems, arguments):
    """Posteriors under three priors: NTK, NNGP, and finite networks with N(0, I) weights."""
    for one in problems:
        nngp = Reference(one, arguments.warmup, arguments.samples, prior="nngp")
        print(f"\n{one}: from the posterior under NNGP; {nngp}\n")
        print_header("prior", "total variation", "noise", "epistemic ratio", "ESS, R-hat, time")
        runs = {"NTK": {"prior": "ntk"}}
        for width in arguments.prior_widths:
            runs[f"weights, width {width}"] = {"prior": "weights", "width": width}
        for name, options in runs.items():
            other = Reference(one, arguments.warmup, arguments.samples, **options)
            result = nngp.measure(other.draws.prediction)
            print_row(
                name,
                number(result.tv),
                f"{result.tv.noise:.4f}",
                number(result.epistemic_ratio, 3),
                other,
            )


PARTS = {
    "methods": methods,
    "corrections": all_corrections,
    "trajectories": trajectories,
    "widths": widths,
    "priors": priors,
}
PROBLEMS = {
    "methods": [
        *(f"{name}:50:1" for name in ("wine", "breast_cancer", "synthetic", "digits")),
        *("wine:50:0.1", "wine:100:1"),
        *(f"{name}:150:1" for name in ("breast_cancer", "synthetic", "digits")),
        "synthetic:150:0.1",
        *(f"{name}:500:1" for name in ("breast_cancer", "synthetic", "digits")),
    ],
    "corrections": ["wine:50:0.1", "synthetic:150:0.1", "digits:150:1"],
    "trajectories": ["synthetic:10:1", "wine:10:1", "wine:50:0.1"],
    "widths": ["wine:50:1"],
    "priors": ["wine:50:1"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small problem, few draws")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument(
        "--problems", nargs="+", metavar="NAME:N:REG", help="in place of each part's"
    )
    parser.add_argument("--draws", type=int, default=2000, help="of the infinite ensemble")
    parser.add_argument("--members", type=int, default=256, help="networks of finite ensembles")
    parser.add_argument("--warmup", type=int, default=500, help="of each of two NUTS chains")
    parser.add_argument("--samples", type=int, default=2000, help="of each of two NUTS chains")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--prior-widths", type=int, nargs="+", default=[8, 32, 128])
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.problems = ["wine:20:1"]
        arguments.draws, arguments.members, arguments.samples, arguments.warmup = 64, 8, 100, 100
        arguments.widths, arguments.prior_widths = [16], [4]
    for part in arguments.parts:
        chosen = (text.split(":") for text in arguments.problems or PROBLEMS[part])
        PARTS[part]([problem(name, int(n), float(reg)) for name, n, reg in chosen], arguments)


if __name__ == "__main__":
    main()
