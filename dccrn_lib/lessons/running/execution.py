"""Executing notebooks by papermill, one after another or several at a time.

The kernel is always the running interpreter with this very package on its path, whatever kernels the user has
installed, and its working folder is the notebooks' own, as under JupyterLab and nbval.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tqdm import tqdm

from dccrn_lib.lessons.running.notebook_file import read_notebook
from dccrn_lib.runtime.errors import DccrnError
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.interpreters import without_current_folder
from dccrn_lib.runtime.paths import MOVED
from dccrn_lib.runtime.workers import SpawnPool, is_ending, spawn_pool


@dataclass(frozen=True)
class NotebookRun:
    """What became of one notebook. ``status`` is "ok", "failed" or "skipped"; ``seconds`` is wall time.

    Where the notebook could not be ``written``, a file at ``path`` is left from an earlier run.
    """

    name: str
    status: str
    seconds: float
    path: str
    error: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    written: bool = True


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the running interpreter; a kernelspec of the same name elsewhere cannot shadow it.

    IPython finds an empty folder of settings, which ends with the manager: no start-up file of the user changes what a
    lesson computes, and nothing is written into the home folder. What native code, or a kernel that is being ended,
    writes on stderr goes into a file there.
    """

    #: Set in a process of :func:`execute_all`, for its one kernel: a folder that goes with the run, however it ends.
    shared_folder: str | None = None
    #: Where the caller is, if it is elsewhere than the process that starts the kernel: papermill moves it to the lessons.
    caller_folder: str = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.shared_folder is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="dccrn-ipython-", ignore_cleanup_errors=True)
        self._settings = self.shared_folder or self._own_folder.name

    @property
    def kernel_spec(self) -> KernelSpec:
        package_root = str(Path(__file__).resolve().parents[3])
        inherited = os.environ.get("PYTHONPATH")
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"],
            display_name="Python 3",
            language="python",
            env={
                "PYTHONPATH": os.pathsep.join([package_root, *([inherited] if inherited else [])]),
                "IPYTHONDIR": self._settings,
                "PYTHONSTARTUP": "",  # IPython runs that file, too
                # kernels are started in the lessons' folder: a relative path would mean another place there
                **{
                    name: os.path.abspath(os.path.join(self.caller_folder, value))
                    for name in MOVED
                    if (value := os.environ.get(name))
                },
            },
        )

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        with open(Path(self._settings) / _STDERR, "wb") as log:
            await super()._async_launch_kernel(kernel_cmd, **kw, stderr=log)


_STDERR = "stderr.txt"


def _last_words() -> str:
    """The last line that a kernel left on stderr: one that cannot even start says there why."""
    log = Path(ThisInterpreter.shared_folder or "") / _STDERR
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((f" ({line.strip()})" for line in reversed(lines) if line.strip()), "")


@dataclass(frozen=True)
class Job:
    """One notebook to execute, as it travels to the process that does it."""

    source: Path
    target: Path
    parameters: dict[str, Any]
    timeout: float | None
    low_priority: bool = False  # gives way to the others: nobody waits for it

    @property
    def name(self) -> str:
        return self.source.stem

    def result(self, status: str, seconds: float = 0.0, error: str | None = None, written: bool = True) -> NotebookRun:
        return NotebookRun(self.name, status, round(seconds, 1), self.target.name, error, self.parameters, written)


class Schedule:
    """The order of the notebooks: what others need comes first, and what needs a failed one is skipped.

    Args:
        plan: name -> job, in the order of the names.
        on_result: called with the results so far, in the plan's order, after each.

    Raises:
        DccrnError: notebooks need each other.
    """

    def __init__(self, plan: dict[str, Job], on_result: Callable[[list[NotebookRun]], None]) -> None:
        self.plan, self.on_result = plan, on_result
        self.needs = {name: set(_needs(job.source)) & plan.keys() for name, job in plan.items()}
        self.needed: set[str] = set().union(*self.needs.values())
        self.results: dict[str, NotebookRun] = {}
        self._sorter, self._ready = TopologicalSorter(self.needs), list[str]()
        try:
            self._sorter.prepare()
        except CycleError as error:
            circle = ", ".join(sorted(set(error.args[1])))
            raise DccrnError(f"{circle} need each other: see dccrn.needs in their metadata") from None

    def next_job(self) -> Job | None:
        """A notebook whose needs have run, those that others need first; None while there is none."""
        while True:
            self._ready += self._sorter.get_ready()
            if not self._ready:
                return None
            name = min(self._ready, key=lambda name: (name not in self.needed, list(self.plan).index(name)))
            self._ready.remove(name)
            failed_needs = sorted(n for n in self.needs[name] if self.results[n].status != "ok")
            if not failed_needs:
                return self._with_priority(self.plan[name])
            self.record(self.plan[name].result("skipped", error=f"skipped, because it needs {', '.join(failed_needs)}"))

    def _with_priority(self, job: Job) -> Job:
        """Where some notebooks wait for others, one outside these chains gives way: the longest chain sets the time."""
        outside = not self.needs[job.name] and job.name not in self.needed
        return replace(job, low_priority=bool(self.needed) and outside)

    def record(self, run: NotebookRun) -> None:
        """Take a result; notebooks that waited for it become ready."""
        self.results[run.name] = run
        self._sorter.done(run.name)
        self.on_result(self.in_order())

    def in_order(self) -> list[NotebookRun]:
        """The results so far, in the plan's order."""
        return [self.results[name] for name in self.plan if name in self.results]


