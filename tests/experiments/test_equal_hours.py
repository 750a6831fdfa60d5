"""Systems that one recipe trained for equally long: their table, their weights, and what makes them unequal."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments.equal_hours import _command, load_campaign
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


SCORES = {"hours": 0.1, "si_snr_db": 1.0, "noisy_si_snr_db": 77.0}


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
    where = json.loads((runs / "b" / "dccrn_e" / "config.json").read_text())
    text = (tmp_path / "results" / "mine_training.json").read_text()
    assert not [kind for kind in ("out", "speech", "noise") if str(Path(where[kind]).parent) in text]
    assert "(0.5 s each)" in record["note"]


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
        ("history.json", {"valid": [{"step": s, **SCORES} for s in (1, 3)]}, "other steps"),
        ("history.json", {"valid": [{"step": s, **SCORES} for s in (1, 2, 3)]}, "on other mixtures"),
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


@pytest.fixture
def asked(monkeypatch):
    """Stages that campaigns ask for, as run_stage gets them; none is trained."""
    calls = []
    done = {"steps": 1, "hours_each": 0.0, "stopped": False}
    monkeypatch.setattr("dccrn_lib.training.lockstep.run_stage", lambda *a, **_: calls.append(a) or done)
    return calls


@pytest.mark.parametrize(
    "words",
    [
        ["--teacher=uformer_best", "--seeds=1,0"],  # DCCRN-E has the first of them, which is not the least
        ["--teacher=uformer_best", "--seeds=0", "--minutes=1234.5678"],
        ["--teacher=my weights/the teacher.safetensors", "--seeds=0", "--speech=my speech.jsonl", "--out=runs/my run"],
        ["--teacher=uformer_best", "--seeds=0", "--amp=false", "--muon_lstm=false", "--mix.snr_db=-7,3"],
    ],
)
def test_a_command_is_read_back_as_it_was_given(asked, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    length = [] if any("--minutes" in word for word in words) else ["--steps=5"]
    given = ["campaign", "--quiet", "--stage=students", "--speech=s.jsonl", "--noise=n.jsonl", "--out=runs/a", *length]
    assert cli.main([*given, *words]) == 0
    (stage, out, minutes, steps, *_) = asked[-1]
    report = {"systems": dict.fromkeys(stage.systems, []), "minutes": minutes, "steps": steps or 99}
    command = _command(Path(out), report, [json.loads(json.dumps(asdict(c))) for c in stage.systems.values()])
    assert cli.main([*shlex.split(command)[3:], "--quiet"]) == 0
    assert asked[-1][0].systems == stage.systems and asked[-1][2:4] == (minutes, steps)


def test_a_teacher_of_the_campaign_is_trained_first(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--speech=s.jsonl", "--noise=n.jsonl", "--out=runs/a", "--minutes=20", "--seeds=0", "--size=smoke"]
    assert cli.main(["campaign", "--quiet", *given]) == 0
    for stage, out, minutes, *_ in list(asked):
        for config in stage.systems.values():
            Path(config.out).mkdir(parents=True)
            (Path(config.out) / "config.json").write_text(json.dumps(asdict(config)))
        record = {"systems": dict.fromkeys(stage.systems, []), "minutes": minutes, "steps": 99, "stopped": False}
        (Path(out) / f"stage_{stage.name}.json").write_text(json.dumps(record))
    students = asked[-1][0].systems
    command = _command(Path("runs/a"), record, [json.loads(json.dumps(asdict(c))) for c in students.values()])
    before, asked[:] = list(asked), []
    for call in command.split(" && "):
        assert cli.main([*shlex.split(call)[3:], "--quiet"]) == 0
    assert [(a[0].name, a[0].systems, a[2]) for a in asked] == [(a[0].name, a[0].systems, a[2]) for a in before]


@pytest.mark.parametrize(
    "name, changes",
    [
        ("stage_students.json", {"systems": 5}),
        ("stage_students.json", {"inputs": [1]}),
        ("stage_students.json", {"inputs": {"dccrn_e": 1}}),
        ("stage_students.json", {"steps": None}),
        ("dccrn_e/config.json", {"speech": None}),
        ("dccrn_e/config.json", {"mix": 5}),
        ("dccrn_e/history.json", {"valid": [5]}),
        ("dccrn_e/history.json", {"valid": [{"step": 3}]}),
        ("dccrn_e/best.json", {"card": {}}),
    ],
)
def test_what_is_damaged_is_named(runs, tmp_path, capsys, name, changes):
    rewrite(runs / "b" / name, **changes)
    assert cli.main(command(runs, "b", tmp_path, "--weights", str(tmp_path / "w"))) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "results").exists() and not (tmp_path / "w").exists()


def test_campaigns_that_do_not_say_what_they_learnt_from_are_not_compared(runs, tmp_path, capsys):
    rewrite(runs / "b" / "stage_students.json", inputs={})
    assert cli.main(command(runs, "ab", tmp_path)) == 2 and "does not say by which speech" in capsys.readouterr().err
    assert cli.main(command(runs, "b", tmp_path)) == 0


def test_a_field_that_the_config_lacks_is_not_said_to_stand_there(runs, tmp_path):
    file = runs / "b" / "dccrn_e" / "config.json"
    config = json.loads(file.read_text())
    del config["muon_lstm"]
    file.write_text(json.dumps(config))
    assert cli.main(command(runs, "b", tmp_path)) == 0
    record = load_result("mine_training", tmp_path / "results")
    trained = record["systems_trained"]["dccrn_e"]
    assert "muon_lstm" not in trained["config"] and trained["assumed"] == {"muon_lstm": True}
    assert "by default: muon_lstm" in record["note"]


@pytest.mark.parametrize(
    "more",
    [
        ["--name", "history", "--results-folder", "{runs}/b/dccrn_e"],
        ["--name", "best", "--results-folder", "{runs}/b/dccrn_e"],
        ["--name", "card", "--results-folder", "{tmp}", "--card", "{tmp}/card.json", "--weights", "{tmp}/w"],
        ["--name", "dccrn_e", "--results-folder", "{tmp}/w", "--weights", "{tmp}/w"],
        ["--name", "x", "--results-folder", "{tmp}/r", "--weights", "{tmp}/held"],  # held/dccrn_e.json is another file
        ["--name", "x", "--results-folder", "{tmp}/r", "--weights", "{tmp}/w", "--card", "{tmp}/false.json"],
    ],
)
def test_no_file_is_lost_and_no_card_says_what_is_not_so(runs, tmp_path, more):
    (tmp_path / "held").mkdir()
    for name, text in {"card": "{}", "held/dccrn_e": "{}", "false": '{"seed": 9}'}.items():
        (tmp_path / f"{name}.json").write_text(text)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = [word.format(runs=runs, tmp=tmp_path) for word in more]
    assert cli.main(["experiment", "equal-hours", str(runs / "b"), *words]) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_place_that_is_a_file_is_refused_before_anything_is_written(runs, tmp_path, capsys):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "seed1").write_text("")
    assert cli.main(command(runs, "ac", tmp_path, "--weights", str(tmp_path / "w"))) == 2
    assert "is a file, not a folder" in capsys.readouterr().err
    assert not (tmp_path / "results").exists() and not (tmp_path / "w" / "seed0").exists()


def test_the_environments_of_all_calls_are_noted(corpus, tmp_path, monkeypatch):
    from dccrn_lib.experiments.campaign import plan
    from dccrn_lib.experiments.recipe import recipe
    from dccrn_lib.training.lockstep import run_stage

    shared = recipe(corpus, tmp_path / "run", "smoke", device="cpu", valid_mixtures=2)
    [_, stage] = plan(shared, (0,), "smoke", systems=("dccrn_e",))
    for commit, stop_after in (("first", 1), ("second", None)):
        monkeypatch.setattr("dccrn_lib.training.lockstep.environment_record", lambda c=commit: {"git_commit": c})
        run_stage(stage, tmp_path / "run", steps=2, stop_after=stop_after, progress=False)
    publish = ["experiment", "equal-hours", str(tmp_path / "run"), "--name", "x", "--results-folder", str(tmp_path)]
    assert cli.main([*publish, "--weights", str(tmp_path / "w")]) == 0
    assert read_card(tmp_path / "w" / "dccrn_e")["card"]["commit"] == ["first", "second"]


@pytest.mark.parametrize("name", ["config.json", "history.json"])
def test_the_cure_of_a_damaged_file_is_one_that_helps(runs, tmp_path, capsys, name):
    """A finished campaign that is called again ends at once, and writes no file of its systems."""
    (runs / "b" / "dccrn_e" / name).write_text("{")
    assert cli.main(command(runs, "b", tmp_path)) == 1
    assert "restore it, or train dccrn_e anew in another folder" in capsys.readouterr().err
    (runs / "b" / "stage_students.json").write_text("{")
    assert cli.main(command(runs, "b", tmp_path)) == 1
    assert "remove it and give the command of the campaign again" in capsys.readouterr().err


def test_a_training_that_diverged_is_called_so(runs, tmp_path, capsys):
    history = runs / "b" / "dccrn_e" / "history.json"
    rows = json.loads(history.read_text())["valid"]
    rewrite(history, valid=[{**row, "si_snr_db": float("nan")} for row in rows])
    (history.parent / "best.safetensors").unlink()  # none was ever the best
    assert cli.main(command(runs, "b", tmp_path)) == 2
    assert "history.json: SI-SNR of step 1 is nan: the training diverged" in capsys.readouterr().err


def test_the_note_says_whether_weights_are_averaged(runs, tmp_path):
    for decay, words in ((0.9, ", averaged weights"), (0.0, ", unaveraged weights")):
        rewrite(runs / "b" / "dccrn_e" / "config.json", ema_decay=decay)
        assert cli.main(command(runs, "b", tmp_path)) == 0
        assert words in load_result("mine_training", tmp_path / "results")["note"]


def test_what_a_card_says_already_is_not_lost(runs, tmp_path, capsys):
    (tmp_path / "card.json").write_text('{"licence": "CC0-1.0"}')
    more = ["--weights", str(tmp_path / "w")]
    assert cli.main(command(runs, "b", tmp_path, *more, "--card", str(tmp_path / "card.json"))) == 0
    assert cli.main(command(runs, "b", tmp_path, *more)) == 2
    assert "says licence too, which would be lost" in capsys.readouterr().err
    assert read_card(tmp_path / "w" / "dccrn_e")["card"]["licence"] == "CC0-1.0"
