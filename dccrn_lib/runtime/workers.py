"""Worker processes: how many, how they start, and what becomes of them at Ctrl-C.

There are two kinds. :func:`worker_pool` is for work with NumPy alone, which may fork. Everything that uses torch, a
kernel or a GPU starts its processes by :func:`spawn_pool`, afresh, because threads and CUDA do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from typing import Any

from tqdm import tqdm

from dccrn_lib.runtime.errors import WorkerError
from dccrn_lib.runtime.interrupts import without_interrupts


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SpawnPool(ProcessPoolExecutor):
    """Spawned processes as a ``concurrent.futures.Executor``; made by :func:`spawn_pool`.

    ``context`` is their multiprocessing context, from which an Event or a Queue for them is made.
    """

    context = multiprocessing.get_context("spawn")

    def __init__(self, workers: int, shielded: bool, **options: Any) -> None:
        super().__init__(workers, self.context, **options)
        self._shielded = shielded

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As of every executor. A process may start here; it inherits whether Ctrl-C is heard."""
        with without_interrupts() if self._shielded else nullcontext():
            return super().submit(function, *args, **kwargs)


@contextmanager
def spawn_pool(
    workers: int,
    initializer: Callable | None = None,
    initargs: tuple = (),
    shielded: bool = True,
    tasks_per_process: int | None = None,
    hint: str = 'use one worker, or call this under `if __name__ == "__main__":`',
) -> Iterator[SpawnPool]:
    """A pool of spawned processes; on leaving, whatever has not begun is cancelled and what runs is waited for.

    Args:
        workers: processes.
        initializer, initargs: called once in every process.
        shielded: the processes do not hear Ctrl-C: the parent does, and ends its block. False leaves it to them, for
            work that keeps a checkpoint or a kernel of its own.
        tasks_per_process: a process ends after so many tasks; None keeps it.
        hint: what to do about a process that was killed.

    Raises:
        WorkerError: a process ended without an answer.
    """
    pool = SpawnPool(
        workers, shielded, initializer=initializer, initargs=initargs, max_tasks_per_child=tasks_per_process
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise WorkerError(f"a worker process ended early; {hint}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def worker_pool(workers: int) -> Iterator[Callable]:
    """Yield run(function, tasks, bar) -> results in order, over processes or, with one worker, right here.

    Workers use NumPy and SciPy alone. On Linux they are forked: it is quick, and a script needs no
    ``__main__`` guard; elsewhere they are spawned. They ignore Ctrl-C: this process stops them.
    """
    if workers == 1:
        yield lambda function, tasks, bar: _counted(map(function, tasks), bar)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with warnings.catch_warnings():
        # newer Pythons warn of forking beside other threads; no lock of theirs is used in the workers
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
        with ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as executor:
            try:
                yield lambda function, tasks, bar: _counted(executor.map(function, tasks, chunksize=2), bar)
            except BaseException:
                executor.shutdown(wait=True, cancel_futures=True)
                raise


def _counted(results: Iterator, bar: tqdm) -> list:
    """All results, the bar moved on by each."""
    found = []
    for result in results:
        found.append(result)
        bar.update()
    return found
