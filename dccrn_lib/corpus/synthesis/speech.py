"""Generated speech: eSpeak NG's formant voices reading our own sentences.

A *voice* is a language and accent, one of eSpeak's speaker variants, pitch, intonation range, speed, a
vocal-tract scale and a microphone colour. Variants and sentences belong to one split each, so a voice or a
sentence heard in training is never heard in validation or test. The library comes from the package
``espeakng-loader`` and is called through ctypes; nothing else has to be installed on the system.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.synthesis.signals import random_equaliser, set_level, write_wav
from dccrn_lib.runtime import paths
from dccrn_lib.runtime.errors import ConfigError

_ESPEAK_RATE = 22050
_LONGEST_NAME = 150  # bytes of a folder's name

# accents of each language, as eSpeak names them
ACCENTS = {
    "en": ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
    "de": ("de",),
    "fr": ("fr", "fr-be", "fr-ch"),
    "es": ("es", "es-419"),
    "it": ("it",),
    "pt": ("pt", "pt-br"),
    "nl": ("nl",),
    "pl": ("pl",),
    "sv": ("sv",),
    "tr": ("tr",),
    "fi": ("fi",),
    "cs": ("cs",),
    "ro": ("ro",),
}

# eSpeak's speaker variants, without the whispering and robotic ones
VARIANTS = {
    "train": tuple(
        "f1 f2 f4 m1 m2 m3 m5 m7 m8 Alex Alicia Andy Denis Diogo Gene Gene2 Henrique Jacky Marco Mario "
        "Michael Mike Nguyen Reed RicishayMax adam anika announcer antonio aunty boris caleb ed edward "
        "edward2 grandma ian iven iven2 iven3 iven4 john klatt3 klatt4 klatt5 klatt6 marcelo max michel "
        "miguel mike2 norbert paul pedro robert sandro travis zac".split()
    ),
    "valid": tuple("f5 m6 Andrea david quincy steph steph2 Lee gustave belinda rob".split()),
    "test": tuple("f3 m4 Annie benjamin pablo shelby grandpa Hugo linda victor".split()),
}
# the ones with women's voices; half of the voices of every split are drawn from these
FEMALE = frozenset(
    "f1 f2 f3 f4 f5 Alicia Andrea Annie Jacky anika aunty belinda grandma linda shelby steph steph2".split()
)


@dataclass(frozen=True)
class Voice:
    """One generated speaker.

    Args:
        name: unique in the corpus.
        language: key of ACCENTS and name of the sentence file.
        accent: eSpeak voice name.
        variant: eSpeak speaker variant.
        rate: words per minute.
        pitch: eSpeak pitch, 0 to 99.
        spread: eSpeak intonation range, 0 to 99.
        warp: factor on all frequencies, 1 leaves them (a shorter or longer vocal tract).
    """

    name: str
    language: str
    accent: str
    variant: str
    rate: int
    pitch: int
    spread: int
    warp: float


@dataclass(frozen=True)
class VoiceTask:
    """Work order for one voice: how many seconds to speak, where to, from which seed."""

    voice: Voice
    split: str
    seconds: float
    folder: str
    seed: tuple[int, ...]


def make_voices(split: str, count: int, seed: int) -> list[Voice]:
    """Draw ``count`` different voices of a split; two in five speak English, every second one is a woman's."""
    rng = np.random.default_rng([seed, 1, ("train", "valid", "test").index(split)])
    others = list(rng.permutation([language for language in ACCENTS if language != "en"]))
    women, men = [[v for v in VARIANTS[split] if (v in FEMALE) == female] for female in (True, False)]
    rounds = -(-count // min(len(women), len(men)))
    drawn = [np.concatenate([rng.permutation(pool) for _ in range(rounds)])[:count] for pool in (women, men)]
    variants = np.stack(drawn, axis=1).ravel()  # a woman's, a man's, a woman's ...
    voices = []
    for index in range(count):
        foreign = index - (index + 4) // 5 - (index + 1) // 5  # voices so far that do not speak English
        language = "en" if index % 5 in (0, 3) else str(others[foreign % len(others)])
        accent, variant = str(rng.choice(ACCENTS[language])), str(variants[index])
        voices.append(
            Voice(
                name=f"{split}-{index:04d}-{accent}-{variant}",
                language=language,
                accent=accent,
                variant=variant,
                rate=int(rng.integers(135, 216)),
                pitch=int(rng.integers(25, 76)),
                spread=int(rng.integers(30, 86)),
                warp=round(float(rng.uniform(0.9, 1.12)), 3),
            )
        )
    return voices


def load_sentences(folder: Path | None = None) -> dict[str, dict[str, list[str]]]:
    """Sentence lines by language and split.

    Args:
        folder: holds ``<language>.txt``; default data/sentences.

    Returns:
        {language: {split: lines}}. A line belongs to one split, by a hash of its text: about 80 % train.

    Raises:
        ConfigError: a sentence file is missing or too short.
    """
    folder = folder or paths.data_dir() / "sentences"
    sentences = {}
    for language in ACCENTS:
        path = folder / f"{language}.txt"
        if not path.is_file():
            raise ConfigError(f"{path}: sentence file is missing; restore data/sentences from the repository")
        text = path.read_text(encoding="utf-8").splitlines()
        lines = sorted({line.strip() for line in text if line.strip() and not line.startswith("#")}, key=_hash)
        if len(lines) < 10:
            raise ConfigError(f"{path}: needs at least 10 sentences, has {len(lines)}")
        held = max(3, len(lines) // 10)
        sentences[language] = {"test": lines[:held], "valid": lines[held : 2 * held], "train": lines[2 * held :]}
    return sentences


def expand(line: str, rng: np.random.Generator) -> str:
    """Choose one part of every ``[a|b|c]`` in a sentence line.

    >>> expand("a [big] house", np.random.default_rng(0))
    'a big house'
    """
    return re.sub(r"\[([^\]]+)\]", lambda match: str(rng.choice(match.group(1).split("|"))), line)


def speak_voice(task: VoiceTask) -> list[tuple[str, float]]:
    """Write the files of one voice.

    Returns:
        (path, seconds) of each file, 16 kHz mono.
    """
    rng = np.random.default_rng(task.seed)
    lines = load_sentences()[task.voice.language][task.split]
    colour_seed = int(rng.integers(2**31))
    folder = Path(task.folder)
    made: list[tuple[str, float]] = []
    remaining = task.seconds
    while not made or remaining > 1.2:
        count = int(rng.integers(1, 4)) if remaining > 4.5 else 1
        text = " ".join(
            expand(str(line), rng) for line in rng.choice(lines, size=min(count, len(lines)), replace=False)
        )
        audio = render(task.voice, text, rng)
        audio = random_equaliser(audio, np.random.default_rng(colour_seed), depth_db=3.0)
        audio = set_level(audio, rng.uniform(-29.0, -22.0))
        path = folder / f"{len(made):04d}.wav"
        write_wav(path, audio)
        made.append((str(path), len(audio) / SAMPLE_RATE))
        remaining -= len(audio) / SAMPLE_RATE
    return made


def render(voice: Voice, text: str, rng: np.random.Generator) -> np.ndarray:
    """Speak ``text``: float32 (sample,) at 16 kHz, speed and pitch a little different each time.

    Raises:
        ConfigError: eSpeak NG made no sound.
    """
    audio = espeak(
        text,
        f"{voice.accent}+{voice.variant}",
        rate=int(voice.rate / voice.warp * rng.uniform(0.94, 1.06)),
        pitch=int(np.clip(voice.pitch + rng.integers(-4, 5), 0, 99)),
        spread=int(np.clip(voice.spread + rng.integers(-8, 9), 0, 99)),
    )
    # 22050 -> 16000 Hz is 320 / 441; reading it faster or slower scales every frequency by the warp
    audio = resample_poly(audio, 320, round(441 * voice.warp)).astype(np.float32)
    loud = np.flatnonzero(np.abs(audio) > 1e-3)
    if len(loud) == 0:
        raise ConfigError(f"eSpeak voice {voice.accent}+{voice.variant} stayed silent on: {text}")
    margin = SAMPLE_RATE // 10
    return audio[max(0, loud[0] - margin) : loud[-1] + margin]


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def espeak(text: str, voice: str, rate: int = 170, pitch: int = 50, spread: int = 50) -> np.ndarray:
    """Synthesise a text with eSpeak NG.

    The library keeps oscillator and random state between utterances; it is loaded afresh and seeded for
    every call (0.3 ms), so that the same arguments always give the same samples.

    Args:
        text: what to say, UTF-8.
        voice: eSpeak voice, e.g. "de" or "en-us+f2".
        rate: words per minute, 80 to 450.
        pitch: 0 to 99.
        spread: intonation range, 0 to 99.

    Returns:
        float32 (sample,) in [-1, 1] at 22050 Hz.

    Raises:
        ConfigError: espeakng-loader is not installed, or the voice is unknown.
    """
    loader = require_espeak()
    chunks: list[np.ndarray] = []

    @_SynthCallback
    def collect(samples, count, _events):
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library = ctypes.CDLL(loader.get_library_path())
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    try:
        with _short_name(loader.get_data_path()) as place:
            synchronous, no_exit = 2, 0x8000
            rate_or_code = library.espeak_Initialize(synchronous, 0, os.fsencode(place), no_exit)
            if rate_or_code != _ESPEAK_RATE:
                raise ConfigError(
                    f"eSpeak NG did not start (code {rate_or_code}); reinstall the package espeakng-loader"
                )
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # its own random numbers
            _c_library().srand(1)  # breath noise comes from the C library's
            library.espeak_SetSynthCallback(collect)
            if library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise ConfigError(f"eSpeak NG knows no voice {voice!r}; reinstall the package espeakng-loader")
            for parameter, value in ((1, rate), (2, 60), (3, pitch), (4, spread)):  # 2 is the volume: 60 never clips
                library.espeak_SetParameter(parameter, value, 0)
            data = text.encode("utf-8") + b"\0"
            utf8 = 1
            library.espeak_Synth(data, len(data), 0, 1, 0, utf8, None, None)
            library.espeak_Terminate()
    finally:
        # there is FreeLibrary on Windows, dlclose elsewhere
        unload = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary  # pyright: ignore[reportAttributeAccessIssue]
        unload(library._handle)
    audio = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    return audio.astype(np.float32) / 32768.0


@contextmanager
def _short_name(folder: str) -> Iterator[str]:
    """A name of a folder that eSpeak can hold, in 160 bytes: a long one gets a link in the temporary folder."""
    if len(os.fsencode(folder)) < _LONGEST_NAME or os.name != "posix":
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="dccrn-espeak-") as temporary:
        link = Path(temporary) / "data"
        link.symlink_to(folder, target_is_directory=True)
        yield str(link)


def _c_library() -> ctypes.CDLL:
    """The C library that eSpeak draws random numbers from."""
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


def require_espeak():
    """The module ``espeakng_loader``, or a ConfigError that says how to install it."""
    try:
        import espeakng_loader
    except ImportError:
        raise ConfigError(
            f"generated speech needs eSpeak NG: {paths.install_command('speech')} (the package espeakng-loader)"
        ) from None
    return espeakng_loader


def _hash(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8")).hexdigest()
