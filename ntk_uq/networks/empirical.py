"""Empirical kernels of a finite network: what its parameters say, at the width that it has.

The infinite-width kernels belong to the architecture, ``net.kernels``. In expectation over
initialisations the empirical ones approach them as the width grows; after training they tell how
far the tangent kernel has moved.
"""

from typing import Any

import jax

from ntk_uq._common.rules import own_rules
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["empirical_nngp", "empirical_ntk"]


@own_rules()
def empirical_ntk(
    architecture: BaseArchitecture,
    params: Any,
    x1: jax.Array,
    x2: jax.Array | None = None,
    *,
    trace: bool = False,
) -> jax.Array:
    """Tangent kernel J(x1) J(x2)^T of a finite network.

    The architecture knows how it is computed best. For an MLP a sum over layers of products of
    Gram matrices, of the layer's inputs and of the gradients of its outputs, so that no Jacobian is
    formed. For other networks Jacobians are formed, for blocks of points, so that memory stays
    bounded.

    Parameters
    ----------
    architecture : MLP or other architecture
        The network's architecture.
    params : pytree
        The network's parameters, from ``architecture.init`` or training.
    x1 : array of shape [n1, d]
        Points.
    x2 : array of shape [n2, d], optional
        Points. Left out: those of `x1`.
    trace : bool, default False
        Average the kernel over equal outputs; in the limit of infinite width nothing is lost.

    Returns
    -------
    array of shape [n1, C, n2, C], with `trace` [n1, n2]
        In the dtype of the parameters.

    References
    ----------
    Jacot, Gabriel & Hongler 2018, arXiv 1806.07572.

    Examples
    --------
    >>> import jax
    >>> from ntk_uq import MLP
    >>> net = MLP(width=32)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=3)
    >>> x = jax.random.normal(jax.random.key(1), (5, 2))
    >>> empirical_ntk(net, params, x).shape
    (5, 3, 5, 3)
    """
    return architecture.tangent_kernel(params, x1, x2, trace=trace)


@own_rules()
def empirical_nngp(
    architecture: BaseArchitecture, params: Any, x1: jax.Array, x2: jax.Array | None = None
) -> jax.Array:
    """Products of a finite network's outputs, averaged over the C outputs.

    One network at initialisation gives an unbiased estimate of the NNGP kernel, of C samples: take
    the mean over networks.

    Parameters
    ----------
    architecture, params, x1, x2
        As for `empirical_ntk`.

    Returns
    -------
    array of shape [n1, n2]
        In the dtype of the parameters.

    References
    ----------
    Lee et al. 2018, arXiv 1711.00165.

    Examples
    --------
    >>> import jax
    >>> from ntk_uq import MLP
    >>> net = MLP(width=32)
    >>> params = net.init(jax.random.key(0), in_features=2, out_features=3)
    >>> x = jax.random.normal(jax.random.key(1), (5, 2))
    >>> empirical_nngp(net, params, x).shape
    (5, 5)
    """
    f1 = architecture.apply(params, x1)
    f2 = f1 if x2 is None else architecture.apply(params, x2)
    return f1 @ f2.T / f1.shape[1]
