"""Kernels of an infinitely wide module, by carrying out its forward pass on covariances."""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core

from ntk_uq._common.rules import own_rules
from ntk_uq.networks import hermite
from ntk_uq.networks.architecture import TILE, Kernels
from ntk_uq.networks.parameter_laws import ParameterLaw, parameter_names
from ntk_uq.networks.read_off import fields, moments
from ntk_uq.networks.read_off.rules import REASONS, RULES, Operation, on_given
from ntk_uq.networks.read_off.values import Given, Layer, NoLimitError, Weights, gaussian_of

__all__ = [
    "UnreadableError",
    "check_points_apart",
    "is_users",
    "read_kernel_diag",
    "read_kernels",
    "read_off",
    "rows_at_once",
]

_LIBRARIES = (
    *(f"{Path(str(package.__file__)).parent}/" for package in (jax, flax, np)),
    f"{Path(__file__).parents[2]}/",
    "<frozen",
)


def _advice(given: str) -> str:
    """What to do, in a line that can be pasted where a class was given."""
    line = f'nuq.Architecture({given}, kernels="empirical")'
    return (
        f"Take the mean over finite networks, {line}, or give it a kernel_fn=; or train finite "
        "ensembles, which need no kernel."
    )


class UnreadableError(ValueError):
    """A module has an operation whose infinite-width limit is not known."""


class Output(NamedTuple):
    """What a network's output is: a Gaussian field, and the moments that know it."""

    moments: moments.Moments
    field: fields.Field


def read_off(
    module: Any,
    laws: Sequence[ParameterLaw] | None,
    x1: jax.Array,
    x2: jax.Array | None,
    given: str = "module",
) -> Output:
    """The output of an infinitely wide module at two sets of points.

    Parameters
    ----------
    module : nnx.Module
        The network, its parameters abstract.
    laws : sequence of ParameterLaw, optional
        Of its parameters. Without them all start as N(0, 1).
    x1, x2 : arrays of shape [n, *shape]
        Points. Without `x2` those of `x1`.
    given : str
        What `Architecture` was given, in words of a program.

    Raises
    ------
    UnreadableError
        If an operation has no limit, or none that is known.
    """
    leaves, structure = jax.tree.flatten(module)
    name = type(getattr(module, "network", module)).__name__

    def forward(leaves: list[Any], point: jax.Array) -> jax.Array:
        return jnp.squeeze(jax.tree.unflatten(structure, leaves)(point[None]), 0)

    like = [jax.ShapeDtypeStruct(leaf.shape, x1.dtype) for leaf in leaves]
    point = jax.ShapeDtypeStruct(x1.shape[1:], x1.dtype)
    with own_rules():
        closed = jax.make_jaxpr(forward)(like, point)
        if laws is None:
            parameters = [
                _parameter(path, 0.0, 1.0, leaf)
                for path, leaf in zip(parameter_names(module), leaves, strict=True)
            ]
        else:
            parameters = [
                _parameter(law.path, law.mean, law.scale, leaf)
                for law, leaf in zip(laws, leaves, strict=True)
            ]
        of_fields = moments.Moments(x2 is None)
        right = x1 if x2 is None else x2
        known: dict[Any, Any] = {"outputs": _output_size(closed.out_avals[0].shape, like)}
        run = _Run(of_fields, known, name, given)
        (out,) = run.evaluate(closed.jaxpr, closed.consts, [*parameters, Given(x1, right)])
    return Output(of_fields, _output_field(out, name, given))


def _output_size(shape: tuple[int, ...], like: list[Any]) -> Any:
    """Outputs, where no hidden layer has as many units."""
    size = shape[-1] if shape else 1
    return size if sum(size in leaf.shape for leaf in like) <= 2 else None


def _parameter(path: str, mean: float, scale: float, leaf: Any) -> Weights:
    axes = tuple(((k, size),) for k, size in enumerate(leaf.shape))
    return Weights(path, mean, scale, 1.0, axes)


def _output_field(out: Any, name: str, given: str) -> fields.Field:
    if isinstance(out, Layer) and not out.positions and len(out.parts) == 1:
        gaussian = gaussian_of(out.parts[0][1])
        if gaussian:
            u, a, b = gaussian
            return fields.Combination(u.positions, True, ((a, u),), b)
    raise UnreadableError(
        f"{name} has outputs that are not Gaussian in the limit of infinite width: its last "
        "operation must be a product with a parameter, outputs [n, C] (of logits: softmax belongs "
        f"to the likelihood). {_advice(given)}"
    )


