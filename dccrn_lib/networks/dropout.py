"""Dropout that draws its mask quickly on a CPU.

PyTorch draws each element of a mask on its own, with a generator that makes 32 bits at a time; in a training step of
Uformer that alone was a twentieth. Sixteen bits decide an element here, four of them from one draw.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class _Masked(torch.autograd.Function):
    """x times a mask of 0 and 1 / (1 - p)."""

    @staticmethod
    def forward(ctx, x: Tensor, dropped: int) -> Tensor:
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
        kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - _LEVELS // 2
        mask = kept.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grads[0] * mask, None


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` with masks that cost less on a CPU; p is rounded to 1/65536 there.

    Any shape in, the same out. In evaluation, on other devices and under ``torch.compile`` it is PyTorch's own.

    >>> _ = torch.manual_seed(0)
    >>> round(float((Dropout(0.25)(torch.ones(100_000)) == 0).float().mean()), 2)
    0.25
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> same: elements are set to 0 with probability p, the others divided by 1 - p."""
        dropped = round(self.p * _LEVELS)
        quick = self.training and x.device.type == "cpu" and not torch.compiler.is_compiling()
        return _Masked.apply(x, dropped) if quick and 0 < dropped < _LEVELS else super().forward(x)
