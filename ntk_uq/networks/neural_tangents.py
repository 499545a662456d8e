"""Import neural-tangents on a current JAX, and leave JAX as it was.

neural-tangents 0.6.5, its last release, takes names from JAX that JAX has since removed, and
imports TensorFlow for an experimental converter. Here the removed names exist while neural-tangents
is being imported and not a moment longer; likewise an empty module stands in for the converter.
What neural-tangents took in at import is all that it needs later, except for structured derivatives
(``NtkImplementation.STRUCTURED_DERIVATIVES`` and ``AUTO``), which do not run on a current JAX: call
the empirical kernels with implementation 1 or 2.

Remove this module, and import ``neural_tangents`` itself, once a release of neural-tangents imports
on the oldest and newest JAX that this package supports, without TensorFlow.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import jax
import jax.core
import jax.extend.core
from jax.interpreters import ad

_CONVERTER = "neural_tangents.experimental"


def _safe_map(function: Callable[..., Any], *sequences: Any) -> list[Any]:
    return [function(*items) for items in zip(*sequences, strict=True)]


def _safe_zip(*sequences: Any) -> list[tuple[Any, ...]]:
    return list(zip(*sequences, strict=True))


def _removed_names() -> list[tuple[Any, str, Any]]:
    """Owner, name and value of what neural-tangents 0.6.5 imports and JAX has removed since."""
    util: Any = ModuleType("jax.util")
    util.safe_map, util.safe_zip = _safe_map, _safe_zip
    core = jax.extend.core
    return [
        (jax, "util", util),
        (jax.random, "KeyArray", jax.Array),
        (jax.core, "Jaxpr", core.Jaxpr),
        (jax.core, "JaxprEqn", core.JaxprEqn),
        (jax.core, "Literal", core.Literal),
        (jax.core, "Primitive", core.Primitive),
        (jax.core, "Var", core.Var),
        (ad, "zeros_like_p", core.Primitive("zeros_like")),
    ]


@contextmanager
def _attributes(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Give objects the attributes that they lack, for the time of the context."""
    added = [(owner, name) for owner, name, _ in values if not hasattr(owner, name)]
    for owner, name, value in values:
        if (owner, name) in added:
            setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name in added:
            delattr(owner, name)


@contextmanager
def _modules(values: dict[str, ModuleType]) -> Iterator[None]:
    """Register modules that are not loaded yet, for the time of the context."""
    added = [name for name in values if name not in sys.modules]
    sys.modules.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _import() -> ModuleType:
    if "neural_tangents" in sys.modules:
        return sys.modules["neural_tangents"]
    names = _removed_names()
    stand_in = ModuleType(_CONVERTER)
    with _attributes(names), _modules({"jax.util": names[0][2], _CONVERTER: stand_in}):
        try:
            package: Any = importlib.import_module("neural_tangents")
        except ModuleNotFoundError as error:
            if error.name != "neural_tangents":
                raise
            raise ModuleNotFoundError(
                "The kernels of this architecture come from neural-tangents, which is not "
                "installed: pip install --no-deps neural-tangents==0.6.5, and pip install "
                "frozendict, which leaves out TensorFlow. In a checkout `make env` does so.",
                name="neural_tangents",
            ) from error
    if package.experimental is stand_in:
        del package.experimental  # a later import of the converter finds the real one
    return package


neural_tangents: Any = _import()
stax = neural_tangents.stax
