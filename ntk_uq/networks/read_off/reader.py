"""Kernels of an infinitely wide module, by carrying out its forward pass on covariances."""

import functools
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
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.parameter_laws import ParameterLaw
from ntk_uq.networks.read_off import fields
from ntk_uq.networks.read_off.rules import REASONS, RULES, Operation, on_given
from ntk_uq.networks.read_off.values import Given, Layer, NoLimitError, Weights, gaussian_of

__all__ = ["UnreadableError", "read_off"]

_LIBRARIES = tuple(
    f"{Path(package.__file__).parent}/" for package in (jax, flax, np)  # type: ignore[arg-type]
) + (f"{Path(__file__).parents[2]}/", "<frozen")
_ADVICE = (
    'Give Architecture a kernel_fn=, or kernels="empirical", the mean over finite networks; or '
    "train finite ensembles, which need no kernel."
)


class UnreadableError(ValueError):
    """A module has an operation whose infinite-width limit is not known."""


class Output(NamedTuple):
    """What a network's output is: a Gaussian field, and the moments that know it."""

    moments: fields.Moments
    field: fields.Field


def read_off(
    module: Any, laws: Sequence[ParameterLaw], x1: jax.Array, x2: jax.Array | None, *, own: bool
) -> Output:
    """The output of an infinitely wide module at two sets of points.

    Parameters
    ----------
    module : nnx.Module
        The network, its parameters abstract.
    laws : sequence of ParameterLaw
        Of its parameters.
    x1, x2 : arrays of shape [n, *shape]
        Points. Without `x2` those of `x1`.
    own : bool
        Whether parameters are the module's own, else standard normal numbers.

    Raises
    ------
    UnreadableError
        If an operation has no limit, or none that is known.
    """
    leaves, structure = jax.tree.flatten(module)
    name = type(module).__name__

    def forward(leaves: list[Any], point: jax.Array) -> jax.Array:
        return jnp.squeeze(jax.tree.unflatten(structure, leaves)(point[None]), 0)

    like = [jax.ShapeDtypeStruct(leaf.shape, x1.dtype) for leaf in leaves]
    point = jax.ShapeDtypeStruct(x1.shape[1:], x1.dtype)
    with own_rules():
        closed = jax.make_jaxpr(forward)(like, point)
        parameters = [_parameter(law, leaf, own) for law, leaf in zip(laws, leaves, strict=True)]
        moments = fields.Moments(x2 is None)
        right = x1 if x2 is None else x2
        outputs = closed.out_avals[0].shape
        known: dict[Any, Any] = {"own": own, "outputs": _output_size(outputs, like)}
        run = _Run(moments, known, name)
        (out,) = run.evaluate(closed.jaxpr, closed.consts, [*parameters, Given(x1, right)])
    return Output(moments, _output_field(out, name))


def _output_size(shape: tuple[int, ...], like: list[Any]) -> Any:
    """Outputs, where no hidden layer has as many units."""
    size = shape[-1] if shape else 1
    return size if sum(size in leaf.shape for leaf in like) <= 2 else None


def _parameter(law: ParameterLaw, leaf: Any, own: bool) -> Any:
    if law.scale == 0 and not own:
        constant = np.full((1, *leaf.shape), law.mean)
        return Given(constant, constant, True)
    axes = tuple(((k, size),) for k, size in enumerate(leaf.shape))
    return Weights(law.path, law.mean, law.scale, 1.0 if own else law.scale, axes)


def _output_field(out: Any, name: str) -> fields.Field:
    if isinstance(out, Layer) and not out.positions and len(out.parts) == 1:
        gaussian = gaussian_of(out.parts[0][1])
        if gaussian:
            u, a, b = gaussian
            return fields.Combination(u.positions, True, ((a, u),), b)
    raise UnreadableError(
        f"{name} has outputs that are not Gaussian in the limit of infinite width: its last "
        "operation must be a product with a parameter, outputs [n, C] (of logits: softmax belongs "
        f"to the likelihood). {_ADVICE}"
    )


class _Run(NamedTuple):
    """Evaluation of a jaxpr on given numbers, parameters and random layers."""

    moments: fields.Moments
    known: dict[Any, Any]
    name: str

    def evaluate(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        values: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            if isinstance(atom, core.Literal):
                return _constant(atom.val)
            return values[atom]

        for variable, const in zip(jaxpr.constvars, consts, strict=True):
            values[variable] = _constant(const)
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [read(atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        given = all(isinstance(value, Given) for value in inputs)
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if inner is not None and name not in ("scan", "while", "cond"):
            inner = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            return self.evaluate(inner.jaxpr, inner.consts, inputs)
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
        except NoLimitError as error:
            raise UnreadableError(
                f"The kernels of {self.name} cannot be read off: {name}, {_line(eqn)}, {error}. "
                f"{_ADVICE}"
            ) from None
        return list(out) if isinstance(out, (list, tuple)) else [out]


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


def kernels(output: Output, shape: tuple[int, ...], pairs: fields.Pairs) -> Kernels:
    """NNGP kernel and NTK of the outputs, [n1, n2] or, of each point with itself, [n]."""
    try:
        found = [
            moment(output.field, output.field, pairs, False)
            for moment in (output.moments.second, output.moments.tangent)
        ]
    except fields.DependentError:
        raise UnreadableError(
            "The kernels cannot be read off: products of layers that depend on one another meet "
            f"in one layer. {_ADVICE}"
        ) from None
    return Kernels(*(jnp.zeros(shape) if k is None else jnp.broadcast_to(k, shape) for k in found))
