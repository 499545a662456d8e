"""One specification of an architecture: the finite Flax network and its infinite-width kernels.

An architecture makes Flax NNX modules (the finite network) and knows the covariance of its output over random
initialisations (NNGP kernel) and its neural tangent kernel (NTK) in the limit of infinite width. Both come from the
same object, so that finite and infinite ensembles cannot disagree about what network they mean.

Derivations: docs/theory, "Architectures and their kernels".
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from numpy.typing import ArrayLike

_TILE = 256  # rows of a kernel block: two float64 blocks fit a core's cache, and 256 x 256 hides the dispatch


class Kernels(NamedTuple):
    """NNGP kernel and NTK on the same pairs of points.

    Both are per output: with C outputs the kernels are these times the identity of size C.

    Attributes
    ----------
    nngp : array
        Covariance of the output at initialisation, [n1, n2]; its diagonal [n] from `kernel_diag`.
    ntk : array
        Inner product of the gradients with respect to the parameters, same shape.
    """

    nngp: Any
    ntk: Any


class ModuleFactory(Protocol):
    """What makes a network: ``module(in_features, out_features, rngs=rngs)`` is a Flax NNX module."""

    def __call__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one randomly initialised network."""


# --- Infinite width: closed forms -------------------------------------------------------------------------------------
#
# State of the recursion over layers, for a layer's inputs at a pair of points: the variances v1 [n1, 1] and v2 [1, n2],
# and gap = sqrt(v1 v2) - covariance. The gap and not the covariance, because an angle taken from a covariance is wrong
# by sqrt(machine epsilon) where two points nearly coincide.


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with value and derivative 0 at 0 and below."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """Quotient x / y, 0 where y is 0."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


@jax.custom_jvp
def _angle(h: jax.Array) -> jax.Array:
    """Angle with 1 - cos(angle) = h."""
    return jnp.arctan2(_safe_sqrt(h * (2 - h)), 1 - h)


@_angle.defjvp
def _angle_jvp(primals: Any, tangents: Any) -> Any:
    (h,), (dh,) = primals, tangents
    return _angle(h), _ratio(dh, _safe_sqrt(h * (2 - h)))


@jax.custom_jvp
def _angle_loss(h: jax.Array) -> jax.Array:
    """Value of sin(t) - t cos(t) at the angle t with 1 - cos(t) = h."""
    return _safe_sqrt(h * (2 - h)) - _angle(h) * (1 - h)


@_angle_loss.defjvp
def _angle_loss_jvp(primals: Any, tangents: Any) -> Any:
    (h,), (dh,) = primals, tangents
    return _angle_loss(h), _angle(h) * dh


