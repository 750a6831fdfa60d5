"""The command that trains."""

from __future__ import annotations

import argparse

from dccrn_lib.cli.checks import device, folder


def add_train(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", default="quick", metavar="NAME", help="size of the run: smoke, quick, cpu or gpu")
    p.add_argument("--model", metavar="NAME", help="preset to train; the profile's student when not given")
    p.add_argument("--method", default="none", metavar="NAME", help="distillation method: none, output, at_kl ...")
    p.add_argument("--teacher", metavar="NAME_OR_PATH", help="weights of the teacher; needed with a method")
    p.add_argument("--init", metavar="NAME_OR_PATH", help="weights to start from; fresh ones when not given")
    p.add_argument("--speech", required=True, metavar="FILE", help="manifest of clean speech; several with commas")
    p.add_argument("--noise", required=True, metavar="FILE", help="manifest of noise; several with commas")
    p.add_argument("--rir", metavar="FILE", help="manifest of room impulse responses")
    p.add_argument("--out", type=folder, required=True, metavar="RUN", help="folder of the run")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in the run's folder")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and mixtures")
    p.add_argument("--device", type=device, metavar="NAME", help="cpu, cuda or auto; the profile's when not given")
    p.add_argument("--steps", type=int, metavar="N", help="optimiser steps; the profile's when not given")
    p.add_argument("--batch-size", type=int, metavar="N", help="mixtures a step, over all processes")
    p.add_argument("--workers", type=int, metavar="N", help="processes that mix")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other field of TrainConfig, or mix.NAME of its MixConfig; may be repeated",
    )
    p.set_defaults(run=_train)


def _train(a: argparse.Namespace) -> int:
    import torch

    from dccrn_lib.runtime.devices import require_device
    from dccrn_lib.runtime.settings import override, split_assignments
    from dccrn_lib.training.config import TrainConfig
    from dccrn_lib.training.loop import train
    from dccrn_lib.training.profiles import get_profile

    torch.set_flush_denormal(True)  # numbers below 1e-38 slow a CPU down many times
    if a.device not in (None, "auto"):
        require_device(a.device)
    profile = get_profile(a.profile)
    options = profile.settings(a.model or profile.student)
    if a.steps:
        options |= {"steps": a.steps, "valid_every": max(1, a.steps // 8)}
    names = ("method", "teacher", "init", "speech", "noise", "rir", "out", "seed", "device", "batch_size", "workers")
    options |= {name: getattr(a, name) for name in names if getattr(a, name) is not None}
    config = override(TrainConfig(**options), split_assignments(a.set))
    result = train(config, resume=a.resume, progress=not a.quiet)
    last = result.history["valid"][-1] if result.history["valid"] else None
    score = f", SI-SNR {last['si_snr_db']:.4g} dB on valid (noisy {last['noisy_si_snr_db']:.4g})" if last else ""
    print(f"{result.weights}{score}" if not result.stopped else f"stopped; go on with --resume --out {config.out}")
    return 130 if result.stopped else 0
