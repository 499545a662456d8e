"""What the machine has for this process: memory and cores, on every system, limits included.

Containers and batch systems limit memory by control groups, of which the counts of the whole
machine know nothing; a process beyond its limit is killed without a word.
"""

from collections.abc import Iterator
from pathlib import Path

import psutil
from joblib import cpu_count as cores

__all__ = ["cores", "free_memory", "memory_limit"]


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
