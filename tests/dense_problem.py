"""A problem of twelve points and three classes, and the matrices of its exact solution."""

import jax.numpy as jnp
import numpy as np
from scipy import optimize
from scipy.special import log_softmax, softmax

from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.mlp import MLP

N, M, C = 12, 7, 3
NET = MLP(depth=2, w_std=1.3, b_std=0.4)


def dense_problem():
    """Kernels [N, N], [M, N] and [M, M] of the training and the test points, and labels [N, C]."""
    rng = np.random.default_rng(0)
    X, x = rng.normal(size=(N, 4)), rng.normal(size=(M, 4))
    labels = rng.integers(C, size=N)
    both = NET.kernels(np.concatenate([X, x]))
    train = Kernels(*(k[:N, :N] for k in both))
    cross = Kernels(*(k[N:, :N] for k in both))
    test = Kernels(*(k[N:, N:] for k in both))
    return train, cross, test, np.eye(C)[labels]


def jaxed(kernels):
    return Kernels(*(jnp.asarray(k) for k in kernels))


def diagonal(kernels):
    return Kernels(*(jnp.asarray(np.diag(k)) for k in kernels))


def scipy_mode(ntk, reg, y, f0=0.0, linear=0.0):
    """Minimise the primal objective in f over the training points, by a trusted optimiser."""
    inverse = np.linalg.inv(ntk)
    n, c = y.shape

    def objective(flat):
        f = flat.reshape(n, c)
        g = f - f0
        value = -np.sum(y * log_softmax(f, axis=1)) + 0.5 * reg * np.sum(g * (inverse @ g))
        gradient = softmax(f, axis=1) - y + linear + reg * inverse @ g
        return value + np.sum(linear * f), gradient.ravel()

    def hessian(flat):
        p = softmax(flat.reshape(n, c), axis=1)
        h = reg * np.einsum("ij,cd->icjd", inverse, np.eye(c))
        for i in range(n):
            h[i, :, i, :] += np.diag(p[i]) - np.outer(p[i], p[i])
        return h.reshape(n * c, n * c)

    start = np.broadcast_to(f0, (n, c)).ravel()
    result = optimize.minimize(
        objective, start, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-12}
    )
    return result.x.reshape(n, c)


def dense_blocks(f):
    """blockdiag(diag p_i - p_i p_i^T), [nC, nC], point-major."""
    p = softmax(f, axis=1)
    w = np.zeros((len(p), C, len(p), C))
    for i, pi in enumerate(p):
        w[i, :, i, :] = np.diag(pi) - np.outer(pi, pi)
    return w.reshape(len(p) * C, -1)


def wide(kernel):
    """Kernel times the identity over outputs, [n1 C, n2 C]."""
    return np.kron(kernel, np.eye(C))


def pointwise(cov):
    """[m C, m C] -> [m, C, C]."""
    return np.stack([cov[i * C : (i + 1) * C, i * C : (i + 1) * C] for i in range(len(cov) // C)])


def soft_targets(y, smoothing=0.2):
    return (1 - smoothing) * y + smoothing / C


def relu_kernels(x1, x2):
    return Kernels(*(jnp.asarray(k) for k in NET.kernels(x1, x2)))
