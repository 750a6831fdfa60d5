"""Packing a corpus: many files become a few tar shards, small enough to be carried over a slow line.

Speech and noise are brought to mono at 16 kHz and encoded (Opus, Vorbis or FLAC), room responses always as FLAC; the
new manifests carry over split, speaker, recording, label, licence and duration, and training reads them directly. A file
that goes beyond full scale is lowered as a whole, so that nothing is clipped, one that stays below 1/16 of it is raised,
so that 16 bits suffice, and its entry keeps the ``scale``.
``unpack_corpus`` turns shards into files again, byte for byte what the shards hold.

The new folder appears when it is complete; a failure leaves nothing.

Sizes and quality: docs/training.md. Source of the coding: libsndfile; of the rest: ours.
"""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.decoding import decode, full_scale
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.manifest import read_manifest, total_hours, write_bad, write_manifest
from dccrn_lib.corpus.shards import SEPARATOR, member_bytes, suffix_of
from dccrn_lib.runtime.errors import AudioError, ConfigError, ManifestError, nearest_name
from dccrn_lib.runtime.files import atomic_folder
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.workers import usable_cores, worker_pool

#: Codec -> (libsndfile's format and subtype, suffix of the members).
CODECS = {"opus": ("OGG", "OPUS", ".opus"), "vorbis": ("OGG", "VORBIS", ".ogg"), "flac": ("FLAC", "PCM_16", ".flac")}
BITRATES = (6.0, 256.0)  # kbit/s, of Opus in libsndfile
_BLOCK = 1 << 16  # samples a write: some encoders fail on very long ones
_AT_A_TIME = 256  # files encoded between two writes to the shard


@dataclass(frozen=True)
class PackReport:
    """What was written: manifests, files, hours, bytes of the shards, and (file, reason) of what could not be read."""

    manifests: list[Path]
    files: int
    hours: float
    size: int
    bad: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        bad = f"; {len(self.bad)} bad files, see *.bad.txt" if self.bad else ""
        return f"{self.files} files, {self.hours:.3g} h, {self.size / 2**20:.4g} MiB{bad}"


def encode(samples: np.ndarray, codec: str, bitrate: float = 32.0) -> bytes:
    """A mono signal at 16 kHz as the bytes of a file.

    Args:
        samples: float (sample,); beyond +-1 it is held there.
        codec: key of :data:`CODECS`. Opus and Vorbis begin at the same sample and have the same length; FLAC holds
            16 bits.
        bitrate: of Opus, in kbit/s; what silence and pauses do not need is not spent.
    """
    kind, subtype, _ = CODECS[codec]
    # libsndfile's scale of Opus: level 0 is 256 kbit/s, level 1 is 6 kbit/s
    level = (BITRATES[1] - bitrate) / (BITRATES[1] - BITRATES[0]) if codec == "opus" else None
    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", SAMPLE_RATE, 1, subtype, format=kind, compression_level=level) as file:
        for start in range(0, len(samples), _BLOCK):
            file.write(samples[start : start + _BLOCK].clip(-1.0, 1.0))
    return data.getvalue()


def pack_corpus(
    manifests: Sequence[PathLike],
    out: PathLike,
    codec: str = "opus",
    bitrate: float = 32.0,
    shard_mb: float = 256.0,
    workers: int | None = None,
    progress: bool = True,
) -> PackReport:
    """Write the audio of ``manifests`` into tar shards with manifests of the same names.

    Args:
        manifests: of speech, noise and room responses, of all their splits.
        out: new folder for ``<manifest>.jsonl`` and ``<manifest>-000.tar`` ...
        codec: of speech and noise, see :func:`encode`; room responses are FLAC.
        bitrate: of Opus in kbit/s.
        shard_mb: a shard that reaches this many MiB is closed.
        workers: processes that encode; all cores by default. What is heard in the shards does not depend on it. With
            ``flac`` their bytes do not either; in Opus and Vorbis libsndfile writes a random number into every member.
        progress: show a bar.

    Raises:
        ConfigError: unknown codec, bitrate or shard size out of range, two manifests of one name.
        ManifestError: ``out`` exists and is not empty; a manifest cannot be read or none of its files can.
    """
    if codec not in CODECS:
        raise ConfigError(f"unknown codec {codec!r}; {nearest_name(codec, list(CODECS))}")
    if not BITRATES[0] <= bitrate <= BITRATES[1]:
        raise ConfigError(f"bitrate must lie in [{BITRATES[0]:g}, {BITRATES[1]:g}] kbit/s, got {bitrate:g}")
    if not shard_mb > 0:
        raise ConfigError(f"shard_mb must be above 0, got {shard_mb:g}")
    sources = _by_name(manifests)
    bad: list[tuple[str, str]] = []
    packed: dict[str, list[Entry]] = {}
    with (
        _new_folder(out) as folder,
        worker_pool(workers or usable_cores()) as run,
        tqdm(total=sum(map(len, sources.values())), desc="pack", unit="file", disable=not progress) as bar,
    ):
        for name, entries in sources.items():
            task = partial(_encoded, codec=codec, bitrate=bitrate)
            written, failed = _write_shards(folder, name, entries, task, shard_mb * 2**20, run, bar)
            if not written:
                raise ManifestError(f"{name}.jsonl: none of its files can be packed; the first, {': '.join(failed[0])}")
            packed[name] = written
            write_manifest(folder / f"{name}.jsonl", written)
            write_bad(folder / f"{name}.jsonl.bad.txt", failed)
            bad += failed
    every = [entry for entries in packed.values() for entry in entries]
    size = sum(path.stat().st_size for path in Path(out).glob("*.tar"))
    return PackReport([Path(out) / f"{n}.jsonl" for n in packed], len(every), total_hours(every), size, bad)


