"""Several networks trained at once on the same batches: equal mixtures, equal steps, one device that never waits.

    workers mix -> batch of each seed, copied once -> teacher of each seed -> every network's step, on streams of their own

Networks of one seed see the same mixtures in the same order, those of a resumed run included. The length is given in
steps or in minutes; the learning rate follows the share that has passed, so that a run of any length ends cooled down.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dccrn_lib.corpus.decoded import DecodedCorpus, decode_corpus
from dccrn_lib.corpus.manifest import read_manifest
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.losses import compressed_spectral_loss, si_snr_db
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.devices import has_bfloat16, pick_device
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import atomic_path, write_json
from dccrn_lib.runtime.interrupts import StopSignal
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.run_folder import write_config
from dccrn_lib.training.schedule import rate_factor
from dccrn_lib.training.trainee import TeacherView, Trainee, autocast
from dccrn_lib.training.validation import VALID_SEED


@dataclass(frozen=True)
class Stage:
    """Systems trained in lockstep: by name, each with its config; ``share`` of the campaign's minutes."""

    name: str
    systems: Mapping[str, TrainConfig]
    share: float
    snapshot_hours: tuple[float, ...] = ()


VALID_SECONDS = 4.0
VALIDATIONS = 10  # a stage
LOG_EVERY = 200  # steps


class Feed:
    """Batches of one seed, in tensors that stay where they are: ``noisy``, ``clean`` (batch, sample)."""

    def __init__(
        self, config: TrainConfig, decoded: DecodedCorpus, device: torch.device, workers: int, start: int
    ) -> None:
        dataset = MixtureDataset(
            config.speech, config.noise, config.rir or None, config.mix, config.seed, config.epoch_mixtures, "train",
            decoded=decoded,
        )  # fmt: skip
        shape = (config.batch_size, dataset.samples)
        self.noisy, self.clean = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self.cuda = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.cuda else None
        self.ready = torch.cuda.Event() if self.cuda else None
        self.waited = 0.0  # seconds for the workers
        self.batches: Iterator[tuple[Tensor, Tensor]] = iter(
            DataLoader(
                dataset, config.batch_size, sampler=itertools.count(start * config.batch_size), num_workers=workers,
                collate_fn=_pair, pin_memory=self.cuda, prefetch_factor=4 if workers else None,
            )
        )  # fmt: skip

    def advance(self, after: Sequence[torch.cuda.Event]) -> None:
        """Bring the next batch to the device, once the work on the last one is done."""
        began = time.monotonic()
        noisy, clean = next(self.batches)
        self.waited += time.monotonic() - began
        if not self.cuda:
            self.noisy.copy_(noisy)
            self.clean.copy_(clean)
            return
        with torch.cuda.stream(self.stream):
            for event in after:
                self.stream.wait_event(event)
            self.noisy.copy_(noisy, non_blocking=True)
            self.clean.copy_(clean, non_blocking=True)
            self.ready.record(self.stream)


def _pair(items: list[dict]) -> tuple[Tensor, Tensor]:
    return torch.stack([i["noisy"] for i in items]), torch.stack([i["clean"] for i in items])


