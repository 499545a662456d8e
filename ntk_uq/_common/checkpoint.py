"""Results of a long run so far, in a directory: a run that was killed goes on from there."""

import hashlib
import json
import os
import re
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

__all__ = ["Checkpoint", "digest", "name_without_addresses"]

_RUN = "run.json"


class Checkpoint:
    """Results of one run, in a directory.

    Parameters
    ----------
    directory : path
        Made if it is not there.
    run : dict of str to str
        What the results depend on. A directory of another run is refused.

    Raises
    ------
    ValueError
        If the directory holds something else: another run, or other files.
    """

    def __init__(self, directory: str | os.PathLike, run: dict[str, str]):
        self.directory = Path(directory)
        once(lambda: self._open(run), f"checkpoint {run}")
        if not is_first():  # which may have files of its own
            self._open(run)

    def _open(self, run: dict[str, str]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / _RUN
        if not path.exists():
            foreign = [entry.name for entry in self.directory.iterdir() if entry.suffix != ".tmp"]
            if foreign and not path.exists():
                raise ValueError(
                    f"{self.directory} is no checkpoint: it has files, {foreign[0]!r} for example, "
                    f"and no {_RUN}. Give an empty or new directory."
                )
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
    def _check_same_run(path: Path, run: dict[str, str]) -> None:
        try:
            there = json.loads(path.read_bytes())
            different = [name for name in run if there.get(name) != run[name]]
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): what run its directory belongs to cannot be said. "
                "Use another directory."
            ) from error
        if different:
            raise ValueError(
                f"{path.parent} is the checkpoint of another run: "
                + "; ".join(f"{n} is {run[n]}, there {there.get(n)}" for n in different)
                + ". Use another directory, or the same data and arguments."
            )


def name_without_addresses(thing: Any) -> str:
    """Representation without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def digest(arrays: Any) -> str:
    """What identifies the arrays of a pytree."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        sha.update(np.ascontiguousarray(leaf).view(np.uint8))  # data of any size are not copied
    return sha.hexdigest()[:16]