def unpack_corpus(manifests: Sequence[PathLike], out: PathLike, progress: bool = True) -> PackReport:
    """Write the members of packed ``manifests`` as files ``out/<manifest>/...``, with manifests of the same names.

    Raises:
        ConfigError: two manifests of one name.
        ManifestError: ``out`` exists and is not empty; a manifest that is not packed; a shard that is cut off.
    """
    sources = _by_name(manifests)
    for name, entries in sources.items():
        if any(entry.offset is None for entry in entries):
            raise ManifestError(f"{name}.jsonl: is not packed, its entries are files already")
    with (
        _new_folder(out) as folder,
        tqdm(total=sum(map(len, sources.values())), desc="unpack", unit="file", disable=not progress) as bar,
    ):
        for name, entries in sources.items():
            (folder / name).mkdir()
            unpacked = []
            for i, entry in enumerate(entries):
                path = folder / name / f"{i:06d}{suffix_of(entry)}"
                path.write_bytes(member_bytes(entry))
                unpacked.append(dataclasses.replace(entry, path=str(path), offset=None, bytes=None))
                bar.update()
            write_manifest(folder / f"{name}.jsonl", unpacked)
    every = [entry for entries in sources.values() for entry in entries]
    # every entry of a packed manifest has its bytes
    size = sum(entry.bytes for entry in every)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return PackReport([Path(out) / f"{name}.jsonl" for name in sources], len(every), total_hours(every), size)


def _by_name(manifests: Sequence[PathLike]) -> dict[str, list[Entry]]:
    """Entries by the manifest's name without suffix."""
    names = [Path(path).stem for path in manifests]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two manifests are named {twice[0]}: their shards would have one name; rename one of them")
    return {name: read_manifest(path) for name, path in zip(names, manifests, strict=True)}


def _new_folder(out: PathLike) -> AbstractContextManager[Path]:
    """A folder beside ``out`` that takes its name when the block ends well, and vanishes otherwise."""
    if os.path.lexists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise ManifestError(f"{out}: exists and is not an empty folder; choose another one or remove it")
    return atomic_folder(out)


def _encoded(entry: Entry, codec: str, bitrate: float) -> tuple[bytes, float | None] | str:
    """The bytes of a member and its scale (None for 1), or why the file cannot be used."""
    try:
        samples = decode(entry, 0.0, entry.seconds + 1)
        if not len(samples):
            return "holds no sample"
        scale = full_scale(samples)
        data = encode(samples / np.float32(scale), "flac" if entry.kind == "rir" else codec, bitrate)
        return data, scale if scale != 1.0 else None
    except AudioError as error:
        return str(error)


def _write_shards(folder: Path, name: str, entries: list[Entry], task: partial, limit: float, run, bar: tqdm):
    """Encode ``entries`` into shards, in order -> (entries of the new manifest, [(file, reason)])."""
    packed, bad, shard, count = [], [], None, 0
    try:
        for first in range(0, len(entries), _AT_A_TIME):
            some = entries[first : first + _AT_A_TIME]
            for entry, encoded in zip(some, run(task, some, bar), strict=True):
                if isinstance(encoded, str):
                    bad.append((entry.path, encoded))
                    continue
                data, scale = encoded
                if shard is None or shard.offset >= limit:
                    if shard is not None:
                        shard.close()
                    shard = tarfile.open(folder / f"{name}-{count:03d}.tar", "w", format=tarfile.USTAR_FORMAT)
                    count += 1
                suffix = CODECS["flac" if entry.kind == "rir" else task.keywords["codec"]][2]
                member = tarfile.TarInfo(f"{len(packed):06d}{suffix}")  # no time, no owner: flac stays the same
                member.size = len(data)
                offset = shard.offset + tarfile.BLOCKSIZE  # a header of one block, then the data
                shard.addfile(member, io.BytesIO(data))
                path, size = f"{shard.name}{SEPARATOR}{member.name}", len(data)
                place = {"path": path, "offset": offset, "bytes": size, "sample_rate": SAMPLE_RATE, "scale": scale}
                packed.append(dataclasses.replace(entry, **place))
    finally:
        if shard is not None:
            shard.close()
    return packed, bad
