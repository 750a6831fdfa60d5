"""Disks that fill up or refuse, two writers on one folder, files that vanish: an error's line, and nothing half written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.soak.commands import Command, run
from tests.soak.place import Place, write_sound
from tests.soak.rows import Row
from tests.soak.targets import TARGETS, Target, Train, begun, leftovers, target, visible_files

#: Trials of the full form, for each target.
FULL, INJECTED, READ_ONLY, TWO = 4, 3, 1, 2


class Disk:
    """A small file system in memory. It needs root."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, (size + (1 << 20)) // 4096 * 4096

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.folder], check=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True)

    def leave(self, room: int) -> None:
        """Fill it but for so many bytes."""
        free = os.statvfs(self.folder).f_bavail * 4096
        (self.folder / "filler").write_bytes(b"\0" * max(0, free - max(room, 4096)))

    def clear(self) -> None:
        """Remove what fills it."""
        (self.folder / "filler").unlink()

    def read_only(self) -> None:
        """Let nothing be written any more."""
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk(Path(folder) / "disk", 1 << 20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _small(place: Place, out: Path) -> dict[str, list[str]]:
    """Name -> words of the commands that write one file, ``out``/file."""
    folder = str(place.recordings)
    return {
        "scan": ["corpus", "scan", folder, "--kind", "noise", "--out", str(out / "file.jsonl"), "--quiet"],
        "export": ["export", "--model", str(place.weights), "--out", str(out / "file.onnx")],
        "evaluate": [
            "evaluate", "--clean", folder, "--noisy", folder, "--json", str(out / "file.json"), "--metrics", "si_snr_db",
            "--workers", "1", "--quiet",
        ],
        "commands": ["commands", "--out", str(out / "file.md")],
    }  # fmt: skip


def full(place: Place, name: str) -> Row:
    """The disk fills up at some point of the work; then room is made and the command called again."""
    row = Row("disk", f"full {name}")
    if not can_mount():
        row.note = "not tried: mounting a small disk is not permitted here (it needs root)"
        return row
    subject, random, shares = target(place, name), place.random("full", name), []
    size = sum(file.stat().st_size for file in visible_files(subject.reference))
    wanted = place.count(FULL)
    for k in random.permutation(wanted):
        if row.tried and place.over():
            break
        room = int(size * (k + random.uniform(0.1, 0.9)) / wanted)
        with Disk(place.new(f"full-{name}") / "disk", 4 * size) as disk:
            out = disk.folder / "out"
            disk.leave(room)
            with subject.start(out) as command:
                command.wait()
            problems = _refused(command) + subject.whole(out) + leftovers(out)
            disk.clear()
            if not problems:
                problems = _again(subject, out)
        shares.append(room / size)
        row.trial(problems, f"{room:,} of {size:,} bytes")
    row.note = f"with {_range(shares)} of the room it needs; completed when there was room again"
    return row


def injected(place: Place, name: str) -> Row:
    """The system refuses to let a file grow beyond some size (as a quota does; needs no root)."""
    row, subject, random = Row("disk", f"quota {name}"), target(place, name), place.random("quota", name)
    largest = max(file.stat().st_size for file in visible_files(subject.reference))
    shares = []
    for _ in place.trials(INJECTED):
        limit = int(largest * random.uniform(0.02, 0.9))
        out = place.new(f"quota-{name}") / "out"
        with subject.start(out, largest_file=limit) as command:
            command.wait()
        problems = _refused(command) + subject.whole(out) + leftovers(out)
        if not problems:
            problems = _again(subject, out)
        shares.append(limit / largest)
        row.trial(problems, f"{limit:,} of {largest:,} bytes")
    row.note = f"files limited to {_range(shares)} of the largest one; completed without the limit"
    return row


def small_files(place: Place) -> Row:
    """Commands that write one file, on a disk with no room: the old file stays as it was."""
    row = Row("disk", "full one file")
    if not can_mount():
        row.note = "not tried: mounting a small disk is not permitted here (it needs root)"
        return row
    for name in list(_small(place, place.folder))[: place.count(4)]:
        with Disk(place.new("one") / "disk", 1 << 16) as disk:
            words = _small(place, disk.folder)[name]
            file = next(Path(word) for word in words if word.startswith(str(disk.folder)))
            file.write_text("old\n")
            disk.leave(0)
            _take_the_rest(disk)
            command = run(words)
            problems = _refused(command) + leftovers(disk.folder / "out")
            if not file.exists() or file.read_text() != "old\n":
                problems.append("the file that was there is lost")
        row.trial(problems, name)
    row.note = "a good file from before stays"
    return row


def read_only(place: Place) -> Row:
    """Targets that cannot be written: an error's line, and the old content stays."""
    row = Row("disk", "read-only")
    mounted = can_mount()
    if not mounted and os.geteuid() == 0:
        row.note = "not tried: root writes everywhere, and mounting is not permitted here"
        return row
    names = [*_small(place, place.folder), *TARGETS]
    for name in names[: place.count(len(names))]:
        folder = place.new("read-only")
        with Disk(folder / "disk", 1 << 20) if mounted else _plain(folder / "disk") as disk:
            words = _small(place, disk.folder).get(name) or target(place, name).words(disk.folder / "out")
            environment = target(place, name).environment if name in TARGETS else {}
            (disk.folder / "old").write_text("old\n")
            disk.read_only()
            command = run(words, environment=environment)
            problems = _refused(command)
            if [path.name for path in disk.folder.iterdir()] != ["old"]:
                problems.append("something was written or lost")
            if not mounted:
                disk.folder.chmod(0o755)
        row.trial(problems, name)
    row.note = ", ".join(names[: row.tried])
    return row


def two_writers(place: Place, name: str) -> Row:
    """The same command twice in one folder: one stops in the middle, the other begins, the first continues."""
    row, subject, random = Row("disk", f"two writers {name}"), target(place, name), place.random("two", name)
    refused = 0
    for _ in place.trials(TWO):
        out = place.new(f"two-{name}") / "out"
        with subject.start(out) as first:
            first.wait(partial(begun, out, first))
            first.wait(seconds=random.uniform(0, 0.5 * subject.span))
            if first.running():
                first.send(signal.SIGSTOP)
            with subject.start(out) as second:
                waited = second.wait(seconds=20)
                first.send(signal.SIGCONT)
                first.wait()
                if not waited:
                    second.wait()
                problems = first.talk() + second.talk() + first.orphans() + second.orphans()
        codes = sorted((first.process.returncode, second.process.returncode))
        refused += codes != [0, 0]
        if 0 not in codes:
            problems.append(f"exit codes {codes}: none completed")
        if isinstance(subject, Train) and codes == [0, 0] and not waited:
            problems.append("both trained in one folder")
        row.trial(problems or subject.whole(out) + subject.same(out) + leftovers(out), f"exit codes {codes}")
    row.note = f"in {refused} of {row.tried} one was refused with a message; the result is that of one alone"
    return row


def vanishing(place: Place) -> Row:
    """Recordings vanish during the work: what is left is done, and what is missing is named."""
    row, random, names = Row("disk", "vanishing"), place.random("vanish"), []
    subjects = (_vanish_enhance, _vanish_scan, _vanish_pack, _vanish_train)
    for k in place.trials(8, 2):
        subject = subjects[k % 4]
        names.append(subject.__name__.removeprefix("_vanish_"))
        row.trial(subject(place, random), names[-1])
    row.note = f"recordings of {', '.join(dict.fromkeys(names))} are deleted while it works"
    return row


def _vanish_enhance(place: Place, random) -> list[str]:
    home = place.new("vanish")
    source, out = home / "source", home / "out"
    shutil.copytree(place.recordings, source)
    with Command(["enhance", source, "--out", out, "--model", place.weights, "--quiet"]) as command:
        gone = _vanish_during(command, out, sorted(source.glob("*.wav"))[6:], random)
    problems = command.talk(1)
    problems += [f"{path.name} is not named" for path in gone if path.name not in command.output]
    left = len(list(out.glob("[!.]*.wav")))
    return problems + ([] if left == 12 - len(gone) else [f"{left} results of {12 - len(gone)}"]) + leftovers(out)


def _vanish_scan(place: Place, random) -> list[str]:
    home = place.new("vanish")
    for k in range(300):
        write_sound(home / "source" / f"{k % 10}" / f"{k}.wav", 0.2, random)
    out = home / "scan" / "noise.jsonl"
    out.parent.mkdir()
    files = sorted((home / "source").rglob("*.wav"))
    with Command(["corpus", "scan", home / "source", "--kind", "noise", "--out", out, "--quiet"]) as command:
        command.wait(seconds=random.uniform(0.2, 0.8))
        _delete(files, random, 20)
        command.wait()
    return command.talk(0) + leftovers(out)


def _vanish_pack(place: Place, random) -> list[str]:
    home = place.new("vanish")
    shutil.copytree(place.corpus, home / "corpus")
    manifests = [home / "corpus" / f"{kind}.jsonl" for kind in ("speech", "noise")]
    _delete(sorted((home / "corpus" / "noise").glob("*.wav")), random, 3)
    out = home / "packed"
    with Command(["corpus", "pack", *manifests, "--out", out, "--workers", "1", "--quiet"]) as command:
        _vanish_during(command, out, sorted((home / "corpus" / "noise").glob("*.wav"))[4:], random)
    problems = command.talk([0, 1]) + leftovers(out)
    bad = out / "noise.jsonl.bad.txt"
    if command.process.returncode == 0 and not bad.exists():
        problems.append("files are missing and no list of bad files tells it")
    return problems


def _vanish_train(place: Place, random) -> list[str]:
    home = place.new("vanish")
    shutil.copytree(place.corpus, home / "corpus")
    subject = target(place, "train")
    out = home / "out"
    words = [word.replace(str(place.corpus), str(home / "corpus")) for word in subject.words(out)]
    with Command(words) as command:
        command.wait(lambda: (out / "checkpoint.pt").exists())
        for path in (home / "corpus").rglob("*.wav"):
            path.unlink()
        command.wait()
    problems = command.talk() + leftovers(out) + subject.whole(out)
    if command.process.returncode == 0:
        return problems + subject.same(out)  # it had read them all before
    if subject.step(out) == 0:
        problems.append("no checkpoint")
    shutil.copytree(place.corpus, home / "corpus", dirs_exist_ok=True)
    again = run(words)
    return problems + (again.talk(0) or subject.same(out))


def _vanish_during(command: Command, out: Path, files: list[Path], random) -> list[Path]:
    """Delete three files once the work has begun, while it is stopped; let it run to its end."""
    command.wait(partial(begun, out, command))
    command.send(signal.SIGSTOP)
    gone = _delete(files, random, 3)
    command.send(signal.SIGCONT)
    command.wait()
    return gone


def _delete(files: list[Path], random, count: int) -> list[Path]:
    gone = [files[k] for k in random.permutation(len(files))[:count]]
    for path in gone:
        path.unlink()
    return gone


def _refused(command: Command) -> list[str]:
    """Problems of a command that cannot write: it must fail, in a line."""
    problems = command.talk()
    if command.process.returncode == 0:
        problems.append("exit code 0 though it could not write")
    return problems + command.orphans()


def _again(subject: Target, out: Path) -> list[str]:
    """Problems of the same command once it may write."""
    with subject.start(out) as command:
        command.wait()
    return command.talk(0) or subject.whole(out) + subject.same(out) + leftovers(out)


def _range(shares: list[float]) -> str:
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %" if len(shares) > 1 else f"{100 * shares[0]:.0f} %"


def _take_the_rest(disk: Disk) -> None:
    """Fill the last bytes of a disk, in files of one page."""
    for k in range(1000):
        try:
            (disk.folder / f"rest{k}").write_bytes(b"\0" * 4096)
        except OSError:
            (disk.folder / f"rest{k}").unlink(missing_ok=True)
            return


@contextmanager
def _plain(folder: Path) -> Iterator:
    """A folder with the rights taken away, in place of a disk, for users that are not root."""

    class Plain:
        def __init__(self) -> None:
            self.folder = folder

        def read_only(self) -> None:
            folder.chmod(0o555)

    folder.mkdir()
    try:
        yield Plain()
    finally:
        folder.chmod(0o755)


CASES: dict[str, Callable[[Place], Row]] = {
    **{f"full {name}": partial(full, name=name) for name in TARGETS},
    "full one file": small_files,
    **{f"quota {name}": partial(injected, name=name) for name in TARGETS},
    "read-only": read_only,
    **{f"two writers {name}": partial(two_writers, name=name) for name in TARGETS},
    "vanishing": vanishing,
}
