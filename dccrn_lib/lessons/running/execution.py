"""Executing notebooks by papermill, one after another or several at a time.

The kernel is always the running interpreter with this very package on its path, whatever kernels the user has
installed, and its working folder is the notebooks' own, as under JupyterLab and nbval.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tqdm import tqdm

from dccrn_lib.runtime.errors import DccrnError


@dataclass(frozen=True)
class NotebookRun:
    """What became of one notebook. ``status`` is "ok", "failed" or "skipped"; ``seconds`` is wall time."""

    name: str
    status: str
    seconds: float
    path: str
    error: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the running interpreter; a kernelspec of the same name elsewhere cannot shadow it."""

    @property
    def kernel_spec(self) -> KernelSpec:
        package_root = str(Path(__file__).resolve().parents[3])
        inherited = os.environ.get("PYTHONPATH")
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"],
            display_name="Python 3",
            language="python",
            env={"PYTHONPATH": os.pathsep.join([package_root, *([inherited] if inherited else [])])},
        )


@dataclass(frozen=True)
class Job:
    """One notebook to execute, as it travels to the process that does it."""

    source: Path
    target: Path
    parameters: dict[str, Any]
    timeout: float | None
    patient: bool = False  # gives way to the others: nobody waits for it

    @property
    def name(self) -> str:
        return self.source.stem

    def result(self, status: str, seconds: float = 0.0, error: str | None = None) -> NotebookRun:
        return NotebookRun(self.name, status, round(seconds, 1), self.target.name, error, self.parameters)


def run_in_lanes(
    plan: dict[str, Job], lanes: int, bar: tqdm, on_result: Callable[[list[NotebookRun]], None]
) -> list[NotebookRun]:
    """Execute the plan, up to ``lanes`` notebooks at a time, those that others need first; results in the plan's order.

    One lane runs in this process. More run in processes of their own, so that Ctrl-C reaches every kernel's keeper;
    there, notebooks that nobody waits for run at a lower priority, and the longest chain sets the time.
    """
    needs = {name: set(_needs(job.source)) & plan.keys() for name, job in plan.items()}
    needed = set().union(*needs.values())
    waiting = sorted(plan, key=lambda name: name not in needed)  # a stable sort: otherwise by number
    results: dict[str, NotebookRun] = {}

    def settle(run: NotebookRun) -> None:
        results[run.name] = run
        on_result([results[name] for name in plan if name in results])

    def next_ready() -> Job | None:
        for name in list(waiting):
            lost = sorted(n for n in needs[name] if n in results and results[n].status != "ok")
            if lost:
                waiting.remove(name)
                settle(plan[name].result("skipped", error=f"skipped, because it needs {', '.join(lost)}"))
                return next_ready()
            if needs[name] <= results.keys():
                waiting.remove(name)
                return plan[name]
        return None

    if lanes == 1:
        while job := next_ready():
            bar.set_description(job.name)
            settle(_execute(job, ticker(bar)))
        return [results[name] for name in plan]

    context = get_context("spawn")
    ticks = context.Queue()
    running: dict[Future, Job] = {}
    chained = needed | {name for name in plan if needs[name]}
    pool = ProcessPoolExecutor(
        lanes, mp_context=context, initializer=_open_lane, initargs=(ticks,), max_tasks_per_child=1
    )
    with pool:
        while waiting or running:
            while len(running) < lanes and (job := next_ready()):
                job = replace(job, patient=bool(chained) and job.name not in chained)
                running[pool.submit(_execute_in_lane, job)] = job
            if waiting and not running:
                raise DccrnError(f"{', '.join(waiting)} need each other: see dccrn.needs in their metadata")
            bar.set_description(" + ".join(sorted(job.name for job in running.values())))
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            bar.update(sum(1 for _ in _taken(ticks)))
            for future in done:
                job = running.pop(future)
                try:
                    settle(future.result())
                except BrokenProcessPool as problem:
                    raise DccrnError(
                        f"{job.name}: a process of the run was killed, by a lack of memory perhaps; try --jobs 1"
                    ) from problem
        bar.update(sum(1 for _ in _taken(ticks)))
    return [results[name] for name in plan]


def _execute(job: Job, tick: Callable[..., None]) -> NotebookRun:
    """Execute one notebook by papermill."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    start, error = time.perf_counter(), None
    try:
        papermill.execute_notebook(
            str(job.source),
            str(job.target),
            parameters=job.parameters,
            cwd=str(job.source.parent),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=None if job.timeout is None else max(1, round(job.timeout)),
            kernel_manager_class=ThisInterpreter,
            on_cell_executed=tick,
        )
    except PapermillExecutionError as problem:
        error = one_line(f"cell {problem.cell_index}: {problem.ename}: {problem.evalue}")
    except (CellTimeoutError, DeadKernelError) as problem:
        error = one_line(f"{type(problem).__name__}: {problem}")
    return job.result("failed" if error else "ok", time.perf_counter() - start, error)


_TICKS: Any = None  # in a lane's process: where it says that a cell is done


def _open_lane(ticks: Any) -> None:
    global _TICKS
    _TICKS = ticks


def _execute_in_lane(job: Job) -> NotebookRun:
    if job.patient and hasattr(os, "nice"):
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
    return json.loads(path.read_text(encoding="utf-8")).get("metadata", {}).get("dccrn", {}).get("needs", [])


def ticker(bar: tqdm) -> Callable[..., None]:
    """A callback for a cell that is done."""

    def tick(**_: Any) -> None:
        bar.update()

    return tick


def one_line(text: str) -> str:
    """An error message without colours and line breaks, at most 300 characters."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[:300]