def execute_all(
    plan: dict[str, Job], jobs: int, bar: tqdm, on_result: Callable[[list[NotebookRun]], None]
) -> list[NotebookRun]:
    """Execute the plan, up to ``jobs`` notebooks at a time, those that others need first; results in the plan's order.

    Each runs in a process of its own that ends with this one, and its kernel with it. One that is stopped by a signal
    leaves an earlier notebook of its name as it was.

    Raises:
        DccrnError: notebooks need each other.
        WorkerError: a process was killed.
    """
    schedule = Schedule(plan, on_result)
    with without_current_folder():  # a helper process of multiprocessing starts here
        ticks = SpawnPool.context.Queue()
    running: dict[Future, Job] = {}
    hint = "by a lack of memory perhaps" + ("; try --jobs 1" if jobs > 1 else "")
    with (
        tempfile.TemporaryDirectory(prefix="dccrn-kernels-", ignore_cleanup_errors=True) as folder,
        spawn_pool(jobs, _start_process, (ticks, folder), shielded=False, tasks_per_process=1, hint=hint) as pool,
    ):
        while True:
            while len(running) < jobs and (job := schedule.next_job()):
                running[pool.submit(_execute_in_process, job)] = job
            if not running:
                break
            bar.set_description(" + ".join(sorted(job.name for job in running.values())), refresh=False)
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            bar.update(sum(1 for _ in _taken(ticks)))
            for future in done:
                del running[future]
                schedule.record(future.result())
        bar.update(sum(1 for _ in _taken(ticks)))
    return schedule.in_order()


def _execute(job: Job, tick: Callable[..., None]) -> NotebookRun:
    """Execute one notebook by papermill; the file takes its name when all of it is written."""
    start, written = time.perf_counter(), True
    try:
        with atomic_path(job.target) as temporary:
            shutil.copyfile(job.source, temporary)  # what is there if the kernel does not even start
            error = _by_papermill(job, temporary, tick)
            if is_ending():
                raise KeyboardInterrupt
            _name_in(temporary, job.target)
    except OSError as problem:
        error, written = one_line(f"{problem.filename or job.target}: {problem.strerror or problem}"), False
    return job.result("failed" if error else "ok", time.perf_counter() - start, error, written)


def _by_papermill(job: Job, target: Path, tick: Callable[..., None]) -> str | None:
    """What went wrong in a cell, if anything did."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    ThisInterpreter.caller_folder = os.getcwd()
    try:
        papermill.execute_notebook(
            _literal(job.source),
            _literal(target),
            parameters=job.parameters,
            cwd=str(job.source.parent),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=None if job.timeout is None else max(1, round(job.timeout)),
            kernel_manager_class=ThisInterpreter,
            on_cell_executed=tick,
            coalesce_streams=True,  # what a cell prints is one text, however busy the machine was
        )
    except PapermillExecutionError as problem:
        return one_line(f"cell {problem.cell_index}: {problem.ename}: {problem.evalue}")
    except (CellTimeoutError, DeadKernelError, RuntimeError) as problem:  # the last: a kernel that does not start
        return one_line(f"{type(problem).__name__}: {problem}{_last_words()}")
    return None


def _literal(path: Path) -> str:
    """A path in which papermill finds no {parameter} to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _name_in(notebook: Path, target: Path) -> None:
    """Papermill writes down where it wrote: let that be the name which the file will have."""
    text = notebook.read_text(encoding="utf-8")
    wrong, right = (json.dumps(str(path), ensure_ascii=False) for path in (notebook, target))
    notebook.write_text(text.replace(wrong, right), encoding="utf-8")


_TICKS: Any = None  # in a process of its own: where it says that a cell is done


def _start_process(ticks: Any, folder: str) -> None:
    global _TICKS
    _TICKS = ticks
    ThisInterpreter.shared_folder = tempfile.mkdtemp(dir=folder)


def _execute_in_process(job: Job) -> NotebookRun:
    if job.low_priority and hasattr(os, "nice"):
        os.nice(10)  # the kernel inherits it; the process ends with the notebook
    return _execute(job, lambda **_: _TICKS.put(job.name))


def _taken(ticks: Any) -> Iterator[str]:
    """What lies in the queue now."""
    while True:
        try:
            yield ticks.get_nowait()
        except Empty:
            return


def _needs(path: Path) -> list[str]:
    return read_notebook(path).metadata.get("dccrn", {}).get("needs", [])


def ticker(bar: tqdm) -> Callable[..., None]:
    """A callback for a cell that is done."""

    def tick(**_: Any) -> None:
        bar.update()

    return tick


def one_line(text: str) -> str:
    """An error message without colours and line breaks, at most 300 characters."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[:300]
