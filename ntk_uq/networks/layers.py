"""Layers in NTK parameterisation, and the settings that they share."""

import math
import numbers
from typing import Any

import jax
from flax import nnx

from ntk_uq._common.words import shown
from ntk_uq.networks.activations import ACTIVATIONS, NAMED

__all__ = ["Dense", "along_last_axis", "check_layers"]


class Dense(nnx.Module):
    """Linear layer w_std / sqrt(fan_in) W x + b_std b with W, b ~ N(0, 1)."""

    def __init__(
        self, in_features: int, out_features: int, w_std: float, b_std: float, *, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jax.random.normal(rngs.params(), (out_features,)))
        self.w_scale = w_std / math.sqrt(in_features)
        self.b_scale = b_std

    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs [..., out_features] of inputs [..., in_features]."""
        bias = along_last_axis(self.b_scale * self.bias[...], x)
        return self.w_scale * (x @ self.kernel[...]) + bias


def along_last_axis(bias: jax.Array, x: jax.Array) -> jax.Array:
    """A bias [units] with as many axes as x, whose last one it is."""
    return bias.reshape((1,) * (x.ndim - 1) + (-1,))


def check_layers(activation: Any, w_std: float, b_std: float) -> None:
    """Refuse what is no activation, and scales out of their ranges."""
    if isinstance(activation, str) and activation not in (*ACTIVATIONS, *NAMED):
        names = ", ".join((*ACTIVATIONS, *NAMED))
        raise ValueError(
            f"Unknown activation {shown(activation)}: choose one of {names}, "
            "or give the function itself, as activation=jnp.arctan."
        )
    if not (isinstance(activation, str) or callable(activation)):
        raise ValueError(
            f"activation must be a name or an elementwise function; got {shown(activation)}."
        )
    if not (isinstance(w_std, numbers.Real) and 0 < w_std < math.inf):
        raise ValueError(f"w_std must be a positive number; got {shown(w_std)}.")
    if not (isinstance(b_std, numbers.Real) and 0 <= b_std < math.inf):
        raise ValueError(f"b_std must be a number, at least 0; got {shown(b_std)}.")
