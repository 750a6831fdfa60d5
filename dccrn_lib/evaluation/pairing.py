"""Which clean file belongs to which noisy one."""

from __future__ import annotations

import re
from pathlib import Path

from dccrn_lib.audio.files import audio_info, list_audio_files
from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.runtime.errors import AudioError, MetricError
from dccrn_lib.runtime.paths import PathLike

_FILE_ID = re.compile(r"fileid_(\d+)")


def pair_files(clean: PathLike, other: PathLike) -> list[tuple[str, Path, Path]]:
    """Pair the audio files of two folders.

    By name relative to the folder; if that does not pair all files, by name without suffix; then by the
    number behind "fileid_", as in the DNS Challenge's test set (clean_fileid_12.wav with
    ..._snr5_fileid_12.wav).

    Args:
        clean: folder of references, searched with its subfolders.
        other: folder of noisy or enhanced files.

    Returns:
        (name of the other file relative to its folder, clean file, other file), sorted by name.

    Raises:
        AudioError: a folder is missing.
        MetricError: a folder has no audio file, or files are left without a partner (they are named).
    """
    files = {}
    for folder in (Path(clean), Path(other)):
        files[folder] = list_audio_files(folder)
        if not files[folder]:
            raise MetricError(f"no audio file in {folder}")
    fewest: tuple[list[str], list[str]] | None = None
    for rule in (_name_key, _stem_key, _id_key):
        left, right = ({rule(p, f): p for p in files[f]} for f in (Path(clean), Path(other)))
        if None in left or None in right:
            continue
        if len(left) < len(files[Path(clean)]) or len(right) < len(files[Path(other)]):
            continue  # two files with one key
        # None was left out above
        lonely = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())  # pyright: ignore[reportArgumentType]
        if not any(lonely):
            pairs = [(right[k].relative_to(other).as_posix(), left[k], right[k]) for k in left]
            return sorted(pairs)
        named = [left[k].name for k in lonely[0]], [right[k].name for k in lonely[1]]
        if fewest is None or sum(map(len, named)) < sum(map(len, fewest)):
            fewest = named
    if fewest is None:
        raise MetricError(f"cannot pair {clean} with {other}: names repeat")
    parts = [
        f"{len(names)} only in {folder}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for names, folder in zip(fewest, (clean, other), strict=True)
        if names
    ]
    raise MetricError(f"files without a partner of the same name: {'; '.join(parts)}")


def _name_key(path: Path, folder: Path) -> str | None:
    return path.relative_to(folder).as_posix()


def _stem_key(path: Path, folder: Path) -> str | None:
    return path.relative_to(folder).with_suffix("").as_posix()


def _id_key(path: Path, folder: Path) -> str | None:
    numbers = _FILE_ID.findall(path.stem)
    return str(int(numbers[-1])) if numbers else None


def check_lengths(pairs: list[tuple[str, Path, Path]]) -> None:
    """MetricError unless the files of every pair have one length (headers only, so it is quick).

    Where the rates differ, one sample at 16 kHz of rounding is allowed. Files that cannot be read are passed over.
    """
    wrong = []
    for name, clean, other in pairs:
        try:
            a, b = audio_info(clean), audio_info(other)
        except AudioError:
            continue  # one file does not refuse the others; its score is None, with this reason
        at_16k = [-(-i.samples * SAMPLE_RATE // i.sample_rate) for i in (a, b)]
        same = a.samples == b.samples if a.sample_rate == b.sample_rate else abs(at_16k[0] - at_16k[1]) <= 1
        if not same:
            wrong.append(f"{name} {b.seconds:.4f} s, clean {a.seconds:.4f} s")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise MetricError(f"lengths differ from the clean file's: {'; '.join(wrong[:3])}{more}; cut or align them")
