"""Training: one loop from a laptop to several GPUs.

Read :func:`train` from top to bottom: data, model, teacher, loss, then per step: forward, loss, backward, clip, step;
now and then validate and checkpoint. A run lives in one folder:

    config.json        what was asked for
    history.json       losses (mean and batch-to-batch spread), distance by layer, validation, gradient balance, skipped
    checkpoint.pt      everything needed to go on exactly where it stopped
    best.safetensors   (+ .json) the weights that validated best

Batch k holds the mixtures k * batch .. (k + 1) * batch - 1, each a pure function of (seed, epoch, index): a resumed
run sees what an uninterrupted one would have seen, whatever the number of workers or processes.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import signal
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.distillation import METHODS, DistillationLoss, FeatureTap, assert_frozen, freeze
from dccrn_lib.errors import ConfigError, DccrnError, nearest_name
from dccrn_lib.losses import compressed_spectral_loss, level_loss, si_snr_db, si_snr_loss
from dccrn_lib.models import PRESETS, build_model, load_model, save_model
from dccrn_lib.paths import atomic_path


class TrainingError(DccrnError, RuntimeError):
    """Training cannot go on: losses stay non-finite."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run.

    Args:
        out: folder of the run.
        speech, noise, rir: manifests (several joined by commas); their train and valid splits are used. rir may be "".
        model: preset to train.
        init: weights to start from ("" = fresh), a shipped name or a path.
        method: distillation method, see ``dccrn_lib.distillation.METHODS``.
        teacher: weights of the teacher (shipped name or path); needed unless method is "none".
        reading, normalisation: of AT-KL.
        output_weight: a, weight of the teacher's waveform against the clean one, in [0, 1].
        feature_weight: b; 0 = chosen at the start so that its gradient norm is ``feature_share`` of the waveform terms'.
        level_weight: of the level term (gain and polarity); 0 = the paper's loss.
        spectral_weight: of the compressed spectral loss; 0 = the paper's loss.
        steps: optimiser steps.
        batch_size: mixtures a step, over all processes.
        accumulation: parts a batch is cut into to save memory.
        learning_rate: of Adam, after ``warmup_steps`` of linear rise; it falls linearly to 2 % over the last
            ``decay_fraction`` of the steps.
        gradient_clip: largest gradient norm.
        ema_decay: of the averaged weights that are validated and saved; 0 = none.
        amp: bfloat16 autocast for the layers; STFT, masks and losses stay float32.
        device: "cpu", "cuda" or "auto".
        workers: processes that mix.
        epoch_mixtures: mixtures an epoch.
        valid_every: steps between validations.
        valid_mixtures: fixed mixtures of the valid split.
        checkpoint_minutes: minutes between checkpoints.
        compile: torch.compile the network.
        mix: how mixtures are drawn.
    """

    out: str
    speech: str
    noise: str
    rir: str = ""
    model: str = "distil_dccrn"
    init: str = ""
    method: str = "none"
    teacher: str = ""
    reading: str = "frequency"
    normalisation: str = "sum"
    output_weight: float = 0.5
    feature_weight: float = 0.0
    feature_share: float = 0.1
    level_weight: float = 1.0
    spectral_weight: float = 0.0
    steps: int = 1000
    batch_size: int = 8
    accumulation: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_fraction: float = 0.3
    gradient_clip: float = 5.0
    ema_decay: float = 0.0
    amp: bool = False
    device: str = "cpu"
    seed: int = 0
    workers: int = 0
    epoch_mixtures: int = 2000
    valid_every: int = 200
    valid_mixtures: int = 16
    checkpoint_minutes: float = 5.0
    max_bad_batches: int = 10
    compile: bool = False
    mix: MixConfig = field(default_factory=MixConfig)

    def __post_init__(self) -> None:
        if self.model not in PRESETS:
            raise ConfigError(f"unknown model {self.model!r}; {nearest_name(self.model, list(PRESETS))}")
        if self.method not in METHODS:
            raise ConfigError(f"unknown distillation method {self.method!r}; {nearest_name(self.method, list(METHODS))}")
        if self.method != "none" and not self.teacher:
            raise ConfigError(f"method {self.method} needs a teacher: give the name or path of its weights")
        for name in ("steps", "batch_size", "accumulation", "valid_every", "valid_mixtures", "epoch_mixtures"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise ConfigError(f"batch_size {self.batch_size} must be a multiple of accumulation {self.accumulation}")


#: What may change between stretches of one run.
_MAY_CHANGE = {"out", "steps", "device", "workers", "valid_every", "checkpoint_minutes", "accumulation", "amp", "compile"}


@dataclass
class TrainResult:
    """What a run leaves: the best weights loaded in ``model``, its ``history``, and whether it was ``stopped`` early."""

    model: nn.Module
    history: dict
    weights: Path
    stopped: bool


@dataclass(frozen=True)
class Processes:
    """This process among those started by torchrun; one process without it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def start(cls, device: str) -> Processes:
        """Join the group that torchrun describes in the environment: nccl on GPUs, gloo on CPUs."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(int(os.environ.get("RANK", "0")), world, int(os.environ.get("LOCAL_RANK", "0")))

    def mean(self, value: float, device: torch.device) -> float:
        """Mean over the processes."""
        if self.world == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return tensor.item() / self.world


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


class _Slice(torch.utils.data.Sampler):
    """Indices of this process's share of every global batch, from ``start_step`` on."""

    def __init__(self, config: TrainConfig, processes: Processes, start_step: int) -> None:
        self.config, self.processes, self.start = config, processes, start_step
        self.share = config.batch_size // processes.world

    def __iter__(self):
        for step in range(self.start, self.config.steps):
            first = step * self.config.batch_size + self.processes.rank * self.share
            yield from range(first, first + self.share)

    def __len__(self) -> int:
        return (self.config.steps - self.start) * self.share


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear rise, constant, linear fall to 2 %: the rate used in step ``step`` (0-based)."""
    rise = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    left = (config.steps - step) / max(config.decay_fraction * config.steps, 1e-9)
    return config.learning_rate * rise * max(0.02, min(1.0, left))


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """ "auto" takes a GPU if there is one; ConfigError when "cuda" is asked for and there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: torch sees no CUDA GPU here; use device cpu or auto")
    return torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)


