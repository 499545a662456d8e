"""A file is whole, or as it was."""

import os

import pytest

from ntk_uq._common.files import write_atomically


def test_what_is_written_replaces_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before, and longer")
    write_atomically(path, lambda file: file.write(b"after"))
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"before"])
def test_what_fails_half_way_leaves_no_trace(error, before, tmp_path):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_bytes_are_on_the_disk_before_they_have_the_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.exists()))
    write_atomically(path, lambda file: file.write(b"whole"))
    assert seen == [False]
