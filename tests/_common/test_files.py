"""A file is whole, or as it was."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ntk_uq._common.files import (
    _MACHINE,
    remove_left_behind,
    write_arrays,
    write_atomically,
    write_new,
)


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


@pytest.mark.skipif(sys.platform == "win32", reason="links take rights there")
def test_a_link_stays_and_leads_to_the_new_file(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"before")
    link.symlink_to(path)
    write_atomically(link, lambda file: file.write(b"after"))
    assert link.is_symlink()
    assert path.read_bytes() == b"after"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_no_file_takes_the_place_of_a_pipe_or_a_device(tmp_path):
    """As root, /dev/null could be replaced too."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe is not a regular file"):
        write_atomically(pipe, lambda file: file.write(b"after"))
    assert pipe.is_fifo()


def test_threads_that_write_one_file_write_whole_ones(tmp_path):
    """Each is at work when the others are: the file is that of the last, and nothing else stays."""
    path, meet = tmp_path / "file", threading.Barrier(4)

    def write_letter(letter):
        def write(file):
            file.write(letter)
            meet.wait(60)
            file.write(letter)

        write_atomically(path, write)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_letter, [b"a", b"b", b"c", b"d"]))
    first, second = path.read_bytes().decode()
    assert first == second
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_that_begin_a_file_one_is_the_first(tmp_path, monkeypatch):
    path = tmp_path / "file"
    assert write_new(path, lambda file: file.write(b"first"))
    assert not write_new(path, lambda file: file.write(b"second"))

    def refuse(*_):
        raise PermissionError("a disk without links")

    monkeypatch.setattr(os, "link", refuse)
    assert not write_new(path, lambda file: file.write(b"third"))
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
    other = tmp_path / "other"
    assert write_new(other, lambda file: file.write(b"first"))
    assert other.read_bytes() == b"first"


def test_what_the_dead_left_is_removed_and_what_others_write_is_not(tmp_path):
    def left_by(process):
        file = tmp_path / f"file.{_MACHINE}-{process}-0.tmp"
        file.touch()
        return file

    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    of_dead, of_living, elsewhere = (
        left_by(dead.pid),
        left_by(os.getppid()),
        tmp_path / "a.b-1-0.tmp",
    )
    elsewhere.touch()
    remove_left_behind(tmp_path)
    assert not of_dead.exists()
    assert of_living.exists()
    assert elsewhere.exists()


@pytest.mark.parametrize("year", [1970, 2200])
def test_archives_do_not_ask_the_clock(year, tmp_path, monkeypatch):
    """That of a machine that has just started may say 1970, which no archive can."""
    monkeypatch.setattr(time, "localtime", lambda *_: (year, 1, 1, 0, 0, 0, 0, 1, 0))
    arrays = {"a": np.arange(3.0), "b": np.ones((2, 2), bool)}
    write_atomically(tmp_path / "file.npz", lambda file: write_arrays(file, arrays))
    with np.load(tmp_path / "file.npz", allow_pickle=False) as found:
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """And not the temporary file that would stand in it."""
    with pytest.raises(FileNotFoundError, match=r"The folder \S+missing does not exist"):
        write_atomically(tmp_path / "missing" / "file", lambda file: file.write(b""))
