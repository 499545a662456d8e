"""Architectures of the user's own: files do not hold them, and know them again."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np

from ntk_uq._common.rules import own_rules
from ntk_uq.ensemble.members import in_features
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.kernel_function import KernelFunction
from ntk_uq.networks.linearized import Linearized
from ntk_uq.persistence.archive import RefusedError
from ntk_uq.persistence.classes import name_of

__all__ = [
    "SUPPLIED",
    "as_saved",
    "check_architecture",
    "check_fingerprint",
    "fingerprint",
    "is_supplied",
]

# In the place of an architecture that a file cannot hold.
SUPPLIED = "supplied"
# Outputs and kernels of an architecture of the user's are recognised to this: rounding differs
# between machines.
_FINGERPRINT_TOLERANCE = 1e-4


def is_supplied(value: Any) -> TypeGuard[BaseArchitecture]:
    """Whether a file leaves an architecture out, to be given to `load`: one of the user's own."""
    if not isinstance(value, BaseArchitecture):
        return False
    if value.holds_functions:
        return True
    if name_of(type(value)) is not None:
        return False
    if type(value).__module__.partition(".")[0] == "ntk_uq":
        raise ValueError(
            f"{type(value).__name__} is an architecture of ntk_uq that files do not know: "
            "ntk_uq.networks must show it."
        )
    return True


def fingerprint(architecture: BaseArchitecture, shape: Any, outputs: int) -> dict[str, Any]:
    """What an architecture computes at a few points: it has no other identity."""
    points = np.sin(1.0 + np.arange(3 * math.prod(shape))).reshape(3, *shape)
    prints: dict[str, Any] = {}
    if not isinstance(architecture, KernelFunction):  # which has no networks
        with own_rules(), jax.enable_x64(False):
            x = jnp.asarray(points, jnp.float32)
            network = architecture.init(jax.random.key(0), in_features(x), outputs)
            prints["network"] = np.asarray(architecture.apply(network, x))
            if isinstance(architecture, Linearized):
                prints["tangent"] = architecture.tangent.own_kernel(points)
    try:
        prints.update(architecture.kernels(points)._asdict())
    except ValueError:  # it has none
        pass
    return prints


# What a file says of what it left out, by the kind that its card names, and what is given for it.
_LEFT_OUT = {
    "KernelFunction": ("a kernel function", "nuq.KernelFunction(kernel)"),
    "Linearized": ("a trained network", "nuq.Linearized(model)"),
}


def check_architecture(recorded: Any, given: Any, path: Path, kind: str | None = None) -> None:
    """Refuse to load without the architecture that a file left out, or with one that it holds."""
    what, how = _LEFT_OUT.get(kind or "", ("an architecture", "..."))
    if recorded is not None and given is None:
        raise RefusedError(
            f"{path} was fitted with {what} of its user's, which no file can hold: give the same "
            f"one, nuq.load(path, architecture={how})."
        )
    if recorded is None and given is not None:
        raise RefusedError(f"{path} holds its architecture: leave out architecture={given!r}.")
    if not (given is None or isinstance(given, BaseArchitecture)):
        raise RefusedError(
            "architecture takes an ntk_uq architecture, nuq.Architecture(...) for example, or a "
            f"kernel function as nuq.KernelFunction(kernel); got {given!r}."
        )


def as_saved(recorded: Any, given: Any, path: Path) -> Any:
    """The architecture that is given, with the numbers of a trained network that a file holds."""
    if "arrays" not in recorded:
        return given
    if not isinstance(given, Linearized):
        raise RefusedError(
            f"{path} was fitted with a trained network, whose parameters it holds: give "
            "architecture=Linearized(model) with a model of the same class, trained or not."
        )
    try:
        return given.with_arrays(recorded["arrays"])
    except ValueError as error:
        raise RefusedError(
            f"{path} was fitted with another trained network: {error}. Give a model of the same "
            "class, with the same choice of parameters."
        ) from None


def check_fingerprint(recorded: Any, given: Any, path: Path) -> None:
    """Refuse an architecture that computes something else than the one of the file."""
    different = _differences(recorded, given)
    if not different:
        return
    advice = ""
    if getattr(given, "parameterization", None) == "ntk":
        own = replace(cast(Any, given), parameterization="own")
        if not _differences(recorded, own):
            advice = (
                " It is, with its module in its own parameterisation, as Architecture once was by "
                'default: give Architecture(..., parameterization="own").'
            )
    raise RefusedError(
        f"The architecture that is given is not the one that {path} was fitted with: its "
        f"{different[0]} differs at the same points.{advice}"
    )


def _differences(recorded: Any, given: Any) -> list[str]:
    """What an architecture computes otherwise than the one of the file."""
    tolerance = _FINGERPRINT_TOLERANCE
    there = recorded["prints"]
    here = fingerprint(given, recorded["shape"], recorded["outputs"])
    return [
        name
        for name in there
        if name not in here
        or here[name].shape != there[name].shape
        or not np.allclose(here[name], there[name], rtol=tolerance, atol=tolerance)
    ]
