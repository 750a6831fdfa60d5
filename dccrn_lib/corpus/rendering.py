"""From a plan to its mixture, one at a time, in NumPy.

    speech segment -> (speed) -> (equaliser) -> (room: early part is the target)
    + noise segments or babble at the planned SNR -> (offset) -> level

``batch_rendering`` computes the same for a batch on any device; a test holds the two together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.signal import fftconvolve, resample_poly

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.plan import EQUALISER_POINTS, MixturePlan, Sound
from dccrn_lib.corpus.recordings import Recordings, as_float
from dccrn_lib.runtime.errors import ConfigError

HIGHEST_PEAK = 0.99  # of full scale


def power(x: np.ndarray) -> float:
    """Mean square of (sample,) without its mean: what a constant offset adds is not heard. 0 for a constant."""
    mean, variance = float(np.mean(x, dtype=np.float64)), float(np.var(x, dtype=np.float64))
    return variance if variance > 1e-12 * mean**2 else 0.0  # less is rounding


def mix_at_snr(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Scale ``noise`` so that 10 log10(|clean|^2 / |noise|^2) = ``snr_db``, the means left out of both powers.

    Args:
        clean, noise: (sample,), same length, neither silent; a constant offset is no sound. Floats or integers.
        snr_db: in dB, over the whole segment.

    Returns:
        The scaled noise, (sample,), in the type of ``noise``; float64 for integers.

    Raises:
        ConfigError: one of them is silent, so no ratio exists.

    >>> tone = np.sin(np.arange(8) * np.pi / 4)
    >>> noise = mix_at_snr(tone + 0.5, 5 * tone, 20.0)
    >>> round(float(noise[2]), 3)
    0.1
    """
    clean_power, noise_power = power(clean), power(noise)
    if clean_power <= 0 or noise_power <= 0:
        raise ConfigError("cannot set an SNR: the clean speech or the noise is silent")
    factor = np.sqrt(clean_power / noise_power / 10 ** (snr_db / 10))
    # among integers it would be cut to one
    return noise * (factor.astype(noise.dtype) if noise.dtype.kind == "f" else factor)


def render(plan: MixturePlan, recordings: Recordings) -> tuple[np.ndarray, np.ndarray]:
    """The mixture of a plan.

    Args:
        plan: of :class:`dccrn_lib.corpus.planning.Planner`.
        recordings: those that it was drawn from.

    Returns:
        (noisy, clean), each float32 (sample,).

    Raises:
        AudioError: a file cannot be read (the message names it).
    """
    clean = reverberant = _speech(plan, recordings)
    if plan.room is not None:
        clean, reverberant = _reverberate(clean, recordings.room(plan.room), plan.early)
    noise = mix_at_snr(reverberant, _noise(plan, recordings), plan.snr_db)
    noisy = reverberant + noise
    if plan.offset is not None:
        noisy = noisy + np.float32(plan.offset * np.sqrt(np.mean(noisy**2)))
    level = 10 ** (plan.level_dbfs / 20)
    scale = min(level / np.sqrt(np.mean(noisy**2)), HIGHEST_PEAK / max(np.abs(noisy).max(), np.abs(clean).max()))
    return (noisy * scale).astype(np.float32), (clean * scale).astype(np.float32)


def segment(sound: Sound, seconds: float, recordings: Recordings) -> np.ndarray:
    """The pieces of a sound in their places and zeros between them, then the equaliser: float32 (sample,)."""
    x = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for cut in sound.cuts:
        first, last = max(cut.at, 0), min(cut.at + cut.samples, len(x))
        samples, scale = recordings.view(cut.recording, cut.start, seconds)
        x[first:last] = as_float(samples[first - cut.at : last - cut.at], scale)
    return x if sound.equaliser_db is None else equalise(x, sound.equaliser_db)


def _speech(plan: MixturePlan, recordings: Recordings) -> np.ndarray:
    """The voice with its speed changed, cut or zero-padded to the segment, then equalised."""
    if plan.speed is None:
        return segment(plan.speech, plan.seconds, recordings)
    x = segment(Sound(plan.speech.cuts), plan.seconds, recordings)
    x = resample_poly(x, *plan.speed).astype(np.float32)[: plan.samples]
    x = np.pad(x, (0, plan.samples - len(x)))
    return x if plan.speech.equaliser_db is None else equalise(x, plan.speech.equaliser_db)


def _noise(plan: MixturePlan, recordings: Recordings) -> np.ndarray:
    """One noise, two of them, or a babble of voices."""
    noises = [segment(sound, plan.seconds, recordings) for sound in plan.noises]
    if plan.babble:
        babble: Any = sum(v / np.float32(np.sqrt(power(v))) for v in noises)
        return babble
    if plan.second_snr_db is None:
        return noises[0]
    return noises[0] + mix_at_snr(noises[0], noises[1], plan.second_snr_db)


def equalise(x: np.ndarray, points_db: tuple[float, ...]) -> np.ndarray:
    """Smooth gain over frequency: values in dB at octave points, linear in between: float32 (sample,) -> same."""
    octaves, points = octaves_of(len(x))
    gain_db = np.interp(octaves, points, points_db)
    return np.fft.irfft(np.fft.rfft(x) * 10 ** (gain_db / 20), n=len(x)).astype(np.float32)


@lru_cache(maxsize=8)
def octaves_of(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Octaves above 30 Hz of every bin of a spectrum, (freq,), and where the points of an equaliser lie, (point,)."""
    octaves = np.log2(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE).clip(30) / 30)  # 0 .. 8
    return octaves, np.linspace(0, octaves[-1], EQUALISER_POINTS)


def _reverberate(x: np.ndarray, rir: np.ndarray, early_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """(target with the early part of the room, speech with the whole room), both in time with the direct sound."""
    peak = int(np.abs(rir).argmax())
    early = rir[: peak + early_samples]
    whole = fftconvolve(x, rir)[peak : peak + len(x)].astype(np.float32)
    target = fftconvolve(x, early)[peak : peak + len(x)].astype(np.float32)
    scale = np.sqrt(np.mean(x**2) / max(np.mean(target**2), 1e-12))
    return target * scale, whole * scale
