"""Audio files: damaged WAV, FLAC, Ogg and other bytes, read in every way in which the library reads recordings."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from hypothesis import strategies as st

from dccrn_lib.audio.files import audio_info, read_audio, read_blocks, write_audio
from dccrn_lib.corpus.decoding import decode
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.scanning import probe_audio
from tests.fuzzing.mutations import damaged
from tests.fuzzing.running import Target

_FORMATS = (
    ("WAV", "PCM_16", 1), ("WAV", "FLOAT", 2), ("WAV", "PCM_24", 1), ("WAV", "MS_ADPCM", 1), ("WAVEX", "PCM_16", 3),
    ("FLAC", "PCM_16", 1), ("FLAC", "PCM_24", 2), ("OGG", "VORBIS", 1), ("OGG", "OPUS", 1), ("AIFF", "PCM_16", 1),
    ("AU", "PCM_16", 1), ("W64", "PCM_16", 1), ("CAF", "PCM_16", 1), ("MP3", "MPEG_LAYER_III", 1),
)  # fmt: skip


@lru_cache
def originals() -> list[bytes]:
    """A tenth of a second of a hum in every format."""
    made = []
    for kind, subtype, channels in _FORMATS:
        hum = 0.3 * np.sin(np.arange(1600)[:, None] / (5 + np.arange(channels)))
        data = io.BytesIO()
        soundfile.write(data, hum, 16000, subtype, format=kind)
        made.append(data.getvalue())
    return made


def take(given: tuple[bytes, str], folder: Path) -> None:
    """Look at it, scan it, read it, mix it, write it."""
    data, suffix = given
    path = folder / f"a{suffix}"
    path.write_bytes(data)
    probed = probe_audio(str(path))
    assert isinstance(probed, str) or len(probed) == 2
    entry = Entry(str(path), "speech", "c", 0.1, 16000, "train")
    first = decode(entry, 0.0, 1.1)
    assert first.ndim == 1 and np.isfinite(first).all()
    info = audio_info(path)
    assert info.samples > 0 and info.sample_rate > 0
    for block in read_blocks(path, block_samples=700):
        assert block.shape[0] == info.channels and np.isfinite(block).all()
    samples, rate = read_audio(path, sample_rate=16000)
    write_audio(folder / "out" / "b.wav", samples, rate)


SUFFIXES = st.sampled_from((".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au", ".caf"))
INPUTS = st.deferred(lambda: st.tuples(damaged(originals()), SUFFIXES))
TARGET = Target("recordings", INPUTS, take, lambda: (originals()[0], ".wav"))
