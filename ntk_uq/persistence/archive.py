"""The file: a sealed archive, refused where it is not whole."""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from ntk_uq._common.files import add_array, undated

__all__ = [
    "SEAL",
    "SUM_LENGTH",
    "TREE",
    "RefusedError",
    "array_name",
    "check_whole",
    "digest_of",
    "stored",
    "write_archive",
]

TREE = "ntk_uq.json"
# At the end of a file, as the comment of the archive, before the checksum in hexadecimal digits.
SEAL = b"ntk_uq model, sha256 "
SUM_LENGTH = 64
_BLOCK = 2**20


class RefusedError(Exception):
    """A file is refused, and the message says all."""


def write_archive(file: IO[bytes], tree: Any, arrays: list[np.ndarray]) -> None:
    """Write tree and arrays, and the seal over all of them."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(undated(TREE), json.dumps(tree, allow_nan=False))
        for number, array in enumerate(arrays):
            add_array(archive, array_name(number), array)
        archive.comment = SEAL + b"0" * SUM_LENGTH
    file.seek(-SUM_LENGTH, os.SEEK_END)
    digest = digest_of(file, file.tell())
    file.seek(-SUM_LENGTH, os.SEEK_END)
    file.write(digest)


def check_whole(file: IO[bytes], path: Path) -> None:
    """Refuse what `write_archive` has not written, or something has changed since."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise ValueError(f"{path} is empty.")
    start = file.read(30 + len(TREE))  # an entry's name follows 30 bytes of header
    if not (start.startswith(b"PK\x03\x04") and start.endswith(TREE.encode())):
        raise ValueError(f"{path} is no file of nuq.save.")
    file.seek(max(size - len(SEAL) - SUM_LENGTH, 0))
    seal = file.read()
    if seal != SEAL + digest_of(file, size - SUM_LENGTH):
        raise ValueError(
            f"{path} is damaged: it was cut short or changed after nuq.save wrote it. Copy it "
            "again from where it was made, or fit again."
        )


def digest_of(file: IO[bytes], size: int) -> bytes:
    """SHA-256 of the first bytes, in hexadecimal digits."""
    sha = hashlib.sha256()
    file.seek(0)
    while size > 0:
        block = file.read(min(_BLOCK, size))
        sha.update(block)
        size -= len(block)
    return sha.hexdigest().encode()


def array_name(number: int) -> str:
    """The entry of an array."""
    return f"arrays/{number}.npy"


def stored(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """An entry that takes no more memory than the file is long."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.open(name)
