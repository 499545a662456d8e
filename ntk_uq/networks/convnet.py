"""The convolutional network: one specification, finite and infinite."""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ntk_uq.networks import read_off
from ntk_uq.networks.activations import ACTIVATIONS, function_of
from ntk_uq.networks.architecture import TILE, BaseArchitecture, Kernels, check_integers
from ntk_uq.networks.layers import Dense, along_last_axis, check_layers
from ntk_uq.networks.stax_kernels import stax_kernel_diag, stax_kernels

__all__ = ["ConvNet"]

# Covariances between all positions of two images, of the pairs in a block.
_TILE_BYTES = 2**26


class _Conv(nnx.Module):
    """Convolution w_std / sqrt(fan_in) W * x + b_std b, as large as its input, W, b ~ N(0, 1)."""

    def __init__(
        self, size: int, channels: int, width: int, w_std: float, b_std: float, *, rngs: nnx.Rngs
    ):
        shape = (size, size, channels, width)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.bias = nnx.Param(jax.random.normal(rngs.params(), (width,)))
        self.w_scale = w_std / math.sqrt(size * size * channels)
        self.b_scale = b_std

    def __call__(self, x: jax.Array) -> jax.Array:
        convolved = lax.conv_general_dilated(
            x, self.kernel[...], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return self.w_scale * convolved + along_last_axis(self.b_scale * self.bias[...], x)


class _Convolutional(nnx.Module):
    def __init__(
        self, image: tuple[int, int, int], outputs: int, net: "ConvNet", *, rngs: nnx.Rngs
    ):
        height, width, channels = image
        scales = net.w_std, net.b_std
        sizes = [channels, *[net.width] * net.depth]
        self.layers = nnx.List(
            _Conv(net.kernel_size, fan_in, fan_out, *scales, rngs=rngs)
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        positions = height * width if net.readout == "flatten" else 1
        self.readout = Dense(positions * net.width, outputs, *scales, rngs=rngs)
        self.pooled = net.readout == "pool"
        self.activation = net.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = function_of(self.activation)(layer(x))
        return self.readout(jnp.mean(x, axis=(1, 2)) if self.pooled else x.reshape(len(x), -1))


@dataclass(frozen=True)
class ConvNet(BaseArchitecture):
    """Convolutional network on images [n, h, w, c], in NTK parameterisation.

    Every weight and bias is N(0, 1) at initialisation; a layer, the read-out included, computes
    ``w_std / sqrt(fan_in) W * x + b_std b``. Convolutions keep the size of the image, zeros beyond
    its edge. Kernels need the extra ``stax``, and time and memory that grow with the fourth power
    of the image's side where the read-out pools.

    Parameters
    ----------
    width : int, default 64
        Channels of each hidden layer. The kernels are those of the limit and do not depend on it.
    depth : int, default 2
        Convolutions.
    kernel_size : int, default 3
        Side of a convolution's window.
    readout : {"pool", "flatten"}, default "pool"
        What the last, linear layer sees: the mean over positions, or all of them.
    activation : str or callable, default "relu"
        Activation function: "relu", "erf", "gelu" (the exact one), "tanh", "sigmoid", "silu",
        "swish", "softplus", "mish", "elu", "leaky_relu", "sin", "cos"; or any elementwise function
        of JAX arrays. Its moments at infinite width are in closed form where there is one, else by
        an expansion: to 1e-10 for smooth functions of standard deviation up to 1.5 (1e-9 at 2),
        about 1e-2 near coincident points for functions with a kink (docs/theory, "Any
        activation").
    w_std : float, default sqrt(2)
        Scale of the weights, > 0.
    b_std : float, default 0.3
        Scale of the biases, >= 0.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the activation unknown.

    References
    ----------
    Novak et al. 2019, arXiv 1810.05148; Arora et al. 2019, arXiv 1904.11955.

    Examples
    --------
    >>> import jax
    >>> net = ConvNet(width=8, depth=1)
    >>> params = net.init(jax.random.key(0), in_features=(4, 4, 1), out_features=3)
    >>> net.apply(params, jax.numpy.ones((5, 4, 4, 1))).shape
    (5, 3)
    """

    width: int = 64
    depth: int = 2
    kernel_size: int = 3
    readout: str = "pool"
    activation: str | Callable[[jax.Array], jax.Array] = "relu"
    w_std: float = 2**0.5
    b_std: float = 0.3
    ndim: ClassVar[int | None] = 4
    tunable: ClassVar[tuple[str, ...]] = ("depth",)

    def __post_init__(self) -> None:
        check_integers(self, width=1, depth=1, kernel_size=1)
        check_layers(self.activation, self.w_std, self.b_std)
        if self.readout not in ("pool", "flatten"):
            raise ValueError(f'readout must be "pool" or "flatten"; got {self.readout!r}.')

    @property
    def holds_functions(self) -> bool:  # type: ignore[override]
        """Whether no file can hold it: with an activation that is a function."""
        return callable(self.activation)

    def module(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one randomly initialised network for images of shape (h, w, c)."""
        if np.shape(in_features) != (3,):
            raise ValueError(
                f"ConvNet takes images [n, h, w, c]; got points with {in_features} features. "
                "Use X.reshape(n, height, width, channels), or MLP."
            )
        return _Convolutional(in_features, out_features, self, rngs=rngs)

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""
        if self.activation in ACTIVATIONS:
            return stax_kernels(_conv_kernel_fn(replace(self, width=1)), x1, x2)
        return read_off.read_kernels(replace(self, width=1), x1, x2)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        if self.activation in ACTIVATIONS:
            return stax_kernel_diag(_conv_kernel_fn(replace(self, width=1)), x)
        return read_off.read_kernel_diag(replace(self, width=1), x)

    def widened(self, width: int) -> "ConvNet":
        """The network with at least so many channels."""
        return replace(self, width=max(width, self.width))

    def tile_rows(self, point: np.ndarray) -> int:
        """Points on a side of a kernel's block that is computed at once."""
        height, width, _ = point.shape
        positions = height * width
        pair_bytes = 8 * (positions**2 if self.readout == "pool" else positions)
        return int(np.clip(math.isqrt(_TILE_BYTES // pair_bytes), 1, TILE))


@functools.lru_cache
def _conv_kernel_fn(net: ConvNet) -> Callable[..., Any]:
    from ntk_uq.networks.neural_tangents import stax

    scales = {"W_std": net.w_std, "b_std": net.b_std}
    window = (net.kernel_size, net.kernel_size)
    activation = getattr(stax, str(ACTIVATIONS[str(net.activation)].stax_layer))
    layers = [
        layer
        for _ in range(net.depth)
        for layer in (stax.Conv(1, window, padding="SAME", **scales), activation())
    ]
    pool = stax.GlobalAvgPool() if net.readout == "pool" else stax.Flatten()
    return stax.serial(*layers, pool, stax.Dense(1, **scales))[2]
