"""Four sizes of the same experiment: the code is one, the numbers differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dccrn_lib.corpus.mix_config import MixConfig
from dccrn_lib.networks.presets import preset
from dccrn_lib.runtime.errors import ConfigError, nearest_name

#: Fields of ``TrainConfig`` that follow the number of steps, see :meth:`Profile.settings`.
FOLLOW_STEPS = ("warmup_steps", "valid_every")


@dataclass(frozen=True)
class Profile:
    """How large a run is.

    Args:
        name: "smoke", "quick", "cpu" or "gpu".
        purpose: what it is for, with its time.
        teacher, student: presets.
        corpus_hours: hours of generated speech made when no manifests are given.
        segment_seconds: length of a training mixture in s.
        batch_size: mixtures per step.
        teacher_steps, student_steps: optimiser steps.
        learning_rate: of Adam.
        snr_db: lowest and highest SNR of the mixtures in dB.
        test_mixtures, test_seconds: number and length of the test mixtures.
        valid_mixtures: number of the valid mixtures.
        amp: bfloat16 autocast.
        device: "cpu" or "auto".
        workers: data loader processes that mix.
        spectral_weight: of the compressed spectral loss beside SI-SNR.
        ema_decay: of the averaged weights.
        decay_fraction: last fraction of the steps in which the learning rate falls.
        level_dbfs: lowest and highest level of the mixtures in dB relative to full scale.
        rir_probability: fraction of mixtures in a room.
        speed_probability, equaliser_probability: fractions of training mixtures that are augmented so.
        babble_probability: fraction of training mixtures whose noise is other speakers of the corpus.
    """

    name: str
    purpose: str
    teacher: str
    student: str
    corpus_hours: float
    segment_seconds: float
    batch_size: int
    teacher_steps: int
    student_steps: int
    learning_rate: float
    snr_db: tuple[float, float]
    test_mixtures: int
    test_seconds: float
    valid_mixtures: int
    amp: bool = False
    device: str = "cpu"
    workers: int = 0
    spectral_weight: float = 0.0
    ema_decay: float = 0.0
    decay_fraction: float = 0.3
    level_dbfs: tuple[float, float] = (-35.0, -15.0)
    rir_probability: float = 0.25
    speed_probability: float = 0.3
    equaliser_probability: float = 0.4
    babble_probability: float = 0.0

    def mix(self, seconds: float, training: bool = True) -> MixConfig:
        """How mixtures of this profile are drawn, at a length in s; test mixtures are not augmented."""
        return MixConfig(
            segment_seconds=seconds, snr_db=self.snr_db, level_dbfs=self.level_dbfs,
            rir_probability=self.rir_probability,
            speed_probability=self.speed_probability if training else 0.0,
            equaliser_probability=self.equaliser_probability if training else 0.0,
            babble_probability=self.babble_probability if training else 0.0,
        )  # fmt: skip

    def settings(self, model: str = "", steps: int | None = None) -> dict[str, Any]:
        """The fields of ``TrainConfig`` that this profile decides.

        Args:
            model: preset that will be trained, the student when empty: the teacher's family makes the teacher's steps.
            steps: length of the training in optimiser steps; the profile's when None. Warm-up (a tenth, at most 100
                steps) and validations (at most eight) follow it; a teacher of the profile's length has the student's.

        Raises:
            ConfigError: no such preset.
        """
        model = model or self.student
        length = self.student_steps if steps is None else steps
        like_teacher = preset(model).family == preset(self.teacher).family
        return {
            "model": model,
            "steps": steps or (self.teacher_steps if like_teacher else self.student_steps),
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "warmup_steps": min(100, length // 10),
            "decay_fraction": self.decay_fraction,
            "amp": self.amp,
            "device": self.device,
            "workers": self.workers,
            "spectral_weight": self.spectral_weight,
            "ema_decay": self.ema_decay,
            "valid_every": -(-length // 8),  # at most eight points on the curve
            "valid_mixtures": self.valid_mixtures,
            "mix": self.mix(self.segment_seconds),
        }


PROFILES = {
    "smoke": Profile(
        "smoke", "seconds a notebook, for tests: nothing is learnt", "uformer_mini", "distil_dccrn_mini",
        corpus_hours=0.05, segment_seconds=1.0, batch_size=2, teacher_steps=4, student_steps=4, learning_rate=3e-3,
        snr_db=(0, 10), test_mixtures=4, test_seconds=2.0, valid_mixtures=2,
    ),
    "quick": Profile(
        "quick", "the default: minutes on 2 CPU cores, mini models on generated speech", "uformer_mini",
        "distil_dccrn_mini", corpus_hours=1.0, segment_seconds=1.0, batch_size=4, teacher_steps=900,
        student_steps=1600, learning_rate=6e-3, snr_db=(-5, 12), test_mixtures=80, test_seconds=4.0, valid_mixtures=24,
        spectral_weight=50.0, ema_decay=0.98, decay_fraction=0.6, level_dbfs=(-28, -22), rir_probability=0.0,
        equaliser_probability=0.6,
    ),
    "cpu": Profile(
        "cpu", "a real student in a night on a laptop: 15 h of audio for the teacher, 30 h for the student", "uformer",
        "distil_dccrn", corpus_hours=5.0, segment_seconds=2.0, batch_size=4, teacher_steps=6750, student_steps=13500,
        learning_rate=2e-3, snr_db=(-5, 20), test_mixtures=100, test_seconds=6.0, valid_mixtures=40, amp=True,
        spectral_weight=100.0, ema_decay=0.999, decay_fraction=0.7, rir_probability=0.15, speed_probability=0.4,
        equaliser_probability=0.5, babble_probability=0.06,
    ),
    "gpu": Profile(
        "gpu", "the full models on all of your data, on a GPU", "uformer", "distil_dccrn", corpus_hours=20.0,
        segment_seconds=4.0, batch_size=32, teacher_steps=60000, student_steps=60000, learning_rate=1e-3,
        snr_db=(-5, 20), test_mixtures=200, test_seconds=8.0, valid_mixtures=100, amp=True, device="auto", workers=8,
        spectral_weight=100.0, ema_decay=0.9995,
    ),
}  # fmt: skip


def get_profile(name: str) -> Profile:
    """The profile of that name; ConfigError names the nearest one."""
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}; {nearest_name(name, list(PROFILES))}")
    return PROFILES[name]
