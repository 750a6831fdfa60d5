"""BatchNorm over the whole batch when several processes share it: the same numbers as one process would get.

Each process holds a part of the batch. Mean and variance are averaged over the processes, and so are their gradients,
so that forward and backward pass, running statistics and trained weights are those of one process with the whole batch
up to rounding. It needs nothing but all-reduce: gloo on CPUs, nccl on GPUs (torch's SyncBatchNorm wants CUDA, and knows
neither complex statistics nor shared ones).

All processes must hold parts of one size. In eval mode, and in one process, the layers are the plain ones.

Source: Ioffe and Szegedy 2015 for the statistics; ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dccrn_lib.networks.complex_layers import ComplexBatchNorm2d
from dccrn_lib.networks.uformer.streams import SharedBatchNorm2d
from dccrn_lib.runtime.distributed import mean_over_processes, process_count

_AXES = (0, 2, 3)  # batch, freq, frame


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the statistics of all processes: (batch, chan, freq, frame) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, chan, freq, frame) -> same; ``batch`` is this process's part of the whole one."""
        if not self.training or process_count() == 1:
            return super().forward(x)
        count = x.numel() // x.shape[1] * process_count()
        x32 = x.float()
        # mu = E[x],   sigma^2 = E[(x - mu)^2]   over batch, freq, frame and processes
        mean = mean_over_processes(x32.mean(_AXES))
        centred = x32 - mean[:, None, None]
        variance = mean_over_processes(centred.square().mean(_AXES))
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        # y = gamma (x - mu) / sqrt(sigma^2 + eps) + beta
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class SyncSharedBatchNorm2d(SharedBatchNorm2d, SyncBatchNorm2d):
    """Uformer's BatchNorm with one statistic for real and imaginary part, over all processes."""


class SyncComplexBatchNorm2d(ComplexBatchNorm2d):
    """:class:`ComplexBatchNorm2d` with the means and covariances of all processes."""

    def batch_mean(self, x: Tensor) -> Tensor:
        """Mean over batch, freq, frame and the processes: (batch, chan / 2, freq, frame) -> (chan / 2,)."""
        return mean_over_processes(super().batch_mean(x))


_SYNCHRONISED = {
    nn.BatchNorm2d: SyncBatchNorm2d,
    SharedBatchNorm2d: SyncSharedBatchNorm2d,
    ComplexBatchNorm2d: SyncComplexBatchNorm2d,
}


def synchronise_batch_norm(model: nn.Module) -> int:
    """Let every BatchNorm of ``model`` see the batch of all processes; weights, buffers, names and hooks stay.

    Returns:
        Layers changed.
    """
    changed = 0
    for module in model.modules():
        kind = _SYNCHRONISED.get(type(module))
        if kind is not None:
            module.__class__ = kind  # the same layer, with another way to take a mean
            changed += 1
    return changed