class _Run(NamedTuple):
    """Evaluation of a jaxpr on given numbers, parameters and random layers."""

    moments: moments.Moments
    known: dict[Any, Any]
    name: str
    given: str

    def evaluate(
        self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], site: Any = None
    ) -> list[Any]:
        """Results of a program; what it is called from stands at `site`.

        JAX traces a function once and keeps where it was first called from: only an operation of
        the module itself knows its line.
        """
        values: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            if isinstance(atom, core.Literal):
                return _constant(atom.val)
            return values[atom]

        for variable, const in zip(jaxpr.constvars, consts, strict=True):
            values[variable] = _constant(const)
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [read(atom) for atom in eqn.invars], site or eqn)
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Any], site: Any) -> list[Any]:
        name = eqn.primitive.name
        given = all(isinstance(value, Given) for value in inputs)
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if inner is not None and name not in ("scan", "while", "cond"):
            inner = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            if name.startswith("custom_") and not given and not _derives_as_it_is(eqn, inner):
                raise self._unreadable(name, site, "has a derivative that is not of its values")
            return self.evaluate(inner.jaxpr, inner.consts, inputs, site)
        operation = Operation(
            name,
            eqn.params,
            tuple(v.aval.shape for v in eqn.outvars),
            functools.partial(_bind, eqn),
            self.moments,
            self.known,
        )
        try:
            if given:
                out = on_given(operation, *inputs)
            elif name in RULES:
                out = RULES[name](operation, *inputs)
            else:
                raise NoLimitError(REASONS.get(name, "is an operation without a rule"))
        except (NoLimitError, hermite.NoMomentError) as error:
            raise self._unreadable(name, site, str(error).rstrip(".")) from None
        return list(out) if isinstance(out, (list, tuple)) else [out]

    def _unreadable(self, operation: str, site: Any, reason: str) -> UnreadableError:
        return UnreadableError(
            f"The kernels of {self.name} cannot be read off: {operation}, {_line(site)}, {reason}. "
            f"{_advice(self.given)}"
        )


def _numbers(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def _derives_as_it_is(eqn: Any, inner: core.ClosedJaxpr) -> bool:
    """Whether a function with a derivative of its own has the one that follows from its values."""
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in (*inner.in_avals, *inner.out_avals)):
        return True

    def pulled_back(function: Any) -> Any:
        # Numbers of each argument's own: where two are equal, logaddexp has a kink on its way.
        arguments = [_numbers(a.shape, a.dtype, i) for i, a in enumerate(inner.in_avals)]
        outputs, pull = jax.vjp(lambda *a: list(function(*a)), *arguments)
        return pull([_numbers(out.shape, out.dtype) for out in outputs])

    with jax.ensure_compile_time_eval():
        own = pulled_back(functools.partial(_again, eqn))
        plain = pulled_back(core.jaxpr_as_fun(inner))
        return all(
            np.allclose(a, b, rtol=1e-3, atol=1e-3 * np.nanmax(np.abs(b), initial=0),
                        equal_nan=True)
            for a, b in zip(own, plain, strict=True)
        )  # fmt: skip


def _again(eqn: Any, *arguments: Any) -> list[Any]:
    """Results of an equation for other arguments."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    out = eqn.primitive.bind(*functions, *arguments, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _bind(eqn: Any, *arrays: Any) -> Any:
    dtype = jnp.result_type(float)
    arrays = tuple(
        jnp.asarray(a, dtype) if jnp.issubdtype(jnp.asarray(a).dtype, jnp.floating) else a
        for a in arrays
    )
    if eqn.primitive.name == "convert_element_type" and jnp.issubdtype(
        eqn.params["new_dtype"], jnp.floating
    ):
        return jnp.asarray(arrays[0], dtype)
    return eqn.primitive.bind(*arrays, **eqn.params)


def _constant(value: Any) -> Given:
    array = np.asarray(value)[None]
    return Given(array, array, True)


def _line(eqn: Any) -> str:
    """Where the user's code has an operation."""
    frames = eqn.source_info.traceback.frames if eqn.source_info.traceback else []
    for frame in frames:
        if not frame.file_name.startswith(_LIBRARIES):
            line = getattr(frame, "line_num", getattr(frame, "start_line", 0))
            return f"{frame.file_name}:{line} ({frame.function_name})"
    return "in a library"


def is_users(frame: Any) -> bool:
    """Whether a line of a traceback is of the user's own code."""
    return not frame.filename.startswith(_LIBRARIES)


# Outputs of the module that is read: a number that is no hidden layer's.
_OUTPUTS = 89


@functools.lru_cache(maxsize=256)
def check_points_apart(architecture: Any, shape: tuple[int, ...]) -> None:
    """Refuse a network whose output at a point depends on the other points of its batch.

    Kernels are read off at one point, where the mean of a batch is the point itself.

    Parameters
    ----------
    architecture : Architecture
        The network; small ones are drawn from it.
    shape : tuple of int
        Of a point.

    Raises
    ------
    UnreadableError
        Names the operation and its line.
    """
    in_features = shape[0] if len(shape) == 1 else shape
    # In the parameters' precision: a convolution takes no other.
    first, second, third = _numbers((3, *shape), jnp.result_type(float))

    def forward(network: Any, x: jax.Array) -> jax.Array:
        return architecture.apply(network, x)

    def outputs(x: list[jax.Array]) -> Any:
        network = architecture.init(jax.random.key(0), in_features, 2)
        both, with_third, other_first, alone = (forward(network, part) for part in x)
        return network, [(both[0], with_third[0]), (both[1], other_first[1]), (both[0], alone[0])]

    batches = [np.stack([first, second]), np.stack([first, third]), np.stack([third, second])]
    program = jax.jit(outputs).lower([*batches, first[None]]).compile()
    with jax.ensure_compile_time_eval():
        network, pairs = program([*batches, first[None]])
        if all(_close(np.asarray(a, float), np.asarray(b, float), 1e-4) for a, b in pairs):
            return
    closed = jax.make_jaxpr(forward)(network, batches[0])
    name = architecture.module
    name = getattr(name, "__name__", type(name).__name__)
    with jax.ensure_compile_time_eval():
        mixes = _mixing(closed, [[*jax.tree.leaves(network), x] for x in batches], None)
    how = f"{mixes[0]}, {_line(mixes[1])}, combines them" if mixes else "it depends on their number"
    raise UnreadableError(
        f"{name} is no function of one point, its output depends on the others of the batch: {how}."
        " Such a network has no kernels, and predictions that depend on what else is predicted: "
        "take this out."
    )