class _Dual(NamedTuple):
    """What a layer of activations does to a pair's second moments, for preactivations (u1, u2) jointly Gaussian."""

    variance: Callable[[jax.Array], jax.Array]  # v -> E[a(u)^2]
    # (v1, v2, gap) -> gap of the activations, E[a'(u1) a'(u2)]
    pair: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _relu_pair(v1: jax.Array, v2: jax.Array, gap: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Arc-cosine kernels of order 1 and 0 (Cho & Saul 2009)."""
    norms = _safe_sqrt(v1) * _safe_sqrt(v2)
    h = jnp.clip(_ratio(gap, norms), 0, 2)
    return (gap - norms * _angle_loss(h) / jnp.pi) / 2, (1 - _angle(h) / jnp.pi) / 2


def _smooth(covariance: Callable[..., jax.Array], derivative: Callable[..., jax.Array]) -> _Dual:
    """Dual of an activation whose moments are smooth functions of (v1, v2, covariance c, determinant v1 v2 - c^2)."""

    def variance(v: jax.Array) -> jax.Array:
        return covariance(v, v, v, jnp.zeros_like(v))

    def pair(v1: jax.Array, v2: jax.Array, gap: jax.Array) -> tuple[jax.Array, jax.Array]:
        norms = _safe_sqrt(v1) * _safe_sqrt(v2)
        moments = v1, v2, norms - gap, gap * (2 * norms - gap)
        norms_out = _safe_sqrt(variance(v1)) * _safe_sqrt(variance(v2))
        return norms_out - covariance(*moments), derivative(*moments)

    return _Dual(variance, pair)


def _erf_covariance(v1: jax.Array, v2: jax.Array, c: jax.Array, det: jax.Array) -> jax.Array:
    """Arcsine kernel (Williams 1997)."""
    return 2 / jnp.pi * jnp.arctan2(2 * c, jnp.sqrt(1 + 2 * (v1 + v2) + 4 * det))


def _erf_derivative(v1: jax.Array, v2: jax.Array, c: jax.Array, det: jax.Array) -> jax.Array:
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * (v1 + v2) + 4 * det)


def _gelu_covariance(v1: jax.Array, v2: jax.Array, c: jax.Array, det: jax.Array) -> jax.Array:
    """Tsuchida et al. 2020, for the exact GELU u Phi(u)."""
    d = 1 + v1 + v2 + det
    root = jnp.sqrt(d)
    smooth_part = (c * c + v1 * v2 * d) / ((1 + v1) * (1 + v2) * root)
    return c / 4 + (c * jnp.arctan2(c, root) + smooth_part) / (2 * jnp.pi)


def _gelu_derivative(v1: jax.Array, v2: jax.Array, c: jax.Array, det: jax.Array) -> jax.Array:
    d = 1 + v1 + v2 + det
    root = jnp.sqrt(d)
    smooth_part = c / root * (1 + 1 / d + (1 - v1 * v2) / ((1 + v1) * (1 + v2)))
    return 1 / 4 + (jnp.arctan2(c, root) + smooth_part) / (2 * jnp.pi)


class _Activation(NamedTuple):
    function: Callable[[jax.Array], jax.Array]
    dual: _Dual


_ACTIVATIONS = {
    "relu": _Activation(jax.nn.relu, _Dual(lambda v: v / 2, _relu_pair)),
    "erf": _Activation(lax.erf, _smooth(_erf_covariance, _erf_derivative)),
    "gelu": _Activation(
        partial(jax.nn.gelu, approximate=False), _smooth(_gelu_covariance, _gelu_derivative)
    ),
}


def _unit_rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean square of each row [n], and the rows scaled to length 1 (rows of zeros stay) [n, d]."""
    squares = jnp.sum(x * x, axis=1)
    return squares / x.shape[1], x * _ratio(1.0, _safe_sqrt(squares))[:, None]


def _cosine_gap(u1: jax.Array, u2: jax.Array, same: bool) -> jax.Array:
    """One minus the cosine between unit vectors, [n1, n2], right to rounding for nearly equal ones too."""
    h = 1 - jnp.matmul(u1, u2.T, precision=lax.Precision.HIGHEST)
    if same:
        h = jnp.where(jnp.eye(len(u1), dtype=bool), 0, h)
        distinct = ~jnp.eye(len(u1), dtype=bool)
    else:
        distinct = jnp.ones(h.shape, bool)
    # Cancellation leaves an error eps in h, so eps / angle in the angle: from differences where that is large.
    close = distinct & (h < math.sqrt(jnp.finfo(h.dtype).eps))
    exact = lax.cond(
        jnp.any(close),
        lambda: jnp.where(close, jnp.sum((u1[:, None] - u2[None]) ** 2, axis=-1) / 2, h),
        lambda: h,
    )
    return h + lax.stop_gradient(exact - h)


def mlp_kernels(
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    w_std: ArrayLike,
    b_std: ArrayLike,
    depth: int,
    activation: str,
) -> Kernels:
    """Kernels of an infinitely wide fully connected network, as a pure JAX function.

    Differentiable in the points and in `w_std` and `b_std` (also where points coincide), and as precise as the dtype of
    the points allows: the error of an angle between nearly coincident points is of the order of machine epsilon, not
    its square root.

    Parameters
    ----------
    x1 : array of shape [n1, d]
        Points.
    x2 : array of shape [n2, d], optional
        Points; `x1` where left out, which is exact on the diagonal.
    w_std, b_std : float
        Scales of weights and biases, in every layer.
    depth : int
        Number of hidden layers.
    activation : {"relu", "erf", "gelu"}
        Activation function.

    Returns
    -------
    Kernels
        Blocks of shape [n1, n2].

    References
    ----------
    Jacot, Gabriel & Hongler 2018, arXiv 1806.07572 (NTK); Lee et al. 2018, arXiv 1711.00165 (NNGP); Cho & Saul 2009
    (relu); Williams 1997 (erf); Tsuchida et al. 2020, arXiv 2002.08517 (gelu).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> kernels = mlp_kernels(x, w_std=2**0.5, b_std=0.0, depth=1, activation="relu")
    >>> print(kernels.ntk.round(3))
    [[2.    0.318]
     [0.318 2.   ]]
    """
    dual = _ACTIVATIONS[activation].dual
    w2, b2 = jnp.square(w_std), jnp.square(b_std)
    same = x2 is None
    v1, u1 = _unit_rows(x1)
    v2, u2 = (v1, u1) if x2 is None else _unit_rows(x2)
    v1, v2 = v1[:, None], v2[None, :]
    gap = _safe_sqrt(v1) * _safe_sqrt(v2) * _cosine_gap(u1, u2, same)

    def affine(v1: Any, v2: Any, gap: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Moments of w_std / sqrt(fan_in) W a + b_std b, from those of a."""
        root1, root2 = _safe_sqrt(v1), _safe_sqrt(v2)
        out1, out2 = w2 * v1 + b2, w2 * v2 + b2
        norms_out = _safe_sqrt(out1) * _safe_sqrt(out2)
        # sqrt(out1 out2) - (w2 sqrt(v1 v2) + b2), free of cancellation
        bias_gap = _ratio(w2 * b2 * (root1 - root2) ** 2, norms_out + w2 * root1 * root2 + b2)
        return out1, out2, w2 * gap + bias_gap

    def covariance(v1: Any, v2: Any, gap: jax.Array) -> jax.Array:
        return _safe_sqrt(v1) * _safe_sqrt(v2) - gap

    v1, v2, gap = affine(v1, v2, gap)
    ntk = covariance(v1, v2, gap)
    for _ in range(depth):
        gap, derivative = dual.pair(v1, v2, gap)
        v1, v2, gap = affine(dual.variance(v1), dual.variance(v2), gap)
        ntk = w2 * derivative * ntk + covariance(v1, v2, gap)
    return Kernels(covariance(v1, v2, gap), ntk)


def mlp_kernel_diag(
    x: jax.Array, *, w_std: ArrayLike, b_std: ArrayLike, depth: int, activation: str
) -> Kernels:
    """Diagonals of `mlp_kernels`, [n] each, in time proportional to n. Parameters as there."""
    dual = _ACTIVATIONS[activation].dual
    w2, b2 = jnp.square(w_std), jnp.square(b_std)
    nngp = w2 * jnp.mean(x * x, axis=1) + b2
    ntk = nngp
    for _ in range(depth):
        _, derivative = dual.pair(nngp, nngp, jnp.zeros_like(nngp))
        nngp = w2 * dual.variance(nngp) + b2
        ntk = w2 * derivative * ntk + nngp
    return Kernels(nngp, ntk)


_mlp_kernels = jax.jit(mlp_kernels, static_argnames=("depth", "activation"))
_mlp_kernel_diag = jax.jit(mlp_kernel_diag, static_argnames=("depth", "activation"))


# --- Architectures ----------------------------------------------------------------------------------------------------


class BaseArchitecture(abc.ABC):
    """What every architecture offers: networks of finite width, and kernels of infinite width."""

    module: ModuleFactory

    @abc.abstractmethod
    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the dtype of the points; `x2` left out: of `x1` with itself."""

    @abc.abstractmethod
    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the dtype of the points."""

    def init(self, key: jax.Array, in_features: int, out_features: int) -> nnx.Module:
        """Draw the parameters of one network.

        Parameters
        ----------
        key : PRNG key
            Decides every parameter; ``jax.vmap`` over keys gives an ensemble.
        in_features, out_features : int
            Number of inputs d and outputs C.

        Returns
        -------
        nnx.Module
            The network itself. Flax modules are pytrees: its leaves are the parameters, and gradients, optimizers and
            ``jax.vmap`` treat it as they treat a dict of arrays.

        Raises
        ------
        ValueError
            If the module holds anything but parameters (batch statistics, dropout's random state).
        """
        module = self.module(in_features, out_features, rngs=nnx.Rngs(key))
        _, _, rest = nnx.split(module, nnx.Param, ...)
        kinds = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(rest)})
        if kinds:
            raise ValueError(
                f"{type(module).__name__} holds state besides its parameters ({', '.join(kinds)}), as batch "
                "normalisation and dropout do. The theory is about functions of parameters and one input: a network "
                "whose output depends on the rest of the batch or on fresh noise has no fixed tangent kernel. "
                "Take these layers out."
            )
        return module

    def apply(self, params: nnx.Module, x: jax.Array) -> jax.Array:
        """Outputs (logits) [n, C] of the network `params` at the points `x` [n, d]."""
        return params(x)  # type: ignore[operator]

    def kernels(self, X1: ArrayLike, X2: ArrayLike | None = None) -> Kernels:
        """NNGP kernel and NTK of the infinitely wide network, in float64 whatever JAX's configuration.

        Parameters
        ----------
        X1 : array of shape [n1, d]
            Points.
        X2 : array of shape [n2, d], optional
            Points. Left out: `X1` with itself, each pair computed once, and exactly symmetric.

        Returns
        -------
        Kernels
            NumPy float64 blocks ``.nngp`` and ``.ntk`` of shape [n1, n2].

        Raises
        ------
        ValueError
            If an array is not two-dimensional, empty, not finite, or the numbers of features differ.
        """
        rows = _as_points(X1, "X1")
        columns = rows if X2 is None else _as_points(X2, "X2")
        if rows.shape[1:] != columns.shape[1:]:
            raise ValueError(
                f"X1 and X2 must have the same features: X1 has shape {rows.shape}, X2 {columns.shape}. "
                "Rows are points, columns are features."
            )
        blocks = Kernels(*(np.empty((len(rows), len(columns))) for _ in Kernels._fields))
        with jax.enable_x64(True):
            for i in range(0, len(rows), _TILE):
                for j in range(0 if X2 is not None else i, len(columns), _TILE):
                    own = X2 is None and i == j
                    tile = self.kernel_block(_tile(rows, i), None if own else _tile(columns, j))
                    for block, values in zip(blocks, tile, strict=True):
                        target = block[i : i + _TILE, j : j + _TILE]
                        target[...] = np.asarray(values)[: target.shape[0], : target.shape[1]]
                        if own:
                            target[...] = (target + target.T) / 2
                        elif X2 is None:
                            block[j : j + _TILE, i : i + _TILE] = target.T
        return blocks

    def kernel_diag(self, X: ArrayLike) -> Kernels:
        """Diagonals of ``kernels(X)``, NumPy float64 of shape [n], in time and memory proportional to n.

        Parameters
        ----------
        X : array of shape [n, d]
            Points.

        Returns
        -------
        Kernels
            Prior variance ``.nngp`` and squared gradient norm ``.ntk`` at each point.
        """
        points = _as_points(X, "X")
        with jax.enable_x64(True):
            tiles = [self.kernel_diag_block(_tile(points, i)) for i in range(0, len(points), _TILE)]
        return Kernels(
            *(
                np.concatenate([np.asarray(getattr(tile, name)) for tile in tiles])[: len(points)]
                for name in Kernels._fields
            )
        )


def _as_points(X: ArrayLike, name: str) -> np.ndarray:
    try:
        points = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be a numeric array of shape [n, d]; it has {error}. "
            "Encode text and categories as numbers first."
        ) from error
    if points.ndim != 2:
        raise ValueError(
            f"{name} must be two-dimensional, [points, features]; its shape is {points.shape}. "
            "For a single feature use X.reshape(-1, 1), for a single point X.reshape(1, -1)."
        )
    if 0 in points.shape:
        raise ValueError(f"{name} is empty: its shape is {points.shape}.")
    if not np.isfinite(points).all():
        raise ValueError(
            f"{name} contains NaN or infinite values. Impute or drop those rows first."
        )
    return points


def _tile(points: np.ndarray, start: int) -> jax.Array:
    """Rows from `start`, filled up with zeros to one shape, so that JAX compiles once."""
    rows = points[start : start + _TILE]
    return jnp.asarray(np.pad(rows, [(0, _TILE - len(rows)), (0, 0)]))


class _Dense(nnx.Module):
    """Linear layer in NTK parameterisation: w_std / sqrt(fan_in) W x + b_std b with W, b ~ N(0, 1)."""

    def __init__(
        self, in_features: int, out_features: int, w_std: float, b_std: float, *, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jax.random.normal(rngs.params(), (out_features,)))
        self.w_scale = w_std / math.sqrt(in_features)
        self.b_scale = b_std

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.w_scale * (x @ self.kernel[...]) + self.b_scale * self.bias[...]


class _FullyConnected(nnx.Module):
    def __init__(
        self, sizes: list[int], activation: str, w_std: float, b_std: float, *, rngs: nnx.Rngs
    ):
        self.layers = nnx.List(
            _Dense(fan_in, fan_out, w_std, b_std, rngs=rngs)
            for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        *hidden, readout = self.layers
        for layer in hidden:
            x = _ACTIVATIONS[self.activation].function(layer(x))
        return readout(x)


@dataclass(frozen=True)
class MLP(BaseArchitecture):
    """Fully connected network in NTK parameterisation.

    Every weight and bias is N(0, 1) at initialisation; a layer computes ``w_std / sqrt(fan_in) W x + b_std b``, the
    first and the read-out included.

    Parameters
    ----------
    width : int, default 512
        Units in each hidden layer. The kernels are those of the limit and do not depend on it.
    depth : int, default 2
        Hidden layers. 0 gives a linear model.
    activation : {"relu", "erf", "gelu"}, default "relu"
        Activation function; gelu is the exact one, not its tanh approximation.
    w_std : float, default sqrt(2)
        Scale of the weights, > 0. sqrt(2) keeps the variance of a relu network from layer to layer.
    b_std : float, default 0.3
        Scale of the biases, >= 0.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the activation is not known.

    Examples
    --------
    >>> import jax, numpy as np
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

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("depth", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ValueError(f"{name} must be an integer; got {value!r}.")
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}.")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(
                f"Unknown activation {self.activation!r}: choose one of {', '.join(_ACTIVATIONS)}."
            )
        if not 0 < self.w_std < math.inf:
            raise ValueError(f"w_std must be positive and finite; got {self.w_std}.")
        if not 0 <= self.b_std < math.inf:
            raise ValueError(f"b_std must be finite and not negative; got {self.b_std}.")

    def module(self, in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one randomly initialised Flax network."""
        sizes = [in_features, *[self.width] * self.depth, out_features]
        return _FullyConnected(sizes, self.activation, self.w_std, self.b_std, rngs=rngs)

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the dtype of the points; `x2` left out: of `x1` with itself."""
        return _mlp_kernels(
            x1, x2, w_std=self.w_std, b_std=self.b_std, depth=self.depth, activation=self.activation
        )

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the dtype of the points."""
        return _mlp_kernel_diag(
            x, w_std=self.w_std, b_std=self.b_std, depth=self.depth, activation=self.activation
        )


@dataclass(frozen=True)
class Architecture(BaseArchitecture):
    """Any Flax NNX module, with the infinite-width kernel of neural-tangents that belongs to it.

    Parameters
    ----------
    module : callable
        ``module(in_features, out_features, rngs=rngs)`` builds the network, in its own parameterisation. A class
        derived from ``nnx.Module`` with that signature will do.
    kernel_fn : callable, optional
        The ``kernel_fn`` of a ``neural_tangents.stax`` network: ``kernel_fn(x1, x2, ("nngp", "ntk"))``.

    Examples
    --------
    >>> from flax import nnx
    >>> import jax
    >>> net = Architecture(nnx.Linear)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=3)
    """

    module: ModuleFactory
    kernel_fn: Callable[..., Any] | None = None

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the dtype of the points; `x2` left out: of `x1` with itself."""
        return _stax_kernels(self._kernel_fn(), x1, x2)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the dtype of the points."""
        return _stax_kernel_diag(self._kernel_fn(), x)

    def _kernel_fn(self) -> Callable[..., Any]:
        if self.kernel_fn is None:
            raise ValueError(
                "This architecture has no infinite-width kernel. Give Architecture a kernel_fn (that of the "
                "neural_tangents.stax network with the same layers), or use MLP, or stay with finite ensembles."
            )
        return self.kernel_fn


@partial(jax.jit, static_argnums=0)
def _stax_kernels(
    kernel_fn: Callable[..., Any], x1: jax.Array, x2: jax.Array | None = None
) -> Kernels:
    return Kernels(*kernel_fn(x1, x2, ("nngp", "ntk")))


@partial(jax.jit, static_argnums=0)
def _stax_kernel_diag(kernel_fn: Callable[..., Any], x: jax.Array) -> Kernels:
    pairs = jax.vmap(lambda row: Kernels(*kernel_fn(row[None], None, ("nngp", "ntk"))))(x)
    return Kernels(*(values[:, 0, 0] for values in pairs))
