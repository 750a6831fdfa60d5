"""The laboratory: rows out of runs, the published file, and the command at the smallest size."""

from __future__ import annotations

import json

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.experiments import methods, paper
from dccrn_lib.experiments.grid import SweepRun, compare_methods, load_runs
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.results.records import load_result, save_result
from dccrn_lib.results.tables import table
from dccrn_lib.runtime.errors import ConfigError

PUBLISH = ("experiment", "methods", "publish")


def runs(method: str, *si_snr_db: float) -> list[SweepRun]:
    return [
        SweepRun(method, seed, [{"pesq_wb": pesq, "stoi": 0.9, "si_snr_db": value} for pesq in (2.0, None)])
        for seed, value in enumerate(si_snr_db)
    ]


@pytest.fixture
def some() -> list[SweepRun]:
    return [*runs("at_kl", 8.0, 9.1, 10.0), *runs("none", 7.0, 8.0, 9.0), *runs("output", 8.0, 9.0, 10.1)]


def test_rows_compare_within_a_seed_with_both_baselines(some):
    rows = {row["method"]: row for row in methods.laboratory_rows(some)}
    assert list(rows) == ["none", "output", "at_kl"]  # the order of DEFAULT_METHODS
    at_kl = rows["at_kl"]
    assert at_kl["seeds"] == 3 and at_kl["si_snr_db"] == pytest.approx(9.0333, abs=1e-4)
    # differences 1.0, 1.1, 1.0: mean 1.0333, half width 4.3027 * 0.057735 / sqrt(3) = 0.1434
    assert at_kl["si_snr_db minus none"] == "+1.033 [+0.890, +1.177] better"
    assert at_kl["si_snr_db minus output"].endswith("not distinguishable")
    assert rows["none"]["si_snr_db minus none"] is None
    assert rows["none"]["si_snr_db minus output"].endswith("worse")


def test_without_the_second_baseline_there_is_one_comparison():
    rows = methods.laboratory_rows([*runs("none", 1.0, 2.0), *runs("at", 1.5, 2.0)])
    assert not any("minus output" in key for row in rows for key in row)


@pytest.fixture
def folder(some, tmp_path):
    record = {"config": {"profile": "x"}, "seed": [0], "data_hash": "d", "rows": [], "command": "again"}
    save_result("laboratory", record, tmp_path)
    for run in some:
        path = tmp_path / run.method / f"seed{run.seed}" / "evaluation.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"key": {}, "items": {run.method: run.items}}))
    return tmp_path


def test_what_is_published_gives_the_same_comparison_again(folder, some, tmp_path):
    path = methods.publish(folder, "laboratory_x", folder=tmp_path / "r")
    record = load_result("laboratory_x", tmp_path / "r")
    assert path.name == "laboratory_x.json"
    assert (record["command"], record["seed"], record["data_hash"]) == ("again", [0, 1, 2], "d")
    # none and output: 3 metrics, the sign does not count; at_kl: 3 minus each
    assert "9 comparisons about 0.5" in record["note"]
    again = compare_methods(
        [SweepRun(r["method"], r["seed"], [{"si_snr_db": v} for v in r["si_snr_db"]]) for r in record["runs"]]
    )
    whole = compare_methods(sorted(some, key=lambda run: (run.method, run.seed)), "si_snr_db")
    assert again == whole
    assert table(record).startswith("| method | seeds | si_snr_db | si_snr_db minus none |")


def test_publishing_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no readable result"):
        methods.publish(tmp_path, "x", folder=tmp_path)
    record = {"config": {}, "seed": [0], "data_hash": "", "rows": [], "command": ""}
    save_result("laboratory", record, tmp_path)
    with pytest.raises(ConfigError, match="no run has finished"):
        methods.publish(tmp_path, "x", folder=tmp_path)