class ValidSet:
    """The fixed valid mixtures, held on the device."""

    def __init__(self, config: TrainConfig, decoded: DecodedCorpus, device: torch.device) -> None:
        seconds = VALID_SECONDS if config.mix.segment_seconds >= 1 else config.mix.segment_seconds
        mix = replace(
            config.mix, segment_seconds=seconds, speed_probability=0.0, equaliser_probability=0.0,
            wide_level_probability=0.0, offset_probability=0.0,
        )  # fmt: skip
        mixtures = MixtureDataset(
            config.speech, config.noise, config.rir or None, mix, VALID_SEED, config.valid_mixtures, "valid",
            decoded=decoded,
        )  # fmt: skip
        items = [mixtures[i] for i in range(config.valid_mixtures)]
        self.noisy, self.clean = (t.to(device) for t in _pair(items))

    def score(self, trainee: Trainee, batch: int = 50) -> dict[str, float]:
        """Mean SI-SNR of output and input in dB, gain and compressed spectral distance of the averaged weights."""
        network = trainee.finished_average() if trainee.average is not trainee.model else trainee.model.eval()
        sums = torch.zeros(4, dtype=torch.float64)
        with torch.no_grad():
            for noisy, clean in zip(self.noisy.split(batch), self.clean.split(batch), strict=True):
                with autocast(noisy.device, trainee.config.amp):
                    estimate = network(noisy).float()
                gain = (estimate * clean).sum(-1) / (clean * clean).sum(-1)
                spectral = compressed_spectral_loss(estimate, clean) * len(noisy)
                rows = [si_snr_db(estimate, clean).sum(), si_snr_db(noisy, clean).sum(), gain.sum(), spectral]
                sums += torch.stack(rows).double().cpu()
        if trainee.average is trainee.model:
            trainee.model.train()
        names = ("si_snr_db", "noisy_si_snr_db", "gain", "spectral")
        return dict(zip(names, (sums / len(self.noisy)).tolist(), strict=True))


