"""Files that a C library writes through callbacks: what the system said of a full disk is raised, not what C made of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Any

from dccrn_lib.runtime.paths import PathLike


class Sink:
    """A file open for writing that never raises: a callback from C cannot. ``error`` is the first error of the system."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of ``data``; the number of bytes that were."""
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                done += self.file.write(view[done:])
        except OSError as error:
            error.filename = self.file.name
            self.error = self.error or error
        return done

    def read(self, size: int = -1) -> bytes:
        """As of every file; a header is read again before it is completed."""
        return self.file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of every file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """As of every file."""
        return self.file.tell()


@contextmanager
def sink(path: PathLike) -> Iterator[Any]:  # soundfile takes a Sink; its annotations know paths only
    """A new file to hand to C: a :class:`Sink`.

    Raises:
        OSError: the system refused a write; the message names ``path``.
    """
    with FileIO(os.fspath(path), "w+") as file:
        written = Sink(file)
        try:
            yield written
        except Exception:
            if written.error is not None:
                raise written.error from None
            raise
        if written.error is not None:
            raise written.error
