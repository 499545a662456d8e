"""Networks for tests of Linearized, on images [n, 6, 6, 2] with 3 outputs; and training."""

import jax
import jax.numpy as jnp
from flax import nnx


class ConvolutionalNetwork(nnx.Module):
    """As newcomers write them."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 5, (3, 2), strides=2, padding="VALID", rngs=rngs)
        self.hidden = nnx.Linear(20, 7, rngs=rngs)
        self.readout = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(1, 1))
        x = nnx.gelu(self.conv2(x)).reshape(len(x), -1)
        return self.readout(nnx.tanh(self.hidden(x)))


class BatchNormalised(nnx.Module):
    """State that is no parameter, and layers that behave otherwise in training."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(72, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.readout = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.readout(self.dropout(nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))))


class Everything(nnx.Module):
    """Layers at each position, grouped and dilated convolutions, bare parameters, no biases."""

    def __init__(self, rngs):
        self.at_positions = nnx.Linear(2, 4, rngs=rngs)
        self.grouped = nnx.Conv(4, 4, (3, 3), feature_group_count=2, rngs=rngs)
        self.dilated = nnx.Conv(4, 3, (2, 2), kernel_dilation=2, use_bias=False, rngs=rngs)
        self.scale = nnx.Param(jax.random.normal(rngs.params(), (3,)))
        self.norm = nnx.LayerNorm(3, rngs=rngs)

    def __call__(self, x):
        x = nnx.swish(self.grouped(self.at_positions(x)))
        return self.norm(jnp.mean(self.dilated(x), axis=(1, 2))) * self.scale[...]


class Reused(nnx.Module):
    """A layer that is used twice, and a weight transposed."""

    def __init__(self, rngs):
        self.embed = nnx.Linear(72, 5, use_bias=False, rngs=rngs)
        self.twice = nnx.Linear(5, 5, rngs=rngs)
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (3, 5)))

    def __call__(self, x):
        x = self.embed(x.reshape(len(x), -1))
        x = self.twice(nnx.tanh(self.twice(x)))
        return x @ self.weight[...].T
