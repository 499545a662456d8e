"""The fully connected network: one specification, finite and infinite."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ntk_uq._common.rules import own_rules
from ntk_uq._common.words import shown
from ntk_uq.networks.activations import function_of
from ntk_uq.networks.architecture import BaseArchitecture, Kernels, check_integers
from ntk_uq.networks.infinite_width import dot_product_kernels, mlp_kernel_diag, mlp_kernels
from ntk_uq.networks.layers import Dense, check_layers

__all__ = ["MLP"]


class _FullyConnected(nnx.Module):
    def __init__(
        self,
        sizes: list[int],
        activation: Any,
        residual: bool,
        w_std: float,
        b_std: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List(
            Dense(fan_in, fan_out, w_std, b_std, rngs=rngs)
            for fan_in, fan_out in itertools.pairwise(sizes)
        )
        self.activation = activation
        self.residual = residual

    def __call__(self, x: jax.Array) -> jax.Array:
        outputs, _ = self.tapped(x, [0.0] * len(self.layers))
        return outputs

    def tapped(self, x: jax.Array, taps: Sequence[Any]) -> tuple[jax.Array, list[jax.Array]]:
        """Outputs with something added to what each layer computes, and each layer's inputs."""
        activation, last = function_of(self.activation), len(self.layers) - 1
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
    activation : str or callable, default "relu"
        Activation function: "relu", "erf", "gelu" (the exact one), "tanh", "sigmoid", "silu",
        "swish", "softplus", "mish", "elu", "leaky_relu", "sin", "cos"; or any elementwise function
        of JAX arrays. Its moments at infinite width are in closed form where there is one, else by
        an expansion: to 1e-10 for smooth functions at standard deviations up to 1.5 (1e-9 at 2;
        those of the derivative to 1e-9, and 1e-7), to 1e-2 near coincident points for functions
        with a kink (docs/theory, "Any activation").
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
    activation: str | Callable[[jax.Array], jax.Array] = "relu"
    w_std: float = 2**0.5
    b_std: float = 0.3
    residual: bool = False
    tunable: ClassVar[tuple[str, ...]] = ("depth", "w_std", "b_std")
    has_dot_product_kernels: ClassVar[bool] = True
    has_closed_form: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integers(self, width=1, depth=0)
        check_layers(self.activation, self.w_std, self.b_std)
        if not isinstance(self.residual, bool | np.bool_):
            raise ValueError(f"residual must be True or False; got {shown(self.residual)}.")

    @property
    def holds_functions(self) -> bool:  # type: ignore[override]
        """Whether no file can hold it: with an activation that is a function."""
        return callable(self.activation)

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

    def tuned_kernel_block(self, x: jax.Array, values: Mapping[str, Any]) -> Kernels:
        """Kernels [n, n] with other values of `tunable` fields but depth, which may be traced."""
        return mlp_kernels(x, **{**self._limit, **values})

    def dot_product_kernels(self, s1: jax.Array, s2: jax.Array, h: jax.Array) -> Kernels:
        """Kernels [n1, n2] from lengths of the inputs and the angles between them."""
        return dot_product_kernels(s1, s2, h, **self._limit)

    @own_rules()
    def tangent_kernel(
        self, params: Any, x1: jax.Array, x2: jax.Array | None = None, *, trace: bool = False
    ) -> jax.Array:
        """Tangent kernel of a finite network: a sum over layers, without Jacobians."""
        left = _factors(params, x1)
        right = left if x2 is None else _factors(params, x2)
        return _gram_products(params, left, right, trace)

    def widened(self, width: int) -> "MLP":
        """The network at least so wide."""
        return replace(self, width=max(width, self.width))

    @property
    def _limit(self) -> dict[str, Any]:
        """What is left of the specification at infinite width."""
        # Not asdict: it copies functions, and programs know an activation by its identity.
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "width"}


@jax.jit
def _factors(params: Any, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Inputs [n, fan_in] of each layer, and gradients [n, C, fan_out] of its outputs."""

    def outputs(taps: list[jax.Array], point: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        f, inputs = params.tapped(point[None], taps)
        return f[0], [h[0] for h in inputs]

    taps = [jnp.zeros_like(layer.bias[...]) for layer in params.layers]
    gradients, inputs = jax.vmap(jax.jacrev(outputs, has_aux=True), (None, 0))(taps, x)
    return list(zip(inputs, gradients, strict=True))


@functools.partial(jax.jit, static_argnums=3)
def _gram_products(params: Any, left: Any, right: Any, trace: bool) -> jax.Array:
    """Sum over layers of (w^2 h h' + b^2) g g'; with `trace`, mean over outputs."""
    equation = "icm,jcm->ij" if trace else "icm,jdm->icjd"
    total: Any = 0.0
    for layer, (h1, g1), (h2, g2) in zip(params.layers, left, right, strict=True):
        inputs = layer.w_scale**2 * jnp.matmul(h1, h2.T, precision=lax.Precision.HIGHEST)
        inputs = inputs + layer.b_scale**2
        gradients = jnp.einsum(equation, g1, g2, precision=lax.Precision.HIGHEST)
        total = total + gradients * (inputs if trace else inputs[:, None, :, None])
    return total / left[0][1].shape[1] if trace else total
