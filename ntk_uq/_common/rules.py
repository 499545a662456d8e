"""The rules of JAX that the code here is written by, whatever those of the user.

JAX can be told to refuse what a user never means in their own code: arrays of other ranks or other
dtypes side by side. Here both are meant, and in Optax too: a likelihood broadcasts over draws. So
the doors of the package lift these checks while its own code runs, as JAX does in functions of its
own, and the user's configuration stays as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

__all__ = ["own_rules"]


@contextmanager
def own_rules() -> Iterator[None]:
    """A context, or as ``@own_rules()`` a decorator, in which ranks and dtypes are promoted.

    Rules are a thread's own: one that is started within needs them again.
    """
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
