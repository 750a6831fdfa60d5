"""From a recording on disk to mono samples at 16 kHz, and a bounded cache of what was decoded.

Decoded files are kept as 16-bit samples, half the size of float32; a file whose peak lies above full scale keeps its own
scale, so that nothing is clipped. Other rates go through ``scipy.signal.resample_poly``, not the filter of
``audio.resampling``, which says why.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from scipy.signal import resample_poly

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.audio.recording import Recording
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.shards import open_audio, shard_of
from dccrn_lib.runtime.errors import AudioError

_BLOCK = 1 << 20  # samples; the length of some files is not known beforehand
_SHORTER = 0.02  # of its length: headers of compressed files are off by a frame or two
LONG = 60  # s; a longer file is sought in, never held
_PIECES = 16  # of long files: more than a mixture is likely to hold


def decode(entry: Entry, start: float, seconds: float) -> np.ndarray:
    """Read a piece of a file, averaged to mono and brought to 16 kHz: float32 (sample,).

    Args:
        entry: a file, or a member of a shard.
        start, seconds: in s; what lies past the end is left out.

    Raises:
        AudioError: the file cannot be read, is cut off, holds NaN, or is shorter than its manifest says.
    """
    try:
        with open_audio(entry) as recording:
            rate = recording.sample_rate
            first, wanted = int(start * rate), int(np.ceil(seconds * rate))
            if recording.seekable:
                _refuse_shorter(recording, entry)
                first = min(first, recording.samples - 1)
                wanted = min(wanted, recording.samples - first)
            recording.go_to(first)
            pieces = [recording.read(min(_BLOCK, wanted))]
            got = len(pieces[0])
            while got < wanted and len(pieces[-1]):
                pieces.append(recording.read(min(_BLOCK, wanted - got)))
                got += len(pieces[-1])
            if recording.seekable:
                recording.refuse_short(first + got, first + wanted)
    except AudioError as error:
        raise AudioError(f"{error}; {_cure(entry)}") from error
    x = np.concatenate(pieces).mean(axis=1)
    if entry.scale is not None:
        x = x * np.float32(entry.scale)
    if rate != SAMPLE_RATE and len(x):
        divisor = np.gcd(rate, SAMPLE_RATE)
        x = resample_poly(x, SAMPLE_RATE // divisor, rate // divisor).astype(np.float32)
    return x


def _refuse_shorter(recording: Recording, entry: Entry) -> None:
    """AudioError if a file has become shorter than when it was scanned: cuts would fall behind its end, on nothing."""
    seconds = recording.samples / recording.sample_rate
    if seconds < entry.seconds - max(_SHORTER * entry.seconds, 0.1):
        raise AudioError(
            f"{entry.path} lasts {seconds:.4g} s, its manifest says {entry.seconds:.4g} s: it was changed after the scan"
        )


def _cure(entry: Entry) -> str:
    """What to do about a recording that cannot be used. A scan decodes no file whole: it may pass this one again."""
    if entry.offset is not None:
        return f"copy {shard_of(entry)} and its manifest here again"
    return "put back what was scanned, or take the file out of the folder and scan the corpus again"


def full_scale(x: np.ndarray) -> float:
    """What full scale of 16 bits stands for in samples: 1, or their peak where that is larger, or below 1/16."""
    peak = float(np.abs(x).max(initial=0.0))
    return peak if peak > 1 or 0 < peak < 1 / 16 else 1.0


def to_int16(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Samples as int16 and the value of full scale (:func:`full_scale`).

    A recording that is quiet as a whole, which float and 24-bit files can be without harm, keeps its resolution so.

    >>> to_int16(np.float32([0.5, -2.0]))
    (array([  8191, -32767], dtype=int16), 2.0)
    >>> to_int16(np.float32([0.0009765625, 0.0]))
    (array([32767,     0], dtype=int16), 0.0009765625)
    """
    scale = full_scale(x)
    return (x / np.float32(scale) * 32767).astype(np.int16), scale


def from_int16(samples: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """The inverse of :func:`to_int16`, float32 of the same shape, to 1/32767 of full scale."""
    x = samples.astype(np.float32) / 32767
    return x if scale == 1.0 else x * np.float32(scale)


class AudioCache:
    """Decoded short files as int16, the least recently used dropped first: bounded, so it cannot grow with a corpus.

    Args:
        megabytes: of samples, in MiB; the file in use is kept even if it is larger.
    """

    def __init__(self, megabytes: float) -> None:
        self.limit, self.size = megabytes * 2**20, 0
        self.items: OrderedDict[str, tuple[np.ndarray, float]] = OrderedDict()
        self.pieces: OrderedDict[tuple[str, float, float], np.ndarray] = OrderedDict()

    def view(self, entry: Entry, start: float, seconds: float) -> tuple[np.ndarray, float]:
        """Up to ``seconds`` s from ``start`` s, mono at 16 kHz: int16 (sample,) and the value of full scale; or float32
        out of a long file."""
        if entry.seconds > LONG:
            return self._piece(entry, start, seconds), 1.0
        if entry.path not in self.items:
            self.items[entry.path] = to_int16(decode(entry, 0.0, entry.seconds + 1))
            self.size += self.items[entry.path][0].nbytes
            while self.size > self.limit and len(self.items) > 1:
                self.size -= self.items.popitem(last=False)[1][0].nbytes
        self.items.move_to_end(entry.path)
        samples, scale = self.items[entry.path]
        first = int(start * SAMPLE_RATE)
        return samples[first : first + round(seconds * SAMPLE_RATE)], scale

    def _piece(self, entry: Entry, start: float, seconds: float) -> np.ndarray:
        """Out of a long file; the last few pieces are kept, as a plan looks at what is rendered next."""
        key = (entry.path, start, seconds)
        if key not in self.pieces:
            self.pieces[key] = decode(entry, start, seconds)
            while len(self.pieces) > _PIECES:
                self.pieces.popitem(last=False)
        return self.pieces[key]
