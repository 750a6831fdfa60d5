"""Running the notebooks: papermill with strict parameters, and cleaning them for the repository."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

from dccrn_lib.lessons.running.cleaning import clean_notebook, cleaned, write_notebook
from dccrn_lib.lessons.running.execution import Job, NotebookRun, ThisInterpreter, execute_all, one_line, ticker
from dccrn_lib.lessons.running.notebook_file import read_notebook
from dccrn_lib.lessons.running.parameters import assign, read_parameters, require_text
from dccrn_lib.lessons.running.report import write_report
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.errors import ConfigError, DccrnError, nearest_name
from dccrn_lib.runtime.files import write_json
from dccrn_lib.runtime.paths import PathLike, notebooks_dir, runs_dir
from dccrn_lib.runtime.settings import split_assignments
from dccrn_lib.runtime.workers import usable_cores
from dccrn_lib.training.profiles import get_profile

__all__ = [
    "NotebookRun",
    "RunReport",
    "clean_notebook",
    "describe_parameters",
    "execute_in_place",
    "find_notebooks",
    "run_notebooks",
    "split_assignments",
]


@dataclass(frozen=True)
class RunReport:
    """What became of a run, in ``seconds`` of wall time. ``report`` is None when notebooks were executed in place."""

    profile: str
    out: Path
    notebooks: tuple[NotebookRun, ...]
    report: Path | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Every notebook ran to its end."""
        return all(run.status == "ok" for run in self.notebooks)

    @property
    def errors(self) -> list[str]:
        """One line for each notebook that failed or was skipped."""
        return [f"{run.name}: {run.error}" for run in self.notebooks if run.error]

    def __str__(self) -> str:
        done = sum(run.status == "ok" for run in self.notebooks)
        where = self.report or self.out
        return f"{done} of {len(self.notebooks)} notebooks ran in {self.seconds:.0f} s: {where}"


def find_notebooks(only: list[str] | None = None, folder: PathLike | None = None) -> list[Path]:
    """The notebooks of a folder in the order of their names.

    Args:
        only: numbers ("05", "5", "05b") or names ("05_distillation"); None takes all.
        folder: where they lie; the project's notebooks when None.

    Raises:
        ConfigError: no notebooks there, one asked for does not exist, or none is asked for.
    """
    if only is not None and not only:
        raise ConfigError("no notebook is named; give numbers or names (05,06), or leave the choice out for all")
    folder = Path(folder or notebooks_dir()).resolve()
    notebooks = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if not path.name.startswith(".")}
    if not notebooks:
        raise ConfigError(f"{folder}: no notebooks there")
    # JupyterLab's duplicates and new notebooks run where they are named: a copy of lesson 05 trains in the same folder
    lessons = [stem for stem in notebooks if not re.fullmatch(r".*-Copy\d+|Untitled\d*", stem)] or list(notebooks)
    chosen: set[str] = set()
    for text in only if only is not None else lessons:
        name = text.removesuffix(".ipynb")
        number = re.fullmatch(r"(\d+)([a-z]?)", name)  # "5", "05" or "05b"
        start = f"{int(number[1]):02d}{number[2]}_" if number else None
        hits = [stem for stem in notebooks if stem == name or (start and stem in lessons and stem.startswith(start))]
        if not hits:
            raise ConfigError(f"no notebook {text!r}; {nearest_name(name, list(notebooks))}")
        chosen.update(hits)
    return [path for stem, path in notebooks.items() if stem in chosen]


def describe_parameters(only: list[str] | None = None, notebooks_dir: PathLike | None = None) -> str:
    """Text that lists every parameter of the chosen notebooks with type, default and help."""
    lines = []
    for path in find_notebooks(only, notebooks_dir):
        lines.append(path.stem)
        for p in read_parameters(path):
            lines.append(f"  {p.name + ': ' + p.type:<28} {p.default!r:<20} {p.help}")
    return "\n".join(lines)


