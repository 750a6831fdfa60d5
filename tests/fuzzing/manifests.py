"""Manifests: lines with any value at any key, and what mixing and packing make of those that are taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from dccrn_lib.audio.files import write_audio
from dccrn_lib.corpus.manifest import read_manifest, total_hours, write_manifest
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from tests.fuzzing.mutations import json_text
from tests.fuzzing.running import Target

SPEECH = {
    "path": "a.wav", "kind": "speech", "corpus": "mine", "seconds": 0.5, "sample_rate": 16000, "split": "train",
    "licence": "CC0-1.0", "speaker": "a", "language": "en",
}  # fmt: skip
NOISE = {**SPEECH, "kind": "noise", "recording": "r", "label": "fan"}
PACKED = {**SPEECH, "path": "s.tar::000000.wav", "offset": 512, "bytes": 16044}
LINES = st.lists(st.one_of(*(json_text(line) for line in (SPEECH, NOISE, PACKED))), min_size=1, max_size=3)


def take(lines: list[bytes], folder: Path) -> None:
    """Read it, write it again, mix from it."""
    hum = 0.3 * np.sin(np.arange(8000) / 5)
    write_audio(folder / "a.wav", hum, 16000)
    (folder / "s.tar").write_bytes(bytes(512) + (folder / "a.wav").read_bytes())
    (folder / "m.jsonl").write_bytes(b"\n".join(lines))
    entries = read_manifest(folder / "m.jsonl")
    assert total_hours(entries) > 0
    again = read_manifest(write_manifest(folder / "out" / "m.jsonl", entries))
    assert [(e.group, e.corpus, e.seconds, e.split) for e in again if not e.path == e.group] == [
        (e.group, e.corpus, e.seconds, e.split) for e in entries if not e.path == e.group
    ]
    groups = {kind: [e for e in entries if e.kind == kind] or entries for kind in ("speech", "noise", "rir")}
    mixtures = MixtureDataset(**groups, config=MixConfig(segment_seconds=0.1, rir_probability=0.5))
    assert np.isfinite(mixtures[0]["noisy"].numpy()).all()


TARGET = Target("manifests", LINES, take, lambda: [json.dumps(line).encode() for line in (SPEECH, NOISE, PACKED)])
