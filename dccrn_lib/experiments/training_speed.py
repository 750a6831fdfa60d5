"""What a training step costs on this device: seconds of audio per second and memory, by system, batch and precision.

Each figure is the median over windows of steps on one synthetic batch, after warm-up, data loading left out. Also here:
does this device compute what the CPU computes? One batch in float32 on both, loss and gradients compared.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.devices import pick_device
from dccrn_lib.runtime.files import write_json
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.trainee import WARM_CALLS, TeacherView, Trainee

BATCHES = {"full": (16, 64), "smoke": (2,)}
WINDOWS, STEPS = 5, 4  # the median of five windows of four steps


def synthetic_batch(batch: int, seconds: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise bursts and the same with more noise: (noisy, clean), (batch, sample)."""
    generator = torch.Generator().manual_seed(0)
    samples = round(seconds * 16000)
    clean = torch.randn(batch, samples, generator=generator) * 0.05
    clean = clean * (torch.arange(samples) // 4000 % 2 + 0.1)
    noisy = clean + torch.randn(batch, samples, generator=generator) * 0.02
    return noisy.to(device), clean.to(device)


def _systems(shared: TrainConfig, folder: Path, size: str) -> Iterator[tuple[str, TrainConfig]]:
    mini = "_mini" if size == "smoke" else ""
    teacher = str(save_model(build_model("uformer" + mini), folder / "untrained_teacher"))
    student = "distil_dccrn" + mini
    yield "distil_dccrn", replace(shared, model=student)
    yield "uformer", replace(shared, model="uformer" + mini)
    yield "dccrn_e", replace(shared, model="dccrn_e" if size == "full" else student)
    yield "distil_dccrn with teacher and taps", replace(shared, model=student, method="at_kl", teacher=teacher)


def time_training(config: TrainConfig, batch: int, device: torch.device, graphs: bool) -> dict:
    """Median milliseconds per step, seconds of audio per second, and the memory it took."""
    cuda = device.type == "cuda"
    gc.collect()  # the graph of the last one, with its memory
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    noisy, clean = synthetic_batch(batch, config.mix.segment_seconds, device)
    view = TeacherView(config.teacher, noisy, config.amp, graphs) if config.teacher else None

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize(device)

    wait()
    if view:
        view.run()
        wait()
    trainee = Trainee(config, noisy, clean, view, graphs)
    trainee.balance()
    trainee.control(0.01)
    wait()

    def step() -> None:
        if view:
            view.run([trainee.done] if cuda and trainee.calls else ())
        trainee.run([view.done] if cuda and view else ())

    for _ in range(WARM_CALLS + 2):
        step()
    windows = []
    for _ in range(WINDOWS):
        wait()
        began = time.perf_counter()
        for _ in range(STEPS):
            step()
        wait()
        windows.append((time.perf_counter() - began) / STEPS)
    median = statistics.median(windows)
    return {
        "batch": batch, "precision": "bfloat16" if config.amp else "float32", "cuda_graph": trainee.graph is not None,
        "ms": median * 1e3, "ms_lowest": min(windows) * 1e3, "ms_highest": max(windows) * 1e3,
        "audio_seconds_per_second": batch * config.mix.segment_seconds / median,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None,
    }  # fmt: skip


def agreement(model: str, device: torch.device) -> dict[str, float]:
    """Largest relative differences between this device and the CPU on one batch, in float32 without TF32."""
    results = []
    matmul, conv = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        for where in (torch.device("cpu"), device):
            torch.manual_seed(0)
            network = build_model(model).to(where).eval()  # no dropout; BatchNorm as it is at the start
            for layer in network.modules():
                if isinstance(layer, torch.nn.LSTM):
                    layer.train()  # cuDNN computes an LSTM's gradients in this mode only; the result is the same
            noisy, clean = synthetic_batch(2, 1.0, where)
            estimate = network(noisy)
            loss = si_snr_loss(estimate, clean)
            loss.backward()
            gradient = torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None])
            results.append((estimate.detach().cpu(), float(loss.detach()), gradient))
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, conv
    (y0, l0, g0), (y1, l1, g1) = results
    return {
        "output": float((y1 - y0).norm() / y0.norm()),
        "loss": abs(l1 - l0) / abs(l0),
        "gradient": float((g1 - g0).norm() / g0.norm()),
    }


def measure_training(shared: TrainConfig, file: Path, size: str = "full") -> dict:
    """Measure all systems and write ``file``; it is written after every figure, so that a stop loses nothing."""
    device = pick_device(shared.device)
    cuda = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    record: dict = {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu", "torch": torch.__version__,
        "segment_seconds": shared.mix.segment_seconds, "windows": WINDOWS, "steps_a_window": STEPS,
        "agreement_with_cpu": {}, "training": [],
    }  # fmt: skip
    if cuda:
        for model in ("distil_dccrn", "dccrn_e", "uformer"):
            record["agreement_with_cpu"][model] = agreement(model, device)
    for name, config in _systems(shared, file.parent, size):
        plans = [(batch, config.amp, True) for batch in BATCHES[size]]
        if cuda:
            plans += [(16, True, False), (16, False, True)]
        for batch, amp, graphs in plans:
            found = time_training(replace(config, amp=amp), batch, device, graphs)
            record["training"].append({"system": name, **found})
            write_json(file, record)
            print(
                f"{name}: batch {batch}, {found['precision']}, graph {found['cuda_graph']}: {found['ms']:.1f} ms, "
                f"{found['audio_seconds_per_second']:.0f} s of audio/s, {found['peak_memory_gib'] or 0:.1f} GiB",
                flush=True,
            )
    return record
