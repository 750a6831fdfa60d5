"""Locks that end with the process that holds them, however it ends.

A lock lies on an open file (``flock``), so that a killed process leaves none behind, and a process that is forked does
not inherit one. Where the system or the file system knows no such locks, whoever asks is told so.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import PathLike

if os.name == "posix":
    import fcntl
else:
    fcntl = None

_held: set[int] = set()  # open files whose locks are ours alone: a forked process closes them
LOCK = ".lock"


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file: True where the lock is ours now, False where another process has it, None where there are none.

    The lock ends when the file is closed, here by :func:`unlock`.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None  # a file system without locks
    _held.add(descriptor)
    return True


def unlock(descriptor: int) -> None:
    """Close a file from :func:`try_lock`."""
    _held.discard(descriptor)
    os.close(descriptor)


def _forked() -> None:
    """In a process just forked: the locks stay with the parent."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def is_at(descriptor: int, path: PathLike) -> bool:
    """Whether an open file is still the one of that name, and was not removed or replaced meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@contextmanager
def only_writer(folder: PathLike, wait: bool = False) -> Iterator[None]:
    """Let no other process write into ``folder`` by this function while the block runs.

    The folder is made, and vanishes with the block if nothing was written into it.

    Args:
        folder: to be written into.
        wait: until nobody else does, however long that takes.

    Raises:
        ConfigError: another process, or another thread of this one, does so now, and ``wait`` is not asked for.
    """
    folder = Path(folder)
    was_there = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = try_lock(descriptor)
        if locked is False:
            owner = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(descriptor)
            if wait:
                time.sleep(0.5)
                continue
            raise ConfigError(f"{folder}: {owner} writes into this folder; wait until it ends, or choose another one")
        if locked is None or is_at(descriptor, path):
            break
        unlock(descriptor)  # its last owner removed it just now
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        if fcntl is None:  # such systems do not remove a file that is open
            unlock(descriptor)
            with suppress(OSError):  # another process has it open
                path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)
            unlock(descriptor)
        if not was_there:
            with suppress(OSError):  # something was written
                folder.rmdir()
