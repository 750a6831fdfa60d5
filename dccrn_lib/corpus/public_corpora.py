"""Recipes: from a corpus on disk to the manifests that training reads. Nothing is downloaded.

Each function knows the folder layout of one public collection, which of its names mean a speaker or a
recording, and which split its authors meant for what. For any other folder use ``manifest.scan_folder``. The
manifests hold only files that could be decoded; the others are listed in ``<manifest>.bad.txt``.

``generated_corpus`` needs no collection at all.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dccrn_lib.corpus.entry import SPLITS, Entry
from dccrn_lib.corpus.manifest import ScanReport, read_manifest, summarise, write_bad, write_manifest
from dccrn_lib.corpus.scanning import assign_splits, find_audio, probe_all, seconds_of
from dccrn_lib.corpus.synthesis.corpus import CorpusPaths
from dccrn_lib.runtime.errors import ManifestError
from dccrn_lib.runtime.files import atomic_path
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.workers import usable_cores


@dataclass(frozen=True)
class Pair:
    """A noisy recording and its clean reference."""

    id: str
    noisy: Path
    clean: Path


def librispeech(root: PathLike, out: PathLike, progress: bool = True) -> ScanReport:
    """Speech manifest of LibriSpeech as ``torchaudio.datasets.LIBRISPEECH`` unpacks it.

    Args:
        root: the folder ``LibriSpeech`` or the one that holds it: <subset>/<speaker>/<chapter>/*.flac.
        out: manifest to write. train-* subsets become train, dev-* valid, test-* test.
        progress: show a bar.
    """
    root = _inside(root, "LibriSpeech")

    def describe(path: Path) -> dict[str, str]:
        subset, speaker = path.relative_to(root).parts[:2]
        split = {"train": "train", "dev": "valid", "test": "test"}.get(subset.split("-")[0], "train")
        return {"speaker": f"librispeech-{speaker}", "split": split, "language": "en"}

    files = [path for path in _audio(root) if len(path.relative_to(root).parts) == 4]
    return _catalogue(files, "speech", out, "librispeech", "CC-BY-4.0", describe, root, progress)


def voicebank(root: PathLike, out: PathLike, progress: bool = True) -> ScanReport:
    """Speech manifest of VoiceBank-DEMAND's clean side (Valentini-Botinhao 2017).

    Args:
        root: holds clean_trainset_28spk_wav (or 56spk) and clean_testset_wav, with p226_001.wav ...
        out: manifest to write. Speakers p226 and p287 of the training set become valid, or about a tenth where it
            has neither (as 56spk); its others train; the test set is test. Its noisy side is for evaluation: see
            ``voicebank_test_pairs``.
        progress: show a bar.
    """
    root = Path(os.path.abspath(root))
    files = [path for path in _audio(root) if re.match(r"clean_(train|test)set", path.parent.name)]

    def speaker_of(path: Path) -> str:
        return path.stem.split("_")[0]

    training = {speaker_of(path) for path in files if "trainset" in path.parent.name}
    valid = training & {"p226", "p287"}
    if not valid:
        valid = {speaker for speaker, split in assign_splits(sorted(training), 0.1, 0.0).items() if split == "valid"}

    def describe(path: Path) -> dict[str, str]:
        speaker = speaker_of(path)
        split = "test" if "testset" in path.parent.name else "valid" if speaker in valid else "train"
        return {"speaker": f"voicebank-{speaker}", "split": split, "language": "en"}

    return _catalogue(files, "speech", out, "voicebank", "CC-BY-4.0", describe, root, progress)


def voicebank_test_pairs(root: PathLike) -> list[Pair]:
    """The 824 pairs of VoiceBank-DEMAND's test set, paired by file name."""
    noisy, clean = Path(root) / "noisy_testset_wav", Path(root) / "clean_testset_wav"
    return _pair(noisy, clean, lambda path: path.stem)


def demand(root: PathLike, out: PathLike, progress: bool = True) -> ScanReport:
    """Noise manifest of DEMAND (Thiemann 2013): <ENVIRONMENT>/ch01.wav ...; the first microphone of each.

    Environments are the groups and the labels; about a tenth goes to valid and a tenth to test.
    """
    root = Path(os.path.abspath(root))
    files = [path for path in _audio(root) if path.stem == "ch01"]
    splits = assign_splits([path.parent.name for path in files], 0.1, 0.1)

    def describe(path: Path) -> dict[str, str]:
        place = path.parent.name
        return {"recording": f"demand-{place}", "label": place.lower(), "split": splits[place]}

    return _catalogue(files, "noise", out, "demand", "CC-BY-4.0", describe, root, progress)


def musan(root: PathLike, out: PathLike, music: bool = True, progress: bool = True) -> ScanReport:
    """Noise manifest of MUSAN (Snyder 2015): noise/<source>/*.wav and, if wanted, music/<source>/*.wav.

    Its speech is left out. A tenth of the recordings each goes to valid and test.
    """
    root = _inside(root, "musan")
    wanted = ("noise", "music") if music else ("noise",)
    files = [path for path in _audio(root) if path.relative_to(root).parts[0] in wanted]
    splits = assign_splits([path.stem for path in files], 0.1, 0.1)

    def describe(path: Path) -> dict[str, str]:
        label = path.relative_to(root).parts[0]
        return {"recording": path.stem, "label": label, "split": splits[path.stem]}

    return _catalogue(files, "noise", out, "musan", "CC-BY-4.0 and public domain", describe, root, progress)


def esc50(root: PathLike, out: PathLike, progress: bool = True) -> ScanReport:
    """Noise manifest of ESC-50 (Piczak 2015): audio/*.wav and meta/esc50.csv.

    Folds 1 to 3 become train, 4 valid, 5 test (clips of one source share a fold); the category is the label.

    Raises:
        ManifestError: the table of its clips is not there.
    """
    root = _inside(root, "ESC-50-master")
    table = root / "meta" / "esc50.csv"
    if not table.is_file():
        raise ManifestError(f"{table}: no such file; name the folder of ESC-50 that holds audio and meta")
    with open(table, newline="", encoding="utf-8") as stream:
        rows = {row["filename"]: row for row in csv.DictReader(stream)}

    def describe(path: Path) -> dict[str, str]:
        row = rows[path.name]
        split = {"4": "valid", "5": "test"}.get(row["fold"], "train")
        return {"recording": f"esc50-{row['src_file']}", "label": row["category"], "split": split}

    files = [path for path in _audio(root / "audio") if path.name in rows]
    return _catalogue(files, "noise", out, "esc50", "CC-BY-NC-3.0", describe, root, progress)


def dns_challenge(root: PathLike, out: PathLike, valid_fraction: float = 0.02, progress: bool = True) -> CorpusPaths:
    """Speech and noise manifests of the DNS Challenge's 2020 training set; room responses if they are there.

    Args:
        root: the folder ``datasets``, or the one that holds it: clean/*.wav, noise/*.wav,
            impulse_responses/**/*.wav (later editions).
        out: folder for speech.jsonl, noise.jsonl and rir.jsonl.
        valid_fraction: fraction of the readers and recordings for valid. The published test set is the test:
            see ``dns_test_pairs``.
        progress: show a bar.

    Returns:
        CorpusPaths; rir.jsonl exists only if the set has impulse responses.
    """
    dns_reports(root, out, valid_fraction, progress)
    return CorpusPaths.of(out)


def dns_reports(root: PathLike, out: PathLike, valid_fraction: float = 0.02, progress: bool = True) -> list[ScanReport]:
    """As :func:`dns_challenge`; a report for each manifest."""
    root = _inside(root, "datasets")
    made = CorpusPaths.of(out)
    reports = []
    plans = (
        ("clean", "speech", made.speech, "speaker", _dns_reader),
        ("noise", "noise", made.noise, "recording", _dns_noise),
        ("impulse_responses", "rir", made.rir, "recording", _dns_room),
    )
    for folder, kind, manifest, field, name_of in plans:
        if kind == "rir" and not (root / folder).is_dir():
            continue
        files = _audio(root / folder)
        splits = assign_splits([name_of(path) for path in files], valid_fraction, 0.0)

        def describe(path: Path, field=field, name_of=name_of, splits=splits) -> dict[str, str]:
            return {field: name_of(path), "split": splits[name_of(path)]}

        licence = "CC-BY-4.0 (mixed)"
        reports.append(_catalogue(files, kind, manifest, "dns2020", licence, describe, root / folder, progress))
    return reports


def _dns_noise(path: Path) -> str:
    """The recording that a noise was cut from: door_Freesound_validated_458454_3 is the third piece of one."""
    return re.sub(r"(_Freesound_validated_\d+)_\d+$", r"\1", path.stem)


def _dns_room(path: Path) -> str:
    """The room of a simulated response, smallroom/Room001 of Room001-00007; of others the file's name."""
    room = re.fullmatch(r"(Room\d+)-\d+", path.stem)
    return f"{path.parent.parent.name}/{room[1]}" if room else path.stem


