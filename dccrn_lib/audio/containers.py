"""What the container of a recording says about its own end, where libsndfile would silently read what is left.

A recording that was cut off in copying, or whose recorder never finished its header, still opens: libsndfile reads the
part that it sees. Here the bytes are asked whether that part is the whole. FLAC has no such bytes for its end, which is
tried by decoding it (``dccrn_lib.audio.recording``); MP3 has its own module (``dccrn_lib.audio.mp3_frames``).

Sources: the RIFF/WAVE layout of Microsoft and IBM (1991), EBU Tech 3306 (RF64), Apple's AIFF-C (1991) and Core Audio
Format specifications, the header of Sun's AU; RFC 3533 for the pages of Ogg.
"""

from __future__ import annotations

import mmap
import re
import shlex
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

# libsndfile's notes about a file with fewer bytes of audio than its header says; RF64 and W64 name the whole file only
_TOO_SHORT = re.compile(
    r"^ *(?:data|SSND|BODY|Data Size|riff|Riff size|Data length) *:? *(\d+) \(?should be (\d+)", re.MULTILINE
)
_UNKNOWN_LENGTH = 0x7FFFF000  # bytes; programs that write into a pipe put this or more
_SLACK = 128  # bytes; some programs count their header as audio
_LEAST_REST = 1024  # bytes behind the audio that are worth a question
_MOST_LOST = 1 << 14  # bytes; 2 % of an hour would be a minute
_OGG_PAGE = struct.Struct("<4sBBqIIIB")  # "OggS", version, flags, granule, serial, page, checksum, segments
_FLAC_STREAM = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # its mark, and the head of the block that comes first
_KNOWN_CHUNKS = (b"LIST", b"id3 ", b"bext", b"_PMX", b"cue ", b"fact", b"smpl", b"iXML", b"PEAK")
_BLOCK = 1 << 16  # bytes
_BEGINS = 2  # flag of a page: first of a logical stream


def shortfall(notes: str) -> str | None:
    """Why a file is not whole by libsndfile's notes (``SoundFile.extra_info``), or None."""
    for match in _TOO_SHORT.finditer(notes):
        promised, there = map(int, match.groups())
        enough = max(min(0.98 * promised, promised - _SLACK), promised - _MOST_LOST)
        if promised < _UNKNOWN_LENGTH and there < enough:
            return (
                f"is cut off: its header promises {promised} bytes of audio, {there} are there; copy or record it again"
            )
    return None


class _Chunks(NamedTuple):
    """How a container lays out its chunks: where they begin, their heads, the one with the audio, padded to even or not."""

    start: int
    head: struct.Struct
    audio: bytes
    padded: bool


_WAV = _Chunks(12, struct.Struct("<4sI"), b"data", True)
_LAYOUTS = {
    b"RIFF": _WAV,
    b"RF64": _WAV,
    b"FORM": _Chunks(12, struct.Struct(">4sI"), b"SSND", True),  # AIFF
    b"caff": _Chunks(8, struct.Struct(">4sq"), b"data", False),
}
_ELSEWHERE = 0xFFFFFFFF  # a length in 32 bits that stands elsewhere, or nowhere


def overhang(path: Path) -> str | None:
    """Why a WAV, RF64, AIFF, CAF or AU file holds more audio than its header says, or None.

    A recorder that was killed leaves a length of 0 or of an earlier moment. What stands behind the audio is otherwise
    chunks with names, or tags.
    """
    end = path.stat().st_size
    with open(path, "rb") as file:
        kind = file.read(4)
        if kind == b".snd":
            at, promised = _end_of_au(file)
            name = b""
        elif kind in _LAYOUTS:
            at, promised, name = _end_of_chunks(file, _LAYOUTS[kind], end)
        else:
            return None
        rest = end - at
        if promised is None or rest < max(_LEAST_REST, min(0.02 * promised, _MOST_LOST)):
            return None
        if name[:3] in (b"ID3", b"TAG"):
            return None
        if promised and (name in _KNOWN_CHUNKS or _is_zero(file, at)):
            return None  # a chunk that was cut off, or a sector that was filled up
    cure = f"ffmpeg -ignore_length 1 -i {shlex.quote(path.name)} {shlex.quote(f'{path.stem}_whole.wav')}"
    return (
        f"says that it holds {promised} bytes of audio, but {rest} more follow: its recorder did not finish it; repair it "
        f"first: {cure if kind in (b'RIFF', b'RF64') else 'import it as raw data into an audio editor'}"
    )


