"""A whole corpus without a network: generated speech, noise and rooms with their three manifests.

The same ``hours`` and ``seed`` give the same samples whatever the number of worker processes, because every
voice and every file draws from a seed of its own. Speakers, sentences and noise seeds are disjoint between
train, valid and test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.entry import SPLITS, Entry
from dccrn_lib.corpus.manifest import write_manifest
from dccrn_lib.corpus.synthesis.noise import LABELS, NoiseTask, write_noise
from dccrn_lib.corpus.synthesis.rooms import RoomTask, require_acoustics, write_room
from dccrn_lib.corpus.synthesis.speech import VoiceTask, load_sentences, make_voices, require_espeak, speak_voice
from dccrn_lib.runtime import paths
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import atomic_folder, write_json
from dccrn_lib.runtime.json_text import parse_object
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.workers import usable_cores, worker_pool

GENERATOR_VERSION = 3
_FRACTIONS = {"train": 0.84, "valid": 0.08, "test": 0.08}
NOISE_PER_SPEECH = 1.0
_LICENCE = "CC0-1.0 (generated)"
_CORPUS = "generated"


@dataclass(frozen=True)
class CorpusPaths:
    """A corpus on disk: its folder and its three manifests."""

    root: Path
    speech: Path
    noise: Path
    rir: Path

    @classmethod
    def of(cls, root: PathLike) -> CorpusPaths:
        """The manifests by their usual names in ``root``."""
        root = Path(root)
        return cls(root, root / "speech.jsonl", root / "noise.jsonl", root / "rir.jsonl")

    @property
    def complete(self) -> bool:
        """Whether all three manifests exist."""
        return all(path.is_file() for path in (self.speech, self.noise, self.rir))


def synthesise_corpus(
    out: PathLike, hours: float = 1.0, seed: int = 0, workers: int | None = None, progress: bool = True
) -> CorpusPaths:
    """Generate a corpus, or return it at once if the folder already holds the one asked for.

    Args:
        out: folder to make. It appears complete or not at all.
        hours: speech in h over all splits (84 % train, 8 % valid, 8 % test); noise is as much again. The
            smallest corpora hold somewhat more, since every split has 6 voices and every kind of noise.
        seed: any integer >= 0.
        workers: processes; default one for each usable core. 1 works in this process.
        progress: show a bar.

    Returns:
        CorpusPaths.

    Raises:
        ConfigError: hours or seed out of range; the folder holds something else; eSpeak NG or pyroomacoustics
            is not installed.
    """
    if not (isinstance(hours, (int, float)) and math.isfinite(hours) and 0 < hours <= 1000):
        raise ConfigError(f"hours must lie in (0, 1000], got {hours!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be an integer of at least 0, got {seed!r}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers!r}")
    out = Path(out)
    config = {"generator_version": GENERATOR_VERSION, "hours": float(hours), "seed": seed}
    if _already_there(out, config):
        return CorpusPaths.of(out)
    require_espeak()
    require_acoustics()
    load_sentences()
    with atomic_folder(out, first_wins=True) as partial:
        _generate(partial, hours, seed, workers or usable_cores(), progress)
        record = {"config": config, "share": _FRACTIONS, "licence": _LICENCE, "made_with": _versions()}
        write_json(partial / "corpus.json", record)
    if not _already_there(out, config):
        raise ConfigError(f"{out}: another process wrote a different corpus here; choose another folder")
    return CorpusPaths.of(out)


def plan_voices(root: Path, hours: float, seed: int) -> list[VoiceTask]:
    """Work orders for the speech: about 25 s a voice in train, at least 6 voices a split."""
    tasks = []
    for which, split in enumerate(SPLITS):
        seconds = 3600 * hours * _FRACTIONS[split]
        count = int(np.clip(round(seconds / 25), 12, 1200) if split == "train" else np.clip(round(seconds / 20), 6, 80))
        for index, voice in enumerate(make_voices(split, count, seed)):
            folder = str(root / "speech" / split / voice.name)
            tasks.append(VoiceTask(voice, split, seconds / count, folder, (seed, 2, which, index)))
    return tasks


def plan_noises(root: Path, hours: float, seed: int, speech: dict[str, list[Entry]] | None) -> list[NoiseTask]:
    """Work orders for the noise: all kinds but babble, or babble alone where ``speech`` is given by split."""
    tasks = []
    for which, split in enumerate(SPLITS):
        seconds = 3600 * hours * _FRACTIONS[split] * NOISE_PER_SPEECH / len(LABELS)
        count = max(2, round(seconds / 4))  # many short recordings rather than few long ones
        length = round(float(np.clip(seconds / count, 4.0, 12.0)), 1)
        for kind, label in enumerate(LABELS):
            if (label == "babble") != (speech is not None):
                continue
            for index in range(count):
                path = str(root / "noise" / split / f"{label}-{index:04d}.wav")
                sources: tuple[str, ...] = ()
                if speech is not None:
                    sources = _pick_speakers(speech[split], np.random.default_rng([seed, 4, which, index]))
                tasks.append(NoiseTask(label, length, path, (seed, 3, which, kind, index), sources))
    return tasks


def plan_rooms(root: Path, hours: float, seed: int) -> list[RoomTask]:
    """Work orders for the room responses: 60 + 8 + 8 at an hour, at least 8 + 4 + 4."""
    counts = {
        "train": int(np.clip(round(60 * hours), 8, 1000)),
        "valid": int(np.clip(round(8 * hours), 4, 50)),
        "test": int(np.clip(round(8 * hours), 4, 50)),
    }
    return [
        RoomTask(str(root / "rir" / split / f"room-{index:04d}.wav"), (seed, 5, which, index))
        for which, split in enumerate(SPLITS)
        for index in range(counts[split])
    ]


def _generate(root: Path, hours: float, seed: int, workers: int, progress: bool) -> None:
    """Write all audio and the manifests of a corpus into ``root``."""
    voices, rooms = plan_voices(root, hours, seed), plan_rooms(root, hours, seed)
    noises = plan_noises(root, hours, seed, speech=None)
    babble_count = len(noises) // (len(LABELS) - 1)
    total = len(voices) + len(rooms) + len(noises) + babble_count
    with worker_pool(workers) as run, tqdm(total=total, desc="corpus", unit="task", disable=not progress) as bar:
        speech: list[Entry] = []
        for task, files in zip(voices, run(speak_voice, voices, bar), strict=True):
            for path, seconds in files:
                common = {"speaker": task.voice.name, "language": task.voice.language}
                speech.append(_entry(path, "speech", seconds, task.split, **common))
        by_split = {split: [entry for entry in speech if entry.split == split] for split in SPLITS}
        noises += plan_noises(root, hours, seed, by_split)
        noise = [
            _entry(path, "noise", seconds, Path(path).parent.name, recording=Path(path).stem, label=task.label)
            for task, (path, seconds) in zip(noises, run(write_noise, noises, bar), strict=True)
        ]
        rir = [
            _entry(path, "rir", seconds, Path(path).parent.name, recording=Path(path).stem)
            for path, seconds in run(write_room, rooms, bar)
        ]
    paths = CorpusPaths.of(root)
    write_manifest(paths.speech, speech)
    write_manifest(paths.noise, noise)
    write_manifest(paths.rir, rir)


def _entry(path: str, kind: str, seconds: float, split: str, **names: Any) -> Entry:
    """Manifest entry of a generated file; a recording's name carries its split."""
    if "recording" in names:
        names["recording"] = f"{split}-{names['recording']}"
    return Entry(path, kind, _CORPUS, round(seconds, 4), SAMPLE_RATE, split, _LICENCE, **names)


