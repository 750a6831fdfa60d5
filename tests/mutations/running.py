"""Applying a mutation to a copy of the package, and asking a test and a lesson about it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900.0  # that one test or lesson may take


class MutationError(Exception):
    """A mutation that says nothing: its text is not there once, or the unbroken library fails its checks."""


class Edit(Protocol):
    """One way to break the library: ``old`` stands exactly once in ``dccrn_lib/<file>`` and becomes ``new``."""

    @property
    def name(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def old(self) -> str: ...
    @property
    def new(self) -> str: ...


@dataclass(frozen=True)
class Answer:
    """What a check said: ``passed``, and one line on ``why`` not."""

    passed: bool
    why: str = ""


def mutated(mutation: Edit, source: str) -> str:
    """The source of the file with the mutation in it.

    Raises:
        MutationError: ``old`` does not stand there exactly once.
    """
    count = source.count(mutation.old)
    if count != 1:
        where = f"{count} times in dccrn_lib/{mutation.file}"
        raise MutationError(f"{mutation.name}: its text stands {where}, not once; bring it up to date")
    return source.replace(mutation.old, mutation.new)


@contextmanager
def package(mutation: Edit | None) -> Iterator[Path]:
    """A temporary folder with a copy of dccrn_lib, broken by ``mutation`` (None leaves it whole)."""
    with tempfile.TemporaryDirectory(prefix="mutation_") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "dccrn_lib", folder / "dccrn_lib")  # with what is compiled already
        if mutation is not None:
            file = folder / "dccrn_lib" / mutation.file
            Path(cache_from_source(str(file))).unlink(missing_ok=True)
            file.write_text(mutated(mutation, file.read_text(encoding="utf-8")), encoding="utf-8")
        yield folder


def _call(folder: Path, *command: str, seconds: float = SECONDS) -> subprocess.CompletedProcess:
    """Run Python in ``folder`` with its copy of the package first, and the checkout's data. No process of it is left."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {
        "PYTHONPATH": path,
        "DCCRN_ROOT": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **started) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise MutationError(f"no answer after {seconds:g} s: {' '.join(command)}") from None
        finally:
            with suppress(ProcessLookupError):  # a broken library may leave workers behind
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def ask_tests(folder: Path, *nodes: str, seconds: float = SECONDS) -> Answer:
    """Run tests of the checkout against the package in ``folder``.

    Raises:
        MutationError: pytest did not run them (no such test, an error while collecting), or not within so many seconds.
    """
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-qx", "--tb=line"]
    done = _call(folder, "-m", "pytest", *options, *(f"{ROOT}/{node}" for node in nodes), seconds=seconds)
    if done.returncode not in (0, 1):
        raise MutationError(f"{nodes[0]}: pytest did not run: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return Answer(done.returncode == 0, (failed or [""])[0])


def ask_lesson(folder: Path, number: str, cells: list[str]) -> Answer:
    """Run a lesson up to the last of the checking cells named, against the package in ``folder``.

    Args:
        folder: from :func:`package`.
        number: of the lesson.
        cells: a text of each checking cell that no other cell holds.

    Raises:
        MutationError: the run broke off without an answer, another package was used, or a text names no cell.
    """
    notebook = find_lesson(number)
    names = {find_cell(notebook, text): text for text in cells}
    out = folder / "out"
    done = _call(folder, "-P", str(Path(__file__).with_name("cells.py")), str(notebook), str(out), *names)
    if done.returncode != 0 or not done.stdout.strip():
        raise MutationError(f"{notebook.name}: {(done.stderr.strip() or 'no answer').splitlines()[-1]}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if answer["package"] and not Path(answer["package"]).is_relative_to(folder):
        raise MutationError(f"{notebook.name} used {answer['package']}")
    failed = names.get(answer["failed"], answer["failed"])
    return Answer(failed is None, f"cell {failed!r}: {answer['why']}" if failed else "")


def find_cell(notebook: Path, text: str) -> str:
    """The id of the one code cell that holds the text.

    Raises:
        MutationError: none does, or several.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    ids = [cell["id"] for cell in cells if cell["cell_type"] == "code" and text in "".join(cell["source"])]
    if len(ids) != 1:
        raise MutationError(
            f"{notebook.name}: {text!r} stands in {len(ids)} code cells, not in one; bring it up to date"
        )
    return ids[0]


def find_lesson(number: str) -> Path:
    """The notebook with this number."""
    (found,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return found
