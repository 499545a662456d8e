"""Draws of a wide network's function before training: a seed, and values anywhere.

A draw of the prior GP needs a factor of its covariance, n^3 operations for n points and for these
points only. A random network of width M *is* a function, whose covariance differs from the limit's
by O(1 / M). docs/theory: "Prior functions of many points".
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

from ntk_uq._common.progress import Progress
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["RandomFunctions"]

# Points whose activations are held at once, and numbers in the largest array of these: 8 MiB, and
# as many points as 512 units take.
_POINTS_AT_ONCE, _NUMBERS_AT_ONCE = 4096, 2**21
# Arrays of such a size that a network holds, the copies for a convolution among them, and bytes of
# a parameter: its bits, here and on the device, and its normal number on the way into the network.
_ARRAYS, _OF_A_PARAMETER = 8, 20


@dataclass(frozen=True)
class RandomFunctions:
    r"""Functions of random networks, one network for each draw, from the seed and its number alone.

    Attributes
    ----------
    architecture : BaseArchitecture
        The network, of finite width, whose parameters all start as N(0, 1).
    kernel : {"nngp", "ntk"}
        "nngp": its outputs, whose covariance is nearly K. "ntk": the change of its outputs along
        random parameters, :math:`J(x) \tilde\theta`, whose covariance is nearly Theta.
    scale : float
        Factor of the functions.
    n_outputs : int
        Outputs C.
    seed : tuple of ints
        Decides every draw. The random bits are those of NumPy's Philox, which are the same on every
        machine and in every version.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP
    >>> from ntk_uq.networks import RandomFunctions
    >>> functions = RandomFunctions(MLP(width=64), "nngp", 1.0, 3, (0,))
    >>> X = np.array([[1.0, 2.0], [0.0, -1.0]])
    >>> draws = functions(range(4), X)
    >>> draws.shape, bool(np.allclose(functions(range(2, 4), X[:1]), draws[2:, :1], atol=1e-5))
    ((4, 2, 3), True)
    """

    architecture: BaseArchitecture
    kernel: Literal["nngp", "ntk"]
    scale: float
    n_outputs: int
    seed: tuple[int, ...]

    def __call__(
        self, draws: range, X: NDArray, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Values of some draws at n points, in single precision: [len(draws), n, C].

        Parameters
        ----------
        draws : range
            Numbers of the draws.
        X : array of shape [n, d], or images [n, h, w, c]
            Points.
        progress : callable, optional
            ``progress(done, total)`` is told draws.
        """
        in_features = X.shape[1] if X.ndim == 2 else X.shape[1:]
        values = np.empty((len(draws), len(X), self.n_outputs), np.float32)
        wanted = (self.architecture, in_features, self.n_outputs)
        at_once = _points_at_once(*wanted)
        blocks = [(slice(i, i + at_once), _block(X, i, at_once)) for i in range(0, len(X), at_once)]
        for row, s in enumerate(draws):
            bits = jnp.asarray(self._bits(s, _n_parameters(*wanted)))
            parameters = _parameters(*wanted, self.kernel, bits)
            for rows, block in blocks:
                found = _outputs(self.architecture, self.kernel, parameters, block)
                target = values[row, rows]
                target[...] = self.scale * np.asarray(found)[: len(target)]
            if progress is not None:
                progress(row + 1, len(draws))
        return values

    def memory(self, in_features: Any) -> int:
        """Bytes that a draw takes besides the points and its values.

        Parameters
        ----------
        in_features : int or tuple of ints
            Features of a point, or an image's shape.
        """
        wanted = (self.architecture, in_features, self.n_outputs)
        times = 1 if self.kernel == "nngp" else 2
        block = 4 * _points_at_once(*wanted) * _largest(*wanted)
        return times * (_OF_A_PARAMETER * _n_parameters(*wanted) + _ARRAYS * block)

    def _bits(self, s: int, n_parameters: int) -> NDArray[np.uint32]:
        count = n_parameters * (1 if self.kernel == "nngp" else 2)
        stream = np.random.Philox(np.random.SeedSequence([*self.seed, s]))
        return stream.random_raw(-(-count // 2)).view(np.uint32)[:count]


def _block(points: NDArray, start: int, at_once: int) -> Array:
    """Rows from `start`, filled up with zeros where others have more, so that JAX compiles once."""
    rows = np.asarray(points[start : start + at_once], np.float32)
    missing = 0 if len(points) <= at_once else at_once - len(rows)
    return jnp.asarray(np.pad(rows, [(0, missing), *[(0, 0)] * (points.ndim - 1)]))


@functools.lru_cache
def _shapes(architecture: BaseArchitecture, in_features: Any, n_outputs: int) -> Any:
    return jax.eval_shape(
        lambda: architecture.module(in_features, n_outputs, rngs=nnx.Rngs(0)),
    )


def _n_parameters(architecture: BaseArchitecture, in_features: Any, n_outputs: int) -> int:
    leaves = jax.tree.leaves(_shapes(architecture, in_features, n_outputs))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _points_at_once(architecture: BaseArchitecture, in_features: Any, n_outputs: int) -> int:
    most = _NUMBERS_AT_ONCE // _largest(architecture, in_features, n_outputs)
    return max(1, min(_POINTS_AT_ONCE, most))


@functools.lru_cache
def _largest(architecture: BaseArchitecture, in_features: Any, n_outputs: int) -> int:
    """Numbers of a point in the largest array on the way to the outputs.

    Arrays that grow with the points are told from parameters by what two and three points take.
    """
    shape = (in_features,) if isinstance(in_features, int) else tuple(in_features)
    of_parameters = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32),
        _shapes(architecture, in_features, n_outputs),
    )

    def sizes(n_points: int) -> NDArray:
        points = jax.ShapeDtypeStruct((n_points, *shape), np.float32)
        traced = jax.make_jaxpr(architecture.apply)(of_parameters, points)
        return np.array(list(_sizes(traced.jaxpr)))

    return max(n_outputs, math.prod(shape), int(np.max(sizes(3) - sizes(2), initial=1)))


def _sizes(jaxpr: Any) -> Iterator[int]:
    """Numbers in each array of a program, and of those that it calls."""
    for equation in jaxpr.eqns:
        yield from (math.prod(getattr(out.aval, "shape", ())) for out in equation.outvars)
        for called in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(called, "jaxpr", called)
            if hasattr(inner, "eqns"):
                yield from _sizes(inner)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _parameters(
    architecture: BaseArchitecture, in_features: Any, n_outputs: int, kernel: str, bits: Array
) -> tuple[Any, Any]:
    """Parameters, and for the tangent their change, of standard normal numbers."""
    # The middles of 2^24 equal intervals, which single precision can tell apart.
    uniform = (bits >> 8).astype(jnp.float32) * 2.0**-23 + (2.0**-24 - 1)
    normal = math.sqrt(2) * jax.scipy.special.erfinv(uniform)
    leaves, structure = jax.tree.flatten(_shapes(architecture, in_features, n_outputs))

    def tree(numbers: Array) -> Any:
        ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
        parts = jnp.split(numbers, ends[:-1])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped)

    if kernel == "nngp":
        return tree(normal), None
    first, second = jnp.split(normal, 2)
    return tree(first), tree(second)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs(architecture: BaseArchitecture, kernel: str, parameters: Any, X: Array) -> Array:
    network, change = parameters
    if kernel == "nngp":
        return architecture.apply(network, X)
    return jax.jvp(lambda p: architecture.apply(p, X), (network,), (change,))[1]
