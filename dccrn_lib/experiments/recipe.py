"""What the experiments train and compare when nothing else is said: settings and names, read without torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dccrn_lib.corpus.mix_config import MixConfig
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.runtime.paths import joined_paths
from dccrn_lib.runtime.settings import LARGEST_COUNT, Interval, require_intervals
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.profiles import get_profile

#: How training mixtures are drawn. A tenth of them is quiet or loud far beyond what recordings usually are.
MIX = MixConfig(
    segment_seconds=2.0, snr_db=(-5.0, 20.0), level_dbfs=(-35.0, -15.0), rir_probability=0.15,
    babble_probability=0.06, speed_probability=0.4, equaliser_probability=0.5,
    wide_level_probability=0.1, offset_probability=0.05,
)  # fmt: skip

#: The three ways to train the student, by the name of the weights they give.
STUDENTS = {
    "distil_dccrn_alone": {"method": "none"},
    "distil_dccrn_output": {"method": "output"},
    "distil_dccrn_at_kl": {"method": "at_kl", "reading": "frequency", "normalisation": "softmax"},
}

#: What is trained once the teacher is there: the baseline, then the students.
SYSTEMS = ("dccrn_e", *STUDENTS)

#: The ways of teaching that are compared, by name.
WAYS: dict[str, dict[str, str]] = {
    "output": {"method": "output"},
    "at_kl_softmax": {"method": "at_kl", "normalisation": "softmax"},
    "at_kl_sum": {"method": "at_kl", "normalisation": "sum"},
}

#: Methods that are compared: AT-KL in both readings and normalisations, its centred form, and the rest.
DEFAULT_METHODS = (
    "none",
    "output",
    "at_kl",
    "at_kl:frequency:softmax",
    "at_kl:time_frequency",
    "at_kl:time_frequency:softmax",
    "at_kl_centred",
    "at",
    "kl",
    "fitnets",
    "self_similarity",
)

#: Does teaching help a miniature student: a short training, and a teacher whose weights ship with the project.
TEACHING = {"steps": 150, "valid_mixtures": 64}
TAUGHT = {"method": "at_kl", "normalisation": "softmax", "teacher": "uformer", "feature_share": 0.5}

#: Splits on which weights are scored.
SPLITS = ("test", "valid")

#: Of a campaign: as published, or miniatures for tests.
SIZES = ("full", "smoke")


def recipe(corpus: Mapping[str, str], out: str | Path, size: str = "full", **changes) -> TrainConfig:
    """The config that all systems share.

    Args:
        corpus: {"speech", "noise", "rir"}: manifests; rir may be "".
        out: folder of the campaign.
        size: "full", or "smoke" for miniature networks and batches: seconds, nothing is learnt.
        changes: fields of TrainConfig to set otherwise.
    """
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}; {nearest_name(size, list(SIZES))}")
    settings = {
        "out": str(out), **corpus, "optimiser": "muon", "muon_learning_rate": 0.01, "learning_rate": 2e-3,
        "spectral_weight": 100.0, "level_weight": 1.0, "ema_decay": 0.999, "warmup_steps": 200, "decay_fraction": 0.7,
        "batch_size": 16, "amp": True, "device": "auto", "workers": 14, "epoch_mixtures": 100_000,
        "valid_mixtures": 200, "checkpoint_minutes": 2.0, "mix": MIX,
    }  # fmt: skip
    if size == "smoke":
        settings |= {
            "batch_size": 2, "workers": 0, "valid_mixtures": 4, "warmup_steps": 2, "ema_decay": 0.9, "amp": False,
            "mix": replace(MIX, segment_seconds=0.5),
        }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


def taught_student(profile: str) -> TrainConfig:
    """The taught miniature student of ``experiment teaching``, without folder and corpus.

    Args:
        profile: sizes; the steps are the experiment's, or the profile's where those are fewer.
    """
    sizes = get_profile(profile)
    steps = min(TEACHING["steps"], sizes.student_steps)
    settings = sizes.settings(steps=steps) | {
        **TAUGHT,
        "valid_mixtures": min(TEACHING["valid_mixtures"], 8 * steps),
        "valid_every": steps,  # the weights after the last step count: nothing is picked by validating in between
    }
    return TrainConfig(out="", speech="", noise="", **settings)


def student_on_data(steps: int) -> TrainConfig:
    """The miniature student of ``experiment training-data``, mixed as for the shipped weights; no folder, no corpus."""
    cpu, quick = get_profile("cpu"), get_profile("quick")
    settings = quick.settings(steps=steps) | {
        "batch_size": cpu.batch_size,
        "spectral_weight": cpu.spectral_weight,
        "valid_every": steps,
        "valid_mixtures": 8,
        "mix": cpu.mix(cpu.segment_seconds),
    }
    return TrainConfig(out="", speech="", noise="", **settings)


_PART_INTERVALS = {
    **dict.fromkeys(("steps", "batch_size", "tests"), Interval(1, LARGEST_COUNT)),
    **dict.fromkeys(("learning_rate", "clip"), Interval(0, 1e9, above=True)),
}


@dataclass(frozen=True)
class PartRecipe:
    """How the variants of the teacher are trained and judged in ``experiment uformer-parts``.

    Args:
        steps: optimiser steps.
        batch_size: mixtures per step.
        learning_rate: of Adam; it falls to a tenth over the second half of the steps.
        clip: largest gradient norm.
        tests: test mixtures that judge.
        mix: how training mixtures are drawn.

    Raises:
        ConfigError: a number out of range.
    """

    steps: int = 150
    batch_size: int = 4
    learning_rate: float = 4e-3
    clip: float = 5.0
    tests: int = 32
    mix: MixConfig = MixConfig(segment_seconds=1.0)

    def __post_init__(self) -> None:
        require_intervals(self, _PART_INTERVALS)


def part_recipe(profile: str) -> PartRecipe:
    """The recipe with the learning rate and the SNR of a profile."""
    sizes = get_profile(profile)
    return PartRecipe(learning_rate=sizes.learning_rate, mix=MixConfig(segment_seconds=1.0, snr_db=sizes.snr_db))


def as_options(fields: Mapping[str, Any]) -> list[str]:
    """Fields as the command line takes them.

    >>> as_options({"steps": 2, "amp": True, "mix.snr_db": (-5.0, 5.0)})
    ['--steps=2', '--amp=true', '--mix.snr_db=-5.0,5.0']
    """
    options = []
    for name, value in fields.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        options.append(f"--{name}={text.lower() if isinstance(value, bool) else text}")
    return options


def called(experiment: str, words: Sequence[str], name: str) -> str:
    """The command of an experiment that wrote the result of that name.

    >>> called("claim", ["1.70=equal_hours_test"], "mine")
    'python -m dccrn_lib experiment claim 1.70=equal_hours_test --name=mine'
    """
    return shlex.join(["python", "-m", "dccrn_lib", "experiment", experiment, *words, f"--name={name}"])


def manifest_options(manifests: Mapping[str, str]) -> list[str]:
    """Manifests as the command line takes them, by their file names; kinds without one are left out.

    >>> manifest_options({"speech": "/data/a.jsonl,/data/b.jsonl", "rir": ""})
    ['--speech=a.jsonl,b.jsonl']
    """
    names = {kind: ",".join(Path(path).name for path in joined_paths(text)) for kind, text in manifests.items()}
    return [f"--{kind}={text}" for kind, text in names.items() if text]


def portable(path: str) -> str:
    """A relative path or shipped name as it is; of an absolute path the last two parts."""
    return Path(*Path(path).parts[-2:]).as_posix() if Path(path).is_absolute() else path
