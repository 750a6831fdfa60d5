"""The experiment of lesson 05 at its smallest: a sweep over two methods, on an executor as well, and its result."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.experiments import executors, paper, teaching
from dccrn_lib.experiments.grid import COMPARED_METRICS, keep_record, load_runs
from dccrn_lib.experiments.recipe import TAUGHT, taught_student
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.results.records import load_result
from dccrn_lib.runtime.errors import ConfigError

RUN = ("experiment", "teaching", "run", "--profile", "smoke", "--steps", "2", "--set", "valid_mixtures=2", "--quiet")
PUBLISH = ("experiment", "teaching", "publish")


@pytest.fixture
def small(tmp_path, monkeypatch, one_thread):
    """A generated corpus of a minute, and a miniature in place of the shipped teacher."""
    made = generated_corpus(0.02, root=tmp_path / "corpus", progress=False)
    corpus = {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}
    monkeypatch.setattr(paper, "corpus_of", lambda profile, progress: corpus)
    torch.manual_seed(0)
    teacher = save_model(build_model("uformer_mini"), tmp_path / "teacher")
    monkeypatch.setitem(TAUGHT, "teacher", str(teacher))
    return tmp_path


def test_the_published_setting_is_what_runs_when_nothing_else_is_said():
    student = taught_student("quick")
    assert (student.steps, student.warmup_steps, student.valid_mixtures, student.valid_every) == (150, 15, 64, 150)
    assert (student.method, student.normalisation, student.feature_share) == ("at_kl", "softmax", 0.5)


def test_a_command_whose_training_is_stopped_ends_as_interrupted(small, capsys, monkeypatch):
    real = paper.train
    monkeypatch.setattr(paper, "train", lambda config, **options: real(config, **options, stop_after=1))
    assert cli.main([*RUN, "--out", str(small / "here"), "--seeds", "0,1"]) == 130
    said = capsys.readouterr()
    assert f"stopped; the same command resumes in {small / 'here'}" in said.out and "done" not in said.out
    assert "interrupted" in said.err
    assert not list((small / "here").glob("*/seed*/evaluation.json"))


def test_both_students_of_each_seed_are_trained_scored_and_published(small, capsys, monkeypatch):
    assert cli.main([*RUN, "--out", str(small / "here"), "--seeds", "0,1", "--share", "0/2"]) == 0
    with pytest.raises(ConfigError, match="1 seeds are finished in both kinds"):
        teaching.publish(small / "here", folder=small)
    assert cli.main([*RUN, "--out", str(small / "here"), "--seeds", "0,1"]) == 0
    assert cli.main([*PUBLISH, "--out", str(small / "here"), "--results", str(small)]) == 0
    record = load_result("teaching_quick", small)
    assert [(row["method"], row["seeds"]) for row in record["rows"]] == [("none", 2), ("at_kl", 2)]
    assert record["rows"][0]["si_snr_db minus none"] is None
    assert record["rows"][1]["si_snr_db minus none"].keys() == {"difference", "low", "high", "verdict"}
    assert [(r["method"], r["seed"], r["valid"]["step"]) for r in record["runs"]] == [
        (method, seed, 2) for seed in (0, 1) for method in ("none", "at_kl")
    ]
    assert record["config"]["steps"] == 2 and record["config"]["feature_share"] == 0.5
    assert "--profile smoke --seeds 0,1 --steps=2" in record["command"] and "--valid_mixtures=2" in record["command"]
    config = json.loads((small / "here/at_kl-frequency-softmax/seed1/config.json").read_text())
    assert (config["method"], config["valid_every"], config["warmup_steps"]) == ("at_kl", 2, 0)

    @contextmanager
    def two_threads(address):
        assert address == "tcp://there:8786"
        with ThreadPoolExecutor(2) as pool:
            yield pool

    monkeypatch.setattr(executors, "cluster_executor", two_threads)
    words = ["--out", str(small / "there"), "--seeds", "0", "--cluster", "tcp://there:8786"]
    assert cli.main([*RUN, *words]) == 0
    first, again = (teaching.load_runs(small / place) for place in ("here", "there"))
    assert [run.items for run in again] == [run.items for run in first if run.seed == 0]


def test_publishing_nothing_is_refused(tmp_path, capsys):
    assert cli.main([*PUBLISH, "--out", str(tmp_path)]) == 2
    assert "no readable result" in capsys.readouterr().err


def test_a_record_that_lacks_something_is_named(tmp_path, capsys):
    (tmp_path / "teaching.json").write_text('{"config": {}, "data_hash": ""}')
    assert cli.main([*PUBLISH, "--out", str(tmp_path)]) == 2
    assert "teaching.json: lacks config.steps, command; give" in capsys.readouterr().err


def test_a_run_without_scores_on_valid_is_named(tmp_path, capsys):
    (tmp_path / "teaching.json").write_text('{"config": {"steps": 2}, "data_hash": "", "command": "run --seeds 0,1"}')
    scores = [dict.fromkeys(COMPARED_METRICS, 1.0)]
    for method in teaching.METHODS:
        for seed in (0, 1):
            folder = tmp_path / method.replace(":", "-") / f"seed{seed}"
            folder.mkdir(parents=True)
            (folder / "evaluation.json").write_text(json.dumps({"items": {method: scores}}))
            (folder / "history.json").write_text('{"valid": []}')
    assert cli.main([*PUBLISH, "--out", str(tmp_path), "--results", str(tmp_path / "results")]) == 2
    assert "history.json: holds no scores on valid; remove its folder, and give" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ""])
def test_a_result_stays_in_its_folder(tmp_path, capsys, name):
    with pytest.raises(SystemExit):
        cli.main([*PUBLISH, "--out", str(tmp_path), f"--name={name}"])
    assert f"{name!r} is no name of a record; write it without folders" in capsys.readouterr().err


def test_the_record_that_is_read_is_not_written_over(tmp_path, capsys):
    (tmp_path / "teaching.json").write_text("{}")
    assert cli.main([*PUBLISH, "--out", str(tmp_path), "--results", str(tmp_path), "--name", "teaching"]) == 2
    assert "the record that is read" in capsys.readouterr().err
    assert (tmp_path / "teaching.json").read_text() == "{}"


def test_a_refused_call_does_not_bind_the_folder(small, capsys, monkeypatch):
    wrong = [*RUN, "--out", str(small / "here"), "--seeds", "0", "--teacher-cache", str(small / "cache")]
    assert cli.main(wrong) == 2  # it lacks repeat_epoch
    monkeypatch.setitem(TAUGHT, "teacher", str(small / "gone.safetensors"))
    assert cli.main([*RUN[:-1], "--out", str(small / "here"), "--seeds", "0", "--share", "1/2"]) != 0
    monkeypatch.setitem(TAUGHT, "teacher", str(small / "teacher.safetensors"))
    assert cli.main([*RUN, "--out", str(small / "here"), "--seeds", "0", "--share", "1/2"]) == 0


def test_students_by_several_calls_are_published_with_all_seeds_and_a_cached_teacher(small):
    words = ["--out", str(small / "here"), "--repeat-epoch", "true", "--teacher-cache", str(small / "cache")]
    for seed in ("0", "1"):
        assert cli.main([*RUN, *words, "--seeds", seed]) == 0
        words[-1] = str(small / "elsewhere")  # as on another machine
    assert list((small / "cache").glob("*/*.safetensors"))
    teaching.publish(small / "here", folder=small)
    assert "--seeds 0,1 --steps=2" in load_result("teaching_quick", small)["command"]


def test_the_runs_of_another_experiment_are_not_published_as_ones_own(tmp_path):
    record = {"config": {"steps": 6}, "data_hash": "x"}
    keep_record(tmp_path / "teaching.json", record)
    (tmp_path / "none" / "seed0").mkdir(parents=True)
    (tmp_path / "none" / "seed0" / "config.json").write_text("{}")
    keep_record(tmp_path / "teaching.json", record)  # its own go on
    with pytest.raises(ConfigError, match="another experiment"):
        keep_record(tmp_path / "laboratory.json", {"config": {"steps": 1}, "data_hash": "x"})
    assert not (tmp_path / "laboratory.json").exists()


def test_a_copy_of_a_run_beside_it_is_passed_over(tmp_path):
    for name in ("seed0", "seed0 (copy)"):
        (tmp_path / "none" / name).mkdir(parents=True)
        (tmp_path / "none" / name / "evaluation.json").write_text('{"items": {"none": []}}')
    assert [(run.method, run.seed) for run in load_runs(tmp_path)] == [("none", 0)]
