"""Systems that one recipe trained for equally long: their table, their weights, and what makes them unequal."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments.equal_hours import load_campaign
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import load_model, read_card, save_model
from dccrn_lib.results.records import load_result
from dccrn_lib.results.tables import table
from dccrn_lib.training.config import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    torch.manual_seed(7)
    return str(save_model(build_model("uformer_mini"), tmp_path_factory.mktemp("teacher") / "teacher"))


def train(corpus, teacher, out, systems, seed="0", *more):
    command = ["campaign", *(f"--{kind}={path}" for kind, path in corpus.items()), "--out", str(out)]
    command += ["--size", "smoke", "--stage", "students", "--teacher", teacher, "--seeds", seed, "--steps", "3"]
    command += ["--systems", systems, "--quiet", "--set", "device=cpu", "--set", "valid_mixtures=2", *more]
    assert cli.main(command) == 0


@pytest.fixture(scope="module")
def trained(corpus, teacher, tmp_path_factory):
    """Two campaigns of seed 0 and one of seed 1, in folders of their own."""
    out = tmp_path_factory.mktemp("runs")
    train(corpus, teacher, out / "a", "distil_dccrn_at_kl,distil_dccrn_alone")
    train(corpus, teacher, out / "b", "dccrn_e")
    train(corpus, teacher, out / "c", "distil_dccrn_alone", "1")
    return out


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


def command(runs, names, tmp_path, *more):
    return [
        "experiment", "equal-hours", *(str(runs / name) for name in names), "--name", "mine_training",
        "--results-folder", str(tmp_path / "results"), *more,
    ]  # fmt: skip


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_course_of_all_systems_stands_side_by_side(runs, tmp_path):
    assert cli.main(command(runs, "ba", tmp_path)) == 0
    record = load_result("mine_training", tmp_path / "results")
    assert record["columns"] == ["hours of audio each", "noisy", "student_alone", "student_at_kl", "dccrn_e"]
    history = json.loads((runs / "b" / "dccrn_e" / "history.json").read_text())
    assert [row["dccrn_e"] for row in record["rows"]] == [round(v["si_snr_db"], 2) for v in history["valid"]]
    assert table(record).count("\n") == 2 + len(history["valid"])
    assert record["systems_trained"]["dccrn_e"]["history"] == history
    assert len(record["stages"]) == len(record["command"]) == 2
    assert not [v for v in record["systems_trained"]["dccrn_e"]["config"].values() if str(runs) in str(v)]


def test_seeds_stand_below_each_other(runs, tmp_path):
    assert cli.main(command(runs, "ac", tmp_path, "--weights", str(tmp_path / "w"))) == 0
    record = load_result("mine_training", tmp_path / "results")
    assert record["columns"][0] == "seed" and {row["seed"] for row in record["rows"]} == {0, 1}
    assert record["seed"] == [0, 1] and "student_alone_seed1" in record["systems_trained"]
    assert "student_at_kl" not in record["rows"][-1]  # no such student of seed 1
    assert load_model(tmp_path / "w" / "seed1" / "student_alone") is not None


def test_the_weights_are_those_of_the_campaign_and_say_where_they_come_from(runs, tmp_path):
    (tmp_path / "card.json").write_text('{"licence": "CC0-1.0"}')
    more = ["--weights", str(tmp_path / "w"), "--card", str(tmp_path / "card.json")]
    assert cli.main(command(runs, "a", tmp_path, *more)) == 0
    best, given = runs / "a" / "distil_dccrn_at_kl_seed0" / "best.safetensors", tmp_path / "w" / "student_at_kl"
    assert given.with_suffix(".safetensors").read_bytes() == best.read_bytes()
    card = read_card(given)["card"]
    assert card["licence"] == "CC0-1.0" and card["steps"] == 3 and card["seed"] == 0 and card["method"] == "at_kl"
    assert card["valid"] == read_card(best)["card"]["valid"] and set(card["inputs"]) >= {"speech", "noise", "teacher"}
    assert cli.main(command(runs, "a", tmp_path, *more)) == 0  # the same again


@pytest.mark.parametrize("name", "abc")
def test_the_recorded_command_trains_the_same_again(runs, name, monkeypatch, tmp_path):
    asked = []
    done = {"steps": 1, "hours_each": 0.0, "stopped": False}
    monkeypatch.setattr("dccrn_lib.training.lockstep.run_stage", lambda *a, **_: asked.append(a) or done)
    systems = load_campaign(runs / name)
    words = shlex.split(systems[0].command)[3:]
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--quiet"]) == 0
    ((stage, _, minutes, steps, *_),) = asked
    assert minutes is None and steps == 3
    assert len(stage.systems) == len(systems)
    names = {f for f in TrainConfig(out="", speech="", noise="").deciding() if f != "steps"}
    as_read = [json.loads(json.dumps(config.deciding())) for config in stage.systems.values()]
    for one in systems:
        assert {k: one.config[k] for k in names} in [{k: c[k] for k in names} for c in as_read]


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("config.json", {"decay_fraction": 1.0}, "decay_fraction = 1.0"),
        ("config.json", {"mix": {"segment_seconds": 9.0}}, "mix.segment_seconds = 9.0"),
        ("history.json", {"valid": [{"step": 1}, {"step": 3}]}, "other steps"),
        ("history.json", {"valid": []}, "holds no validation"),
    ],
)
def test_unequal_hours_are_refused(runs, tmp_path, capsys, name, changes, words):
    rewrite(runs / "b" / "dccrn_e" / name, **changes)
    assert cli.main(command(runs, "ab", tmp_path, "--weights", str(tmp_path / "w"))) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "results").exists() and not (tmp_path / "w").exists()


@pytest.mark.parametrize("kind, words", [("speech", "on other speech"), ("teacher", "by another teacher")])
def test_other_recordings_or_another_teacher_are_refused(runs, tmp_path, capsys, kind, words):
    report = runs / "a" / "stage_students.json"
    inputs = json.loads(report.read_text())["inputs"]
    inputs["distil_dccrn_alone_seed0"] |= {kind: "0" * 64}
    rewrite(report, inputs=inputs)
    assert cli.main(command(runs, "a", tmp_path)) == 2 and words in capsys.readouterr().err


def test_what_is_not_finished_or_comes_twice_is_refused(runs, tmp_path, capsys):
    assert cli.main(command(runs, "aa", tmp_path)) == 2 and "twice" in capsys.readouterr().err
    rewrite(runs / "a" / "stage_students.json", stopped=True, steps=2)
    assert cli.main(command(runs, "a", tmp_path)) == 2 and "stopped after 2 steps" in capsys.readouterr().err
    assert cli.main(command(tmp_path, ["nothing"], tmp_path)) == 2
    assert "no stage_students.json" in capsys.readouterr().err
    rewrite(runs / "c" / "stage_students.json", systems={})
    assert cli.main(command(runs, "c", tmp_path)) == 2 and "names no systems" in capsys.readouterr().err
    (runs / "b" / "dccrn_e" / "history.json").unlink()
    assert cli.main(command(runs, "b", tmp_path)) == 2 and "history.json: gone" in capsys.readouterr().err


def test_nothing_is_written_over(runs, tmp_path, capsys):
    other = save_model(build_model("distil_dccrn_mini"), tmp_path / "w" / "student_alone")
    before = other.read_bytes()
    more = ["--weights", str(tmp_path / "w")]
    assert cli.main(command(runs, "a", tmp_path, *more)) == 2
    assert "weights are there already" in capsys.readouterr().err
    assert other.read_bytes() == before and not (tmp_path / "results").exists()
    report = (runs / "b" / "stage_students.json").read_text()
    read = ["experiment", "equal-hours", str(runs / "b"), "--results-folder", str(runs / "b")]
    assert cli.main([*read, "--name", "stage_students"]) == 2 and "the record that is read" in capsys.readouterr().err
    assert (runs / "b" / "stage_students.json").read_text() == report


def test_a_card_that_is_none_is_refused(runs, tmp_path, capsys):
    (tmp_path / "card.json").write_text("[1]")
    assert cli.main(command(runs, "b", tmp_path, "--card", str(tmp_path / "card.json"))) == 2
    assert "--card has no effect without --weights" in capsys.readouterr().err
    more = ["--weights", str(tmp_path / "w"), "--card", str(tmp_path / "card.json")]
    assert cli.main(command(runs, "b", tmp_path, *more)) == 2
    assert "argument --card" in capsys.readouterr().err and not (tmp_path / "w").exists()