def test_the_command_trains_scores_and_publishes(tmp_path, capsys, monkeypatch):
    made = generated_corpus(0.02, root=tmp_path / "corpus", progress=False)
    torch.manual_seed(0)
    teacher = save_model(build_model("uformer_mini"), tmp_path / "teacher")
    threads = torch.get_num_threads()
    command = ["experiment", "methods", "run", "--out", str(tmp_path / "lab"), "--profile", "smoke", "--quiet"]
    command += ["--methods", "none,at_kl", "--seeds", "0,1", "--teacher", str(teacher), "--steps", "2"]
    command += ["--mix.snr_db=-1,5", "--speech", str(made.speech), "--noise", str(made.noise)]
    try:
        with monkeypatch.context() as patch:
            real = paper.train
            patch.setattr(paper, "train", lambda config, **options: real(config, **options, stop_after=1))
            assert cli.main(command) == 130  # a training was told to stop
        assert "done" not in capsys.readouterr().out
        code = cli.main(command)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    assert code == 0
    assert cli.main([*PUBLISH, "--out", str(tmp_path / "lab"), "--name", "lab", "--results", str(tmp_path)]) == 0
    record = load_result("lab", tmp_path)
    assert [(row["method"], row["seeds"]) for row in record["rows"]] == [("none", 2), ("at_kl", 2)]
    assert record["config"]["steps"] == 2 and len(record["config"]["teacher"]) == 64
    assert record["config"]["mix.snr_db"] == [-1.0, 5.0]
    trained = json.loads((tmp_path / "lab" / "none" / "seed1" / "config.json").read_text())
    assert trained["mix"]["snr_db"] == [-1.0, 5.0] and trained["mix"]["segment_seconds"] == 1.0
    assert "--steps=2 --mix.snr_db=-1.0,5.0" in record["command"]
    assert "--speech=speech.jsonl" in record["command"] and "--seeds 0,1" in record["command"]
    assert str(tmp_path) not in record["command"]  # it is published: nobody's folders
    assert all(len(run["si_snr_db"]) == 4 for run in record["runs"])

    kept = (tmp_path / "lab" / "laboratory.json").read_bytes()
    for other in (["--steps", "3"], ["--learning-rate", "0.5"]):
        assert cli.main([*command, *other]) == 2  # else the runs there would be published under settings not theirs
        assert "its runs have config" in capsys.readouterr().err
        assert (tmp_path / "lab" / "laboratory.json").read_bytes() == kept


def test_a_shorter_run_warms_up_within_its_steps(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("dccrn_lib.experiments.methods.run", lambda a, executor: asked.append(a.changes))
    command = ["experiment", "methods", "run", "--out", str(tmp_path), "--profile", "quick", "--steps", "40"]
    assert cli.main(command) == cli.main([*command, "--warmup-steps", "100", "--valid_every", "9"]) == 0
    assert asked == [
        {"steps": 40, "warmup_steps": 4, "valid_every": 5},
        {"steps": 40, "valid_every": 9},
    ]  # 100: profile's


def test_the_command_trains_on_a_cluster(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    made = generated_corpus(0.02, root=tmp_path / "corpus", progress=False)
    lab, threads = tmp_path / "lab", torch.get_num_threads()
    command = [
        "experiment",
        "methods",
        "run",
        "--out",
        str(lab),
        "--profile",
        "smoke",
        "--methods",
        "none",
        "--seeds",
        "0",
        "--steps",
        "2",
    ]
    command += ["--speech", str(made.speech), "--noise", str(made.noise), "--quiet"]
    options = {"processes": False, "protocol": "tcp", "dashboard_address": None}
    try:
        with distributed.LocalCluster(n_workers=1, **options) as cluster:
            assert cli.main([*command, "--cluster", cluster.scheduler_address]) == 0
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    assert [(run.method, run.seed) for run in load_runs(lab)] == [("none", 0)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "one"], "whole numbers"),
        (["--share", "2"], "0 <= I < N"),
        (["--methods", "atkl"], "did you mean at_kl"),
        (["--profile", "quik"], "did you mean quick"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, capsys, arguments, words):
    assert cli.main(["experiment", "methods", "run", "--out", str(tmp_path / "lab"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "lab").exists()


def test_a_run_of_which_nothing_could_be_scored_is_named():
    silent = SweepRun("at_kl", 3, [{"stoi": None, "reasons": {"stoi": "silence"}}])
    with pytest.raises(ConfigError, match=r"at_kl, seed 3: none of 1 mixtures .* stoi \(silence\)"):
        silent.mean("stoi")


def test_the_record_of_a_laboratory_is_not_written_over(tmp_path):
    (tmp_path / "laboratory.json").write_text("{}")
    with pytest.raises(ConfigError, match="the record that is read"):
        methods.publish(tmp_path, "laboratory", folder=tmp_path)


def test_rooms_alone_do_not_pass_for_a_corpus():
    with pytest.raises(ConfigError, match="rir manifests go with speech and noise"):
        paper.corpus_of("smoke", rir="rir.jsonl")


def test_a_teacher_cache_is_taken_for_the_methods_that_it_serves(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(methods, "run", lambda a, executor: seen.append(a))
    words = ["--out", str(tmp_path / "lab"), "--repeat-epoch", "true", "--teacher-cache", str(tmp_path / "cache")]
    assert cli.main(["experiment", "methods", "run", *words]) == 0
    assert set(seen[0].changes) == {"repeat_epoch", "teacher_cache"}
    assert set(seen[0].changed) == {"repeat_epoch"}  # another share may keep its answers elsewhere
