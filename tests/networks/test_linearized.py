"""A trained network's tangent, against Jacobians formed by JAX without any structure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from trained_networks import BatchNormalised, ConvolutionalNetwork, Everything, Reused

import ntk_uq as nuq
from ntk_uq import kernels
from ntk_uq.networks.linearized import TangentProducts, _rows

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((5, 6, 6, 2))


class FewPositions(nnx.Module):
    """Convolutions of many channels at four positions and at one, whose derivatives are not formed.

    The first of 36 positions is.
    """

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(2, 12, (3, 2), rngs=rngs)
        self.conv2 = nnx.Conv(12, 14, (3, 2), strides=3, rngs=rngs)
        self.conv3 = nnx.Conv(14, 8, (2, 2), padding="VALID", rngs=rngs)
        self.readout = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.tanh(self.conv3(nnx.gelu(self.conv2(nnx.relu(self.conv1(x))))))
        return self.readout(x.reshape(len(x), -1))


def brute_jacobian(tangent, X):
    """J [n, C, P] by JAX alone, in the order of the parameters' leaves."""
    jacobian = jax.jacrev(lambda params: tangent.outputs(params, jnp.asarray(X)))(tangent.params)
    leaves = jax.tree.leaves(jacobian)
    return np.concatenate([np.asarray(leaf).reshape(*leaf.shape[:2], -1) for leaf in leaves], -1)


@pytest.mark.cases(3)  # normalised in batches, of few positions, and one layer twice
@pytest.mark.parametrize(
    "module", [BatchNormalised, FewPositions, ConvolutionalNetwork, Reused, Everything]
)
def test_derivatives(module, monkeypatch):
    """Kernel, products and Jacobian are those of J, in blocks and whole."""
    monkeypatch.setattr("ntk_uq.networks.linearized._BLOCK_BYTES", 50_000)
    with jax.enable_x64(True):
        tangent = nuq.Linearized(module(nnx.Rngs(0))).tangent.cast(jnp.float64)
        J = brute_jacobian(tangent, IMAGES)
        n, C, P = J.shape
        np.testing.assert_allclose(tangent.jacobian(IMAGES), J, rtol=1e-10, atol=1e-12)
        kernel = np.einsum("icp,jdp->icjd", J, J)
        scale = {"rtol": 1e-10, "atol": 1e-10 * np.abs(kernel).max()}
        found = tangent.kernel(IMAGES)
        np.testing.assert_allclose(found, kernel, **scale)
        assert np.array_equal(found, found.transpose(2, 3, 0, 1))
        np.testing.assert_allclose(tangent.kernel(IMAGES[:2], IMAGES), kernel[:2], **scale)
        own = np.einsum("icid->icd", kernel)
        np.testing.assert_allclose(tangent.own_kernel(IMAGES), own, **scale)
        v, u = RNG.standard_normal((3, P)), RNG.standard_normal((3, n, C))
        pushed = np.einsum("ncp,sp->snc", J, v)
        np.testing.assert_allclose(tangent.push(IMAGES, v), pushed, **scale)
        np.testing.assert_allclose(tangent.pull(IMAGES, u), np.einsum("ncp,snc->sp", J, u), **scale)
        theta = TangentProducts.of(tangent, IMAGES)
        columns = jnp.moveaxis(jnp.asarray(u), 0, -1)
        product = jax.jit(lambda theta, v: theta.product(v))(theta, columns)
        expected = np.einsum("icjd,sjd->ics", kernel, u)
        np.testing.assert_allclose(product, expected, **scale)
        np.testing.assert_allclose(theta.diagonal(), np.einsum("icic->ic", kernel), **scale)


def test_convolutions_of_few_positions_are_kept_in_factors():
    tangent = nuq.Linearized(FewPositions(nnx.Rngs(0))).tangent
    rows = _rows(tangent, jnp.asarray(IMAGES, jnp.float32))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(tangent.params)]
    factored = {path: row[0].shape[1] for path, row in zip(paths, rows, strict=True) if row[1:]}
    assert factored == {"conv2.kernel": 4, "conv3.kernel": 1, "readout.kernel": 1}


def test_kernels_on_a_device_are_those_of_numpy(monkeypatch):
    net = nuq.Linearized(FewPositions(nnx.Rngs(0)))
    by_numpy = net.tangent.kernel(IMAGES[:3], IMAGES)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_device = net.tangent.kernel(IMAGES[:3], IMAGES)
    np.testing.assert_allclose(on_device, by_numpy, atol=1e-5 * np.abs(by_numpy).max())


def test_a_copy_in_evaluation_mode():
    """Training goes on without the linearised network, which has no dropout."""
    model = BatchNormalised(nnx.Rngs(0))
    net = nuq.Linearized(model)
    assert not model.dropout.deterministic
    before = net.tangent.at(IMAGES)
    model.readout.kernel[...] = model.readout.kernel[...] + 1.0
    np.testing.assert_array_equal(net.tangent.at(IMAGES), before)
    model.readout.kernel[...] = model.readout.kernel[...] - 1.0
    model.eval()
    np.testing.assert_allclose(before, model(IMAGES), rtol=1e-5, atol=1e-6)


def test_chosen_parameters():
    """The kernel of the last layer alone: that of its inputs, for each output."""
    model = ConvolutionalNetwork(nnx.Rngs(0))
    net = nuq.Linearized(model, nnx.All(nnx.Param, nnx.PathContains("readout")))
    assert net.tangent.size == 7 * 3 + 3
    assert repr(net).startswith("Linearized(<ConvolutionalNetwork, 24 parameters>, All(")
    pooled = nnx.avg_pool(nnx.relu(model.conv1(IMAGES)), (2, 2), strides=(1, 1))
    inputs = nnx.tanh(model.hidden(nnx.gelu(model.conv2(pooled)).reshape(len(IMAGES), -1)))
    expected = np.einsum("ij,cd->icjd", 1 + np.asarray(inputs @ inputs.T), np.eye(3))
    np.testing.assert_allclose(net.tangent.kernel(IMAGES), expected, atol=1e-5)
    shared = kernels.empirical_ntk(net, net.tangent.params, IMAGES, trace=True)
    np.testing.assert_allclose(shared, expected[:, 0, :, 0], atol=1e-5)


def test_refusals():
    model = ConvolutionalNetwork(nnx.Rngs(0))
    with pytest.raises(ValueError, match="instance of"):
        nuq.Linearized(ConvolutionalNetwork)
    with pytest.raises(ValueError, match=r"got State\. What builds"):
        nuq.Linearized(nnx.state(model))
    with pytest.raises(ValueError, match="prior_mean"):
        nuq.Linearized(model, prior_mean="zeros")
    with pytest.raises(ValueError, match=r"chooses none.*readout\.kernel.*PathContains\("):
        nuq.Linearized(model, nnx.PathContains("last"))
    with pytest.raises(ValueError, match="not all of which are real"):
        nuq.Linearized(BatchNormalised(nnx.Rngs(0)), ...)
    net = nuq.Linearized(model)
    with pytest.raises(ValueError, match=r"share none.*net\.tangent_kernel\(net\.tangent\.params"):
        net.kernels(IMAGES)
    with pytest.raises(ValueError, match="share none"):
        net.kernel_diag(IMAGES)
    with pytest.raises(ValueError, match="cannot take points"):
        net.tangent.n_outputs(IMAGES[:, :1, :1])
    with pytest.raises(ValueError, match="one trained network"):
        net.module(1, 1, rngs=nnx.Rngs(0))