def dns_test_pairs(folder: PathLike) -> list[Pair]:
    """Pairs of a DNS-2020 synthetic test set by file id.

    Args:
        folder: e.g. test_set/synthetic/no_reverb: noisy/..._fileid_<n>.wav and clean/clean_fileid_<n>.wav.
    """

    def file_id(path: Path) -> str:
        match = re.search(r"fileid_(\d+)$", path.stem)
        if not match:
            raise ManifestError(f"{path}: the name has no fileid_<number>; is this the synthetic test set?")
        return f"fileid_{int(match.group(1))}"

    return _pair(Path(folder) / "noisy", Path(folder) / "clean", file_id)


def copy_pairs(pairs: Iterable[Pair], out: PathLike) -> Path:
    """Lay pairs out as the command ``evaluate`` takes them: out/noisy/<id>.wav, out/clean/<id>.wav.

    Raises:
        ManifestError: one of the two folders holds files of other pairs, or is the one that is read; nothing is written.
    """
    pairs, out = list(pairs), Path(out)
    for side in ("noisy", "clean"):
        sources = [getattr(pair, side) for pair in pairs]
        if any(source.parent.resolve() == (out / side).resolve() for source in sources):
            raise ManifestError(f"{out / side} is where the pairs come from; choose another folder")
        names = {f"{pair.id}{source.suffix}" for pair, source in zip(pairs, sources, strict=True)}
        if others := sorted(path.name for path in (out / side).glob("[!.]*") if path.name not in names):
            raise ManifestError(f"{out / side} holds {others[0]}, which is none of these pairs; choose an empty folder")
    for pair in pairs:
        for source, side in ((pair.noisy, "noisy"), (pair.clean, "clean")):
            with atomic_path(out / side / f"{pair.id}{source.suffix}") as temporary:
                shutil.copyfile(source, temporary)
    return out


