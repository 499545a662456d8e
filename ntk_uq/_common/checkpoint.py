"""Results of a long run so far, in a directory: a run that was killed goes on from there."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ntk_uq._common.files import (
    ARCHIVE_ERRORS,
    remove_left_behind,
    write_arrays,
    write_atomically,
    write_new,
)
from ntk_uq._common.processes import is_first, once
from ntk_uq._common.warnings import warn_user
from ntk_uq._common.words import shown

__all__ = [
    "Checkpoint",
    "check_directory",
    "digest",
    "name_without_addresses",
    "probes",
    "warn_of_none",
]

_RUN = "run.json"
# Points at which what two runs compute is compared, and how far apart, of their size, values may be
# that another machine has rounded: a deep network in single precision loses four of seven digits.
_PROBES, _ROUNDING = 4, 1e-3

_Run = Mapping[str, str | list[float]]


class Checkpoint:
    """Results of one run, in a directory.

    Parameters
    ----------
    directory : path
        Made if it is not there.
    run : dict of str to str, or to list of floats
        What the results depend on: names and digests, which are compared as they are, and values of
        functions that have no name, such as a lambda's, which another machine may round otherwise.
        A directory of another run is refused.

    Raises
    ------
    ValueError
        If the directory holds something else: another run, or other files.
    """

    def __init__(self, directory: str | os.PathLike, run: _Run):
        self.directory = Path(directory)
        names = {name: value for name, value in run.items() if isinstance(value, str)}
        once(lambda: self._open(run), f"checkpoint {names}")
        if not is_first():  # which may have files of its own
            self._open(run)

    def _open(self, run: _Run) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / _RUN
        if not path.exists():
            _refuse_foreign(self.directory)
            # Of two runs that begin at once one is the first.
            write_new(path, lambda file: file.write(json.dumps(run, indent=2).encode()))
        self._check_same_run(path, run)
        if is_first():
            remove_left_behind(self.directory)

    def load(self, name: str, like: Any) -> Any:
        """What was saved under a name, in the structure of `like`; None if nothing was.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        path = self.directory / f"{name}.npz"
        leaves, structure = jax.tree.flatten(like)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = [archive[str(i)] for i in range(len(leaves))]
        except FileNotFoundError:  # or another process of the same run is done with it
            return None
        except ARCHIVE_ERRORS as error:
            raise ValueError(
                f"{path} is damaged ({error}). Delete this file to compute what it held again; the "
                "other files stay good."
            ) from error
        for array, leaf in zip(arrays, leaves, strict=True):
            if array.shape != leaf.shape or array.dtype != leaf.dtype:
                raise ValueError(
                    f"{path} is from another run: it has {array.dtype}{list(array.shape)} where "
                    f"{leaf.dtype}{list(leaf.shape)} belongs. Use another directory."
                )
        return jax.tree.unflatten(structure, arrays)

    def save(self, name: str, tree: Any) -> None:
        """Save arrays under a name, in place of what it held."""
        arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
        path = self.directory / f"{name}.npz"
        write_atomically(path, lambda file: write_arrays(file, arrays))

    def remove(self, name: str) -> None:
        """Remove what was saved under a name, if anything was."""
        (self.directory / f"{name}.npz").unlink(missing_ok=True)

    @staticmethod
    def _check_same_run(path: Path, run: _Run) -> None:
        try:
            there = json.loads(path.read_bytes())
            different = [name for name in run if not _is_same(run[name], there.get(name))]
            # Of other data functions have other values.
            different = [name for name in different if isinstance(run[name], str)] or different
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): what run its directory belongs to cannot be said. "
                "Use another directory."
            ) from error
        if different:
            raise ValueError(
                f"{path.parent} is the checkpoint of another run: "
                + "; ".join(
                    f"{n} is {_said(run[n])}, there {_said(there.get(n))}" for n in different
                )
                + ". Use another directory, or the same data and arguments."
            )


def check_directory(value: Any) -> None:
    """Refuse what can be no checkpoint, before the work that it is to protect; None is none."""
    if value is None:
        return
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"checkpoint takes the path of a directory, or None; got {shown(value)}.")
    directory = Path(value)
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"checkpoint={str(value)!r} can be no directory: {there} is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"checkpoint={str(value)!r} cannot be written: no permission in {there}.")
    if there == directory:
        _refuse_foreign(directory)


def warn_of_none(value: Any) -> None:
    """Tell who gave a checkpoint to a fit that has none."""
    if value is not None:
        warn_user(
            "checkpoint is for draws with prior functions of networks (of more than 3,000 points, "
            'or prior_functions="networks"): nothing of this fit is kept there, and after an '
            "interrupt it begins anew. Leave checkpoint out."
        )


def _refuse_foreign(directory: Path) -> None:
    foreign = [entry.name for entry in directory.iterdir() if entry.suffix != ".tmp"]
    if foreign and not (directory / _RUN).exists():
        raise ValueError(
            f"{directory} is no checkpoint: it has files, {foreign[0]!r} for example, "
            f"and no {_RUN}. Give an empty or new directory."
        )


def _is_same(here: str | list[float], there: Any) -> bool:
    """Whether two runs agree in this, but for rounding."""
    if isinstance(here, str) or not isinstance(there, list) or len(here) != len(there):
        return here == there
    size = np.max(np.abs(here), where=np.isfinite(here), initial=0.0)
    return np.allclose(here, there, rtol=0, atol=_ROUNDING * size, equal_nan=True)


def _said(value: Any) -> str:
    """A text or None as it is, and the first of numbers by some of their digits."""
    if not isinstance(value, list):
        return str(value)
    return f"[{', '.join(f'{v:.4g}' for v in value[:3])}{', ...' * (len(value) > 3)}]"


def probes(points: Any) -> Any:
    """A few of the points, at which what a run computes is compared with what another did.

    A name tells no lambda from another, nor a class from the same one with a line changed.
    """
    rows = np.linspace(0, len(points) - 1, min(len(points), _PROBES)).astype(int)
    return points[rows]


def name_without_addresses(thing: Any) -> str:
    """Representation without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def digest(arrays: Any) -> str:
    """What identifies the arrays of a pytree."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        sha.update(np.ascontiguousarray(leaf).view(np.uint8))  # data of any size are not copied
    return sha.hexdigest()[:16]
