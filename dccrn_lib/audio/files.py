"""Audio files in and out: read, check, write (soundfile), any format that libsndfile knows.

Samples are float32 of shape (channel, sample), full scale at +-1. What is read holds at least one sample
and neither NaN nor infinity (``dccrn_lib.audio.recording`` opens it). What is written appears under its name only when
it is complete. ``resample`` lives in ``dccrn_lib.audio.resampling`` and is offered here too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
from torch import Tensor

from dccrn_lib.audio.recording import FOREIGN_SUFFIXES, opened, require_rate, require_size, write_tags
from dccrn_lib.audio.resampling import StreamingResampler, checked_rate, resample
from dccrn_lib.audio.samples import real_samples
from dccrn_lib.runtime.errors import AudioError
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.sinks import sink

__all__ = [
    "AudioInfo",
    "AudioWriter",
    "PEAKS",
    "StreamingResampler",
    "audio_info",
    "list_audio_files",
    "read_audio",
    "read_blocks",
    "resample",
    "write_audio",
]

PEAKS = ("clip", "scale", "error")  # what write_audio does with samples beyond full scale
BLOCK_SAMPLES = 1 << 18
_SUFFIX_FORMATS = {"opus": ("OGG", "OPUS"), "oga": ("OGG", None), "aif": ("AIFF", None), "aifc": ("AIFF", None)}
_SUFFIX_FORMATS |= {"wave": ("WAV", None), "snd": ("AU", None), "sf": ("IRCAM", None), "sph": ("NIST", None)}
# no header, not audio by habit, or a header in another file
_NOT_AUDIO_SUFFIXES = {"raw", "mat4", "mat5", "mat", "sd2"}
_SUFFIXES = {name.lower() for name in soundfile.available_formats()} | set(_SUFFIX_FORMATS)
AUDIO_SUFFIXES = tuple(sorted(f".{name}" for name in _SUFFIXES - _NOT_AUDIO_SUFFIXES))


@dataclass(frozen=True)
class AudioInfo:
    """What the header says: rate in Hz, length in samples, libsndfile's format and subtype, and tags (title ...)."""

    path: Path
    sample_rate: int
    channels: int
    samples: int
    format: str
    subtype: str
    tags: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


def audio_info(path: PathLike) -> AudioInfo:
    """Read the header; of a file whose header does not know its length, all of it.

    Raises:
        AudioError: the file is missing, a folder or pipe, empty, corrupt, cut off or not audio, has no samples or an odd
            sampling rate.
    """
    with opened(path) as r:
        return AudioInfo(Path(path), r.sample_rate, r.channels, r.samples, r.format, r.subtype, r.tags)


def read_blocks(
    path: PathLike, block_samples: int = BLOCK_SAMPLES, start: int = 0, count: int | None = None
) -> Iterator[np.ndarray]:
    """Read a file piece by piece, in memory for one piece.

    Args:
        path: audio file.
        block_samples: samples a piece (the last may be shorter).
        start: first sample.
        count: number of samples, from 1; None for all that follow.

    Yields:
        float32 (channel, sample).

    Raises:
        AudioError: as ``read_audio``, at the first piece; a file that ends before its header says so raises at its end.
    """
    if count is not None and count < 1:
        raise AudioError(f"{path}: cannot read {count} samples; count must be at least 1, or None for all")
    with opened(path, whole=False) as recording:
        samples = recording.samples if recording.seekable else audio_info(path).samples
        if not 0 <= start < samples:
            raise AudioError(f"{path} has {samples} samples, cannot start at {start}")
        wanted = samples - start if count is None else min(count, samples - start)
        recording.go_to(start)
        got = 0
        while got < wanted:
            piece = recording.read(min(block_samples, wanted - got))
            if len(piece) == 0:
                break
            yield np.ascontiguousarray(piece.T)
            got += len(piece)
        if got == 0 or count is None:
            recording.refuse_short(got, wanted)


def read_audio(
    path: PathLike, sample_rate: int | None = None, start: int = 0, count: int | None = None
) -> tuple[np.ndarray, int]:
    """Read an audio file, or a part of it.

    Args:
        path: any format that libsndfile reads (wav, flac, ogg, opus, mp3, aiff, ...).
        sample_rate: rate wanted in Hz; None keeps the file's.
        start: first sample, at the file's rate.
        count: number of samples at the file's rate, from 1; None for all that follow.

    Returns:
        (samples, rate): float32 (channel, sample) and the rate in Hz.

    Raises:
        AudioError: missing, a folder or pipe, empty, corrupt, cut off, not audio, without samples, of an odd sampling
            rate, or with NaN or values beyond all sound in it; ``start`` or ``count`` out of range.
    """
    pieces = list(read_blocks(path, start=start, count=count))
    samples = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
    rate = audio_info(path).sample_rate
    if sample_rate is None or sample_rate == rate:
        return samples, rate
    return resample(samples, rate, sample_rate), sample_rate


