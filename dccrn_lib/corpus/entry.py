"""One line of a manifest: an audio file, perhaps inside a tar shard, what it holds, and the split it belongs to."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from dccrn_lib.runtime.errors import ManifestError, nearest_name

KINDS = ("speech", "noise", "rir")
SPLITS = ("train", "valid", "test")
_REQUIRED = ("path", "kind", "seconds", "sample_rate", "split")


@dataclass(frozen=True, slots=True)
class Entry:
    """One audio file of a corpus.

    Args:
        path: absolute path once read from a manifest.
        kind: "speech", "noise" or "rir" (room impulse response).
        corpus: name of the collection.
        seconds: duration in s.
        sample_rate: in Hz.
        split: "train", "valid" or "test".
        licence: as the source states it.
        speaker: who speaks (speech).
        recording: which recording it was cut from (noise, rir).
        label: kind of noise, for tables by noise kind.
        language: language code of speech.
        offset, bytes: where the file lies in a tar shard; ``path`` is then ``shard.tar::member``.
        scale: what full scale of the file stands for, where it was lowered so that nothing is clipped; None is 1.
    """

    path: str
    kind: str
    corpus: str
    seconds: float
    sample_rate: int
    split: str
    licence: str = "unknown"
    speaker: str | None = None
    recording: str | None = None
    label: str | None = None
    language: str | None = None
    offset: int | None = None
    bytes: int | None = None
    scale: float | None = None

    @property
    def group(self) -> str:
        """What must not be shared between splits: the speaker, or else the recording, or else the file."""
        return self.speaker or self.recording or self.path


FIELDS = tuple(Entry.__dataclass_fields__)


def parse_entry(line: str, where: str, folder: str) -> Entry:
    """One line of a manifest as an entry; ``where`` names file and line in errors."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where}: not JSON ({error.msg}); correct it or scan the folder again") from None
    if not isinstance(record, dict):
        raise ManifestError(f"{where}: expected a JSON object, found {type(record).__name__}")
    missing = [key for key in _REQUIRED if key not in record]
    if missing:
        raise ManifestError(f"{where}: missing key {', '.join(missing)}; a line needs {', '.join(_REQUIRED)}")
    for key, known in (("kind", KINDS), ("split", SPLITS)):
        if record[key] not in known:
            raise ManifestError(f"{where}: unknown {key} {record[key]!r}: {nearest_name(record[key], [*known])}")
    if not isinstance(record["path"], str) or not record["path"]:
        raise ManifestError(f"{where}: path must be a file name, found {record['path']!r}")
    try:
        seconds, sample_rate = float(record["seconds"]), int(record["sample_rate"])
    except (TypeError, ValueError):
        seconds, sample_rate = math.nan, 0
    if not (math.isfinite(seconds) and seconds > 0 and sample_rate > 0):
        raise ManifestError(
            f"{where}: seconds and sample_rate must be positive numbers, "
            f"found {record['seconds']!r} and {record['sample_rate']!r}"
        )
    place = [record.get("offset"), record.get("bytes")]
    if place != [None, None] and not all(type(value) is int and value >= 0 for value in place):
        raise ManifestError(f"{where}: offset and bytes must be whole numbers, both of them, found {place}")
    scale = record.get("scale")
    if scale is not None and not (type(scale) in (int, float) and 0 < scale < math.inf):
        raise ManifestError(f"{where}: scale must be a positive number, found {scale!r}")
    known_fields = {key: record[key] for key in FIELDS if key in record}
    known_fields["path"] = os.path.normpath(os.path.join(folder, record["path"]))
    known_fields["seconds"], known_fields["sample_rate"] = seconds, sample_rate
    known_fields.setdefault("corpus", Path(folder).name)
    return Entry(**known_fields)
