"""Files: written as a whole or not at all, and their hash."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there on success, remove it on any exception.

    A reader never sees a half-written file, and an interrupted run leaves the old one as it was.
    The temporary file keeps the suffix of ``path``, because audio writers choose the format by it;
    of a long name it keeps the beginning, since a file system takes 255 bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:24]}.", suffix=path.suffix[-24:], dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def hash_files(paths: Iterable[str | os.PathLike]) -> str:
    """SHA-256 over the contents of files in the order given, as 64 hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def write_json(path: Path, record: dict) -> None:
    """Write a record, indented, as a whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
