"""Running the notebooks: papermill with strict parameters, and cleaning them for the repository.

The kernel is always the running interpreter with this very package on its path, whatever kernels the user has
installed, and its working folder is the notebooks' own, as under JupyterLab and nbval.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

from dccrn_lib.cleaning import clean_notebook, cleaned, write_notebook
from dccrn_lib.errors import ConfigError, DccrnError, nearest_name
from dccrn_lib.parameters import assign, read_parameters, split_assignments
from dccrn_lib.paths import atomic_path, notebooks_dir, runs_dir
from dccrn_lib.profiles import get_profile
from dccrn_lib.results import environment_record

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
class NotebookRun:
    """What became of one notebook. ``status`` is "ok", "failed" or "skipped"; ``seconds`` is wall time."""

    name: str
    status: str
    seconds: float
    path: str
    error: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunReport:
    """What became of a run. ``report`` is the HTML report, None when notebooks were executed in place."""

    profile: str
    out: Path
    notebooks: tuple[NotebookRun, ...]
    report: Path | None = None

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
        seconds = sum(run.seconds for run in self.notebooks)
        where = self.report or self.out
        return f"{done} of {len(self.notebooks)} notebooks ran in {seconds:.0f} s: {where}"


class _ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the running interpreter; a kernelspec of the same name elsewhere cannot shadow it."""

    @property
    def kernel_spec(self) -> KernelSpec:
        package_root = str(Path(__file__).resolve().parent.parent)
        inherited = os.environ.get("PYTHONPATH")
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"],
            display_name="Python 3",
            language="python",
            env={"PYTHONPATH": os.pathsep.join([package_root, *([inherited] if inherited else [])])},
        )


def find_notebooks(only: list[str] | None = None, folder: str | os.PathLike | None = None) -> list[Path]:
    """The notebooks of a folder in the order of their names.

    Args:
        only: numbers ("05", "5") or names ("05_distillation"); None takes all.
        folder: where they lie; the project's notebooks when None.

    Raises:
        ConfigError: no notebooks there, or one asked for does not exist.
    """
    folder = Path(folder or notebooks_dir()).resolve()
    found = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if not path.name.startswith(".")}
    if not found:
        raise ConfigError(f"{folder}: no notebooks there")
    chosen: set[str] = set()
    for text in only if only is not None else found:
        name = text.removesuffix(".ipynb")
        hits = [
            stem
            for stem in found
            if stem == name or (name.isdigit() and stem.startswith(f"{int(name):02d}_"))
        ]
        if not hits:
            raise ConfigError(f"no notebook {text!r}; {nearest_name(name, list(found))}")
        chosen.update(hits)
    return [path for stem, path in found.items() if stem in chosen]


