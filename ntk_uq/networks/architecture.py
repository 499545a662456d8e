"""One specification of an architecture: the finite Flax network and its infinite-width kernels.

An architecture makes Flax NNX modules (the finite network) and knows the covariance of its output
over random initialisations (NNGP kernel) and its neural tangent kernel (NTK) in the limit of
infinite width. Both come from one object, so that finite and infinite ensembles cannot disagree
about which network they mean.

Derivations: docs/theory, "Architectures and their kernels".
"""

import abc
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.tree_util import Partial
from numpy.typing import ArrayLike

from ntk_uq._common import checks
from ntk_uq._common.blocks import MOST_ENLARGED, STEP, bucket
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.words import shown
from ntk_uq.networks.jacobians import jacobian_kernel

__all__ = [
    "TILE",
    "BaseArchitecture",
    "Kernels",
    "ModuleFactory",
    "as_points",
    "check_integers",
    "standard_normal_like",
]

TILE = 256  # Rows of a kernel block: some float64 blocks fit a core's cache, dispatch is hidden.
# So few points against others, as a server is asked for, have blocks of fewer rows: one program
# more. They are a fraction of the area, that few training points may not take long either.
FEW, _FLATTER = 8, 8


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
    # Fields that data can choose: depth by trying each, the others by the gradient of the evidence.
    tunable: ClassVar[tuple[str, ...]] = ()
    # Whether its fields are functions, which no file can hold: `load` is then given the same again.
    holds_functions: ClassVar[bool] = False
    # Whether kernels depend on lengths of inputs and angles between them alone.
    has_dot_product_kernels: ClassVar[bool] = False
    # Whether kernels are formulas, which a program computes together with what comes after them.
    has_closed_form: ClassVar[bool] = False
    # Whether every parameter starts as N(0, 1), as the NTK parameterisation has it.
    _standard_normal: ClassVar[bool] = True

    def tile_rows(self, point: np.ndarray) -> int:
        """Points on a side of a kernel's block that is computed at once."""
        return TILE

    @abc.abstractmethod
    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""

    @abc.abstractmethod
    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""

    @property
    def behind(self) -> tuple["BaseArchitecture", Partial]:
        """The network behind what is done to each point by itself, and that as a function.

        Its numbers are leaves of a pytree: a program of the network serves all of them.
        """
        return self, Partial(_as_it_is)

    def widened(self, width: int) -> "BaseArchitecture | None":
        """The network at least so wide; None if nobody knows how it is widened.

        Only of a network whose parameters all start as N(0, 1), and whose functions approach the
        limit's law as it widens.
        """
        return None

    def dot_product_kernels(self, s1: jax.Array, s2: jax.Array, h: jax.Array) -> Kernels:
        """Kernels from what a dot-product kernel knows of its inputs.

        Parameters
        ----------
        s1, s2 : arrays of shape [n1, 1] and [1, n2]
            Root mean squares over the features of each input.
        h : array of shape [n1, n2]
            One minus the cosine of the angle between two inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no dot-product kernels.")

    def tuned_kernel_block(self, x: jax.Array, values: Mapping[str, Any]) -> Kernels:
        """Kernels [n, n] with other values of `tunable` fields but depth, which may be traced."""
        if values:
            raise ValueError(f"{type(self).__name__} has no {next(iter(values))} to tune.")
        return self.kernel_block(x)

    def gradients(
        self, x: jax.Array, points: jax.Array, alpha: jax.Array, scales: jax.Array
    ) -> jax.Array:
        r"""Gradients of :math:`f = \Theta(\cdot, X)\,\alpha` where features count as scales say.

        Where the kernel has a kink at coinciding points, the derivative there is the mean of those
        from all sides.

        Parameters
        ----------
        x : array of shape [m, d]
            Where.
        points : array of shape [n, d]
            X.
        alpha : array of shape [n, C]
            Dual coefficients.
        scales : array of shape [d]
            Factors of the features; derivatives are with respect to the features before them.

        Returns
        -------
        array of shape [m, d, C]
        """

        def total(x: jax.Array, column: jax.Array) -> jax.Array:
            # A row of the kernel depends on its own point alone: the sum's gradient holds them all.
            return jnp.sum(self._scaled_kernels(x, points, scales).ntk @ column)

        gradients = lax.map(lambda column: jax.grad(total)(x, column), alpha.T)
        return jnp.moveaxis(gradients, 0, -1)

    def _scaled_kernels(self, x1: jax.Array, x2: jax.Array, scales: jax.Array) -> Kernels:
        """Kernels [n1, n2] where features count as scales say."""
        return self.kernel_block(x1 * scales, x2 * scales)

    @own_rules()
    def tangent_kernel(
        self, params: Any, x1: jax.Array, x2: jax.Array | None = None, *, trace: bool = False
    ) -> jax.Array:
        """Tangent kernel of a finite network; see `kernels.empirical_ntk`.

        Parameters
        ----------
        params : pytree
            The network's parameters.
        x1, x2 : arrays of shape [n1, d] and [n2, d]
            Points. Without `x2` those of `x1`.
        trace : bool
            Average over equal outputs.

        Returns
        -------
        array of shape [n1, C, n2, C], with `trace` [n1, n2]
        """
        return jacobian_kernel(self, params, x1, x2, trace)

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
        if not self._standard_normal:
            return self.build(in_features, out_features, rngs=nnx.Rngs(key))
        like = jax.eval_shape(lambda: self.build(in_features, out_features, rngs=nnx.Rngs(0)))
        return standard_normal_like(key, like)

    def build(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one network; `init` says what its parameters are."""
        return self.module(in_features, out_features, rngs=rngs)

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
                f"{shown(self)} cannot be changed: others may hold it, and compiled programs know "
                f"it by its value. Make another, dataclasses.replace(net, {name}={shown(value)}), "
                "or let the estimator do it: "
                f"estimator.set_params(architecture__{name}={shown(value)})."
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
        rows = as_points(X1, "X1", self.ndim)
        columns = rows if X2 is None else as_points(X2, "X2", self.ndim)
        if rows.shape[1:] != columns.shape[1:]:
            sizes = [x.shape[1] if x.ndim == 2 else x.shape[1:] for x in (rows, columns)]
            raise ValueError(
                f"X1 has {sizes[0]} features, X2 has {sizes[1]}: points of one space "
                "are needed. Rows are points, columns are features."
            )
        size = width = self.tile_rows(rows[0])
        if size == TILE and len(rows) > FEW:
            size = width = _even(len(columns))
        elif size < TILE:  # a pair of points costs much: few are filled up to a power of two
            size = width = min(size, bucket(max(len(rows), len(columns))))
        if X2 is not None and len(rows) <= FEW:
            size, width = min(FEW, size), max(size * size // FEW // _FLATTER, size)
        blocks = Kernels(*(np.empty((len(rows), len(columns))) for _ in Kernels._fields))
        with jax.enable_x64(True):
            for i in range(0, len(rows), size):
                for j in range(i if X2 is None else 0, len(columns), width):
                    diagonal = X2 is None and i == j
                    tile = self.kernel_block(
                        _tile(rows, i, size), None if diagonal else _tile(columns, j, width)
                    )
                    for block, values in zip(blocks, tile, strict=True):
                        target = block[i : i + size, j : j + width]
                        target[...] = np.asarray(values)[: target.shape[0], : target.shape[1]]
                        if diagonal:
                            target[...] = (target + target.T) / 2
                        elif X2 is None:
                            block[j : j + width, i : i + size] = target.T
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
        points = as_points(X, "X", self.ndim)
        size = min(self.tile_rows(points[0]), FEW if len(points) <= FEW else TILE)
        diagonals = Kernels(*(np.empty(len(points)) for _ in Kernels._fields))
        with jax.enable_x64(True):
            for i in range(0, len(points), size):
                tile = self.kernel_diag_block(_tile(points, i, size))
                for diagonal, values in zip(diagonals, tile, strict=True):
                    target = diagonal[i : i + size]
                    target[...] = np.asarray(values)[: len(target)]
        return diagonals


def _as_it_is(x: jax.Array) -> jax.Array:
    return x


def as_points(X: ArrayLike, name: str, ndim: int | None) -> np.ndarray:
    """Numeric, finite points of `ndim` axes in all; None allows tables and images.

    Parameters
    ----------
    X : array-like
        Points.
    name : str
        What errors call them.
    ndim : int or None
        Axes.

    Returns
    -------
    array of shape [n, ...]
    """
    try:
        points = checks.floats(X)
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
    if len(rows) < size:
        filled = np.zeros((size, *points.shape[1:]), points.dtype)
        filled[: len(rows)] = rows
        rows = filled
    return jax.device_put(rows)


def _even(n: int) -> int:
    """Rows of blocks of n points: as few blocks as of `TILE` rows, and hardly any of them empty."""
    if not TILE < n <= MOST_ENLARGED:
        return TILE
    rows = math.ceil(n / math.ceil(n / TILE))
    return math.ceil(rows / STEP) * STEP


def check_integers(architecture: Any, **least: int) -> None:
    """Refuse fields of an architecture that are no integers, at least so large."""
    for name, minimum in least.items():
        checks.count(name, getattr(architecture, name), minimum)
