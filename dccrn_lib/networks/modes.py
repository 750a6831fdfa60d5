"""Eval mode for a while: every module of a network gets back the mode that it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode; the mode of each of its modules is restored afterwards, whatever happens.

    The root's flag alone would not do: layers that are frozen in eval mode inside a network that trains would be put
    into train mode.

    >>> model = nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout())
    >>> with evaluating(model):
    ...     pass
    >>> [module.training for module in model.modules()]
    [True, False, True]
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training