def run_notebooks(
    profile: str = "quick",
    only: list[str] | None = None,
    out: PathLike | None = None,
    parameters: dict[str, Any] | None = None,
    timeout: float | None = None,
    notebooks_dir: PathLike | None = None,
    progress: bool = True,
    jobs: int | None = None,
) -> RunReport:
    """Execute notebooks with parameters; write them, ``run.json`` and ``report.html`` into a folder.

    A notebook that has a parameter ``profile`` gets it, and one that has ``out`` gets the output folder,
    unless ``parameters`` says otherwise. A notebook whose metadata lists others under ``dccrn.needs`` is
    skipped when one of them failed in this run; all others run on. A failed one is kept as far as it came.

    Args:
        profile: size of the run, a name in ``dccrn_lib.training.profiles``.
        only: numbers or names of notebooks; None runs all.
        out: output folder; ``runs/<profile>`` when None.
        parameters: parameter name -> value, or text as typed on a command line; relative paths are taken
            from the current folder.
        timeout: seconds that one cell may take; None sets no limit.
        notebooks_dir: folder of the notebooks; the project's when None.
        progress: show a progress bar on stderr.
        jobs: notebooks executed at a time; None takes 2 where there are two cores. Results do not depend on it.

    A run of all notebooks that went well also leaves their times in ``results/tutorial_times.json`` of the folder.

    Raises:
        ConfigError: unknown profile, notebook or parameter, or a value of the wrong type. Nothing has run.
    """
    jobs = min(2, usable_cores()) if jobs is None else jobs
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1, got {jobs}")
    values = dict(parameters or {})
    profile = str(values.pop("profile", profile))
    get_profile(profile)
    paths = find_notebooks(only, notebooks_dir)
    known = {path.stem: read_parameters(path) for path in paths}
    given = assign(values, known, Path.cwd())
    out = Path(out or runs_dir() / profile).resolve()
    require_text("out", str(out))
    if any(path.resolve().parent == out for path in paths):
        raise ConfigError(
            f"{out} holds the notebooks themselves; choose another --out, or run them there by --in-place"
        )
    if mine := [path.name for path in paths if _is_no_run(out / path.name)]:
        raise ConfigError(
            f"{out / mine[0]} is a notebook that no run left there; move it away, or choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, parameter_list in known.items():
        defaults = {"profile": profile, "out": str(out)}
        given[name] = {p.name: defaults[p.name] for p in parameter_list if p.name in defaults} | given[name]

    start = time.perf_counter()
    plan = {path.stem: Job(path, out / path.name, given[path.stem], timeout) for path in paths}
    with _cell_bar(paths, progress, injected=1) as bar:
        runs = execute_all(plan, min(jobs, len(plan)), bar, lambda done: _write_run(out, profile, done, start))
    _write_run(out, profile, runs, start)
    seconds = time.perf_counter() - start
    if all(run.status == "ok" for run in runs) and paths == find_notebooks(None, notebooks_dir):
        save_result("tutorial_times", _times(profile, runs, seconds), folder=out / "results")
    report = write_report(out / "report.html", out, runs, f"Run with profile {profile}", seconds)
    return RunReport(profile, out, tuple(runs), report, seconds)


def execute_in_place(
    only: list[str] | None = None,
    timeout: float | None = None,
    notebooks_dir: PathLike | None = None,
    progress: bool = True,
) -> RunReport:
    """Execute notebooks with their own defaults where they lie, and clean them.

    One that fails is left as it was. Args and errors as in :func:`run_notebooks`.
    """
    paths = find_notebooks(only, notebooks_dir)
    runs = []
    with _cell_bar(paths, progress) as bar:
        for path in paths:
            bar.set_description(path.stem, refresh=False)
            start = time.perf_counter()
            notebook, before = read_notebook(path), path.read_bytes()
            client = NotebookClient(
                notebook,
                timeout=None if timeout is None else max(1, round(timeout)),
                kernel_name="python3",
                kernel_manager_class=ThisInterpreter,
                resources={"metadata": {"path": str(path.parent)}},
                store_widget_state=False,
                record_timing=False,
                coalesce_streams=True,
                on_cell_executed=ticker(bar),
            )
            error = None
            try:
                client.execute()
                if not path.is_file() or path.read_bytes() != before:
                    raise DccrnError(f"{path.name} was saved while it ran, and stays as it was saved; run it again")
                write_notebook(cleaned(notebook, path.name), path)
            except CellExecutionError as problem:
                error = one_line(f"cell {_failed_cell(notebook)}: {problem.ename}: {problem.evalue}")
            except (CellTimeoutError, DeadKernelError, DccrnError) as problem:
                if getattr(client, "_async_cleanup_kernel_future", None) is not None:  # a signal asked for it
                    raise KeyboardInterrupt from None
                error = one_line(f"{type(problem).__name__}: {problem}")
            status = "failed" if error else "ok"
            seconds = round(time.perf_counter() - start, 1)
            runs.append(NotebookRun(path.stem, status, seconds, str(path), error))
    return RunReport("in place", paths[0].parent, tuple(runs), None, sum(run.seconds for run in runs))


def _is_no_run(path: Path) -> bool:
    """Whether a notebook is there that papermill did not write: somebody's own, an edited copy of a lesson perhaps."""
    try:
        return path.is_file() and "papermill" not in read_notebook(path).metadata
    except ConfigError:
        return False


def _write_run(out: Path, profile: str, runs: list[NotebookRun], start: float) -> None:
    record = {
        "profile": profile,
        "ok": all(run.status == "ok" for run in runs),
        "seconds": round(time.perf_counter() - start, 1),  # wall time; notebooks may run side by side
        "notebooks": [asdict(run) for run in runs],
        "environment": environment_record(),
    }
    write_json(out / "run.json", record)


def _times(profile: str, runs: list[NotebookRun], seconds: float) -> dict[str, Any]:
    """Seconds of each notebook, and of the whole run last: notebooks run side by side, so it is less than their sum."""
    rows = [{"notebook": run.name, "seconds": round(run.seconds)} for run in runs]
    return {
        "title": f"Time of the notebooks, profile {profile}",
        "config": {"profile": profile},
        "seed": 0,
        "data_hash": "",
        "rows": [*rows, {"notebook": "all, side by side", "seconds": round(seconds)}],
    }


def _cell_bar(paths: list[Path], progress: bool, injected: int = 0) -> tqdm:
    """A bar of code cells; ``injected``: cells that papermill adds to each notebook, for its parameters."""
    code = sum(cell.cell_type == "code" for path in paths for cell in read_notebook(path).cells)
    bar = tqdm(total=code + injected * len(paths), unit="cell", disable=not progress, dynamic_ncols=True)
    # no time that is left: one cell trains for minutes, most take a moment
    bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} cells [{elapsed}]"
    return bar


def _failed_cell(notebook: nbformat.NotebookNode) -> int:
    return next(
        i
        for i, cell in enumerate(notebook.cells)
        if any(output.output_type == "error" for output in cell.get("outputs", []))
    )
