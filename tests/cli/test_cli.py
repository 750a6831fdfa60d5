"""The command line: help, exit codes, one-line errors, no half-written output."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import dccrn_lib
from dccrn_lib.audio.files import write_audio
from dccrn_lib.cli import COMMANDS
from dccrn_lib.cli import main as cli
from dccrn_lib.cli.fields import FieldParser
from dccrn_lib.cli.reference import reference
from dccrn_lib.cli.train import _score_in_words
from dccrn_lib.results.records import save_result
from dccrn_lib.runtime.errors import AudioError


def exit_code(*argv: str) -> int:
    """Exit code of a command run in this process."""
    try:
        return cli.main(list(argv))
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_every_option(command: str, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*command.split(), "--help") == 0
    assert f"usage: {cli.program()} {command} " in " ".join(capsys.readouterr().out.split())
    parser = cli.command_parser(command)
    options = list(parser._actions)
    if isinstance(parser, FieldParser):
        for option in options:
            option.required = False
        options += parser.reader(parser.base(parser.parse_known_args([])[0]))._actions
    assert [option.dest for option in options if not option.help] == []


def test_every_command_stands_in_the_list_with_its_line(capsys: pytest.CaptureFixture[str]):
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out.splitlines()
    for name, (_, text) in COMMANDS.items():
        assert any(line.startswith(f"  {name} ") and line.endswith(f"  {text}") for line in shown), name
    assert exit_code("experiment", "--help") == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(listed) == sum(name.startswith("experiment ") for name in COMMANDS) and "methods run" in listed[0]


def _imported(commands: list[list[str]], modules: set[str], code: int, root: Path) -> str:
    """The first command line that ends otherwise than with that code or imports one of the modules; "" if none does."""
    program = f"""
import contextlib, io, sys
from dccrn_lib.cli.main import main
for argv in {commands}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try: end = main(argv)
        except SystemExit as stop: end = stop.code or 0
    loaded = sorted({modules} & set(sys.modules))
    if loaded or end != {code}:
        sys.exit(f"{{' '.join(argv)}}: exit code {{end}}, imports {{loaded}}")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    return done.stderr.strip()


def test_help_of_no_command_imports_torch(root: Path):
    lines = [[], *([*name.split()] for name in COMMANDS), ["train", "--profile", "gpu"], ["corpus"]]
    slow = {"torch", "scipy", "numpy", "soundfile", "tqdm"}
    assert _imported([[*line, "--help"] for line in lines], slow, 0, root) == ""


def test_usage_errors_import_no_torch(root: Path):
    data = ["--speech", "s", "--noise", "n", "--out", "o"]
    lines = [
        *([*name.split(), "--no-such-option"] for name in COMMANDS),
        ["train", *data, "--steps", "many"],
        ["train", *data, "--optimiser", "addam"],
        ["train", *data, "--method", "at_kll", "--teacher", "uformer"],
        ["train", *data, "--model", "dccrn_ee"],
        ["train", *data, "--mix.snr_db", "9,5"],
        ["train", *data, "--device", "gpu"],
        ["train", *data[:-1], __file__],
        ["campaign", *data, "--teacher-share", "2"],
        ["experiment", "methods", "run"],
    ]
    assert _imported(lines, {"torch", "scipy"}, 2, root) == ""


def test_help_of_commands_without_fields_imports_no_jsonargparse(root: Path):
    lines = [["--help"], ["corpus", "--help"], ["enhance", "--help"], ["run-onnx", "--help"]]
    assert _imported(lines, {"jsonargparse"}, 0, root) == ""


