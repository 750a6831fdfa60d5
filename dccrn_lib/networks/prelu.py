"""PReLU with a backward pass that is quick on a CPU.

PyTorch computes the gradient of the one slope elementwise and then sums it, in a loop that is not vectorised: on one
core that alone was a seventh of a training step of the full student and more of the mini one. Same function, same
parameter, same gradients up to rounding; only the order of the sums differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class _SlopedRectifier(torch.autograd.Function):
    """max(x, 0) + slope * min(x, 0), and both gradients by vectorised passes."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return functional.leaky_relu(x, slope.item())

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        grad_x = torch.ops.aten.leaky_relu_backward(grad, x, slope.item(), False)
        grad_slope = (grad * x.clamp(max=0)).sum(dtype=torch.float32)
        return grad_x, grad_slope.reshape(1).to(slope.dtype)


class PReLU(nn.PReLU):
    """``torch.nn.PReLU`` with one slope, several times quicker to train on a CPU.

    Any shape in, the same out. In evaluation, on other devices and under ``torch.compile`` it is PyTorch's own.

    Source: He et al., "Delving Deep into Rectifiers", 2015.

    >>> act = PReLU()
    >>> act(torch.tensor([-2.0, 3.0])).tolist()
    [-0.5, 3.0]
    """

    def __init__(self, slope: float = 0.25) -> None:
        super().__init__(num_parameters=1, init=slope)

    def forward(self, x: Tensor) -> Tensor:
        """max(x, 0) + slope * min(x, 0), any shape -> same."""
        if self.training and torch.is_grad_enabled() and x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _SlopedRectifier.apply(x, self.weight)
        return super().forward(x)
