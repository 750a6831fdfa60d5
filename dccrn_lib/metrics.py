"""Folders of clean, noisy and enhanced files: paired by name, scored in parallel, summed up.

``score_pair`` (one pair of signals) lives in ``dccrn_lib.scoring``, ``bootstrap_ci`` and
``paired_difference`` in ``dccrn_lib.statistics``; they are offered here too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dccrn_lib.audio import audio_info, list_audio_files, read_audio
from dccrn_lib.errors import AudioError, ConfigError, MetricError
from dccrn_lib.paths import atomic_path
from dccrn_lib.scoring import ALL_METRICS, SAMPLE_RATE, metric_names, score_pair
from dccrn_lib.statistics import bootstrap_ci, or_none, paired_difference

__all__ = ["ALL_METRICS", "bootstrap_ci", "evaluate_directories", "metric_names", "paired_difference"]
__all__ += ["pair_files", "score_pair"]

PathLike = str | os.PathLike
_NOT_COMPARED = ("gain", "polarity")  # more is not better
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
        lonely = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
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
    found = _FILE_ID.findall(path.stem)
    return str(int(found[-1])) if found else None


def _check_lengths(pairs: list[tuple[str, Path, Path]]) -> None:
    """MetricError unless the files of every pair have one length (headers only, so it is quick).

    Where the rates differ, one sample at 16 kHz of rounding is allowed.
    """
    wrong = []
    for name, clean, other in pairs:
        a, b = audio_info(clean), audio_info(other)
        at_16k = [-(-i.samples * SAMPLE_RATE // i.sample_rate) for i in (a, b)]
        same = a.samples == b.samples if a.sample_rate == b.sample_rate else abs(at_16k[0] - at_16k[1]) <= 1
        if not same:
            wrong.append(f"{name} {b.seconds:.4f} s, clean {a.seconds:.4f} s")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise MetricError(
            f"lengths differ from the clean file's: {'; '.join(wrong[:3])}{more}; cut or align them"
        )


def _read_mono(path: Path) -> np.ndarray:
    """float32 (sample,) at 16 kHz, the mean of the channels."""
    samples, _ = read_audio(path, SAMPLE_RATE)
    return samples.mean(axis=0)


def _score_item(
    name: str, clean: Path, estimate: Path | np.ndarray | str, noisy: Path | None, metrics: tuple[str, ...]
) -> dict:
    """One entry of "items"; ``estimate`` is a file, a signal, or the reason why there is none."""
    item: dict = {"file": name}
    try:
        if isinstance(estimate, str):
            raise AudioError(estimate)
        signal = _read_mono(estimate) if isinstance(estimate, Path) else estimate
        reference = _read_mono(clean)
        length = min(reference.size, signal.size)  # they differ by one sample at most, see _check_lengths
        item["seconds"] = round(length / SAMPLE_RATE, 4)
        item |= score_pair(reference[:length], signal[:length], metrics=metrics)
        if noisy is not None:
            scores = score_pair(reference[:length], _read_mono(noisy)[:length], metrics=metrics)
            item["noisy"] = {key: scores[key] for key in metrics}
    except AudioError as error:
        item |= dict.fromkeys(metrics) | {"reasons": dict.fromkeys(metrics, str(error))}
    return item


def _one_thread() -> None:
    torch.set_num_threads(1)


def _scored(jobs: Iterable[tuple], workers: int) -> Iterator[dict]:
    """Score jobs as they come, in ``workers`` spawned processes (safe beside torch's threads and CUDA)."""
    if workers <= 1:
        yield from (_score_item(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    try:
        waiting: set = set()
        for job in jobs:
            waiting.add(pool.submit(_score_item, *job))
            if len(waiting) >= 4 * workers:  # signals in flight stay few
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise MetricError(
            'a scoring process ended early; use workers=1, or call this under `if __name__ == "__main__":`'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _jobs(
    pairs: list[tuple[str, Path, Path]],
    estimates: dict[Path, Path] | None,
    network: nn.Module | None,
    metrics: tuple[str, ...],
) -> Iterator[tuple]:
    """Arguments of _score_item for every pair; runs the network, one file at a time."""
    from dccrn_lib.enhance import enhance_waveform

    for name, clean, noisy in pairs:
        if network is not None:
            try:
                estimate: Path | np.ndarray | str = enhance_waveform(network, _read_mono(noisy), SAMPLE_RATE)
            except AudioError as error:
                estimate = str(error)
            yield name, clean, estimate, noisy, metrics
        elif estimates is not None:
            yield name, clean, estimates[clean], noisy, metrics
        else:
            yield name, clean, noisy, None, metrics


def evaluate_directories(
    clean: PathLike,
    noisy: PathLike,
    model: str | os.PathLike | nn.Module | None = None,
    enhanced: PathLike | None = None,
    json_path: PathLike | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = True,
    metrics: Sequence[str] | None = None,
) -> dict:
    """Score a folder of files against clean references.

    With ``model``, the noisy files are enhanced in memory and scored; with ``enhanced``, the files of that
    folder; with neither, the noisy files themselves. Every file is brought to 16 kHz and the mean of its
    channels first. Files are paired by ``pair_files``; all lengths are checked before the work begins.

    Args:
        clean, noisy: folders, searched with their subfolders.
        model: shipped name, path of weights, or a network.
        enhanced: folder of files already enhanced.
        json_path: where to write the result, or None.
        device: for the model.
        workers: processes for scoring; None chooses one for few files and one per core otherwise.
        progress: show a progress bar on stderr.
        metrics: names to compute, None for all that are installed.

    Returns:
        {"model", "system", "n", "n_scored", "mean", "ci95", "n_metric", "items", "unscored"} and, beside a
        model or enhanced files, "noisy_mean" and "improvement" (paired difference to the noisy file per
        metric, see paired_difference). An item is {"file", "seconds", metric: value or None, "reasons",
        "noisy": {metric: value}}. "n_scored" counts the items for which every metric has a value;
        "unscored" lists the others' reasons. Means and intervals are over the items that have the metric. A
        file whose samples cannot be used (NaN, cut off) is counted as unscored.

    Raises:
        AudioError: a folder is missing, or a file is missing, empty or not audio.
        MetricError: files without a partner, lengths that differ.
        ConfigError: both model and enhanced given, unknown metric or model.
    """
    if model is not None and enhanced is not None:
        raise ConfigError("give model or enhanced, not both")
    names = metric_names(metrics)
    pairs = pair_files(clean, noisy)
    _check_lengths(pairs)
    estimates = None
    if enhanced is not None:
        found = pair_files(clean, enhanced)
        _check_lengths(found)
        estimates = {reference: path for _, reference, path in found}
    network, label = _load(model, device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        workers = min(cores, len(pairs)) if len(pairs) >= 16 else 1
    jobs = _jobs(pairs, estimates, network, names)
    bar = tqdm(_scored(jobs, workers), total=len(pairs), unit="file", desc="evaluate", disable=not progress)
    items = sorted(bar, key=lambda item: item["file"])
    result = {"model": label, "system": "model" if model is not None else "enhanced" if enhanced else "noisy"}
    result |= _summary(items, names)
    if json_path is not None:
        with atomic_path(json_path) as temporary:
            text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
    return result


def _load(model: str | os.PathLike | nn.Module | None, device: str) -> tuple[nn.Module | None, str | None]:
    if model is None:
        return None, None
    if isinstance(model, nn.Module):
        return model.to(device), type(model).__name__
    from dccrn_lib.models import load_model

    return load_model(model, device), Path(model).name


def _summary(items: list[dict], metrics: tuple[str, ...]) -> dict:
    """Everything of the result but the model's name."""
    for item in items:
        for scores in (item, item.get("noisy", {})):
            scores |= {m: round(scores[m], 6) for m in metrics if scores.get(m) is not None}
    result: dict = {
        "n": len(items),
        "n_scored": sum(all(item[m] is not None for m in metrics) for item in items),
        "sample_rate": SAMPLE_RATE,
        "mean": {}, "ci95": {}, "n_metric": {},
    }  # fmt: skip
    for m in metrics:
        values = [item[m] for item in items if item[m] is not None]
        result["mean"][m] = round(float(np.mean(values)), 6) if values else None
        result["ci95"][m] = [or_none(v) for v in bootstrap_ci(values)] if values else [None, None]
        result["n_metric"][m] = len(values)
    if any("noisy" in item for item in items):
        result["noisy_mean"], result["improvement"] = {}, {}
        for m in metrics:
            before = [item.get("noisy", {}).get(m) for item in items]
            values = [v for v in before if v is not None]
            result["noisy_mean"][m] = round(float(np.mean(values)), 6) if values else None
            if m not in _NOT_COMPARED:
                result["improvement"][m] = paired_difference([item[m] for item in items], before)
    result["unscored"] = [
        {"file": item["file"], "metric": m, "reason": reason}
        for item in items
        for m, reason in item["reasons"].items()
    ]
    result["items"] = items
    return result
