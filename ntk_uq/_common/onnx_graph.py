"""A function of JAX as an ONNX graph: each primitive of its jaxpr is an operator or a few.

What depends on constants alone is computed now. Broadcasts are left to ONNX, whose elementwise
operators do them, until something else needs the whole array.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

__all__ = ["onnx_model"]

_OPSET, _IR_VERSION = 18, 10
_UNARY = {
    "neg": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "abs": "Abs",
    "sign": "Sign", "sin": "Sin", "cos": "Cos", "erf": "Erf", "logistic": "Sigmoid",
    "floor": "Floor", "not": "Not",
}  # fmt: skip
_BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
    "pow": "Pow", "and": "And", "or": "Or", "eq": "Equal", "lt": "Less", "le": "LessOrEqual",
    "gt": "Greater", "ge": "GreaterOrEqual", "add_any": "Add",
}  # fmt: skip
_REDUCED = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_SAME = {"stop_gradient", "optimization_barrier", "copy", "copy_p", "reduce_precision"}
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
# Primitives that take functions, or the number of points.
_NOT_BOUND = {"custom_jvp_call", "custom_vjp_call", "dim_as_value"}
# Operators that onnxruntime has in single precision alone.
_SINGLE = {"Erf"}


class _Value(NamedTuple):
    """A name in the graph, or a constant; `whole` unless it has still to be broadcast."""

    held: str | NDArray | jax.Array
    whole: bool = True


def onnx_model(
    function: Callable[..., Any], n_features: int, names: Sequence[str], double: bool
) -> Any:
    """The model that computes a function of points, of any number of them.

    Parameters
    ----------
    function : callable
        ``function(X)`` of points [m, d] gives a tuple of arrays; it can be traced.
    n_features : int
        d.
    names : sequence of str
        Of the outputs.
    double : bool
        Whether points and all that is computed are in double precision, else in single.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    NotImplementedError
        If the function has an operation for which ONNX has none.
    """
    import onnx

    dtype = np.dtype(np.float64 if double else np.float32)
    with jax.enable_x64(double):
        (m,) = jax.export.symbolic_shape("m")
        closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((m, n_features), dtype))
        graph = _Graph(onnx, _Counter())
        size = graph.node("Shape", "X", start=0, end=1)
        graph.size = size
        found = graph.run(closed, [_Value("X")])
        outputs = []
        for name, value, var in zip(names, found, _jaxpr(closed).outvars, strict=True):
            graph.node("Identity", graph.whole(value, var.aval), name=name)
            shape = ["m" if not isinstance(n, int) else n for n in var.aval.shape]
            outputs.append(onnx.helper.make_tensor_value_info(name, _type(onnx, dtype), shape))
    points = onnx.helper.make_tensor_value_info("X", _type(onnx, dtype), ["m", n_features])
    nodes, constants = _live(graph, names)
    made = onnx.helper.make_graph(nodes, "ntk_uq", [points], outputs, constants)
    return onnx.helper.make_model(
        made,
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="ntk_uq",
    )


class _Counter:
    """Names, each once in all graphs of a model."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"v{self.count}"


