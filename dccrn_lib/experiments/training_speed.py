"""What a training step costs on this device: seconds of audio per second, memory and floor, by system, batch and precision.

    python -m dccrn_lib bench train --device cuda --json results/training_speed.json

Each figure is the median over windows of steps on one synthetic batch, after warm-up, data loading left out. The floor is
the arithmetic of the layers at the rate of a large matrix product on this device. Also here: does this device compute what
the CPU computes? One batch in float32 on both, loss and gradients compared.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.experiments.machine_limits import SIDE, best_seconds, product
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.cost import count_macs
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.devices import pick_device, prefer_fast_kernels
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.trainee import WARM_CALLS, TeacherView, Trainee

#: Batches to try, by device and size.
BATCHES = {"cuda": (8, 16, 32, 64), "cpu": (1, 2, 4, 8), "smoke": (2,)}
WINDOWS = {"cuda": (5, 4), "cpu": (3, 1)}  # windows, and steps in each
PRECISIONS = {"fp32": False, "bf16": True}
FULL = 0.95  # a batch fills the device from this fraction of the best rate on


def synthetic_batch(batch: int, seconds: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise bursts and the same with more noise: (noisy, clean), (batch, sample)."""
    generator = torch.Generator().manual_seed(0)
    samples = round(seconds * SAMPLE_RATE)
    clean = torch.randn(batch, samples, generator=generator) * 0.05
    clean = clean * (torch.arange(samples) // 4000 % 2 + 0.1)
    noisy = clean + torch.randn(batch, samples, generator=generator) * 0.02
    return noisy.to(device), clean.to(device)


def systems(shared: TrainConfig, folder: Path, size: str) -> Iterator[tuple[str, TrainConfig]]:
    """What is trained, by name: the student alone and taught in two ways, the teacher, DCCRN-E."""
    mini = "_mini" if size == "smoke" else ""
    teacher = str(save_model(build_model("uformer" + mini), folder / "untrained_teacher"))
    student = "distil_dccrn" + mini
    yield "distil_dccrn alone", replace(shared, model=student)
    yield "distil_dccrn, output", replace(shared, model=student, method="output", teacher=teacher)
    at_kl = {"method": "at_kl", "normalisation": "softmax", "teacher": teacher}
    yield "distil_dccrn, AT-KL", replace(shared, model=student, **at_kl)
    yield "dccrn_e", replace(shared, model="dccrn_e" if size == "full" else student)
    yield "uformer", replace(shared, model="uformer" + mini)


class TimedStep:
    """A system's training step on one synthetic batch, with its teacher if it has one."""

    def __init__(self, config: TrainConfig, batch: int, device: torch.device, graphs: bool) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        noisy, clean = synthetic_batch(batch, config.mix.segment_seconds, device)
        self.view = TeacherView(config.teacher, noisy, config.amp, graphs) if config.teacher else None
        self.teach()
        self.trainee = Trainee(config, noisy, clean, self.view, graphs)
        alone = replace(config, method="none", teacher="")
        #: the same network without a teacher, to compare with
        self.alone = Trainee(alone, noisy, clean, None, graphs) if self.view else None
        self.trainee.balance()
        for trainee in (self.trainee, self.alone):
            if trainee is not None:
                trainee.control(0.01)
        self.wait()

    def wait(self) -> None:
        """Until the device has done all that is queued."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def teach(self) -> None:
        """The teacher's part on its own."""
        if self.view:
            self.wait()
            self.view.run()
            self.wait()

    def step(self) -> None:
        """Teacher and student."""
        if self.view:
            self.view.run([self.trainee.done] if self.cuda and self.trainee.calls else ())
        self.trainee.run([self.view.done] if self.cuda and self.view else ())

    def parts(self) -> None:
        """The teacher, and then the student without one."""
        assert self.alone is not None
        self.teach()
        self.alone.run()

    def seconds(self, work: Callable[[], None], steps: int) -> float:
        """Of one call."""
        self.wait()
        began = time.perf_counter()
        for _ in range(steps):
            work()
        self.wait()
        return (time.perf_counter() - began) / steps

    def memory(self) -> int:
        """Bytes: on CUDA the peak, with the untaught twin; on a CPU weights, gradients, optimiser and what is kept."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.device)
        kept: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        trainee = self.trainee
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            found = trainee.terms()
        del found  # until here all of it is kept
        states = [v for state in trainee.state.optimiser.state.values() for v in state.values()]
        networks = {id(n): n for n in (trainee.model, trainee.average, *([self.view.network] if self.view else []))}
        stored = [p for network in networks.values() for p in network.parameters()]
        stored += [p.grad for p in trainee.parameters if p.grad is not None]
        return sum(kept.values()) + sum(t.nbytes for t in [*stored, *states] if isinstance(t, Tensor))


def time_training(config: TrainConfig, batch: int, device: torch.device, graphs: bool) -> dict:
    """Median milliseconds per step, seconds of audio per second, and the memory it took.

    With a teacher also ``over_parts``: the step over the sum of the teacher's forward pass and the step of the student
    alone, timed in turns.
    """
    cuda = device.type == "cuda"
    gc.collect()  # the graph of the last one, with its memory
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    timed = TimedStep(config, batch, device, graphs)
    windows, steps = WINDOWS["cuda" if cuda else "cpu"]
    for _ in range(WARM_CALLS + 2 if cuda else 1):
        timed.step()
        if timed.alone:
            timed.parts()
    together, ratios = [], []
    for _ in range(windows):
        together.append(timed.seconds(timed.step, steps))
        if timed.alone:
            ratios.append(together[-1] / timed.seconds(timed.parts, steps))
    median = statistics.median(together)
    floor = _arithmetic(config, batch) / product_rate(device, config.amp)
    return {
        "batch": batch, "precision": "bfloat16" if config.amp else "float32",
        "cuda_graph": timed.trainee.graph is not None,
        "ms": median * 1e3, "ms_lowest": min(together) * 1e3, "ms_highest": max(together) * 1e3,
        "audio_seconds_per_second": batch * config.mix.segment_seconds / median,
        "floor_ms": floor * 1e3, "over_floor": median / floor,
        "over_parts": statistics.median(ratios) if ratios else None,
        "peak_memory_gib": timed.memory() / 2**30,
    }  # fmt: skip


def _arithmetic(config: TrainConfig, batch: int) -> float:
    """Operations of a step: two per multiply-accumulate, forward and twice as many backward; forward of the teacher."""
    macs = 3 * _macs(config.model)
    if config.teacher:
        macs += _macs("uformer_mini" if config.model.endswith("_mini") else "uformer")
    return 2.0 * macs * batch * config.mix.segment_seconds


@lru_cache
def _macs(model: str) -> int:
    """Multiply-accumulates per second of audio."""
    counted = count_macs(build_model(model))
    assert isinstance(counted, int)  # not asked by layer
    return counted


@lru_cache
def product_rate(device: torch.device, amp: bool) -> float:
    """Operations per second of a large matrix product: the best of some."""
    dtype = torch.bfloat16 if amp else torch.float32
    if device.type != "cuda":
        return 2.0 * SIDE**3 / best_seconds(product(dtype))
    a, b = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        torch.matmul(a, b)
        torch.cuda.synchronize(device)

    return 2.0 * 8192**3 / best_seconds(multiply)


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


def measure_training(
    shared: TrainConfig,
    size: str = "full",
    batches: Sequence[int] = (),
    precisions: Sequence[str] = tuple(PRECISIONS),
    keep: Callable[[dict], object] = lambda record: None,
    progress: bool = True,
) -> dict:
    """Measure all systems.

    Args:
        shared: what their configs share: segment, optimiser, device.
        size: "full", or "smoke" for miniatures: seconds, the numbers mean nothing.
        batches: to try; those of :data:`BATCHES` by default.
        precisions: names from :data:`PRECISIONS`.
        keep: called with the record after every figure, so that a stop loses nothing.
        progress: print a line for every figure.

    Returns:
        {"rows": one for each system, precision and batch, "agreement_with_cpu", "operations_per_second", ...}.
    """
    device = pick_device(shared.device)
    cuda = device.type == "cuda"
    prefer_fast_kernels(device)
    record: dict = {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu", "threads": torch.get_num_threads(),
        "segment_seconds": shared.mix.segment_seconds, "windows_and_steps": WINDOWS["cuda" if cuda else "cpu"],
        "operations_per_second": {name: product_rate(device, PRECISIONS[name]) for name in precisions},
        "agreement_with_cpu": {}, "rows": [],
    }  # fmt: skip
    if cuda:
        for model in ("distil_dccrn", "dccrn_e", "uformer"):
            record["agreement_with_cpu"][model] = agreement(model, device)
    batches = batches or BATCHES["smoke" if size == "smoke" else device.type if device.type in BATCHES else "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        for name, config in systems(shared, Path(folder), size):
            plans = [(batch, amp, True) for amp in (PRECISIONS[p] for p in precisions) for batch in batches]
            plans += [(batches[0], True, False)] if cuda else []
            for batch, amp, graphs in plans:
                row = {"system": name, **time_training(replace(config, amp=amp), batch, device, graphs)}
                record["rows"].append(row)
                if progress:
                    print(_in_words(row), flush=True)
                keep(record)
    for row in record["rows"]:
        row["fills"] = "yes" if row is _filling(row, record["rows"]) else ""
    keep(record)
    return record


def _filling(row: dict, rows: Sequence[dict]) -> dict:
    """Of the rows that differ from this one in the batch only: the smallest batch that is nearly as fast as the best."""
    alike = [r for r in rows if all(r[k] == row[k] for k in ("system", "precision", "cuda_graph"))]
    best = max(r["audio_seconds_per_second"] for r in alike)
    return min((r for r in alike if r["audio_seconds_per_second"] >= FULL * best), key=lambda r: r["batch"])


def _in_words(row: dict) -> str:
    parts = f", {row['over_parts']:.2f} of its parts" if row["over_parts"] else ""
    return (
        f"{row['system']}: batch {row['batch']}, {row['precision']}, graph {row['cuda_graph']}: {row['ms']:.1f} ms, "
        f"{row['audio_seconds_per_second']:.2f} s of audio/s, {row['over_floor']:.2f} of the floor{parts}, "
        f"{row['peak_memory_gib']:.2f} GiB"
    )
