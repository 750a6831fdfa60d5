"""Do the mixtures come fast enough? Mixtures a second by number of workers against what a training step uses up.

    python benchmarks/data.py [--speech M.jsonl --noise M.jsonl --rir M.jsonl] [--profile gpu] [--workers 0,1,2,4]

Without manifests a small generated corpus is used. Data and step are timed in turns; the ratio is the median over the
rounds, and above 1 the workers wait for the network and not the network for them. On a GPU, give ``--device cuda``.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.utils.data import DataLoader

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.devices import pick_device
from dccrn_lib.training.profiles import get_profile


def mixing_rate(dataset: MixtureDataset, batch_size: int, workers: int, batches: int) -> float:
    """Mixtures a second from a loader that has started and filled its queue."""
    loader = iter(DataLoader(dataset, batch_size, num_workers=workers, persistent_workers=workers > 0))
    for _ in range(1 + 2 * workers):  # what the workers have ready before they are asked costs nothing
        next(loader)
    started = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * batch_size / (time.perf_counter() - started)


def step_rate(model: torch.nn.Module, batch: dict, steps: int, amp: bool) -> float:
    """Mixtures a second that forward and backward pass use up."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in ("speech", "noise", "rir"):
        parser.add_argument(f"--{kind}", default="", metavar="FILE", help=f"manifest of {kind}")
    parser.add_argument("--profile", default="quick", metavar="NAME", help="sizes of batch, segment and student")
    parser.add_argument("--workers", default="0,1,2", metavar="N,N", help="numbers of workers to try")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="of the training step")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="repetitions, in turns")
    parser.add_argument("--batches", type=int, default=8, metavar="N", help="batches and steps a round")
    a = parser.parse_args()
    if bool(a.speech) != bool(a.noise):
        parser.error("give --speech and --noise together, or neither")
    profile = get_profile(a.profile)
    if not a.speech:
        made = generated_corpus(0.05)
        a.speech, a.noise, a.rir = str(made.speech), str(made.noise), str(made.rir)
    mix = profile.mix(profile.segment_seconds)
    dataset = MixtureDataset(a.speech, a.noise, a.rir or None, mix, split="train", length=100_000)
    model = build_model(profile.student).train().to(pick_device(a.device))
    batch = next(iter(DataLoader(dataset, profile.batch_size)))
    choices = [int(n) for n in a.workers.split(",")]
    rates, ratios = {n: [] for n in choices}, {n: [] for n in choices}
    for _ in range(a.rounds):
        needed = step_rate(model, batch, a.batches, profile.amp)
        for n in choices:
            rates[n].append(mixing_rate(dataset, profile.batch_size, n, a.batches))
            ratios[n].append(rates[n][-1] / needed)
    print(f"{profile.student} on {a.device}: batches of {profile.batch_size} x {profile.segment_seconds:g} s")
    print("| workers | mixtures a second | what a step needs = 1 |\n| --- | --- | --- |")
    for n in choices:
        print(f"| {n} | {statistics.median(rates[n]):.3g} | {statistics.median(ratios[n]):.3g} |")


if __name__ == "__main__":
    main()