def describe_parameters(only: list[str] | None = None, notebooks_dir: str | os.PathLike | None = None) -> str:
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
    out: str | os.PathLike | None = None,
    parameters: dict[str, Any] | None = None,
    timeout: float | None = None,
    notebooks_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> RunReport:
    """Execute notebooks with parameters; write them, ``run.json`` and ``report.html`` into a folder.

    A notebook that has a parameter ``profile`` gets it, and one that has ``out`` gets the output folder,
    unless ``parameters`` says otherwise. A notebook whose metadata lists others under ``dccrn.needs`` is
    skipped when one of them failed in this run; all others run on. A failed one is kept as far as it came.

    Args:
        profile: size of the run, a name in ``dccrn_lib.profiles``.
        only: numbers or names of notebooks; None runs all.
        out: output folder; ``runs/<profile>`` when None.
        parameters: parameter name -> value, or text as typed on a command line; relative paths are taken
            from the current folder.
        timeout: seconds that one cell may take; None sets no limit.
        notebooks_dir: folder of the notebooks; the project's when None.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: unknown profile, notebook or parameter, or a value of the wrong type. Nothing has run.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from dccrn_lib.report import write_report

    values = dict(parameters or {})
    profile = str(values.pop("profile", profile))
    get_profile(profile)
    paths = find_notebooks(only, notebooks_dir)
    known = {path.stem: read_parameters(path) for path in paths}
    given = assign(values, known, Path.cwd())
    out = Path(out or runs_dir() / profile).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name, parameter_list in known.items():
        defaults = {"profile": profile, "out": str(out)}
        given[name] = {p.name: defaults[p.name] for p in parameter_list if p.name in defaults} | given[name]

    runs: list[NotebookRun] = []
    failed: set[str] = set()
    with _cell_bar(paths, progress) as bar:
        for path in paths:
            target = out / path.name
            missing = sorted(failed.intersection(_needs(path)))
            if missing:
                failed.add(path.stem)
                error = f"skipped, because it needs {', '.join(missing)}"
                runs.append(NotebookRun(path.stem, "skipped", 0.0, target.name, error, given[path.stem]))
                continue
            bar.set_description(path.stem)
            start = time.perf_counter()
            error = None
            try:
                papermill.execute_notebook(
                    str(path),
                    str(target),
                    parameters=given[path.stem],
                    cwd=str(path.parent),
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    execution_timeout=None if timeout is None else max(1, round(timeout)),
                    kernel_manager_class=_ThisInterpreter,
                    on_cell_executed=_ticker(bar),
                )
            except PapermillExecutionError as problem:
                error = _one_line(f"cell {problem.cell_index}: {problem.ename}: {problem.evalue}")
            except (CellTimeoutError, DeadKernelError) as problem:
                error = _one_line(f"{type(problem).__name__}: {problem}")
            if error:
                failed.add(path.stem)
            status = "failed" if error else "ok"
            seconds = round(time.perf_counter() - start, 1)
            runs.append(NotebookRun(path.stem, status, seconds, target.name, error, given[path.stem]))
            _write_run(out, profile, runs)
    _write_run(out, profile, runs)
    report = write_report(out / "report.html", out, runs, title=f"Run with profile {profile}")
    return RunReport(profile, out, tuple(runs), report)


def execute_in_place(
    only: list[str] | None = None,
    timeout: float | None = None,
    notebooks_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> RunReport:
    """Execute notebooks with their own defaults where they lie, and clean them.

    One that fails is left as it was. Args and errors as in :func:`run_notebooks`.
    """
    paths = find_notebooks(only, notebooks_dir)
    runs = []
    with _cell_bar(paths, progress) as bar:
        for path in paths:
            bar.set_description(path.stem)
            start = time.perf_counter()
            notebook = nbformat.read(path, as_version=4)
            client = NotebookClient(
                notebook,
                timeout=None if timeout is None else max(1, round(timeout)),
                kernel_name="python3",
                kernel_manager_class=_ThisInterpreter,
                resources={"metadata": {"path": str(path.parent)}},
                store_widget_state=False,
                record_timing=False,
                coalesce_streams=True,
                on_cell_executed=_ticker(bar),
            )
            error = None
            try:
                client.execute()
                write_notebook(cleaned(notebook, path.name), path)
            except CellExecutionError as problem:
                error = _one_line(f"cell {_failed_cell(notebook)}: {problem.ename}: {problem.evalue}")
            except (CellTimeoutError, DeadKernelError, DccrnError) as problem:
                error = _one_line(f"{type(problem).__name__}: {problem}")
            status = "failed" if error else "ok"
            seconds = round(time.perf_counter() - start, 1)
            runs.append(NotebookRun(path.stem, status, seconds, str(path), error))
    return RunReport("in place", paths[0].parent, tuple(runs))


def _write_run(out: Path, profile: str, runs: list[NotebookRun]) -> None:
    record = {
        "profile": profile,
        "ok": all(run.status == "ok" for run in runs),
        "seconds": round(sum(run.seconds for run in runs), 1),
        "notebooks": [asdict(run) for run in runs],
        "environment": environment_record(),
    }
    with atomic_path(out / "run.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _needs(path: Path) -> list[str]:
    return json.loads(path.read_text(encoding="utf-8")).get("metadata", {}).get("dccrn", {}).get("needs", [])


def _cell_bar(paths: list[Path], progress: bool) -> tqdm:
    cells = [c for path in paths for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    code = sum(cell["cell_type"] == "code" for cell in cells)
    return tqdm(total=code, unit="cell", disable=not progress, dynamic_ncols=True)


def _ticker(bar: tqdm) -> Callable[..., None]:
    def tick(**_: Any) -> None:
        bar.update()

    return tick


def _failed_cell(notebook: nbformat.NotebookNode) -> int:
    return next(
        i
        for i, cell in enumerate(notebook.cells)
        if any(output.output_type == "error" for output in cell.get("outputs", []))
    )


def _one_line(text: str) -> str:
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[:300]
