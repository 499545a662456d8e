r"""How a module's parameters are initialised, and the NTK parameterisation that follows from it.

Every parameter becomes mean + scale x N(0, 1), with the mean and the scale of its initialiser. What
the initialiser draws is read off by giving it, in place of random bits, evenly spaced ones: sorted,
the entries are then its quantile function, which tells a normal law from a truncated or a uniform
one, and its scale to rounding. Other laws are measured over seeds.

See docs/theory: "Any module in NTK parameterisation".
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core
from scipy import special

from ntk_uq._common.rules import own_rules

__all__ = ["ParameterLaw", "parameter_laws", "parameter_names"]

# Seeds over which an unknown law is measured.
_SEEDS = 32
# Rounding of quantiles in float32, in which modules draw; and of the scale that fits them.
_ROUNDING = 1e-4
_SCALE_ROUNDING = 5e-6
# Twice the distance of neighbouring random numbers in float32.
_GRAIN = 2.0**-22
# Where evenly spaced numbers start, as a share of their distance: three for the smallest arrays.
_SHIFTS = (0.15, 0.5, 0.83)


@dataclass(frozen=True)
class ParameterLaw:
    """Law of an array of parameters at initialisation.

    Attributes
    ----------
    path : str
        Where the module has it.
    mean, scale : float
        Each entry starts at mean + scale x N(0, 1), independently of the others.
    how : {"constant", "normal", "truncated normal", "uniform", "measured"}
        What the module's own initialiser draws. "measured": none of those, the scale is that of
        entries over seeds, with a relative standard error.
    """

    path: str
    mean: float
    scale: float
    how: str

    def __str__(self) -> str:
        if self.how == "constant" and self.scale == 0:
            return f"{self.path}: {self.mean:g}, not trained"
        start = "" if self.mean == 0 else f"{self.mean:g} + "
        return f"{self.path}: {start}{self.scale:g} x N(0, 1) ({self.how})"


def _quantiles(u: np.ndarray) -> dict[str, np.ndarray]:
    """Quantile functions of mean 0 and variance 1 at probabilities u."""
    low, high = special.ndtr(-2.0), special.ndtr(2.0)
    density = math.exp(-2.0) / math.sqrt(2 * math.pi)
    deviation = math.sqrt(1 - 4 * density / (high - low))
    return {
        "normal": special.ndtri(u),
        "truncated normal": special.ndtri(low + u * (high - low)) / deviation,
        "uniform": math.sqrt(12) * (u - 0.5),
    }


@functools.lru_cache(maxsize=64)
def parameter_laws(
    module: Any, in_features: Any, out_features: int, b_std: float
) -> tuple[ParameterLaw, ...]:
    """Law of each array of a module's parameters, in the order of its leaves.

    Parameters
    ----------
    module : callable
        ``module(in_features, out_features, rngs=rngs)`` builds a network.
    in_features, out_features : int
        Of the network; for images the shape (h, w, c).
    b_std : float
        Scale of parameters that start at zero.

    Raises
    ------
    ValueError
        If a parameter's entries have scales that differ from one to another.

    Examples
    --------
    >>> from flax import nnx
    >>> for law in parameter_laws(nnx.Linear, 4, 2, 0.3):
    ...     print(law)
    bias: 0.3 x N(0, 1) (constant)
    kernel: 0.5 x N(0, 1) (truncated normal)
    """

    def leaves(key: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(module(in_features, out_features, rngs=nnx.Rngs(key)))

    with own_rules(), jax.enable_x64(False):
        like = nnx.eval_shape(lambda: module(in_features, out_features, rngs=nnx.Rngs(0)))
        paths = parameter_names(like)
        runs = _with_even_bits(leaves)
        laws = []
        for i, path in enumerate(paths):
            entries = [np.asarray(run[i], np.float64).ravel() for run in runs]
            size = len(entries[0])
            u = np.concatenate([_even(size, shift) for shift in _SHIFTS])
            values = np.concatenate([np.sort(part) for part in entries])
            fan_in = math.prod(runs[0][i].shape[:-1])
            # Biases may have several axes, as those of attention's heads and of stacked layers.
            if fan_in > 1 and not np.any(values) and path.split(".")[-1] != "bias":
                raise ValueError(
                    f"The parameter {path} starts at zero, and no scale can be read from that. "
                    "Draw it at random, or keep the module's own parameterisation: "
                    'parameterization="own".'
                )
            law = _recognised(path, u, values, fan_in, b_std)
            laws.append(law or _measured(path, i, leaves))
    return tuple(laws)


def parameter_names(module: nnx.Module) -> list[str]:
    """The path of each parameter, layers[0].kernel, in the order of the leaves."""
    return [_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(module)[0]]


def _name(path: Sequence[Any]) -> str:
    """A parameter's path as one writes it, layers[0].kernel."""
    parts = [
        str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path
    ]
    parts = [part for part in parts if part not in ("value", "_pytree__nodes")]
    parts = parts[1:] if parts[0] == "network" else parts
    text = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
    return text.removeprefix(".")


