"""Prefetched batches: the same ones in the same order, errors included."""

import threading
import time

import pytest
import torch

from dccrn_lib.training.batches import Prefetcher


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_order_and_end_are_those_of_the_source(depth):
    numbers = iter(range(7))
    with Prefetcher(lambda: next(numbers), depth) as prefetched:
        taken = [next(prefetched) for _ in range(7)]
    assert taken == list(range(7))


def test_the_next_batch_is_made_while_the_last_one_is_used():
    made = threading.Semaphore(0)
    numbers = iter(range(9))

    def make():
        number = next(numbers)
        made.release()
        return number

    with Prefetcher(make, depth=1) as prefetched:
        assert next(prefetched) == 0
        assert made.acquire(timeout=10)  # 0
        assert made.acquire(timeout=10)  # 1, although nobody asked for it


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_reaches_the_caller_at_its_place(depth):
    numbers = iter(range(9))

    def make():
        number = next(numbers)
        if number == 1:
            raise ValueError("broken file")
        return number

    with Prefetcher(make, depth) as prefetched:
        assert next(prefetched) == 0
        with pytest.raises(ValueError, match="broken file"):
            next(prefetched)


def test_leaving_waits_for_the_call_in_flight():
    running = []

    def make():
        running.append(1)
        time.sleep(0.05)
        running.pop()

    with Prefetcher(make, depth=2) as prefetched:
        next(prefetched)
    assert not running


@pytest.mark.parametrize("flush", [True, False])
def test_the_thread_computes_as_the_caller_does(flush):
    threads = torch.get_num_threads()
    torch.set_flush_denormal(flush)
    try:
        torch.set_num_threads(1)
        with Prefetcher(
            lambda: (torch.get_num_threads(), (torch.tensor([1e-40]) * 1).item() == 0), depth=1
        ) as prefetched:
            assert next(prefetched) == (1, flush)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