class _Graph:
    """Nodes of a graph, or of a branch within it."""

    size: str  # the number of points, [1]

    def __init__(self, onnx: Any, new_name: _Counter):
        self.onnx, self.new_name = onnx, new_name
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    # What a graph is made of.

    def node(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add an operator; the name of its output."""
        name = name or self.new_name()
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Any) -> str:
        """Add a constant; its name."""
        name = self.new_name()
        contiguous = np.array(array, order="C", ndmin=0)
        self.constants.append(self.onnx.numpy_helper.from_array(contiguous, name))
        return name

    def name(self, value: _Value) -> str:
        """A value's name, not broadcast yet."""
        return value.held if isinstance(value.held, str) else self.constant(value.held)

    def whole(self, value: _Value, aval: Any) -> str:
        """A value's name, in its shape."""
        name = self.name(value)
        return name if value.whole else self.node("Expand", name, self.shape(aval.shape))

    def shape(self, sizes: Sequence[Any]) -> str:
        """A shape as a vector of integers."""
        if all(isinstance(n, int) for n in sizes):
            return self.constant(np.array(sizes, np.int64))
        parts = [
            self.constant(np.array([n], np.int64)) if isinstance(n, int) else self._symbol(n)
            for n in sizes
        ]
        return self.node("Concat", *parts, axis=0)

    def _symbol(self, n: Any) -> str:
        if str(n) != "m":
            raise NotImplementedError(f"an array with {n} rows for m points")
        return self.size

    # A jaxpr, equation by equation.

    def run(self, closed: Any, arguments: Sequence[_Value]) -> list[_Value]:
        """The values of a jaxpr at its arguments."""
        jaxpr, values = _jaxpr(closed), {}
        for var, const in zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True):
            values[var] = _constant(const)
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def value(atom: Any) -> _Value:
            if hasattr(atom, "val"):  # a literal, perhaps a number of Python
                return _Value(np.asarray(atom.val, atom.aval.dtype))
            return values[atom]

        for eqn in jaxpr.eqns:
            results = self.apply(eqn, [value(atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def apply(self, eqn: Any, given: list[_Value]) -> list[_Value]:
        """The values of an equation."""
        name, params = eqn.primitive.name, eqn.params
        inner = next((params[key] for key in _INNER if key in params), None)
        if all(not isinstance(v.held, str) and v.whole for v in given) and _can_bind(eqn):
            out = eqn.primitive.bind(*(jnp.asarray(v.held) for v in given), **params)
            outs = out if eqn.primitive.multiple_results else [out]
            return [_constant(value) for value in outs]
        if name == "scan":
            return self._scan(eqn, given)
        if name == "cond":
            return self._cond(eqn, given)
        if inner is not None:
            return self.run(inner, given)
        if name in _SAME:
            return given
        return [self._operator(name, eqn, given)]

    def _operator(self, name: str, eqn: Any, given: list[_Value]) -> _Value:
        elementwise = getattr(self, f"_{name}", None)
        if name in _UNARY or name in _BINARY or name in _ELEMENTWISE:
            names = [self.name(value) for value in given]
            # Broadcast from arrays of fewer axes as ONNX does, from the last axis on.
            if name in _UNARY or name in _BINARY:
                made = self._simple(_UNARY.get(name) or _BINARY[name], names, eqn)
            else:
                made = elementwise(names, eqn)  # type: ignore[misc]
            return _Value(made, any(v.whole and _shape_of(v, a) == eqn.outvars[0].aval.shape
                                    for v, a in zip(given, eqn.invars, strict=True)))  # fmt: skip
        if name == "broadcast_in_dim":
            return self._broadcast(eqn, given[0])
        if name == "triangular_solve":  # whose matrix itself is not in the graph
            right = self.whole(given[1], eqn.invars[1].aval)
            return _Value(self._triangular_solve(given[0].held, right, eqn.params))
        if name == "gather":  # what JAX makes of a slice of any number of points
            return _Value(
                self._part(self.whole(given[0], eqn.invars[0].aval), given[1].held, eqn.params)
            )
        if elementwise is None and name not in _REDUCED:
            raise NotImplementedError(f"the operation {name}")
        names = [self.whole(v, atom.aval) for v, atom in zip(given, eqn.invars, strict=True)]
        if name in _REDUCED:
            axes = self.constant(np.array(eqn.params["axes"], np.int64))
            return _Value(self.node(_REDUCED[name], names[0], axes, keepdims=0))
        return _Value(elementwise(names, eqn))  # type: ignore[misc]

    def _simple(self, op: str, names: list[str], eqn: Any) -> str:
        if op not in _SINGLE:
            return self.node(op, *names)
        single = [self.node("Cast", n, to=_type(self.onnx, np.dtype(np.float32))) for n in names]
        return self.node(
            "Cast", self.node(op, *single), to=_type(self.onnx, eqn.outvars[0].aval.dtype)
        )

    def _broadcast(self, eqn: Any, value: _Value) -> _Value:
        shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
        name = self.whole(value, eqn.invars[0].aval)
        new = [axis for axis in range(len(shape)) if axis not in dims]
        if new:
            name = self.node("Unsqueeze", name, self.constant(np.array(new, np.int64)))
        there = dict(zip(dims, eqn.invars[0].aval.shape, strict=True))
        return _Value(name, all(there.get(axis, 1) == n for axis, n in enumerate(shape)))

    def _scan(self, eqn: Any, given: list[_Value]) -> list[_Value]:
        p = eqn.params
        if not isinstance(p["length"], int):
            raise NotImplementedError("a loop over points")
        n_consts, n_carry = _scan_counts(p)
        n_fixed = n_consts + n_carry
        fixed, carry = given[:n_consts], given[n_consts:n_fixed]
        xs = [
            value if not isinstance(value.held, str) else _Value(self.whole(value, atom.aval))
            for value, atom in zip(given[n_fixed:], eqn.invars[n_fixed:], strict=True)
        ]
        steps: list[list[str]] = []
        order = range(p["length"])
        for i in reversed(order) if p["reverse"] else order:
            sliced = [self._item(x, i) for x in xs]
            found = self.run(p["jaxpr"], [*fixed, *carry, *sliced])
            carry, outs = found[:n_carry], _jaxpr(p["jaxpr"]).outvars[n_carry:]
            steps.append(
                [self.whole(v, o.aval) for v, o in zip(found[n_carry:], outs, strict=True)]
            )
        if p["reverse"]:
            steps.reverse()
        zero = self.constant(np.array([0], np.int64))
        stacked = [
            self.node("Concat", *(self.node("Unsqueeze", y, zero) for y in ys), axis=0)
            for ys in zip(*steps, strict=True)
        ]
        return [*carry, *map(_Value, stacked)]

    def _item(self, value: _Value, i: int) -> _Value:
        if not isinstance(value.held, str):
            return _Value(value.held[i])
        return _Value(self.node("Gather", value.held, self.constant(np.int64(i)), axis=0))

    def _cond(self, eqn: Any, given: list[_Value]) -> list[_Value]:
        branches, (index, *operands) = eqn.params["branches"], given
        if not isinstance(index.held, str):
            return self.run(branches[int(index.held)], operands)
        if len(branches) != 2:
            raise NotImplementedError("a choice among more than two")
        made = []
        for branch in branches:
            inner = _Graph(self.onnx, self.new_name)
            inner.size = self.size
            found, outs = inner.run(branch, operands), _jaxpr(branch).outvars
            names = [
                inner.node("Identity", inner.whole(v, o.aval))
                for v, o in zip(found, outs, strict=True)
            ]
            infos = [
                self.onnx.helper.make_tensor_value_info(n, _type(self.onnx, o.aval.dtype), None)
                for n, o in zip(names, outs, strict=True)
            ]
            made.append(
                self.onnx.helper.make_graph(inner.nodes, "branch", [], infos, inner.constants)
            )
        chosen = self.node("Cast", self.name(index), to=self.onnx.TensorProto.BOOL)
        names = [self.new_name() for _ in eqn.outvars]
        self.nodes.append(
            self.onnx.helper.make_node(
                "If", [chosen], names, then_branch=made[1], else_branch=made[0]
            )
        )
        return [_Value(name) for name in names]

    # Operators, by the names of primitives.

    def _ne(self, names: list[str], eqn: Any) -> str:
        return self.node("Not", self.node("Equal", *names))

    def _select_n(self, names: list[str], eqn: Any) -> str:
        which = names[0]
        if eqn.invars[0].aval.dtype != np.bool_:
            which = self.node("Cast", which, to=self.onnx.TensorProto.BOOL)
        if eqn.outvars[0].aval.dtype != np.bool_:
            return self.node("Where", which, names[2], names[1])
        # Which onnxruntime has for numbers alone.
        yes = self.node("And", which, names[2])
        return self.node("Or", yes, self.node("And", self.node("Not", which), names[1]))

    def _convert_element_type(self, names: list[str], eqn: Any) -> str:
        return self.node("Cast", names[0], to=_type(self.onnx, eqn.outvars[0].aval.dtype))

    def _integer_pow(self, names: list[str], eqn: Any) -> str:
        power = np.asarray(eqn.params["y"], eqn.invars[0].aval.dtype)
        return self.node("Pow", names[0], self.constant(power))

    def _square(self, names: list[str], eqn: Any) -> str:
        return self.node("Mul", names[0], names[0])

    def _rsqrt(self, names: list[str], eqn: Any) -> str:
        return self.node("Reciprocal", self.node("Sqrt", names[0]))

    def _one(self, eqn: Any) -> str:
        return self.constant(np.ones((), eqn.invars[0].aval.dtype))

    def _log1p(self, names: list[str], eqn: Any) -> str:
        return self.node("Log", self.node("Add", names[0], self._one(eqn)))

    def _expm1(self, names: list[str], eqn: Any) -> str:
        return self.node("Sub", self.node("Exp", names[0]), self._one(eqn))

    def _asinh(self, names: list[str], eqn: Any) -> str:
        size = self.node("Abs", names[0])
        root = self.node("Sqrt", self.node("Add", self.node("Mul", size, size), self._one(eqn)))
        return self.node(
            "Mul", self.node("Sign", names[0]), self.node("Log", self.node("Add", size, root))
        )

    def _clamp(self, names: list[str], eqn: Any) -> str:
        low, value, high = names
        return self.node("Min", self.node("Max", value, low), high)

    def _dim_as_value(self, names: list[str], eqn: Any) -> str:
        scalar = self.node("Squeeze", self._symbol(eqn.params["dim"]))
        return self.node("Cast", scalar, to=_type(self.onnx, eqn.outvars[0].aval.dtype))

    def _reduce_or(self, names: list[str], eqn: Any, op: str = "ReduceMax") -> str:
        numbers = self.node("Cast", names[0], to=self.onnx.TensorProto.INT32)
        axes = self.constant(np.array(eqn.params["axes"], np.int64))
        reduced = self.node(op, numbers, axes, keepdims=0)
        return self.node("Cast", reduced, to=self.onnx.TensorProto.BOOL)

    def _reduce_and(self, names: list[str], eqn: Any) -> str:
        return self._reduce_or(names, eqn, "ReduceMin")

    def _transpose(self, names: list[str], eqn: Any) -> str:
        return self.node("Transpose", names[0], perm=list(eqn.params["permutation"]))

    def _reshape(self, names: list[str], eqn: Any) -> str:
        return self.node("Reshape", names[0], self.shape(eqn.params["new_sizes"]))

    def _squeeze(self, names: list[str], eqn: Any) -> str:
        return self.node(
            "Squeeze", names[0], self.constant(np.array(eqn.params["dimensions"], np.int64))
        )

    def _concatenate(self, names: list[str], eqn: Any) -> str:
        return self.node("Concat", *names, axis=eqn.params["dimension"])

    def _stack(self, names: list[str], eqn: Any) -> str:
        axis = eqn.params["axis"]
        where = self.constant(np.array([axis], np.int64))
        return self.node("Concat", *(self.node("Unsqueeze", n, where) for n in names), axis=axis)

    def _dot_general(self, names: list[str], eqn: Any) -> str:
        (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
        ranks = [len(atom.aval.shape) for atom in eqn.invars]
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        left = [next(letters) for _ in range(ranks[0])]
        right = [""] * ranks[1]
        for i, j in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
            right[j] = left[i]
        right = [letter or next(letters) for letter in right]
        out = [left[i] for i in left_batch]
        out += [c for i, c in enumerate(left) if i not in (*left_sum, *left_batch)]
        out += [c for j, c in enumerate(right) if j not in (*right_sum, *right_batch)]
        if (ranks, left_sum, right_sum, left_batch) == ([2, 2], (1,), (0,), ()):
            return self.node("MatMul", *names)
        equation = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
        return self.node("Einsum", *names, equation=equation)

    def _part(self, name: str, start: Any, p: Any) -> str:
        numbers = p["dimension_numbers"]
        if not isinstance(start, np.ndarray) or start.ndim != 1 or numbers.collapsed_slice_dims:
            raise NotImplementedError("the operation gather")
        axes = list(numbers.start_index_map)
        end = start + [p["slice_sizes"][axis] for axis in axes]
        where = [self.constant(np.asarray(at, np.int64)) for at in (start, end, axes)]
        return self.node("Slice", name, *where)

    def _triangular_solve(self, matrix: Any, right: str, p: Any) -> str:
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
            raise NotImplementedError("a triangular system that depends on the points")
        inverse = solve_triangular(
            matrix, np.eye(len(matrix)), lower=p["lower"], unit_diagonal=p["unit_diagonal"]
        ).astype(matrix.dtype)
        name = self.constant(inverse.T if p["transpose_a"] else inverse)
        return self.node("MatMul", *((name, right) if p["left_side"] else (right, name)))


_ELEMENTWISE = {
    "ne", "select_n", "convert_element_type", "integer_pow", "square", "rsqrt", "log1p", "expm1",
    "asinh", "clamp",
}  # fmt: skip


def _live(graph: _Graph, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Nodes and constants that the outputs depend on."""
    needed, nodes = set(outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            nodes.append(node)
            needed |= _inputs(node)
    return nodes[::-1], [constant for constant in graph.constants if constant.name in needed]


def _inputs(node: Any) -> set[str]:
    """Names that a node takes, those in its branches included."""
    branches = [inner for attribute in node.attribute for inner in attribute.g.node]
    return set(node.input).union(*map(_inputs, branches))


def _scan_counts(params: Any) -> tuple[int, int]:
    """How many operands of a loop are the same in every step, and how many are carried on."""
    if "num_consts" in params:  # JAX < 0.12
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(tuple(consts.vals)), len(tuple(carry.vals))


def _constant(value: Any) -> _Value:
    """Of NumPy; keys of random numbers, which never reach the graph, are JAX's."""
    is_key = jnp.issubdtype(getattr(value, "dtype", None) or np.float64, jax.dtypes.prng_key)
    return _Value(value if is_key else np.asarray(value))


def _jaxpr(closed: Any) -> Any:
    return getattr(closed, "jaxpr", closed)


def _shape_of(value: _Value, atom: Any) -> tuple[Any, ...]:
    return value.held.shape if not isinstance(value.held, str) else atom.aval.shape


def _can_bind(eqn: Any) -> bool:
    """Whether an equation of constants can be computed now."""
    shapes = [n for var in eqn.outvars for n in var.aval.shape]
    known = all(isinstance(n, int) for n in shapes)
    return known and eqn.primitive.name not in _NOT_BOUND


def _type(onnx: Any, dtype: Any) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
