"""Exact draws of the infinite ensemble, against one dense damped Newton solve a draw in SciPy."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from _timing import digits, heading, square_product, take_turns
from scipy import linalg
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

from ntk_uq import MLP, Categorical
from ntk_uq._common.solver import deflate_at_mode, solve_dual
from ntk_uq.analytic import exact_predictor
from ntk_uq.analytic.budget import _DRAWS_A_CORE, _draws_at_once
from ntk_uq.analytic.exact import _DEFLATE_FROM

TOL = 1e-12  # nats, the default of solve_dual: both stop at this gap
# Beyond this many numbers a draw, the matrix of a dense solve takes gigabytes and minutes.
MOST_DENSE = 6000


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
    """Largest entry of grad log p - reg alpha over draws [..., n, C]."""
    return np.max(np.abs(y - softmax(f0 + ntk @ alpha, axis=-1) - reg * alpha))


def faster_blas(size):
    """Number of BLAS threads that factorises faster: on a busy machine one, otherwise all."""
    matrix = np.eye(size)

    def factorise(threads):
        with threadpool_limits(threads, "blas"):
            linalg.cho_factor(matrix)

    times = take_turns({str(t): lambda t=t: factorise(t) for t in (1, None)}, rounds=1)
    return 1 if times["1"] < times["None"] else None


def normals(n):
    """Ten classes of 20 standard normal inputs, with noise: nothing is separable."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 20))
    return x, np.eye(10)[np.argmax(x[:, :10] + rng.normal(size=(n, 10)), axis=1)]


def run(n, reg, n_draws, rounds, data):
    x, y = digits(n) if data == "digits" else normals(n)
    outputs, kernels, likelihood = y.shape[1], MLP().kernels(x), Categorical()

    def draws():
        key = jax.random.key(0)
        return exact_predictor(key, kernels, y, reg, likelihood, "initialization", n_draws)

    predictor = draws()
    assert np.all(predictor.converged)
    f0 = np.einsum("ij,sjc->sic", predictor.factor, predictor.whitened)
    ours = residual(kernels.ntk, reg, y, f0, np.asarray(predictor.alpha))

    with_dense = n * outputs <= MOST_DENSE
    threads = faster_blas(n * outputs) if with_dense else None
    solved = []

    def dense():
        with threadpool_limits(threads, "blas"):
            solved.append(dense_newton(kernels.ntk, reg, y, f0[len(solved) % n_draws]))

    product, product_flops = square_product("float64")
    candidates = {"ours": lambda: draws().alpha, "product": product}
    times = take_turns(({"dense": dense} if with_dense else {}) | candidates, rounds)
    at_once = min(_draws_at_once(n, outputs), n_draws, _DRAWS_A_CORE)
    problem = jnp.asarray(kernels.ntk), reg, jnp.asarray(y)

    with_deflation = n >= _DEFLATE_FROM
    deflation = deflate_at_mode(*problem, likelihood)[0] if with_deflation else None
    counts = {}

    def chunk(deflation):
        solution = solve_dual(*problem, f0[:at_once], likelihood, deflation=deflation)
        counts[deflation is None] = int(solution.n_products)

    chunk(deflation)
    n_products = counts[not with_deflation]
    rate = product_flops / times["product"]
    spent = n_products * 2 * n**2 * outputs * n_draws / rate
    print(
        f"{data}, n = {n}, C = {outputs}, reg = {reg}, {n_draws} draws, float64\n"
        f"  exact draws {1e3 * times['ours'] / n_draws:.2f} ms a draw, residual {ours:.0e}\n"
        f"  products with Theta: {n_products}; at the rate of a large square "
        f"({rate / 1e9:.0f} GFLOP/s) they take {spent / times['ours']:.0%} of the time",
        flush=True,
    )
    if with_deflation:
        both = {"plain": lambda: chunk(None), "deflated": lambda: chunk(deflation)}
        turns = take_turns(both, rounds)
        print(
            f"  without deflation {counts[True]} products; {at_once} draws at once "
            f"take {turns.ratio('plain', 'deflated')} times as long",
            flush=True,
        )
    if with_dense:
        dense_draws = min(len(solved), n_draws)
        theirs = residual(kernels.ntk, reg, y, f0[:dense_draws], np.array(solved[:dense_draws]))
        print(
            f"  dense Newton {1e3 * times['dense']:.0f} ms a draw (BLAS threads: "
            f"{threads or 'all'}, the faster), largest residual {theirs:.0e}\n"
            f"  faster than dense Newton: {times.ratio('dense', 'ours', n_draws)} times",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[300, 500, 1787])
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--reg", type=float, default=1.0)
    parser.add_argument("--data", choices=("digits", "normals"), default="digits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few points and draws, once")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.draws, arguments.rounds = [40], 4, 1
    heading("Exact draws against one dense damped Newton solve a draw")
    with jax.enable_x64(True):
        for n in arguments.n:
            run(n, arguments.reg, arguments.draws, arguments.rounds, arguments.data)


if __name__ == "__main__":
    main()
