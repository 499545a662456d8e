r"""A network that sees each feature by itself before it mixes them.

The covariance of an MLP depends on the angle between two points: turn all points alike and nothing
changes. The features of a table have a meaning each, and are not to be turned. So each is embedded
by itself, as itself and as a set of waves of it, before the first layer. With s_j the scale of
feature j, the covariance of the embedding is

.. math::
    k_0(x, z) = \frac{\sum_j s_j^2 \bigl[a\,x_j z_j
                + e^{-\sigma^2 (x_j - z_j)^2 / 2}\bigr]}{\sum_j s_j^2} ,

from which the network's recursion goes on. Without hidden layers it is an additive model, with them
it has interactions. See docs/theory: "An embedding of each feature".
"""

import functools
import math
import numbers
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from ntk_uq._common import checks
from ntk_uq._common.rules import own_rules
from ntk_uq._common.words import shown
from ntk_uq.networks.activations import ratio
from ntk_uq.networks.architecture import BaseArchitecture, Kernels
from ntk_uq.networks.input_map import BehindInputMap
from ntk_uq.networks.mlp import MLP

__all__ = ["FeatureEmbedding"]

# How far the waves' covariance may be from the Gaussian's: a hundredth of what a network of width
# 512 differs by from its limit.
_WAVE_ERROR = 1e-5


class _Waves(NamedTuple):
    """Waves whose products sum to a Gaussian of the distance, on an interval."""

    wave_numbers: tuple[float, ...]
    amplitudes: tuple[float, ...]


@functools.lru_cache
def _waves(frequency: float, limit: float) -> _Waves:
    """Cosine and sine of each wave number k, weighted: their products sum to exp(-(sigma t)^2 / 2).

    The Fourier series of the Gaussian, continued with a period so long that no copy of it reaches
    distances up to 2 limit, and cut where its coefficients vanish.
    """
    tail = math.sqrt(2 * math.log(4 / _WAVE_ERROR))
    step = 2 * math.pi / (2 * limit + tail / frequency)
    numbers_ = step * np.arange(1 + math.ceil(tail * frequency / step))
    weights = np.exp(-((numbers_ / frequency) ** 2) / 2)
    weights[1:] *= 2
    return _Waves(tuple(numbers_.tolist()), tuple(np.sqrt(weights / weights.sum()).tolist()))


class _Embedded(nnx.Module):
    """A network behind its embedding, which has no parameters."""

    def __init__(self, network: nnx.Module, embedding: "FeatureEmbedding"):
        self.network = network
        self.embedding = embedding

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.network(self.embedding.embed(x))