def combine(manifests: Iterable[PathLike], out: PathLike) -> ScanReport:
    """One manifest of several of the same kind, each file's split kept.

    Raises:
        ManifestError: speech and noise, or other kinds, are mixed, or there is no entry.
    """
    entries: list[Entry] = []
    for path in manifests:
        entries += read_manifest(path)
    kinds = sorted({entry.kind for entry in entries})
    if len(kinds) != 1:
        raise ManifestError(f"{out}: manifests of one kind can be combined, got {', '.join(kinds) or 'none'}")
    write_manifest(out, entries)
    return summarise(Path(out), entries, [])


def _catalogue(
    files: list[Path],
    kind: str,
    out: PathLike,
    corpus: str,
    licence: str,
    describe: Callable[[Path], dict[str, str]],
    folder: Path,
    progress: bool,
) -> ScanReport:
    """Probe files and write the manifest of the usable ones; ``describe`` gives names and split of each."""
    if not files:
        raise ManifestError(f"{folder}: no audio of {corpus} in the expected layout; data/README.md shows it")
    probes = probe_all([str(path) for path in files], 4 * usable_cores(), progress)
    bad = [(str(path), probe) for path, probe in zip(files, probes, strict=True) if isinstance(probe, str)]
    entries = [
        Entry(
            path=str(path),
            kind=kind,
            corpus=corpus,
            seconds=seconds_of(*probe),
            sample_rate=probe[1],
            licence=licence,
            # only fields that hold text
            **describe(path),  # pyright: ignore[reportArgumentType]
        )
        for path, probe in zip(files, probes, strict=True)
        if not isinstance(probe, str)
    ]
    if not entries:
        raise ManifestError(f"{folder}: none of the {len(files)} files can be used; the first: {bad[0][1]}")
    entries.sort(key=lambda entry: (SPLITS.index(entry.split), entry.path))
    write_manifest(out, entries)
    write_bad(Path(f"{out}.bad.txt"), bad)
    return summarise(Path(out), entries, bad)


def _inside(root: PathLike, name: str) -> Path:
    """``root/name`` where it exists, else ``root``."""
    root = Path(os.path.abspath(root))
    return root / name if (root / name).is_dir() else root


def _audio(folder: Path) -> list[Path]:
    """Audio files under a folder that must exist."""
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; name the folder the collection was unpacked to")
    return [Path(path) for path in find_audio(folder)]


def _pair(noisy: Path, clean: Path, key: Callable[[Path], str]) -> list[Pair]:
    """Pair two folders by key, sorted; every noisy file must have its clean one."""
    references = {key(path): path for path in _audio(clean)}
    mixtures = {key(path): path for path in _audio(noisy)}
    missing = sorted(set(mixtures) - set(references))
    if missing:
        raise ManifestError(f"{clean}: no clean file for {len(missing)} noisy ones, the first is {missing[0]}")
    if not mixtures:
        raise ManifestError(f"{noisy}: no audio file in it; name the folder that holds noisy and clean")
    return [Pair(name, mixtures[name], references[name]) for name in sorted(mixtures, key=_natural)]


def _natural(name: str) -> list[str | int]:
    """Sort key by which fileid_2 comes before fileid_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _dns_reader(path: Path) -> str:
    """Reader of a DNS-2020 clean file (book_..._reader_06709_3.wav); the whole name where there is none."""
    match = re.search(r"reader_(\d+)", path.stem)
    return f"reader_{match.group(1)}" if match else path.stem
