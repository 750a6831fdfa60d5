"""Signals that ask a process to end (Ctrl-C, SIGTERM, SIGHUP): tidy up, finish the step, or keep them from others.

SIGHUP comes when a terminal closes; a process that was told to ignore it (``nohup``) continues to ignore it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
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


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP are heard after the block, where a Python function hears them.

    For what must not be left in its middle, such as the start of a process that is to be waited for later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    before = {number: handler for number, handler in before.items() if callable(handler)}
    for number in before:
        signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


#: Seconds in which further signals are echoes of the first: torchrun and Slurm send theirs on to every process.
ECHO_SECONDS = 3.0

#: What asks a process to end, beside Ctrl-C. Windows has no SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end: as at Ctrl-C, what is half written goes. ``number`` is the signal's."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


#: An interrupt that came in a finalizer comes again after so many seconds.
AGAIN_SECONDS = 0.01


def send_lost_interrupts_again(forget: Callable[[], None] = lambda: None) -> Callable:
    """From now on an interrupt that is raised in a finalizer (``__del__``) is not lost with a printed traceback.

    Python drops exceptions there, so the signal is sent to this process once more, a moment later.

    Args:
        forget: called before that.

    Returns:
        The ``sys.unraisablehook`` that was there before.
    """
    before = sys.unraisablehook

    def again(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            before(lost)
            return
        forget()
        number = lost.exc_value.number if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        timer = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    return before


@contextmanager
def tidy_ending() -> Iterator[None]:
    """SIGTERM and SIGHUP raise :class:`Terminated` in the block, so that it ends as at Ctrl-C instead of at once.

    Signals that are ignored or that somebody else handles are left as they are; so are all outside the main thread.
    None is lost in a finalizer, Ctrl-C neither.
    """
    raised = False

    def forget() -> None:
        nonlocal raised
        raised = False

    def end(number: int, _frame: object) -> None:
        nonlocal raised
        if not raised:  # a second one must not disturb the tidying
            raised = True
            raise Terminated(number)

    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in ENDING if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    before = send_lost_interrupts_again(forget)
    try:
        yield
    finally:
        sys.unraisablehook = before
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class StopSignal:
    """SIGINT, SIGTERM and SIGHUP ask the loop to checkpoint and stop after the current step.

    Another one, :data:`ECHO_SECONDS` after the first or later, stops at once by KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.asked = False
        self.since = 0.0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *ENDING):
                if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) != signal.SIG_IGN:
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
