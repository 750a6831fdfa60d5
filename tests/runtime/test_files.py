"""Files appear as a whole: whatever ends the writing, no half of one stays, and links and devices are what they were."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dccrn_lib.cli import checks
from dccrn_lib.runtime import files
from dccrn_lib.runtime.errors import AudioError, ConfigError, DamagedFileError
from dccrn_lib.runtime.files import atomic_folder, atomic_path, read_json, remove_stale, write_json

posix = pytest.mark.skipif(os.name != "posix", reason="signals, links and devices of POSIX")

_WRITER = """
import sys, time
from pathlib import Path
from dccrn_lib.runtime.files import atomic_folder, atomic_path
from dccrn_lib.runtime.interrupts import tidy_ending
with tidy_ending(), {how}(Path(sys.argv[1])) as temporary:
    target = temporary / "part" if temporary.is_dir() else temporary
    target.write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


def begin(path: Path, how: str = "atomic_path") -> subprocess.Popen:
    """A process that has written half of ``path`` and waits."""
    command = [sys.executable, "-c", _WRITER.format(how=how), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


@posix
@pytest.mark.parametrize("how", ["atomic_path", "atomic_folder"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.usefixtures("hears_signals")
def test_a_signal_leaves_nothing_half_written_and_kill_9_nothing_for_long(tmp_path, how, number):
    process, other = begin(tmp_path / "a.json", how), begin(tmp_path / "b.json", how)  # both sleep for a minute at most
    process.send_signal(number)
    process.wait(30)
    left = 2 if number == signal.SIGKILL else 1
    assert len(list(tmp_path.iterdir())) == left, "what is being written, and what nobody could remove"
    remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1, "what is still being written stays"
    other.kill()
    other.wait(30)
    files._swept.clear()  # as in the next process
    write_json(tmp_path / "c.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_files_of_others_are_never_taken_for_stale_ones(tmp_path):
    names = [".hidden", ".a.partial", "a.abcdefgh.partial", ".a.abcdefgh.json", ".partial.json"]
    for name in names:
        (tmp_path / name).write_text("mine")
    remove_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_without_locks_only_what_is_old_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "try_lock", lambda descriptor: None)
    for name, age in ((".new.abcdefgh.partial.wav", 60), (".old.abcdefgh.partial.wav", 2 * 86400)):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".new.abcdefgh.partial.wav"]


@posix
def test_a_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real, link, dangling = tmp_path / "elsewhere" / "real.json", tmp_path / "link.json", tmp_path / "new.json"
    real.write_text("old")
    link.symlink_to(real)
    dangling.symlink_to("elsewhere/made.json")
    write_json(link, {"a": 1})
    write_json(dangling, {"a": 2})
    assert link.is_symlink() and json.loads(real.read_text()) == {"a": 1}
    assert dangling.is_symlink() and json.loads((tmp_path / "elsewhere" / "made.json").read_text()) == {"a": 2}
    circle = tmp_path / "circle.json"
    circle.symlink_to("circle.json")
    with pytest.raises(OSError, match="circle.json"):
        write_json(circle, {})
    assert circle.is_symlink()


@posix
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join(10)
    assert json.loads(read[0]) == {"a": 1} and stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def device(path: Path, minor: int) -> Path:
    """A device as below /dev, in a place where a mistake replaces none of the machine's own."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("w").close()
    except OSError as error:
        pytest.skip(f"needs root and devices: {error.strerror}")
    return path


@posix
def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    null = device(tmp_path / "null", 3)
    write_json(null, {"a": 1})
    assert stat.S_ISCHR(null.stat().st_mode)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what /dev/stdout is on Linux")
def test_standard_output_may_be_the_file(tmp_path):
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    code = (
        "import sys; from dccrn_lib.runtime.files import write_json; print(1, flush=True); write_json(sys.argv[1], {})"
    )
    with open(tmp_path / "shown", "a") as shown:
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "stdout")], stdout=shown, check=True, timeout=60)
    assert (tmp_path / "shown").read_text() == "1\n{}\n"
    assert (tmp_path / "stdout").is_symlink()


@posix
def test_nothing_new_is_made_among_the_devices(tmp_path, monkeypatch):
    devices = Path(os.path.realpath(tmp_path)) / "dev"
    (devices / "shm").mkdir(parents=True)
    monkeypatch.setattr(files, "_DEVICES", str(devices))
    monkeypatch.setattr(files, "_MEMORY", str(devices / "shm"))
    (tmp_path / "link.json").symlink_to(devices / "linked.json")
    for path in (devices / "nul.json", devices / "new" / "a.json", tmp_path / "link.json"):
        with pytest.raises(ConfigError, match=f"^{path}: there is no such device, .*; choose another place$"):
            write_json(path, {})
        with pytest.raises(ConfigError, match="choose another place"):
            with atomic_folder(path):
                pass
    with pytest.raises(argparse.ArgumentTypeError, match="no such device"):
        checks.folder(str(devices / "runs"))
    with pytest.raises(argparse.ArgumentTypeError, match="no such device"):
        checks.file(str(devices / "nul.json"))
    assert [path.name for path in devices.iterdir()] == ["shm"]
    write_json(devices / "shm" / "run" / "a.json", {})
    os.mkfifo(devices / "pipe")
    assert checks.file(str(devices / "pipe")) and checks.folder(str(devices / "shm"))


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_of_the_file_by_its_own_name_and_keeps_the_old_one(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(OSError, match="No space left on device: '.*/a.json'"):
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            no_room()
    assert (tmp_path / "a.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@posix
def test_a_device_that_is_full_is_named(tmp_path):
    full = device(tmp_path / "full", 7)
    with pytest.raises(OSError, match="No space left on device: '.*/full'"):
        write_json(full, {"a": 1})
    assert stat.S_ISCHR(full.stat().st_mode)


def test_a_temporary_name_is_in_no_message(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="'[^']*/a.json'$"):
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.unlink()
            temporary.read_text()
    with pytest.raises(FileNotFoundError, match="'[^']*/corpus/x.wav'$"):
        with atomic_folder(tmp_path / "corpus") as folder:
            (folder / "x.wav").read_bytes()
    with pytest.raises(AudioError, match="^cannot write [^ ]*/corpus/x.wav$"):
        with atomic_folder(tmp_path / "corpus") as folder:
            raise AudioError(f"cannot write {folder}/x.wav")
    monkeypatch.setattr(
        files.tempfile, "mkstemp", lambda prefix, suffix, dir: open(Path(dir) / f"{prefix}abcdefgh{suffix}")
    )
    with pytest.raises(FileNotFoundError, match="'[^']*/a.json'$"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path):
    for mode in (0o600, 0o664):
        (tmp_path / "mine.txt").write_text("old")
        (tmp_path / "mine.txt").chmod(mode)
        with files.atomic_path(tmp_path / "mine.txt") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "mine.txt").read_text() == "new"
        assert stat.S_IMODE((tmp_path / "mine.txt").stat().st_mode) == mode


@posix
def test_files_and_folders_have_the_rights_that_the_user_gives_to_new_ones(tmp_path):
    before = os.umask(0o077)
    try:
        write_json(tmp_path / "a.json", {})
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


def test_a_folder_gives_way_when_it_is_empty_only(tmp_path):
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "empty" / "a").read_text() == "new"
    with pytest.raises(OSError, match="empty"):
        with atomic_folder(tmp_path / "empty") as folder:
            (folder / "a").write_text("newer")
    with atomic_folder(tmp_path / "empty", first_wins=True) as folder:
        (folder / "a").write_text("newer")
    assert (tmp_path / "empty" / "a").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1, 2]", "[" * 100_000, '{"a": "\udcff"}'])
def test_a_damaged_record_is_an_error_with_a_cure(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DamagedFileError, match=r"a.json: is (empty|damaged \(.*\)); take a walk$"):
        read_json(tmp_path / "a.json", "take a walk")


def test_a_record_keeps_its_letters_and_a_name_that_is_no_text(tmp_path):
    record = {"speaker": "Zoë", "odd name": os.fsdecode(b"a\xff.wav")}
    write_json(tmp_path / "odd.json", record)
    write_json(tmp_path / "plain.json", {"speaker": "Zoë"}, indent=None)
    assert read_json(tmp_path / "odd.json", "") == record
    assert (tmp_path / "plain.json").read_text(encoding="utf-8") == '{"speaker": "Zoë"}\n'


def test_what_is_no_json_leaves_the_old_record(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")}, allow_nan=False)
    assert read_json(tmp_path / "a.json", "") == {"a": 1}


def test_a_read_only_place_is_refused_before_the_work(tmp_path, monkeypatch):
    shut = tmp_path / "shut"
    shut.mkdir()
    (shut / "old.json").write_text("{}")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, *a, **k: os.fspath(path) != str(shut) and real(path, *a, **k))
    for check, name in [
        (checks.folder, shut),
        (checks.folder, shut / "new" / "er"),
        (checks.file, shut / "r.json"),
        (checks.file, shut / "old.json"),
        (checks.file, shut / "new" / "r.json"),
    ]:
        with pytest.raises(argparse.ArgumentTypeError, match="shut cannot be written to; allow it, or choose"):
            check(str(name))
    assert checks.file(str(tmp_path / "r.json")) and checks.folder(str(tmp_path / "new")) and checks.folder(".")
    (tmp_path / "link.json").symlink_to(shut / "old.json")
    with pytest.raises(argparse.ArgumentTypeError, match="shut cannot be written to"):
        checks.file(str(tmp_path / "link.json"))


@pytest.mark.skipif(os.name != "posix", reason="devices of POSIX")
def test_a_device_is_no_file_of_its_folder(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *a, **k: False)
    assert checks.file("/dev/null") and checks.file("/dev/stdout")
