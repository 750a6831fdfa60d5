"""Do the mixtures come fast enough? Mixtures per second, planned and rendered here or there, against what a step uses up.

    python -m dccrn_lib bench data --speech speech.jsonl --noise noise.jsonl --profile gpu --device cuda --workers 2,4,8

Everything is timed in turns from a decoded corpus; a ratio is the median over the rounds, and above 1 the mixtures wait
for the network and not the network for them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from dccrn_lib.corpus.batch_rendering import DeviceCorpus, render_batch
from dccrn_lib.corpus.decoded import decode_corpus
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.rendering import render
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.devices import has_bfloat16, pick_device
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.profiles import Profile, get_profile


class Mixer:
    """Ways to make the mixtures of a dataset, each in batches of one size, from where the last one ended."""

    def __init__(self, dataset: MixtureDataset, held: DeviceCorpus, batch_size: int) -> None:
        self.dataset, self.held, self.size, self.next = dataset, held, batch_size, 0

    def plans(self) -> list:
        """A batch of plans."""
        self.next += self.size
        return [self.dataset.plan(i) for i in range(self.next - self.size, self.next)]

    def one_by_one(self) -> None:
        """A batch, rendered one mixture after the other on the CPU."""
        for plan in self.plans():
            render(plan, self.dataset.recordings)

    def render(self, plans: list) -> None:
        """A batch, rendered at once on the device."""
        render_batch(plans, self.held)


def rate(make: Callable[[], object], mixtures: int, batches: int, device: torch.device) -> float:
    """Mixtures per second of a function that makes a batch."""
    make()
    _wait(device)
    started = time.perf_counter()
    for _ in range(batches):
        make()
    _wait(device)
    return batches * mixtures / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def mixing_rate(dataset: MixtureDataset, batch_size: int, workers: int, batches: int) -> float:
    """Mixtures per second from a loader that has started and filled its queue."""
    loader = iter(DataLoader(dataset, batch_size, num_workers=workers, persistent_workers=workers > 0))
    for _ in range(1 + 2 * workers):  # what the workers have ready before they are asked costs nothing
        next(loader)
    started = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * batch_size / (time.perf_counter() - started)


def step_rate(model: nn.Module, batch: dict, steps: int, amp: bool) -> float:
    """Mixtures per second that forward and backward pass use up."""
    device = next(model.parameters()).device
    noisy, clean = batch["noisy"].to(device), batch["clean"].to(device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            estimate = model(noisy)
        si_snr_loss(estimate, clean).backward()

    return statistics.median(rate(step, len(noisy), 1, device) for _ in range(steps))


def measure_data(
    corpus: Mapping[str, str],
    profile_name: str = "quick",
    workers: Sequence[int] = (0, 1, 2),
    device: str = "cpu",
    rounds: int = 3,
    batches: int = 8,
) -> dict[str, Any]:
    """Mixtures per second of each way to make them, beside what the training steps of student and teacher need.

    Args:
        corpus: {"speech", "noise", "rir"}: manifests; all "" for a small generated corpus.
        profile_name: sizes of batch, segment and networks.
        workers: numbers of loader processes to try.
        device: of the training step, and of the rendering in batches.
        rounds: repetitions, in turns.
        batches: batches, and steps, per round.

    Returns:
        {"title", "rows": [{"mixtures", "per second", "a step of STUDENT = 1", "a step of TEACHER = 1"}]}.

    Raises:
        ConfigError: speech without noise or the other way round, rir without them, or an unknown profile or device.
    """
    if bool(corpus["speech"]) != bool(corpus["noise"]):
        raise ConfigError("give --speech and --noise together, or neither")
    if corpus["rir"] and not corpus["speech"]:
        raise ConfigError("--rir goes with --speech and --noise: give all three, or none for the generated corpus")
    profile = get_profile(profile_name)
    if not corpus["speech"]:
        made = generated_corpus(0.05)
        corpus = {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}
    with tempfile.TemporaryDirectory() as folder:
        mixer = mixer_of(corpus, profile, Path(folder), pick_device(device))
        return _in_turns(mixer, profile, workers, device, rounds, batches)


def mixer_of(corpus: Mapping[str, str], profile: Profile, folder: Path, device: torch.device) -> Mixer:
    """The train split of a corpus, decoded and held on the device."""
    lists = (corpus["speech"], corpus["noise"], corpus["rir"] or None)
    options = {"config": profile.mix(profile.segment_seconds), "split": "train", "length": 100_000}
    entries = MixtureDataset(*lists, **options).planner.entries
    decoded = decode_corpus(entries, folder, progress=False)
    held = DeviceCorpus(entries, decoded, decoded.tensor().to(device))
    return Mixer(MixtureDataset(*lists, **options, decoded=decoded), held, profile.batch_size)


def _in_turns(
    mixer: Mixer, profile: Profile, workers: Sequence[int], device: str, rounds: int, batches: int
) -> dict[str, Any]:
    """The table of :func:`measure_data`."""
    cpu, where = torch.device("cpu"), mixer.held.device
    size = profile.batch_size
    ways: dict[str, Callable[[], float]] = {
        "planned": lambda: rate(mixer.plans, size, batches, cpu),
        "planned and rendered one by one": lambda: rate(mixer.one_by_one, size, batches, cpu),
        f"planned and rendered in batches on {where.type}": lambda: rate(
            lambda: mixer.render(mixer.plans()), size, batches, where
        ),
        **{
            f"from {n} worker{'s' * (n != 1)}": lambda n=n: mixing_rate(mixer.dataset, size, n, batches)
            for n in workers
        },
    }
    batch = next(iter(DataLoader(mixer.dataset, size)))
    networks = {name: build_model(name).train().to(where) for name in (profile.student, profile.teacher)}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    needed: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            needed[name].append(step_rate(network, batch, batches, profile.amp and has_bfloat16(where)))
        for way, measure in ways.items():
            rates[way].append(measure())
    rows = []
    for way, found in rates.items():
        ratios = {
            f"a step of {name} = 1": statistics.median(r / n for r, n in zip(found, used, strict=True))
            for name, used in needed.items()
        }
        rows.append({"mixtures": way, "per second": statistics.median(found), **ratios})
    title = f"{profile.student} on {device}: batches of {size} x {profile.segment_seconds:g} s"
    return {"title": title, "rows": rows}
