"""Looking through folders of recordings: which files can be used, what groups them, which split a group gets.

``manifest.scan_folder`` puts these steps together.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dccrn_lib.audio.files import list_audio_files
from dccrn_lib.audio.recording import foreign_hint, opened
from dccrn_lib.runtime.errors import AudioError
from dccrn_lib.runtime.files import hash_files
from dccrn_lib.runtime.paths import PathLike

#: File names that say who speaks, by collection: the first group is the speaker.
SPEAKER_NAMES = {
    "LibriSpeech's names, SPEAKER-CHAPTER-UTTERANCE": re.compile(r"(?!\d\d?-\d\d?-(?:19|20)\d\d)(\d{1,5})-\d+-\d{4}"),
    "LibriTTS's names, SPEAKER_CHAPTER_PARAGRAPH_SENTENCE": re.compile(r"(\d+)_\d+_\d{6}_\d{6}"),
    "the names of Multilingual LibriSpeech, SPEAKER_BOOK_UTTERANCE": re.compile(r"(\d+)_\d+_\d{6}"),
    "VoiceBank's names, SPEAKER_UTTERANCE": re.compile(r"([ps]\d+)_\d{3}(?:_mic\d)?"),
    "the DNS Challenge's names, reader_SPEAKER": re.compile(r".*(reader_\d+)_.*"),
}
SILENT_PEAK = 10 ** (-90 / 20)  # -90 dBFS, of the mean of the channels
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")  # the only ones that can hold NaN


def find_audio(folder: PathLike) -> list[str]:
    """Absolute paths of all audio files under ``folder`` by name, sorted; hidden files are left out.

    Links are followed, to each real folder and file once: a recording under two names could fall into two splits.
    """
    kept: dict[str, str] = {}
    for path in sorted(str(path) for path in list_audio_files(os.path.abspath(folder), repeats=False)):
        real = os.path.realpath(path)
        if real not in kept or (os.path.islink(kept[real]) and not os.path.islink(path)):
            kept[real] = path
    return sorted(kept.values())


def probe_audio(path: str) -> tuple[int, int] | str:
    """Open an audio file as training will, and decode of it what can be wrong.

    Args:
        path: the file.

    Returns:
        (samples per channel, sample rate in Hz), or one line that says why the file cannot be used. A file of
        floating-point samples is read whole, since only such a file can hold NaN; of others the beginning, until
        something is heard, and the end.
    """
    if hint := foreign_hint(path):
        return hint
    try:
        with opened(path) as recording:
            heard = False
            while not heard or recording.subtype in _FLOAT_SUBTYPES:
                block = recording.read(recording.sample_rate)
                if not len(block):
                    break
                heard |= _is_heard(block.mean(axis=1), recording.sample_rate)
            if not heard:
                return "is silent: no sample of the mean of its channels lies above -90 dBFS"
            return recording.samples, recording.sample_rate
    except AudioError as error:
        return str(error).replace(str(path), "the file")


def _is_heard(x: np.ndarray, sample_rate: int) -> bool:
    """Whether a sample lies above -90 dBFS; a constant offset is not heard, where (sample,) is long enough to show one."""
    offset = x.mean() if len(x) >= sample_rate // 10 else 0.0
    return bool(np.abs(x - offset).max() >= SILENT_PEAK)


def copies(files: list[str]) -> list[tuple[str, str]]:
    """(file, an earlier one that holds the same bytes) for every copy among ``files``; only files of one size are read."""
    by_size: dict[int, list[str]] = {}
    for path in files:
        by_size.setdefault(os.stat(path).st_size, []).append(path)
    first: dict[str, str] = {}
    alike = [path for paths in by_size.values() if len(paths) > 1 for path in paths]
    found = [(path, first.setdefault(hash_files([path]), path)) for path in alike]
    return [(path, other) for path, other in found if path != other]


def seconds_of(samples: int, sample_rate: int) -> float:
    """Duration in s as manifests hold it: to a millionth, which is more than 0 for one sample at any rate."""
    return round(samples / sample_rate, 6)


def speaker_by_name(files: list[str]) -> tuple[str, list[str | None]] | None:
    """Speakers from the names of the files, where at least half of them are named as in a known collection.

    A file of another name in a folder where one speaker is named is taken for that speaker's.

    Returns:
        (what the names follow, the speaker of each file or None), or None where no collection fits.
    """
    for collection, pattern in SPEAKER_NAMES.items():
        matches = [pattern.fullmatch(Path(path).stem) for path in files]
        if 2 * sum(match is not None for match in matches) >= len(files) > 0:
            inside: dict[str, set[str]] = {}
            for path, match in zip(files, matches, strict=True):
                if match:
                    inside.setdefault(os.path.dirname(path), set()).add(match[1])
            alone = {folder: min(speakers) for folder, speakers in inside.items() if len(speakers) == 1}
            return collection, [
                match[1] if match else alone.get(os.path.dirname(path))
                for path, match in zip(files, matches, strict=True)
            ]
    return None


def assign_splits(groups: list[str], valid_fraction: float, test_fraction: float) -> dict[str, str]:
    """Split for each distinct group, by a hash of its name: the same name gets the same split everywhere.

    Args:
        groups: names, repeats allowed.
        valid_fraction: fraction of the groups for "valid".
        test_fraction: fraction of the groups for "test".

    Returns:
        {group: split}. Every split of positive fraction gets a group if there are enough: train first, then
        valid, then test.
    """
    # u in [0, 1) by hash; sorted by u: the lowest are test, the next valid, the rest train
    place = {
        name: int(hashlib.sha1(name.encode("utf-8", "surrogatepass")).hexdigest()[:12], 16) / 16**12
        for name in set(groups)
    }
    order = sorted(place, key=lambda name: (place[name], name))
    n_test = sum(u < test_fraction for u in place.values())
    n_valid = sum(test_fraction <= u < test_fraction + valid_fraction for u in place.values())
    if test_fraction > 0 and len(order) >= 2 + (valid_fraction > 0):
        n_test = max(n_test, 1)
    if valid_fraction > 0 and len(order) >= 2:
        n_valid = max(n_valid, 1)
    while n_test + n_valid >= len(order) and n_test + n_valid > 0:  # train keeps at least one
        if n_test > 1 or (n_test == 1 and n_valid <= 1):
            n_test -= 1
        else:
            n_valid -= 1
    bounds = {"test": order[:n_test], "valid": order[n_test : n_test + n_valid], "train": order[n_test + n_valid :]}
    return {name: split for split, names in bounds.items() for name in names}


def probe_all(files: list[str], workers: int, progress: bool) -> list[tuple[int, int] | str]:
    """Probe files in threads (the decoder releases the interpreter lock), in order."""
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        results = pool.map(probe_audio, files)
        bar = tqdm(results, total=len(files), desc="scan", unit="file", disable=not progress)
        return list(bar)


def without_suffix(path: str, folder: Path) -> str:
    """A file below ``folder`` as "a/b/name", whatever the system's separator."""
    relative = Path(os.path.relpath(path, os.path.abspath(folder)))
    return relative.with_suffix("").as_posix()


def group_name(path: str, folder: Path, level: int | None) -> str:
    """Folder of the file below ``folder`` (its first ``level`` parts); the file's own name at the top."""
    relative = Path(os.path.relpath(path, os.path.abspath(folder)))
    parts = relative.parts[:-1] if level is None else relative.parts[:-1][:level]
    return "/".join(parts) if parts else relative.with_suffix("").as_posix()


def label_of(path: str, folder: Path) -> str | None:
    """First folder below the root: where noises are sorted into folders, it names their kind."""
    parts = Path(os.path.relpath(path, os.path.abspath(folder))).parts
    return parts[0] if len(parts) > 1 else None