def _end_of_au(file: BinaryIO) -> tuple[int, int | None]:
    """(where the audio of an AU file ends, its bytes by the header, or None where they are not said)."""
    start, size = struct.unpack(">II", file.read(8).ljust(8, b"\xff"))
    return start + size, None if size == _ELSEWHERE else size


def _end_of_chunks(file: BinaryIO, layout: _Chunks, end: int) -> tuple[int, int | None, bytes]:
    """(where the last chunk ends, bytes of audio by the header or None, what stands there in place of a chunk's name)."""
    start, head, audio, padded = layout
    at, promised, name, unpadded, long = start, None, b"", 0, None
    while at + head.size <= end:
        file.seek(at)
        name, size = head.unpack(file.read(head.size))
        if name == b"ds64":  # of RF64: the lengths of the file and of its audio in 64 bits
            long = struct.unpack("<QQ", file.read(16).ljust(16, b"\xff"))[1]
        if name == audio and size in (_ELSEWHERE, -1):
            size = end if long is None or size == -1 else long  # to the end of the file, if nothing says otherwise
        if promised is not None and not _is_chunk(name, at + head.size + size, end):
            if not unpadded:
                break
            at, unpadded = at - 1, 0  # some programs leave out the byte that makes a length even
            continue
        promised = size if name == audio and promised is None else promised
        odd = size % 2 if padded else 0
        at, unpadded = at + head.size + size + odd, odd
    return at, promised, name


def _is_zero(file: BinaryIO, at: int) -> bool:
    """Whether a file holds nothing but zeros from a position on."""
    file.seek(at)
    return not any(block.strip(b"\0") for block in iter(lambda: file.read(_BLOCK), b""))


def _is_chunk(name: bytes, its_end: int, end: int) -> bool:
    """Whether eight bytes are the head of a chunk: a printable name, and a size that ends within the file."""
    return all(0x20 <= letter < 0x7F for letter in name) and its_end <= end + 1


def ogg_fault(path: Path) -> str | None:
    """Why an Ogg file cannot be read as one whole stream, or None.

    All pages are visited by their heads. A file that ends between two pages has no fault, though the page that
    marks the end may be missing: recorders of live streams never write it.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end, chains, between = 0, len(data), 0, True
        while at < end:
            head = data[at : at + _OGG_PAGE.size]
            if head[:4] != b"OggS"[: len(head)]:
                following = data.find(b"OggS", at)
                if following < 0:
                    break  # tags or padding
                return f"is damaged: {following - at} bytes at position {at} are no part of its stream; copy it again"
            if len(head) < _OGG_PAGE.size:
                return _OGG_CUT
            _, _, flags, *_, segments = _OGG_PAGE.unpack(head)
            body = at + _OGG_PAGE.size
            at = body + segments + sum(data[body : body + segments])
            if at > end or body + segments > end:
                return _OGG_CUT
            begins = bool(flags & _BEGINS)
            chains += begins and between  # streams side by side all begin together, streams in a chain do not
            between = not begins
    if chains > 1:
        return f"is a chain of {chains} streams, of which only the first would be read; join them first: {to_wav(path)}"
    return None


def to_wav(path: Path) -> str:
    """A command that writes the same sound as a WAV file beside it."""
    return f"ffmpeg -i {shlex.quote(path.name)} {shlex.quote(f'{path.stem}.wav')}"


def flac_fault(path: Path) -> str | None:
    """Why a FLAC file is more than one stream, of which libsndfile reads the first, or None."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        streams = sum(1 for _ in _FLAC_STREAM.finditer(data))
    if streams <= 1:
        return None
    return (
        f"is {streams} files joined, of which only the first would be read; split them where they were joined, or join "
        "them by a program that knows FLAC: sox first.flac second.flac whole.flac"
    )


_OGG_CUT = "is cut off: its last page is incomplete; copy or record it again"