def validate(model: nn.Module, dataset: MixtureDataset, config: TrainConfig, processes: Processes) -> dict[str, float]:
    """SI-SNR of the model and of the input on the fixed valid mixtures, in dB, and the gain of the output."""
    device = next(model.parameters()).device
    training, sums = model.training, torch.zeros(4, dtype=torch.float64)
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


def train(config: TrainConfig, resume: bool = False, progress: bool = True, stop_after: int | None = None) -> TrainResult:
    """Train ``config.model``; see the module's docstring for what is left in ``config.out``.

    Args:
        config: what to do.
        resume: go on from ``checkpoint.pt`` if there is one.
        progress: show a progress bar.
        stop_after: stop with a checkpoint after this many steps of this call, as a signal would (for tests).

    Raises:
        ConfigError: the folder holds a run and ``resume`` is False, or a config that differs from it; a batch that
            does not divide among the processes; a teacher missing.
        TrainingError: more than ``max_bad_batches`` batches in a row gave a non-finite loss or gradient.
    """
    processes = Processes.start(config.device)
    device = pick_device(config.device, processes.local_rank)
    if config.batch_size % (processes.world * config.accumulation):
        raise ConfigError(f"batch_size {config.batch_size} must be a multiple of {processes.world} processes")
    out = Path(config.out)
    saved = _open_run(out, config, resume)
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
    teacher = freeze(load_model(config.teacher, device)) if config.method != "none" else None
    options = {}
    if METHODS[config.method] is not None:
        options = {"student_stft": model.config.stft, "teacher_stft": teacher.config.stft}
        if config.method == "at_kl":
            options |= {"reading": config.reading, "normalisation": config.normalisation}
    loss = DistillationLoss(
        config.method, config.output_weight, config.feature_weight or None,
        WaveformLoss(config.level_weight, config.spectral_weight), **options,
    )  # fmt: skip
    needs_features = loss.feature_loss is not None
    tap = FeatureTap(model) if needs_features else None
    teacher_tap = FeatureTap(teacher) if needs_features else None

    def forward(network: nn.Module, noisy: Tensor, clean: Tensor) -> dict:
        """Both networks on one batch -> the terms of the loss."""
        with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
            target = None
            if teacher is not None:
                with torch.no_grad():
                    target = teacher(noisy)
            estimate = network(noisy)
        features = (tap.features, teacher_tap.features) if needs_features else (None, None)
        return loss(estimate, clean, target, *features)

    history = {"balance": {}, "train": [], "valid": [], "skipped": [], "seconds": 0.0}
    if needs_features:
        history["balance"] = _prepare_features(loss, model, train_set, config, forward, tap, teacher_tap, device)
        if progress and processes.rank == 0:
            b = history["balance"]
            print(
                f"gradient norms at the start: waveform {b['waveform_norm']:.3g}, features {b['feature_norm']:.3g}; "
                f"b = {b['feature_weight']:.3g}"
            )
    trained = [*model.parameters(), *loss.parameters()]
    optimiser = torch.optim.Adam(trained, lr=config.learning_rate)
    average = copy.deepcopy(model) if config.ema_decay else model
    step, best, sums = 0, -math.inf, {}
    if saved:
        step, best, history, sums = _restore(saved, model, average, loss, optimiser)
    network = torch.compile(model) if config.compile else model
    if processes.world > 1:
        dist.barrier()  # every process has looked at the folder of the run
    if processes.rank == 0:  # only now: a wrong manifest or teacher leaves no run behind
        _write_json(out / "config.json", dataclasses.asdict(config))
    if processes.world > 1:
        network = nn.parallel.DistributedDataParallel(network, broadcast_buffers=True)
    loader = iter(
        DataLoader(
            train_set, config.batch_size // processes.world // config.accumulation,
            sampler=_Slice(config, processes, step), num_workers=config.workers,
            pin_memory=device.type == "cuda", persistent_workers=config.workers > 0,
        )
    )  # fmt: skip

    # ---- the loop
    stop = _StopSignal()
    bar = tqdm(total=config.steps, initial=step, unit="step", disable=not progress or processes.rank > 0, leave=True)
    started = checkpointed = time.monotonic()
    spent, first_step, bad_in_a_row = history["seconds"], step, 0
    with stop:
        while step < config.steps:
            rate = learning_rate(step, config)
            for group in optimiser.param_groups:
                group["lr"] = rate
            buffers = {name: value.clone() for name, value in model.named_buffers()}
            optimiser.zero_grad(set_to_none=True)
            terms, layers = {}, {}
            for _ in range(config.accumulation):
                batch = next(loader)
                noisy, clean = (batch[k].to(device, non_blocking=True) for k in ("noisy", "clean"))
                part = forward(network, noisy, clean)
                (part["total"] / config.accumulation).backward()
                for name in ("total", "clean", "teacher", "features"):
                    if name in part:
                        terms[name] = terms.get(name, 0.0) + part[name].item() / config.accumulation
                if "layers" in part:  # distance of each tapped layer, one transfer for all
                    values = torch.stack([v.detach() for v in part["layers"].values()]).tolist()
                    for name, value in zip(part["layers"], values, strict=True):
                        layers[name] = layers.get(name, 0.0) + value / config.accumulation
            norm = nn.utils.clip_grad_norm_(trained, config.gradient_clip)
            total = processes.mean(terms["total"], device)
            if math.isfinite(total) and torch.isfinite(norm):
                optimiser.step()
                bad_in_a_row = 0
                with torch.no_grad():
                    _update_average(average, model, config.ema_decay, step)
                for name, value in (terms | {f"layer {name}": v for name, v in layers.items()}).items():
                    sums.setdefault(name, []).append(value)
            else:  # leave weights and BatchNorm statistics as they were before this batch
                for name, value in model.named_buffers():
                    value.copy_(buffers[name])
                bad_in_a_row += 1
                history["skipped"].append({"step": step, "mixtures": [int(i) for i in batch["index"]]})
                if bad_in_a_row > config.max_bad_batches:
                    raise TrainingError(
                        f"{bad_in_a_row} batches in a row up to step {step} gave a non-finite loss or gradient; "
                        f"lower learning_rate (now {config.learning_rate:g}) or check the corpus; see {out}/history.json"
                    )
            step += 1
            bar.update()
            if step % 10 == 0:
                recent = sums.get("clean", [math.nan])[-10:]
                speed = (step - first_step) * config.batch_size * config.mix.segment_seconds
                speed /= time.monotonic() - started
                bar.set_postfix_str(f"loss {sum(recent) / len(recent):.2f}, {speed:.1f} s audio/s")

            # ---- now and then
            history["seconds"] = spent + time.monotonic() - started
            if step % config.valid_every == 0 or step == config.steps:
                if teacher is not None:
                    assert_frozen(teacher)
                means = {name: processes.mean(sum(v) / len(v), device) for name, v in sums.items()}
                if len(sums.get("clean", [])) > 1:  # from batch to batch
                    means["clean_std"] = processes.mean(statistics.stdev(sums["clean"]), device)
                hours = step * config.batch_size * config.mix.segment_seconds / 3600
                history["train"].append({"step": step, "hours": hours, "learning_rate": rate, **means})
                history["valid"].append({"step": step, "hours": hours, **validate(average, valid_set, config, processes)})
                sums = {}
                if processes.rank == 0:
                    if history["valid"][-1]["si_snr_db"] > best:
                        save_model(average, out / "best", {"step": step, "valid": history["valid"][-1]})
                    _write_json(out / "history.json", history)
                best = max(best, history["valid"][-1]["si_snr_db"])
            ended = stop.asked or (stop_after is not None and step - first_step >= stop_after)
            due = time.monotonic() - checkpointed > 60 * config.checkpoint_minutes
            if processes.world > 1:  # all processes must agree to stop
                ended = processes.mean(float(ended), device) > 0
            if (ended or due or step == config.steps) and processes.rank == 0:
                _save(out, step, best, history, sums, model, average, loss, optimiser)
                checkpointed = time.monotonic()
            if ended:
                break
    bar.close()
    for t in (tap, teacher_tap):
        if t is not None:
            t.close()
    if processes.world > 1:
        dist.barrier()
    final = load_model(weights, device) if weights.is_file() else average.eval()
    return TrainResult(final, history, weights, stopped=step < config.steps)


