"""Files that are either whole or as they were."""

import itertools
import os
import platform
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import psutil
from numpy.typing import NDArray

from ntk_uq._common.processes import is_first

__all__ = [
    "ARCHIVE_ERRORS", "add_array", "check_folder", "remove_left_behind", "undated",
    "write_arrays", "write_atomically", "write_new", "write_result",
]  # fmt: skip

# What reading an archive can raise in which any byte is another.
ARCHIVE_ERRORS = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, OverflowError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
# The oldest date that an archive can say: that of the clock may be older, and says nothing.
_DATE = (1980, 1, 1, 0, 0, 0)
_TURNS = itertools.count()
_MACHINE = re.sub(r"\W", "_", platform.node())


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have `write` write a file that is whole or, where it does not come to its end, as before.

    The bytes go to another name in the same directory, reach the disk, and are then renamed. Where
    the path is a link, what it leads to is replaced.

    Raises
    ------
    OSError
        If it cannot be written; also where the path is a folder, a device or a pipe, in whose place
        a file would stand.
    """
    path = Path(os.path.realpath(path))
    check_folder(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file, so it cannot be replaced.")
    _write_then(path, write, os.replace)


def check_folder(path: Path) -> None:
    """Refuse the path of a file that is a folder, or in a folder that is not there."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist: create it first.")


def write_new(path: Path, write: Callable[[IO[bytes]], object]) -> bool:
    """The same where no file has the name yet; else the file stays, and the answer is False."""
    try:
        _write_then(path, write, _named_once)
    except FileExistsError:
        return False
    return True


def write_result(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_atomically` what is the same in all processes: of several the first writes it."""
    if is_first():
        write_atomically(path, write)


def write_arrays(file: IO[bytes], arrays: Mapping[str, NDArray]) -> None:
    """Arrays by name, as `np.load` reads them: as of `np.savez`, in any year."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            add_array(archive, f"{name}.npy", array)


def add_array(archive: zipfile.ZipFile, name: str, array: NDArray) -> None:
    """Write an array to an entry of an archive."""
    with archive.open(undated(name), "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)


def undated(name: str) -> zipfile.ZipInfo:
    """A new entry of an archive, which does not ask the clock."""
    return zipfile.ZipInfo(name, _DATE)


def remove_left_behind(directory: Path) -> None:
    """Remove what processes of this machine had begun to write when they were killed."""
    for file in directory.glob(f"*.{_MACHINE}-*.tmp"):
        of_process = int(file.name.split(".")[-2].split("-")[1])
        if not psutil.pid_exists(of_process):
            file.unlink(missing_ok=True)


def _write_then(
    path: Path, write: Callable[[IO[bytes]], object], name: Callable[[Path, Path], None]
) -> None:
    """Have a file written under another name, and then give it its own."""
    temporary = path.with_name(f"{path.name}.{_MACHINE}-{os.getpid()}-{next(_TURNS)}.tmp")
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        name(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _named_once(temporary: Path, path: Path) -> None:
    """Give a file its name, unless another has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # this disk knows no second names
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(temporary, path)
    else:
        temporary.unlink()
