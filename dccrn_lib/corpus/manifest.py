"""Manifests: which audio files a corpus holds, who or what is heard in them, and which split they belong to.

A manifest is a text file of JSON lines, one audio file a line::

    {"path": "a/1.wav", "kind": "speech", "corpus": "mine", "seconds": 3.2, "sample_rate": 16000,
     "split": "train", "licence": "CC0-1.0", "speaker": "a"}

``path`` is relative to the manifest's own folder, so a corpus can be moved as a whole. Speech names its
``speaker``, noise and room responses their ``recording``; whatever shares that name shares a split.
``scan_folder`` writes one for a folder of recordings: files that cannot be used (empty, corrupt, text named
.wav, no sample, NaN) are listed in its report and in ``<manifest>.bad.txt`` and stop nothing; a group's split
follows from a hash of its name, so files added later move no other group unless a split would be empty.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dccrn_lib.audio.files import AUDIO_SUFFIXES
from dccrn_lib.corpus.entry import FIELDS, KINDS, SPLITS, Entry, parse_entry
from dccrn_lib.corpus.scanning import (
    assign_splits,
    copies,
    find_audio,
    group_name,
    label_of,
    probe_all,
    seconds_of,
    speaker_by_name,
    without_suffix,
)
from dccrn_lib.runtime.errors import ManifestError, nearest_name
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.workers import usable_cores


def read_manifest(path: PathLike, split: str | None = None, kind: str | None = None) -> list[Entry]:
    """Read a manifest.

    Args:
        path: the JSON-lines file.
        split: keep this split only ("train", "valid", "test"); None keeps all.
        kind: the manifest must hold this kind of audio ("speech", "noise", "rir"); None takes any.

    Returns:
        Entries in the file's order, with absolute paths. Keys this package does not know are ignored.

    Raises:
        ManifestError: no such file; a line that is not JSON or lacks a key; an unknown split or kind;
            nothing left for the split or kind asked for.
    """
    _check_names(split, kind)
    path = Path(path)
    folder = os.path.dirname(os.path.abspath(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a name may hold U+2028
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such manifest; make one with `python -m dccrn_lib corpus scan FOLDER`"
        ) from None
    except IsADirectoryError:
        raise ManifestError(
            f"{path}: is a folder, not a manifest; make one with `python -m dccrn_lib corpus scan {path}`"
        ) from None
    except (OSError, ValueError) as error:  # no permission, not UTF-8, a NUL in the name
        reason = str(error).splitlines()[0]
        raise ManifestError(f"{path}: cannot be read as a manifest of JSON lines ({reason})") from error
    entries = [parse_entry(line, f"{path}, line {n}", folder) for n, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise ManifestError(f"{path}: the manifest is empty; scan the folder of recordings again")
    return _kept(entries, split, kind, f"{path}: no entry left for", "the manifest holds")


def read_manifests(paths: Iterable[PathLike], split: str | None = None, kind: str | None = None) -> list[Entry]:
    """Read manifests one behind the other; the split may be in some of them only, as after ``scan --split``.

    Args:
        paths: the JSON-lines files; each must hold ``kind``.
        split, kind: as of :func:`read_manifest`.

    Returns:
        Entries in the order of the manifests; [] without any manifest.

    Raises:
        ManifestError: as of :func:`read_manifest`; none of the manifests holds the split.
    """
    _check_names(split, kind)
    paths = [Path(path) for path in paths]
    entries = [entry for path in paths for entry in read_manifest(path, kind=kind)]
    named = ", ".join(map(str, paths))
    return _kept(entries, split, kind, f"{named}: no entry left for", "all together hold") if paths else []


def _kept(entries: list[Entry], split: str | None, kind: str | None, none: str, hold: str) -> list[Entry]:
    """The entries of a split and a kind; ManifestError if there are none."""
    kept = [e for e in entries if (split is None or e.split == split) and (kind is None or e.kind == kind)]
    if not kept:
        wanted = " ".join(word for word in (split, kind) if word)
        held = ", ".join(sorted({f"{e.split} {e.kind}" for e in entries}))
        cure = f"; scan without --split, or add a manifest of a folder scanned with --split {split}" if split else ""
        raise ManifestError(f"{none} {wanted}; {hold}: {held}{cure}")
    return kept


def require_disjoint_splits(manifests: Iterable[PathLike]) -> None:
    """ManifestError if a file, or a speaker or recording of one corpus, stands in several splits of these manifests.

    A scan keeps them apart; a line written by hand, or two scans of one folder, may not.
    """
    seen: dict[tuple[str, ...], str] = {}
    for path in manifests:
        for entry in read_manifest(path):
            for name in ((entry.path,), (entry.kind, entry.corpus, entry.group)):
                split = seen.setdefault(name, entry.split)
                if split != entry.split:
                    raise ManifestError(
                        f"{path}: {name[-1]} is in the splits {split} and {entry.split}: a network would be judged by what "
                        "it has learnt from; keep what shares a speaker or a recording in one split"
                    )


def write_manifest(path: PathLike, entries: Iterable[Entry]) -> Path:
    """Write a manifest atomically; audio paths become relative to its folder, with forward slashes.

    Args:
        path: the JSON-lines file to write; its folder is made.
        entries: what it shall hold; relative ``Entry.path`` is taken from the current folder.

    Returns:
        The path written.
    """
    path = Path(path)
    folder = os.path.dirname(os.path.abspath(path))
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            for entry in entries:
                record = {name: getattr(entry, name) for name in FIELDS}
                record = {name: value for name, value in record.items() if value is not None}
                record["path"] = _relative(entry.path, folder)
                stream.write(_line(record) + "\n")
    return path


def total_hours(entries: Iterable[Entry]) -> float:
    """Duration of all entries together in hours."""
    return sum(entry.seconds for entry in entries) / 3600.0


@dataclass(frozen=True)
class ScanReport:
    """What a scan found: the manifest written, files and hours by split, bad files with their reasons, and by what
    the files were grouped, with an example.
    """

    manifest: Path
    counts: dict[str, int]
    hours: dict[str, float]
    groups: dict[str, int]
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    grouped: str = ""

    def __str__(self) -> str:
        parts = [
            f"{split} {self.counts[split]} files, {self.hours[split]:.3g} h, {self.groups[split]} groups"
            for split in self.counts
        ]
        bad = f"; {len(self.bad)} bad files, see {self.manifest}.bad.txt" if self.bad else ""
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.manifest}: {'; '.join(parts)}{bad}{notes}" + (f"\n{self.grouped}" if self.grouped else "")


def scan_folder(
    folder: PathLike,
    kind: str,
    out: PathLike,
    split: str | None = None,
    valid_fraction: float = 0.05,
    test_fraction: float = 0.05,
    licence: str = "unknown",
    corpus: str | None = None,
    group_level: int | None = None,
    workers: int | None = None,
    progress: bool = True,
    speaker_per_file: bool = False,
) -> ScanReport:
    """Write the manifest of every audio file under ``folder``: nested, of any rate and channel count.

    Args:
        folder: where the recordings lie.
        kind: "speech", "noise" or "rir".
        out: manifest to write (.jsonl).
        split: put everything into this split; None divides the groups.
        valid_fraction: fraction of the groups for "valid", in [0, 1).
        test_fraction: fraction of the groups for "test", in [0, 1).
        licence: written into every line.
        corpus: name of the collection; default: the folder's name.
        group_level: how many folder levels below ``folder`` name a speaker or recording; None takes all of
            them, unless the files are named as in LibriSpeech, LibriTTS, VoiceBank or the DNS Challenge: then
            the names of the files give the speaker. Files directly in ``folder`` are groups of their own. With
            fewer than three groups in all, every file becomes its own group (the report says so), because no
            split could be made otherwise; speech is then refused, unless ``speaker_per_file`` or ``split`` is given.
        workers: threads; default four for each core.
        progress: show a bar.
        speaker_per_file: every file of speech is a speaker of its own, as the caller knows.

    Returns:
        ScanReport. With three groups or more no split (of a positive fraction) is empty.

    Raises:
        ManifestError: no such folder, an unknown kind or split, fractions out of range, no usable file, or speech
            whose every file would be a speaker of its own.
    """
    folder, out = Path(folder), Path(out)
    _check_names(split, kind or "")
    if not (valid_fraction >= 0 and test_fraction >= 0 and valid_fraction + test_fraction < 1):
        raise ManifestError(f"valid_fraction {valid_fraction} and test_fraction {test_fraction} leave no train")
    if out.suffix.lower() in AUDIO_SUFFIXES:
        raise ManifestError(f"{out}: a manifest is no recording; name a file that ends in .jsonl")
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; name the folder that holds the recordings")
    good, bad = _usable_files(folder, workers, progress)
    names, grouped, notes = _grouped([path for path, _ in good], folder, kind, group_level, speaker_per_file, split)
    splits = dict.fromkeys(names, split) if split else assign_splits(names, valid_fraction, test_fraction)
    entries = [
        Entry(
            path=path,
            kind=kind,
            corpus=corpus or folder.resolve().name,
            seconds=seconds_of(frames, rate),
            sample_rate=rate,
            split=splits[name],
            licence=licence,
            speaker=name if kind == "speech" else None,
            recording=None if kind == "speech" else name,
            label=label_of(path, folder) if kind == "noise" else None,
        )
        for (path, (frames, rate)), name in zip(good, names, strict=True)
    ]
    notes += _copies_across_splits(entries, folder)
    if split and corpus is None and kind != "rir":
        notes += [
            f"the collection is called {entries[0].corpus}: give the scans of its other splits and this one the same "
            "--corpus, and whoever is in two splits is noticed"
        ]
    write_manifest(out, entries)
    write_bad(Path(f"{out}.bad.txt"), bad)
    return replace(summarise(out, entries, bad, notes), grouped=grouped)


def _grouped(
    files: list[str], folder: Path, kind: str, level: int | None, per_file: bool, split: str | None
) -> tuple[list[str], str, list[str]]:
    """(group of every file, by what and an example, notes); ManifestError where speakers would be shared by splits."""
    names, rule, notes = [group_name(path, folder, level) for path in files], "folder", []
    by_name = speaker_by_name(files) if kind == "speech" and level is None else None
    if per_file and kind == "speech":
        names, rule = [without_suffix(path, folder) for path in files], "file, as asked for"
    elif by_name:
        rule = by_name[0]
        names = [speaker or name for speaker, name in zip(by_name[1], names, strict=True)]
    alone = [without_suffix(path, folder) for path in files]
    few = not per_file and not by_name and split is None and len(set(names)) < 3 <= len(files)
    if kind == "speech" and not per_file and split is None and len(files) > 1 and (few or names == alone):
        raise ManifestError(
            f"{folder}: the speakers are not known: fewer than three folders, and no collection's file names; the "
            "same voice would be in several splits. Give each speaker a folder, or put all files into one split "
            "(--split train), or say that every file is another speaker (--speaker-per-file)"
        )
    if by_name and not per_file and split is None:
        _refuse_names_across_folders(files, by_name[1], folder)
    if kind == "speech" and not by_name and not per_file and split is None and level is None:
        _refuse_folders_in_folders(files, folder)
    known = by_name[1] if by_name else [None] * len(files)
    loose = [path for path, speaker in zip(files, known, strict=True) if speaker is None]
    loose = [path for path in loose if os.path.dirname(os.path.abspath(path)) == os.path.abspath(folder)]
    if kind == "speech" and loose and not per_file and split is None and level is None and len(files) > 1:
        raise ManifestError(
            f"{folder}: {len(loose)} of {len(files)} files lie beside the speakers' folders ({Path(loose[0]).name}): who "
            "speaks there is not known, and the same voice could be in several splits. Give each speaker a folder, or put "
            "all files into one split (--split train), or say that every file is another speaker (--speaker-per-file)"
        )
    if few:
        names, rule = alone, "file"
        notes = ["fewer than three folders: split by file, not by folder"]
    example = Path(os.path.relpath(files[0], os.path.abspath(folder))).as_posix()
    who = "speakers" if kind == "speech" else "recordings"
    return names, f"{who} by {rule}; for example {example} -> {names[0]}", notes


def _copies_across_splits(entries: list[Entry], folder: Path) -> list[str]:
    """A note if files of different splits hold the same bytes: a network would be judged by what it has learnt from."""
    splits = {entry.path: entry.split for entry in entries}
    if len(set(splits.values())) < 2:
        return []
    shared = [(path, other) for path, other in copies(list(splits)) if splits[path] != splits[other]]
    if not shared:
        return []
    names = [Path(os.path.relpath(path, os.path.abspath(folder))).as_posix() for path in shared[0]]
    return [
        f"{len(shared)} files hold the same bytes as a file of another split ({names[0]} as {names[1]}): a network would "
        "be judged by what it has learnt from; remove the copies and scan again"
    ]


def _refuse_names_across_folders(files: list[str], speakers: list[str | None], folder: Path) -> None:
    """ManifestError if names that should say who speaks stand in several folders, each of several such names."""
    inside: dict[str, set[str]] = {}
    for path, speaker in zip(files, speakers, strict=True):
        if speaker is not None:
            inside.setdefault(group_name(path, folder, 1), set()).add(speaker)
    several = {name: names for name, names in inside.items() if len(names) > 1}
    for speaker in sorted(set().union(*several.values())):
        where = sorted(name for name, names in several.items() if speaker in names)
        if len(where) > 1:
            raise ManifestError(
                f"{folder}: by the names of the files {speaker} would speak both in {where[0]} and in {where[1]}: is that "
                "a speaker, or a day or session of one? If each folder is a speaker, say --group-level 1; if the names "
                "are right, scan one of these folders, or put all files into one split (--split train)"
            )


def _refuse_folders_in_folders(files: list[str], folder: Path) -> None:
    """ManifestError if a folder holds several that could be speakers: the folder itself could be one."""
    above = [Path(os.path.relpath(path, os.path.abspath(folder))).parts[:-1] for path in files]
    common = len(os.path.commonprefix(above))
    inside: dict[str, set[str]] = {}
    for parts in above:
        if len(parts) > common:
            inside.setdefault("/".join(parts[: common + 1]), set()).add("/".join(parts))
    several = {name: sorted(names) for name, names in inside.items() if len(names) > 1}
    if len(inside) > 1 and several:
        name, names = min(several.items())
        deepest = max(map(len, above))
        raise ManifestError(
            f"{folder}: who is a speaker, {name} as a whole, or {names[0]} and {names[1]} each? Say --group-level "
            f"{common + 1} for the first, --group-level {deepest} for the second, or put all files into one split "
            "(--split train)"
        )


def _check_names(split: str | None, kind: str | None) -> None:
    """ManifestError unless both are None or known."""
    if split is not None and split not in SPLITS:
        raise ManifestError(f"unknown split {split!r}: {nearest_name(split, list(SPLITS))}")
    if kind is not None and kind not in KINDS:
        raise ManifestError(f"unknown kind {kind!r}: {nearest_name(kind, list(KINDS))}")


def _usable_files(
    folder: Path, workers: int | None, progress: bool
) -> tuple[list[tuple[str, tuple[int, int]]], list[tuple[str, str]]]:
    """Audio files with (frames, rate), and the bad ones with the reason; ManifestError where none is good."""
    files = find_audio(folder)
    if not files:
        raise ManifestError(f"{folder}: no audio file in it ({', '.join(AUDIO_SUFFIXES)})")
    probes = probe_all(files, workers or 4 * usable_cores(), progress)
    bad = [(path, probe) for path, probe in zip(files, probes, strict=True) if isinstance(probe, str)]
    good = [(path, probe) for path, probe in zip(files, probes, strict=True) if not isinstance(probe, str)]
    if not good:
        raise ManifestError(
            f"{folder}: none of the {len(files)} audio files can be used; "
            f"the first, {Path(bad[0][0]).name}: {bad[0][1]}"
        )
    return good, bad


def summarise(out: Path, entries: list, bad: list[tuple[str, str]], notes: list[str] | None = None) -> ScanReport:
    """Counts and hours of ``entries`` by split as a report."""
    present = [s for s in SPLITS if any(e.split == s for e in entries)]
    counts = Counter(e.split for e in entries)
    return ScanReport(
        manifest=Path(out),
        counts={s: counts[s] for s in present},
        hours={s: total_hours(e for e in entries if e.split == s) for s in present},
        groups={s: len({e.group for e in entries if e.split == s}) for s in present},
        bad=bad,
        notes=notes or [],
    )


def _line(record: dict) -> str:
    """JSON on one line; names that are no valid text, or hold separators of lines, are escaped."""
    text = json.dumps(record, ensure_ascii=False)
    odd = len(text.splitlines()) > 1 or any("\ud800" <= letter <= "\udfff" for letter in text)
    return json.dumps(record) if odd else text


def _relative(path: str, folder: str) -> str:
    """``path`` as seen from ``folder``; absolute where no relative path exists (another Windows drive)."""
    path = os.path.abspath(path)
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path


def write_bad(path: Path, bad: list[tuple[str, str]]) -> None:
    """List bad files beside the manifest; remove the list of an earlier scan when there are none."""
    if not bad:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{name}\t{reason}\n" for name, reason in bad), "utf-8", "backslashreplace")
