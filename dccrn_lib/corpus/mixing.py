"""Noisy speech on the fly: a mixture is a pure function of (seed, epoch, index).

No state travels from one mixture to the next, so resuming a run, or changing the number of workers or processes,
changes no mixture. Steps of one mixture:

    speech segment -> (speed) -> (room: early part is the target) -> (equaliser)
    + noise segments or babble at a drawn SNR -> level

Source: the DNS Challenge recipe as DCCRN used it (-5..20 dB, room responses); babble, speed and equaliser are ours.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import fftconvolve, resample_poly
from torch.utils.data import Dataset

from dccrn_lib.audio.files import write_audio
from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.decoding import SAMPLE_RATE, AudioCache
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.manifest import read_manifest
from dccrn_lib.runtime.errors import AudioError, ConfigError, ManifestError
from dccrn_lib.runtime.settings import Interval, require_intervals, shown

_SPEEDS = ((9, 10), (19, 20), (20, 19), (10, 9), (17, 20), (20, 17))  # up, down of a rational resampler
SILENT_ROOM = 10 ** (-90 / 20)  # largest sample of a room response that counts as none

_CHANCES = ("rir", "second_noise", "babble", "speed", "equaliser", "wide_level", "offset")
#: What the numbers may be, in the units of :class:`MixConfig`; 25 ms are a frame of the STFT.
_INTERVALS = {
    "segment_seconds": Interval(0.025, 600),
    "early_ms": Interval(0, 1e6),
    **dict.fromkeys(("snr_db", "level_dbfs", "wide_level_dbfs"), Interval(-200, 200)),
    "equaliser_db": Interval(0, 100),
    **dict.fromkeys(("group_power", "noise_corpus_power"), Interval(-4, 4)),
    **{f"{name}_probability": Interval(0, 1) for name in _CHANCES},
}


@dataclass(frozen=True)
class MixConfig:
    """How a mixture is drawn.

    Args:
        segment_seconds: length of a mixture in s.
        snr_db: lowest and highest signal-to-noise ratio in dB, drawn uniformly; offsets of recordings do not count.
        level_dbfs: lowest and highest RMS of the mixture in dB relative to full scale.
        rir_probability: fraction of mixtures whose speech passes a room response (0 without responses).
        early_ms: part of the room response after the direct sound that stays in the target, in ms; 0 = the direct sound
            alone.
        second_noise_probability: fraction of mixtures with two noises at a time.
        babble_probability: fraction of mixtures whose noise is several other speakers.
        speed_probability: fraction with speech played 5 to 15 % faster or slower (pitch moves along).
        equaliser_probability: fraction with a random smooth spectral tilt, drawn apart for speech and noise.
        equaliser_db: largest gain or loss of the tilt in dB.
        group_power: speakers and recordings are drawn with probability ~ (their seconds)^group_power.
        noise_corpus_power: a corpus of noise is drawn with probability ~ (its seconds)^noise_corpus_power, a recording
            within it as above; below 1 a large collection of one sort does not drown the small ones.
        wide_level_probability: fraction of mixtures whose level is drawn from ``wide_level_dbfs`` instead.
        wide_level_dbfs: lowest and highest RMS of those, in dB relative to full scale: quiet and loud recordings.
        offset_probability: fraction of mixtures whose input (not its target) carries a constant offset, as cheap converters
            add it, of at most the RMS of the mixture.
    """

    segment_seconds: float = 4.0
    snr_db: tuple[float, float] = (-5.0, 20.0)
    level_dbfs: tuple[float, float] = (-35.0, -15.0)
    rir_probability: float = 0.25
    early_ms: float = 50.0
    second_noise_probability: float = 0.25
    babble_probability: float = 0.0
    speed_probability: float = 0.0
    equaliser_probability: float = 0.0
    equaliser_db: float = 8.0
    group_power: float = 0.5
    noise_corpus_power: float = 0.5
    wide_level_probability: float = 0.0
    wide_level_dbfs: tuple[float, float] = (-60.0, -5.0)
    offset_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in ("snr_db", "level_dbfs", "wide_level_dbfs"):
            if len(getattr(self, name)) != 2:
                raise ConfigError(f"{name} must be (lowest, highest), got {shown(getattr(self, name))}")
        require_intervals(self, _INTERVALS)
        for name in ("snr_db", "level_dbfs", "wide_level_dbfs"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} must be (lowest, highest), got ({low}, {high})")


class _Groups:
    """Entries by speaker or recording, and the probability of drawing each."""

    def __init__(self, entries: Sequence[Entry], power: float, corpus_power: float | None = None) -> None:
        groups: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            groups.setdefault((entry.corpus, entry.group), []).append(entry)
        self.entries = list(groups.values())
        seconds = np.array([sum(e.seconds for e in group) for group in self.entries])
        weight = np.maximum(seconds, 0.1) ** power
        if corpus_power is not None:
            corpus = np.array([group[0].corpus for group in self.entries])
            for name in set(corpus.tolist()):
                inside = corpus == name
                weight[inside] *= seconds[inside].sum() ** corpus_power / weight[inside].sum()
        self.cumulative = np.cumsum(weight / weight.sum())

    def draw(self, rng: np.random.Generator) -> int:
        return min(int(np.searchsorted(self.cumulative, rng.random())), len(self.entries) - 1)


def power(x: np.ndarray) -> float:
    """Mean square of (sample,) without its mean: what a constant offset adds is not heard. 0 for a constant."""
    mean, variance = float(np.mean(x, dtype=np.float64)), float(np.var(x, dtype=np.float64))
    return variance if variance > 1e-12 * mean**2 else 0.0  # less is rounding


def mix_at_snr(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Scale ``noise`` so that 10 log10(|clean|^2 / |noise|^2) = ``snr_db``, the means left out of both powers.

    Args:
        clean, noise: (sample,), same length, neither silent; a constant offset is no sound.
        snr_db: in dB, over the whole segment.

    Returns:
        The scaled noise, (sample,).

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
    return noise * np.sqrt(clean_power / noise_power / 10 ** (snr_db / 10)).astype(noise.dtype)


class MixtureDataset(Dataset):
    """Mixtures of a corpus by index.

    Args:
        speech, noise, rir: entries, or the path of a manifest together with ``split``. ``rir`` may be None.
        config: how to draw.
        seed: of the whole set.
        length: mixtures per epoch.
        split: which split to read when manifests are given by path.
        cache_mb: memory for decoded files, in MiB per process.
        decoded: where all files lie decoded, instead of a cache in each process (see ``corpus.decoded``).

    Item i: {"noisy", "clean": float32 (sample,), "snr_db": float, "label": kind of noise, "speaker": str, "index": int,
    "id": str}; indices past ``length`` continue with the next epoch.

    Raises:
        ManifestError: no speech or no noise.
        AudioError: a file cannot be read (the message names it).
    """

    def __init__(
        self,
        speech: Sequence[Entry] | str | Path,
        noise: Sequence[Entry] | str | Path,
        rir: Sequence[Entry] | str | Path | None = None,
        config: MixConfig | None = None,
        seed: int = 0,
        length: int = 1000,
        split: str | None = None,
        cache_mb: float = 512,
        decoded: DecodedCorpus | None = None,
    ) -> None:
        self.config = config or MixConfig()
        self.seed, self.length, self.epoch = seed, length, 0
        lists = {}
        for kind, given in (("speech", speech), ("noise", noise), ("rir", rir)):
            if isinstance(given, (str, Path)):
                parts = [p for p in str(given).split(",") if p]
                given = [e for p in parts for e in read_manifest(p, split=split, kind=kind)]
            lists[kind] = list(given or [])
        for kind in ("speech", "noise"):
            if not lists[kind]:
                raise ManifestError(
                    f"no {kind} to mix; give a manifest with {kind} in the split {split or 'asked for'}"
                )
        c = self.config
        self.speech = _Groups(lists["speech"], c.group_power)
        self.noise = _Groups(lists["noise"], c.group_power, c.noise_corpus_power)
        self.rir = lists["rir"]
        self.samples = round(self.config.segment_seconds * SAMPLE_RATE)
        self.cache_mb = cache_mb
        self._cache: AudioCache | DecodedCorpus | None = decoded
        self.silent: Counter[str] = Counter()  # names of files -> how often they were left out in this process

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that index 0 belongs to: other mixtures of the same corpus."""
        self.epoch = epoch

    def __getstate__(self) -> dict:
        cache = self._cache if isinstance(self._cache, DecodedCorpus) else None  # a worker starts with an empty cache
        return {**self.__dict__, "_cache": cache}

    def __getitem__(self, index: int) -> dict:
        if index < 0:
            raise IndexError(index)
        if self._cache is None:
            self._cache = AudioCache(self.cache_mb)
        epoch, index = self.epoch + index // self.length, index % self.length
        rng = np.random.default_rng([self.seed, epoch, index])
        speaker, speech = self._any_speech(rng)
        if rng.random() < self.config.speed_probability:
            up, down = _SPEEDS[rng.integers(len(_SPEEDS))]
            speech = self._fit(resample_poly(speech, up, down).astype(np.float32))
        clean = reverberant = self._equalise(rng, speech)
        if self.rir and rng.random() < self.config.rir_probability:
            clean, reverberant = self._reverberate(clean, self.rir[rng.integers(len(self.rir))])
        noise, label = self._noise(rng, speaker)
        snr = float(rng.uniform(*self.config.snr_db))
        noise = mix_at_snr(reverberant, noise, snr)
        noisy = reverberant + noise
        wide = self.config.wide_level_probability > 0 and rng.random() < self.config.wide_level_probability
        level = 10 ** (rng.uniform(*(self.config.wide_level_dbfs if wide else self.config.level_dbfs)) / 20)
        if self.config.offset_probability > 0 and rng.random() < self.config.offset_probability:
            noisy = noisy + np.float32(rng.uniform(-1, 1) * np.sqrt(np.mean(noisy**2)))
        scale = min(level / np.sqrt(np.mean(noisy**2)), 0.99 / max(np.abs(noisy).max(), np.abs(clean).max()))
        return {
            "noisy": torch.from_numpy((noisy * scale).astype(np.float32)),
            "clean": torch.from_numpy((clean * scale).astype(np.float32)),
            "snr_db": snr,
            "label": label,
            "speaker": self.speech.entries[speaker][0].group,
            "index": index,
            "id": f"s{self.seed}_e{epoch}_i{index:05d}",
        }

    def _fit(self, x: np.ndarray) -> np.ndarray:
        """Cut or zero-pad at the end to the segment length."""
        return np.pad(x[: self.samples], (0, max(0, self.samples - len(x))))

    def _skip(self, entries: Sequence[Entry], what: str) -> None:
        """Count what is left out because it is silent, and say so at the 1st, 10th, 100th ... time."""
        name = ", ".join(sorted({e.path for e in entries})[:3]) + (" ..." if len(entries) > 3 else "")
        self.silent[name] += 1
        times = self.silent[name]
        if times in (1, 10, 100, 1000, 10000):
            warnings.warn(
                f"{name}: {what} is silent, left out ({times} times in this process); scan the corpus again",
                RuntimeWarning,
                stacklevel=2,
            )

    def _any_speech(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """A speaker and a segment; a speaker of whom nothing is heard is left out, and another one drawn."""
        for _ in range(20):
            speaker = self.speech.draw(rng)
            speech = self._speech(rng, speaker)
            if speech is not None:
                return speaker, speech
        names = "; ".join(sorted(self.silent)[:3])
        raise AudioError(f"20 speakers in a row are silent ({names}); scan the corpus again, silence is left out there")

    def _speech(self, rng: np.random.Generator, speaker: int) -> np.ndarray | None:
        """A segment of one speaker; short utterances are joined with pauses of 0.1 to 0.4 s. None: 20 are silent."""
        group = self.speech.entries[speaker]
        for _ in range(20):
            pieces, have = [], 0
            while have < self.samples:
                piece = self._piece(rng, group[rng.integers(len(group))])
                pause = np.zeros(int(rng.uniform(0.1, 0.4) * SAMPLE_RATE), np.float32)
                pieces += [piece, pause]
                have += len(piece) + len(pause)
            x = self._fit(np.concatenate(pieces))
            if power(x) > 1e-8:
                return x
        self._skip(group, f"speech of {group[0].group}")
        return None

    def _piece(self, rng: np.random.Generator, entry: Entry) -> np.ndarray:
        """A random cut of at most one segment out of a file."""
        start = rng.uniform(0, max(entry.seconds - self.config.segment_seconds, 0))
        assert self._cache is not None  # ``__getitem__`` made it
        return self._cache.read(entry, start, self.config.segment_seconds)

    def _noise(self, rng: np.random.Generator, speaker: int) -> tuple[np.ndarray, str]:
        """One or two recordings, or babble; and what to call it."""
        if len(self.speech.entries) > 3 and rng.random() < self.config.babble_probability:
            others = [i for i in rng.permutation(len(self.speech.entries)) if i != speaker][: rng.integers(3, 8)]
            voices = [v for v in (self._speech(rng, int(i)) for i in others) if v is not None]
            if voices:
                babble: Any = sum(v / np.float32(np.sqrt(power(v))) for v in voices)
                return babble, "babble"
        noise, label = self._one_noise(rng)
        if rng.random() < self.config.second_noise_probability:
            second, other = self._one_noise(rng)
            noise = noise + mix_at_snr(noise, second, float(rng.uniform(0, 10)))
            label = label if label == other else f"{label}+{other}"
        return noise, label

    def _one_noise(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """A segment of one recording; short ones repeat with pauses of up to half their length."""
        for _ in range(20):
            group = self.noise.entries[self.noise.draw(rng)]
            pieces, have = [], 0
            while have < self.samples:
                entry = group[rng.integers(len(group))]
                piece = self._piece(rng, entry)
                pause = np.zeros(int(rng.uniform(0, 0.5) * len(piece)) if len(piece) < self.samples else 0, np.float32)
                pieces += [piece, pause]
                have += max(len(piece) + len(pause), 1)
            x = np.concatenate(pieces)
            first = int(rng.integers(0, max(len(x) - self.samples, 0) + 1))
            x = self._equalise(rng, self._fit(x[first:]))
            if power(x) > 1e-9:
                return x, entry.label or entry.corpus
            self._skip(group, "a segment of this noise")
        names = "; ".join(sorted(self.silent)[:3])
        raise AudioError(f"20 noise segments in a row are silent ({names}); scan the noise corpus again")

    def _equalise(self, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        """Random smooth gain over frequency: values at octave points, linear in between, in dB."""
        if rng.random() >= self.config.equaliser_probability:
            return x
        octaves = np.log2(np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE).clip(30) / 30)  # 0 .. 8
        points = np.linspace(0, octaves[-1], 6)
        gain_db = np.interp(octaves, points, rng.uniform(-1, 1, 6) * self.config.equaliser_db)
        return np.fft.irfft(np.fft.rfft(x) * 10 ** (gain_db / 20), n=len(x)).astype(np.float32)

    def _reverberate(self, x: np.ndarray, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
        """(target with the early part of the room, speech with the whole room), both in time with the direct sound."""
        assert self._cache is not None  # ``__getitem__`` made it
        rir = self._cache.read(entry, 0.0, entry.seconds + 1)
        if rir.size == 0 or np.abs(rir).max() < SILENT_ROOM:
            self._skip([entry], "this room response")
            return x, x
        peak = int(np.abs(rir).argmax())
        early = rir[: peak + max(1, round(self.config.early_ms / 1000 * SAMPLE_RATE))]
        whole = fftconvolve(x, rir)[peak : peak + len(x)].astype(np.float32)
        target = fftconvolve(x, early)[peak : peak + len(x)].astype(np.float32)
        scale = np.sqrt(np.mean(x**2) / max(np.mean(target**2), 1e-12))
        return target * scale, whole * scale


def write_pairs(dataset: MixtureDataset, folder: str | Path, count: int | None = None) -> Path:
    """Write the first mixtures of a set as ``clean/<id>.wav`` and ``noisy/<id>.wav`` (32-bit float).

    Args:
        dataset: the set.
        folder: where; the two folders are made in it.
        count: how many; all of one epoch by default.

    Returns:
        The folder, ready for ``python -m dccrn_lib evaluate --clean ... --noisy ...``.
    """
    folder = Path(folder)
    for i in range(len(dataset) if count is None else count):
        item = dataset[i]
        for part in ("clean", "noisy"):
            write_audio(folder / part / f"{item['id']}.wav", item[part].numpy()[None], SAMPLE_RATE, subtype="FLOAT")
    return folder
