"""Samples in memory, of whatever kind they come: one rule for what enhancement and evaluation take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dccrn_lib.runtime.errors import AudioError


def real_samples(
    x: np.ndarray | Tensor | Sequence[float], name: str, error: type[Exception] = AudioError
) -> np.ndarray:
    """Any dense real array, tensor or sequence as one of NumPy.

    Args:
        x: floats or integers of any width, stride, byte order and device.
        name: begins the message.
        error: class to raise.

    Returns:
        The same shape, in C order: float32, or the integers as they are. A value beyond float32 is infinite.

    Raises:
        error: complex, Boolean, sparse, quantised, nested or without values, or no numbers at all.

    >>> real_samples(torch.tensor([0.5, 1.0], dtype=torch.bfloat16), "the signal")
    array([0.5, 1. ], dtype=float32)
    """
    if isinstance(x, Tensor):
        if x.layout != torch.strided or x.is_nested or x.is_quantized or x.is_meta:
            kind = next((k for k in ("nested", "quantized", "meta") if getattr(x, f"is_{k}")), str(x.layout))
            raise error(f"{name} must be a dense tensor, got one that is {kind}; convert it first")
        x = x.detach().cpu().resolve_conj().resolve_neg()
        x = (x.float() if x.is_floating_point() else x).numpy()  # NumPy knows no bfloat16
    try:
        array = np.asarray(x, order="C")
    except (TypeError, ValueError) as problem:
        raise error(f"{name} must be one array of real numbers ({problem})") from None
    if array.dtype.kind not in "fiu":
        raise error(f"{name} must hold real numbers, got {array.dtype}; convert it first")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, order="C", copy=False) if array.dtype.kind == "f" else array
