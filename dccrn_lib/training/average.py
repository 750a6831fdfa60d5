"""Averaged weights: an exponential moving average of the network in training, which is validated and saved.

    a <- d a + (1 - d) x,   d = min(decay, (1 + step) / (10 + step))

so that the average follows the weights closely in the first steps.
"""

# torch's own optimisers call the _foreach functions; its stubs name them, but do not export them.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def average_decay(step: int, most: float) -> float:
    """d of step ``step`` (0-based), at most ``most``.

    >>> average_decay(0, 0.99), average_decay(10_000, 0.99)
    (0.1, 0.99)
    """
    return min(most, (1 + step) / (10 + step))


def copy_for_average(model: nn.Module) -> nn.Module:
    """A copy to average into; the weights of its LSTMs lie in one piece, as cuDNN wants them."""
    average = copy.deepcopy(model)
    for layer in average.modules():
        if isinstance(layer, nn.RNNBase):
            layer.flatten_parameters()
    return average


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float | Tensor) -> None:
    """Move the average by one step; BatchNorm statistics are averages already and are copied.

    Args:
        average, model: averaged and latest weights; nothing is done if they are one.
        decay: d in [0, 1]: a number, or float32 () on the device, which the host then does not read. 1 leaves the weights.
    """
    if average is model:
        return
    averages: list[Tensor] = list(average.parameters())
    values: list[Tensor] = list(model.parameters())
    if isinstance(decay, Tensor):
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, torch._foreach_mul(values, 1 - decay))
    else:
        get_ema_multi_avg_fn(decay)(averages, values, None)  # in one call
    for a, b in zip(average.buffers(), model.buffers(), strict=True):
        a.copy_(b)
