"""Running a target: every input in a folder of its own, with limits of time and memory; counts of what became of them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, configuration
from hypothesis.strategies import SearchStrategy

from dccrn_lib.runtime.errors import DccrnError

SECONDS = 20  # of computing; more is a hang
WAITING = 30  # times as long by the clock: the machine may be busy
GIGABYTES = 2  # of address space above what the process has, for one input
BAD_USAGE = 2


@dataclass(frozen=True)
class Target:
    """What is thrown, and at what.

    Args:
        name: of the target.
        inputs: hypothesis' description of the inputs.
        take: hands one input to the library; it may write into the folder ``out`` below the one given, and nowhere else.
        sound: an input without damage, which must be taken.
    """

    name: str
    inputs: SearchStrategy[Any]
    take: Callable[[Any, Path], None]
    sound: Callable[[], Any] | None = None


@dataclass
class Counts:
    """What became of the inputs of a target; a failure is told in words, with its input."""

    target: str
    seed: int
    inputs: int = 0
    taken: int = 0
    refused: int = 0
    slowest: float = 0.0  # s
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.inputs} inputs, {self.taken} taken, {self.refused} refused, "
            f"{len(self.failures)} failed; the slowest took {self.slowest:.1f} s"
        )


class Hang(BaseException):
    """An input took too long; nothing in the library catches it."""


def fuzz(target: str | Target, examples: int, seed: int = 0) -> Counts:
    """Throw inputs at a target.

    Args:
        target: a name from ``TARGETS``, or a target.
        examples: how many inputs at most; hypothesis makes no input twice.
        seed: of the inputs: the same seed makes the same ones.

    Returns:
        Counts; nothing is raised for an input that fails.
    """
    if isinstance(target, str):
        from tests.fuzzing.targets import TARGETS

        target = TARGETS[target]
    counts = Counts(target.name, seed)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(target.inputs)
    def throw(given: Any) -> None:
        _throw(target, given, counts)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        configuration.set_hypothesis_home_dir(home)  # it keeps notes, elsewhere in the current folder
        throw()
    return counts


def _throw(target: Target, given: Any, counts: Counts) -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name) / "inside"
        (folder / "out").mkdir(parents=True)
        (Path(name) / "above").write_text("untouched")
        failure = ""
        try:
            with _quiet(), _limits():
                target.take(given, folder)
            counts.taken += 1
        except DccrnError as error:
            counts.refused += 1
            if "\n" in str(error).strip():
                failure = f"an error of several lines: {str(error)!r}"
        except SystemExit as end:
            counts.refused += 1
            if end.code != BAD_USAGE:
                failure = f"exit code {end.code}"
        except (Exception, Hang) as error:
            failure = _told(error)
        failure = failure or _written_elsewhere(Path(name))
    counts.inputs += 1
    counts.slowest = max(counts.slowest, time.monotonic() - start)
    if failure:
        counts.failures.append(f"{failure}; input {_short(given)}")


def _told(error: BaseException) -> str:
    """The error and the lines of the library that led to it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}fuzzing{os.sep}" not in f.filename]
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[:3] + frames[3:][-3:]]
    return f"{type(error).__name__}: {str(error)[:200]!r} at {' > '.join(places)}"


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) < 1000 else f"{text[:500]} ... {text[-400:]}"


def _written_elsewhere(home: Path) -> str:
    """What lies outside the folder that the target was given."""
    beside = sorted(path.name for path in home.iterdir())
    if beside != ["above", "inside"] or (home / "above").read_text() != "untouched":
        return f"written outside of its folder: {beside}"
    return ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """``Hang`` after SECONDS of computing, MemoryError beyond GIGABYTES: in the main thread of a system that has them."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    def late(*_: object) -> None:
        raise Hang(f"took more than {SECONDS} s")

    before = [signal.signal(kind, late) for kind in (signal.SIGALRM, signal.SIGPROF)]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if status.exists():
        size = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + GIGABYTES * 2**30, hard))
    signal.alarm(WAITING * SECONDS)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for kind, handler in zip((signal.SIGALRM, signal.SIGPROF), before, strict=True):
            signal.signal(kind, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