def test_only_the_module_of_the_named_command_is_imported(root: Path):
    code = (
        "import sys; from dccrn_lib.cli.main import command_parser; command_parser('enhance')\n"
        "print(sorted(m for m in sys.modules if m.startswith('dccrn_lib.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    modules = [f"dccrn_lib.cli.{name}" for name in ("checks", "enhance", "main", "parser")]
    assert done.stdout.strip() == str(modules)


def test_the_list_of_commands_replaces_markdown_only(tmp_path: Path, capsys):
    mine, ours = tmp_path / "talk.wav", tmp_path / "commands.md"
    mine.write_text("mine")
    ours.write_text("old")
    assert cli.main(["commands", "--out", str(mine)]) == 2
    assert "ends in .md" in capsys.readouterr().err and mine.read_text() == "mine"
    assert cli.main(["commands", "--out", str(ours)]) == 0 and ours.read_text() == reference()


def test_the_document_of_the_commands_is_what_they_say(root: Path):
    written = (root / "docs/commands.md").read_text(encoding="utf-8")
    assert written == reference(), "write it anew: python -m dccrn_lib commands --out docs/commands.md"


def test_help_shows_defaults(capsys: pytest.CaptureFixture[str]):
    exit_code("corpus", "synth", "--help")
    assert "(default: 1.0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dance"],
        ["corpus"],
        ["corpus", "scn"],
        ["experiment", "methods"],
        ["bench", "dta"],
        ["bench", "int8"],
        ["run-onnx", "model.onnx"],
        ["results"],
        ["enhance", "x.wav", "--out", "x", "--modle", "distil_dccrn"],
        ["experiment", "shipped-weights", "student", "--speech", "s", "--noise", "n"],
        ["corpus", "synth"],
        ["corpus", "synth", "--out", "x", "--hours", "-1"],
        ["corpus", "scan", "x", "--kind", "music", "--out", "y"],
        ["corpus", "pack", "x", "--out", "y", "--codec", "mp3"],
        ["corpus", "unpack", "x"],
        ["enhance"],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", "c", "--model", "m", "--enhanced", "e"],
        ["run-notebooks", "--in-place", "-p", "seed=1"],
        ["run-notebooks", "--in-place", "--out", "o"],
        ["run-notebooks", "--in-place", "--profile", "smoke"],
        ["run-notebooks", "--in-place", "--jobs", "1"],
        ["run-notebooks", "-p", "seed"],
        ["run-notebooks", "--timeout", "0"],
        ["run-notebooks", "--only", ","],
        ["run-notebooks", "--only", ""],
        ["run-notebooks", "--jobs", "0"],
        ["run-notebooks", "--out", __file__],
        ["corpus", "synth", "--out", "x", "--hours", "many"],
        ["corpus", "synth", "--out", "x", "--hours", "inf"],
        ["corpus", "synth", "--out", __file__],
        ["corpus", "scan", "tests", "--kind", "noise", "--out", "m.jsonl", "--workers", "0"],
        ["corpus", "scan", "tests", "--kind", "noise", "--out", "tests"],
        ["enhance", "", "--out", "x"],
        ["enhance", "x.wav", "--out", ""],
        ["enhance", "x.wav", "--out", __file__],
        ["enhance", "x.wav", "--out", __file__ + "/deeper"],
        ["enhance", "x.wav", "--out", "x", "--workers", "two"],
        ["enhance", "x.wav", "--out", "x", "--model", ""],
        ["enhance", "x.wav", "--out", "x", "--device", "bogus"],
        ["enhance", "x.wav", "--out", "x", "--device", "cuda:99"],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", "r.json", "--device", "cuda:99"],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", "r.json", "--workers", "0"],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", "tests"],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", "r.json", "--model", ""],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", "r.json", "--enhanced", ""],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", __file__ + "/r.json"],
        ["train", "--speech", "s", "--noise", "n", "--out", "o", "--device", "bogus"],
        ["train", "--speech", "s", "--noise", "n", "--out", "o", "--device", "cuda:99"],
        ["export", "--out", "tests"],
        ["export", "--out", "model.wav"],
        ["export", "--out", ""],
        ["bench", "--json", "tests"],
        ["bench", "--json", "n" * 300 + ".txt"],
    ],
    ids=lambda argv: " ".join(argv).replace(__file__, "FILE"),
)
def test_bad_usage_exits_2_with_one_line(
    argv: list[str], root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(root)
    if "--in-place" in argv:  # were it not refused, it would write the lessons themselves
        pytest.importorskip("papermill")
        monkeypatch.setattr("dccrn_lib.lessons.running.notebooks.execute_in_place", None)
    before = sorted(root.iterdir())
    assert exit_code(*argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(root.iterdir()) == before


def run_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, *extra: str) -> int:
    """Exit code of ``bench`` when its work raises ``error``."""

    def fail(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("dccrn_lib.cli.bench._speed", fail)
    return exit_code("bench", "--json", "x", *extra)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (AudioError("a.wav: empty;\nrecord it again"), 1, "error: a.wav: empty; record it again\n"),
        (FileNotFoundError(2, "No such file or directory", "b.wav"), 1, "error: b.wav: No such file or directory\n"),
        (ModuleNotFoundError("no pesq", name="pesq"), 1, "error: pesq is not installed; run: "),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError(), 1, "error: bench speed: not enough memory; "),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            1,
            "error: bench speed: not enough",
        ),
        (type("RuntimeException", (Exception,), {})("std::bad_alloc"), 1, "error: bench speed: not enough memory; "),
    ],
)
def test_errors_are_one_line_without_a_traceback(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run_with(error, monkeypatch) == code
    shown = capsys.readouterr().err
    assert shown.startswith(text) and shown.count("\n") == 1


def test_debug_shows_the_error_itself(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(AudioError):
        run_with(AudioError("a.wav"), monkeypatch, "--debug")


def test_an_error_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ZeroDivisionError):
        run_with(ZeroDivisionError(), monkeypatch)


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [
        (["enhanc"], "enhance"),
        (["corpus", "scn", "x"], "corpus scan"),
        (["experiment", "methods", "publsh"], "experiment methods publish"),
        (["enhance", "x.wav", "--outt", "y"], "--out"),
        (["train", "--lerning_rate", "1"], "--learning_rate"),
        (["train", "--mix.snr", "1"], "--mix.snr_db"),
        (["campaign", "--out", "o", "--minute", "1"], "--minutes"),
        (["campaign", "--otu", "o"], "--out"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(argv: list[str], nearest: str, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*argv) == 2
    assert f"did you mean {nearest}?" in capsys.readouterr().err


def test_the_module_runs_as_a_program(root: Path, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "dccrn_lib", "corpus", "scan", str(tmp_path / "none"), "--kind", "speech"]
    out = tmp_path / "m.jsonl"
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, env=environment)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ") and "none" in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["enhance", "{none}.wav", "--out", "{out}"],
        ["enhance", "{text}", "--out", "{out}"],
        ["enhance", "{text}", "--out", "{out}", "--model", "distil_dcrn"],
        ["evaluate", "--clean", "{none}", "--noisy", "{none}", "--json", "{out}/r.json"],
        ["export", "--model", "no_such_model", "--out", "{out}/m.onnx"],
        ["train", "--model", "distil_dcrn", "--speech", "{none}", "--noise", "{none}", "--out", "{out}"],
        ["train", "--speech", "{none}.jsonl", "--noise", "{none}.jsonl", "--out", "{out}"],
        ["run-notebooks", "--profile", "huge", "--out", "{out}"],
    ],
    ids=lambda argv: " ".join(argv[:4]),
)
def test_what_users_get_wrong_is_one_line_and_leaves_nothing(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "text.wav").write_text("this is not audio")
    names = {"none": tmp_path / "none", "text": tmp_path / "text.wav", "out": tmp_path / "out"}
    assert exit_code(*(part.format(**names) for part in argv), "--quiet") in (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file()] if (tmp_path / "out").exists() else []
    assert left == []


