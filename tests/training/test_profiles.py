"""Profiles: one mapping to a training config, for the notebooks and the command line."""

from __future__ import annotations

import pytest

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments.paper import train_config
from dccrn_lib.training import loop
from dccrn_lib.training.profiles import PROFILES

CORPUS = {"speech": "speech.jsonl", "noise": "noise.jsonl", "rir": "rir.jsonl"}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("system", ["student", "teacher"])
def test_the_command_trains_what_the_notebook_trains(name, system, tmp_path, monkeypatch):
    asked = []

    def note(config, **_):
        asked.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", note)
    profile = PROFILES[name]
    command = ["train", "--profile", name, "--out", str(tmp_path / system), "--device", profile.device, "--quiet"]
    command += [f"--{kind}={path}" for kind, path in CORPUS.items()]
    command += ["--model", profile.teacher] if system == "teacher" else []
    assert cli.main(command) == 130
    assert asked == [train_config(system, name, CORPUS, tmp_path)]


def test_a_short_profile_warms_up_within_its_steps():
    for profile in PROFILES.values():
        settings = profile.settings()
        assert settings["warmup_steps"] <= settings["steps"] / 10