@dataclass(frozen=True)
class FeatureEmbedding(BehindInputMap):
    r"""A network behind an embedding of each feature by itself.

    Feature j enters as s_j sqrt(a) x_j and as s_j times waves of x_j, cosines and sines, which are
    frozen. The network behind them is one like the others, lazy under the same conditions, and with
    the same `reg`. For tables whose features act one by one, or in rules; see docs, "Choosing".

    Parameters
    ----------
    network : MLP or other architecture for tables, default MLP()
        What sees the embedding.
    frequency : float, default 0.7
        :math:`\sigma > 0`, of the waves: values of a feature that differ by much more than
        1 / frequency say nothing of one another.
    linear : float, default 0.5
        :math:`a \ge 0`, weight of the feature itself.
    scales : sequence of floats, optional
        :math:`s_j \ge 0`, how much each feature counts; only their ratios matter. None counts all
        alike.
    limit : float, default 5.0
        The waves see a feature beyond +-limit as one at the limit. Standardise features: they are
        then of size 1.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    References
    ----------
    Rahimi & Recht 2007 (waves); Gorishniy et al. 2022, arXiv 2203.05556 (embeddings of numerical
    features in networks).

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, FeatureEmbedding
    >>> net = FeatureEmbedding(MLP(width=64, depth=0, b_std=0.0), frequency=1.0)
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> K = net.kernels(X).nngp
    >>> f = np.array([1.0, -1.0, -1.0, 1.0])  # an interaction: no additive function has any
    >>> bool(abs(f @ K @ f) < 1e-12)
    True
    """

    network: BaseArchitecture = field(default_factory=MLP)
    frequency: float = 0.7
    linear: float = 0.5
    scales: tuple[float, ...] | None = None
    limit: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("frequency", "limit"):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Real) and 0.0 < float(value) < math.inf):
                raise ValueError(f"{name} must be a number > 0; got {shown(value)}.")
        checks.real("linear", self.linear, minimum=0.0)
        if self.scales is not None:
            scales = np.asarray(self.scales, float)
            if scales.ndim != 1 or not (np.isfinite(scales).all() and (scales >= 0).all()):
                raise ValueError(
                    "scales must be a number at least 0 for each feature, or None; got "
                    f"{shown(self.scales)}."
                )
            if not scales.any():
                raise ValueError("scales are all 0: no feature would count.")
            object.__setattr__(self, "scales", tuple(scales.tolist()))  # hashable

    def module(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one randomly initialised network."""
        waves = _waves(float(self.frequency), float(self.limit))
        width = in_features * (1 + 2 * len(waves.wave_numbers))
        return _Embedded(self.network.build(width, out_features, rngs=rngs), self)

    def embed(self, x: jax.Array) -> jax.Array:
        """What the network sees.

        Parameters
        ----------
        x : array of shape [n, d]
            Points.

        Returns
        -------
        array of shape [n, d (1 + 2 K)]
            Each feature and K waves of it; the mean of products of two points' entries is k_0.
        """
        return self._embed(x, self._relative_scales(x))

    @partial(jax.jit, static_argnums=0)
    def _embed(self, x: jax.Array, scales: jax.Array) -> jax.Array:
        waves = _waves(float(self.frequency), float(self.limit))
        numbers_ = jnp.asarray(waves.wave_numbers, x.dtype)
        amplitudes = jnp.asarray(waves.amplitudes, x.dtype)
        phases = jnp.clip(x, -self.limit, self.limit)[..., None] * numbers_
        parts = [
            math.sqrt(self.linear) * x[..., None],
            amplitudes * jnp.cos(phases),
            amplitudes * jnp.sin(phases),
        ]
        features = scales[:, None] * jnp.concatenate(parts, axis=-1)
        flat = features.reshape(*x.shape[:-1], -1)
        return math.sqrt(flat.shape[-1]) * flat

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""
        if not self.network.has_dot_product_kernels:
            embedded = None if x2 is None else self.embed(x2)
            return self.network.kernel_block(self.embed(x1), embedded)
        scales = self._relative_scales(x1)
        x2 = x1 if x2 is None else x2
        moments = _moments(x1, x2, scales, self.frequency, self.linear, self.limit)
        return self.network.dot_product_kernels(*moments)

    def gradients(
        self, x: jax.Array, points: jax.Array, alpha: jax.Array, scales: jax.Array
    ) -> jax.Array:
        """Gradients [m, d, C] of a function of the kernel, with other scales: see the base class.

        By the chain rule through distances and lengths, which a feature enters by itself.
        """
        if not self.network.has_dot_product_kernels:
            return super().gradients(x, points, alpha, scales)
        scales = scales / jnp.linalg.norm(scales)
        shape = self.frequency, self.linear, self.limit
        s1 = _lengths(x, scales, self.linear)[:, None]
        s2 = _lengths(points, scales, self.linear)[None]
        squared = _squared_distances(x, points, scales, *shape)

        def ntk(squared: jax.Array, s1: jax.Array) -> jax.Array:
            return self.network.dot_product_kernels(s1, s2, _complement(squared, s1, s2)).ntk

        at, still = (squared, s1), (jnp.zeros_like(squared), jnp.zeros_like(s1))
        _, by_distance = jax.jvp(ntk, at, (jnp.ones_like(squared), still[1]))
        _, by_length = jax.jvp(ntk, at, (still[0], jnp.ones_like(s1)))

        def of_feature(feature: Any) -> jax.Array:
            a, b, scale = feature
            distance = partial(_squared_distance, b=b[None], shape=shape)
            _, slope = jax.jvp(lambda a: distance(a[:, None]), (a,), (jnp.ones_like(a),))
            return scale**2 * ((by_distance * slope) @ alpha)

        through_distance = lax.map(of_feature, (x.T, points.T, scales))
        length_slopes = self.linear * scales**2 * x / s1
        through_length = length_slopes[..., None] * (by_length @ alpha)[:, None]
        return jnp.moveaxis(through_distance, 0, 1) + through_length

    def _scaled_kernels(self, x1: jax.Array, x2: jax.Array, scales: jax.Array) -> Kernels:
        scales = scales / jnp.linalg.norm(scales)
        return self.network.kernel_block(self._embed(x1, scales), self._embed(x2, scales))

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        if not self.network.has_dot_product_kernels:
            return self.network.kernel_diag_block(self.embed(x))
        lengths, zeros = _own_moments(x, self._relative_scales(x), self.linear)
        kernels = self.network.dot_product_kernels(lengths, lengths, zeros)
        return Kernels(jnp.squeeze(kernels.nngp, 1), jnp.squeeze(kernels.ntk, 1))

    @own_rules()
    def tangent_kernel(
        self, params: Any, x1: jax.Array, x2: jax.Array | None = None, *, trace: bool = False
    ) -> jax.Array:
        """Tangent kernel of a finite network, that of the network behind the embedding."""
        embedded = None if x2 is None else self.embed(x2)
        return self.network.tangent_kernel(params.network, self.embed(x1), embedded, trace=trace)

    def _relative_scales(self, x: jax.Array) -> np.ndarray:
        """Scales whose squares sum to one: [d]."""
        d = x.shape[-1]
        if self.scales is not None and len(self.scales) != d:
            raise ValueError(
                f"scales has {len(self.scales)} entries; the points have {d} features."
            )
        scales = np.ones(d) if self.scales is None else np.asarray(self.scales)
        return np.asarray(scales / np.linalg.norm(scales), x.dtype)


def _lengths(x: jax.Array, scales: jax.Array, linear: jax.Array | float) -> jax.Array:
    """Root mean squares of embedded points: [n]."""
    return jnp.sqrt(linear * jnp.sum(jnp.square(scales * x), axis=1) + 1)


def _squared_distance(a: jax.Array, b: jax.Array, shape: tuple[Any, Any, Any]) -> jax.Array:
    """Squared distance of two values of one feature, embedded."""
    frequency, linear, limit = shape
    waves = jnp.clip(a, -limit, limit) - jnp.clip(b, -limit, limit)
    return linear * (a - b) ** 2 - 2 * jnp.expm1(-0.5 * (frequency * waves) ** 2)


def _squared_distances(
    x1: jax.Array,
    x2: jax.Array,
    scales: jax.Array,
    frequency: jax.Array | float,
    linear: jax.Array | float,
    limit: jax.Array | float,
) -> jax.Array:
    """Squared distances of embedded points: [n1, n2]."""

    def add(total: jax.Array, feature: Any) -> tuple[jax.Array, None]:
        a, b, scale = feature
        shape = frequency, linear, limit
        return total + scale**2 * _squared_distance(a[:, None], b[None], shape), None

    start = jnp.zeros((x1.shape[0], x2.shape[0]), x1.dtype)
    return lax.scan(add, start, (x1.T, x2.T, scales))[0]


def _complement(squared: jax.Array, s1: jax.Array, s2: jax.Array) -> jax.Array:
    """One minus the cosine, from squared distances and lengths."""
    return jnp.maximum(ratio(squared - (s1 - s2) ** 2, 2 * s1 * s2), 0.0)


@jax.jit
def _own_moments(x: jax.Array, scales: jax.Array, linear: float) -> tuple[jax.Array, jax.Array]:
    """Of each embedded point by itself: length, and one minus the cosine, which is zero: [n, 1]."""
    lengths = _lengths(x, scales, linear)[:, None]
    return lengths, jnp.zeros_like(lengths)


@jax.jit
def _moments(
    x1: jax.Array,
    x2: jax.Array,
    scales: jax.Array,
    frequency: float,
    linear: float,
    limit: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Lengths [n1, 1] and [1, n2] of embedded points, and one minus the cosine between them.

    From distances, feature by feature: between near points nothing cancels.
    """
    s1, s2 = _lengths(x1, scales, linear)[:, None], _lengths(x2, scales, linear)[None]
    squared = _squared_distances(x1, x2, scales, frequency, linear, limit)
    return s1, s2, _complement(squared, s1, s2)
