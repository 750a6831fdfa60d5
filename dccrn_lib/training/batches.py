"""The next batch is made while the network learns from this one.

Mixing and the frozen teacher's forward pass depend on nothing the training changes, so one thread can do them a batch
ahead: on two cores a distillation step then costs little more than a step without a teacher. The batches and their
order are the same; only the time at which they are made differs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """Iterator over ``make()``, computed ``depth`` calls ahead in one thread of its own.

    Args:
        make: makes the next batch; called in order, from one thread. Its exceptions reach the caller of ``next``.
        depth: batches kept ready; 0 makes them when asked, in the caller's thread.

    Use as a context manager: leaving it waits for the call in flight and drops what was not used.

    >>> numbers = iter(range(3))
    >>> with Ahead(lambda: next(numbers), depth=2) as ahead:
    ...     [next(ahead), next(ahead)]
    [0, 1]
    """

    def __init__(self, make: Callable[[], Batch], depth: int = 1) -> None:
        self.make, self.depth = make, depth
        self.ready: deque[Future] = deque()
        self.pool = ThreadPoolExecutor(1, "ahead", _as_here(torch.get_num_threads())) if depth else None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self.pool is None:
            return self.make()
        while len(self.ready) <= self.depth:
            self.ready.append(self.pool.submit(self.make))
        return self.ready.popleft().result()


def _as_here(threads: int) -> Callable[[], None]:
    """Torch keeps its thread count and its treatment of denormal numbers for each thread: carry them over."""
    tiny = torch.tensor([1e-40])
    flushed = bool((tiny * 1 == 0).item())

    def start() -> None:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)

    return start
