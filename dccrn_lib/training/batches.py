"""Batches: which mixtures each rank takes, what the network is given, and the thread that prefetches them.

Mixing and the frozen teacher's forward pass depend on nothing that training changes, so one thread can do them a batch
ahead: on two cores a distillation step then costs little more than a step without a teacher. The batches and their
order are the same; only the time at which they are made differs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.training.config import TrainConfig

T = TypeVar("T")


@dataclass
class Batch:
    """One micro-batch on the device.

    Args:
        noisy, clean: waveforms (batch, sample).
        target: the teacher's output (batch, sample), or None without a teacher.
        teacher_features: of each layer that is compared, (batch, chan, freq, frame), or None if none is.
    """

    noisy: Tensor
    clean: Tensor
    target: Tensor | None = None
    teacher_features: dict[str, Tensor] | None = None

    def first(self, count: int) -> Batch:
        """Its first mixtures, as many as there are up to ``count``."""
        features = self.teacher_features
        return Batch(
            self.noisy[:count],
            self.clean[:count],
            None if self.target is None else self.target[:count],
            None if features is None else {name: feature[:count] for name, feature in features.items()},
        )


def mixture_index(i: int, config: TrainConfig) -> int:
    """Index in the dataset of mixture ``i`` of a run, counted over the epochs."""
    return i % config.epoch_mixtures if config.repeat_epoch else i


class RankSampler(Sampler):
    """Indices of the mixtures that one rank takes from every micro-batch of every global batch.

    A micro-batch holds the same mixtures whatever the number of ranks: BatchNorm sees them together.

    Args:
        config: ``batch_size``, ``accumulation``, ``steps``, ``epoch_mixtures`` and ``repeat_epoch`` are read.
        ranks: which rank of how many.
        start: the first step, 0-based.
    """

    def __init__(self, config: TrainConfig, ranks: Processes, start: int) -> None:
        self.config, self.ranks, self.start = config, ranks, start
        self.micro_batch = config.batch_size // config.accumulation
        self.size = self.micro_batch // ranks.world

    def __iter__(self) -> Iterator[int]:
        for number in range(self.start * self.config.accumulation, self.config.steps * self.config.accumulation):
            first = number * self.micro_batch + self.ranks.rank * self.size
            yield from (mixture_index(i, self.config) for i in range(first, first + self.size))

    def __len__(self) -> int:
        return (self.config.steps - self.start) * self.config.accumulation * self.size


class Prefetcher(Generic[T]):
    """Iterator over ``make()``, computed ``depth`` calls ahead in one thread of its own.

    Args:
        make: makes the next batch; called in order, from one thread. Its exceptions reach the caller of ``next``.
        depth: batches kept ready; 0 makes them when asked, in the caller's thread.

    Use as a context manager: leaving it waits for the call in flight and drops what was not used.

    >>> numbers = iter(range(3))
    >>> with Prefetcher(lambda: next(numbers), depth=2) as prefetched:
    ...     [next(prefetched), next(prefetched)]
    [0, 1]
    """

    def __init__(self, make: Callable[[], T], depth: int = 1) -> None:
        self.make, self.depth = make, depth
        self.ready: deque[Future] = deque()
        self.pool = ThreadPoolExecutor(1, "prefetch", _as_here(torch.get_num_threads())) if depth else None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
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
