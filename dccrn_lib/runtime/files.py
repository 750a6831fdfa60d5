"""Files: written as a whole or not at all, and their hash.

What is being written lies beside its place, hidden and named ``.NAME.RANDOM.partial``. It goes when the writing fails or
a signal ends the process; after ``kill -9`` the next process that writes into the folder removes it. A lock tells what
is still being written (see ``locks``).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dccrn_lib.runtime.errors import ConfigError, DamagedFileError, DccrnError
from dccrn_lib.runtime.json_text import parse_object, to_json
from dccrn_lib.runtime.locks import is_at, try_lock, unlock
from dccrn_lib.runtime.paths import PathLike

_PARTIAL = re.compile(r"\..*\.[a-z0-9_]{8}\.partial(\..*)?", re.DOTALL)
_STALE_SECONDS = 24 * 3600  # where there are no locks, what is this old belongs to no running process
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # told of the open file, without its name
_DEVICES, _MEMORY = "/dev", "/dev/shm"  # where nothing is created, save in the folder that is memory
_swept: set[str] = set()  # folders in which this process has looked for what others left


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there on success, remove it on any exception.

    A reader never sees a half-written file, and an interrupted run leaves the old one as it was.
    The temporary file keeps the suffix of ``path``, because audio writers choose the format by it;
    of a long name it keeps the beginning, since a file system takes 255 bytes.

    A file that is replaced keeps its mode. A symbolic link stays one: the file that it names is replaced. A device or a
    pipe (/dev/null, /dev/stdout) is written to.

    Raises:
        ConfigError: as of :func:`require_place`.
        OSError: of the system, named after ``path`` where it would name the temporary file or none.
    """
    path = Path(path)
    if _is_device(path):
        with _written_to(path) as temporary:
            yield temporary
        return
    require_place(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    temporary = target
    try:
        Path(os.path.realpath(target.parent)).mkdir(parents=True, exist_ok=True)  # also where a link leads to
        remove_stale(target.parent, once=True)
        descriptor, temporary = _new_partial(target)
        try:
            yield temporary
            temporary.chmod(stat.S_IMODE(target.stat().st_mode) if target.is_file() else 0o666 & ~_umask())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
            unlock(descriptor) if os.name == "posix" else None
    except OSError as error:
        _name_after(error, temporary, path)
        raise


def require_place(path: PathLike) -> None:
    """Refuse a new file or folder among the devices: with a slip in ``/dev/null``, root would leave a plain file there.

    Args:
        path: to be written; a device, pipe or folder that exists is fine, and so is all below ``/dev/shm``.

    Raises:
        ConfigError: it is in ``/dev``, and there is none of that name.
    """
    place = Path(os.path.realpath(path))
    among = os.name == "posix" and Path(_DEVICES) in place.parents and Path(_MEMORY) not in place.parents
    if among and not place.is_dir() and not _is_device(Path(path)):
        raise ConfigError(f"{path}: there is no such device, and no file is made in {_DEVICES}; choose another place")


def require_writable(path: PathLike, folder: bool = False) -> None:
    """Refuse a file or folder that could not be written, before the work whose outcome it is to hold.

    Args:
        path: to be written; a device or pipe that exists is fine.
        folder: it is a folder to write into.

    Raises:
        ConfigError: the folder that takes it, or the nearest one above that exists, is read-only for this process.
    """
    if _is_device(Path(path)):
        return
    place = Path(os.path.realpath(path))
    nearest = next((p for p in (place, *place.parents)[0 if folder else 1 :] if os.path.exists(p)), None)
    if nearest is None or not nearest.is_dir():
        return  # a file is no folder, as whoever writes is told
    if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigError(f"{path}: {nearest} cannot be written to; allow it, or choose another place")


def require_stem(name: str) -> None:
    """Refuse a name of a record that is no stem of a file: ``../x``, ``a/b``, ``.``, nothing.

    Raises:
        ConfigError: with what to write.
    """
    if not name or name in (".", "..") or set(name) & set("/\\"):
        raise ConfigError(f"{name!r} is no name of a record; write it without folders, as in my_result")


def _new_partial(target: Path) -> tuple[int, Path]:
    """An empty temporary file for ``target``, open and locked."""
    suffix = f".partial{target.suffix[-24:]}"
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.stem[:24]}.", suffix=suffix, dir=target.parent)
        if os.name != "posix":
            os.close(descriptor)  # an open file could not be renamed
            return descriptor, Path(name)
        if try_lock(descriptor) is None or is_at(descriptor, name):
            return descriptor, Path(name)
        unlock(descriptor)  # another process took it for stale before it was locked


