"""Mixtures that must never change: a made corpus, ways to mix it, and what came out when they were pinned.

    python -m tests.corpus.pinned        # writes tests/golden/mixtures.json anew; only where a change is meant

The recordings are made of whole numbers, so that they are the same on every machine.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import soundfile

from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset

PINS = Path(__file__).parent.parent / "golden" / "mixtures.json"
RATE = 16000
COUNT = 8  # mixtures of each kind

ALL = {
    "rir_probability": 0.6, "second_noise_probability": 0.5, "babble_probability": 0.25, "speed_probability": 0.6,
    "equaliser_probability": 0.6, "wide_level_probability": 0.3, "offset_probability": 0.4,
}  # fmt: skip
#: Name -> how to mix, and the seed.
KINDS = {
    "as_it_comes": ({"segment_seconds": 1.0}, 3),
    "no_augmentation": ({"segment_seconds": 0.5, "rir_probability": 0.0, "second_noise_probability": 0.0}, 4),
    "all_short": ({"segment_seconds": 0.5, **ALL}, 5),
    "all_long": ({"segment_seconds": 2.0, **ALL}, 6),
    "all_always": (
        {"segment_seconds": 1.0, **{name: 1.0 for name in ALL}, "babble_probability": 0.0, "early_ms": 0.0}, 7,
    ),
    "babble": ({"segment_seconds": 1.5, "babble_probability": 1.0, "equaliser_probability": 0.5}, 8),
}  # fmt: skip


def _sound(rng: np.random.Generator, samples: int, smooth: int, syllables: bool) -> np.ndarray:
    """Coloured noise as int16, in syllables with pauses for a voice."""
    x = np.convolve(rng.integers(-9000, 9000, samples + smooth), np.ones(smooth, np.int64))[smooth - 1 :][:samples]
    x = x // smooth
    if syllables:
        x = x * (np.arange(samples) // 2400 % 3 > 0)
    return x.astype(np.int16)


def made_corpus(folder: Path) -> dict[str, list[Entry]]:
    """Voices of 0.3 to 3 s, noises from 0.4 to 64 s at several rates, rooms; of each kind one is silent."""
    rng = np.random.default_rng(20)
    made: dict[str, list[Entry]] = {"speech": [], "noise": [], "rir": []}

    def add(kind: str, name: str, x: np.ndarray, rate: int = RATE, **fields) -> None:
        soundfile.write(folder / f"{name}.wav", x, rate)
        path, corpus = str(folder / f"{name}.wav"), "b" if name.endswith("1") else "a"
        made[kind].append(Entry(path, kind, corpus, len(x) / rate, rate, "train", **fields))

    for speaker in range(6):
        for k, seconds in enumerate((0.3 + 0.1 * speaker, 1.1, 3.0)):
            add("speech", f"s{speaker}_{k}", _sound(rng, int(seconds * RATE), 2 + speaker, True), speaker=f"s{speaker}")
    add("speech", "mute", np.zeros(RATE, np.int16), speaker="mute")
    for i, (seconds, rate) in enumerate([(0.4, 16000), (3.0, 44100), (1.3, 8000), (64.0, 16000), (61.0, 22050)]):
        add("noise", f"n{i}", _sound(rng, int(seconds * rate), 1 + i, False), rate, recording=f"n{i}", label=f"hiss{i}")
    add("noise", "constant", np.full(RATE, 3000, np.int16), recording="constant")
    for i, (peak, length) in enumerate([(32, 4000), (400, 9000)]):
        x = np.zeros(length, np.int64)
        x[peak:] = rng.integers(-9000, 9000, length - peak) * (length - np.arange(peak, length)) // length // 2
        x[peak] = 30000
        add("rir", f"r{i}", x.astype(np.int16), recording=f"r{i}")
    add("rir", "r_silent", np.zeros(800, np.int16), recording="r_silent")
    return made


def mixtures(corpus: dict[str, list[Entry]], kind: str, decoded=None) -> MixtureDataset:
    """The mixtures of a kind."""
    settings, seed = KINDS[kind]
    lists = (corpus["speech"], corpus["noise"], corpus["rir"])
    return MixtureDataset(*lists, MixConfig(**settings), seed=seed, length=COUNT - 2, decoded=decoded)


def print_of(item: dict) -> dict:
    """What is pinned of a mixture: its names, and enough of both waveforms that another one differs."""
    waves = {}
    for part in ("noisy", "clean"):
        x = item[part].numpy().astype(np.float64)
        waves[part] = [float(np.sqrt(np.mean(x**2))), float(x.mean()), *x[:: len(x) // 12].tolist()]
    return {**waves, **{key: item[key] for key in ("snr_db", "label", "speaker", "id")}}


def prints(corpus: dict[str, list[Entry]]) -> dict[str, list[dict]]:
    """Of all kinds; the last two mixtures of each belong to the next epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the silent ones are left out, with a warning
        return {kind: [print_of(mixtures(corpus, kind)[i]) for i in range(COUNT)] for kind in KINDS}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_in:
        PINS.write_text(json.dumps(prints(made_corpus(Path(made_in))), indent=0) + "\n", encoding="utf-8")