@pytest.mark.slow
def test_a_failing_notebook_makes_the_command_fail(
    write_notebook: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("dccrn_lib.lessons.running.notebooks.notebooks_dir", lambda: tmp_path / "notebooks")
    write_notebook("01_a", "seed: int = 0  # help", "print(seed)\nassert seed == 4")
    assert (
        exit_code("run-notebooks", "--profile", "smoke", "--out", str(tmp_path / "o"), "-p", "seed=4", "--quiet") == 0
    )
    assert "1 of 1 notebooks ran" in capsys.readouterr().out
    assert (
        exit_code("run-notebooks", "--profile", "smoke", "--out", str(tmp_path / "o"), "-p", "seed=5", "--quiet") == 1
    )
    assert "error: 01_a: cell 3: AssertionError" in capsys.readouterr().err
    assert exit_code("run-notebooks", "--list-parameters") == 0
    assert "seed: int" in capsys.readouterr().out


# ---- train


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list:
    """The configs that ``train`` would have run with."""
    from dccrn_lib.training import loop as training

    seen = []

    def record(config: training.TrainConfig, resume: bool, progress: bool) -> training.TrainResult:
        seen.append(config)
        return training.TrainResult(None, {"valid": []}, Path(config.out) / "best.safetensors", stopped=resume)

    monkeypatch.setattr(training, "train", record)
    return seen


TRAIN = ["train", "--speech", "s", "--noise", "n", "--out", "o"]


def test_train_takes_sizes_from_the_profile_and_what_is_given(trained: list):
    from dccrn_lib.training.profiles import PROFILES

    assert exit_code(*TRAIN, "--profile", "gpu", "--model", "uformer") == 0
    assert exit_code(*TRAIN, "--profile", "quick", "--steps", "7", "--set", "mix.snr_db=0,5", "--set", "amp=true") == 0
    teacher, student = trained
    gpu, quick = PROFILES["gpu"], PROFILES["quick"]
    assert (teacher.model, teacher.steps, teacher.batch_size) == ("uformer", gpu.teacher_steps, gpu.batch_size)
    assert teacher.mix.segment_seconds == gpu.segment_seconds
    assert (student.model, student.steps, student.amp) == (quick.student, 7, True)
    assert student.mix.snr_db == (0.0, 5.0)
    assert student.mix.segment_seconds == quick.segment_seconds


def test_a_training_that_was_stopped_says_how_to_go_on(trained: list, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*TRAIN, "--resume") == 130
    assert f"stopped; resume with: train --config {Path('o') / 'config.json'} --resume" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["mixx.snr_db=0,5", "mix=3", "mix.snr_db=0", "amp=yes", "stepss=3"])
