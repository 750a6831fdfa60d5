"""A run under way: its networks and data, opened from a config, and what is noted, validated and kept between steps."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import default_collate
from tqdm.auto import tqdm

from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.loading import Batches
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.shards import require_there
from dccrn_lib.distillation.freezing import assert_frozen
from dccrn_lib.networks.sync_batch_norm import synchronise_batch_norm
from dccrn_lib.networks.weights import load_model, save_model, starting_model
from dccrn_lib.runtime.devices import NO_BFLOAT16, has_bfloat16, prefer_fast_kernels
from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.runtime.errors import ConfigError, DccrnError, WorkerError, lacks_memory
from dccrn_lib.runtime.files import write_json
from dccrn_lib.runtime.interrupts import StopSignal
from dccrn_lib.training.average import copy_for_average
from dccrn_lib.training.batches import Batch, Prefetcher, RankSampler
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.inputs import input_hashes, require_disjoint
from dccrn_lib.training.mixtures import DeviceBatches, decoded_for_device
from dccrn_lib.training.objective import BALANCED, Objective, build_optimiser, in_memory
from dccrn_lib.training.run_folder import CHECKPOINT, WEIGHTS, Run, last_validation, run_card, write_config
from dccrn_lib.training.schedule import hours_of_audio, learning_rate
from dccrn_lib.training.step_outcomes import Outcome, Outcomes, skipped_batch, steps_between_readings
from dccrn_lib.training.tensorboard import ScalarLog
from dccrn_lib.training.validation import valid_batches, valid_mixtures, validate


class TrainingError(DccrnError, RuntimeError):
    """Training cannot continue: losses stay non-finite."""


@dataclass
class TrainResult:
    """What a run leaves: the best weights loaded in ``model``, its ``history``, and whether it was ``stopped`` early."""

    model: nn.Module
    history: dict
    weights: Path
    stopped: bool


@dataclass
class Session:
    """A run while it is trained; open it with :func:`open_session` and use it as a context manager.

    Args:
        config: what to do, with what the device cannot do taken out.
        ranks: this process among those that share the batch.
        device: where the networks are.
        state: everything that a checkpoint holds.
        objective: from mixtures to the terms of the loss.
        network: ``state.model``, compiled and distributed as the config and the ranks want it.
        trained: parameters of the network and of the loss's adapters.
        highest_rates: learning rate of each group of the optimiser at the top of the schedule.
        batches: micro-batches of this rank, in order, from ``state.step`` on.
        valid_set: the mixtures to validate on.
        log: for TensorBoard, on rank 0 if the config asks for it.
        progress: whether to show a bar.
    """

    config: TrainConfig
    ranks: Processes
    device: torch.device
    state: Run
    objective: Objective
    network: nn.Module
    trained: list[nn.Parameter]
    highest_rates: list[float]
    batches: Prefetcher[Batch]
    valid_set: MixtureDataset
    log: ScalarLog | None = None
    progress: bool = True
    stop: StopSignal = field(default_factory=StopSignal)
    bad_in_a_row: int = 0
    outcomes: Outcomes = field(default_factory=lambda: Outcomes(1))
    decides_on_host: bool = True
    changing: bool = False  # weights are being changed: in between, the state is not one of a step

    def __post_init__(self) -> None:
        self.outcomes.every = steps_between_readings(self.device)
        self.decides_on_host = self.outcomes.every == 1
        self.first_step, self.seconds_before = self.step, self.state.history["seconds"]
        self.checkpoint_step = self.step
        self.started = self.checkpointed = time.monotonic()
        hidden = not self.progress or self.ranks.rank > 0
        self.bar = tqdm(total=self.config.steps, initial=self.step, unit="step", disable=hidden, leave=True)
        self.opened = contextlib.ExitStack()

    @property
    def step(self) -> int:
        """Optimiser steps that were made, skipped ones included."""
        return self.state.step

    @property
    def out(self) -> Path:
        """Folder of the run."""
        return Path(self.config.out)

    def __enter__(self) -> Session:
        """Watch for signals; leaving puts an end to prefetching, bar, log and hooks."""
        for closed in (self.objective, self.log, self.bar):
            if closed is not None:
                self.opened.callback(closed.close)
        self.opened.enter_context(self.stop)
        self.opened.enter_context(self.batches)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """An exception loses no step: the state is kept where it is whole, and a note says where to resume."""
        with self.opened:
            if not isinstance(error, Exception):
                return False  # the end, or a signal that would not wait
            if self.ranks.rank == 0:
                error.add_note(self._kept())
            if lacks_memory(error):
                raise TrainingError(
                    f"out of memory on {self.device.type} in step {self.step + 1}; lower batch_size, or raise accumulation"
                ) from error
            # a signal asked for a stop while a batch was made, or has ended those that mix, too
            lost = self.ranks.rank == 0 and self.checkpoint_step < self.step
            return self.stop.asked and isinstance(error, WorkerError) and not lost

    def _kept(self) -> str:
        """Keep the state if it is whole and newer than the last checkpoint; in words, what is kept."""
        step, failed = self.checkpoint_step, ""
        if self.step > step and not self.changing:
            try:
                self.settle()
                self.state.save(self.out)
                step = self.checkpoint_step = self.step
            except (DccrnError, OSError, RuntimeError) as error:  # a GPU that failed fails again when it is read
                failed = f"the checkpoint of step {self.step} could not be written ({error}); "
        kept = f"step {step} is kept: resume with --resume" if step > 0 else "no step is kept"
        return f"{failed}{kept}"

    def record(self, outcome: Outcome) -> None:
        """Count a step; its outcome is noted when it is read.

        Raises:
            TrainingError: as :meth:`settle`.
        """
        config, state = self.config, self.state
        self.outcomes.add(state.step, outcome)
        state.step += 1
        state.history["seconds"] = self.seconds_before + time.monotonic() - self.started
        if self.outcomes.due:
            self.settle()
        self.bar.update()
        if state.step % 10 == 0:
            recent = state.sums.get("clean", [math.nan])[-10:]
            speed = 3600 * hours_of_audio(config, state.step - self.first_step) / (time.monotonic() - self.started)
            self.bar.set_postfix_str(f"loss {sum(recent) / len(recent):.2f}, {speed:.1f} s audio/s", refresh=False)

    def settle(self) -> None:
        """Note the outcomes that were not read yet: the terms, or which mixtures were skipped where they were not finite.

        Raises:
            TrainingError: more than ``max_bad_batches`` batches in a row were skipped.
        """
        config, state, most = self.config, self.state, 0
        for step, terms in self.outcomes.read():
            self.bad_in_a_row = 0 if terms is not None else self.bad_in_a_row + 1
            most = max(most, self.bad_in_a_row)
            for name, value in (terms or {}).items():
                state.sums.setdefault(name, []).append(value)
            if terms is None:
                state.history["skipped"].append(skipped_batch(step, config))
        if most > config.max_bad_batches:
            raise TrainingError(
                f"{most} batches in a row up to step {state.step - 1} gave a non-finite loss or gradient; "
                f"lower learning_rate (now {config.learning_rate:g}) or check the corpus; see {self.out}/history.json"
            )

    def validation_due(self) -> bool:
        """Whether to validate now: every ``valid_every`` steps and at the end, if it was not done already."""
        due = self.step % self.config.valid_every == 0 or self.step == self.config.steps
        return self.step > 0 and due and last_validation(self.state.history) != self.step

    def validate(self) -> None:
        """Score the averaged network, note it with the mean terms since the last time, keep the weights that are best.

        If that fails, nothing is noted.
        """
        self.settle()
        history, noted = self.state.history, {name: list(self.state.history[name]) for name in ("train", "valid")}
        sums = self.state.sums
        try:
            self._validate()
        except BaseException:
            history.update(noted)
            self.state.sums = sums
            raise

    def _validate(self) -> None:
        config, state, history = self.config, self.state, self.state.history
        if self.objective.teacher is not None:
            assert_frozen(self.objective.teacher.network)
        means = {name: sum(v) / len(v) for name, v in state.sums.items()}
        if len(state.sums.get("clean", [])) > 1:  # from batch to batch
            means["clean_std"] = statistics.stdev(state.sums["clean"])
        now = {"step": state.step, "hours": hours_of_audio(config, state.step)}
        train = {**now, "learning_rate": learning_rate(state.step - 1, config), **means}
        batches = valid_batches(self.valid_set, self.device, ranks=self.ranks)
        valid = {**now, **validate(state.average, batches, config.amp, self.ranks)}
        history["train"].append(train)
        history["valid"].append(valid)
        state.sums = {}
        if self.ranks.rank == 0:
            if valid["si_snr_db"] > state.best:
                save_model(state.average, self.out / "best", {**run_card(config, state.step), "valid": valid})
            write_json(self.out / "history.json", history)
        if self.log is not None:
            self.log.write("train", state.step, train)
            self.log.write("valid", state.step, valid)
        state.best = max(state.best, valid["si_snr_db"])

    def stop_requested(self, stop_after: int | None = None) -> bool:
        """Whether a signal came, or ``stop_after`` steps were made since the session began; the same on all ranks."""
        if self.ranks.world > 1 and not self.decides_on_host and self.step % self.outcomes.every and stop_after is None:
            return False  # asking the others waits for the device
        asked = self.stop.asked or (stop_after is not None and self.step - self.first_step >= stop_after)
        return self.ranks.mean(float(asked), self.device) > 0

    def checkpoint_if_due(self, stopping: bool = False) -> None:
        """Write a checkpoint at the end of the run, before a stop, and every ``checkpoint_minutes``."""
        due = time.monotonic() - self.checkpointed > 60 * self.config.checkpoint_minutes
        if (stopping or due or self.step == self.config.steps) and self.ranks.rank == 0:
            self.settle()
            self.state.save(self.out)
            self.checkpointed, self.checkpoint_step = time.monotonic(), self.step

    def result(self) -> TrainResult:
        """What the run left, once all ranks are done."""
        self.ranks.wait()
        weights = self.out / WEIGHTS
        model = load_model(weights, self.device) if weights.is_file() else self.state.average.eval()
        return TrainResult(model, self.state.history, weights, stopped=self.step < self.config.steps)


def fit_to_device(config: TrainConfig, ranks: Processes, device: torch.device, progress: bool) -> TrainConfig:
    """The config as these ranks and this device can carry it out.

    Raises:
        ConfigError: the batch does not divide among ranks and micro-batches; compile with amp on a CPU.
    """
    if config.batch_size % (ranks.world * config.accumulation):
        raise ConfigError(
            f"batch_size {config.batch_size} must be a multiple of {ranks.world} ranks x "
            f"{config.accumulation} micro-batches (accumulation)"
        )
    if config.amp and not has_bfloat16(device):
        config = dataclasses.replace(config, amp=False)
        if progress and ranks.rank == 0:
            print(f"{NO_BFLOAT16}: training in float32")
    if config.amp and config.compile and device.type == "cpu":  # seen with PyTorch 2.11: gradients not finite
        raise ConfigError(
            "compiled and in bfloat16, PyTorch computes wrong gradients on a CPU: leave out compile=true (it gains "
            "nothing there), or set amp=false"
        )
    return config


def open_session(
    config: TrainConfig, ranks: Processes, device: torch.device, saved: dict | None = None, progress: bool = True
) -> Session:
    """Data, networks, loss and optimiser of a run, as they were in a checkpoint if there is one.

    Args:
        config: from :func:`fit_to_device`.
        ranks, device: from :meth:`Processes.start`.
        saved: a checkpoint, from :func:`~dccrn_lib.training.run_folder.open_run`.
        progress: print how the terms of the loss were balanced, and show a bar.
    """
    sources = {"speech": config.speech, "noise": config.noise, "rir": config.rir or None}
    require_disjoint(config)
    decoded = ranks.first_then_all(
        lambda: decoded_for_device(config, device, Path(config.out) / "decoded", progress and ranks.rank == 0)
    )
    train_set = MixtureDataset(
        **sources, config=config.mix, seed=config.seed, length=config.epoch_mixtures, split="train", decoded=decoded
    )
    valid_set = valid_mixtures(config)
    prefer_fast_kernels(device)
    torch.manual_seed(config.seed)
    model = starting_model(config.model, config.init)
    model = in_memory(model.to(device).train(), config)
    objective = Objective(config, model, device)
    history = {"balance": {}, "train": [], "valid": [], "skipped": [], "seconds": 0.0}
    if objective.compares_features:
        count = min(config.batch_size // config.accumulation, BALANCED)  # the same on every rank
        first = default_collate([train_set[i] for i in range(count)])
        history["balance"] = objective.balance(objective.batch(first))
        torch.manual_seed(config.seed)
        if progress and ranks.rank == 0:
            print(_balance_in_words(history["balance"]))
    trained = [*model.parameters(), *objective.loss.parameters()]
    optimiser = build_optimiser(config, model, trained)
    highest_rates = [group["lr"] for group in optimiser.param_groups]
    average = copy_for_average(model) if config.ema_decay else model
    state = Run(model, average, objective.loss, optimiser, history, input_hashes(config))
    if saved:
        state.restore(saved, Path(config.out) / CHECKPOINT)
    ranks.wait()  # every rank has looked at the folder of the run
    log = ScalarLog(Path(config.out) / "tensorboard") if config.tensorboard and ranks.rank == 0 else None
    if ranks.rank == 0:  # only now: a wrong manifest, teacher or recording leaves no run behind
        require_there([*valid_set.planner.entries, *train_set.planner.entries])
        for drawn in (valid_set, train_set):
            drawn[0]
        write_config(Path(config.out), config)
    network = _distributed(model, config, ranks)
    stop = StopSignal()
    batches = _batches(train_set, objective, ranks, state.step, decoded, stop if ranks.world == 1 else None)
    if saved:
        # torch's loader has drawn a seed, which a run without a stop did not draw here
        torch.set_rng_state(saved["rng"])
    return Session(
        config,
        ranks,
        device,
        state,
        objective,
        network,
        trained,
        highest_rates,
        batches,
        valid_set,
        log,
        progress,
        stop,
    )


def _balance_in_words(b: dict[str, float]) -> str:
    return (
        f"gradient norms at the start: waveform {b['waveform_norm']:.3g}, features {b['feature_norm']:.3g}; "
        f"b = {b['feature_weight']:.3g}"
    )


def _distributed(model: nn.Module, config: TrainConfig, ranks: Processes) -> nn.Module:
    """The model as it is called in training: compiled if wanted, its gradients averaged over the ranks."""
    if ranks.world > 1 and config.sync_batch_norm:
        synchronise_batch_norm(model)
    network = cast(nn.Module, torch.compile(model)) if config.compile else model
    if ranks.world > 1:
        network = nn.parallel.DistributedDataParallel(network, broadcast_buffers=not config.sync_batch_norm)
    return network


def _batches(
    train_set: MixtureDataset,
    objective: Objective,
    ranks: Processes,
    start: int,
    decoded: DecodedCorpus | None,
    stop: StopSignal | None,
) -> Prefetcher[Batch]:
    """Micro-batches of this rank from step ``start`` on; on a CPU prefetched by a thread, the teacher's answer included.

    One that is being made when ``stop`` is asked is left; None where other ranks would wait for this one.
    """
    config, device = objective.config, objective.device
    sampler = RankSampler(config, ranks, start)
    options: dict[str, Any] = {"persistent_workers": config.workers > 0, "stop": stop}
    if decoded is not None:
        held = decoded.tensor().to(device)
        loader = DeviceBatches(train_set, decoded, held, sampler.size, sampler, config.workers, **options)
    else:
        pinned = device.type == "cuda"
        loader = Batches(train_set, sampler.size, sampler, config.workers, pin_memory=pinned, **options)
    return Prefetcher(lambda: objective.batch(next(loader)), depth=1 if device.type == "cpu" else 0)
