"""Functions of many points, block by block, in few sizes: JAX compiles anew for every other one."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "MOST_ENLARGED",
    "STEP",
    "bucket",
    "enlarged",
    "in_blocks",
    "parts",
    "placed",
    "repeated",
]

# Numbers of points for which programs are compiled are multiples of this one, where points can be
# added that change nothing.
STEP = 32
# Of so many points at most: programs for more take less time to compile than to run.
MOST_ENLARGED = 1024
# Numbers of a part: 8 MiB of doubles.
_PART = 2**20


def bucket(count: int) -> int:
    """The smallest power of two that is at least `count`: how many points are computed together."""
    return 1 << (count - 1).bit_length()


def parts(array: NDArray[Any]) -> Iterator[slice]:
    """Slices of consecutive rows, each of about a million numbers: the array may be a large file.

    Examples
    --------
    >>> import numpy as np
    >>> [(part.start, part.stop) for part in parts(np.broadcast_to(0.0, (3, 2**19)))]
    [(0, 2), (2, 3)]
    """
    n = len(array)
    step = max(1, _PART * n // max(1, array.size))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def placed(array: ArrayLike) -> jax.Array:
    """The array on JAX's device, by a transfer: `jnp.asarray` compiles a program for each shape."""
    return array if isinstance(array, jax.Array) else jax.device_put(np.asarray(array))


def enlarged(array: ArrayLike, *axes: int) -> NDArray[Any]:
    """The array with zeros behind it along axes over points, up to a multiple of `STEP`.

    In NumPy, which compiles nothing; above a number of points it stays as it is.

    Parameters
    ----------
    array : array
    *axes : int
        Axes over points.

    Examples
    --------
    >>> import numpy as np
    >>> enlarged(np.ones((3, 33)), 1).shape
    (3, 64)
    """
    array = np.asarray(array)
    shape = list(array.shape)
    for axis in axes:
        shape[axis] += -shape[axis] % STEP if shape[axis] <= MOST_ENLARGED else 0
    if tuple(shape) == array.shape:
        return array
    filled = np.zeros(shape, array.dtype)
    filled[tuple(map(slice, array.shape))] = array
    return filled


def repeated(n: int) -> NDArray[np.integer]:
    """Numbers of n points, from the first on again up to a multiple of `STEP`: see `enlarged`."""
    return np.resize(np.arange(n), n + (-n % STEP if n <= MOST_ENLARGED else 0))


def in_blocks(function: Callable[[NDArray], Any], X: NDArray, most: int, axis: int = 0) -> Any:
    """A function of points that treats each by itself, of blocks of at most so many.

    A block is filled up to its bucket with its last point, and what the function says of the
    filling is dropped.

    Parameters
    ----------
    function : callable
        ``function(block)`` of points [k, ...] gives an array, or a pytree of arrays.
    X : array of shape [m, ...]
        Points, of which there is one at least.
    most : int
        Points of a block.
    axis : int
        Of the arrays, along which points lie.

    Returns
    -------
    array, or pytree of arrays
        Of NumPy, with all points along `axis`.

    Examples
    --------
    >>> import numpy as np
    >>> def squares(x):
    ...     print(len(x), "points")
    ...     return x**2
    >>> in_blocks(squares, np.arange(7.0), most=4)
    4 points
    4 points
    array([ 0.,  1.,  4.,  9., 16., 25., 36.])
    """
    parts = []
    for start in range(0, len(X), most):
        block = X[start : start + most]
        missing = min(bucket(len(block)), most) - len(block)
        filled = np.concatenate([block, np.repeat(block[-1:], missing, axis=0)])
        asked = (slice(None),) * axis + (slice(len(block)),)
        parts.append(jax.tree.map(lambda a, asked=asked: np.asarray(a)[asked], function(filled)))
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=axis), *parts)
