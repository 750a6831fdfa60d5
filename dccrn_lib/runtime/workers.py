"""Work orders carried out in order, by this process or by several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from tqdm import tqdm


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
