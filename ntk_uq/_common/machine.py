"""What the machine has for this process: memory and cores, on every system, limits included.

Containers and batch systems limit memory by control groups, of which the counts of the whole
machine know nothing; a process beyond its limit is killed without a word.
"""

import ctypes
import errno
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import psutil
from joblib import cpu_count as cores
from numpy.typing import DTypeLike, NDArray
from threadpoolctl import ThreadpoolController

__all__ = [
    "blas_threads_for",
    "cores",
    "free_memory",
    "give_back",
    "memory_limit",
    "numbers_in",
    "one_blas_thread",
]

# A factor of so many points takes a core some hundredths of a second.
_POINTS_OF_A_THREAD = 1024
# Who is within `one_blas_thread`, one entry each, and the limit that the first has set.
_ENTERING, _LIMIT = Lock(), ExitStack()
_INSIDE: list[None] = []


def numbers_in(size: int, dtype: DTypeLike, directory: str | os.PathLike | None) -> NDArray:
    """An array of so many bytes, in memory or in a file that lasts as long as it does.

    Parameters
    ----------
    size : int
        Bytes.
    dtype : dtype
        Of the numbers.
    directory : path, optional
        Where a file is made; None takes memory.

    Raises
    ------
    OSError
        If the disk has no room. Found later, by a write to memory, this would end the process.
    """
    if directory is None:
        return np.frombuffer(mmap.mmap(-1, size), dtype)
    free = psutil.disk_usage(os.fspath(directory)).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f"The disk has {free / 2**30:.1f} GiB of room, and {size / 2**30:.1f} GiB are needed: "
            "give a folder on another disk",
            os.fspath(directory),
        )
    with tempfile.TemporaryFile(dir=os.fspath(directory)) as file:
        file.truncate(size)
        _take_room(file.fileno(), size)
        return np.frombuffer(mmap.mmap(file.fileno(), size), dtype)


def _take_room(file: int, size: int) -> None:
    """Have a disk keep room for a file before others take it, where it can."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def give_back() -> None:
    """Give memory that is free to the system: where arrays of up to 32 MiB were, glibc keeps it.

    Takes a millisecond or so. Other libraries give it back by themselves, or cannot be asked.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache
def _trim() -> Callable[[int], int] | None:
    """The C library's own function, if it has one."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which NumPy's products take one thread: the caller has threads of its own.

    It is of the whole process: the first of several threads that enter it sets the limit, and the
    last that leaves takes it back. Each by itself would restore what another had set.
    """
    with _ENTERING:
        if not _INSIDE:
            _LIMIT.enter_context(_blas().limit(limits=1, user_api="blas"))
        _INSIDE.append(None)
    try:
        yield
    finally:
        with _ENTERING:
            _INSIDE.pop()
            if not _INSIDE:
                _LIMIT.close()


def blas_threads_for(n: int) -> AbstractContextManager:
    """A context for problems of n points: of few one thread of BLAS and LAPACK is enough.

    More wait for one another at every call, and spin: while other programs keep the cores, a fit
    of some hundred points takes several times the processor time.
    """
    return one_blas_thread() if n <= _POINTS_OF_A_THREAD else nullcontext()


@lru_cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may ever use: the machine's memory, or less by a control group.

    Parameters
    ----------
    root : Path
        Where the file system begins.
    """
    limits = [limit for limit, _ in _control_groups(root)]
    return min([psutil.virtual_memory().total, *limits])


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take, without the machine or a control group running out.

    Parameters
    ----------
    root : Path
        Where the file system begins.
    """
    left = [max(0, limit - used) for limit, used in _control_groups(root)]
    return min([psutil.virtual_memory().available, *left])


def _control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group that holds this process and limits memory."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for membership in memberships:
        _, controllers, group = membership.split(":", 2)
        if controllers == "":  # version 2, one tree for all controllers
            tree, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            tree = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # A container sees its own group as the tree's root, whatever it is called outside.
        path = Path(group.lstrip("/"))
        for ancestor in (path, *path.parents):
            limit, used = (_number(tree / ancestor / name) for name in names[:2])
            if limit is not None and used is not None:
                yield limit, used - _reclaimable(tree / ancestor / "memory.stat", names[2])


def _number(file: Path) -> int | None:
    """The number that a file holds; None of "max", or where there is no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _reclaimable(statistics: Path, name: str) -> int:
    """Bytes of files that were read and are not in use: counted as used, and given up on demand."""
    try:
        lines = statistics.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
