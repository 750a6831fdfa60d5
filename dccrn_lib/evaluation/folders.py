"""Folders of clean, noisy and enhanced files: paired by name, scored in parallel, summed up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from dccrn_lib.audio.files import AUDIO_SUFFIXES
from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.enhancement.waveform import enhance_waveform, resolve_model
from dccrn_lib.evaluation.intervals import paired_difference, summarise
from dccrn_lib.evaluation.pairing import check_lengths, pair_files
from dccrn_lib.evaluation.scores import metric_names
from dccrn_lib.evaluation.systems import Pair, read_mono, score_many
from dccrn_lib.networks.weights import find_weights
from dccrn_lib.runtime.errors import AudioError, ConfigError
from dccrn_lib.runtime.files import write_json
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.workers import usable_cores

_NOT_COMPARED = ("gain", "polarity")  # more is not better


def _jobs(
    pairs: list[tuple[str, Path, Path]], estimates: dict[Path, Path] | None, network: nn.Module | None
) -> Iterator[Pair]:
    """What is to be scored of every pair; runs the network, one file at a time."""
    for name, clean, noisy in pairs:
        head = {"file": name}
        if network is not None:
            try:
                yield Pair(head, clean, enhance_waveform(network, read_mono(noisy), SAMPLE_RATE), noisy)
            except AudioError as error:
                yield Pair(head, clean, str(error), noisy)
        elif estimates is not None:
            yield Pair(head, clean, estimates[clean], noisy)
        else:
            yield Pair(head, clean, noisy)


def evaluate_directories(
    clean: PathLike,
    noisy: PathLike,
    model: PathLike | nn.Module | None = None,
    enhanced: PathLike | None = None,
    json_path: PathLike | None = None,
    device: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    metrics: Sequence[str] | None = None,
    on_result: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Score a folder of files against clean references.

    With ``model``, the noisy files are enhanced in memory and scored; with ``enhanced``, the files of that
    folder; with neither, the noisy files themselves. Every file is brought to 16 kHz and the mean of its
    channels first. Files are paired by ``pair_files``; all lengths are checked before the work begins.

    Args:
        clean, noisy: folders, searched with their subfolders.
        model: shipped name, path of weights, or a network.
        enhanced: folder of files already enhanced.
        json_path: where to write the result, or None.
        device: for the model; None leaves a network where it is, and loads weights on the CPU.
        workers: processes for scoring; None takes one for fewer than 16 files, and as many as cores otherwise.
        progress: show a progress bar on stderr.
        metrics: names to compute, None for all that are installed.
        on_result: called with the result before it is written, so that it is not lost where that fails.

    Returns:
        {"model", "system", "n", "n_scored", "mean", "ci95", "n_metric", "items", "unscored"} and, beside a
        model or enhanced files, "noisy_mean" with "noisy_n_metric", over the files behind "mean" that have the metric
        when noisy too, and "improvement" (paired difference to the noisy file per metric, see Difference.record). An
        item is {"file", "seconds", metric: value or None, "reasons", "noisy": {metric: value}}. "n_scored" counts the
        items for which every metric has a value; "unscored" lists the others' reasons. Means and intervals are over the
        items that have the metric. A file that cannot be used (NaN, cut off, empty, not audio) is counted as unscored.

    Raises:
        AudioError: a folder is missing.
        MetricError: files without a partner, lengths that differ.
        ConfigError: both model and enhanced given, unknown metric or model; ``json_path`` is an input or a recording.
    """
    if model is not None and enhanced is not None:
        raise ConfigError("give model or enhanced, not both")
    names = metric_names(metrics)
    pairs = pair_files(clean, noisy)
    inputs = [path for pair in pairs for path in pair[1:]]
    check_lengths(pairs)
    estimates = None
    if enhanced is not None:
        matched = pair_files(clean, enhanced)
        check_lengths(matched)
        estimates = {reference: path for _, reference, path in matched}
        inputs += estimates.values()
    if json_path is not None:
        _refuse_input(Path(json_path), inputs, model)
    network, label = _load(model, device)
    if workers is None:
        workers = min(usable_cores(), len(pairs)) if len(pairs) >= 16 else 1
    scored = score_many(_jobs(pairs, estimates, network), names, workers)
    bar = tqdm(scored, total=len(pairs), unit="file", desc="evaluate", disable=not progress)
    items = sorted(bar, key=lambda item: item["file"])
    result = {"model": label, "system": "model" if model is not None else "enhanced" if enhanced else "noisy"}
    result |= _summary(items, names)
    if on_result is not None:
        on_result(result)
    if json_path is not None:
        write_json(json_path, result, allow_nan=False)
    return result


def _refuse_input(json_path: Path, inputs: list[Path], model: PathLike | nn.Module | None) -> None:
    """ConfigError if the result would replace what is read, or lie where the next evaluation takes it for a recording."""
    if isinstance(model, (str, os.PathLike)):
        weights = find_weights(model)
        inputs = [*inputs, weights, weights.with_suffix(".json")]
    if os.path.realpath(json_path) in {os.path.realpath(path) for path in inputs}:
        raise ConfigError(f"{json_path} is read by this evaluation; name another file for the result")
    if json_path.suffix.lower() in AUDIO_SUFFIXES:
        raise ConfigError(f"{json_path}: the result is no recording; name a file that ends in .json")


def _load(model: PathLike | nn.Module | None, device: str | None) -> tuple[nn.Module | None, str | None]:
    if model is None:
        return None, None
    label = type(model).__name__ if isinstance(model, nn.Module) else Path(model).name
    return resolve_model(model, device), label


def _summary(items: list[dict[str, Any]], metrics: tuple[str, ...]) -> dict[str, Any]:
    """Everything of the result but the model's name."""
    for item in items:
        for scores in (item, item.get("noisy", {})):
            scores |= {m: round(scores[m], 6) for m in metrics if scores.get(m) is not None}
    summary = summarise([{m: item[m] for m in metrics} for item in items])
    result: dict[str, Any] = {
        "n": len(items),
        "n_scored": sum(all(item[m] is not None for m in metrics) for item in items),
        "sample_rate": SAMPLE_RATE,
        "mean": _rounded(summary["mean"]),
        "ci95": {m: interval or [None, None] for m, interval in summary["ci95"].items()},
        "n_metric": summary["n_metric"],
    }
    if any("noisy" in item for item in items):
        noisy = [item.get("noisy", {}) for item in items]
        # the files behind both means are the same ones
        before = [
            {m: scores.get(m) if item[m] is not None else None for m in metrics}
            for item, scores in zip(items, noisy, strict=True)
        ]
        both = summarise(before)
        result |= {"noisy_mean": _rounded(both["mean"]), "noisy_n_metric": both["n_metric"]}
        result["improvement"] = {
            m: paired_difference([item[m] for item in items], [scores[m] for scores in before]).record()
            for m in metrics
            if m not in _NOT_COMPARED
        }
    result["unscored"] = [
        {"file": item["file"], "metric": m, "reason": reason} for item in items for m, reason in item["reasons"].items()
    ]
    result["items"] = items
    return result


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {key: None if value is None else round(value, 6) for key, value in values.items()}
