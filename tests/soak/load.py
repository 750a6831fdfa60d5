"""Much at a time: thousands of short files, one long file, a large folder with some bad files."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import numpy as np
import soundfile

from tests.soak.commands import PATIENCE, Command
from tests.soak.place import RATE, Place, sound
from tests.soak.rows import Row


class Watched(Command):
    """A command whose memory is looked at now and then: ``peak`` and ``series`` of (seconds, MB)."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.peak, self.series = 0.0, []

    def look(self) -> bool:
        """Take a measurement; never the end of waiting."""
        now = time.monotonic() - self.started
        if self.series and now - self.series[-1][0] < 0.2:
            return False
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if "VmHWM" in fields:
            self.peak = max(self.peak, int(fields["VmHWM"].split()[0]) / 1024)
            self.series.append((now, int(fields["VmRSS"].split()[0]) / 1024))
        return False


def short_files(place: Place) -> Row:
    """Thousands of short files in one call: all are done, and memory does not grow from file to file."""
    row, home, count = Row("load", "short files"), place.new("short"), place.count(2000, 10)
    for k in range(count):
        path = home / "in" / f"{k % 20:02d}" / f"{k:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(0.1 + 0.3 * (k % 7) / 7, place.random(k)), RATE)
    with Watched(["enhance", home / "in", "--out", home / "out", "--model", place.weights, "--quiet"]) as command:
        command.wait((home / "out").exists, seconds=PATIENCE)
        started = time.monotonic() - command.started
        command.wait(command.look, seconds=3600)
    for path in sorted((home / "in").rglob("*.wav")):
        out = home / "out" / path.relative_to(home / "in")
        good = out.is_file() and soundfile.info(out).frames == soundfile.info(path).frames
        row.trial([] if good else [f"{path.name} is not done"])
    half = (started + command.seconds) / 2
    parts = [[mb for now, mb in command.series if now < half], [mb for now, mb in command.series if now >= half]]
    grown = np.median(parts[1] or [0.0]) - np.median(parts[0] or [0.0])
    row.trial(command.talk(0) + ([f"memory grew by {grown:.0f} MB"] if grown > 50 else []), "the call")
    memory = f"at most {command.peak:.0f} MB, {grown:+.0f} MB from the first to the second half (medians)"
    row.note = f"{command.seconds:.0f} s with a miniature network, {memory}"
    return row


def long_file(place: Place) -> Row:
    """One long recording: the same length comes out, in memory that does not depend on it."""
    row, home, seconds = Row("load", "long file"), place.new("long"), place.count(7200, 30)
    block = sound(10.0, place.random("long"), speech=True)
    path = home / "long.flac"
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for start in range(0, seconds * RATE, len(block)):
            file.write(block[: seconds * RATE - start])
    with Watched(["enhance", path, "--out", home / "out", "--model", "distil_dccrn", "--quiet"]) as command:
        command.wait(command.look, seconds=4 * 3600)
    problems, out = command.talk(0), home / "out" / "long.flac"
    if not out.exists() or soundfile.info(out).frames != seconds * RATE:
        problems.append("not of the same length")
    if command.peak > 1024:
        problems.append(f"took {command.peak:.0f} MB")
    row.trial(problems)
    memory = f"at most {command.peak:.0f} MB (bound 1,024)"
    row.note = f"{seconds:,} s enhanced by distil_dccrn in {command.seconds:,.0f} s, {memory}"
    return row


def large_scan(place: Place) -> Row:
    """A folder of many recordings of which 1 % is bad: each bad one is named, and no other."""
    row, home, count = Row("load", "scan"), place.new("scan"), place.count(20000, 100)
    bad, random = set(), place.random("scan")
    samples = (random.standard_normal(800) * 2000).astype("<i2")
    for k in range(count):
        path = home / "in" / f"{k % 200:03d}" / f"{k:05d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = _wav(np.roll(samples, k).tobytes())
        if k % 100 == 37:
            bad.add(str(path))
            data = (b"", b"no audio" * 20, data[:30], data[:-400], _wav(bytes(1600)))[k // 100 % 5]
        path.write_bytes(data)
    out = home / "noise.jsonl"
    with Watched(["corpus", "scan", home / "in", "--kind", "noise", "--out", out, "--quiet"]) as command:
        command.wait(command.look, seconds=3600)
    problems = command.talk(0)
    listed = Path(f"{out}.bad.txt")
    named = {line.split("\t")[0] for line in listed.read_text().splitlines()} if listed.exists() else set()
    kept = len(out.read_text().splitlines()) if out.exists() else 0
    row.tried = count
    row.failures += [f"bad, and not named: {os.path.basename(path)}" for path in sorted(bad - named)]
    row.failures += [f"good, and called bad: {os.path.basename(path)}" for path in sorted(named - bad)]
    if problems or kept != count - len(bad):
        row.trial([*problems, f"{kept} lines in the manifest instead of {count - len(bad)}"], "the call")
    row.note = f"{count:,} files, {len(bad)} bad; {command.seconds:.0f} s, at most {command.peak:.0f} MB"
    return row


def _wav(data: bytes) -> bytes:
    """Mono, 16 bits, 16 kHz."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


CASES = {"short files": short_files, "long file": long_file, "scan": large_scan}
