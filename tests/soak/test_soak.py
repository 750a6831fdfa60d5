"""A short form of every kind of the soak; and the soak sees what must not happen."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="the extra dev is not installed")
pytest.importorskip("papermill", reason="the extra notebooks is not installed")
pytest.importorskip("onnxruntime", reason="the extra export is not installed")

from tests.soak import __main__ as soak
from tests.soak import targets
from tests.soak.commands import Command
from tests.soak.place import Place
from tests.soak.rows import Row

SHARE = 0.002
#: At least one of every kind; those that start many processes are left to ``make soak``.
SHORT = (
    "kills.pack", "signals.pack", "disk.quota pack", "fuzz.manifests", "numerics.odd signals", "numerics.streaming",
    "numerics.ONNX", "numerics.batches", "security.pickles", "security.archives", "security.report", "load.scan",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("soak"), SHARE)


@pytest.mark.parametrize("name", SHORT)
def test_short_form(name: str, place: Place):
    if sys.platform != "linux" and name.split(".")[0] in ("kills", "signals", "disk"):
        pytest.skip("looks for processes in /proc")
    row = soak.cases(name)[name](place)
    assert row.failures == []
    assert row.tried > 0 and row.held == row.tried
    assert (row.kind, row.name) == tuple(name.split(".", 1))


def test_every_kind_has_a_short_form():
    assert {name.split(".")[0] for name in SHORT} == set(soak.KINDS)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_what_a_killed_process_leaves_is_seen_and_ended():
    code = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('ready', flush=True); input()"
    with Command(["-c", code], module=()) as command:
        assert command.wait(lambda: "ready" in command.output or bool(command.alive()), seconds=30)
        command.send(signal.SIGKILL)
        command.process.wait()
        assert command.orphans(0.2) == ["1 processes outlive it by more than 0 s"]
        time.sleep(0.1)
        assert command.alive() == []


def test_a_traceback_and_a_silent_failure_are_problems():
    with Command(["-c", "raise ValueError('so')"], module=()) as command:
        assert command.wait(seconds=30)
    assert [problem.split(",")[0] for problem in command.talk(0)] == [
        "a traceback",
        "exit code 1 instead of 0",
        "exit code 1 without an error's line",
    ]
    assert command.talk(0)[0].endswith("from <string>:1 <module> > ValueError: so")


def test_what_is_half_written_or_left_is_a_problem(tmp_path: Path):
    out, reference = tmp_path / "a" / "out", tmp_path / "b" / "out"
    for folder in (out, reference):
        folder.mkdir(parents=True)
        (folder / "same").write_text("same")
    assert targets.different_files(out, reference) == targets.leftovers(out) == []
    (out / "same").write_text("sam")
    (out / ".x.partial").touch()
    (reference / "more").touch()
    assert targets.different_files(out, reference) == ["more is missing", "same differs"]
    assert targets.leftovers(out) == ["left behind: out/.x.partial"]


def test_failures_are_counted_and_shown_and_the_command_fails(tmp_path: Path, monkeypatch, capsys):
    def broken(place: Place) -> Row:
        raise RuntimeError("of the case itself")

    def failing(place: Place) -> Row:
        row = Row("load", "scan")
        row.trial([])
        row.trial(["so and so"], os.fspath(place.folder))
        return row

    monkeypatch.setitem(soak.KINDS["load"].CASES, "scan", failing)
    monkeypatch.setitem(soak.KINDS["load"].CASES, "short files", broken)
    out = tmp_path / "reliability.json"
    assert soak.main(["--only", "load.scan,load.short files", "--out", str(out)]) == 1
    assert "FAILED" in capsys.readouterr().out
    monkeypatch.setitem(soak.KINDS["load"].CASES, "short files", lambda place: Row("load", "short files", tried=3))
    assert soak.main(["--only", "load.short files", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert [(row["case"], row["tried"], row["held"], row["failed"]) for row in record["rows"]] == [
        ("short files", 3, 3, 0),
        ("scan", 2, 1, 1),
    ]
    assert record["config"]["failed"] == 1 and "so and so" in record["rows"][1]["failures"][0]


def test_an_unknown_case_and_a_share_of_nothing_are_bad_usage(capsys):
    for words in (["--only", "kill"], ["--share", "0"]):
        with pytest.raises(SystemExit, match="2"):
            soak.main(words)
    assert "--list names them" in capsys.readouterr().err
