"""What each of JAX's operations does to given numbers, parameters and random layers.

A rule is a function of an `Operation` and of its operands, each a `Given`, a `Weights` or a
`Layer`; it returns what the operation makes of them. `RULES` has them by the operation's name in a
jaxpr, and takes more::

    from ntk_uq.networks.read_off import elementwise, rule

    @rule("cbrt")
    def _(operation, x):
        return elementwise(operation, x)

It raises `NoLimitError` where there is no limit, or none that is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from ntk_uq.networks.read_off.moments import Moments
from ntk_uq.networks.read_off.values import (
    Given,
    Layer,
    Weights,
)

__all__ = ["REASONS", "RULES", "Operation", "Value", "on_given", "rule"]

Value = Given | Weights | Layer


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a jaxpr.

    Attributes
    ----------
    name : str
        Of its primitive.
    params : dict
        Of the equation.
    shapes : tuple of tuples
        Of what it returns.
    bind : callable
        The operation itself, on arrays.
    moments : Moments
        Of the fields that layers are made of.
    known : dict
        Fields made so far, so that the same is made once; and how parameters were used.
    """

    name: str
    params: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    bind: Callable[..., Any]
    moments: Moments
    known: dict[Any, Any] = field(default_factory=dict)


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of operations with these names."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def on_given(operation: Operation, *operands: Given) -> Any:
    """The operation itself, point by point."""
    constant = all(o.constant for o in operands)

    def run(*sides: Any) -> Any:
        if constant:
            with jax.ensure_compile_time_eval():
                out = operation.bind(*(side[0] for side in sides))
                return jax.tree.map(lambda a: a[None], out)
        axes = tuple(None if o.constant else 0 for o in operands)
        sides = tuple(s[0] if o.constant else s for s, o in zip(sides, operands, strict=True))
        return jax.vmap(operation.bind, axes)(*sides)

    left = run(*(o.left for o in operands))
    right = left if constant else run(*(o.right for o in operands))
    if isinstance(left, (list, tuple)):
        return [Given(a, b, constant) for a, b in zip(left, right, strict=True)]
    return Given(left, right, constant)


REASONS = {
    "reduce_window_max": "takes the maximum over positions, which has no known limit; an average "
    "(nnx.avg_pool) has one",
    "reduce_max": "takes the maximum of a layer (softmax and maxima do), which has no known limit",
    "reduce_min": "takes the minimum of a layer, which has no known limit",
    "scan": "is a loop over layers; write it as a Python loop over nnx.List",
    "while": "is a loop of unknown length",
    "cond": "takes a branch that depends on a random layer",
    "stop_gradient": "stops the gradient, so that the tangent kernel is of no function",
    "gather": "picks entries by an index; a slice has a limit",
    "sort": "sorts random numbers",
    "argmax": "takes the largest of random numbers",
    "random_bits": "draws random numbers: the network is no function of its parameters and input",
}
