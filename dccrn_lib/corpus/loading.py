"""Loading: batches of a dataset, made by worker processes or right here.

What goes wrong in a worker reaches the caller as it was raised there: an unreadable file is the same AudioError with any
number of workers. The workers do not hear Ctrl-C or a terminal that closes; their parent does, and may finish its step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from dccrn_lib.runtime.errors import DccrnError, WorkerError
from dccrn_lib.runtime.interpreters import forget_parent, without_current_folder
from dccrn_lib.runtime.interrupts import ENDING, StopSignal

_KILLED = ("exited unexpectedly", "killed by signal")  # torch's words


@dataclass
class _Failure:
    """Travels instead of a batch."""

    error: Exception


class _Caught(Dataset):
    """A dataset whose errors are items; in the process that was asked to stop it has no further ones."""

    def __init__(self, dataset: Dataset, stop: StopSignal | None) -> None:
        self.dataset, self.stop = dataset, stop

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if self.stop is not None and self.stop.asked:
            raise WorkerError("a signal asked for a stop while a batch was made")
        try:
            return self.dataset[index]
        except (DccrnError, OSError) as error:
            return _Failure(error)


@dataclass
class _Collate:
    """Items into a batch; the first failure among them instead."""

    collate: Callable[[list], Any]

    def __call__(self, items: list) -> Any:
        return next((item for item in items if isinstance(item, _Failure)), None) or self.collate(items)


class Batches(Iterator):
    """Batches in order.

    Args:
        dataset: its items may raise errors of this package and of the system.
        batch_size: items.
        sampler: their indices.
        workers: processes that make them; 0 makes them when they are asked for.
        collate: items -> batch.
        stop: once it was asked, no batch is made to its end in this process (those of worker processes are).
        options: of torch's DataLoader.

    Raises:
        DccrnError, OSError: of an item, when its batch's turn has come.
        WorkerError: a worker process was killed, or ``stop`` was asked.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        sampler: Iterable[int],
        workers: int,
        collate: Callable[[list], Any] = default_collate,
        stop: StopSignal | None = None,
        **options: Any,
    ) -> None:
        loader = DataLoader(
            _Caught(dataset, stop),
            batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_Collate(collate),
            worker_init_fn=_start_worker,
            **options,
        )
        with _signals_kept(), without_current_folder():
            self.loader = iter(loader)

    def __next__(self) -> Any:
        try:
            batch = next(self.loader)
        except (RuntimeError, OSError, EOFError) as error:  # items have none of these: see _Caught
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _KILLED):
                raise
            raise WorkerError(
                "a process that mixes training data ended early, by a lack of memory or of /dev/shm perhaps; try fewer "
                "workers (0 mixes in the process that trains)"
            ) from error
        if isinstance(batch, _Failure):
            raise batch.error
        return batch


def _start_worker(_number: int) -> None:
    forget_parent()
    for number in (signal.SIGINT, *ENDING):
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Torch raises an error anywhere in this process as soon as a worker dies, in the middle of an optimiser's step, too.

    Whoever waits for a batch learns of it within seconds without that, so SIGCHLD stays as it was.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