def file_format(path: PathLike, subtype: str | None = None, format: str | None = None) -> tuple[str, str]:
    """libsndfile's (format, subtype) for a name to be written.

    Args:
        path: its suffix decides, unless ``format`` is given.
        subtype: PCM_16, PCM_24, FLOAT, VORBIS ...; None for the format's default (PCM_16 for wav and flac).
        format: WAV, FLAC ...; None for the suffix's.

    Raises:
        AudioError: unknown suffix, or a subtype that the format does not have.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    known, default = _SUFFIX_FORMATS.get(suffix, (suffix.upper(), None))
    name = (format or known).upper()
    if name not in soundfile.available_formats() or name in ("RAW", "SD2"):
        raise AudioError(f"cannot write {path}: unknown suffix {'.' + suffix!r}; use .wav, .flac, .ogg, .opus or .mp3")
    chosen = subtype or (default if name == known else None) or soundfile.default_subtype(name)
    if chosen is None or not soundfile.check_format(name, chosen):
        possible = ", ".join(soundfile.available_subtypes(name))
        raise AudioError(f"cannot write {path}: {name} has no subtype {chosen}; possible: {possible}")
    return name, chosen.upper()


def holds_beyond_full_scale(subtype: str) -> bool:
    """Whether samples beyond +-1 survive in this subtype: only FLOAT and DOUBLE keep them."""
    return subtype.upper() in ("FLOAT", "DOUBLE")


class AudioWriter:
    """Write (channel, sample) blocks one by one; the file takes its name when the ``with`` block ends well.

    Samples beyond full scale are held at +-1 where the subtype cannot hold them (never wrapped) and counted
    in ``clipped``; ``peak`` is the largest magnitude offered. ``tags`` (title, artist ...) are written where the format
    has them.
    """

    def __init__(
        self,
        path: PathLike,
        sample_rate: int,
        channels: int,
        subtype: str | None = None,
        format: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.sample_rate, self.channels = Path(path), checked_rate(sample_rate), channels
        self.format, self.subtype = file_format(path, subtype, format)
        self.clipped, self.peak, self.samples = 0, 0.0, 0
        self.tags = tags or {}
        self._limit = not holds_beyond_full_scale(self.subtype)

    def __enter__(self) -> AudioWriter:
        if self.path.is_dir():
            raise AudioError(f"cannot write {self.path}: a folder has this name")
        require_rate(self.path, self.sample_rate, self.channels, self.subtype, self.format)
        with ExitStack() as opened:
            sunk = opened.enter_context(sink(opened.enter_context(atomic_path(self.path))))
            try:
                self._file = soundfile.SoundFile(
                    sunk, "w", self.sample_rate, self.channels, self.subtype, format=self.format
                )
            except soundfile.SoundFileError as error:
                raise AudioError(
                    f"cannot write {self.path}: {self.format} {self.subtype} takes no {self.channels} channel(s) "
                    f"at {self.sample_rate} Hz; choose another format or rate"
                ) from error
            opened.callback(self._file.close)
            write_tags(self._file, self.tags)
            self._opened, self._sink = opened.pop_all(), sunk
        return self

    def write(self, samples: np.ndarray) -> None:
        """Append float (channel, sample).

        Raises:
            AudioError: samples that are no floats, one that is NaN or infinite, the number of channels is wrong, or the
                file would be larger than its header can say (4 GiB in WAV, AIFF and AU).
            OSError: the system refuses, because the disk is full perhaps.
        """
        if samples.ndim != 2 or samples.shape[0] != self.channels:
            raise AudioError(f"cannot write {self.path}: expected ({self.channels}, sample), got {samples.shape}")
        if samples.dtype.kind != "f":
            raise AudioError(f"cannot write {self.path}: {_no_floats(samples)}")
        if samples.shape[1] == 0:
            return
        require_size(self.path, self.samples + samples.shape[1], self.channels, self.subtype, self.format)
        peak = float(np.abs(samples).max())
        if not np.isfinite(peak):
            raise AudioError(f"cannot write {self.path}: the signal holds NaN or infinite samples")
        self.peak = max(self.peak, peak)
        if self._limit and peak > 1.0:
            self.clipped += int((np.abs(samples) > 1.0).sum())
            samples = samples.clip(-1.0, 1.0)
        try:
            for start in range(0, samples.shape[1], BLOCK_SAMPLES):  # some encoders fail on very long writes
                self._file.write(np.ascontiguousarray(samples[:, start : start + BLOCK_SAMPLES].T))
        except (soundfile.SoundFileError, AssertionError) as error:  # soundfile asserts that all was written
            raise self._sink.error or AudioError(f"cannot write {self.path}: {error}") from error
        if self._sink.error is not None:
            raise self._sink.error
        self.samples += samples.shape[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)


def _no_floats(samples: np.ndarray) -> str:
    return f"expected float samples in [-1, 1], got {samples.dtype}; divide integers by their full scale"


def write_audio(
    path: PathLike,
    samples: np.ndarray | Tensor,
    sample_rate: int,
    subtype: str | None = None,
    format: str | None = None,
    peaks: str = "clip",
) -> int:
    """Write an audio file; it appears under its name only when it is complete.

    Samples beyond full scale never wrap around. FLOAT and DOUBLE files keep them. For every other subtype:
    ``peaks="clip"`` holds them at +-1 and returns how many there were, ``"scale"`` divides the whole signal
    by its peak, ``"error"`` raises.

    Args:
        path: its suffix decides the format, unless ``format`` is given.
        samples: float of any width, (channel, sample) or (sample,), full scale at +-1; array, tensor or list.
        sample_rate: Hz.
        subtype: PCM_16, PCM_24, FLOAT, VORBIS ...; None for the format's default (PCM_16 for wav and flac).
        format: libsndfile's name (WAV, FLAC, OGG ...).
        peaks: "clip", "scale" or "error".

    Returns:
        Number of samples that were clipped.

    Raises:
        AudioError: NaN or infinite samples, none at all, integer, complex or sparse ones, wrong shape, unknown format,
            more than the format's header can count, peaks under "error".
    """
    array = real_samples(samples, f"cannot write {path}: the signal")
    if array.dtype.kind != "f":
        raise AudioError(f"cannot write {path}: {_no_floats(array)}")
    array = array[None] if array.ndim == 1 else array  # (channel, sample)
    if array.ndim != 2 or array.size == 0:
        raise AudioError(f"cannot write {path}: expected (channel, sample) with >= 1 sample, got {array.shape}")
    if peaks not in PEAKS:
        raise AudioError(f"unknown peaks={peaks!r}; known: {', '.join(PEAKS)}")
    if array.shape[0] > 1024:
        raise AudioError(f"cannot write {path}: {array.shape[0]} channels; samples must be (channel, sample)")
    writer = AudioWriter(path, sample_rate, array.shape[0], subtype, format)
    peak = float(np.abs(array).max())
    if peak > 1.0 and np.isfinite(peak) and not holds_beyond_full_scale(writer.subtype):
        if peaks == "error":
            raise AudioError(f"cannot write {path}: peak {peak:.4g} is beyond full scale; lower it or use FLOAT")
        if peaks == "scale":
            array = array / np.float32(peak)
    with writer:
        writer.write(array)
    return writer.clipped


def _no_folder(folder: Path) -> str:
    """Why a folder cannot be found: it is not there, or the system does not say."""
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        return f"cannot list {folder} ({error.strerror or error})"
    return f"no such folder: {folder}"


def list_audio_files(
    folder: PathLike, recursive: bool = True, repeats: bool = True, refused: list[AudioError] | None = None
) -> list[Path]:
    """All files of a folder whose suffix is an audio format's, sorted; hidden files and folders are left out.

    Linked folders are followed, but never into a folder that one is already in.

    Args:
        folder: where to look.
        recursive: look into its subfolders too.
        repeats: a folder that is linked twice is listed twice; without, once.
        refused: takes one error for each folder that cannot be listed, and the rest is listed; None raises the first.

    Raises:
        AudioError: there is no such folder, or it or one below it cannot be listed.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise AudioError(f"{folder} is a file, not a folder" if os.path.exists(folder) else _no_folder(folder))

    def refuse(error: OSError) -> None:
        where = folder if error.filename is None else os.fsdecode(error.filename)
        told = AudioError(f"cannot list {where} ({error.strerror or error}); allow it to be read, or move it away")
        if refused is None:
            raise told from error
        refused.append(told)

    paths: list[Path] = []
    above: dict[str, tuple[str, ...]] = {os.fspath(folder): ()}  # folder -> the real folders it lies in
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real, outer = os.path.realpath(where), above.pop(where)
        if real in outer or (not repeats and real in seen):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        above |= {os.path.join(where, name): (*outer, real) for name in folders}
        paths += [
            Path(where) / n
            for n in names
            if not n.startswith(".") and Path(n).suffix.lower() in AUDIO_SUFFIXES + FOREIGN_SUFFIXES
        ]
    return sorted(paths)
