"""Training: one loop from a laptop to several GPUs.

Read :func:`train` from top to bottom: data, model, teacher, loss, then per step: forward, loss, backward, clip, step;
now and then validate and checkpoint. A run lives in one folder, see ``run_folder``; docs/training.md shows how to start
one on one machine or many.

Batch k holds the mixtures k * batch .. (k + 1) * batch - 1, each a pure function of (seed, epoch, index): a resumed
run sees what an uninterrupted one would have seen, whatever the number of workers or processes. With the statistics of
BatchNorm shared, several processes compute what one would have computed, up to rounding (and dropout).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.distillation.freezing import assert_frozen
from dccrn_lib.distillation.loss import METHODS, DistillationLoss
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.distillation.teacher import CachedTeacher, Teacher, file_digest
from dccrn_lib.losses import compressed_spectral_loss, level_loss, si_snr_db, si_snr_loss
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.sync_batch_norm import synchronise_batch_norm
from dccrn_lib.networks.weights import load_model, save_model
from dccrn_lib.runtime.devices import has_bfloat16, pick_device
from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.runtime.errors import ConfigError, DccrnError
from dccrn_lib.runtime.files import write_json
from dccrn_lib.runtime.interrupts import StopSignal
from dccrn_lib.training.batches import Ahead
from dccrn_lib.training.config import MAY_CHANGE, TrainConfig
from dccrn_lib.training.muon import Muon
from dccrn_lib.training.run_folder import Run, open_run, write_config
from dccrn_lib.training.tensorboard import ScalarLog

__all__ = ["TrainConfig", "TrainResult", "TrainingError", "hours_of_audio", "learning_rate", "pick_device", "train"]


class TrainingError(DccrnError, RuntimeError):
    """Training cannot go on: losses stay non-finite."""


@dataclass
class TrainResult:
    """What a run leaves: the best weights loaded in ``model``, its ``history``, and whether it was ``stopped`` early."""

    model: nn.Module
    history: dict
    weights: Path
    stopped: bool


class WaveformLoss:
    """-SI-SNR + level_weight * level + spectral_weight * compressed spectral distance: (estimate, target) -> scalar."""

    def __init__(self, level_weight: float = 1.0, spectral_weight: float = 0.0) -> None:
        self.level_weight, self.spectral_weight = level_weight, spectral_weight

    def __call__(self, estimate: Tensor, target: Tensor) -> Tensor:
        loss = si_snr_loss(estimate, target)
        if self.level_weight:
            loss = loss + self.level_weight * level_loss(estimate, target)
        if self.spectral_weight:
            loss = loss + self.spectral_weight * compressed_spectral_loss(estimate, target)
        return loss


def build_loss(config: TrainConfig, model: nn.Module, teacher: nn.Module | None) -> DistillationLoss:
    """The loss that a config asks for, between these two networks."""
    options = {}
    if METHODS[config.method] is not None:
        options = {"student_stft": model.config.stft, "teacher_stft": teacher.config.stft}
        if config.method == "at_kl":
            options |= {"reading": config.reading, "normalisation": config.normalisation}
    return DistillationLoss(
        config.method, config.output_weight, config.feature_weight or None,
        WaveformLoss(config.level_weight, config.spectral_weight), **options,
    )  # fmt: skip


def build_optimiser(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that a config asks for, at its highest rates."""
    if config.optimiser == "muon":
        return Muon(parameters, config.muon_learning_rate, config.learning_rate)
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)


