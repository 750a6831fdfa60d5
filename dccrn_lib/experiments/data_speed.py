"""Do the mixtures come fast enough? Mixtures per second by number of workers against what a training step uses up.

    python -m dccrn_lib bench data --speech speech.jsonl --noise noise.jsonl --profile gpu --device cuda --workers 2,4,8

Data and step are timed in turns; the ratio is the median over the rounds, and above 1 the workers wait for the network
and not the network for them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.devices import pick_device
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.profiles import get_profile


def mixing_rate(dataset: MixtureDataset, batch_size: int, workers: int, batches: int) -> float:
    """Mixtures per second from a loader that has started and filled its queue."""
    loader = iter(DataLoader(dataset, batch_size, num_workers=workers, persistent_workers=workers > 0))
    for _ in range(1 + 2 * workers):  # what the workers have ready before they are asked costs nothing
        next(loader)
    started = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * batch_size / (time.perf_counter() - started)


def step_rate(model: torch.nn.Module, batch: dict, steps: int, amp: bool) -> float:
    """Mixtures per second that forward and backward pass use up."""
    device = next(model.parameters()).device
    noisy, clean = batch["noisy"].to(device), batch["clean"].to(device)
    seconds = []
    for _ in range(1 + steps):  # the first one warms up
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            estimate = model(noisy)
        si_snr_loss(estimate, clean).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return len(noisy) / statistics.median(seconds[1:])


def measure_data(
    corpus: Mapping[str, str],
    profile_name: str = "quick",
    workers: Sequence[int] = (0, 1, 2),
    device: str = "cpu",
    rounds: int = 3,
    batches: int = 8,
) -> dict[str, Any]:
    """Mixtures per second for each number of workers, beside what the student's training step needs.

    Args:
        corpus: {"speech", "noise", "rir"}: manifests; all "" for a small generated corpus.
        profile_name: sizes of batch, segment and student.
        workers: numbers of loader processes to try.
        device: of the training step.
        rounds: repetitions, in turns.
        batches: batches, and steps, per round.

    Returns:
        {"title", "rows": [{"workers", "mixtures per second", "what a step needs = 1"}]}.

    Raises:
        ConfigError: speech without noise or the other way round, or an unknown profile or device.
    """
    if bool(corpus["speech"]) != bool(corpus["noise"]):
        raise ConfigError("give --speech and --noise together, or neither")
    profile = get_profile(profile_name)
    if not corpus["speech"]:
        made = generated_corpus(0.05)
        corpus = {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}
    mix = profile.mix(profile.segment_seconds)
    dataset = MixtureDataset(
        corpus["speech"], corpus["noise"], corpus["rir"] or None, mix, split="train", length=100_000
    )
    model = build_model(profile.student).train().to(pick_device(device))
    batch = next(iter(DataLoader(dataset, profile.batch_size)))
    rates: dict[int, list[float]] = {n: [] for n in workers}
    ratios: dict[int, list[float]] = {n: [] for n in workers}
    for _ in range(rounds):
        needed = step_rate(model, batch, batches, profile.amp)
        for n in workers:
            rates[n].append(mixing_rate(dataset, profile.batch_size, n, batches))
            ratios[n].append(rates[n][-1] / needed)
    title = f"{profile.student} on {device}: batches of {profile.batch_size} x {profile.segment_seconds:g} s"
    rows = [
        {
            "workers": n,
            "mixtures per second": statistics.median(rates[n]),
            "what a step needs = 1": statistics.median(ratios[n]),
        }
        for n in workers
    ]
    return {"title": title, "rows": rows}