def _is_device(path: Path) -> bool:
    """Whether a path is neither a file nor a folder, or a name of what this process has open."""
    name = os.path.abspath(path)
    for _ in range(40):  # as many links as Linux follows; /dev/stdout is one to /proc/self/fd/1
        if os.path.realpath(os.path.dirname(name)).startswith("/proc/"):
            return True
        if not os.path.islink(name):
            break
        name = os.path.join(os.path.dirname(name), os.readlink(name))
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # not there, or whoever writes it finds out
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _written_to(device: Path) -> Iterator[Path]:
    """Yield a temporary path whose content is written to ``device`` on success."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"output{device.suffix}"
        try:
            yield temporary
            with open(temporary, "rb") as source, open(device, "ab") as destination:
                shutil.copyfileobj(source, destination)
        except OSError as error:
            _name_after(error, temporary, device)
            raise


@contextmanager
def atomic_folder(out: PathLike, first_wins: bool = False) -> Iterator[Path]:
    """Yield a hidden folder beside ``out`` that takes its name on success and is removed otherwise.

    Args:
        out: must not exist, or be an empty folder.
        first_wins: another process that made ``out`` meanwhile is no error: its folder stays.

    Raises:
        ConfigError: as of :func:`require_place`.
        OSError: of the system, named after ``out``; ``out`` is not empty.
    """
    require_place(out)
    out = Path(os.path.realpath(out))
    partial = out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(out.parent, once=True)
        partial, descriptor = _new_partial_folder(out)
        try:
            yield partial
            partial.chmod(0o777 & ~_umask())
            if out.is_dir() and not any(out.iterdir()):
                out.rmdir()  # an empty folder gives way
            if not (first_wins and out.exists()):
                os.rename(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if descriptor is not None:
                unlock(descriptor)
    except OSError as error:
        _name_after(error, partial, out)
        raise
    except DccrnError as error:
        raise type(error)(str(error).replace(str(partial), str(out))) from error


def _new_partial_folder(out: Path) -> tuple[Path, int | None]:
    """An empty folder beside ``out``, open and locked."""
    while True:
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name[:24]}.", suffix=".partial", dir=out.parent))
        if os.name != "posix":
            return partial, None
        descriptor = os.open(partial, os.O_RDONLY)
        if try_lock(descriptor) is None or is_at(descriptor, partial):
            return partial, descriptor
        unlock(descriptor)


def remove_stale(folder: PathLike, once: bool = False) -> None:
    """Remove the temporary files and folders in ``folder`` whose writers have ended.

    Args:
        folder: searched without its subfolders.
        once: look at a folder only once in this process.
    """
    name = os.path.realpath(folder)
    if once and name in _swept:
        return
    _swept.add(name)
    with os.scandir(name) as entries:
        stale = [entry.path for entry in entries if _PARTIAL.fullmatch(entry.name) and not entry.is_symlink()]
    for path in stale:
        if _is_stale(path):
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else Path(path).unlink(missing_ok=True)


def _is_stale(path: str) -> bool:
    """Whether nobody writes a temporary file or folder any more."""
    try:
        if os.name == "posix":
            descriptor = os.open(path, os.O_RDONLY)
            locked = try_lock(descriptor)
            unlock(descriptor)
            if locked is not None:
                return locked
        inside = [path, *(os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names)]
        return time.time() - max(os.lstat(each).st_mtime for each in inside) > _STALE_SECONDS
    except OSError:
        return False  # its writer finished just now, or it is another user's


_reading_the_umask = threading.Lock()


def _umask() -> int:
    """The process's mask of new files; it can only be read by setting it, so one thread at a time."""
    with _reading_the_umask:
        umask = os.umask(0)
        os.umask(umask)
    return umask


def _name_after(error: OSError, temporary: Path, path: Path) -> None:
    """Let an error of the system name the file that the user knows, not the temporary one."""
    if error.filename is None:
        if error.errno in _NO_ROOM:
            error.filename = str(path)
        return
    name = os.fsdecode(error.filename)
    if _PARTIAL.fullmatch(os.path.basename(name)):
        error.filename = str(path)
    elif temporary != path and name.startswith(str(temporary)):
        error.filename = str(path) + name[len(str(temporary)) :]


def hash_files(paths: Iterable[PathLike]) -> str:
    """SHA-256 over the contents of files in the order given, as 64 hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write a file as a whole."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: PathLike, record: dict, indent: int | None = 1, allow_nan: bool = True) -> None:
    """Write a record as a whole; options and errors as of :func:`json_text.to_json`."""
    text = to_json(record, indent, allow_nan)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: PathLike, cure: str) -> dict[str, Any]:
    """A record that :func:`write_json` wrote.

    Args:
        path: the file.
        cure: what to do about a damaged one, for the message.

    Raises:
        DamagedFileError: it is empty, cut off, or holds something else.
        FileNotFoundError: there is none.
    """
    try:
        return parse_object(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        reason = "is empty" if os.path.getsize(path) == 0 else f"is damaged ({error})"
        raise DamagedFileError(f"{path}: {reason}; {cure}") from None
