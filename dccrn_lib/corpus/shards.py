"""Audio files inside tar shards, read where they lie.

An entry of a packed corpus names the shard and the member, ``shard.tar::member.opus``, and where the member's bytes
are: ``offset`` and ``bytes``. A tar stores its members unchanged, so that they are read without unpacking and without
an index; memory does not grow with the shard.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dccrn_lib.audio.recording import Recording, opened
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.runtime.errors import AudioError, ManifestError

SEPARATOR = "::"  # between shard and member


class ByteRange(io.RawIOBase):
    """Part of a file as a file of its own, read only.

    Args:
        path: the file.
        offset: first byte of the part.
        size: number of bytes.
    """

    def __init__(self, path: str, offset: int, size: int) -> None:
        self._file = open(path, "rb")
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        self._at = min(self._at, self._size)  # a header may promise what no system can seek to
        return self._at

    def readinto(self, buffer) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        got = self._file.readinto(memoryview(buffer)[:wanted])
        self._at += got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


def shard_of(entry: Entry) -> str:
    """Path of the tar that holds a packed entry; a folder may have the separator in its name, a member may not."""
    return entry.path.rpartition(SEPARATOR)[0] or entry.path


def member_bytes(entry: Entry) -> bytes:
    """The file of a packed entry as it was stored.

    Raises:
        ManifestError: there is no such shard, or it ends before the member does, or another member lies there.
    """
    assert entry.offset is not None and entry.bytes is not None  # as of every packed entry
    try:
        before = min(entry.offset, tarfile.BLOCKSIZE)
        with ByteRange(shard_of(entry), entry.offset - before, before) as part:
            header = part.read()
        with ByteRange(shard_of(entry), entry.offset, entry.bytes) as part:
            data = part.read()
    except OSError as error:
        raise ManifestError(
            f"{shard_of(entry)}: cannot be read ({error.strerror or error}); copy the shard here"
        ) from None
    if len(data) != entry.bytes:
        raise ManifestError(f"{entry.path}: the shard is cut off; copy {shard_of(entry)} again")
    if not _heads(header, entry):
        raise ManifestError(
            f"{entry.path}: the shard is damaged or of another packing; copy {shard_of(entry)} and its manifest again"
        )
    return data


def _heads(header: bytes, entry: Entry) -> bool:
    """Whether a block of a tar is the header of a packed entry's member."""
    try:
        member = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return member.name == entry.path.rpartition(SEPARATOR)[2] and member.size == entry.bytes


def require_there(entries: Iterable[Entry]) -> None:
    """Refuse recordings that are not there before hours are spent on the others; no file is opened.

    Raises:
        AudioError: a file or a shard is missing, or a shard ends before a member does.
    """
    ends: dict[str, int] = {}  # of every file, bytes that it must have
    for entry in entries:
        path = shard_of(entry) if entry.offset is not None else entry.path
        ends[path] = max(ends.get(path, 0), (entry.offset or 0) + (entry.bytes or 0))
    sizes = {path: os.stat(path).st_size if os.path.exists(path) else -1 for path in ends}
    gone = [path for path, size in sizes.items() if size < 0]
    if gone:
        raise AudioError(
            f"no such audio file: {gone[0]} ({len(gone)} of {len(ends)} files of the manifests are missing); put them "
            "back, or scan the corpus again"
        )
    cut = next((path for path, size in sizes.items() if size < ends[path]), None)
    if cut is not None:
        raise AudioError(f"{cut}: the shard is cut off; copy it here again")


@contextmanager
def open_audio(entry: Entry) -> Iterator[Recording]:
    """The audio of an entry, in a file of its own or in a shard, opened for reading.

    Raises:
        AudioError: as :func:`dccrn_lib.audio.recording.opened`; also of a shard that is missing.
    """
    if entry.offset is None:
        with opened(entry.path, whole=False) as recording:
            yield recording
        return
    assert entry.bytes is not None  # an offset comes with a size
    try:
        part = io.BufferedReader(ByteRange(shard_of(entry), entry.offset, entry.bytes), 1 << 16)
    except OSError as error:
        raise AudioError(f"cannot read {shard_of(entry)} ({error.strerror or error})") from error
    with part, opened(entry.path, whole=False, part=part) as recording:
        yield recording


def suffix_of(entry: Entry) -> str:
    """The suffix, with its dot: ".opus", ".flac" ...; of a packed entry that of its member."""
    return Path(entry.path.rpartition(SEPARATOR)[-1]).suffix
