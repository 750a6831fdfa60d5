"""The command that trains."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from dccrn_lib.cli.checks import device, folder
from dccrn_lib.cli.fields import FieldParser, recorded
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.profiles import FOLLOW_STEPS, get_profile


def train(**options: Any) -> Parser:
    p = FieldParser(TrainConfig, _base, skip=("model",), **options)
    p.add_argument("--profile", metavar="NAME", help="size of the run: smoke, quick, cpu or gpu; quick when not given")
    p.add_argument("--model", metavar="NAME", help="preset to train; the profile's student when not given")
    p.add_argument("--resume", action="store_true", help="resume from the checkpoint in the run's folder")
    p.set_defaults(run=_train)
    return p


def _base(a: argparse.Namespace) -> TrainConfig:
    """What the fields are when nothing else is said: those of the record, or of the profile."""
    if a.config is None:
        profile = get_profile(a.profile or "quick")
        return TrainConfig(out="", speech="", noise="", **profile.settings(a.model or profile.student))
    if a.profile is not None:
        raise ConfigError(f"{a.config} holds the sizes that a profile would give: leave --profile {a.profile} out")
    base = recorded(a.config, TrainConfig(out="", speech="", noise=""))
    if a.model not in (None, base.model):
        raise ConfigError(f"{a.config} trains {base.model}, --model says {a.model}: leave one of the two out")
    return base


def for_its_steps(a: argparse.Namespace, profile: str) -> TrainConfig:
    """The fields; where --steps was given, warm-up and validations follow it, unless they (or a record) were given too."""
    config: TrainConfig = a.fields
    if a.config is not None or "steps" not in a.given:
        return config
    settings = get_profile(profile).settings(config.model, config.steps)
    return dataclasses.replace(config, **{name: settings[name] for name in FOLLOW_STEPS if name not in a.given})


def _resumed(a: argparse.Namespace, config: TrainConfig) -> TrainConfig:
    """The fields; a resumed run keeps its steps, or its warm-up where --steps extends it, unless others are given."""
    from dccrn_lib.runtime.files import read_json
    from dccrn_lib.training.run_folder import CONFIG

    file = Path(config.out) / CONFIG
    if not a.resume or a.config is not None or not file.is_file():
        return config
    record = read_json(file, "remove it to resume with the settings given now")
    names = ("warmup_steps",) if "steps" in a.given else ("steps", *FOLLOW_STEPS)
    kept = {name: record.get(name) for name in names if name not in a.given}
    return dataclasses.replace(config, **{name: value for name, value in kept.items() if isinstance(value, int)})


#: Fields that nothing reads unless another one has a value: their names, whether that is so, and what to write.
_READ_WITH: tuple[tuple[tuple[str, ...], Callable[[TrainConfig], bool], str], ...] = (
    (("muon_learning_rate", "muon_weight_decay", "muon_lstm"), lambda c: c.optimiser == "muon", "--optimiser muon"),
    (
        ("reading", "normalisation", "output_weight", "feature_weight", "feature_share"),
        lambda c: c.method != "none",
        "--method and --teacher",
    ),
    (("mix.wide_level_dbfs",), lambda c: c.mix.wide_level_probability > 0, "a --mix.wide_level_probability above 0"),
    (("mix.equaliser_db",), lambda c: c.mix.equaliser_probability > 0, "a --mix.equaliser_probability above 0"),
)


def _refuse_unread(config: TrainConfig, given: Collection[str]) -> None:
    """ConfigError if a field was given that nothing would read: after hours the run would not be the one that was meant."""
    for names, is_read, cure in _READ_WITH:
        unread = [name for name in names if name in given]
        if unread and not is_read(config):
            raise ConfigError(f"--{unread[0]} would change nothing: give {cure} with it, or leave it out")


def _score_in_words(valid: list[dict[str, Any]]) -> str:
    """The score of the weights that were kept, the best ones, and that after the last step where it is another."""
    scored = [row for row in valid if math.isfinite(row["si_snr_db"])]
    if not scored:
        return ""
    best, last = max(scored, key=lambda row: row["si_snr_db"]), valid[-1]
    words = f", SI-SNR {best['si_snr_db']:.4g} dB on valid (noisy {best['noisy_si_snr_db']:.4g})"
    if best["step"] == last["step"]:
        return words
    return f"{words} after step {best['step']}; after the last, {last['step']}, {last['si_snr_db']:.4g} dB"


def _train(a: argparse.Namespace) -> int:
    for name, check in (("out", folder), ("device", device)):
        try:
            check(getattr(a.fields, name))
        except argparse.ArgumentTypeError as error:
            raise ConfigError(f"argument --{name}: {error}") from None
    if a.fields.teacher and "teacher" in a.given and a.fields.method == "none":
        raise ConfigError(
            f"nothing would be learnt from {a.fields.teacher}: say how the teacher teaches, e.g. --method at_kl"
        )
    _refuse_unread(a.fields, a.given)
    # below what is refused, which needs no torch
    from dccrn_lib.runtime.devices import require_device, set_up_cpu
    from dccrn_lib.training.loop import train
    from dccrn_lib.training.run_folder import CONFIG
    from dccrn_lib.training.session import TrainingError

    config = _resumed(a, for_its_steps(a, a.profile or "quick"))
    if config.device != "auto":
        require_device(config.device)
    set_up_cpu()
    result = train(config, resume=a.resume, progress=not a.quiet)
    if not result.stopped and result.history["valid"] and not result.weights.is_file():
        raise TrainingError(
            f"{config.out}: no validation gave a finite score, so that no weights were kept; train anew in another folder "
            f"with a lower learning_rate (it was {config.learning_rate:g}), and see history.json"
        )
    score = _score_in_words(result.history["valid"])
    again = f"train --config {shlex.quote(str(Path(config.out) / CONFIG))} --resume"
    print(f"{result.weights}{score}" if not result.stopped else f"stopped; resume with: {again}")
    return 130 if result.stopped else 0
