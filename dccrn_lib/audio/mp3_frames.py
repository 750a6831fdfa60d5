"""How much sound the frames of an MP3 file hold, whatever its header says.

An MP3 file has no length of its own. Most encoders put one into the first frame (Xing, Info or VBRI); without it
libsndfile guesses from the size of the file and of the first frames, and stops there: of a file of variable bit rate, or of
two files joined, the rest would be lost in silence. Here the heads of all frames are visited, and their samples added up.

Source: the layout of a frame's four bytes by ISO/IEC 11172-3 and 13818-3, MPEG 2.5 as encoders write it.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from dccrn_lib.audio.containers import to_wav

_KBIT = {  # (MPEG 1, layer) -> kbit/s by index 1 to 14
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)  # Hz, of MPEG 1; halved by MPEG 2, quartered by MPEG 2.5
_ID3V2, _ID3V1 = 10, 128  # bytes of the head of a tag in front, and of a tag at the end
_MORE, _A_SECOND = 1.02, 1.0  # headers are off by a frame or two, guesses from a steady bit rate by a percent


@dataclass(frozen=True)
class Mp3Frames:
    """What was visited.

    Args:
        samples: per channel, in all frames.
        to_the_end: the last frame ends where the file or its tags do.
        length_known: the first frame tells the length (Xing, Info or VBRI).
    """

    samples: int
    to_the_end: bool
    length_known: bool


def mp3_frames(path: Path) -> Mp3Frames:
    """Visit all frames of an MP3 file (layers 1 to 3); stops at what is neither frame nor ID3 tag."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end, samples, first = 0, len(data), 0, b""
        while at + 4 <= end:
            if data[at : at + 3] == b"ID3" and at + _ID3V2 <= end:
                a, b, c, d = data[at + 6 : at + _ID3V2]  # seven bits each
                at += _ID3V2 + (a << 21 | b << 14 | c << 7 | d)
            elif data[at : at + 3] == b"TAG":
                at += _ID3V1
            else:
                frame = _frame(data[at : at + 4])
                if frame is None:
                    break
                first = first or data[at : at + frame[0]]
                at, samples = at + frame[0], samples + frame[1]
        to_the_end = end - 4 < at <= end or data[at : at + 8] == b"APETAGEX"
        return Mp3Frames(samples, to_the_end, any(mark in first for mark in (b"Xing", b"Info", b"VBRI")))


def _frame(head: bytes) -> tuple[int, int] | None:
    """(bytes, samples per channel) of the frame with this head, or None."""
    word = int.from_bytes(head, "big")
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    bit_rate, rate, padding = word >> 12 & 15, word >> 10 & 3, word >> 9 & 1
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    first = version == 3  # MPEG 1
    hz = _RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    bits = 1000 * _KBIT[first, layer][bit_rate - 1]
    if layer == 1:
        return (12 * bits // hz + padding) * 4, 384
    samples = 576 if layer == 3 and not first else 1152
    return samples // 8 * bits // hz + padding, samples


def mp3_fault(path: Path, samples: int, rate: int) -> str | None:
    """Why only a part of an MP3 file would be read, or None.

    Args:
        path: the file.
        samples: per channel, as libsndfile says.
        rate: in Hz.
    """
    found = mp3_frames(path)
    if found.samples <= _MORE * samples + _A_SECOND * rate:
        return None
    return (
        f"holds some {found.samples / rate:.1f} s of sound, of which only {samples / rate:.1f} s would be read: its length "
        f"stands in no header, or it is several files joined; convert it first: {to_wav(path)}"
    )
