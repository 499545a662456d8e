"""Memory that control groups leave, told from the files that the kernel shows of them."""

import errno
import sys

import conftest
import numpy as np
import psutil
import pytest
from threadpoolctl import threadpool_info

from ntk_uq._common.machine import (
    blas_threads_for,
    cores,
    free_memory,
    give_back,
    memory_limit,
    numbers_in,
    one_blas_thread,
)
from ntk_uq._common.side_by_side import side_by_side
from ntk_uq._common.solver import solve_dual
from ntk_uq._common.tiles import SymmetricTiles
from ntk_uq.likelihoods import Categorical

MEBI = 2**20
UNLIMITED = 2**63 - 4096  # what version 1 says where there is no limit


def file_system(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))
    return root


def test_without_control_groups(tmp_path):
    assert memory_limit(tmp_path) == psutil.virtual_memory().total
    assert 0 < free_memory(tmp_path) <= memory_limit(tmp_path)


def test_this_machine():
    assert 0 <= free_memory() <= memory_limit() <= psutil.virtual_memory().total
    assert cores() >= 1


@pytest.mark.parametrize("group", ["job/step", ""], ids=["seen from outside", "inside"])
def test_version_2(tmp_path, group):
    """The tightest limit of all ancestors; files that were read count as free."""
    own = f"sys/fs/cgroup/{group}"
    root = file_system(
        tmp_path,
        {
            "proc/self/cgroup": f"0::/{group}\n",
            f"{own}/memory.max": 100 * MEBI,
            f"{own}/memory.current": 70 * MEBI,
            f"{own}/memory.stat": f"anon {40 * MEBI}\ninactive_file {20 * MEBI}\n",
        },
    )
    assert memory_limit(root) == 100 * MEBI
    assert free_memory(root) == 50 * MEBI


def test_version_2_of_ancestors(tmp_path):
    root = file_system(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n",
            "sys/fs/cgroup/job/step/memory.current": 10 * MEBI,
            "sys/fs/cgroup/job/memory.max": 64 * MEBI,
            "sys/fs/cgroup/job/memory.current": 80 * MEBI,  # for a moment, before it is reclaimed
        },
    )
    assert memory_limit(root) == 64 * MEBI
    assert free_memory(root) == 0


def test_version_1(tmp_path):
    """As a container sees it: the group's outer name is no folder here."""
    root = file_system(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpuset:/\n4:cpu,memory:/docker/a:b\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 200 * MEBI,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 90 * MEBI,
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {MEBI}\n",
        },
    )
    assert memory_limit(root) == 200 * MEBI
    assert free_memory(root) == 111 * MEBI


def test_version_1_without_limit(tmp_path):
    root = file_system(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 90 * MEBI,
        },
    )
    assert memory_limit(root) == psutil.virtual_memory().total


def test_workers_fit_the_machine(monkeypatch):
    """A laptop with many cores and little memory runs few tests at once, and any runs one."""
    for n_cores, gibi, workers in [(8, 7, 3), (2, 20, 2), (64, 500, 4), (8, 1, 1)]:
        monkeypatch.setattr(conftest, "cores", lambda n=n_cores: n)
        monkeypatch.setattr(conftest, "free_memory", lambda g=gibi: g * 2**30)
        assert conftest.pytest_xdist_auto_num_workers() == workers


def test_a_disk_without_room_is_said_before_it_is_written_to(tmp_path):
    """A write to memory that has no place on the disk would end the process."""
    numbers_in(8, np.float32, tmp_path)[:] = 1.0
    with pytest.raises(OSError, match=r"GiB of room, and .* GiB are needed") as error:
        numbers_in(psutil.disk_usage(str(tmp_path)).free + 2**40, np.float32, tmp_path)
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other ways")
def test_what_is_free_is_given_back():
    """Also between arrays that are there still, where glibc keeps it."""
    taken = psutil.Process().memory_info
    np.ones(2**21)  # of 16 MiB: smaller ones lie side by side from now on
    arrays = [np.ones(2**20) for _ in range(32)]
    before = taken().rss
    del arrays[::2]
    give_back()
    assert before - taken().rss > 64 * MEBI


def test_products_with_tiles_begin_with_what_is_free_given_back(monkeypatch):
    given = []
    monkeypatch.setattr("ntk_uq._common.solver.give_back", lambda: given.append(True))
    tiles = SymmetricTiles(4).fill(lambda rows, columns: np.eye(4)[rows, columns])
    zero = np.zeros((1, 4, 2), np.float32)
    found = solve_dual(tiles, 1.0, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], zero, Categorical())
    assert len(given) == found.n_products


def _threads():
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def _limited(before):
    """One thread, where there is a BLAS whose threads can be told, as Apple's cannot."""
    return {1} if before else before


def test_few_points_take_one_thread_of_blas():
    before = _threads()
    with blas_threads_for(1024):
        assert _threads() == _limited(before)
    with blas_threads_for(1025):
        assert _threads() == before
    assert _threads() == before


def test_calls_side_by_side_take_one_thread_of_blas():
    """And what is called alone takes those that it had."""
    before = _threads()
    assert side_by_side(lambda _: _threads(), range(3), 2) == [_limited(before)] * 3
    assert side_by_side(lambda _: _threads(), range(3), 1) == [before] * 3
    assert _threads() == before


def test_threads_that_overlap_restore_what_was():
    """One enters while another is inside, and leaves after it."""
    before = _threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert _threads() == _limited(before)
    second.__exit__(None, None, None)
    assert _threads() == before
