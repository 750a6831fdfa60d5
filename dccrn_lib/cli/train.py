"""The command that trains."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from dccrn_lib.cli.checks import device, folder
from dccrn_lib.cli.fields import FieldParser, recorded
from dccrn_lib.cli.parser import Parser
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.profiles import get_profile


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


def _train(a: argparse.Namespace) -> int:
    import torch

    from dccrn_lib.runtime.devices import require_device
    from dccrn_lib.training.loop import train

    config: TrainConfig = a.fields
    for name, check in (("out", folder), ("device", device)):
        try:
            check(getattr(config, name))
        except argparse.ArgumentTypeError as error:
            raise ConfigError(f"argument --{name}: {error}") from None
    if config.device != "auto":
        require_device(config.device)
    if "steps" in a.given and "valid_every" not in a.given and a.config is None:
        config = dataclasses.replace(config, valid_every=max(1, config.steps // 8))
    torch.set_flush_denormal(True)  # numbers below 1e-38 slow a CPU down many times
    result = train(config, resume=a.resume, progress=not a.quiet)
    last = result.history["valid"][-1] if result.history["valid"] else None
    score = f", SI-SNR {last['si_snr_db']:.4g} dB on valid (noisy {last['noisy_si_snr_db']:.4g})" if last else ""
    print(f"{result.weights}{score}" if not result.stopped else f"stopped; resume with --resume --out {config.out}")
    return 130 if result.stopped else 0
