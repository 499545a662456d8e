"""One specification of an architecture: the finite Flax network and its infinite-width kernels.

An architecture makes Flax NNX modules (the finite network) and knows the covariance of its output
over random initialisations (NNGP kernel) and its neural tangent kernel (NTK) in the limit of
infinite width. Both come from one object, so that finite and infinite ensembles cannot disagree
about which network they mean.

Derivations: docs/theory, "Architectures and their kernels".
"""

import abc
import functools
import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from numpy.typing import ArrayLike

from ntk_uq import _checks
from ntk_uq._progress import Progress
from ntk_uq._rules import own_rules

# Covariances between all positions of two images, of the pairs in a block.
_TILE_BYTES = 2**26
_TILE = 256  # Rows of a kernel block: some float64 blocks fit a core's cache, dispatch is hidden.


class Kernels(NamedTuple):
    """NNGP kernel and NTK on the same pairs of points.

    Both are per output: with C outputs the kernels are these times the identity of size C.

    Attributes
    ----------
    nngp : array
        Covariance of the output at initialisation, [n1, n2]; its diagonal [n] from `kernel_diag`.
    ntk : array
        Inner product of the gradients with respect to the parameters, same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP
    >>> nngp, ntk = MLP(depth=1).kernels(np.array([[1.0], [2.0], [3.0]]))
    >>> nngp.shape, bool(np.all(ntk.diagonal() > nngp.diagonal()))
    ((3, 3), True)
    """

    nngp: Any
    ntk: Any


