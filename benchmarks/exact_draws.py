"""Exact draws of the infinite ensemble, against one dense damped Newton solve a draw in SciPy."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from _timing import digits, heading, square_product, take_turns
from scipy import linalg
from scipy.special import log_softmax, softmax

from ntk_uq import MLP, Categorical
from ntk_uq._solver import solve_dual
from ntk_uq.analytic import _DRAWS_AT_ONCE, exact_predictor

TOL = 1e-12  # nats, the default of solve_dual: both stop at this gap


def dense_newton(ntk, reg, y, f0):
    """Dual coefficients alpha [n, C] of one draw, by Cholesky of the [nC, nC] system.

    Newton's direction (reg I + W Theta)^-1 r in its symmetric form, by Woodbury's identity with
    W = R R^T: half the operations of the LU decomposition that it would take as it stands.
    """
    n, c = y.shape

    def objective(alpha):
        g = ntk @ alpha
        return reg / 2 * np.sum(alpha * g) - np.sum(y * log_softmax(f0 + g, axis=1))

    alpha = np.zeros_like(y)
    value = objective(alpha)
    while True:
        p = softmax(f0 + ntk @ alpha, axis=1)
        r = y - p - reg * alpha
        ntk_r = ntk @ r
        if np.sum(r * ntk_r) <= 2 * reg * TOL:
            return alpha
        root = (np.eye(c) - p[:, :, None]) * np.sqrt(p)[:, None, :]
        columns = root.swapaxes(1, 2).reshape(n * c, c)
        system = (columns @ columns.T).reshape(n, c, n, c)
        system *= ntk[:, None, :, None]
        system = system.reshape(n * c, n * c)
        system[np.diag_indices(n * c)] += reg
        factor = linalg.cho_factor(system, overwrite_a=True, check_finite=False)
        inner = linalg.cho_solve(factor, np.einsum("icd,ic->id", root, ntk_r).ravel())
        direction = (r - np.einsum("icd,id->ic", root, inner.reshape(n, c))) / reg
        slope, t = -np.sum(direction * ntk_r), 1.0
        while (new := objective(alpha + t * direction)) > value + 1e-4 * t * slope + 1e-10:
            t /= 2
        alpha, value = alpha + t * direction, new


def residual(ntk, reg, y, f0, alpha):
    """Largest entry of grad log p - reg alpha, one draw [n, C]."""
    return np.max(np.abs(y - softmax(f0 + ntk @ alpha, axis=1) - reg * alpha))


def run(n, reg, n_draws, rounds):
    x, y = digits(n)
    kernels = MLP().kernels(x)
    key = jax.random.key(0)
    chunk = min(_DRAWS_AT_ONCE, n_draws)
    prior = np.linalg.cholesky(kernels.nngp)
    f0 = np.einsum(
        "ij,sjc->sic", prior, np.random.default_rng(0).normal(size=(n_draws, n, y.shape[1]))
    )
    draws = [jnp.asarray(f0[i : i + chunk]) for i in range(0, n_draws, chunk)]
    ntk, targets = jnp.asarray(kernels.ntk), jnp.asarray(y)

    def solve():
        return [solve_dual(ntk, reg, targets, part, Categorical()) for part in draws]

    def predictor():
        return exact_predictor(key, kernels, y, reg, Categorical(), "initialization", n_draws).alpha

    dense_solutions = []

    def dense():
        dense_solutions.append(dense_newton(kernels.ntk, reg, y, f0[len(dense_solutions)]))

    product, flops = square_product("float64")
    times = take_turns(
        {
            "dense": dense,
            "solve": solve,
            "predictor": predictor,
            "product": product,
        },
        rounds,
    )

    solutions = solve()
    assert all(np.all(s.converged) for s in solutions)
    ours = max(float(np.max(s.residual)) for s in solutions)
    theirs = max(
        residual(kernels.ntk, reg, y, f0[i], alpha) for i, alpha in enumerate(dense_solutions)
    )
    products = [int(s.n_products) for s in solutions]
    rate = flops / times["product"]
    spent = 2 * n**2 * y.shape[1] * chunk * sum(products) / rate
    print(
        f"n = {n}, C = {y.shape[1]}, reg = {reg}, {n_draws} draws, float64\n"
        f"  solve_dual {1e3 * times['solve'] / n_draws:.2f} ms a draw "
        f"(exact_predictor in all {1e3 * times['predictor'] / n_draws:.2f} ms), "
        f"dense Newton {1e3 * times['dense']:.0f} ms\n"
        f"  faster than dense Newton: {times.ratio('dense', 'solve', n_draws)} times; "
        f"exact_predictor: {times.ratio('dense', 'predictor', n_draws)} times\n"
        f"  largest residual: {ours:.0e} (all draws), dense Newton {theirs:.0e} "
        f"({len(dense_solutions)} draws)\n"
        f"  products with Theta: {' and '.join(map(str, products))}, "
        f"{chunk} draws at once\n"
        f"  these products alone, at the rate of a large square ({rate / 1e9:.0f} GFLOP/s), take "
        f"{spent / times['solve']:.0%} of the time",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[300, 500])
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--reg", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few points and draws, once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.draws, arguments.rounds = [40], 4, 1
    heading("Exact draws against one dense damped Newton solve a draw")
    with jax.enable_x64(True):
        for n in arguments.n:
            run(n, arguments.reg, arguments.draws, arguments.rounds)


if __name__ == "__main__":
    main()
