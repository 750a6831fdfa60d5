"""A recording opened for reading: one rule for what is read, whoever asks.

Scanning, training, enhancement, evaluation and the ONNX runner all open files here, so that what one of them takes all
take. libsndfile decodes; NumPy alone stands beside it. Refused, with a message that says what to do: what is missing, a
folder or a pipe, empty, corrupt, cut off or unfinished, of an odd sampling rate, or holds values that are no sound.
Formats whose length stands in no header (FLAC written into a pipe) or that cannot be sought in (GSM) are read in order.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from dccrn_lib.audio.containers import flac_fault, ogg_fault, overhang, shortfall, to_wav
from dccrn_lib.audio.mp3_frames import mp3_fault, mp3_frames
from dccrn_lib.runtime.errors import AudioError
from dccrn_lib.runtime.paths import PathLike

#: Hz; beyond them a header is wrong, and converting to 16 kHz would take minutes or gigabytes.
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
#: Hz; libvorbis ends the process above it.
HIGHEST_VORBIS_RATE = 200_000
#: An Ogg header counts channels in one byte.
MOST_OGG_CHANNELS = 255
#: 200 dB above full scale: floats in units of 32-bit integers stay below it, and squares above it overflow.
LOUDEST = 1e10
#: Recordings in formats that libsndfile does not read: found in folders all the same, and named with what to do.
FOREIGN_SUFFIXES = (".aac", ".amr", ".ape", ".m4a", ".mka", ".weba", ".wma", ".wv")
_FOREIGN_FILMS = (".3gp", ".mkv", ".mov", ".mp4", ".webm")
_NO_LENGTH = 1 << 62  # libsndfile's answer where the header says nothing
_BLOCK = 1 << 16  # samples
_NEAR_THE_END = 1  # s


def native_path(path: Path) -> Path | bytes:
    """The path as soundfile takes it: names that are not valid text (Linux allows them) as bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def foreign_hint(path: PathLike) -> str:
    """What to do with a file in a format that libsndfile does not read, by its suffix; "" for all others."""
    path = Path(path)
    if path.suffix.lower() not in FOREIGN_SUFFIXES + _FOREIGN_FILMS:
        return ""
    return f"{path.suffix} is not read here, convert it first: ffmpeg -i {path.name} {path.stem}.wav"


