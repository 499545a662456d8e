"""The rules of JAX that the code here is written by, whatever those of the user.

JAX can be told to refuse what a user never means in their own code: arrays of other ranks or other
dtypes side by side. Here both are meant, and in Optax too: a likelihood broadcasts over draws. So
the doors of the package lift these checks while its own code runs, as JAX does in functions of its
own, and the user's configuration stays as it is.

Products in single precision are another such rule: an accelerator rounds what it multiplies to 11
bits (TF32) or 8 (bfloat16) unless it is told otherwise, and a CPU does not. Criteria of convergence
and what rounding may hide of a solution reckon with all 24.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

__all__ = ["own_rules"]


@contextmanager
def own_rules() -> Iterator[None]:
    """A context, or as ``@own_rules()`` a decorator: ranks and dtypes promoted, products exact.

    Products are so where nobody said otherwise: who sets ``jax_default_matmul_precision`` has what
    they set, but for kernels and products with them, which say ``lax.Precision.HIGHEST`` of their
    own.

    Rules are a thread's own: one that is started within needs them again.
    """
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision(jax.config.jax_default_matmul_precision or "highest"),
    ):
        yield
