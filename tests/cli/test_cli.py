"""The command line: help, exit codes, one-line errors, no half-written output."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import dccrn_lib
from dccrn_lib.cli import main as cli
from dccrn_lib.runtime.errors import AudioError

COMMANDS = [
    ["corpus"],
    ["corpus", "synth"],
    ["corpus", "scan"],
    ["corpus", "pack"],
    ["corpus", "unpack"],
    ["train"],
    ["enhance"],
    ["evaluate"],
    ["run-notebooks"],
    ["export"],
    ["bench"],
]


def exit_code(*argv: str) -> int:
    """Exit code of a command run in this process."""
    try:
        return cli.main(list(argv))
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_for_every_option(command: list[str], capsys: pytest.CaptureFixture[str]):
    assert exit_code(*command, "--help") == 0
    assert "usage: python -m dccrn_lib" in capsys.readouterr().out
    parser = cli.build_parser()
    for name in command:
        choices = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = choices[name]
    assert all(action.help for action in parser._actions if not isinstance(action, argparse._SubParsersAction))


def test_help_shows_defaults(capsys: pytest.CaptureFixture[str]):
    exit_code("corpus", "synth", "--help")
    assert "(default: 1.0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dance"],
        ["corpus"],
        ["corpus", "synth"],
        ["corpus", "synth", "--out", "x", "--hours", "-1"],
        ["corpus", "scan", "x", "--kind", "music", "--out", "y"],
        ["corpus", "pack", "x", "--out", "y", "--codec", "mp3"],
        ["corpus", "unpack", "x"],
        ["enhance"],
        ["evaluate", "--clean", "a", "--noisy", "b", "--json", "c", "--model", "m", "--enhanced", "e"],
        ["run-notebooks", "--in-place", "-p", "seed=1"],
        ["run-notebooks", "-p", "seed"],
        ["run-notebooks", "--timeout", "0"],
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
    before = sorted(root.iterdir())
    assert exit_code(*argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(root.iterdir()) == before


def run_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, *extra: str) -> int:
    """Exit code of ``bench`` when its work raises ``error``."""

    def fail(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("dccrn_lib.cli.evaluate._bench", fail)
    return exit_code("bench", "--json", "x", *extra)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (AudioError("a.wav: empty;\nrecord it again"), 1, "error: a.wav: empty; record it again\n"),
        (FileNotFoundError(2, "No such file or directory", "b.wav"), 1, "error: b.wav: No such file or directory\n"),
        (ModuleNotFoundError("no pesq", name="pesq"), 1, "error: pesq is not installed; run: "),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
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
    assert "--resume --out o" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["mixx.snr_db=0,5", "mix=3", "mix.snr_db=0", "amp=yes", "stepss=3"])
def test_a_wrong_setting_is_bad_usage(setting: str, trained: list, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*TRAIN, "--set", setting) == 2
    assert setting.partition("=")[0].rpartition(".")[2] in capsys.readouterr().err
    assert trained == []


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
    assert exit_code(*arguments, "--metrics", "gain,polarity") == 0
    item = json.loads(file.read_text())["items"][0]
    assert item["gain"] == pytest.approx(0.5, abs=1e-3) and item["polarity"] == 1 and "stoi" not in item
    file.unlink()
    assert exit_code(*arguments, "--metrics", "gian") == 2
    assert "did you mean gain" in capsys.readouterr().err and not file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Python ends by a signal on POSIX only")
def test_an_interrupt_in_executed_code_exits_with_130(tmp_path):
    (tmp_path / "struck.py").write_text(
        "import argparse, sys\n"
        "from dccrn_lib.cli import main as cli\n"
        "args = argparse.Namespace(debug=False, run=lambda args: exec('raise KeyboardInterrupt'))\n"
        "cli.build_parser = lambda: argparse.Namespace(parse_args=lambda argv: args)\n"
        "sys.exit(cli.main([]))\n"
    )
    command = [sys.executable, "-m", "struck"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "error: interrupted\n")