class ModuleFactory(Protocol):
    """What makes a network: ``module(in_features, out_features, rngs=rngs)``, a Flax NNX module.

    `in_features` is the number of features, or the shape (h, w, c) of an image.
    """

    def __call__(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one randomly initialised network."""


# Infinite width, closed forms. The recursion over layers carries, for two centred Gaussian
# variables (a unit's inputs at two points), their standard deviations s1 [n1, 1] and s2 [1, n2],
# and the complement h = 1 - correlation: not the correlation, because an angle taken from that is
# wrong by the square root of machine epsilon where two points nearly coincide.


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with value and derivative 0 at 0 and below."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _ratio(x: jax.Array | float, y: jax.Array) -> jax.Array:
    """Quotient x / y, 0 where y is 0."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


def _fit_arc() -> list[float]:
    """Coefficients, in powers of 2h - 1, of angle / sqrt(2h) for 0 <= h = 1 - cos(angle) <= 1.

    The function is analytic up to h = 2, so that degree 18 reaches rounding (4e-16): an arc cosine
    that vectorises, at a tenth of the time of the library's.
    """
    h = (1 - np.cos(np.pi * (np.arange(200) + 0.5) / 200)) / 2
    root = np.sqrt(h / 2)
    fit = np.polynomial.Chebyshev.fit(h, np.arcsin(root) / root, 18, domain=[0, 1])
    return np.polynomial.chebyshev.cheb2poly(fit.coef).tolist()


_ARC = _fit_arc()


@jax.custom_jvp
def _angle_and_loss(h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Angle t with 1 - cos(t) = h, and sin(t) - t cos(t)."""
    acute = jnp.minimum(h, 2 - h)
    series = jnp.full_like(h, _ARC[-1])
    for coefficient in reversed(_ARC[:-1]):
        series = series * (2 * acute - 1) + coefficient
    arc = _safe_sqrt(2 * acute) * series
    # Computed once: without the barrier XLA fuses the series into everything that uses it.
    angle = lax.optimization_barrier(jnp.where(h > 1, jnp.pi - arc, arc))
    return angle, _safe_sqrt(h * (2 - h)) - angle * (1 - h)


@_angle_and_loss.defjvp
def _angle_and_loss_jvp(primals: Any, tangents: Any) -> Any:
    (h,), (dh,) = primals, tangents
    angle, loss = _angle_and_loss(h)
    return (angle, loss), (_ratio(dh, _safe_sqrt(h * (2 - h))), angle * dh)


class _Dual(NamedTuple):
    """What an activation a does to a pair (u1, u2) of centred Gaussian variables.

    spread : s -> root mean square of a(u) for u of standard deviation s.
    pair : (s1, s2, h) -> the complement for a(u1), a(u2); and E[a'(u1) a'(u2)].
    """

    spread: Callable[[jax.Array], jax.Array]
    pair: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _relu_pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Arc-cosine kernels of order 1 and 0 (Cho & Saul 2009)."""
    angle, loss = _angle_and_loss(h)
    return h - loss / jnp.pi, (1 - angle / jnp.pi) / 2


def _smooth(
    product: Callable[..., jax.Array], derivative_product: Callable[..., jax.Array]
) -> _Dual:
    """Dual of an activation whose moments are smooth in (v1, v2, c, d).

    These are the variances, the covariance, and the determinant v1 v2 - c^2.
    """

    def spread(s: jax.Array) -> jax.Array:
        v = s * s
        return _safe_sqrt(product(v, v, v, jnp.zeros_like(v)))

    def pair(s1: jax.Array, s2: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        moments = s1 * s1, s2 * s2, s1 * s2 * (1 - h), (s1 * s2) ** 2 * h * (2 - h)
        correlation = product(*moments) * _ratio(1, spread(s1)) * _ratio(1, spread(s2))
        return 1 - correlation, derivative_product(*moments)

    return _Dual(spread, pair)


def _arcsine(x: jax.Array) -> jax.Array:
    angle, _ = _angle_and_loss(1 - x)
    return jnp.pi / 2 - angle


def _erf_product(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Arcsine kernel (Williams 1997)."""
    return 2 / jnp.pi * _arcsine(2 * c / jnp.sqrt((1 + 2 * v1) * (1 + 2 * v2)))


def _erf_derivative(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * (v1 + v2) + 4 * d)


def _gelu_product(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    """Tsuchida et al. 2020, for u Phi(u) with the normal distribution function Phi."""
    both, det = (1 + v1) * (1 + v2), 1 + v1 + v2 + d
    smooth_part = (c * c + v1 * v2 * det) / (both * jnp.sqrt(det))
    return c / 4 + (c * _arcsine(c / jnp.sqrt(both)) + smooth_part) / (2 * jnp.pi)


def _gelu_derivative(v1: jax.Array, v2: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    both, det = (1 + v1) * (1 + v2), 1 + v1 + v2 + d
    smooth_part = c / jnp.sqrt(det) * (1 + 1 / det + (1 - v1 * v2) / both)
    return 1 / 4 + (_arcsine(c / jnp.sqrt(both)) + smooth_part) / (2 * jnp.pi)


class _Activation(NamedTuple):
    function: Callable[[jax.Array], jax.Array]
    dual: _Dual


_ACTIVATIONS = {
    "relu": _Activation(jax.nn.relu, _Dual(lambda s: s / math.sqrt(2), _relu_pair)),
    "erf": _Activation(lax.erf, _smooth(_erf_product, _erf_derivative)),
    "gelu": _Activation(
        functools.partial(jax.nn.gelu, approximate=False), _smooth(_gelu_product, _gelu_derivative)
    ),
}


def _lengths_and_directions(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Euclidean norm of each row [n], and the rows scaled to norm 1 [n, d] (zeros stay)."""
    norms = _safe_sqrt(jnp.sum(x * x, axis=1))
    return norms, _ratio(x, norms[:, None])


def _complement(u1: jax.Array, u2: jax.Array, same: bool) -> jax.Array:
    """One minus the cosine of the angle between unit vectors, [n1, n2]."""
    off_diagonal = ~jnp.eye(len(u1), dtype=bool) if same else True
    h = jnp.where(off_diagonal, 1 - jnp.matmul(u1, u2.T, precision=lax.Precision.HIGHEST), 0)
    # Cancellation leaves an error eps in h, which is eps / angle in the angle. So where the angle
    # is small take h from differences; its derivative is right to rounding either way.
    close = off_diagonal & (h < math.sqrt(jnp.finfo(h.dtype).eps))
    corrected = lax.cond(
        jnp.any(close),
        lambda: jnp.where(close, jnp.sum((u1[:, None] - u2[None]) ** 2, axis=-1) / 2, h),
        lambda: h,
    )
    return h + lax.stop_gradient(corrected - h)


@functools.partial(jax.jit, static_argnames=("depth", "activation", "residual"))
def mlp_kernels(
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    w_std: jax.Array | float,
    b_std: jax.Array | float,
    depth: int,
    activation: str,
    residual: bool = False,
) -> Kernels:
    """Kernels of an infinitely wide fully connected network, as a pure JAX function.

    Differentiable in the points, `w_std` and `b_std`, also where points coincide, and as precise
    as the dtype of the points allows: the error of the angle between nearly coincident points is
    of the order of machine epsilon, not of its square root. (Of that order it is for points x and
    nearly -x without biases.)

    Parameters
    ----------
    x1 : array of shape [n1, d]
        Points.
    x2 : array of shape [n2, d], optional
        Points. Left out: those of `x1`.
    w_std, b_std : float
        Scales of weights and biases, in every layer.
    depth : int
        Number of hidden layers.
    activation : {"relu", "erf", "gelu"}
        Activation function.
    residual : bool
        Whether hidden layers after the first are added to their input.

    Returns
    -------
    Kernels
        Blocks of shape [n1, n2].

    References
    ----------
    Jacot, Gabriel & Hongler 2018, arXiv 1806.07572 (NTK); Lee et al. 2018, arXiv 1711.00165
    (NNGP); Cho & Saul 2009 (relu); Williams 1997 (erf); Tsuchida et al. 2020, arXiv 2002.08517
    (gelu).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> kernels = mlp_kernels(x, w_std=2**0.5, b_std=0.0, depth=1, activation="relu")
    >>> print(jnp.round(100 * kernels.ntk))
    [[200.  32.]
     [ 32. 200.]]
    """
    dual = _ACTIVATIONS[activation].dual
    norms1, u1 = _lengths_and_directions(x1)
    norms2, u2 = (norms1, u1) if x2 is None else _lengths_and_directions(x2)
    root_mean_square = 1 / math.sqrt(x1.shape[1])
    s1, s2 = norms1[:, None] * root_mean_square, norms2[None, :] * root_mean_square
    h = _complement(u1, u2, x2 is None)
    s1, s2, h = _affine(s1, s2, h, w_std, b_std)
    ntk = s1 * s2 * (1 - h)
    for layer in range(1, depth + 1):
        skipped = s1, s2, h, ntk
        h, derivative = dual.pair(s1, s2, h)
        s1, s2, h = _affine(dual.spread(s1), dual.spread(s2), h, w_std, b_std)
        ntk = w_std**2 * derivative * ntk + s1 * s2 * (1 - h)
        if residual and layer < depth:  # all but the read-out
            *skipped_moments, skipped_ntk = skipped
            s1, s2, h = _sum(skipped_moments, (s1, s2, h))
            ntk = skipped_ntk + ntk
    return Kernels(s1 * s2 * (1 - h), ntk)


def _affine(
    s1: jax.Array, s2: jax.Array, h: jax.Array, w_std: jax.Array | float, b_std: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moments after a linear layer with random weights and biases, from those before it.

    The bias is one more coordinate: it turns unit vectors u into (p u, q) with p^2 + q^2 = 1.
    """

    def coordinates(s: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        out = _safe_sqrt((w_std * s) ** 2 + b_std**2)
        return lax.optimization_barrier((out, _ratio(w_std * s, out), _ratio(b_std, out)))

    (out1, p1, q1), (out2, p2, q2) = coordinates(s1), coordinates(s2)
    h = p1 * p2 * h + ((p1 - p2) ** 2 + (q1 - q2) ** 2) / 2
    return out1, out2, lax.optimization_barrier(h)


def _sum(a: Any, b: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moments of the sum of two independent variables, as of unit vectors laid end to end."""

    def shares(sa: jax.Array, sb: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        out = _safe_sqrt(sa**2 + sb**2)
        return lax.optimization_barrier((out, _ratio(sa, out), _ratio(sb, out)))

    (a1, a2, ha), (b1, b2, hb) = a, b
    (out1, p1, q1), (out2, p2, q2) = shares(a1, b1), shares(a2, b2)
    h = p1 * p2 * ha + q1 * q2 * hb + ((p1 - p2) ** 2 + (q1 - q2) ** 2) / 2
    return out1, out2, lax.optimization_barrier(h)


@functools.partial(jax.jit, static_argnames=("depth", "activation", "residual"))
def mlp_kernel_diag(
    x: jax.Array,
    *,
    w_std: jax.Array | float,
    b_std: jax.Array | float,
    depth: int,
    activation: str,
    residual: bool = False,
) -> Kernels:
    """Diagonals of `mlp_kernels`, [n] each, in time proportional to n. Parameters as there."""
    kernels = functools.partial(
        mlp_kernels,
        w_std=w_std,
        b_std=b_std,
        depth=depth,
        activation=activation,
        residual=residual,
    )
    return Kernels(*(values[:, 0, 0] for values in jax.vmap(kernels)(x[:, None])))


def standard_normal_like(key: jax.Array, tree: Any) -> Any:
    """Independent standard normal numbers in the shapes of a pytree.

    One call of the generator for all leaves: each would take a third of a second to compile.
    """
    leaves, structure = jax.tree.flatten(tree)
    sizes = np.array([math.prod(leaf.shape) for leaf in leaves])
    numbers = jax.random.normal(key, (sizes.sum(),), jnp.result_type(*leaves))
    parts = jnp.split(numbers, np.cumsum(sizes)[:-1])
    return jax.tree.unflatten(
        structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    )


class BaseArchitecture(abc.ABC):
    """What every architecture offers: networks of finite width, and kernels of infinite width.

    An architecture never changes: compiled programs and fitted estimators know it by its value. So
    scikit-learn's tools see its parameters, and where they set one, the estimator that holds it
    takes another: ``clf.set_params(architecture__width=64)``.
    """

    module: ModuleFactory
    ndim: ClassVar[int | None] = 2  # axes of the points: 2 for tables, 4 for images, None for both
    # Whether every parameter starts as N(0, 1), as the NTK parameterisation has it.
    _standard_normal: ClassVar[bool] = True

    def tile_rows(self, point: np.ndarray) -> int:
        """Points on a side of a kernel's block that is computed at once."""
        return _TILE

    @abc.abstractmethod
    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""

    @abc.abstractmethod
    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""

    @own_rules()
    def init(self, key: jax.Array, in_features: Any, out_features: int) -> nnx.Module:
        """Draw the parameters of one network.

        Parameters
        ----------
        key : PRNG key
            Decides every parameter; ``jax.vmap`` over keys gives an ensemble.
        in_features, out_features : int
            Number of inputs d and of outputs C; for images [h, w, c] `in_features` is this shape.

        Returns
        -------
        nnx.Module
            The network itself. A Flax module is a pytree: its leaves are the parameters, and
            gradients, optimizers and ``jax.vmap`` take it as they take a dict of arrays.

        Raises
        ------
        ValueError
            If the module holds state besides its parameters, as batch normalisation and dropout do.
        """
        if self._standard_normal:
            return standard_normal_like(
                key,
                jax.eval_shape(lambda: self.module(in_features, out_features, rngs=nnx.Rngs(0))),
            )
        module = self.module(in_features, out_features, rngs=nnx.Rngs(key))
        if not isinstance(module, nnx.Module):
            raise ValueError(
                "module(in_features, out_features, rngs=rngs) must return a flax.nnx.Module; it "
                f"returned {type(module).__name__}."
            )
        other_state = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.Param)))
        kinds = sorted({type(variable).__name__ for _, variable in other_state})
        if kinds:
            raise ValueError(
                f"{type(module).__name__} holds state besides its parameters ({', '.join(kinds)}), "
                "as batch normalisation and dropout do. An output that depends on the rest of the "
                "batch, or on fresh noise, is no function of parameters and input, and has no "
                "tangent kernel: take these layers out."
            )
        return module

    @own_rules()
    def apply(self, params: Any, x: ArrayLike) -> jax.Array:
        """Outputs (logits) [n, C] of the network `params` at the points `x` [n, d]."""
        return params(x)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name, as scikit-learn's tools ask for them.

        Parameters
        ----------
        deep : bool
            Makes no difference: no parameter has parameters of its own.

        Returns
        -------
        dict
            The fields of a dataclass, as all architectures of this package are; else empty.
        """
        if not is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}

    def set_params(self, **params: Any) -> Self:
        """Refused with any parameter: an architecture never changes.

        Raises
        ------
        TypeError
            Says what to use instead.
        """
        if params:
            name, value = next(iter(params.items()))
            raise TypeError(
                f"{self!r} cannot be changed: others may hold it, and compiled programs know it by "
                f"its value. Make another, dataclasses.replace(net, {name}={value!r}), or let the "
                f"estimator do it: estimator.set_params(architecture__{name}={value!r})."
            )
        return self

    def __sklearn_clone__(self) -> Self:
        # What never changes is its own copy, and keeps its compiled programs.
        return self

    @own_rules()
    def kernels(
        self, X1: ArrayLike, X2: ArrayLike | None = None, *, progress: Progress | None = None
    ) -> Kernels:
        """NNGP kernel and NTK of the infinitely wide network.

        Computed in float64 whatever JAX's configuration, block by block.

        Parameters
        ----------
        X1 : array of shape [n1, d], or images [n1, h, w, c]
            Points.
        X2 : array of shape [n2, d] or [n2, h, w, c], optional
            Points. Left out: those of `X1`; each pair is then computed once.
        progress : callable, optional
            ``progress(done, total)`` is told rows of blocks.

        Returns
        -------
        Kernels
            NumPy float64 arrays ``.nngp`` and ``.ntk`` of shape [n1, n2], exactly symmetric where
            `X2` is left out.

        Raises
        ------
        ValueError
            If an array is not numeric, of the right number of axes, non-empty and finite, or the
            points differ in shape.
        """
        rows = _as_points(X1, "X1", self.ndim)
        columns = rows if X2 is None else _as_points(X2, "X2", self.ndim)
        if rows.shape[1:] != columns.shape[1:]:
            sizes = [x.shape[1] if x.ndim == 2 else x.shape[1:] for x in (rows, columns)]
            raise ValueError(
                f"X1 has {sizes[0]} features, X2 has {sizes[1]}: points of one space "
                "are needed. Rows are points, columns are features."
            )
        size = self.tile_rows(rows[0])
        blocks = Kernels(*(np.empty((len(rows), len(columns))) for _ in Kernels._fields))
        with jax.enable_x64(True):
            for i in range(0, len(rows), size):
                for j in range(i if X2 is None else 0, len(columns), size):
                    diagonal = X2 is None and i == j
                    tile = self.kernel_block(
                        _tile(rows, i, size), None if diagonal else _tile(columns, j, size)
                    )
                    for block, values in zip(blocks, tile, strict=True):
                        target = block[i : i + size, j : j + size]
                        target[...] = np.asarray(values)[: target.shape[0], : target.shape[1]]
                        if diagonal:
                            target[...] = (target + target.T) / 2
                        elif X2 is None:
                            block[j : j + size, i : i + size] = target.T
                if progress is not None:
                    progress(i // size + 1, -(-len(rows) // size))
        return blocks

    @own_rules()
    def kernel_diag(self, X: ArrayLike) -> Kernels:
        """Diagonals of ``kernels(X)``, in time and memory proportional to n.

        Parameters
        ----------
        X : array of shape [n, d], or images [n, h, w, c]
            Points.

        Returns
        -------
        Kernels
            Prior variance ``.nngp`` and squared norm of the gradient ``.ntk`` at each point, NumPy
            float64 of shape [n].
        """
        points = _as_points(X, "X", self.ndim)
        size = self.tile_rows(points[0])
        diagonals = Kernels(*(np.empty(len(points)) for _ in Kernels._fields))
        with jax.enable_x64(True):
            for i in range(0, len(points), size):
                tile = self.kernel_diag_block(_tile(points, i, size))
                for diagonal, values in zip(diagonals, tile, strict=True):
                    target = diagonal[i : i + size]
                    target[...] = np.asarray(values)[: len(target)]
        return diagonals


def _as_points(X: ArrayLike, name: str, ndim: int | None) -> np.ndarray:
    """Numeric, finite points of `ndim` axes in all; None allows tables and images."""
    try:
        points = _checks.floats(X)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be a numeric array of shape [n, d], but {error}. "
            "Encode text and categories as numbers first, and give every row the same length."
        ) from error
    if ndim == 4 and points.ndim != 4:
        raise ValueError(
            f"{name} must be images, [points, height, width, channels]; its shape is "
            f"{points.shape}. Use X.reshape(n, height, width, channels), channels 1 for grey."
        )
    if points.ndim != ndim and not (ndim is None and points.ndim in (2, 4)):
        raise ValueError(
            f"{name} must be two-dimensional, [points, features]; its shape is {points.shape}. "
            "Use X.reshape(-1, 1) for a single feature, X.reshape(1, -1) for a single point."
        )
    if points.size == 0:
        raise ValueError(f"{name} is empty: its shape is {points.shape}.")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} contains NaN or infinite values: impute or drop those rows.")
    return points


def _tile(points: np.ndarray, start: int, size: int) -> jax.Array:
    """Rows from `start`, filled up with zeros to one shape, so that JAX compiles once."""
    rows = points[start : start + size]
    fill = [(0, size - len(rows)), *[(0, 0)] * (points.ndim - 1)]
    return jnp.asarray(np.pad(rows, fill))


def _along(bias: jax.Array, x: jax.Array) -> jax.Array:
    """A bias [units] with as many axes as x, whose last one it is."""
    return bias.reshape((1,) * (x.ndim - 1) + (-1,))


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


def _check_integers(architecture: Any, **least: int) -> None:
    for name, minimum in least.items():
        _checks.count(name, getattr(architecture, name), minimum)


def _check_layers(activation: str, w_std: float, b_std: float) -> None:
    if activation not in list(_ACTIVATIONS):
        raise ValueError(
            f"Unknown activation {activation!r}: choose one of {', '.join(_ACTIVATIONS)}, whose "
            "kernels are known. Any other can be trained in a Flax module of your own: "
            "Architecture(module)."
        )
    if not (isinstance(w_std, numbers.Real) and 0 < w_std < math.inf):
        raise ValueError(f"w_std must be a positive number; got {w_std!r}.")
    if not (isinstance(b_std, numbers.Real) and 0 <= b_std < math.inf):
        raise ValueError(f"b_std must be a number, at least 0; got {b_std!r}.")


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
        return self.w_scale * convolved + _along(self.b_scale * self.bias[...], x)


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
        self.readout = _Dense(positions * net.width, outputs, *scales, rngs=rngs)
        self.pooled = net.readout == "pool"
        self.activation = net.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = _ACTIVATIONS[self.activation].function(layer(x))
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
    activation : {"relu", "erf", "gelu"}, default "relu"
        Activation function; gelu is the exact one, not its tanh approximation.
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
    activation: str = "relu"
    w_std: float = 2**0.5
    b_std: float = 0.3
    ndim: ClassVar[int | None] = 4

    def __post_init__(self) -> None:
        _check_integers(self, width=1, depth=1, kernel_size=1)
        _check_layers(self.activation, self.w_std, self.b_std)
        if self.readout not in ("pool", "flatten"):
            raise ValueError(f'readout must be "pool" or "flatten"; got {self.readout!r}.')

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
        return _stax_kernels(_conv_kernel_fn(replace(self, width=1)), x1, x2)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        return _stax_kernel_diag(_conv_kernel_fn(replace(self, width=1)), x)

    def tile_rows(self, point: np.ndarray) -> int:
        """Points on a side of a kernel's block that is computed at once."""
        height, width, _ = point.shape
        positions = height * width
        pair_bytes = 8 * (positions**2 if self.readout == "pool" else positions)
        return int(np.clip(math.isqrt(_TILE_BYTES // pair_bytes), 1, _TILE))


@functools.lru_cache
def _conv_kernel_fn(net: ConvNet) -> Callable[..., Any]:
    from ntk_uq._neural_tangents import stax

    scales = {"W_std": net.w_std, "b_std": net.b_std}
    window = (net.kernel_size, net.kernel_size)
    activation = {"relu": stax.Relu, "erf": stax.Erf, "gelu": stax.Gelu}[net.activation]
    layers = [
        layer
        for _ in range(net.depth)
        for layer in (stax.Conv(1, window, padding="SAME", **scales), activation())
    ]
    pool = stax.GlobalAvgPool() if net.readout == "pool" else stax.Flatten()
    return stax.serial(*layers, pool, stax.Dense(1, **scales))[2]


@dataclass(frozen=True)
class Architecture(BaseArchitecture):
    """Any Flax NNX module, with the infinite-width kernel that belongs to it.

    Parameters
    ----------
    module : callable
        ``module(in_features, out_features, rngs=rngs)`` builds the network, in its own
        parameterisation; a subclass of ``nnx.Module`` with that signature will do.
    kernel_fn : callable, optional
        The ``kernel_fn`` of a network with the same layers from ``ntk_uq.stax``, which is
        neural-tangents' module made to import on a current JAX. Without it there are finite
        networks only, and `kernels` raises a ValueError.

    Raises
    ------
    ValueError
        If `module` is a network and not what makes one, or `kernel_fn` cannot be called.

    Examples
    --------
    >>> import jax
    >>> from flax import nnx
    >>> net = Architecture(nnx.Linear)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=3)
    >>> net.apply(params, jax.numpy.ones((5, 2))).shape
    (5, 3)
    """

    module: ModuleFactory
    kernel_fn: Callable[..., Any] | None = None
    ndim: ClassVar[int | None] = None
    _standard_normal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.module, nnx.Module) or not callable(self.module):
            raise ValueError(
                "module must be a function or class that builds a network, called as "
                f"module(in_features, out_features, rngs=rngs); got {type(self.module).__name__}. "
                "An ensemble builds many networks: pass the class, not an instance."
            )
        if not (self.kernel_fn is None or callable(self.kernel_fn)):
            raise ValueError(
                "kernel_fn must be the third function of a neural_tangents.stax network; got "
                f"{type(self.kernel_fn).__name__}."
            )

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""
        return _stax_kernels(self._known_kernel_fn(), x1, x2)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        return _stax_kernel_diag(self._known_kernel_fn(), x)

    def _known_kernel_fn(self) -> Callable[..., Any]:
        if self.kernel_fn is None:
            raise ValueError(
                "This architecture has no infinite-width kernel. Give Architecture the kernel_fn "
                "of a neural_tangents.stax network with the same layers, or use MLP."
            )
        return self.kernel_fn


@functools.partial(jax.jit, static_argnums=0)
def _stax_kernels(
    kernel_fn: Callable[..., Any], x1: jax.Array, x2: jax.Array | None = None
) -> Kernels:
    return Kernels(*kernel_fn(x1, x2, Kernels._fields))


@functools.partial(jax.jit, static_argnums=0)
def _stax_kernel_diag(kernel_fn: Callable[..., Any], x: jax.Array) -> Kernels:
    blocks = jax.vmap(lambda row: Kernels(*kernel_fn(row, None, Kernels._fields)))(x[:, None])
    return Kernels(*(values[:, 0, 0] for values in blocks))
