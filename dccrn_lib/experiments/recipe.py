"""What the experiments train and compare when nothing else is said: settings and names, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dccrn_lib.corpus.mix_config import MixConfig
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.training.config import TrainConfig

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
