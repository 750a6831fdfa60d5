"""The one scorer: pairs of signals or files to metrics, in processes, and scores kept beside what they were made of."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from dccrn_lib.audio.files import read_audio
from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.enhancement.waveform import device_of
from dccrn_lib.evaluation.scores import score_pair
from dccrn_lib.networks.modes import evaluating
from dccrn_lib.runtime.digests import state_digest
from dccrn_lib.runtime.errors import AudioError, ConfigError
from dccrn_lib.runtime.files import read_json, write_json
from dccrn_lib.runtime.workers import spawn_pool, usable_cores

Items = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Pair:
    """A clean and an estimated signal to compare, as it travels to the process that scores it.

    Args:
        head: what the item begins with, its name for example.
        clean: file, or (sample,) at 16 kHz.
        estimate: the same, or text: the reason why there is none.
        noisy: file that is scored too, under the key "noisy".
    """

    head: Mapping[str, Any]
    clean: Path | np.ndarray
    estimate: Path | np.ndarray | str
    noisy: Path | None = None


def read_mono(path: Path) -> np.ndarray:
    """float32 (sample,) at 16 kHz, the mean of the channels."""
    samples, _ = read_audio(path, SAMPLE_RATE)
    return samples.mean(axis=0)


def score_many(pairs: Iterable[Pair], metrics: Sequence[str], workers: int = 1) -> Iterator[dict[str, Any]]:
    """Score pairs as they come; yields one item for each, in their order.

    Args:
        pairs: taken while others are scored, so that few signals are in memory at a time.
        metrics: names, see ``evaluation.scores``.
        workers: spawned processes with one thread each; 1 scores in this process.

    Yields:
        The pair's head, then {metric: value or None, ..., "reasons"}; with files also "seconds", with a noisy file
        "noisy": {metric: value}. A file whose samples cannot be used (NaN, cut off) gives None and the reason.

    Raises:
        MetricError: a pair differs in length.
        WorkerError: a process was killed.
    """
    metrics = tuple(metrics)
    if workers <= 1:
        yield from (_score(pair, metrics) for pair in pairs)
        return
    with spawn_pool(workers, torch.set_num_threads, (1,)) as pool:
        waiting: deque[Future] = deque()
        for pair in pairs:
            waiting.append(pool.submit(_score, pair, metrics))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _score(pair: Pair, metrics: tuple[str, ...]) -> dict[str, Any]:
    item = dict(pair.head)
    try:
        if isinstance(pair.estimate, str):
            raise AudioError(pair.estimate)
        estimate, clean = _signal(pair.estimate), _signal(pair.clean)
        noisy = None if pair.noisy is None else _signal(pair.noisy)
        if isinstance(pair.clean, Path):
            # they differ by rounding at most, see check_lengths
            length = min(x.size for x in (clean, estimate, noisy) if x is not None)
            clean, estimate = clean[:length], estimate[:length]
            item["seconds"] = round(length / SAMPLE_RATE, 4)
        item |= score_pair(clean, estimate, metrics=metrics)
        if noisy is not None:
            scores = score_pair(clean, noisy[: clean.size], metrics=metrics)
            item["noisy"] = {key: scores[key] for key in metrics}
    except AudioError as error:
        item |= dict.fromkeys(metrics) | {"reasons": dict.fromkeys(metrics, str(error))}
    return item


def _signal(source: Path | np.ndarray) -> np.ndarray:
    return read_mono(source) if isinstance(source, Path) else source


def evaluate_systems(
    systems: Mapping[str, nn.Module | None],
    mixtures: MixtureDataset,
    metrics: Sequence[str] = ("pesq_wb", "stoi", "si_snr_db", "gain", "polarity"),
    workers: int | None = None,
    progress: bool = True,
    keep: str | Path | None = None,
) -> Items:
    """Score every system on every mixture.

    Args:
        systems: name -> model; None stands for the noisy input itself.
        mixtures: the test set.
        metrics: names, see ``evaluation.scores``.
        workers: processes that score; None takes as many as cores, 8 at most; 1 scores in this process.
        progress: show a progress bar.
        keep: JSON file for the scores; read instead where it holds those of these weights, mixtures and metrics.

    Returns:
        name -> one dict a mixture: {"id", "snr_db_in", "label", metric: value or None, "reasons"}.
    """
    key = score_key(systems, mixtures, metrics) if keep else None
    if keep and Path(keep).is_file():
        record = read_json(keep, "remove it to score again")
        if record.get("key") == key:
            return {name: record["items"][name] for name in systems}
    scored = score_many(_pairs(systems, mixtures), metrics, workers or min(usable_cores(), 8))
    bar = tqdm(scored, total=len(systems) * len(mixtures), desc="score", disable=not progress)
    items: Items = {name: [] for name in systems}
    for k, item in enumerate(bar):  # all systems of a mixture, then the next mixture
        items[list(systems)[k % len(systems)]].append(item)
    if keep:
        write_json(Path(keep), {"key": key, "items": items})
    return items


def _pairs(systems: Mapping[str, nn.Module | None], mixtures: MixtureDataset) -> Iterator[Pair]:
    """Every mixture through every system."""
    for i in range(len(mixtures)):
        item = mixtures[i]
        head = {"id": item["id"], "snr_db_in": item["snr_db"], "label": item["label"]}
        for model in systems.values():
            estimate = item["noisy"]
            if model is not None:
                with torch.no_grad(), evaluating(model):  # a mask has no weights
                    estimate = model(item["noisy"][None].to(device_of(model)))[0].cpu()
            yield Pair(head, item["clean"].numpy(), estimate.numpy())


def score_key(
    systems: Mapping[str, nn.Module | None], mixtures: MixtureDataset, metrics: Sequence[str]
) -> dict[str, Any]:
    """What scores depend on: weights and configs, how mixtures are drawn, two of them as samples, and the metrics."""
    weights = {name: state_digest(nn.Identity() if model is None else model) for name, model in systems.items()}
    configs = {name: repr(getattr(model, "config", None)) for name, model in systems.items()}  # a mask has no weights
    samples = b"".join(mixtures[i]["noisy"].numpy().tobytes() for i in (0, len(mixtures) - 1))
    drawn = [repr(mixtures.config), mixtures.seed, len(mixtures), hashlib.sha256(samples).hexdigest()]
    return {"weights": weights, "configs": configs, "mixtures": drawn, "metrics": list(metrics)}


def kept_items(path: str | Path, *systems: str) -> Items:
    """The scores in a file that :func:`evaluate_systems` kept, whatever they were made of.

    Args:
        path: the file.
        systems: those that must be in it.

    Raises:
        ConfigError: the file is of an earlier version of this package, or lacks a system.
    """
    items = read_json(path, "remove it and give the command that made it again").get("items")
    if not isinstance(items, dict):
        raise ConfigError(f"{path}: scores of an earlier version; give the command that made them again")
    for name in systems:
        if not items.get(name):
            raise ConfigError(f"{path}: no scores of {name}; remove it and give the command that made it again")
    return items
