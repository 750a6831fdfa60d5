"""What this machine can do at best: multiply-adds and bytes per second, and the time that a network needs at least."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from dccrn_lib.networks.cost import count_macs
from dccrn_lib.runtime.devices import has_bfloat16

SIDE = 1024  # of the matrices: large enough for the arithmetic to bind, small enough for the caches
COPIED = 64 << 20  # bytes, beyond every cache


def product(precision: torch.dtype, side: int = SIDE) -> Callable[[], object]:
    """A matrix product of ``side``^3 multiply-adds on the CPU."""
    a, b = (torch.randn(side, side).to(precision) for _ in range(2))
    return lambda: a @ b


def copy(size: int = COPIED) -> Callable[[], object]:
    """A copy of ``size`` bytes in memory."""
    source = torch.ones(size, dtype=torch.uint8)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def best_seconds(call: Callable[[], object], repeats: int = 15) -> float:
    """The shortest of some calls in s: a limit is what the machine can do, not what it does beside other work."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def arithmetic_kinds() -> dict[str, torch.dtype]:
    """Precisions that the CPU computes in: "fp32", and "bf16" where it has it."""
    return {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_bfloat16(torch.device("cpu")) else {})


def arithmetic_limits(quick: bool = False) -> dict[str, float]:
    """Multiply-adds per second with torch's present threads: "fp32", and "bf16" where the CPU computes in it."""
    side = 128 if quick else SIDE
    return {name: side**3 / best_seconds(product(kind, side)) for name, kind in arithmetic_kinds().items()}


def copied_bytes_per_second(quick: bool = False) -> float:
    """Bytes per second of a copy in memory, read and written counted once each."""
    size = 1 << 20 if quick else COPIED
    return 2 * size / best_seconds(copy(size))


def arithmetic_floor(model: nn.Module, seconds: float, rate: float) -> float:
    """Time in s that the multiply-adds of the network's layers take at ``rate`` per second, for ``seconds`` of audio."""
    macs = count_macs(model, seconds)
    assert isinstance(macs, int)
    return macs / rate