def test_a_wrong_setting_is_bad_usage(setting: str, trained: list, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*TRAIN, "--set", setting) == 2
    assert setting.partition("=")[0].rpartition(".")[2] in capsys.readouterr().err
    assert trained == []


@pytest.mark.parametrize("spelling", ["--learning_rate", "--learning-rate"])
def test_every_field_is_an_option(spelling: str, trained: list):
    assert exit_code(*TRAIN, spelling, "0.5", "--amp", "true", "--mix.snr_db", "-5,12", "--mix.early_ms=7") == 0
    (config,) = trained
    assert (config.learning_rate, config.amp, config.mix.snr_db, config.mix.early_ms) == (0.5, True, (-5.0, 12.0), 7.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--steps", "5.5"], "--steps: '5.5' is not of the right type: int"),
        (["--mix.snr_db", "3"], "--mix.snr_db"),
        (["--mix.snr_db", "9,5"], "snr_db must be (lowest, highest)"),
        (["--amp", "perhaps"], "--amp"),
        (["--optimiser", "addam"], "did you mean adam?"),
        (["--method", "at_kl"], "needs a teacher"),
        (["--teacher", "uformer"], "from uformer: say how the teacher teaches, e.g. --method at_kl"),
        (["--steps", "3", "--set", "steps=4"], "steps is given twice"),
        (["--mix", "mix.yaml"], "no option --mix; did you mean --mix.segment_seconds?"),
    ],
)
def test_a_wrong_value_of_a_field_is_named(
    wrong: list[str], words: str, trained: list, capsys: pytest.CaptureFixture[str]
):
    assert exit_code(*TRAIN, *wrong) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1
    assert trained == []


def test_help_of_train_shows_the_defaults_of_the_profile(capsys: pytest.CaptureFixture[str]):
    from dccrn_lib.training.profiles import PROFILES

    for name in ("quick", "gpu"):
        assert exit_code("train", "--profile", name, "--help") == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"--steps INT optimiser steps. (type: int, default: {PROFILES[name].student_steps})" in shown


def test_a_run_is_run_again_from_its_record(trained: list, tmp_path: Path):
    changes = ["--steps", "40", "--mix.snr_db", "-3,4", "--model", "dccrn_e", "--learning_rate", "0.25"]
    assert exit_code(*TRAIN, *changes) == 0
    record = tmp_path / "config.json"
    record.write_text(json.dumps(dataclasses.asdict(trained[0])))
    assert exit_code("train", "--config", str(record)) == 0
    assert exit_code("train", "--seed", "5", "--config", str(record), "--out", "again", "--model", "dccrn_e") == 0
    same, other = trained[1:]
    assert same == trained[0]
    assert other == dataclasses.replace(same, seed=5, out="again")


