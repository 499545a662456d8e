"""The fully connected network: one specification, finite and infinite."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from ntk_uq.networks.activations import _ACTIVATIONS, _check_layers
from ntk_uq.networks.architecture import BaseArchitecture, Kernels, _along, _check_integers
from ntk_uq.networks.infinite_width import mlp_kernel_diag, mlp_kernels


class _Dense(nnx.Module):
    """Linear layer w_std / sqrt(fan_in) W x + b_std b with W, b ~ N(0, 1)."""

    def __init__(
        self, in_features: int, out_features: int, w_std: float, b_std: float, *, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jax.random.normal(rngs.params(), (out_features,)))
        self.w_scale = w_std / math.sqrt(in_features)
        self.b_scale = b_std

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.w_scale * (x @ self.kernel[...]) + _along(self.b_scale * self.bias[...], x)


class _FullyConnected(nnx.Module):
    def __init__(
        self,
        sizes: list[int],
        activation: str,
        residual: bool,
        w_std: float,
        b_std: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List(
            _Dense(fan_in, fan_out, w_std, b_std, rngs=rngs)
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.activation = activation
        self.residual = residual

    def __call__(self, x: jax.Array) -> jax.Array:
        outputs, _ = self.tapped(x, [0.0] * len(self.layers))
        return outputs

    def tapped(self, x: jax.Array, taps: Sequence[Any]) -> tuple[jax.Array, list[jax.Array]]:
        """Outputs with something added to what each layer computes, and each layer's inputs."""
        activation, last = _ACTIVATIONS[self.activation].function, len(self.layers) - 1
        h, inputs = x, []
        for i, (layer, tap) in enumerate(zip(self.layers, taps, strict=True)):
            inputs.append(activation(h) if i else h)
            out = layer(inputs[-1]) + tap
            h = h + out if self.residual and 0 < i < last else out
        return h, inputs


@dataclass(frozen=True)
class MLP(BaseArchitecture):
    """Fully connected network in NTK parameterisation.

    Every weight and bias is N(0, 1) at initialisation; a layer, the first and the read-out
    included, computes ``w_std / sqrt(fan_in) W x + b_std b``.

    Parameters
    ----------
    width : int, default 512
        Units in each hidden layer. The kernels are those of the limit and do not depend on it.
    depth : int, default 2
        Hidden layers. With 0 the network is a linear model.
    activation : {"relu", "erf", "gelu"}, default "relu"
        Activation function; gelu is the exact one, not its tanh approximation.
    w_std : float, default sqrt(2)
        Scale of the weights, > 0. With sqrt(2) relu layers keep the variance of their input.
    b_std : float, default 0.3
        Scale of the biases, >= 0.
    residual : bool, default False
        Whether each hidden layer after the first is added to its input:
        ``h + w_std / sqrt(width) W activation(h) + b_std b``.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the activation unknown.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> net = MLP(width=64, depth=1)
    >>> X = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])
    >>> net.kernels(X).ntk.shape
    (3, 3)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=4)
    >>> net.apply(params, X).shape
    (3, 4)
    """

    width: int = 512
    depth: int = 2
    activation: str = "relu"
    w_std: float = 2**0.5
    b_std: float = 0.3
    residual: bool = False

    def __post_init__(self) -> None:
        _check_integers(self, width=1, depth=0)
        _check_layers(self.activation, self.w_std, self.b_std)
        if not isinstance(self.residual, bool | np.bool_):
            raise ValueError(f"residual must be True or False; got {self.residual!r}.")

    def module(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one randomly initialised network."""
        sizes = [in_features, *[self.width] * self.depth, out_features]
        return _FullyConnected(
            sizes, self.activation, self.residual, self.w_std, self.b_std, rngs=rngs
        )

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""
        return mlp_kernels(x1, x2, **self._limit)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        return mlp_kernel_diag(x, **self._limit)

    @property
    def _limit(self) -> dict[str, Any]:
        """What is left of the specification at infinite width."""
        return {name: value for name, value in asdict(self).items() if name != "width"}
