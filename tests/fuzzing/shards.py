"""Packed corpora: damaged tar files, and manifests whose members lead elsewhere."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from dccrn_lib.audio.files import write_audio
from dccrn_lib.corpus.decoding import decode
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.manifest import read_manifest, write_manifest
from dccrn_lib.corpus.packing import pack_corpus, unpack_corpus
from tests.fuzzing.mutations import damaged, damaged_json
from tests.fuzzing.running import Target

_PATHS = st.sampled_from(
    ("speech-000.tar::../../above", "speech-000.tar::/etc/passwd", "../../above::a.wav", "/etc/passwd::a.wav",
     "speech-000.tar::a/../../../b.wav", "speech-000.tar::a.wav/../..", "speech-000.tar", "::",
     "speech-000.tar::a.b\\..\\c",
     "speech-000.tar::a.<b>", "out::a.wav", ".::a.wav")
)  # fmt: skip


@lru_cache
def original() -> tuple[bytes, list[dict]]:
    """A shard of two recordings, and the lines of its manifest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(2):
            write_audio(folder / f"{k}.wav", 0.3 * np.sin(np.arange(1600) / (5 + k)), 16000)
        entries = [
            Entry(str(folder / f"{k}.wav"), "speech", "c", 0.1, 16000, "train", speaker=str(k)) for k in range(2)
        ]
        write_manifest(folder / "speech.jsonl", entries)
        pack_corpus([folder / "speech.jsonl"], folder / "packed", "flac", workers=1, progress=False)
        lines = (folder / "packed" / "speech.jsonl").read_text().splitlines()
        return (folder / "packed" / "speech-000.tar").read_bytes(), [json.loads(line) for line in lines]


@st.composite
def packed(draw: st.DrawFn) -> tuple[bytes, list[dict]]:
    """(shard, lines of its manifest)."""
    data, lines = original()
    lines = [dict(line) for line in lines]
    if draw(st.booleans()):
        data = draw(damaged([data]))
    line = draw(st.sampled_from(lines))
    if draw(st.booleans()):
        line["path"] = draw(_PATHS)
    if draw(st.booleans()):
        line |= {"offset": draw(st.integers(0, 20_000)), "bytes": draw(st.integers(0, 20_000) | st.just(2**61))}
    if draw(st.integers(0, 3)) == 0:
        lines[0] = draw(damaged_json(lines[0]))
    return data, lines


def take(given: tuple[bytes, list], folder: Path) -> None:
    """Decode its members, then unpack it."""
    data, lines = given
    (folder / "speech-000.tar").write_bytes(data)
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "speech.jsonl").write_text(text, encoding="utf-8", errors="surrogatepass")
    before = sorted(path.name for path in folder.iterdir())
    entries = read_manifest(folder / "speech.jsonl")
    unpack_corpus([folder / "speech.jsonl"], folder / "out" / "un", progress=False)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert len(list((folder / "out" / "un" / "speech").iterdir())) == len(entries)
    for entry in entries:
        decode(entry, 0.0, 0.2)


TARGET = Target("shards", st.deferred(packed), take, original)
