"""Commands of the project as processes: started, watched, killed, and asked what they left."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from dccrn_lib.runtime.paths import project_root

#: Seconds after which a command counts as hanging.
PATIENCE = 600.0
#: Seconds that its children may outlive a command that was killed.
AFTERLIFE = 30.0


class Command:
    """``python -m dccrn_lib WORDS`` as a process.

    Args:
        words: of the command.
        environment: variables besides those of this process; OMP_NUM_THREADS is 1.
        largest_file: bytes that a file may take, as if the disk were full there; None sets no limit.
        before: words in front of the interpreter, such as ``unshare -n``.
        module: what is run instead of dccrn_lib.

    Every process that comes of it carries a mark in its environment, by which :meth:`alive` finds them.
    """

    def __init__(
        self,
        words: Sequence[str | os.PathLike],
        environment: dict[str, str] | None = None,
        largest_file: int | None = None,
        before: Sequence[str] = (),
        module: Sequence[str] = ("-m", "dccrn_lib"),
    ) -> None:
        self.mark = f"SOAK_MARK={uuid.uuid4().hex}"
        path = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
        name, _, value = self.mark.partition("=")
        variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, name: value, **(environment or {})}

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file or 0, largest_file or 0))

        self.begin = time.time() + 0.02  # on the clock of the file system, which is coarse
        self.process = subprocess.Popen(
            [*before, sys.executable, *module, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            preexec_fn=limit if largest_file is not None else None,
            start_new_session=True,
        )
        self.output, self.started, self.seconds = "", time.monotonic(), 0.0
        os.set_blocking(self.process.stdout.fileno(), False)

    def _read(self) -> None:
        while chunk := self.process.stdout.read():
            self.output += chunk.decode(errors="replace")

    def running(self) -> bool:
        """Whether it still runs; what it printed is taken over."""
        ended = self.process.poll() is not None
        self._read()
        return not ended

    def wait(self, until: Callable[[], bool] | None = None, seconds: float = PATIENCE) -> bool:
        """Wait for its end, or for ``until``; False when neither came in time."""
        limit = time.monotonic() + seconds
        while self.running():
            if until is not None and until():
                return True
            if time.monotonic() > limit:
                return False
            time.sleep(0.01 if until is not None else 0.05)
        self.seconds = time.monotonic() - self.started
        return True

    def send(self, number: int) -> None:
        """A signal to this process alone."""
        self.process.send_signal(number)

    def alive(self) -> list[int]:
        """Processes that came of this one and run, itself left out."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) in (os.getpid(), self.process.pid):
                continue
            try:
                marked = self.mark.encode() in (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marked and state != "Z":
                found.append(int(folder.name))
        return found

    def orphans(self, seconds: float = AFTERLIFE) -> list[str]:
        """A problem where processes that came of it still run after so long; they are ended then."""
        limit = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < limit:
            time.sleep(0.1)
        for number in left:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return [f"{len(left)} processes outlive it by more than {seconds:.0f} s"] if left else []

    def end(self) -> None:
        """Put an end to it and to what came of it, whatever its state."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._read()
        self.orphans(0.0)
        self.process.stdout.close()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def talk(self, code: int | Sequence[int] | None = None) -> list[str]:
        """Problems of what it said: a traceback, an unexpected exit code, a failure without an error's line."""
        problems, last = [], (self.output.strip().splitlines() or [""])[-1][:200]
        if "Traceback (most recent call last)" in self.output:
            problems.append(f"a traceback, {last!r}, from {_frames(self.output)}")
        codes = None if code is None else [code] if isinstance(code, int) else list(code)
        ended = self.process.returncode
        if codes is not None and ended not in codes:
            problems.append(f"exit code {ended} instead of {' or '.join(map(str, codes))}, {last!r}")
        if ended in (1, 2) and "error: " not in self.output:
            problems.append(f"exit code {ended} without an error's line, {last!r}")
        return problems


def _frames(output: str) -> str:
    """Where the first traceback came from: its innermost frames and its last line, without folders."""
    lines = output.partition("Traceback (most recent call last)")[2].splitlines()[1:]
    end = next((k for k, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    found = re.findall(r'File "(?:.*/)?(.+?)", line (\d+), in (.+)', "\n".join(lines[:end]))
    return " > ".join([*(f"{file}:{line} {name}" for file, line, name in found[-6:]), *lines[end : end + 1]])


def run(words: Sequence[str | os.PathLike], **options) -> Command:
    """Run a command to its end; past its time it is killed, and its exit code is -9."""
    with Command(words, **options) as command:
        command.wait()
    return command