class _Share(torch.utils.data.Sampler):
    """Indices of this process's share of every part of every global batch, from ``start`` on.

    Part p of a batch holds the same mixtures whatever the number of processes: BatchNorm sees them together.
    """

    def __init__(self, config: TrainConfig, processes: Processes, start: int) -> None:
        self.config, self.processes, self.start = config, processes, start
        self.part = config.batch_size // config.accumulation
        self.size = self.part // processes.world

    def __iter__(self):
        for part in range(self.start * self.config.accumulation, self.config.steps * self.config.accumulation):
            first = part * self.part + self.processes.rank * self.size
            yield from (self.index(i) for i in range(first, first + self.size))

    def index(self, i: int) -> int:
        """Index in the dataset of mixture ``i`` of the run."""
        return i % self.config.epoch_mixtures if self.config.repeat_epoch else i

    def __len__(self) -> int:
        return (self.config.steps - self.start) * self.config.accumulation * self.size


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear rise, constant, linear fall to 2 %: the rate used in step ``step`` (0-based)."""
    rise = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    left = (config.steps - step) / max(config.decay_fraction * config.steps, 1e-9)
    return config.learning_rate * rise * max(0.02, min(1.0, left))


def validate(model: nn.Module, dataset: MixtureDataset, config: TrainConfig, processes: Processes) -> dict[str, float]:
    """SI-SNR of the model and of the input on the fixed valid mixtures, in dB, and the gain of the output."""
    device = next(model.parameters()).device
    training, sums = model.training, torch.zeros(4, dtype=torch.float64)
    processes.copy_from_first(model.buffers())  # what is validated is what will be saved
    model.eval()
    with torch.no_grad():
        for i in range(processes.rank, config.valid_mixtures, processes.world):
            item = dataset[i]
            noisy, clean = item["noisy"][None].to(device), item["clean"][None].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
                estimate = model(noisy)
            gain = (estimate * clean).sum() / (clean * clean).sum()
            values = [si_snr_db(estimate, clean).mean(), si_snr_db(noisy, clean).mean(), gain]
            values.append(compressed_spectral_loss(estimate, clean))
            sums += torch.tensor([float(v) for v in values], dtype=torch.float64)
    model.train(training)
    means = [processes.mean(float(s), device) * processes.world / config.valid_mixtures for s in sums]
    return dict(zip(("si_snr_db", "noisy_si_snr_db", "gain", "spectral"), means, strict=True))


def train(
    config: TrainConfig, resume: bool = False, progress: bool = True, stop_after: int | None = None
) -> TrainResult:
    """Train ``config.model``; see the module's docstring for what is left in ``config.out``.

    Args:
        config: what to do.
        resume: go on from ``checkpoint.pt`` if there is one.
        progress: show a progress bar.
        stop_after: stop with a checkpoint after this many steps of this call, as a signal would (for tests).

    Raises:
        ConfigError: the folder holds a run and ``resume`` is False, or a config that differs from it; a batch that
            does not divide among the processes; a teacher missing; compile with amp on a CPU.
        TrainingError: more than ``max_bad_batches`` batches in a row gave a non-finite loss or gradient.
    """
    processes, device = Processes.start(config.device)
    if config.batch_size % (processes.world * config.accumulation):
        raise ConfigError(
            f"batch_size {config.batch_size} must be a multiple of {processes.world} processes x "
            f"{config.accumulation} parts (accumulation)"
        )
    if config.amp and not has_bfloat16(device):
        config = dataclasses.replace(config, amp=False)
        if progress and processes.rank == 0:
            print("this CPU has no bfloat16 arithmetic and would emulate it slowly: training in float32")
    if (
        config.amp and config.compile and device.type == "cpu"
    ):  # seen with PyTorch 2.11: gradients of decoders not finite
        raise ConfigError(
            "compiled and in bfloat16, PyTorch computes wrong gradients on a CPU: leave out compile=true (it gains "
            "nothing there), or set amp=false"
        )
    out = Path(config.out)
    saved = open_run(out, config, resume, MAY_CHANGE)
    weights = out / "best.safetensors"
    if saved and saved["step"] >= config.steps and weights.is_file():  # finished: nothing to build, nothing to do
        return TrainResult(load_model(weights, device), saved["history"], weights, stopped=False)

    # ---- data
    sources = {"speech": config.speech, "noise": config.noise, "rir": config.rir or None, "config": config.mix}
    train_set = MixtureDataset(**sources, seed=config.seed, length=config.epoch_mixtures, split="train")
    valid_set = MixtureDataset(
        **{**sources, "config": dataclasses.replace(config.mix, speed_probability=0.0, equaliser_probability=0.0)},
        seed=1_000_003, length=config.valid_mixtures, split="valid",
    )  # fmt: skip

    # ---- networks and loss
    torch.manual_seed(config.seed)
    model = build_model(config.model) if not config.init else load_model(config.init)
    model = model.to(device).train()
    teacher_network = load_model(config.teacher, device) if config.method != "none" else None
    loss = build_loss(config, model, teacher_network)
    needs_features = loss.feature_loss is not None
    tap = FeatureTap(model) if needs_features else None
    teacher = _teacher(config, teacher_network, needs_features)

    def taught(batch: dict) -> tuple:
        """What the network learns from, on the device: noisy, clean, the teacher's output and features."""
        noisy, clean = (batch[k].to(device, non_blocking=True) for k in ("noisy", "clean"))
        with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
            return noisy, clean, *(teacher(noisy, batch["id"]) if teacher else (None, None))

    def answers(
        network: nn.Module, noisy: Tensor, clean: Tensor, target: Tensor | None, features: dict | None
    ) -> tuple:
        """The network on one taught batch -> estimate, clean, teacher's output, features of both."""
        with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
            estimate = network(noisy)
        return estimate, clean, target, tap.features if tap else None, features

    history = {"balance": {}, "train": [], "valid": [], "skipped": [], "seconds": 0.0}
    if needs_features:
        b = history["balance"] = _prepare_features(loss, model, train_set, config, taught, answers)
        if progress and processes.rank == 0:
            print(
                f"gradient norms at the start: waveform {b['waveform_norm']:.3g}, features {b['feature_norm']:.3g}; "
                f"b = {b['feature_weight']:.3g}"
            )
    trained = [*model.parameters(), *loss.parameters()]
    optimiser = build_optimiser(config, trained)
    rates = [group["lr"] for group in optimiser.param_groups]
    average = copy.deepcopy(model) if config.ema_decay else model
    run = Run(model, average, loss, optimiser, history)
    if saved:
        run.restore(saved)
    history = run.history
    processes.wait()  # every process has looked at the folder of the run
    log = ScalarLog(out / "tensorboard") if config.tensorboard and processes.rank == 0 else None
    if processes.rank == 0:  # only now: a wrong manifest or teacher leaves no run behind
        write_config(out, config)
    if processes.world > 1 and config.sync_batch_norm:
        synchronise_batch_norm(model)
    network = torch.compile(model) if config.compile else model
    if processes.world > 1:
        network = nn.parallel.DistributedDataParallel(network, broadcast_buffers=not config.sync_batch_norm)
    share = _Share(config, processes, run.step)
    loader = iter(
        DataLoader(
            train_set, share.size, sampler=share, num_workers=config.workers,
            pin_memory=device.type == "cuda", persistent_workers=config.workers > 0,
        )
    )  # fmt: skip

    # ---- the loop
    stop = StopSignal()
    batches = Ahead(lambda: taught(next(loader)), depth=1 if device.type == "cpu" else 0)
    bar = tqdm(
        total=config.steps, initial=run.step, unit="step", disable=not progress or processes.rank > 0, leave=True
    )
    started = checkpointed = time.monotonic()
    spent, first_step, bad_in_a_row = history["seconds"], run.step, 0
    with stop, batches:
        while run.step < config.steps:
            rate = learning_rate(run.step, config)
            for group, highest in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = highest * rate / config.learning_rate
            if processes.world > 1:  # dropout: drawn by step and process, so that resuming needs no state of others
                torch.manual_seed((config.seed * processes.world + processes.rank << 32) + run.step)
            buffers = {name: value.clone() for name, value in model.named_buffers()}
            optimiser.zero_grad(set_to_none=True)
            terms = {}
            for part in range(config.accumulation):
                last = part == config.accumulation - 1
                with contextlib.nullcontext() if last or processes.world == 1 else network.no_sync():
                    found = loss(*answers(network, *next(batches)))
                    (found["total"] / config.accumulation).backward()
                # the terms, and the distance of each tapped layer: one transfer from the device for all
                values = {k: found[k] for k in ("total", "clean", "teacher", "features") if k in found}
                values |= {f"layer {name}": value for name, value in found.get("layers", {}).items()}
                numbers = torch.stack([value.detach() for value in values.values()]).tolist()
                for name, number in zip(values, numbers, strict=True):
                    terms[name] = terms.get(name, 0.0) + number / config.accumulation
            processes.average_gradients(loss.parameters())  # adapters are outside DistributedDataParallel
            norm = nn.utils.clip_grad_norm_(trained, config.gradient_clip)
            terms = processes.means(terms, device)
            if math.isfinite(terms["total"]) and torch.isfinite(norm):
                optimiser.step()
                bad_in_a_row = 0
                with torch.no_grad():
                    _update_average(average, model, config.ema_decay, run.step)
                for name, value in terms.items():
                    run.sums.setdefault(name, []).append(value)
            else:  # leave weights and BatchNorm statistics as they were before this batch
                for name, value in model.named_buffers():
                    value.copy_(buffers[name])
                bad_in_a_row += 1
                first = run.step * config.batch_size
                mixtures = [i % config.epoch_mixtures for i in range(first, first + config.batch_size)]
                history["skipped"].append({"step": run.step, "mixtures": mixtures})
                if bad_in_a_row > config.max_bad_batches:
                    raise TrainingError(
                        f"{bad_in_a_row} batches in a row up to step {run.step} gave a non-finite loss or gradient; "
                        f"lower learning_rate (now {config.learning_rate:g}) or check the corpus; see {out}/history.json"
                    )
            run.step += 1
            bar.update()
            if run.step % 10 == 0:
                recent = run.sums.get("clean", [math.nan])[-10:]
                speed = (run.step - first_step) * config.batch_size * config.mix.segment_seconds
                speed /= time.monotonic() - started
                bar.set_postfix_str(f"loss {sum(recent) / len(recent):.2f}, {speed:.1f} s audio/s")

            # ---- now and then
            history["seconds"] = spent + time.monotonic() - started
            if run.step % config.valid_every == 0 or run.step == config.steps:
                if teacher is not None:
                    assert_frozen(teacher.network)
                means = {name: sum(v) / len(v) for name, v in run.sums.items()}
                if len(run.sums.get("clean", [])) > 1:  # from batch to batch
                    means["clean_std"] = statistics.stdev(run.sums["clean"])
                now = {"step": run.step, "hours": hours_of_audio(config, run.step)}
                history["train"].append({**now, "learning_rate": rate, **means})
                history["valid"].append({**now, **validate(average, valid_set, config, processes)})
                run.sums = {}
                if processes.rank == 0:
                    if history["valid"][-1]["si_snr_db"] > run.best:
                        save_model(average, out / "best", {"step": run.step, "valid": history["valid"][-1]})
                    write_json(out / "history.json", history)
                if log is not None:
                    log.write("train", run.step, history["train"][-1])
                    log.write("valid", run.step, history["valid"][-1])
                run.best = max(run.best, history["valid"][-1]["si_snr_db"])
            ended = stop.asked or (stop_after is not None and run.step - first_step >= stop_after)
            ended = processes.mean(float(ended), device) > 0  # all processes must agree to stop
            due = time.monotonic() - checkpointed > 60 * config.checkpoint_minutes
            if (ended or due or run.step == config.steps) and processes.rank == 0:
                run.save(out)
                checkpointed = time.monotonic()
            if ended:
                break
    bar.close()
    for opened in (tap, teacher, log):
        if opened is not None:
            opened.close()
    processes.wait()
    final = load_model(weights, device) if weights.is_file() else average.eval()
    return TrainResult(final, history, weights, stopped=run.step < config.steps)


