"""The mends stand where the catalogue says, every fault has one, and the command tells a survivor from a noticed one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import __main__ as command
from tests.faults.catalogue import FAULTS, Fault

running = importlib.import_module(f"{str(__package__).removesuffix('faults')}mutations.running")
NAMES = [f"{fault.number}-{fault.file}-{number}" for number, fault in enumerate(FAULTS)]


def test_every_fault_is_there_in_order():
    numbers = [fault.number for fault in FAULTS]
    assert sorted(set(numbers)) == list(range(1, 37)) and numbers == sorted(numbers)
    assert len({fault.what for fault in FAULTS}) == len(FAULTS)
    assert len({(fault.file, fault.old) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_its_mend_stands_once_and_the_file_without_it_is_python(fault: Fault, root: Path):
    source = (root / "dccrn_lib" / fault.file).read_text(encoding="utf-8")
    broken = running.mutated(fault, source)
    assert broken != source
    compile(broken, fault.file, "exec")


def test_its_test_exists_with_its_case(root: Path):
    named = sorted({fault.test for fault in FAULTS})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *named]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_the_table_names_every_mend(root: Path):
    rows = json.loads((root / "results" / "faults.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["fault"], row["what"], row["test"]) for row in rows] == [(f.number, f.what, f.test) for f in FAULTS]
    assert all(row["noticed"] for row in rows)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Tests that pass without their mend, or with it; nothing is run."""
    passing: dict[str, bool] = {}

    @contextmanager
    def folder(fault):
        yield fault

    def ask(fault, *tests: str, seconds: float = 0.0):
        return running.Answer(passing.get("unbroken" if fault is None else tests[0], fault is None), "assert 0")

    monkeypatch.setattr(command, "package", folder)
    monkeypatch.setattr(command, "ask_tests", ask)
    return passing


def test_a_survivor_makes_the_command_fail(asked: dict[str, bool], capsys: pytest.CaptureFixture[str]):
    assert command.main(["--only", "6,36"]) == 0
    assert capsys.readouterr().out.endswith("2 faults, 4 of 4 tests noticed\n")
    asked[next(fault.test for fault in FAULTS if fault.number == 6)] = True
    assert command.main(["--only", "6,36"]) == 1
    out = capsys.readouterr().out
    assert out.count("SURVIVED") == 1 and out.endswith("2 faults, 3 of 4 tests noticed\n")


def test_tests_that_fail_on_the_whole_library_prove_nothing(asked: dict[str, bool], capsys: pytest.CaptureFixture[str]):
    asked["unbroken"] = False
    assert command.main(["--only", "6"]) == 2
    assert "fails on the unbroken library: assert 0" in capsys.readouterr().err


def test_a_run_leaves_a_record_and_a_part_of_it_keeps_the_rest(asked: dict[str, bool], tmp_path: Path):
    out = tmp_path / "faults.json"
    assert command.main(["--json", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["config"] == {"faults": 36, "tests": len(FAULTS), "noticed": len(FAULTS)}
    assert record["rows"][0]["fault"] == 1 and record["columns"] == ["fault", "what", "test"]
    asked[next(fault.test for fault in FAULTS if fault.number == 6)] = True
    assert command.main(["--json", str(out), "--only", "6"]) == 1
    again = json.loads(out.read_text())
    assert again["config"]["noticed"] == len(FAULTS) - 1 and len(again["rows"]) == len(FAULTS)


def test_an_unknown_number_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        command.main(["--only", "37"])
    assert "no fault 37; there are 1 to 36" in capsys.readouterr().err


def test_a_test_notices_that_its_mend_is_gone_and_not_an_edit_that_changes_nothing():
    fault = next(fault for fault in FAULTS if fault.number == 6)
    for edit, passes in ((fault, False), (replace(fault, new=fault.old + " "), True)):
        with running.package(edit) as folder:
            assert running.ask_tests(folder, edit.test).passed == passes
