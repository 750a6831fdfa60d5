"""Where the trainings of an experiment run: here, in an executor's processes, or on a dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from typing import TypeVar

from dccrn_lib.runtime.devices import set_up_cpu, with_threads
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import install_command

Job = TypeVar("Job")
Result = TypeVar("Result")

#: Seconds to wait for the scheduler of a cluster.
CONNECT_SECONDS = 20

_ONE_AT_A_TIME = threading.Lock()


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], executor: Executor | None = None
) -> Iterator[tuple[Job, Result]]:
    """``function`` of every job, each as soon as it is finished.

    Args:
        function: of a module, so that it can travel; trains, and seeds torch itself.
        jobs: that do not need each other.
        executor: any of ``concurrent.futures``; None works here, one job after the other, and a caller who stops
            taking results leaves the other jobs undone.

    Yields:
        (job, result). The first exception ends the iteration, and what has not begun is cancelled.
    """
    if executor is None:
        for job in jobs:
            yield job, function(job)
        return
    futures = {executor.submit(_in_turn, function, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


def _in_turn(function: Callable[[Job], Result], job: Job) -> Result:
    """A job as a single thread does it, denormals flushed, so that its numbers are the same wherever it is done.

    Jobs in threads of one process take turns: torch's random generator belongs to the process.
    """
    with _ONE_AT_A_TIME, with_threads(1):
        set_up_cpu()
        return function(job)


@contextmanager
def cluster_executor(address: str) -> Iterator[Executor | None]:
    """An executor on a dask cluster, for ``run_jobs``.

    Args:
        address: of its scheduler, "tcp://host:8786"; "" yields None: no cluster.

    Raises:
        ConfigError: the extra is not installed, or no scheduler answers.
    """
    if not address:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(f"--cluster needs the extra of that name: {install_command('cluster')}") from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no dask scheduler answers at {address!r} ({error}); start one with `dask scheduler`"
        ) from None
    with client:
        yield client.get_executor(pure=False)
