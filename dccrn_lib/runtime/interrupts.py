"""Ctrl-C and SIGTERM: finish the step and stop, or keep them from the processes one starts."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes started inside do not see Ctrl-C; their parent does, and tells them to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change signals, and only it is interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


#: Seconds in which further signals are echoes of the first: torchrun and Slurm send theirs on to every process.
ECHO_SECONDS = 3.0


class StopSignal:
    """SIGINT and SIGTERM ask the loop to checkpoint and stop after the current step.

    Another one, :data:`ECHO_SECONDS` after the first or later, stops at once by KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.asked = False
        self.since = 0.0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number, frame) -> None:
        if self.asked and time.monotonic() - self.since >= ECHO_SECONDS:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self.since = True, time.monotonic()

    def __exit__(self, *_exc) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
