"""Devices: which one to take, whether it is there, what it computes itself, and how a CPU is set up for it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dccrn_lib.runtime.errors import ConfigError

#: Of inference: the exact one, and the one that takes about half the time where the device has bfloat16 arithmetic.
PRECISIONS = ("fp32", "bf16")


def require_device(name: str | torch.device) -> torch.device:
    """The device of this name, if torch can compute on it here; ConfigError otherwise."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {str(name)!r}; use cpu, cuda or cuda:1") from error
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise ConfigError(f"device {str(name)!r} is not available here; use cpu") from error
    return device


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name; "auto" takes a GPU if there is one.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1" ...
        local_rank: of this process on its machine: which GPU "cuda" is.

    Raises:
        ConfigError: a device is asked for that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: torch sees no CUDA GPU here; use device cpu or auto")
    if name == "cuda":
        return torch.device("cuda", local_rank)
    return torch.device(name) if name.startswith("cuda") else require_device(name)


def prefer_fast_kernels(device: torch.device) -> None:
    """On a GPU, for all that trains there: cuDNN chooses by measuring, and products of float32 matrices are in TF32.

    Attention is left to the other kernels: the gradients of cuDNN's were not always finite on Hopper (pytorch issue
    196678), and the sequences here are short. Nothing changes on a CPU.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cuda.enable_cudnn_sdp(False)


def autocast(precision: str, device: torch.device | str) -> torch.autocast:
    """Inference in this precision: "fp32", the exact one, or "bf16" for the layers (STFT and masks stay float32).

    Raises:
        ConfigError: another precision, or bf16 on a CPU that would only emulate it.
    """
    device = torch.device(device)
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if precision == "bf16" and not has_bfloat16(device):
        raise ConfigError(f"{NO_BFLOAT16}; use precision fp32")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


NO_BFLOAT16 = "this device has no bfloat16 arithmetic and would emulate it slowly"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself.

    An x86 CPU without AVX512-BF16 or AMX emulates it, slowly, and so do NVIDIA GPUs before Ampere (2020).
    """
    if device.type == "cuda" and torch.version.hip is None:
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_up_cpu(threads: int | None = None) -> None:
    """Before much is computed: numbers below 1e-38 count as 0, since they slow a CPU down many times.

    Torch keeps this for each thread of Python, so call it in the one that computes.

    Args:
        threads: of torch from now on, as many as before when None. A miniature gains nothing from a second one.
    """
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def with_threads(count: int = 1) -> Iterator[None]:
    """Torch on so many threads; afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