class Lockstep:
    """The networks of a stage, their batches and teachers.

    Args:
        stage: systems of one batch size and one way of mixing.
        out: folder of the campaign.
        graphs: capture steps as CUDA graphs.
        progress: show a bar while files are decoded, and print a line for every system at each validation.
    """

    def __init__(self, stage: Stage, out: str | Path, graphs: bool = True, progress: bool = True) -> None:
        configs = list(stage.systems.values())
        first = configs[0]
        if any((c.batch_size, c.mix) != (first.batch_size, first.mix) for c in configs):
            raise ConfigError(f"stage {stage.name}: its systems must share batch_size and mix")
        self.stage, self.out, self.device, self.talks = stage, Path(out), pick_device(first.device), progress
        if first.amp and not has_bfloat16(self.device):
            configs = [replace(c, amp=False) for c in configs]
            self.say("this CPU has no bfloat16 arithmetic and would emulate it slowly: training in float32")
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # of an earlier stage
            torch.cuda.reset_peak_memory_stats(self.device)
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = True
        self.file = self.out / f"stage_{stage.name}.pt"
        saved = torch.load(self.file, map_location="cpu", weights_only=True) if self.file.is_file() else None
        self.step, self.spent = (saved["step"], saved["seconds"]) if saved else (0, 0.0)
        paths = [(kind, p) for kind in ("speech", "noise", "rir") for p in getattr(first, kind).split(",") if p]
        entries = [e for kind, path in paths for e in read_manifest(path, kind=kind) if e.split != "test"]
        decoded = decode_corpus(entries, self.out / "decoded", progress=progress)
        seeds = sorted({c.seed for c in configs})
        workers = first.workers // len(seeds)
        self.feeds = {
            seed: Feed(next(c for c in configs if c.seed == seed), decoded, self.device, workers, self.step)
            for seed in seeds
        }
        self.valid = ValidSet(first, decoded, self.device)
        self.teachers: dict[tuple[str, int], TeacherView] = {}
        self.trainees: dict[str, Trainee] = {}
        for seed in seeds:
            self.feeds[seed].advance(())
        self.wait()
        for name, config in zip(stage.systems, configs, strict=True):
            feed, view = self.feeds[config.seed], None
            if config.method != "none":
                key = (config.teacher, config.seed)
                if key not in self.teachers:
                    self.teachers[key] = TeacherView(config.teacher, feed.noisy, config.amp, graphs)
                    self.wait()
                    self.teachers[key].run()
                    self.wait()
                view = self.teachers[key]
            trainee = self.trainees[name] = Trainee(config, feed.noisy, feed.clean, view, graphs)
            if saved:
                trainee.restore(saved["systems"][name])
            else:
                trainee.balance()
            write_config(Path(config.out), config)
        self.wait()
        self.fresh = True  # the first batch is on the device already
        self.validated = -1
        self.ticks: deque = deque()

    def say(self, text: str) -> None:
        """Print a line, if progress is to be shown."""
        if self.talks:
            print(text, flush=True)

    def wait(self) -> None:
        """Until the device has done all that is queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def one_step(self, progress: float) -> None:
        """A step of every network on the next batch; on CUDA it is only queued."""
        cuda = self.device.type == "cuda"
        if not self.fresh:
            for seed, feed in self.feeds.items():
                users = [t.done for t in self.trainees.values() if t.config.seed == seed]
                users += [view.done for (_, s), view in self.teachers.items() if s == seed]
                feed.advance(users if cuda else ())
        for (_, seed), view in self.teachers.items():
            readers = [t.done for t in self.trainees.values() if t.teacher is view and t.calls]
            view.run([*readers, *self._ready(seed)] if cuda else ())
        for trainee in self.trainees.values():
            trainee.control(rate_factor(self.step, progress, trainee.config))
            after = [*self._ready(trainee.config.seed), *([trainee.teacher.done] if trainee.teacher else [])]
            trainee.run(after if cuda else ())
            trainee.state.step += 1
        self.step += 1
        self.fresh = False
        if cuda:  # the host stays at most two steps ahead
            tick, stream = torch.cuda.Event(), torch.cuda.current_stream(self.device)
            for trainee in self.trainees.values():
                stream.wait_event(trainee.done)
            tick.record(stream)
            self.ticks.append(tick)
            if len(self.ticks) > 2:
                self.ticks.popleft().synchronize()

    def _ready(self, seed: int) -> list:
        feed = self.feeds[seed]
        return [feed.ready] if feed.ready is not None and not self.fresh else []

    def hours(self, step: int | None = None) -> float:
        """Audio that each network has seen."""
        config = next(iter(self.trainees.values())).config
        return (self.step if step is None else step) * config.batch_size * config.mix.segment_seconds / 3600

    def validate(self, seconds: float) -> None:
        """Score every network, note it in its history, keep the weights that are best."""
        self.wait()
        self.validated = self.step
        for name, t in self.trainees.items():
            run, folder = t.state, Path(t.config.out)
            now = {"step": self.step, "hours": self.hours()}
            means, found = t.means(), self.valid.score(t)
            run.history["train"].append({**now, "learning_rate": float(t.rates[0]), **means})
            run.history["valid"].append({**now, **found})
            run.history["seconds"] = seconds
            if found["si_snr_db"] > run.best:
                run.best = found["si_snr_db"]
                save_model(t.average, folder / "best", {"step": self.step, "hours": self.hours(), "valid": found})
            write_json(folder / "history.json", run.history)
            terms = " ".join(f"{k} {means[k]:.4g}" for k in ("clean", "teacher", "features") if k in means)
            self.say(
                f"[{self.stage.name} {seconds:.0f} s, step {self.step}, {self.hours():.1f} h] {name}: valid "
                f"{found['si_snr_db']:.3f} dB (noisy {found['noisy_si_snr_db']:.2f}), spectral {found['spectral']:.4f}, "
                f"gain {found['gain']:.3f}; train {terms}; skipped {run.history['skipped']}"
            )

    def save(self, seconds: float) -> None:
        """One checkpoint of all networks, so that none of them runs ahead of the others after a stop."""
        self.wait()
        systems = {name: t.state.state() for name, t in self.trainees.items()}
        for state in systems.values():  # rates are set by the schedule
            for group in state["optimiser"]["param_groups"]:
                group["lr"] = 0.0
        with atomic_path(self.file) as temporary:
            torch.save({"step": self.step, "seconds": seconds, "systems": systems}, temporary)

    def record(self, seconds: float, minutes: float | None) -> dict:
        """What the stage did and cost so far."""
        config = next(iter(self.trainees.values())).config
        cuda = self.device.type == "cuda"
        waited = sum(feed.waited for feed in self.feeds.values())
        return {
            "stage": self.stage.name,
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "torch": torch.__version__,
            "precision": "bfloat16" if config.amp else "float32",
            "batch_size": config.batch_size, "segment_seconds": config.mix.segment_seconds,
            "minutes": minutes, "seconds": seconds, "steps": self.step, "hours_each": self.hours(),
            "audio_seconds_per_second_each": 3600 * self.hours() / max(seconds, 1e-9),
            "share_of_time_waiting_for_data": waited / max(seconds - self.spent, 1e-9),
            "peak_memory_gib": torch.cuda.max_memory_allocated(self.device) / 2**30 if cuda else None,
            "cuda_graphs": bool(cuda and all(t.graph is not None for t in self.trainees.values())),
            "systems": {n: t.state.history["valid"][-1:] for n, t in self.trainees.items()},
        }  # fmt: skip


def run_stage(
    stage: Stage,
    out: str | Path,
    minutes: float | None = None,
    steps: int | None = None,
    graphs: bool = True,
    stop_after: int | None = None,
    progress: bool = True,
) -> dict:
    """Train a stage to its end, or go on where an earlier call stopped.

    Args:
        stage: its systems share device, batch_size, mix, valid_mixtures and checkpoint_minutes.
        out: folder of the campaign.
        minutes: length of the stage, over all calls; validation counts, loading does not.
        steps: length in steps instead.
        graphs: capture steps as CUDA graphs.
        progress: print how far it is.
        stop_after: stop with a checkpoint after this many steps of this call, as a signal would (for tests).

    Returns:
        What it did and cost, as ``stage_<name>.json`` says it; {"stopped": True, ...} if a signal ended it early.

    Raises:
        ConfigError: neither minutes nor steps, or both.
    """  # fmt: skip
    if (minutes is None) == (steps is None):
        raise ConfigError("give the length of a campaign in minutes or in steps")
    if not (minutes or steps or 0) > 0:
        raise ConfigError(f"the length of a campaign must be above 0, got {minutes or steps}")
    out = Path(out)
    report = out / f"stage_{stage.name}.json"
    if report.is_file():
        finished = json.loads(report.read_text(encoding="utf-8"))
        if not finished["stopped"]:
            return finished
    lock = Lockstep(stage, out, graphs, progress)
    begun = checkpointed = time.monotonic()
    first, logged = lock.step, (time.monotonic(), lock.step)
    interval = 60 * next(iter(stage.systems.values())).checkpoint_minutes
    snapshots = deque(h for h in sorted(stage.snapshot_hours) if h > lock.hours())

    def passed() -> float:
        return lock.spent + time.monotonic() - begun

    def done() -> float:
        return lock.step / steps if steps else passed() / (60 * minutes)

    due = math.floor(done() * VALIDATIONS) + 1
    with StopSignal() as stop:
        while done() < 1 and not stop.asked and (stop_after is None or lock.step - first < stop_after):
            lock.one_step(done())
            if snapshots and lock.hours() >= snapshots[0]:
                hours = snapshots.popleft()
                lock.wait()
                for t in lock.trainees.values():
                    card = {"step": lock.step, "hours": lock.hours()}
                    save_model(t.finished_average(), Path(t.config.out) / f"after_{hours:g}h", card)
            if done() * VALIDATIONS >= due:
                due = math.floor(done() * VALIDATIONS) + 1
                lock.validate(passed())
            if lock.step % LOG_EVERY == 0:
                now = time.monotonic()
                ms = (now - logged[0]) / max(lock.step - logged[1], 1) * 1e3
                rate = lock.hours(1) * 3600 / ms * 1e3
                logged = (now, lock.step)
                lock.say(f"[{stage.name} {passed():.0f} s] step {lock.step}: {ms:.1f} ms, {rate:.0f} s of audio/s each")
            if time.monotonic() - checkpointed > interval:
                lock.save(passed())
                write_json(report, {**lock.record(passed(), minutes), "stopped": True})
                checkpointed = time.monotonic()
    stopped = done() < 1
    if not stopped and lock.validated != lock.step:
        lock.validate(passed())
    lock.save(passed())
    record = {**lock.record(passed(), minutes), "stopped": stopped}
    write_json(report, record)
    return record
