"""A teacher that no step can train: frozen, and checked afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(teacher: nn.Module) -> Iterator[nn.Module]:
    """The teacher in eval mode without gradients; checked on leaving, so that no step can have trained it.

    An exception inside the block passes unchanged: the check is for blocks that end well.

    Raises:
        AssertionError: on leaving, as of :func:`assert_frozen`.
    """
    yield freeze(teacher)
    assert_frozen(teacher)


def freeze(teacher: nn.Module) -> nn.Module:
    """The same network, in eval mode and with gradients switched off."""
    return teacher.eval().requires_grad_(False)


def assert_frozen(teacher: nn.Module) -> None:
    """Check that every part of the teacher is in eval mode and that no parameter asks for a gradient.

    Raises:
        AssertionError: a part is in training mode, or a parameter takes gradients.
    """
    if any(m.training for m in teacher.modules()):
        raise AssertionError("the teacher is in training mode: its BatchNorm statistics would change; call freeze()")
    if any(p.requires_grad or p.grad is not None for p in teacher.parameters()):
        raise AssertionError("the teacher's parameters take gradients; call freeze()")