def _teacher(config: TrainConfig, network: nn.Module | None, tapped: bool) -> Teacher | None:
    """The teacher as the config wants it: none, live, or from disk where it has answered before."""
    if network is None or not config.teacher_cache:
        return Teacher(network, tapped) if network is not None else None
    key = {"seed": config.seed, "amp": config.amp, "mix": dataclasses.asdict(config.mix)}
    key |= {kind: file_digest(getattr(config, kind)) for kind in ("speech", "noise", "rir")}
    return CachedTeacher(network, tapped, config.teacher_cache, key)


def _prepare_features(loss, model, train_set, config: TrainConfig, taught, answers) -> dict[str, float]:
    """Build adapters and choose b on the first mixtures, the same in every process; the model is left as it was."""
    count = min(config.batch_size // config.accumulation, 4)
    batch = taught(torch.utils.data.default_collate([train_set[i] for i in range(count)]))
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    *_, student_features, teacher_features = answers(model, *batch)
    loss.feature_loss.prepare(student_features, teacher_features)
    terms = loss(*answers(model, *batch))
    a = loss.output_weight
    waveform = (1 - a) * terms["clean"] + a * terms["teacher"]
    balance = loss.balance(list(model.parameters()), waveform, terms["features"], config.feature_share)
    for name, value in model.named_buffers():
        value.copy_(buffers[name])
    torch.manual_seed(config.seed)
    return balance


def _update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights; BatchNorm statistics are averages already and are copied."""
    if average is model:
        return
    decay = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(model.parameters()), None)  # in one call
    for a, b in zip(average.buffers(), model.buffers(), strict=True):
        a.copy_(b)


def hours_of_audio(config: TrainConfig, steps: int | None = None) -> float:
    """Audio that ``steps`` steps (all by default) pass through the network, in hours."""
    return (config.steps if steps is None else steps) * config.batch_size * config.mix.segment_seconds / 3600
