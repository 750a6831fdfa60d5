"""One line of a manifest: an audio file, perhaps inside a tar shard, what it holds, and the split it belongs to."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from dccrn_lib.runtime.errors import ManifestError, nearest_name
from dccrn_lib.runtime.json_text import parse_object
from dccrn_lib.runtime.settings import shown

KINDS = ("speech", "noise", "rir")
SPLITS = ("train", "valid", "test")
LONGEST, HIGHEST_RATE = 1e8, 1e8  # s and Hz: three years, and more than any converter
_TEXTS = ("corpus", "licence", "speaker", "recording", "label", "language")
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
        scale: what full scale of the file stands for, where it was lowered or raised to fit 16 bits; None is 1.
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
    """One line of a manifest as an entry.

    Args:
        line: a JSON object.
        where: file and line, for errors.
        folder: of the manifest; a relative path starts there.

    Raises:
        ManifestError: not an object, a key that is missing, or a value that cannot be.
    """
    try:
        record = parse_object(line)
    except ValueError as error:
        raise ManifestError(f"{where}: {error}; correct it or scan the folder again") from None
    missing = [key for key in _REQUIRED if key not in record]
    if missing:
        raise ManifestError(f"{where}: missing key {', '.join(missing)}; a line needs {', '.join(_REQUIRED)}")
    for key, known in (("kind", KINDS), ("split", SPLITS)):
        if record[key] not in known:
            raise ManifestError(
                f"{where}: unknown {key} {shown(record[key])}: {nearest_name(str(record[key])[:80], [*known])}"
            )
    if not _names_a_file(record["path"]):
        raise ManifestError(f"{where}: path must be a file name, found {shown(record['path'])}")
    seconds, sample_rate = _as_number(record["seconds"]), _as_number(record["sample_rate"])
    if not (0 < seconds <= LONGEST and 1 <= sample_rate <= HIGHEST_RATE):
        raise ManifestError(
            f"{where}: seconds and sample_rate must be positive numbers of possible size, "
            f"found {shown(record['seconds'])} and {shown(record['sample_rate'])}"
        )
    place = [record.get("offset"), record.get("bytes")]
    if place != [None, None] and not all(type(value) is int and 0 <= value < 2**62 for value in place):
        raise ManifestError(f"{where}: offset and bytes must be whole numbers, both of them, found {shown(place)}")
    scale = record.get("scale")
    if scale is not None and not (type(scale) in (int, float) and 0 < scale <= 1e30):
        raise ManifestError(f"{where}: scale must be a positive number, found {shown(scale)}")
    known_fields = {key: record[key] for key in FIELDS if record.get(key) is not None}
    known_fields |= {key: _as_text(known_fields[key], key, where) for key in _TEXTS if key in known_fields}
    known_fields["path"] = os.path.normpath(os.path.join(folder, record["path"]))
    known_fields["seconds"], known_fields["sample_rate"] = seconds, int(sample_rate)
    known_fields.setdefault("corpus", Path(folder).name)
    return Entry(**known_fields)


def _names_a_file(path: object) -> bool:
    """Whether a value is a text that the system can take for a path: not empty, no NUL, nothing that no byte stands for."""
    if not isinstance(path, str) or not path or "\0" in path:
        return False
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _as_number(value: object) -> float:
    """A number, or the text of one; NaN for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _as_text(value: object, key: str, where: str) -> str:
    """A text; a whole number, as some write speakers, becomes its digits."""
    if type(value) is int:
        value = shown(value)
    if not isinstance(value, str):
        raise ManifestError(f"{where}: {key} must be a text, found {shown(value)}")
    return value
