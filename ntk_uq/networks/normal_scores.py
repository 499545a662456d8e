"""A network that sees each feature by its rank among known values, or by a power of it.

How far apart two values of a feature are depends on the unit: of a price, or of its logarithm.
Their ranks do not; and of powers and the logarithm, that by which a feature is most nearly normal
is often a unit in which it acts smoothly. Where nobody knows what a network should see, these are
tried, and predictions mixed, or it sees them side by side: see docs, "The defaults".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.tree_util import Partial
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from ntk_uq._common import checks
from ntk_uq._common.rules import own_rules
from ntk_uq._common.words import shown
from ntk_uq.networks.architecture import BaseArchitecture, Kernels, as_points
from ntk_uq.networks.input_map import BehindInputMap
from ntk_uq.networks.mlp import MLP

__all__ = ["NormalScores"]

Floats = NDArray[np.float64]
# Scores of values in their order, standardised, which occur so often.
_Rule = Callable[[Floats, Floats], Floats]

# Between so many values a straight line is as good as more of them.
_MOST_KNOTS = 64
# Powers that are looked at; 0 is the logarithm of what is above the mean, 2 that of what is below.
_POWERS = -4.0, 6.0
# Values that differ by less, in standard deviations, are one: rounding has no rank.
_SAME = 1e-5


class _Scored(nnx.Module):
    """A network behind the scores, which have no parameters."""

    def __init__(self, network: nnx.Module, scores: "NormalScores"):
        self.network = network
        self.normal_scores = scores

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.network(self.normal_scores.shown(x))


@dataclass(frozen=True, repr=False)
class NormalScores(BehindInputMap):
    r"""A network that sees the normal scores of features.

    The score of a value is the standard normal quantile of its rank among known values (van der
    Waerden's score), standardised: whatever increasing function of a feature is measured, the
    scores of its known values are the same where there are at most 64 of them. Of more, 64 are
    kept, evenly in rank, whose scores are the same still; those of the others lie on straight lines
    in between, and depend on the unit a little. So do values that are not known: between known ones
    they are interpolated, and beyond them they go on by a straight line, so that what is far from
    all known values stays far. Values within 1e-5 standard deviations of each other may count as
    one. `NormalScores.of` makes one from data, with these scores or those of a power
    transformation.

    Parameters
    ----------
    network : architecture for tables, default MLP()
        What sees the scores.
    at : sequence of d sequences of floats
        Values of each feature, increasing, at least two. By default one feature, as it is.
    to : sequence of d sequences of floats
        Their scores; on either side the outermost two give the line that goes on.
    beside : bool, default False
        Whether the network sees the features as well, [n, 2 d]: its kernel is then of the mean of
        both inner products.
    factors : sequence of d floats, optional
        What each feature's scores are multiplied by, >= 0: how much it counts. None: all alike.

    Raises
    ------
    ValueError
        If there are not as many scores as values, values do not increase, or factors are not one
        for each feature.

    References
    ----------
    van der Waerden 1952, Order tests for the two-sample problem and their power; Yeo & Johnson
    2000, A new family of power transformations to improve normality or symmetry.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, NormalScores
    >>> X = np.array([[1.0], [10.0], [100.0], [1000.0]])
    >>> raw, log = (NormalScores.of(Z, MLP(depth=1)).kernels(Z).ntk for Z in (X, np.log(X)))
    >>> bool(np.allclose(raw, log))
    True
    """

    network: BaseArchitecture = field(default_factory=MLP)
    at: tuple[tuple[float, ...], ...] = ((0.0, 1.0),)
    to: tuple[tuple[float, ...], ...] = ((0.0, 1.0),)
    beside: bool = False
    factors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("at", "to"):  # hashable
            rows = tuple(tuple(np.asarray(row, float).tolist()) for row in getattr(self, name))
            object.__setattr__(self, name, rows)
        sizes = [len(row) for row in self.at]
        finite = all(np.isfinite(row).all() for row in (*self.at, *self.to))
        if not sizes or sizes != [len(row) for row in self.to] or min(sizes) < 2 or not finite:
            raise ValueError(
                "at and to must hold, for each feature, as many finite values as scores, at least "
                "two. NormalScores.of(X, network) makes them from data."
            )
        if any(np.any(np.diff(row) <= 0) for row in self.at):
            raise ValueError("The values of a feature, at, must increase.")
        if self.factors is not None:
            factors = checks.numbers("factors", self.factors, shape=(len(self.at),))
            if np.any(factors < 0):
                raise ValueError(f"factors must be at least 0; got {shown(self.factors)}.")
            object.__setattr__(self, "factors", tuple(factors.tolist()))

    @classmethod
    def of(
        cls,
        X: ArrayLike,
        network: BaseArchitecture,
        weights: Floats | None = None,
        *,
        by: Literal["rank", "power"] = "rank",
        beside: bool = False,
    ) -> Self:
        """The network behind the scores that known points give.

        A feature of two values, as an indicator has, or of one, stays as it is: its ranks say no
        more.

        Parameters
        ----------
        X : array of shape [n, d]
            Known points.
        network : architecture for tables
            What sees the scores.
        weights : array of shape [n], optional
            How much each point counts, > 0.
        by : {"rank", "power"}
            What a score is: the normal quantile of a rank, or the power transformation of Yeo and
            Johnson by which the standardised feature is most nearly normal, standardised again.
        beside : bool, default False
            Whether the network sees the features as well. The scales of an embedding are those of
            the features, and their scores have the same.

        Returns
        -------
        NormalScores
        """
        points = as_points(X, "X", 2)
        counts = np.ones(len(points)) if weights is None else np.asarray(weights, float)
        if by not in _RULES:
            raise ValueError(f'by must be "rank" or "power"; got {by!r}.')
        at, to = zip(*(_scores(feature, counts, _RULES[by]) for feature in points.T), strict=True)
        scales = getattr(network, "scales", None)
        if beside and scales is not None:
            network = replace(cast(Any, network), scales=(*scales, *scales))
        return cls(network, at, to, beside)

    def __repr__(self) -> str:
        beside = ", beside them" if self.beside else ""
        return f"NormalScores({self.network!r}, of {len(self.at)} features{beside})"

    @property
    def changes_nothing(self) -> bool:
        """Whether scores are the features themselves."""
        return self.at == self.to and self.factors is None

    def scaled(self, factors: Floats) -> "NormalScores":
        """The same with scores times factors [d], and not the features beside them."""
        if np.all(factors == 1):
            return self
        own = 1.0 if self.factors is None else np.array(self.factors)
        return replace(self, factors=tuple(own * factors))

    def of_scaled(self, factors: Floats) -> "NormalScores":
        """The same, times factors [d], of points that were multiplied by these."""
        # A feature times zero has one value, and the score of that is zero.
        rows = zip(self.at, factors, strict=True)
        at = tuple(tuple(np.multiply(row, f)) if f else tuple(range(len(row))) for row, f in rows)
        # Not by `factors`, which are those of features that nothing else has multiplied.
        to = tuple(tuple(np.multiply(row, f)) for row, f in zip(self.to, factors, strict=True))
        return replace(self, at=at, to=to)

    def shown(self, x: jax.Array) -> jax.Array:
        """What the network sees of points [n, d]: their scores, or [n, 2 d] features and scores."""
        self._check_features(x)
        return self.behind[1](x)

    def scores(self, x: jax.Array) -> jax.Array:
        """Scores of points [n, d], in their precision."""
        self._check_features(x)
        return _interpolated(*map(np.array, self._knots), x)

    def _check_features(self, x: jax.Array) -> None:
        if x.shape[-1] != len(self.at):
            raise ValueError(
                f"The scores are of {len(self.at)} features; the points have {x.shape[-1]}."
            )

    @cached_property
    def _knots(self) -> tuple[Floats, Floats]:
        """Values and scores [d, K]."""
        most = max(_MOST_KNOTS + 2, *(len(row) for row in self.at))
        factors = np.ones(len(self.at)) if self.factors is None else self.factors
        knots = zip(self.at, self.to, factors, strict=True)
        at, to = zip(
            *(_filled(np.array(a), f * np.array(t), most) for a, t, f in knots), strict=True
        )
        return np.array(at), np.array(to)

    @property
    def scales(self) -> tuple[float, ...] | None:
        """Scales of the features: of an embedding behind the scores, or those of the scores.

        None where neither has any; of features beside their scores only an embedding has them.
        """
        scales = getattr(self.network, "scales", None)
        if scales is None:
            return None if self.beside else self.factors
        return scales[: len(self.at)]

    def module(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one randomly initialised network."""
        shown = 2 * in_features if self.beside else in_features
        return _Scored(self.network.build(shown, out_features, rngs=rngs), self)

    @property
    def behind(self) -> tuple[BaseArchitecture, Partial]:
        """The network, and what it is shown, as a function."""
        # Copies: an array that JAX has traced in single precision it takes for such a one in double
        # precision too (findings/jax_constants_keep_precision.sh).
        knots = map(np.array, self._knots)
        return self.network, Partial(_beside if self.beside else _interpolated, *knots)

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""
        right = None if x2 is None else self.shown(x2)
        return self.network.kernel_block(self.shown(x1), right)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        return self.network.kernel_diag_block(self.shown(x))

    def tuned_kernel_block(self, x: jax.Array, values: Mapping[str, Any]) -> Kernels:
        """Kernels [n, n] with other values of the network's `tunable` fields: see the base."""
        return self.network.tuned_kernel_block(self.shown(x), values)

    def gradients(
        self, x: jax.Array, points: jax.Array, alpha: jax.Array, scales: jax.Array
    ) -> jax.Array:
        """Gradients [m, d, C] with respect to the scores, which count as scales say.

        Of features beside their scores: with respect to either, which move alike.
        """
        if self.beside:
            scales = jnp.concatenate([scales, scales])
        found = self.network.gradients(self.shown(x), self.shown(points), alpha, scales)
        return found.reshape(len(found), -1, len(self.at), found.shape[-1]).sum(axis=1)

    def tangent_kernel(
        self, params: Any, x1: jax.Array, x2: jax.Array | None = None, *, trace: bool = False
    ) -> jax.Array:
        """Tangent kernel of a finite network, that of the network behind the scores."""
        right = None if x2 is None else self.shown(jnp.asarray(x2))
        left = self.shown(jnp.asarray(x1))
        return self.network.tangent_kernel(params.network, left, right, trace=trace)


def _scores(feature: Floats, weights: Floats, rule: _Rule) -> tuple[Floats, Floats]:
    """Values of a feature [n] that counts so, increasing, and their scores by a rule."""
    mean = np.average(feature, weights=weights)
    spread = np.sqrt(np.average((feature - mean) ** 2, weights=weights))
    as_it_is = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    if not spread > 100 * np.finfo(float).eps * (1 + np.abs(mean)):  # constant but for rounding
        return as_it_is
    _, first, place = np.unique(
        np.round((feature - mean) / (_SAME * spread)), return_index=True, return_inverse=True
    )
    if len(first) <= 2:
        return as_it_is
    values, counts = feature[first], np.bincount(place, weights)
    scores = rule((values - mean) / spread, counts)
    centre = np.average(scores, weights=counts)
    scores = (scores - centre) / np.sqrt(np.average((scores - centre) ** 2, weights=counts))
    ranks = _ranks(counts)
    evenly = np.linspace(ranks[0], ranks[-1], _MOST_KNOTS)
    kept = np.unique(np.searchsorted(ranks, evenly)) if len(ranks) > _MOST_KNOTS else slice(None)
    values, scores = values[kept], scores[kept]
    # Beyond the known values as fast as between them, on average.
    at = np.concatenate([values[:1] - spread, values, values[-1:] + spread])
    return at, np.concatenate([scores[:1] - 1, scores, scores[-1:] + 1])


def _ranks(counts: Floats) -> Floats:
    """Between 0 and 1, of values in their order that occur so often."""
    return (np.cumsum(counts) - counts / 2) / counts.sum()


def _by_rank(values: Floats, counts: Floats) -> Floats:
    return stats.norm.ppf(_ranks(counts))


def _by_power(values: Floats, counts: Floats) -> Floats:
    """Of the highest likelihood, as of a normal variable."""
    stretched = np.average(np.sign(values) * np.log1p(np.abs(values)), weights=counts)

    def loss(power: float) -> float:
        scores = stats.yeojohnson(values, power)
        variance = np.average((scores - np.average(scores, weights=counts)) ** 2, weights=counts)
        return 0.5 * np.log(variance) - (power - 1) * stretched

    found = optimize.minimize_scalar(loss, bounds=_POWERS, method="bounded")
    return stats.yeojohnson(values, found.x)


_RULES: dict[str, _Rule] = {"rank": _by_rank, "power": _by_power}


def _filled(at: Floats, to: Floats, size: int) -> tuple[Floats, Floats]:
    """So many knots, the further ones on the last line: programs compile for one shape."""
    beyond, step, rise = np.arange(1, size - len(at) + 1), at[-1] - at[-2], to[-1] - to[-2]
    return (
        np.concatenate([at, at[-1] + beyond * step]),
        np.concatenate([to, to[-1] + beyond * rise]),
    )


@own_rules()
@jax.jit
def _interpolated(at: jax.Array, to: jax.Array, x: jax.Array) -> jax.Array:
    """Of each feature of x [n, d] by its knots [d, K]; beyond them by the outermost line.

    The line of the last knot that is passed: without a search, which no export has.
    """

    def passed(y: jax.Array, knot: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        at, to, slope = knot
        return jnp.where(x >= at, to + (x - at) * slope, y), None

    at, to = at.astype(x.dtype), to.astype(x.dtype)
    slopes = jnp.diff(to) / jnp.diff(at)
    before = to[:, 0] + (x - at[:, 0]) * slopes[:, 0]
    return lax.scan(passed, before, (at[:, :-1].T, to[:, :-1].T, slopes.T))[0]


def _beside(at: jax.Array, to: jax.Array, x: jax.Array) -> jax.Array:
    """Features and their scores, [n, 2 d]."""
    return jnp.concatenate([x, _interpolated(at, to, x)], axis=-1)
