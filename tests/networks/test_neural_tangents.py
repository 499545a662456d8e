"""neural-tangents on a current JAX: nothing else notices, and its results are right."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_uq.networks.neural_tangents import neural_tangents as nt

NAMESPACES = "[jax, jax.core, jax.random, jax.interpreters.ad]"
# Public names of JAX's namespaces, submodules aside: those appear with any import.
SNAPSHOT = f"""
import sys, types
import jax, jax.core, jax.interpreters.ad
def snapshot():
    return [
        {{name: id(value) for name, value in vars(space).items()
         if not isinstance(value, types.ModuleType)}}
        for space in {NAMESPACES}
    ]
before = snapshot()
config = dict(jax.config.values)
"""
UNCHANGED = """
assert snapshot() == before
assert dict(jax.config.values) == config
assert "jax.util" not in sys.modules and not hasattr(jax, "util")
assert not {"tensorflow", "tf2jax", "neural_tangents.experimental"} & set(sys.modules)
"""


def run_fresh(code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "code",
    [
        # alone, and used by the user after us
        "from ntk_uq.networks.neural_tangents import stax\n"
        "import neural_tangents\n"
        "assert stax is neural_tangents.stax\n"
        "assert not hasattr(neural_tangents, 'experimental')\n",
        # the user has imported it already, by whatever means: that one is kept
        "user = types.ModuleType('neural_tangents')\n"
        "user.stax = types.ModuleType('neural_tangents.stax')\n"
        "sys.modules['neural_tangents'] = user\n"
        "from ntk_uq.networks.neural_tangents import stax\n"
        "assert sys.modules['neural_tangents'] is user and stax is user.stax\n",
    ],
    ids=["alone", "after-the-user"],
)
def test_import_leaves_no_trace(code):
    run_fresh(SNAPSHOT + code + UNCHANGED)


def test_failed_import_leaves_no_trace():
    run_fresh(
        SNAPSHOT
        + "sys.modules['neural_tangents._src.batching'] = None\n"
        + "try:\n    import ntk_uq.networks.neural_tangents\n"
        + "except ImportError:\n    pass\nelse:\n    raise AssertionError\n"
        + UNCHANGED
    )


def relu_network(depth=2, w_std=1.3, b_std=0.4):
    layers = [nt.stax.Dense(64, W_std=w_std, b_std=b_std), nt.stax.Relu()] * depth
    return nt.stax.serial(*layers, nt.stax.Dense(2, W_std=w_std, b_std=b_std))


def points(n, d=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)))


def arc_cosine_kernels(x1, x2, depth=2, w_std=1.3, b_std=0.4):
    """NNGP and NTK of a relu network from Cho and Saul's angles, in NumPy."""

    def affine(k):
        return w_std**2 * k + b_std**2

    d = x1.shape[1]
    k12, k11, k22 = x1 @ x2.T / d, np.sum(x1**2, 1)[:, None] / d, np.sum(x2**2, 1)[None] / d
    k12, k11, k22 = affine(k12), affine(k11), affine(k22)
    ntk = k12
    for _ in range(depth):
        norms = np.sqrt(k11 * k22)
        angle = np.arccos(np.clip(k12 / norms, -1, 1))
        k12 = affine(norms * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi))
        k11, k22 = affine(k11 / 2), affine(k22 / 2)
        ntk = k12 + w_std**2 * ntk * (np.pi - angle) / (2 * np.pi)
    return k12, ntk


def test_analytic_kernels_equal_arc_cosine_recursion():
    with jax.enable_x64(True):
        _, _, kernel_fn = relu_network()
        x1, x2 = points(7), points(5, seed=1)
        kernels = kernel_fn(x1, x2, ("nngp", "ntk"))
    nngp, ntk = arc_cosine_kernels(np.asarray(x1), np.asarray(x2))
    np.testing.assert_allclose(kernels.nngp, nngp, rtol=1e-10)
    np.testing.assert_allclose(kernels.ntk, ntk, rtol=1e-10)


def test_batch_equals_whole():
    with jax.enable_x64(True):
        _, _, kernel_fn = relu_network()
        x1, x2 = points(6), points(4, seed=1)
        whole = kernel_fn(x1, x2, "ntk")
        batched = nt.batch(kernel_fn, batch_size=2, device_count=0)(x1, x2, "ntk")
    np.testing.assert_allclose(batched, whole, rtol=1e-12)


@pytest.mark.slow
def test_prediction_of_a_mean_squared_error_ensemble_equals_dense_algebra():
    with jax.enable_x64(True):
        _, _, kernel_fn = relu_network()
        x, x_test, y = points(6), points(4, seed=1), points(6, d=2, seed=2)
        predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y)
        prediction = predict(x_test=x_test, get="ntk", compute_cov=True)
        k, t = (np.asarray(a) for a in kernel_fn(x, None, ("nngp", "ntk")))
        k_cross, t_cross = (np.asarray(a) for a in kernel_fn(x_test, x, ("nngp", "ntk")))
        k_test = np.asarray(kernel_fn(x_test, None, "nngp"))
    weights = np.linalg.solve(t, t_cross.T).T
    cross = weights @ k_cross.T
    np.testing.assert_allclose(prediction.mean, weights @ np.asarray(y), rtol=1e-8)
    np.testing.assert_allclose(
        prediction.covariance, k_test + weights @ k @ weights.T - cross - cross.T, rtol=1e-7
    )


@pytest.mark.slow
# Said to become an error in a JAX to come: then implementation 2 goes the way of 3.
@pytest.mark.filterwarnings("ignore:size requires ndarray:DeprecationWarning")
@pytest.mark.parametrize("implementation", [1, 2])
def test_empirical_kernels_equal_the_jacobian_product(implementation):
    with jax.enable_x64(True):
        init_fn, apply_fn, _ = relu_network()
        x1, x2 = points(3), points(2, seed=1)
        _, params = init_fn(jax.random.key(0), x1.shape)
        ntk = nt.empirical_ntk_fn(apply_fn, trace_axes=(), implementation=implementation)(
            x1, x2, params
        )

        def jacobian(x):
            leaves = jax.tree.leaves(jax.jacobian(apply_fn)(params, x))
            return np.concatenate([leaf.reshape(2 * len(x), -1) for leaf in leaves], axis=1)

        dense = (jacobian(x1) @ jacobian(x2).T).reshape(3, 2, 2, 2).transpose(0, 2, 1, 3)
        nngp = nt.empirical_nngp_fn(apply_fn)(x1, x2, params)
        outputs = np.asarray(apply_fn(params, x1)) @ np.asarray(apply_fn(params, x2)).T / 2
    np.testing.assert_allclose(ntk, dense, rtol=1e-10)
    np.testing.assert_allclose(nngp, outputs, rtol=1e-10)