def _recognised(
    path: str, u: np.ndarray, values: np.ndarray, fan_in: int, b_std: float
) -> ParameterLaw | None:
    """The law with this quantile function, or None."""
    if np.ptp(values) == 0:
        mean = float(values[0]) + 0.0  # no negative zero
        return ParameterLaw(path, mean, b_std if mean == 0 else 0.0, "constant")
    # Far out a quantile is as uncertain as the numbers that are drawn from are coarse.
    above, below = _quantiles(np.minimum(u + _GRAIN, 1)), _quantiles(np.maximum(u - _GRAIN, 0))
    inner = (u > 1e-3) & (u < 1 - 1e-3)
    for how, quantile in _quantiles(u).items():
        design = np.stack([np.ones_like(u), quantile], axis=1)
        (mean, scale), *_ = np.linalg.lstsq(design[inner], values[inner], rcond=None)
        allowed = _ROUNDING + above[how] - below[how]
        coarse = ~np.isfinite(allowed)
        if (coarse | (np.abs(mean + scale * quantile - values) < allowed * abs(scale))).all():
            mean = 0.0 if abs(mean) < _ROUNDING * scale else float(mean)
            return ParameterLaw(path, mean, _exact(abs(float(scale)), fan_in), how)
    return None


def _exact(scale: float, fan_in: int) -> float:
    """The number that a scale in float32 stands for, where it or its gain is a simple fraction."""
    for power, unit in ((1, 1.0), (2, 1 / fan_in), (2, 1.0)):
        ratio = scale**power / unit
        for simple in (float(Fraction(ratio).limit_denominator(12)), float(f"{ratio:.3g}")):
            if simple > 0 and abs(simple / ratio - 1) < power * _SCALE_ROUNDING:
                return (simple * unit) ** (1 / power)
    return scale


def _measured(path: str, i: int, leaves: Callable[[jax.Array], list[jax.Array]]) -> ParameterLaw:
    """Mean and scale over seeds, of all entries together."""
    calls = [(_key(seed),) for seed in range(_SEEDS)]
    draws = np.stack([part.ravel() for part in _at_once(lambda key: leaves(key)[i], *calls)])
    draws = draws.astype(np.float64)
    mean, scale = draws.mean(), draws.std()
    of_entries = draws.var(axis=0, ddof=1)
    # For equal normal entries this is 2 / (seeds - 1); laws with lighter tails have less.
    uneven = np.var(of_entries) / np.mean(of_entries) ** 2 > 8 / (_SEEDS - 1)
    shifted = np.var(draws.mean(axis=0)) > 4 * scale**2 / _SEEDS
    if draws.shape[1] > 1 and (uneven or shifted):
        raise ValueError(
            f"The entries of the parameter {path} start with means or scales that differ from one "
            "to another, so it is no number times N(0, 1). Split it into parameters of one scale "
            'each, or keep the module\'s own parameterisation: parameterization="own".'
        )
    error = scale / math.sqrt(draws.size)
    return ParameterLaw(path, 0.0 if abs(mean) < 4 * error else float(mean), scale, "measured")


def _with_even_bits(draw: Callable[[jax.Array], list[jax.Array]]) -> list[list[np.ndarray]]:
    """What an initialiser makes of evenly spaced numbers in place of random bits."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    closed = jax.make_jaxpr(draw)(key)
    asked: list[Any] = []

    def recorded(aval: Any) -> jax.Array:
        asked.append(aval)
        return jnp.zeros(aval.shape, aval.dtype)

    def drawn(key: jax.Array, bits: list[jax.Array]) -> list[jax.Array]:
        supply = iter(bits)
        return _evaluate(closed.jaxpr, closed.consts, [key], lambda _: next(supply))

    jax.eval_shape(lambda key: _evaluate(closed.jaxpr, closed.consts, [key], recorded), key)
    bits = [[_even_bits(aval, shift) for aval in asked] for shift in _SHIFTS]
    return _at_once(drawn, *[(_key(0), these) for these in bits])


def _key(seed: int) -> jax.Array:
    with jax.ensure_compile_time_eval():
        return jax.random.key(seed)


def _at_once(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
    """Results of a function, also where JAX is tracing what asks for them."""
    compiled = jax.jit(function).lower(*calls[0]).compile()
    with jax.ensure_compile_time_eval():
        return [jax.tree.map(np.asarray, compiled(*call)) for call in calls]


def _evaluate(jaxpr: Any, consts: Any, arguments: Any, random_bits: Callable[..., Any]) -> Any:
    """Evaluate a program with another source of random bits."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if eqn.primitive.name == "random_bits":
            outputs = [random_bits(eqn.outvars[0].aval)]
        elif isinstance(inner, core.ClosedJaxpr) and len(inner.jaxpr.invars) == len(inputs):
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs, random_bits)
        else:
            bound = eqn.primitive.bind(*inputs, **eqn.params)
            outputs = bound if eqn.primitive.multiple_results else [bound]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _even_bits(aval: Any, shift: float) -> np.ndarray:
    top = 2.0 ** np.iinfo(aval.dtype).bits
    return (_even(math.prod(aval.shape), shift) * top).astype(aval.dtype).reshape(aval.shape)


def _even(size: int, shift: float) -> np.ndarray:
    """Evenly spaced probabilities, of the 23 bits that float32 keeps."""
    return np.floor((np.arange(size) + shift) / max(size, 1) * 2.0**23) / 2.0**23
