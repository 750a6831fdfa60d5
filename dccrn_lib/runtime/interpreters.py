"""Interpreters that this process starts: none takes a module from the folder one is in.

``python -c``, and with it every process that is spawned, looks for modules there first: a ``random.py`` or ``torch.py``
of the user would be run in place of the one that is meant. What this process itself finds there, as in a clone under
``python -m dccrn_lib``, its children find too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE, _OURS = "PYTHONSAFEPATH", "dccrn_lib"  # Python asks only whether the variable is empty


def child_command(code: str, *arguments: str) -> list[str]:
    """What starts an interpreter that runs ``code`` with these arguments; start it with :func:`child_environment`."""
    return [sys.executable, "-P", "-c", code, *arguments]


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a child that finds modules where this process finds them.

    Args:
        more: further variables.
    """
    paths, root = [path for path in sys.path if path], str(Path(__file__).resolve().parents[2])
    paths += [] if root in paths else [root]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


@contextmanager
def without_current_folder() -> Iterator[None]:
    """Interpreters started in the block do not look into the folder one is in; multiprocessing tells them where to look.

    They call :func:`forget_parent`, so that what they start in turn is as it would be without.
    """
    if os.environ.get(_VARIABLE):
        yield
        return
    os.environ[_VARIABLE] = _OURS
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)


def forget_parent() -> None:
    """Take what :func:`without_current_folder` said out of the environment; called once in a child."""
    if os.environ.get(_VARIABLE) == _OURS:
        del os.environ[_VARIABLE]
