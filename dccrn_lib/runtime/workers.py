"""Worker processes: how many, how they start, and what becomes of them at Ctrl-C and when their parent ends.

There are two kinds. :func:`worker_pool` is for work with NumPy alone, which may fork. Everything that uses torch, a
kernel or a GPU starts its processes by :func:`spawn_pool`, afresh, because threads and CUDA do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any

from tqdm import tqdm

from dccrn_lib.runtime.errors import WorkerError
from dccrn_lib.runtime.interpreters import forget_parent, without_current_folder
from dccrn_lib.runtime.interrupts import (
    ENDING,
    Terminated,
    deferred_interrupts,
    send_lost_interrupts_again,
    without_interrupts,
)


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Leash:
    """What ties worker processes to the one that started them: a pipe of which it holds the other end.

    When that end is closed, or its process has ended in any way, each worker that is busy gets SIGTERM, so that it
    keeps a checkpoint or removes what is half written, and then it ends.

    Args:
        context: of the processes.
        grace: seconds that a worker has for its task to end after SIGTERM.
    """

    def __init__(self, context: BaseContext, grace: float) -> None:
        self.parent, self.grace = os.getpid(), grace
        self.reader, self.writer = context.Pipe(duplex=False)
        self.forked = context.get_start_method() == "fork"

    def initargs(self) -> tuple[int, Connection, Connection | None, float]:
        """For :func:`_start_process`."""
        return (self.parent, self.reader, self.writer if self.forked else None, self.grace)

    def let_go(self) -> None:
        """End what still runs."""
        self.writer.close()


_idle = threading.Event()  # in a worker process: between two tasks
_idle.set()
_ending = threading.Event()  # in a worker process: its parent has let go or ended
_asked = threading.Event()  # in a worker process: a signal came between two tasks

#: A worker that shall end while it sends a result has so long for it.
SENDING_SECONDS = 2.0


def is_ending() -> bool:
    """Whether this is a worker process that shall end: its result is not waited for."""
    return _ending.is_set()


def _start_process(
    parent: int,
    reader: Connection,
    writer: Connection | None,
    grace: float,
    shielded: bool,
    initializer: Callable | None,
    initargs: tuple,
) -> None:
    """Called once in every worker process."""
    forget_parent()
    if writer is not None:  # a forked process has the parent's end of the pipe, too
        writer.close()
    if shielded:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in ENDING:  # the parent hears of a terminal that closes; SIGTERM may be for this process alone
        signal.signal(number, _end if number == signal.SIGTERM else signal.SIG_IGN)
    send_lost_interrupts_again()
    threading.Thread(target=_watch, args=(parent, reader, grace), daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end(number: int, frame: FrameType | None) -> None:
    """What a signal does in the main thread of a worker: end its task, or the worker if it has none.

    A result that is being sent is sent to its end: of half a result the parent would wait for the other half for ever.
    The watching thread asks again.
    """
    if not _idle.is_set():
        raise Terminated(number)
    _asked.set()
    if not _sends(frame):
        os._exit(128 + number)


def _sends(frame: FrameType | None) -> bool:
    """Whether a result is on its way in this frame or one that called it."""
    while frame is not None and frame.f_code is not SimpleQueue.put.__code__:
        frame = frame.f_back
    return frame is not None


def _watch(parent: int, reader: Connection, grace: float) -> None:
    """End this process when the one that started it lets go or has ended, or when it was asked to while it was sending."""
    while os.getppid() == parent and not _asked.is_set() and not wait([reader], timeout=0.2):
        pass  # nothing is ever sent: the pipe becomes readable when its other end is closed
    _ending.set()
    if not _idle.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        _idle.wait(grace)
    latest = time.monotonic() + SENDING_SECONDS
    while time.monotonic() < latest:
        os.kill(os.getpid(), signal.SIGTERM)  # the main thread knows whether it is sending
        time.sleep(0.02)
    os._exit(128 + signal.SIGTERM)  # nobody takes the result


def _do(function: Callable, /, *args: Any, **kwargs: Any) -> Any:
    """A task in a worker process."""
    _idle.clear()
    try:
        if _ending.is_set():  # the next one of the queue, after the one that was ended
            raise Terminated(signal.SIGTERM)
        return function(*args, **kwargs)
    finally:
        _idle.set()


class SpawnPool(ProcessPoolExecutor):
    """Spawned processes as a ``concurrent.futures.Executor``; made by :func:`spawn_pool`.

    ``context`` is their multiprocessing context, from which an Event or a Queue for them is made.
    """

    context = multiprocessing.get_context("spawn")

    def __init__(
        self, workers: int, shielded: bool, leash: _Leash, initializer: Callable | None, initargs: tuple, **options: Any
    ) -> None:
        started = (*leash.initargs(), shielded, initializer, initargs)
        super().__init__(workers, self.context, initializer=_start_process, initargs=started, **options)
        self._shielded = shielded

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """As of every executor. A process may start here, whole; it inherits whether Ctrl-C is heard."""
        with deferred_interrupts(), without_interrupts() if self._shielded else nullcontext():
            return super().submit(_do, function, *args, **kwargs)


def _shut_down(pool: SpawnPool) -> threading.Event:
    """Cancel what has not begun; the event is set when all processes have ended.

    A thread of its own waits for them: the main one would take a thread that it is joining for ended once a signal
    interrupts it (CPython's ``Thread._wait_for_tstate_lock`` before 3.13), and leave a process behind that just starts.
    """
    ended = threading.Event()

    def wait_for_all() -> None:
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        finally:
            ended.set()

    threading.Thread(target=wait_for_all, daemon=True).start()
    return ended


@contextmanager
def spawn_pool(
    workers: int,
    initializer: Callable | None = None,
    initargs: tuple = (),
    shielded: bool = True,
    tasks_per_process: int | None = None,
    hint: str = 'use one worker, or call this under `if __name__ == "__main__":`',
    grace: float = 30.0,
) -> Iterator[SpawnPool]:
    """A pool of spawned processes; on leaving, whatever has not begun is cancelled and what runs is waited for.

    The processes end with this one, however it ends: a task under way gets SIGTERM.

    Args:
        workers: processes.
        initializer, initargs: called once in every process.
        shielded: the processes do not hear Ctrl-C: the parent does, and ends its block. False leaves it to them, for
            work that keeps a checkpoint or a kernel of its own; where this process was told to end, so are they.
        tasks_per_process: a process ends after so many tasks; None keeps it.
        hint: what to do about a process that was killed.
        grace: seconds that a task has to end after SIGTERM.

    Raises:
        WorkerError: a process ended without an answer.
    """
    with without_current_folder():
        leash = _Leash(SpawnPool.context, grace)
        pool = SpawnPool(workers, shielded, leash, initializer, initargs, max_tasks_per_child=tasks_per_process)
        try:
            yield pool
        except BrokenProcessPool as error:
            raise WorkerError(f"a worker process ended early; {hint}") from error
        except KeyboardInterrupt:
            if not shielded:
                leash.let_go()
            raise
        finally:
            ended = _shut_down(pool)
            try:
                ended.wait()
            except KeyboardInterrupt:  # a process may be starting: it is waited for all the same, but told to end
                leash.let_go()
                ended.wait()
                raise
            finally:
                leash.let_go()


@contextmanager
def worker_pool(workers: int) -> Iterator[Callable]:
    """Yield run(function, tasks, bar) -> results in order, over processes or, with one worker, right here.

    Workers use NumPy and SciPy alone. On Linux they are forked: it is quick, and a script needs no
    ``__main__`` guard; elsewhere they are spawned. They ignore Ctrl-C: this process stops them. They end with this
    process, however it ends.

    Raises:
        WorkerError: a process ended without an answer.
    """
    if workers == 1:
        yield lambda function, tasks, bar: _counted(map(function, tasks), bar)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    leash = _Leash(context, grace=10.0)
    with warnings.catch_warnings():
        # newer Pythons warn of forking beside other threads; no lock of theirs is used in the workers
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork.*", category=DeprecationWarning)
        started = (*leash.initargs(), True, None, ())
        with ProcessPoolExecutor(workers, context, _start_process, started) as executor:

            def run(function: Callable, tasks: Iterable, bar: tqdm) -> list:
                with deferred_interrupts(), without_current_folder():  # the processes start here
                    results = executor.map(partial(_do, function), tasks, chunksize=2)
                return _counted(results, bar)

            try:
                yield run
            except BaseException as error:
                leash.let_go()
                executor.shutdown(wait=True, cancel_futures=True)
                if isinstance(error, BrokenProcessPool):
                    hint = "by a lack of memory perhaps; try fewer workers"
                    raise WorkerError(f"a worker process ended early; {hint}") from error
                raise
    leash.let_go()


def _counted(results: Iterator, bar: tqdm) -> list:
    """All results, the bar moved on by each."""
    gathered = []
    for result in results:
        gathered.append(result)
        bar.update()
    return gathered