def test_help_shows_no_option_that_is_not_ours(capsys: pytest.CaptureFixture[str]):
    assert exit_code("train", "--help") == 0
    shown = capsys.readouterr().out
    assert "--mix.snr_db" in shown and "--mix " not in shown and "configuration file" not in shown


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["campaign", "--minutes", "-1"], "argument --minutes: -1 is not above 0"),
        (["experiment", "teacher-strength", "run"], "required: --teachers"),
        (["experiment", "teacher-strength", "run", "--teachers", ""], "argument --teachers: "),
        (["experiment", "teacher-strength", "run", "--teachers", "uformer"], "argument --teachers: networks are"),
    ],
)
def test_an_error_names_the_option(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*argv, "--speech", "s", "--noise", "n", "--out", "o") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_help_beside_a_record_shows_its_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text(json.dumps({"steps": 31, "mix": {"snr_db": [1, 2]}}))
    assert exit_code("train", "--config", str(tmp_path / "config.json"), "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--steps INT optimiser steps. (type: int, default: 31)" in shown
    assert "default: (1, 2))" in shown


@pytest.mark.parametrize(
    ("record", "more", "words"),
    [
        ({}, ["--profile", "quick"], "leave --profile quick out"),
        ({"model": "dccrn_e"}, ["--model", "distil_dccrn"], "trains dccrn_e, --model says distil_dccrn"),
        ({"stepps": 3}, [], "did you mean steps?"),
        ({"steps": "many"}, [], "steps is 'many'"),
        ({"mix": {"snr_dbb": [0, 5]}}, [], "did you mean mix.snr_db?"),
        ([1], [], "holds no fields"),
        (None, [], "no readable record"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    record: object, more: list, words: str, trained: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if record is not None:
        (tmp_path / "config.json").write_text(json.dumps(record))
    assert exit_code(*TRAIN, "--config", str(tmp_path / "config.json"), *more) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert trained == []


def test_only_the_first_rank_prints(trained: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert exit_code(*TRAIN) == 0
        assert bool(capsys.readouterr().out) == speaks


# ---- measurements and documents


@pytest.mark.slow
def test_bench_data_compares_workers_with_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from dccrn_lib.corpus.synthesis.corpus import generated_corpus

    made = generated_corpus(0.02, root=tmp_path, progress=False)
    corpus = [f"--{kind}={getattr(made, kind)}" for kind in ("speech", "noise", "rir")]
    sizes = ["--profile", "smoke", "--workers", "0", "--rounds", "1", "--batches", "1"]
    assert exit_code("bench", "data", *corpus, *sizes) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "distil_dccrn_mini on cpu: batches of 2 x 1 s"
    rows = [line.strip("| ").split(" | ") for line in lines[3:]]
    ways = ["planned", "planned and rendered one by one", "planned and rendered in batches on cpu", "from 0 workers"]
    assert [row[0] for row in rows] == ways
    assert all(float(number) > 0 for row in rows for number in row[1:])
    assert exit_code("bench", "data", corpus[0]) == 2
    assert exit_code("bench", "data", "--workers", "two") == 2


def test_results_writes_the_tables_of_a_document(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    document = tmp_path / "a.md"
    document.write_text("<!-- table:bench -->\n<!-- /table:bench -->\n")
    assert exit_code("results", str(document)) == 0
    assert "tables written" in capsys.readouterr().out and "| measurement |" in document.read_text()
    assert exit_code("results", str(document)) == 0
    assert "up to date" in capsys.readouterr().out


def test_tables_of_results_that_lie_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_result("mine", {"config": {}, "seed": 0, "data_hash": "", "rows": [{"system": "a", "score": 2}]}, tmp_path)
    document = tmp_path / "paper.md"
    document.write_text("<!-- table:mine -->\n<!-- /table:mine -->\n")
    assert exit_code("results", str(document)) == 2
    assert exit_code("results", str(document), "--results", str(tmp_path)) == 0
    assert "| a | 2 |" in document.read_text()


# ---- the package's own names


def test_public_names_are_there_and_lazy(root: Path):
    for name in dccrn_lib.__all__:
        assert getattr(dccrn_lib, name) is not None
    assert set(dccrn_lib.__all__) <= set(dir(dccrn_lib))
    with pytest.raises(AttributeError, match="build_modle"):
        dccrn_lib.build_modle  # noqa: B018
    code = "import sys, dccrn_lib, dccrn_lib.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_evaluate_scores_the_metrics_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for part, scale in (("clean", 1.0), ("noisy", 0.5)):
        (tmp_path / part).mkdir()
        x = np.random.default_rng(0).normal(0, 0.1, 16000)
        soundfile.write(tmp_path / part / "a.wav", scale * x, 16000)
    folders = ["--clean", str(tmp_path / "clean"), "--noisy", str(tmp_path / "noisy")]
    file = tmp_path / "r.json"
    arguments = ["evaluate", *folders, "--json", str(file), "--workers", "1", "--quiet"]
    assert exit_code(*arguments, "--metrics", "gain, polarity") == 0
    item = json.loads(file.read_text())["items"][0]
    assert item["gain"] == pytest.approx(0.5, abs=1e-3) and item["polarity"] == 1 and "stoi" not in item
    file.unlink()
    assert exit_code(*arguments, "--metrics", "gian") == 2
    assert "did you mean gain" in capsys.readouterr().err and not file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Python ends by a signal on POSIX only")
def test_an_interrupt_in_executed_code_exits_with_130(tmp_path):
    (tmp_path / "struck.py").write_text(
        "import sys\n"
        "from dccrn_lib import cli\n"
        "from dccrn_lib.cli.main import main\n"
        "from dccrn_lib.cli.parser import Parser\n"
        "def strike(**options):\n"
        "    parser = Parser(**options)\n"
        "    parser.set_defaults(run=lambda args: exec('raise KeyboardInterrupt'))\n"
        "    return parser\n"
        "if __name__ == '__main__':\n"
        "    cli.COMMANDS['strike'] = ('struck:strike', '')\n"
        "    sys.exit(main(['strike']))\n"
    )
    command = [sys.executable, "-m", "struck"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "error: interrupted\n")


def test_evaluate_says_why_files_have_no_score_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    for folder in ("clean", "noisy"):
        for name in ("a", "b"):
            write_audio(tmp_path / folder / f"{name}.wav", 0.1 * rng.standard_normal(16000), 16000)
    arguments = ["evaluate", "--clean", str(tmp_path / "clean"), "--noisy", str(tmp_path / "noisy"), "--quiet"]
    arguments += ["--json", str(tmp_path / "r.json"), "--metrics", "si_snr_db", "--workers", "1"]
    assert cli.main(arguments) == 0
    write_audio(tmp_path / "noisy" / "b.wav", np.zeros(16000, np.float32), 16000)
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 files scored" in out and "no si_snr_db for b.wav: estimate is silent" in err


def test_evaluate_prints_its_means_even_if_they_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for folder in ("clean", "noisy"):
        write_audio(tmp_path / folder / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)

    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("dccrn_lib.evaluation.folders.write_json", full)
    arguments = ["evaluate", "--clean", str(tmp_path / "clean"), "--noisy", str(tmp_path / "noisy"), "--quiet"]
    assert exit_code(*arguments, "--json", str(tmp_path / "r.json"), "--metrics", "gain") == 1
    out, err = capsys.readouterr()
    assert out == "1 of 1 files scored: gain 1\n" and "r.json: No space left on device" in err


@pytest.mark.parametrize("command", [["bench", "train"], ["bench", "operations"]])
@pytest.mark.parametrize("text", ["-2", "0", "nan", "inf"])
def test_a_length_is_positive(command: list[str], text: str, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*command, "--seconds", text) == 2
    assert "is not above 0 and finite" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_closed_stops_no_command(closed: str, tmp_path: Path):
    write_audio(tmp_path / "in" / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    command = [sys.executable, "-m", "dccrn_lib", "corpus", "scan", "in", "--kind", "noise", "--out", "m.jsonl"]
    line = f"{shlex.join(command)} {closed}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "m.jsonl").read_text(encoding="utf-8"))["path"] == "in/a.wav"


def test_no_file_gets_the_number_of_a_closed_stream(root: Path):
    code = (
        "import os, sys; from dccrn_lib.cli.main import main\n"
        "main(['commands', '--out', os.devnull])\n"
        "sys.exit(0 if sys.stderr.fileno() == 2 and open(os.devnull).fileno() > 2 else 3)"
    )
    line = f"{shlex.join([sys.executable, '-c', code])} 2>&-"
    assert subprocess.run(["sh", "-c", line], cwd=root).returncode == 0


@pytest.mark.parametrize(
    "scores, words",
    [
        ([3.0, 5.0], ", SI-SNR 5 dB on valid (noisy 1)"),
        ([5.0, 3.0], ", SI-SNR 5 dB on valid (noisy 1) after step 1; after the last, 2, 3 dB"),
        ([float("nan"), 3.0], ", SI-SNR 3 dB on valid (noisy 1)"),
        ([], ""),
    ],
)
def test_the_score_beside_the_weights_is_that_of_the_weights(scores, words):
    valid = [{"step": k, "si_snr_db": score, "noisy_si_snr_db": 1.0} for k, score in enumerate(scores, 1)]
    assert _score_in_words(valid) == words
