"""Profiles: one mapping to a training config, for the notebooks and the command line."""

from __future__ import annotations

import pytest

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments.paper import train_config
from dccrn_lib.training import loop
from dccrn_lib.training.config import MAY_CHANGE
from dccrn_lib.training.profiles import PROFILES
from dccrn_lib.training.run_folder import open_run, write_config

CORPUS = {"speech": "speech.jsonl", "noise": "noise.jsonl", "rir": "rir.jsonl"}


@pytest.fixture
def asked(monkeypatch):
    """The configs that the command asks for; nothing is trained."""
    configs = []

    def note(config, **_):
        configs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", note)
    return configs


def command(name: str, out, *words: str) -> list[str]:
    given = ["train", "--profile", name, "--out", str(out), "--device", PROFILES[name].device, "--quiet"]
    return [*given, *(f"--{kind}={path}" for kind, path in CORPUS.items()), *words]


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("system", ["student", "teacher"])
def test_the_command_trains_what_the_notebook_trains(name, system, tmp_path, asked):
    model = ["--model", PROFILES[name].teacher] if system == "teacher" else []
    assert cli.main(command(name, tmp_path / system, *model)) == 130
    assert asked == [train_config(system, name, CORPUS, tmp_path)]


def test_a_short_profile_warms_up_within_its_steps():
    for profile in PROFILES.values():
        settings = profile.settings()
        assert settings["warmup_steps"] <= settings["steps"] / 10
        for steps in (4, 40, 4000):
            settings = profile.settings(profile.teacher, steps)
            assert settings["steps"] == steps
            assert (settings["warmup_steps"], settings["valid_every"]) == (min(100, steps // 10), -(-steps // 8))


@pytest.mark.parametrize(
    "name, steps, warmup, every", [("quick", 40, 4, 5), ("smoke", 400, 40, 50), ("smoke", 4, 0, 1)]
)
def test_warm_up_and_validations_follow_the_steps_that_are_asked_for(tmp_path, asked, name, steps, warmup, every):
    cli.main(command(name, tmp_path / "a", "--steps", str(steps)))
    cli.main(command(name, tmp_path / "a", "--set", f"steps={steps}", "--warmup-steps", "100", "--valid_every=3"))
    assert [(c.steps, c.warmup_steps, c.valid_every) for c in asked] == [(steps, warmup, every), (steps, 100, 3)]


def test_a_run_that_is_resumed_keeps_its_warm_up(tmp_path, asked):
    cli.main(command("quick", tmp_path / "a", "--steps", "40"))
    write_config(tmp_path / "a", asked[0])
    cli.main(command("quick", tmp_path / "a", "--steps", "80", "--resume"))
    assert (asked[1].steps, asked[1].warmup_steps, asked[1].valid_every) == (80, 4, 10)
    assert open_run(tmp_path / "a", asked[1], True, MAY_CHANGE) is None  # not refused


def test_a_run_that_is_resumed_without_steps_ends_where_it_was_to_end(tmp_path, asked):
    cli.main(command("quick", tmp_path / "a", "--steps", "40"))
    write_config(tmp_path / "a", asked[0])
    cli.main(command("quick", tmp_path / "a", "--resume"))
    assert (asked[1].steps, asked[1].warmup_steps, asked[1].valid_every) == (40, 4, 5)
    cli.main(command("quick", tmp_path / "a", "--resume", "--valid-every", "7"))
    assert (asked[2].steps, asked[2].warmup_steps, asked[2].valid_every) == (40, 4, 7)
    cli.main(command("quick", tmp_path / "b", "--resume"))  # nothing to resume: the profile's
    assert asked[3].steps == PROFILES["quick"].student_steps


@pytest.mark.parametrize("steps", [8, 15, 100, 900, 13500, 60000])
def test_a_profile_validates_at_most_eight_times(steps):
    every = PROFILES["cpu"].settings(steps=steps)["valid_every"]
    assert -(-steps // every) <= 8