class _StopSignal:
    """SIGINT and SIGTERM ask the loop to checkpoint and stop after the current step; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.previous: dict[int, object] = {}

    def __enter__(self) -> _StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number, frame) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_exc) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def _prepare_features(loss, model, train_set, config, forward, tap, teacher_tap, device) -> dict[str, float]:
    """Build adapters and choose b on the first batch; the model is left as it was."""
    count = min(config.batch_size // config.accumulation, 4)
    items = [train_set[i] for i in range(count)]
    noisy, clean = (torch.stack([item[k] for item in items]).to(device) for k in ("noisy", "clean"))
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    wanted, loss.feature_weight = loss.feature_weight, 0.0
    with contextlib.suppress(ConfigError):  # the first pass fills the taps; adapters may still be missing
        forward(model, noisy, clean)
    loss.feature_loss.prepare(tap.features, teacher_tap.features)
    terms = forward(model, noisy, clean)
    loss.feature_weight = wanted
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
    for a, p in zip(average.parameters(), model.parameters(), strict=True):
        a.lerp_(p, 1 - decay)
    for a, b in zip(average.buffers(), model.buffers(), strict=True):
        a.copy_(b)


def _write_json(path: Path, record: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _open_run(out: Path, config: TrainConfig, resume: bool) -> dict | None:
    """The checkpoint to go on from, or None for a new run; refuses to mix two runs in one folder."""
    checkpoint = out / "checkpoint.pt"
    record = dataclasses.asdict(config)
    if (out / "config.json").is_file():
        if not resume:
            raise ConfigError(f"{out} already holds a run: resume it, or choose another folder")
        old = json.loads((out / "config.json").read_text(encoding="utf-8"))
        now = json.loads(json.dumps(record))
        differing = [k for k in now if k not in _MAY_CHANGE and old.get(k) != now[k]]
        if differing:
            key = differing[0]
            raise ConfigError(
                f"{out}: the run there has {key} = {old.get(key)!r}, asked for {now[key]!r}; "
                "resume with the same config or choose another folder"
            )
    return torch.load(checkpoint, map_location="cpu", weights_only=True) if resume and checkpoint.is_file() else None


def _save(out, step, best, history, sums, model, average, loss, optimiser) -> None:
    state = {
        "step": step, "best": best, "history": history, "model": model.state_dict(), "loss": loss.state_dict(),
        "average": average.state_dict(), "optimiser": optimiser.state_dict(), "rng": torch.get_rng_state(),
        "feature_weight": loss.feature_weight, "sums": sums,
    }  # fmt: skip
    with atomic_path(out / "checkpoint.pt") as temporary:
        torch.save(state, temporary)
    _write_json(out / "history.json", history)


def _restore(saved: dict, model, average, loss, optimiser) -> tuple[int, float, dict, dict]:
    model.load_state_dict(saved["model"])
    if average is not model:
        average.load_state_dict(saved["average"])
    loss.load_state_dict(saved["loss"])
    loss.feature_weight = saved["feature_weight"]
    optimiser.load_state_dict(saved["optimiser"])
    torch.set_rng_state(saved["rng"])
    return saved["step"], saved["best"], saved["history"], saved["sums"]


def hours_of_audio(config: TrainConfig) -> float:
    """Audio a run passes through the network, in hours."""
    return config.steps * config.batch_size * config.mix.segment_seconds / 3600
