"""Distributed training: the rank of this process and the world size, and collectives, with gradients where needed.

torchrun starts the processes (ranks) and describes them in the environment; without it there is one. Every rank holds
the same weights and works on an equal part of each batch. A mean over the batch is therefore the mean over the ranks of
their means.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dccrn_lib.runtime.devices import pick_device
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.settings import shown

T = TypeVar("T")


def process_count() -> int:
    """Processes that work on a batch together; 1 outside torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _MeanOverProcesses(torch.autograd.Function):
    """y = 1/W sum over processes of x_r. Each process starts backward from a loss of its own, and the loss that all
    minimise is their sum up to a factor: dL/dx_r = 1/W sum over processes of dL_s/dy."""

    @staticmethod
    def forward(_ctx, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(_ctx, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(x: Tensor) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x / dist.get_world_size()


def mean_over_processes(x: Tensor) -> Tensor:
    """Mean of ``x`` over the processes, with its gradient; ``x`` itself when there is one. All processes must call it.

    Shapes: any -> same, on every process the same values.
    """
    return _MeanOverProcesses.apply(x) if process_count() > 1 else x


@dataclass(frozen=True)
class Processes:
    """This process among those started by torchrun; one process without it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def start(cls, device: str) -> tuple[Processes, torch.device]:
        """Join the group that torchrun describes in the environment: nccl on GPUs, gloo on CPUs.

        Args:
            device: "cpu", "cuda", "cuda:1" or "auto"; "cuda" is one GPU a process.

        Returns:
            This process and its device.

        Raises:
            ConfigError: CUDA asked for and not there, more processes on this machine than GPUs, or an environment
                that describes no group.
        """
        rank, world, local_rank = _from_environment()
        chosen = pick_device(device, local_rank)
        if chosen.type == "cuda":
            if (chosen.index or 0) >= torch.cuda.device_count():
                raise ConfigError(
                    f"process {local_rank} of this machine finds {torch.cuda.device_count()} GPUs; "
                    "start one process per GPU: --nproc-per-node"
                )
            torch.cuda.set_device(chosen)
        if world > 1 and not dist.is_initialized():
            # some wait while process 0 decodes the corpus
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=2))
            atexit.register(_leave)
        return cls(rank, world, local_rank), chosen

    def mean(self, value: float, device: torch.device) -> float:
        """Mean over the processes, in double precision."""
        return self.means({"value": value}, device)["value"]

    def means(self, values: dict[str, float], device: torch.device) -> dict[str, float]:
        """Mean over the processes of each value, in one transfer; the names are the same everywhere."""
        if self.world == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return dict(zip(values, (tensor / self.world).tolist(), strict=True))

    def mean_of(self, values: Tensor) -> Tensor:
        """Mean over the processes, element by element; any shape, and it stays on the device."""
        if self.world == 1:
            return values
        dist.all_reduce(values)
        return values / self.world

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Mean over the processes of the gradients of parameters outside DistributedDataParallel."""
        for parameter in parameters if self.world > 1 else ():
            if parameter.grad is not None:
                parameter.grad.copy_(_mean(parameter.grad))

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite ``tensors`` by those of process 0."""
        for tensor in tensors if self.world > 1 else ():
            dist.broadcast(tensor, 0)

    def first_then_all(self, make: Callable[[], T]) -> T:
        """What ``make()`` gives: process 0 calls it before the others, so that these find the files that it has written."""
        if self.rank == 0:
            made = make()
            self.wait()
            return made
        self.wait()
        return make()

    def wait(self) -> None:
        """Continue when all processes are here: a barrier."""
        if self.world > 1:
            dist.barrier()


_ENVIRONMENT = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _from_environment() -> tuple[int, int, int]:
    """(rank, world size, local rank) as torchrun sets them; ConfigError for what it would not set."""
    cure = "start with torchrun, which sets it, or unset it"
    numbers = [_number(name, default, cure) for name, default in _ENVIRONMENT]
    rank, world, local_rank = numbers
    if world < 1 or not 0 <= rank < world or local_rank < 0:
        said = ", ".join(f"{name}={number}" for (name, _), number in zip(_ENVIRONMENT, numbers, strict=True))
        raise ConfigError(f"the environment says {said}, and needs 0 <= RANK < WORLD_SIZE; {cure}")
    if world > 1:
        if not os.environ.get("MASTER_ADDR"):
            raise ConfigError(f"WORLD_SIZE={world}, and MASTER_ADDR does not say where the first process is; {cure}")
        port = _number("MASTER_PORT", "", cure)
        if not 0 < port < 1 << 16:
            raise ConfigError(f"the environment says MASTER_PORT={port}, which is no port; {cure}")
    return rank, world, local_rank


def _number(name: str, default: str, cure: str) -> int:
    text = os.environ.get(name, default)
    if not re.fullmatch(r"\s*-?\d{1,9}\s*", text, re.ASCII):
        raise ConfigError(f"the environment says {name}={shown(text)}, which is no whole number; {cure}")
    return int(text)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
