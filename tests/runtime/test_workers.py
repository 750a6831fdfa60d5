"""Worker processes: what they hear of Ctrl-C, and what becomes of one that is killed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dccrn_lib.runtime.errors import WorkerError
from dccrn_lib.runtime.workers import spawn_pool


@pytest.mark.parametrize(("shielded", "handler"), [(True, signal.SIG_IGN), (False, signal.default_int_handler)])
def test_a_shielded_process_does_not_hear_ctrl_c(shielded, handler):
    before = signal.getsignal(signal.SIGINT)
    with spawn_pool(1, shielded=shielded) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == handler
    assert signal.getsignal(signal.SIGINT) == before


def test_each_task_may_have_a_process_of_its_own():
    with spawn_pool(1, tasks_per_process=1) as pool:
        assert len({pool.submit(os.getpid).result() for _ in range(2)} | {os.getpid()}) == 3


def test_a_killed_process_is_one_error_that_says_what_to_do():
    with pytest.raises(WorkerError, match="^a worker process ended early; take a walk$"):
        with spawn_pool(1, hint="take a walk") as pool:
            pool.submit(os._exit, 1).result()


def test_leaving_early_waits_for_what_runs_and_cancels_the_rest():
    with pytest.raises(KeyboardInterrupt):
        with spawn_pool(1) as pool:
            futures = [pool.submit(time.sleep, 0.2) for _ in range(50)]
            futures[0].result()
            raise KeyboardInterrupt
    assert futures[-1].cancelled() and all(future.done() for future in futures)
