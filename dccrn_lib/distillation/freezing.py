"""A teacher that no step can train: frozen, and checked afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(teacher: nn.Module) -> Iterator[nn.Module]:
    """The teacher in eval mode without gradients; checked on leaving, so that no step can have trained it.

    An exception inside the block passes unchanged: the check is for blocks that end well.
    """
    yield freeze(teacher)
    assert_frozen(teacher)


def freeze(teacher: nn.Module) -> nn.Module:
    """Set eval mode and switch gradients off."""
    return teacher.eval().requires_grad_(False)


def assert_frozen(teacher: nn.Module) -> None:
    """Raise unless every part of the teacher is in eval mode and no parameter asks for a gradient."""
    if any(m.training for m in teacher.modules()):
        raise AssertionError("the teacher is in training mode: its BatchNorm statistics would change; call freeze()")
    if any(p.requires_grad or p.grad is not None for p in teacher.parameters()):
        raise AssertionError("the teacher's parameters take gradients; call freeze()")
