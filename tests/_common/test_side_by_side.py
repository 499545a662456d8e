"""Calls in threads: their order, what is told, and what an interrupt leaves."""

import threading

import pytest

from ntk_uq._common.side_by_side import side_by_side


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_items(threads):
    told = []
    assert side_by_side(lambda k: k**2, range(7), threads, told.append) == [
        0, 1, 4, 9, 16, 25, 36,
    ]  # fmt: skip
    assert told == [1, 2, 3, 4, 5, 6, 7]


def test_calls_run_at_a_time():
    """Each waits for the other: one after another they would wait for ever."""
    both = threading.Barrier(2, timeout=60)
    side_by_side(lambda _: both.wait(), range(2), 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_leaves_what_has_not_begun(threads):
    begun, go_on = [], threading.Event()

    def work(k):
        begun.append(k)
        if k >= threads:
            go_on.wait(60)

    def stop(done):
        threading.Timer(0.2, go_on.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, range(1000), threads, stop)
    assert len(begun) < 1000