def _pick_speakers(entries: list[Entry], rng: np.random.Generator) -> tuple[str, ...]:
    """Files of 4 to 9 different speakers, fewer where there are fewer."""
    # generated speech always names its speaker
    speakers = sorted({entry.speaker for entry in entries})  # pyright: ignore[reportArgumentType]
    chosen = rng.permutation(speakers)[: rng.integers(4, 10)]
    files = {name: [entry.path for entry in entries if entry.speaker == name] for name in chosen}
    return tuple(str(rng.choice(files[name])) for name in chosen)


def _already_there(out: Path, config: dict) -> bool:
    """Whether ``out`` holds the corpus of this configuration; ConfigError if it holds anything else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise ConfigError(f"{out}: is a file, not a folder; choose another folder for the corpus")
    record = out / "corpus.json"
    if not record.is_file():
        if any(out.iterdir()):
            raise ConfigError(f"{out}: holds something that is not a generated corpus; choose another folder")
        return False
    try:
        former = dict(parse_object(record.read_text(encoding="utf-8"))["config"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{record}: cannot be read; delete the folder {out} to make the corpus again") from None
    if former != config:
        changed = ", ".join(f"{k} {former.get(k)} instead of {v}" for k, v in config.items() if former.get(k) != v)
        raise ConfigError(f"{out}: holds another corpus ({changed}); choose another folder or delete this one")
    if not CorpusPaths.of(out).complete:
        raise ConfigError(f"{out}: manifests are missing; delete the folder to make the corpus again")
    return True


def _versions() -> dict[str, str]:
    """Versions of what shapes the audio."""
    return {name: version(name) for name in ("espeakng-loader", "pyroomacoustics", "numpy", "scipy")}


def generated_corpus(hours: float, seed: int = 0, root: PathLike | None = None, progress: bool = True) -> CorpusPaths:
    """The generated corpus of this size and seed, made on first use.

    Args:
        hours: speech in h.
        seed: integer of at least 0.
        root: folder that holds generated corpora; default data/generated.
        progress: show a bar while it is made.

    Returns:
        CorpusPaths of ``<root>/h<hours>_s<seed>``.
    """
    root = Path(root) if root is not None else paths.generated_dir()
    return synthesise_corpus(root / f"h{hours:g}_s{seed}", hours=hours, seed=seed, progress=progress)