def refuse_rate(rate: float, name: str) -> None:
    """AudioError unless the sampling rate lies in [LOWEST_RATE, HIGHEST_RATE] Hz; ``name`` begins the message."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name} has a sampling rate of {rate:.10g} Hz; rates of {LOWEST_RATE} to {HIGHEST_RATE} Hz are read: "
            "correct its header, or resample it"
        )


class _InOrder(soundfile.SoundFile):
    """Reads on from where it stands. soundfile itself seeks after each piece, which some formats do not allow."""

    def seekable(self) -> bool:
        return False


class Recording:
    """Samples of one open file; made by :func:`opened`.

    Args:
        file: open for reading.
        name: begins every message.
    """

    def __init__(self, file: soundfile.SoundFile, name: str) -> None:
        self._file, self.name, self._at = file, name, 0
        self.sample_rate, self.channels = file.samplerate, file.channels
        self.format, self.subtype = file.format, file.subtype
        self.tags = tags_of(file)  # title, artist ...
        self.samples = file.frames  # per channel; as the header says, or counted by opened()
        #: False where the file is read from its beginning to reach a place.
        self.seekable = self._can_seek()

    def _can_seek(self) -> bool:
        if self._file.frames >= _NO_LENGTH or self.subtype.startswith("DWVW"):
            return False
        try:
            self._file.seek(0)
        except soundfile.SoundFileError:
            return False
        return True

    def read(self, count: int) -> np.ndarray:
        """The next ``count`` samples, fewer at the end: float32 (sample, channel).

        Raises:
            AudioError: NaN, infinity, or a value beyond LOUDEST (the index is named).
        """
        with np.errstate(over="ignore"):  # a double beyond float32 is infinite
            samples = self._file.read(count, dtype="float32", always_2d=True)
        sound = np.abs(samples) <= LOUDEST  # False for NaN
        if not sound.all():
            row = int(np.argmin(sound.all(axis=1)))
            value = samples[row][~sound[row]][0]
            what = f"a sample of {value:.4g}" if np.isfinite(value) else "a NaN or infinite sample"
            raise AudioError(f"{self.name} holds {what} at index {self._at + row}; repair or remove the file")
        self._at += len(samples)
        return samples

    def go_to(self, sample: int) -> None:
        """Stand at this sample, or at the end if there are fewer.

        Raises:
            AudioError: the file can only be read in order, and is past that sample.
        """
        if self.seekable:
            place = min(sample, self.samples)
            if self.subtype == "VORBIS" and self.samples - place < _NEAR_THE_END * self.sample_rate:
                # libsndfile may land a block off near the end of Vorbis: from further in front it is reached by reading
                self._at = self._file.seek(max(0, self.samples - 2 * _NEAR_THE_END * self.sample_rate))
                while self._at < place and len(self.read(min(_BLOCK, place - self._at))):
                    pass
                return
            self._at = self._file.seek(place)
            return
        if sample < self._at:
            raise AudioError(f"{self.name} is read in order, and stands at {self._at} already, behind {sample}")
        while self._at < sample and len(self.read(min(_BLOCK, sample - self._at))):
            pass

    def refuse_short(self, got: int, wanted: int) -> None:
        """AudioError unless about as many samples could be read as wanted: compressed headers may be off by a frame."""
        if got < 0.98 * wanted:
            raise AudioError(f"{self.name} is cut off: its header promises {wanted} samples, {got} could be read")

    def count(self) -> int:
        """Read to the end; how many samples there are."""
        while len(self.read(_BLOCK)):
            pass
        return self._at


def _whole(path: Path, file: soundfile.SoundFile) -> None:
    """AudioError if the container says that this is not the whole recording, and no more."""
    fault = shortfall(file.extra_info)
    if fault is None:
        fault = overhang(path)
    if fault is None and file.format == "OGG":
        fault = ogg_fault(path)
    if fault is not None:
        raise AudioError(f"{path} {fault}")


def _end_is_there(path: Path, recording: Recording) -> None:
    """AudioError unless a FLAC or MP3 file is whole by its frames, which alone say where it ends."""
    mp3 = recording.format in ("MP3", "MPEG")
    if not (mp3 or recording.format == "FLAC"):
        return
    fault = mp3_fault(path, recording.samples, recording.sample_rate) if mp3 else flac_fault(path)
    if fault is not None:
        raise AudioError(f"{path} {fault}")
    if recording.samples <= recording.sample_rate:
        return
    tail = recording.sample_rate // 10
    place = recording.samples - tail
    if mp3:  # headers are off by a frame or two, guesses from a steady bit rate by a percent
        known = mp3_frames(path).length_known
        place = max(int(0.98 * recording.samples), recording.samples - recording.sample_rate if known else 0)
    with _decoder(path) as file:
        again = Recording(file, recording.name)
        again.go_to(place)
        enough = 1 if mp3 else tail
        if len(again.read(enough)) < enough:
            found = mp3_frames(path) if mp3 else None
            if found is not None and found.to_the_end and not found.length_known:
                raise AudioError(
                    f"{path} says that it is longer than its frames are: its length stands in no header; convert it "
                    f"first: {to_wav(path)}"
                )
            raise AudioError(
                f"{path} is cut off: nothing can be decoded at the end that its header states; copy it again"
            )


def _decoder(source: Path | Any) -> soundfile.SoundFile:
    try:
        # soundfile takes a path as bytes too; its annotations leave that out
        return _InOrder(native_path(source) if isinstance(source, Path) else source)  # pyright: ignore[reportArgumentType]
    except TypeError as error:  # a format without a header
        raise AudioError(f"cannot read {source} as audio ({error})") from error


def _refuse_what_is_no_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"no such audio file: {path}") from None
    except OSError as error:
        raise AudioError(f"cannot read {path} as audio ({error.strerror or error})") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path} is a folder, expected an audio file")
    if not stat.S_ISREG(status.st_mode):
        kind = "a pipe" if stat.S_ISFIFO(status.st_mode) else "a device or socket"
        raise AudioError(f"{path} is {kind}; a recording is read more than once, so write it into a file first")
    if status.st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes); record or copy it again")
    try:
        with open(path, "rb"):  # of what the system says libsndfile tells nothing
            pass
    except OSError as error:
        raise AudioError(f"cannot read {path} ({error.strerror or error}); allow it to be read, or copy it") from error


@contextmanager
def opened(path: PathLike, whole: bool = True, part: Any = None) -> Iterator[Recording]:
    """Open for reading; every way in which that can fail becomes a one-line AudioError.

    Args:
        path: the file.
        whole: try the end of formats that show a cut only there, and count what has no length in its header. Without, a
            cut shows when it is read, and ``samples`` may be beyond all files.
        part: a file-like object to read instead (a member of a shard, whole by its making); ``path`` names it.

    Raises:
        AudioError: missing, a folder, a pipe, empty, corrupt, cut off, not audio, no sample, or an odd sampling rate.
    """
    path = Path(path)
    if part is None:
        _refuse_what_is_no_file(path)
    try:
        with _decoder(path if part is None else part) as file:
            recording = Recording(file, str(path))
            if part is None:
                _whole(path, file)
            refuse_rate(recording.sample_rate, str(path))
            if recording.samples < 1:
                raise AudioError(f"{path} has no samples (zero length)")
            if whole and recording.samples >= _NO_LENGTH:
                with _decoder(path) as once:
                    recording.samples = Recording(once, str(path)).count()
            elif whole and part is None:
                _end_is_there(path, recording)
            yield recording
    except soundfile.SoundFileError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
        todo = foreign_hint(path) or "the file is corrupt, cut off or not audio"
        raise AudioError(f"cannot read {path} as audio ({reason}); {todo}") from error
    except OSError as error:
        raise AudioError(f"cannot read {path} as audio ({error.strerror or error})") from error


def require_rate(path: PathLike, rate: int, channels: int, subtype: str | None, form: str) -> None:
    """Refuse to write a file whose header cannot hold the sampling rate: it would play at another speed.

    Args:
        path: to be written, for the message.
        rate: in Hz.
        channels: their number.
        subtype, form: libsndfile's; a combination that it refuses itself is left to it.

    Raises:
        AudioError: the rate comes back as another one, or libvorbis cannot encode it or so many channels (it crashes).
    """
    if form == "OGG" and channels > MOST_OGG_CHANNELS:
        raise AudioError(f"cannot write {path}: {form} takes no more than {MOST_OGG_CHANNELS} channels; use .wav")
    if form == "OGG" and rate > HIGHEST_VORBIS_RATE:
        raise AudioError(f"cannot write {path}: {form} takes no more than {HIGHEST_VORBIS_RATE} Hz; use .wav or .flac")
    header = io.BytesIO()
    try:
        with soundfile.SoundFile(header, "w", rate, channels, subtype, format=form) as file:
            file.write(np.zeros((1, channels)))
        header.seek(0)
        with soundfile.SoundFile(header) as file:
            held = file.samplerate
    except soundfile.SoundFileError:
        return
    if held != rate:
        raise AudioError(f"cannot write {path}: {form} would hold {rate} Hz as {held} Hz; use .wav or .flac")


#: Formats whose header counts bytes in 32 bits, or fewer: beyond 4 GiB it wraps around, and nothing is said.
#: The others count in 64 bits or not at all.
LARGE_FORMATS = ("W64", "RF64", "CAF", "FLAC", "OGG", "MP3", "IRCAM", "NIST", "PAF", "PVF")
_LARGEST = (1 << 32) - (1 << 16)  # bytes of samples that leave room for the header and tags
_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "DPCM_16": 2, "DWVW_16": 2, "DWVW_24": 3}


def require_size(path: PathLike, samples: int, channels: int, subtype: str | None, form: str) -> None:
    """Refuse to write a file whose header cannot hold its length: most of it would be lost to who reads it.

    Args:
        path: to be written, for the message.
        samples: per channel.
        channels: their number.
        subtype, form: libsndfile's. A coded sample counts as one byte, the most that it takes.

    Raises:
        AudioError: the samples take about 4 GiB or more, and the format has no room for such a number; 2^21 samples or
            more in an SDS file, which counts them in 21 bits.
    """
    if form == "SDS" and samples >= 1 << 21:
        raise AudioError(
            f"cannot write {path}: SDS holds up to {(1 << 21) - 1} samples, {samples} are to be written; use .wav"
        )
    size = samples * channels * _BYTES.get(subtype or soundfile.default_subtype(form) or "", 1)
    if size > _LARGEST and form not in LARGE_FORMATS:
        raise AudioError(
            f"cannot write {path}: {form} holds up to 4 GiB, and {size / 2**30:.1f} GiB of samples are to be written; "
            "use .w64, .rf64, .caf or .flac"
        )


#: What libsndfile knows of a recording's tags. It writes "software" itself.
MOST_TAG, MOST_TAGS = 1000, 3000  # bytes of one and of all: some headers hold no more, or cannot be read again
TAGS = ("title", "copyright", "artist", "comment", "date", "album", "license", "tracknumber", "genre")


def tags_of(file: soundfile.SoundFile) -> dict[str, str]:
    """The tags of an open file that are not empty."""
    return {tag: value for tag, value in file.copy_metadata().items() if tag in TAGS and value}


def write_tags(file: soundfile.SoundFile, tags: Mapping[str, str]) -> None:
    """Give a file its tags before the first sample.

    Left out: what the format does not have or libsndfile garbles there (beyond ASCII in MP3), and what is longer than
    MOST_TAG bytes, or MOST_TAGS in all.
    """
    left = MOST_TAGS
    for tag, value in tags.items():
        size = len(value.encode())
        if size > min(MOST_TAG, left) or (file.format in ("MP3", "MPEG") and not value.isascii()):
            continue
        left -= size
        with suppress(soundfile.SoundFileError):  # no such tag in this format
            setattr(file, tag, value)


def kept_subtype(form: str, info: Any) -> str | None:
    """The sample format in which a file of this format loses least of a recording: its own, or 24 bit for floats and
    32 bit, or None for the format's default.

    Args:
        form: of the file to be written, as libsndfile names it.
        info: of the recording, with libsndfile's ``format`` and ``subtype``.
    """
    if keeps(form, info):
        return info.subtype
    exact = info.subtype in ("FLOAT", "DOUBLE", "PCM_32") and soundfile.check_format(form, "PCM_24")
    return "PCM_24" if exact and (form, "PCM_24") not in _NOT_WRITTEN else None


#: What libsndfile reads and does not write, or writes wrong: PAF of 24 bit loses samples from three channels on, and coded
#: VOC grows by one.
_NOT_WRITTEN = {("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II"), ("WAV", "MPEG_LAYER_III"), ("AIFF", "DWVW_12")}
_NOT_WRITTEN |= {("PAF", "PCM_24"), ("VOC", "ULAW"), ("VOC", "ALAW")}


def keeps(form: str, info: Any) -> bool:
    """Whether a file of a format (WAV, FLAC ...) can hold the sample format of a recording.

    Coded samples (MPEG, ADPCM, GSM ...) stay with their own format: in another one they take some rates only, and may
    come out longer.

    Args:
        form: of the file to be written.
        info: of the recording, with libsndfile's ``format`` and ``subtype``.
    """
    plain = info.subtype.startswith("PCM") or info.subtype in ("FLOAT", "DOUBLE", "ULAW", "ALAW")
    written = (form, info.subtype) not in _NOT_WRITTEN and soundfile.check_format(form, info.subtype)
    return (plain or form == info.format) and written
