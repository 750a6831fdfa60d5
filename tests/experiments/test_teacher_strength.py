"""The experiment on the strength of a teacher: pairs by seed, lead and gain from the same mixtures."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments import executors
from dccrn_lib.experiments import teacher_strength as strength
from dccrn_lib.experiments.teacher_strength import WAYS, parse_weights, points
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.config import TrainConfig


@pytest.fixture(scope="module")
def command(tmp_path_factory, corpus):
    """The command with two teachers, one of them untrained and one a little less."""
    folder = tmp_path_factory.mktemp("strength")
    for name, seed in (("weak", 0), ("other", 1)):
        torch.manual_seed(seed)
        save_model(build_model("uformer_mini"), folder / name)
    given = [f"--{kind}={path}" for kind, path in corpus.items()]
    teachers = f"weak={folder / 'weak'},other={folder / 'other'}"
    given += ["--teachers", teachers, "--out", str(folder / "runs"), "--steps", "3", "--quiet"]
    given += ["--set", "device=cpu", "--set", "batch_size=2", "--set", "valid_mixtures=2"]
    return folder, ["experiment", "teacher-strength", "run", *given, "--set", "mix.segment_seconds=0.5"]


def test_gain_and_lead_come_from_the_histories(command, capsys):
    folder, run = command
    assert cli.main([*run, "--seeds", "0,1"]) == 0
    found = points(folder / "runs")
    assert len(found) == 2 * 2 * len(WAYS) * 2  # seeds, teachers, ways, moments
    assert {json.loads(p.read_text())["steps"] for p in (folder / "runs").glob("seed*/*/config.json")} == {3}
    for point in found:
        alone = json.loads((folder / "runs" / f"seed{point['seed']}" / "alone/history.json").read_text())
        taught = folder / "runs" / f"seed{point['seed']}" / f"{point['way']}.{point['teacher']}"
        value = {h["step"]: h["si_snr_db"] for h in alone["valid"]}[point["step"]]
        other = {h["step"]: h["si_snr_db"] for h in json.loads((taught / "history.json").read_text())["valid"]}
        assert point["gain_db"] == pytest.approx(other[point["step"]] - value)
        assert point["lead_db"] == pytest.approx(point["teacher_db"] - value)
    assert {p["step"] for p in found if p["moment"] == "late"} == {3}
    assert len({p["teacher_db"] for p in found}) == 2  # each teacher is scored, on the same mixtures for both seeds

    assert cli.main([*run, "--seeds", "0,1"]) == 0  # finished: nothing is trained again
    capsys.readouterr()
    publish = ["experiment", "teacher-strength", "publish", "--out", str(folder / "runs"), "--results", str(folder)]
    assert cli.main(publish) == 0
    record = json.loads((folder / "teacher_strength.json").read_text())
    assert [r["seeds"] for r in record["rows"]] == [2] * 2 * len(WAYS) * 2
    row = record["rows"][0]
    gains = [p["gain_db"] for p in record["points"] if all(p[k] == row[k] for k in ("moment", "teacher", "way"))]
    assert row["gain_db"] == pytest.approx(sum(gains) / 2) and row["low"] <= row["gain_db"] <= row["high"]
    assert str(folder) not in json.dumps(record).replace(os.sep, "/")


@pytest.mark.parametrize("steps, warmup", [(300, 20), (40, 4)])
def test_a_short_training_warms_up_within_its_steps(command, monkeypatch, steps, warmup):
    asked = []
    monkeypatch.setattr("dccrn_lib.experiments.teacher_strength.run", lambda shared, *_: asked.append(shared) or True)
    assert cli.main([*command[1], "--steps", str(steps)]) == 0
    assert asked[0].warmup_steps == warmup


def test_a_cluster_trains_the_seeds_as_this_machine_does(command, monkeypatch):
    folder, run = command

    @contextmanager
    def two_threads(address):
        assert address == "tcp://there:8786"
        with ThreadPoolExecutor(2) as pool:
            yield pool

    run = [*run, "--seeds", "0,1", "--ways", "output"]
    assert cli.main([*run, "--out", str(folder / "here")]) == 0
    monkeypatch.setattr(executors, "cluster_executor", two_threads)
    assert cli.main([*run, "--out", str(folder / "there"), "--cluster", "tcp://there:8786"]) == 0
    assert points(folder / "there") == points(folder / "here")


def test_another_question_wants_another_folder(command):
    folder, run = command
    (folder / "runs").mkdir(exist_ok=True)
    if not (folder / "runs/plan.json").is_file():
        (folder / "runs/plan.json").write_text('{"ways": ["at_kl_sum"]}')  # alone, no test before it has run any
    assert cli.main([*run, "--ways", "output"]) == 2


def test_seeds_by_another_recipe_or_of_other_recordings_want_another_folder(
    command, tmp_path, monkeypatch, capsys, corpus
):
    _, run = command
    run = [*run, "--out", str(tmp_path / "runs")]
    monkeypatch.setattr(strength, "run_jobs", lambda work, jobs, executor: [(job, True) for job in jobs])
    assert cli.main(run) == 0 and cli.main(run) == 0
    assert cli.main([*run, "--set", "muon_learning_rate=0.5"]) == 2
    assert "other recipe" in capsys.readouterr().err
    assert cli.main([*run, "--rir", ""]) == 2
    assert "other data_hash" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["uformer", "a=", "=b", "a=b,a=c", "a/b=c"])
def test_teachers_need_different_names(text):
    with pytest.raises(ConfigError, match="name=weights"):
        parse_weights(text)


def test_a_folder_without_a_finished_seed_has_no_points(tmp_path):
    (tmp_path / "plan.json").write_text('{"teachers": {}, "ways": [], "steps": 1}')
    with pytest.raises(ConfigError, match="no seed is finished"):
        points(tmp_path)


def test_other_weights_under_the_name_of_a_teacher_want_another_folder(corpus, tmp_path, monkeypatch):
    """Seeds taught by what lay there before, and by what lies there now, would be one row of the table."""
    monkeypatch.setattr(strength, "run_jobs", lambda work, jobs, executor: [(job, True) for job in jobs])
    weights = save_model(build_model("uformer_mini"), tmp_path / "teacher")
    shared = TrainConfig(out=str(tmp_path / "runs"), **corpus)

    def go(seed):
        return strength.run(shared, {"t": str(weights)}, [seed], 2, progress=False)

    assert go(0)
    first = {file: file.read_bytes() for file in (weights, weights.with_suffix(".json"))}
    save_model(build_model("uformer_mini"), tmp_path / "teacher")
    with pytest.raises(ConfigError, match="the weights of the teacher t are no longer those"):
        go(1)
    for file, content in first.items():
        file.write_bytes(content)
    assert go(1)
    weights.unlink()
    assert go(2)  # gone: only who has to learn from it says so
    digest = json.loads(weights.with_suffix(".json").read_text())["sha256"]
    assert json.loads((tmp_path / "runs/plan.json").read_text())["weights"] == {"t": digest}


def test_the_plan_is_not_written_over(tmp_path):
    with pytest.raises(ConfigError, match="the record that is read"):
        strength.publish(tmp_path, "plan", tmp_path)


def test_the_data_of_the_plan_are_published_wherever_the_manifests_lie_now(tmp_path):
    history = {"valid": [{"step": 1, "si_snr_db": 1.0}, {"step": 2, "si_snr_db": 2.0}]}
    config = {name: 0 for name in strength.RECIPE} | {"speech": "gone", "noise": "gone", "rir": "", "mix": {}}
    config["mix"] = {"segment_seconds": 1.0}
    plan = {"teachers": {"t": "w"}, "steps": 2, "ways": ["output"], "data_hash": "of the runs"}
    for name, content in (
        ("plan.json", plan),
        ("seed0/teachers.json", {"t": 5.0}),
        ("seed0/alone/history.json", history),
        ("seed0/alone/config.json", config),
        ("seed0/output.t/history.json", history),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    record = json.loads(strength.publish(tmp_path, folder=tmp_path / "results").read_text())
    assert record["data_hash"] == "of the runs"


def test_a_plan_from_before_a_field_of_the_recipe_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(strength, "run_jobs", lambda function, jobs, executor: iter(()))
    for kind in ("speech", "noise"):
        (tmp_path / f"{kind}.jsonl").write_text("{}\n")
    c = TrainConfig(str(tmp_path / "runs"), str(tmp_path / "speech.jsonl"), str(tmp_path / "noise.jsonl"))
    assert strength.run(c, {}, [0], 2)
    plan = json.loads((tmp_path / "runs/plan.json").read_text())
    del plan["recipe"]["muon_weight_decay"], plan["recipe"]["muon_lstm"]
    (tmp_path / "runs/plan.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match="other recipe"):
        strength.run(replace(c, muon_lstm=False), {}, [0], 2)
    assert strength.run(c, {}, [0], 2)
