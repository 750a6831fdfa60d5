"""The comparison of training data: one difference a mixture, the valid split alone, and the command at its smallest."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.experiments import training_data
from dccrn_lib.experiments.grid import SweepRun
from dccrn_lib.experiments.recipe import student_on_data
from dccrn_lib.results.records import load_result
from dccrn_lib.results.tables import table

RUN = ("experiment", "training-data", "run")
PUBLISH = ("experiment", "training-data", "publish")
REAL = {"speech": "speech.jsonl", "noise": "noise.jsonl", "rir": "rir.jsonl"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return generated_corpus(0.02, root=tmp_path_factory.mktemp("corpus"), progress=False)


@pytest.fixture
def arguments(corpus, tmp_path):
    manifests = [part for kind in REAL for part in (f"--{kind}", str(getattr(corpus, kind)))]
    torch_threads = torch.get_num_threads()
    yield [*manifests, "--generated", str(corpus.speech.parent), "--out", str(tmp_path / "runs"), "--quiet"]
    torch.set_num_threads(torch_threads)
    torch.set_flush_denormal(False)


def test_each_mixture_differs_from_the_trained_one_in_one_thing():
    configs = {
        name: dataclasses.asdict(training_data.train_config(name, 0, REAL, "gen", "run", student_on_data(10)))
        for name in training_data.MIXTURES
    }
    base = configs.pop("as trained")
    assert base["noise"] == "noise.jsonl,gen/noise.jsonl" and base["speech"] == "speech.jsonl"
    different = {
        name: {key for key in base if config[key] != base[key]}
        | {key for key in base["mix"] if config["mix"][key] != base["mix"][key]}
        for name, config in configs.items()
    }
    assert different == {
        "real recordings only": {"noise", "rir"},
        "generated speech too": {"speech"},
        "no rooms": {"mix", "rir_probability"},
        "one noise, no babble": {"mix", "second_noise_probability", "babble_probability"},
        "no speed, no equaliser": {"mix", "speed_probability", "equaliser_probability"},
    }
    assert configs["real recordings only"]["rir"] == "rir.jsonl"


def test_only_the_valid_split_judges(corpus):
    mixtures = training_data.valid_mixtures({"speech": str(corpus.speech), "noise": str(corpus.noise)}, 8)
    assert {e.split for group in mixtures.planner.speech.entries for e in group} == {"valid"}
    assert {e.split for group in mixtures.planner.noise.entries for e in group} == {"valid"}


def test_runs_are_kept_compared_by_seed_and_published(arguments, tmp_path, capsys):
    small = [*arguments, "--seeds", "0", "--steps", "2", "--count", "2"]
    assert cli.main([*RUN, *small, "--share", "0/3"]) == 0  # the first and the fourth of six
    first = capsys.readouterr().out
    assert first.startswith("as trained, seed 0: ") and "no rooms, seed 0: " in first
    assert cli.main([*RUN, *small, "--share", "0/3"]) == 0
    assert capsys.readouterr().out == first  # gone on with: the same two, not trained anew
    assert cli.main([*PUBLISH, "--out", str(tmp_path / "runs"), "--results", str(tmp_path)]) == 0
    record = load_result("data_mixtures", tmp_path)
    noisy, *rows = record["rows"]
    assert noisy["mixture"] == "(noisy input)" and 1 < noisy["pesq_wb"] < 4.7
    assert [(row["mixture"], row["seeds"]) for row in rows] == [("as trained", 1), ("no rooms", 1)]
    assert rows[1]["si_snr_db minus as trained"].endswith("one seed: no interval")
    assert "2 dry mixtures" in record["note"] and "of 3 comparisons" in record["note"]
    assert str(tmp_path) not in json.dumps(record)
    (tmp_path / "runs" / "noisy.json").unlink()
    assert cli.main([*PUBLISH, "--out", str(tmp_path / "runs"), "--results", str(tmp_path)]) == 2
    assert "give the same `run` command again" in capsys.readouterr().err
    assert table(record).startswith("| mixture | seeds | pesq_wb | pesq_wb minus as trained |")


def test_fields_of_the_students_are_options_and_the_mixtures_keep_their_difference(arguments, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(training_data, "run_jobs", lambda function, given, executor: jobs.extend(given) or [])
    words = ["--steps", "20", "--count", "2", "--seeds", "7", "--batch_size=2", "--mix.rir_probability=0.7"]
    assert cli.main([*RUN, *arguments, *words]) == 0
    configs = {job.name: job.config for job in jobs}
    assert {c.batch_size for c in configs.values()} == {2} and {c.warmup_steps for c in configs.values()} == {2}
    assert configs["as trained"].mix.rir_probability == 0.7 and configs["no rooms"].mix.rir_probability == 0.0
    record = load_result("mixtures", tmp_path / "runs")
    assert record["config"]["batch_size"] == 2
    assert record["command"].endswith("--count 2 --batch_size=2 --mix.rir_probability=0.7")
    words = [*words[:-2], "--config", str(_config(tmp_path, configs["no rooms"]))]
    begun = tmp_path / "runs" / "as trained" / "seed7" / "config.json"  # what a training would have left
    begun.parent.mkdir(parents=True)
    begun.write_text("{}")
    assert cli.main([*RUN, *arguments, *words]) == 2  # the runs there are of other settings
    assert cli.main([*RUN, *arguments, *words, "--out", str(tmp_path / "others")]) == 0
    assert {job.config.batch_size for job in jobs[6:]} == {2}


def test_runs_of_another_generated_corpus_are_not_joined(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_data, "run_jobs", lambda function, jobs, executor: iter(()))
    small = ["--seeds", "0", "--steps", "2", "--count", "2"]
    assert cli.main([*RUN, *arguments, *small]) == 0
    begun = tmp_path / "runs/as_trained/seed0/config.json"
    begun.parent.mkdir(parents=True)
    begun.write_text("{}")
    other = generated_corpus(0.02, seed=1, root=tmp_path / "other", progress=False).speech.parent
    assert cli.main([*RUN, *arguments, *small, "--generated", str(other)]) == 2
    assert "its runs have config" in capsys.readouterr().err


def test_a_run_that_is_stopped_ends_the_command_as_interrupted(arguments, monkeypatch, capsys):
    monkeypatch.setattr(training_data, "run_jobs", lambda function, jobs, executor: iter([(jobs[0], None)]))
    assert cli.main([*RUN, *arguments, "--seeds", "0", "--steps", "2", "--count", "2"]) == 130
    assert "the same command resumes" in capsys.readouterr().out


def _config(folder, config):
    path = folder / "config.json"
    path.write_text(json.dumps(dataclasses.asdict(config)))
    return path


def test_wrong_arguments_are_one_line_and_leave_nothing(arguments, tmp_path, capsys):
    for wrong, code, words in (
        (["--seeds", "one"], 2, "whole numbers"),
        (["--share", "2"], 2, "0 <= I < N"),
        (["--generated", str(tmp_path / "none")], 2, "corpus synth --hours 1"),
        (["--speech", str(tmp_path / "absent.jsonl")], 1, "absent.jsonl: no such manifest"),
    ):
        assert cli.main([*RUN, *arguments, *wrong]) == code
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
        assert not (tmp_path / "runs").exists()


def test_publishing_nothing_is_refused(tmp_path, capsys):
    assert cli.main([*PUBLISH, "--out", str(tmp_path)]) == 2
    assert "no readable result" in capsys.readouterr().err


def test_what_a_record_or_a_run_lacks_is_named(tmp_path, capsys):
    (tmp_path / "mixtures.json").write_text("{}")
    assert cli.main([*PUBLISH, "--out", str(tmp_path)]) == 2
    assert "mixtures.json: lacks config.steps, config.valid_mixtures, data_hash, command" in capsys.readouterr().err
    record = {"config": {"steps": 2, "valid_mixtures": 2}, "data_hash": "", "command": "run --seeds 0"}
    (tmp_path / "mixtures.json").write_text(json.dumps(record))
    run = tmp_path / training_data._folder(next(iter(training_data.MIXTURES))) / "seed0" / "evaluation.json"
    run.parent.mkdir(parents=True)
    run.write_text('{"items": {"another": [{}]}}')
    assert cli.main([*PUBLISH, "--out", str(tmp_path)]) == 2
    assert "evaluation.json: no scores of as trained; remove it" in capsys.readouterr().err


def test_a_run_that_diverged_costs_no_other(arguments, monkeypatch, capsys):
    silent = {"si_snr_db": None, "reasons": {"si_snr_db": "silence"}}
    items = iter([silent, {"si_snr_db": 1.0}])
    monkeypatch.setattr(training_data, "train_and_score", lambda job: SweepRun(job.name, 0, [next(items)]))
    assert cli.main([*RUN, *arguments, "--seeds", "0", "--steps", "2", "--count", "2", "--share", "0/3"]) == 0
    said = capsys.readouterr().out
    assert "(silence)" in said and "no rooms, seed 0: 1.00 dB" in said


def test_a_folder_that_another_call_bound_meanwhile_is_named(arguments, tmp_path, monkeypatch, capsys):
    small = ["--seeds", "0", "--count", "2"]

    def jobs_meanwhile(function, jobs, executor):
        monkeypatch.setattr(training_data, "run_jobs", lambda function, jobs, executor: iter(()))
        assert cli.main([*RUN, *arguments, *small, "--steps", "3"]) == 0  # before the first run has begun
        (tmp_path / "runs/as_trained/seed0").mkdir(parents=True)
        (tmp_path / "runs/as_trained/seed0/config.json").write_text("{}")
        yield from ()

    monkeypatch.setattr(training_data, "run_jobs", jobs_meanwhile)
    assert cli.main([*RUN, *arguments, *small, "--steps", "2"]) == 2
    assert "its runs have config" in capsys.readouterr().err


def test_the_record_counts_the_mixtures_that_judge(arguments, tmp_path, capsys):
    small = [*arguments, "--seeds", "0", "--steps", "1", "--valid_mixtures", "3", "--share", "0/6"]
    assert cli.main([*RUN, *small, "--count", "2"]) == 0
    assert cli.main([*PUBLISH, "--out", str(tmp_path / "runs"), "--results", str(tmp_path)]) == 0
    record = load_result("data_mixtures", tmp_path)
    assert "2 dry mixtures" in record["note"]
    assert record["config"]["valid_mixtures"] == 2 and record["config"]["valid_mixtures while training"] == 3
    assert cli.main([*RUN, *small, "--count", "4"]) == 2  # other mixtures in the same table
