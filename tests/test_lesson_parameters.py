"""Lessons under nbval take the parameters that are named, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.lesson_parameters import parse_parameters

CELLS = (
    'steps: int = 1600\nmethod: str = "at_kl"\nout: str = ""',
    'from pathlib import Path\nassert method == "at_kl" and Path(out).is_dir() and Path(out).resolve() != Path.cwd()',
    "# NBVAL_CHECK_OUTPUT\nprint(steps)",
)


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    cells[2].execution_count = 3
    cells[2].outputs = [nbformat.v4.new_output("stream", text="12\n")]
    path = tmp_path / "01_lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def run(lesson: Path, root: Path, *given: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.lesson_parameters",
        "-p",
        "no:cacheprovider",
        "--nbval-lax",
    ]
    command += ["--nbval-current-env", f"--rootdir={lesson.parent}", *given, str(lesson)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def test_a_lesson_runs_with_the_parameters_named(lesson: Path, root: Path):
    before = lesson.read_bytes()
    done = run(lesson, root, "--lesson-parameters", "01_lesson:steps=12")
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout
    assert lesson.read_bytes() == before
    done = run(lesson, root, "--lesson-parameters", "01_lesson:steps=13")
    assert done.returncode == 1 and "1 failed, 2 passed" in done.stdout, done.stdout


def test_an_unknown_parameter_is_refused(lesson: Path, root: Path):
    done = run(lesson, root, "--lesson-parameters", "01_lesson:step=12")
    assert (
        done.returncode == 4
        and "no parameters ['step']; it has ['method', 'out', 'steps']" in done.stderr + done.stdout
    )


def test_values_are_literals_or_text():
    assert parse_parameters("05_lesson:a=3,b=cpu,c=0.5") == ("05_lesson", {"a": 3, "b": "cpu", "c": 0.5})
    for wrong in ("05_lesson", "05_lesson:", ":a=3", "05_lesson:a", "05_lesson:a-b=3"):
        with pytest.raises(pytest.UsageError, match="LESSON:NAME=VALUE"):
            parse_parameters(wrong)
