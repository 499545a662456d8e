"""Draws at one point, as a server is asked for them: a program for the kernels, BLAS for the rest.

Each product reads a matrix once, which BLAS does at several times the rate of a compiled program.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from numpy.typing import NDArray
from scipy.linalg.blas import dtrmv
from scipy.linalg.lapack import dtrtri

from ntk_uq._common.rules import own_rules
from ntk_uq.analytic.exact import FlatDraws
from ntk_uq.networks.architecture import BaseArchitecture, Kernels

__all__ = ["DrawsAtOne", "OfOnePoint", "Seen", "draws_at_one"]

Floats = NDArray[np.float64]


class Seen(NamedTuple):
    """What the kernels of one point with the training points are computed from."""

    shown: Partial  # what the network sees of a point
    points: Any  # what it sees of the training points
    feature_scales: Any


class DrawsAtOne(NamedTuple):
    """`FlatDraws` as NumPy arrays; of the factor its inverse, which is twice as fast to apply."""

    trained: Floats
    whitened: Floats
    noise: Floats
    inverse: Floats | None  # without prior functions
    prior: Callable[[Kernels], Any]

    @classmethod
    def of(cls, draws: FlatDraws) -> "DrawsAtOne":
        """What latents at one point are computed from."""
        trained, whitened, noise, factor = map(
            np.asarray, (draws.trained, draws.whitened, draws.noise, draws.factor)
        )
        has_prior = draws.uncertainty != "none"
        inverse = dtrtri(factor.T, lower=0)[0].T if has_prior else None
        return cls(trained, whitened, noise, inverse, draws.prior)


class OfOnePoint(Protocol):
    """An ensemble that may give draws at one point."""

    @property
    def at_one(self) -> tuple[BaseArchitecture, Seen, DrawsAtOne] | None:
        """Its network, what that sees, and the draws; None if not by formulas."""


def draws_at_one(members: Sequence[OfOnePoint], X: Floats) -> Floats | None:
    """Draws of some ensembles at one point: [S, 1, C]; None if not all are by formulas.

    The kernels of all by one program: several take longer to wait for than to run.

    Parameters
    ----------
    members : sequence of OfOnePoint
    X : array of shape [1, d]
        The point.
    """
    found = [member.at_one for member in members]
    parts = [part for part in found if part is not None]
    if len(parts) < len(found):
        return None
    networks, seen, draws = zip(*parts, strict=True)
    with own_rules(), jax.enable_x64(True):
        kernels = np.asarray(_kernels(networks, seen, np.asarray(X, float)))
    ends = np.cumsum([len(of.trained) + 1 for of in draws])
    each = np.split(kernels, ends[:-1], axis=1)
    return np.concatenate(list(map(_latents, draws, each)))[:, None]


@partial(jax.jit, static_argnums=0)
def _kernels(networks: tuple[BaseArchitecture, ...], seen: tuple[Seen, ...], x: Array) -> Array:
    """NNGP kernels and NTKs [2, ...]: of each network with the training points, and the point's."""

    def row(network: BaseArchitecture, of: Seen) -> Array:
        point = of.shown(x * of.feature_scales)
        cross, own = network.kernel_block(point, of.points), network.kernel_diag_block(point)
        return jnp.concatenate([jnp.concatenate(cross), jnp.stack(own)], axis=1)

    return jnp.concatenate(list(map(row, networks, seen)), axis=1)


def _latents(draws: DrawsAtOne, kernels: Floats) -> Floats:
    """As `FlatDraws.latents`, of one point: [S, C]."""
    latents = kernels[1, :-1] @ draws.trained
    if draws.inverse is not None:
        prior = draws.prior(Kernels(*kernels))
        # L^-1 k: what is a lower triangle by rows is an upper one by columns, as BLAS reads them.
        weights = dtrmv(draws.inverse.T, prior[:-1], lower=0, trans=1)
        scale = np.sqrt(max(prior[-1] - weights @ weights, 0.0))
        latents += weights @ draws.whitened + scale * draws.noise.reshape(-1)
    return latents.reshape(draws.noise.shape)
