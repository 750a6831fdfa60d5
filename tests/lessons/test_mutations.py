"""The mutations fit the library as it is, and the script that runs them tells a survivor from a caught one."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutations import __main__ as command
from tests.mutations import running
from tests.mutations.catalogue import MUTATIONS, Mutation
from tests.mutations.cells import run
from tests.mutations.running import (
    Answer,
    MutationError,
    ask_lesson,
    ask_tests,
    find_cell,
    find_lesson,
    mutated,
    package,
)

BY_NAME = {m.name: m for m in MUTATIONS}


# ---- the catalogue


def test_there_are_enough_and_no_name_twice():
    assert len(MUTATIONS) == len(BY_NAME)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=BY_NAME)
def test_its_text_stands_once_and_the_broken_file_is_python(mutation: Mutation, root: Path):
    source = (root / "dccrn_lib" / mutation.file).read_text(encoding="utf-8")
    broken = mutated(mutation, source)
    assert broken != source
    compile(broken, mutation.file, "exec")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=BY_NAME)
def test_its_test_and_its_cell_exist_and_check_something(mutation: Mutation, root: Path):
    file, _, test = mutation.unit.partition("::")
    assert f"def {test}(" in (root / file).read_text(encoding="utf-8")
    notebook = find_lesson(mutation.notebook)
    name = find_cell(notebook, mutation.cell)
    (cell,) = (c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["id"] == name)
    assert any(mark in "".join(cell["source"]) for mark in ("assert ", "NBVAL_CHECK_OUTPUT", "agree("))


# ---- running cells


@pytest.fixture
def tiny(tmp_path: Path):
    """Write a notebook: (source, tags, committed output) for each cell, ids a, b, c ..."""

    def write(*cells: tuple[str, list[str], str]) -> Path:
        made = [
            {
                "cell_type": "code",
                "id": "abcdef"[i],
                "source": source,
                "metadata": {"tags": tags},
                "outputs": [{"output_type": "stream", "name": "stdout", "text": text}] if text else [],
            }
            for i, (source, tags, text) in enumerate(cells)
        ]
        (tmp_path / "01_tiny.ipynb").write_text(json.dumps({"cells": made}))
        return tmp_path / "01_tiny.ipynb"

    return write


PARAMETERS = ('profile: str = "quick"\nout: str = ""', ["parameters"], "")


def test_cells_run_at_the_profile_smoke_and_no_further_than_asked(tiny):
    path = tiny(PARAMETERS, ("assert (profile, out) == ('smoke', 'there')", [], ""), ("raise ValueError", [], ""))
    assert run(path, "there", ["b"]) | {"package": ""} == {"passed": ["b"], "failed": None, "why": "", "package": ""}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("x = 2\nassert x == 1", "AssertionError: assert x == 1"),
        ("# NBVAL_CHECK_OUTPUT\nprint(2)", "prints '2', committed is '1'"),
        ("# NBVAL_CHECK_OUTPUT\nprint(1), print(1)", "prints more or less"),
        ("raise SystemExit", "SystemExit: raise SystemExit"),
    ],
)
def test_a_cell_that_fails_says_why(tiny, source: str, why: str):
    answer = run(tiny(("x = 1", [], ""), (source, [], "1\n"), ("y = 1", [], "")), "", ["b", "c"])
    assert (answer["passed"], answer["failed"], answer["why"]) == ([], "b", why)


def test_output_counts_only_where_nbval_checks_it(tiny):
    assert run(tiny(("print(2)", [], "1\n")), "", ["a"])["failed"] is None


def test_an_exception_before_the_check_is_told_with_its_own_cell(tiny):
    assert run(tiny(("1 / 0", [], ""), ("assert True", [], "")), "", ["b"])["failed"] == "a"


def test_a_text_names_one_cell(tiny):
    path = tiny(("x = 1", [], ""), ("x = 1\ny = 2", [], ""))
    assert find_cell(path, "y = 2") == "b"
    for text, count in (("x = 1", 2), ("z", 0)):
        with pytest.raises(MutationError, match=f"stands in {count} code cells"):
            find_cell(path, text)


# ---- the command


def test_a_text_that_is_not_there_once_is_an_error():
    for source in ("nothing", 2 * BY_NAME["lstm_sign"].old):
        with pytest.raises(MutationError, match="lstm_sign: its text stands [02] times in dccrn_lib/networks/complex"):
            mutated(BY_NAME["lstm_sign"], source)


@pytest.mark.parametrize(
    ("test_passes", "lesson_passes", "code"), [(False, False, 0), (True, False, 1), (False, True, 1)]
)
def test_a_survivor_makes_the_command_fail(monkeypatch, capsys, test_passes: bool, lesson_passes: bool, code: int):
    @contextmanager
    def folder(mutation):
        yield mutation

    monkeypatch.setattr(command, "package", folder)
    monkeypatch.setattr(command, "ask_tests", lambda broken, *nodes: Answer(test_passes or broken is None))
    monkeypatch.setattr(command, "ask_lesson", lambda broken, *names: Answer(lesson_passes or broken is None))
    assert command.main(["--only", "lstm_sign,window"]) == code
    assert capsys.readouterr().out.count("SURVIVED") == 2 * code


def test_checks_that_fail_on_the_whole_library_prove_nothing(monkeypatch, capsys):
    monkeypatch.setattr(command, "ask_tests", lambda *_: Answer(False, "assert 0"))
    monkeypatch.setattr(command, "ask_lesson", lambda *_: Answer(True))
    assert command.main(["--only", "window"]) == 2
    assert "fails on the unbroken library: assert 0" in capsys.readouterr().err


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "windows"])
    assert "no mutation windows" in capsys.readouterr().err


def test_a_test_that_does_not_exist_is_no_catch(monkeypatch, tmp_path: Path):
    # 4 is what pytest returns for an unknown test
    monkeypatch.setattr(running, "_call", lambda *_, **__: subprocess.CompletedProcess([], 4, "", "ERROR: not found\n"))
    with pytest.raises(MutationError, match="did not run: ERROR: not found"):
        ask_tests(tmp_path, "tests/audio/test_stft.py::test_nothing")


def test_a_mutation_is_caught_by_its_test_and_its_lesson(root: Path):
    mutation = BY_NAME["window"]
    with package(mutation) as folder:
        test = ask_tests(folder, mutation.unit)
        lesson = ask_lesson(folder, mutation.notebook, [mutation.cell])
    assert not test.passed and not lesson.passed
    assert lesson.why.startswith(f"cell {mutation.cell!r}: AssertionError")
    original = (root / "dccrn_lib" / mutation.file).read_text(encoding="utf-8")
    assert mutation.old in original and not folder.exists()


def test_an_edit_that_changes_nothing_survives(monkeypatch):
    harmless = replace(BY_NAME["window"], new=BY_NAME["window"].old + " ")
    with package(harmless) as folder:
        assert ask_lesson(folder, harmless.notebook, [harmless.cell]).passed
    assert running.ROOT == Path(__file__).resolve().parents[2]
