"""Files that are either whole or as they were."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ntk_uq._common.processes import is_first


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have `write` write a file that is whole or, where it does not come to its end, as before.

    The bytes go to another name in the same directory, reach the disk, and are then renamed.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_result(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_atomically` what is the same in all processes: of several the first writes it."""
    if is_first():
        write_atomically(path, write)