def _close(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return np.allclose(a, b, rtol=0, atol=tolerance * np.nanmax(np.abs(b), initial=0),
                       equal_nan=True)  # fmt: skip


def _mixing(closed: core.ClosedJaxpr, runs: list[list[Any]], site: Any) -> Any:
    """The first operation of which an entry depends on both points; else the results.

    runs : inputs at two points, and with the second or the first exchanged.
    """
    jaxpr = closed.jaxpr
    known: list[dict[Any, Any]] = []
    for run in runs:
        known.append(dict(zip(jaxpr.constvars, closed.consts, strict=True)))
        known[-1].update(zip(jaxpr.invars, run, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [
            [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in eqn.invars]
            for values in known
        ]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if isinstance(inner, core.ClosedJaxpr) and len(inner.jaxpr.invars) == len(eqn.invars):
            mixes = _mixing(inner, inputs, site or eqn)
            if mixes:
                return mixes
            outputs = [core.jaxpr_as_fun(inner)(*these) for these in inputs]
        else:
            outputs = [_again(eqn, *these) for these in inputs]
        for variable, both, second, first in zip(eqn.outvars, *outputs, strict=True):
            if np.any((np.asarray(second) != both) & (np.asarray(first) != both)):
                return eqn.primitive.name, site or eqn
            for values, out in zip(known, (both, second, first), strict=True):
                values[variable] = out
    return None


def _of_architecture(architecture: Any, x1: jax.Array, x2: jax.Array | None) -> Output:
    shape = x1.shape[1:]
    check_points_apart(architecture, shape)
    in_features = shape[0] if len(shape) == 1 else shape
    module = nnx.eval_shape(lambda: architecture.build(in_features, _OUTPUTS, rngs=nnx.Rngs(0)))
    laws = None
    if not architecture._standard_normal:
        laws = architecture.laws(in_features, _OUTPUTS)
    return read_off(module, laws, x1, x2, _given(architecture))


def _given(architecture: Any) -> str:
    """A class by its name, with its settings; others have none that a user's program knows."""
    factory = architecture.module
    name = factory.__name__ if isinstance(factory, type) else "module"
    settings = {"width": None, "parameterization": "ntk", "b_std": 0.3}
    given = {key: getattr(architecture, key, usual) for key, usual in settings.items()}
    return name + "".join(f", {k}={json.dumps(v)}" for k, v in given.items() if v != settings[k])


@functools.partial(jax.jit, static_argnums=0)
def read_kernels(architecture: Any, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
    """Kernels [n1, n2] of an architecture, read off its module."""
    shape = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    found = _of_architecture(architecture, x1, x2)
    return _kernels(found, shape, "12", _given(architecture))


@functools.partial(jax.jit, static_argnums=0)
def read_kernel_diag(architecture: Any, x: jax.Array) -> Kernels:
    """Diagonals [n] of the kernels of an architecture, read off its module."""
    found = _of_architecture(architecture, x, None)
    return _kernels(found, x.shape[:1], "11", _given(architecture))


def rows_at_once(point: np.ndarray, bytes_: int = 2**26) -> int:
    """Points on a side of a block: of images, covariances between all positions of each pair."""
    positions = math.prod(point.shape[:-1]) if point.ndim > 1 else 1
    return int(np.clip(math.isqrt(bytes_ // (8 * positions**2)), 1, TILE))


def _kernels(output: Output, shape: tuple[int, ...], pairs: moments.Pairs, given: str) -> Kernels:
    """NNGP kernel and NTK of the outputs, [n1, n2] or, of each point with itself, [n]."""
    try:
        found = [
            moment(output.field, output.field, pairs, False)
            for moment in (output.moments.second, output.moments.tangent)
        ]
    except moments.DependentError:
        raise UnreadableError(
            "The kernels cannot be read off: products of layers that depend on one another meet "
            f"in one layer. {_advice(given)}"
        ) from None
    except hermite.NoMomentError as error:
        raise UnreadableError(f"The kernels cannot be read off. {error} {_advice(given)}") from None
    return Kernels(*(jnp.zeros(shape) if k is None else jnp.broadcast_to(k, shape) for k in found))
