"""Folders of clean, noisy and enhanced files: paired by name, scored in parallel, summed up."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dccrn_lib.audio.files import read_audio
from dccrn_lib.enhancement.waveform import enhance_waveform
from dccrn_lib.evaluation.intervals import bootstrap_ci, or_none, paired_difference
from dccrn_lib.evaluation.pairing import PathLike, check_lengths, pair_files
from dccrn_lib.evaluation.scores import SAMPLE_RATE, metric_names, score_pair
from dccrn_lib.networks.weights import load_model
from dccrn_lib.runtime.errors import AudioError, ConfigError, MetricError
from dccrn_lib.runtime.files import atomic_path

_NOT_COMPARED = ("gain", "polarity")  # more is not better


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
        length = min(reference.size, signal.size)  # they differ by one sample at most, see check_lengths
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
    check_lengths(pairs)
    estimates = None
    if enhanced is not None:
        found = pair_files(clean, enhanced)
        check_lengths(found)
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
        "mean": {},
        "ci95": {},
        "n_metric": {},
    }
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
        {"file": item["file"], "metric": m, "reason": reason} for item in items for m, reason in item["reasons"].items()
    ]
    result["items"] = items
    return result
