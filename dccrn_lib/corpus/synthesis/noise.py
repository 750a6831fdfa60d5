"""Generated noise as finished recordings.

A kind of noise (``noise_kinds``) gets what all recordings share: a faint background, for some the echo of a
room, the colour of a microphone, and a level. "babble" is made of the speech of its own split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soundfile

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.synthesis.noise_kinds import NOISE_KINDS, coloured
from dccrn_lib.corpus.synthesis.signals import random_equaliser, random_room, set_level, unit, write_wav

LABELS = (*NOISE_KINDS, "babble")


@dataclass(frozen=True)
class NoiseTask:
    """Work order for one file of noise; ``speech`` names the files that babble is made of."""

    label: str
    seconds: float
    path: str
    seed: tuple[int, ...]
    speech: tuple[str, ...] = ()


def make_noise(label: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A finished recording of one kind: float32 (sample,) at 16 kHz, RMS -32 to -20 dB re full scale."""
    n = int(round(seconds * SAMPLE_RATE))
    return _finish(NOISE_KINDS[label](n, rng), rng)


def make_babble(speech: list[np.ndarray], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Many people at once: the recordings (sample,) given, each repeated as needed; float32 (sample,)."""
    n = int(round(seconds * SAMPLE_RATE))
    x = np.zeros(n)
    for voice in speech:
        repeated = np.resize(voice, n) if len(voice) < n else voice[:n]
        x += rng.uniform(0.3, 1.0) * unit(np.roll(repeated, rng.integers(n)))
    return _finish(random_room(x, rng), rng)


def write_noise(task: NoiseTask) -> tuple[str, float]:
    """Carry out one work order: (path, seconds)."""
    rng = np.random.default_rng(task.seed)
    if task.label == "babble":
        audio = make_babble([soundfile.read(path)[0] for path in task.speech], task.seconds, rng)
    else:
        audio = make_noise(task.label, task.seconds, rng)
    write_wav(task.path, audio)
    return task.path, len(audio) / SAMPLE_RATE


def _finish(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rare peaks rounded as a recorder would, background, room, microphone, level."""
    x = 12 * np.tanh(unit(x) / 12)
    x = unit(x) + 10 ** (rng.uniform(-45, -25) / 20) * coloured(len(x), rng)
    if rng.random() < 0.4:
        x = random_room(x, rng)
    return set_level(random_equaliser(x, rng, depth_db=4.0), rng.uniform(-32.0, -20.0))
