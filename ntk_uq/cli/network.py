"""A network of the user's own, from a Python file."""

import argparse
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

__all__ = ["add_network", "own_network", "shipped"]


def add_network(group: Any) -> None:
    """An option for a network of the user's; `own_network` makes it."""
    group.add_argument(
        "--network",
        metavar="FILE.py:NAME",
        help="a Flax network of your own in place of the package's: a class or function NAME of a "
        "Python file that builds it, called as NAME(in_features, out_features, rngs=rngs), or "
        "with width=N too; or an architecture that is made there. The file is run: give none that "
        "you do not trust",
    )


def shipped(arguments: argparse.Namespace, **defaults: Any) -> dict[str, Any]:
    """Settings of the package's own network, by the command line or by default.

    Parameters
    ----------
    arguments : argparse.Namespace
        Of the command; a setting that is not given is None.
    **defaults
        By the name of the setting.

    Raises
    ------
    ValueError
        A setting that is given beside ``--network``, which has its own.
    """
    given = {name: getattr(arguments, name) for name in defaults}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.network and given:
        name = next(iter(given))
        raise ValueError(
            f"--{name} {given[name]} is for the package's own network: leave it out, and set it in "
            f"{arguments.network}."
        )
    return defaults | given


def own_network(text: str, width: int | None = None) -> Any:
    """The architecture in a Python file, which is run, or of a class or function there.

    Parameters
    ----------
    text : str
        ``FILE.py:NAME``.
    width : int, optional
        Given to the class or function, or to the architecture.

    Raises
    ------
    ValueError
        If there is no such network, or it has no width to set.
    """
    from ntk_uq.networks.architecture import BaseArchitecture
    from ntk_uq.networks.own import Architecture

    file, _, name = text.rpartition(":")
    path = Path(file)
    if not (file and name.isidentifier()):
        raise ValueError(f"--network {text} must be FILE.py:NAME, as in network.py:Network")
    if not path.is_file():
        raise ValueError(f"--network {text}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--network {text}: {file} is no Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # its neighbours can be imported, as where it is a script
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(
            f"--network {text}: {file} failed, {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    factory = getattr(module, name, None)
    if factory is None:
        known = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == path.stem]
        raise ValueError(
            f"--network {text}: {file} has no {name}"
            + (f"; it has {', '.join(known)}" * any(known))
        )
    if isinstance(factory, BaseArchitecture):
        return _of_width(factory, width, text)
    if isinstance(factory, type) and issubclass(factory, BaseArchitecture):
        raise ValueError(
            f"--network {text}: {name} is a class of architectures: write net = {name}(...) in "
            f"{file}, with its settings, and give {file}:net"
        )
    try:
        architecture = Architecture(factory)
    except ValueError as error:
        raise ValueError(f"--network {text}: {error}") from None
    return _of_width(architecture, width, text)


def _of_width(architecture: Any, width: int | None, text: str) -> Any:
    """The architecture of the width that was asked for, if one was."""
    from ntk_uq.networks.linearized import Linearized

    if width is None:
        return architecture
    if isinstance(architecture, Linearized):
        raise ValueError(
            f"--network {text} is one trained network, and there is none of another width: give "
            "the class that builds such networks"
        )
    try:
        if hasattr(architecture, "with_width"):
            return architecture.with_width(width)
        return replace(architecture, width=width)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"--network {text} has no width to set ({error}): leave --width out"
        ) from None
