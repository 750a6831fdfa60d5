"""Several networks trained at once on the same batches: equal mixtures, equal steps, one device that never waits.

    workers mix (or plan, and the device renders) -> batch of each seed -> teacher of each seed
    -> every network's step, on streams of their own

Terms of the loss, averages, balance, learning rates and validation are those of a training on its own
(``dccrn_lib.training.loop``). Networks of one seed see the same mixtures in the same order, those of a resumed run
included. The length is given in steps or in minutes; the learning rate follows the fraction that has passed, so that a
run of any length ends cooled down.
"""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from dccrn_lib.corpus.decoded import DecodedCorpus, decode_corpus
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.devices import NO_BFLOAT16, has_bfloat16, pick_device, prefer_fast_kernels
from dccrn_lib.runtime.environment import environment_record
from dccrn_lib.runtime.errors import ConfigError, DccrnError
from dccrn_lib.runtime.files import read_json, write_json
from dccrn_lib.runtime.interrupts import StopSignal
from dccrn_lib.runtime.locks import only_writer
from dccrn_lib.runtime.settings import shown
from dccrn_lib.training.config import ALONE_ONLY, MAY_CHANGE, TrainConfig
from dccrn_lib.training.inputs import input_hashes, require_disjoint, require_same_inputs
from dccrn_lib.training.mixtures import corpus_entries, renders_on_device
from dccrn_lib.training.run_folder import (
    WEIGHTS,
    last_validation,
    load_checkpoint,
    require_same,
    require_steps,
    run_card,
    save_checkpoint,
    write_config,
)
from dccrn_lib.training.schedule import rate_factor
from dccrn_lib.training.static_batches import Feed
from dccrn_lib.training.trainee import TeacherView, Trainee
from dccrn_lib.training.validation import valid_batches, valid_mixtures, validate


@dataclass(frozen=True)
class Stage:
    """Systems trained in lockstep: by name, each with its config; ``share`` of the campaign's minutes."""

    name: str
    systems: Mapping[str, TrainConfig]
    share: float
    snapshot_hours: tuple[float, ...] = ()


#: Fields that the systems of a stage share: they see the same mixtures and the same teachers.
SHARED = (
    "speech", "noise", "rir", "mix", "batch_size", "epoch_mixtures", "repeat_epoch", "valid_mixtures", "device", "amp",
)  # fmt: skip
VALIDATIONS = 10  # a stage
LOG_EVERY = 200  # steps


def require_resumable(stage: Stage) -> None:
    """Raise if the systems of a stage cannot be trained side by side, or their folders hold runs by other recipes.

    Raises:
        ConfigError: systems that see other mixtures than the first; a field that only a training on its own honours; a
            folder whose run was asked for otherwise.
        DamagedFileError: a ``config.json`` is empty, cut off or holds something else.
    """
    first = next(iter(stage.systems.values()))
    for system, config in stage.systems.items():
        for name in SHARED:
            if getattr(config, name) != getattr(first, name):
                raise ConfigError(f"stage {stage.name}: its systems must share {name}, and {system} has another one")
        for name, default in ((f.name, f.default) for f in fields(config) if f.name in ALONE_ONLY):
            if getattr(config, name) != default:
                raise ConfigError(
                    f"{system}: {name} = {shown(getattr(config, name))} has no effect on networks that are trained side by "
                    f"side; leave it at {shown(default)}, or train the network on its own (`train`)"
                )
        require_same(Path(config.out), config, MAY_CHANGE)


class Lockstep:
    """The networks of a stage, their batches and teachers.

    Args:
        stage: its systems have the same values in the fields of :data:`SHARED`.
        out: folder of the campaign.
        graphs: capture steps as CUDA graphs.
        progress: show a bar while files are decoded, and print a line for every system at each validation.
        steps: that the stage is to make in all, where they are counted.

    Raises:
        ConfigError, DamagedFileError: as of :func:`require_resumable`, or the checkpoint lacks a system, or is of a later
            step. Nothing was written then.
    """

    def __init__(
        self, stage: Stage, out: str | Path, graphs: bool = True, progress: bool = True, steps: int | None = None
    ) -> None:
        first = next(iter(stage.systems.values()))
        require_resumable(stage)
        self.stage, self.out, self.device, self.talks = stage, Path(out), pick_device(first.device), progress
        self.configs, self.graphs = self._fit_to_device(stage.systems), graphs
        self._prepare_device()
        self.file = self.out / f"stage_{stage.name}.pt"
        saved = self._checkpoint()
        # now: the code may be changed while it trains; one that is not known, of a checkpoint that is older, is empty
        before, now = saved.get("environments", [{}]) if saved else [], environment_record()
        self.environments = [*(each for each in before if each != now), now]  # of all calls, this one last
        if steps:
            require_steps(self.file, saved, steps)
        require_disjoint(first)
        self.stepping = False  # networks are being changed
        self.step, self.spent = (saved["step"], saved["seconds"]) if saved else (0, 0.0)
        self.kept = self.step
        decoded = self._decoded(first)
        of_seed = {c.seed: c for c in reversed(self.configs.values())}  # the first of each
        workers = workers_each(first.workers, len(of_seed))
        self.on_device = renders_on_device(first, self.device, decoded.samples.nbytes)
        held = decoded.tensor().to(self.device) if self.on_device else None
        self.feeds = {s: Feed(of_seed[s], decoded, self.device, workers, self.step, held) for s in sorted(of_seed)}
        self.valid = list(valid_batches(valid_mixtures(first, "plain", decoded), self.device, size=50))
        self.teachers: dict[tuple[str, int], TeacherView] = {}
        for feed in self.feeds.values():
            feed.advance(())
        self.wait()
        self.trainees = {name: self._trainee(name, config, saved) for name, config in self.configs.items()}
        self.wait()
        self.write_configs(steps)  # only now: what is refused before leaves no run behind
        self.fresh = True  # the first batch is on the device already
        self.validated = last_validation(self._a_history())
        self.ticks: deque = deque()

    def write_configs(self, steps: int | None) -> None:
        """Write down what each network is trained by, with the steps that the stage makes, where they are known."""
        for config in self.configs.values():
            write_config(Path(config.out), replace(config, steps=steps or config.steps))

    def _checkpoint(self) -> dict | None:
        """What an earlier call kept of these systems, or None."""
        if not self.file.is_file():
            return None
        saved = load_checkpoint(self.file, ("step", "seconds", "systems"))
        missing = [name for name in self.configs if name not in saved["systems"]]
        if missing:
            raise ConfigError(
                f"{self.file}: holds no {missing[0]}; resume with the same systems, or choose another folder"
            )
        if left := [name for name in saved["systems"] if name not in self.configs]:
            raise ConfigError(
                f"{self.file}: holds {left[0]} too, whose progress would be lost; resume with the same systems, or "
                "choose another folder"
            )
        return saved

    def _fit_to_device(self, systems: Mapping[str, TrainConfig]) -> dict[str, TrainConfig]:
        """The configs as this device can carry them out."""
        if has_bfloat16(self.device) or not next(iter(systems.values())).amp:
            return dict(systems)
        self.say(f"{NO_BFLOAT16}: training in float32")
        return {name: replace(config, amp=False) for name, config in systems.items()}

    def _prepare_device(self) -> None:
        """Free what an earlier stage left, and choose fast kernels."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.init()  # before, its allocator has no statistics to reset
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        prefer_fast_kernels(self.device)

    def _decoded(self, config: TrainConfig) -> DecodedCorpus:
        """The train and valid files of the config's manifests, decoded."""
        return decode_corpus(corpus_entries(config), self.out / "decoded", progress=self.talks)

    def _teacher(self, config: TrainConfig) -> TeacherView | None:
        """The teacher of a system, one for all systems of a seed; it has answered the first batch."""
        if config.method == "none":
            return None
        key = (config.teacher, config.seed)
        if key not in self.teachers:
            self.teachers[key] = TeacherView(config.teacher, self.feeds[config.seed].noisy, config.amp, self.graphs)
            self.wait()
            self.teachers[key].run()
            self.wait()
        return self.teachers[key]

    def _trainee(self, name: str, config: TrainConfig, saved: dict | None) -> Trainee:
        """A system as it was in the checkpoint, or fresh and balanced."""
        feed = self.feeds[config.seed]
        trainee = Trainee(config, feed.noisy, feed.clean, self._teacher(config), self.graphs)
        if saved:
            if saved["systems"][name]["best"] > -math.inf:
                _require_weights(config)
            trainee.restore(saved["systems"][name], self.file)
        else:
            trainee.balance()
        return trainee

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
        self.stepping = True
        for (_, seed), view in self.teachers.items():
            readers = [t.done for t in self.trainees.values() if t.teacher is view and t.calls]
            view.run([*readers, *self._ready(seed)] if cuda else ())
        for trainee in self.trainees.values():
            trainee.control(rate_factor(self.step, progress, trainee.config))
            after = [*self._ready(trainee.config.seed), *([trainee.teacher.done] if trainee.teacher else [])]
            trainee.run(after if cuda else ())
            trainee.state.step += 1
        self.step += 1
        self.fresh = self.stepping = False
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

    def _a_history(self) -> dict:
        """Of the first network; all are validated together."""
        return next(iter(self.trainees.values())).state.history

    def missed_validation(self, done: float) -> bool:
        """Whether one was due that an earlier call could not finish, ``done`` being how far the stage has come."""
        return self.validated < self.step and len(self._a_history()["valid"]) < math.floor(done * VALIDATIONS)

    def validate(self, seconds: float) -> None:
        """Score every network, note it in its history, keep the weights that are best.

        If that fails, nothing is noted: it is done again when the stage is resumed.
        """
        self.wait()
        for t in self.trainees.values():
            t.settle()
        before = [(t, t.noted()) for t in self.trainees.values()]
        try:
            scores = {name: validate(t.average, self.valid, t.config.amp) for name, t in self.trainees.items()}
            self._note(scores, seconds)
        except BaseException:
            for t, noted in before:
                t.put_back(noted)
            raise
        self.wait()  # what was cleared on this stream, the steps add to on theirs
        self.validated = self.step

    def _note(self, scores_of: Mapping[str, dict], seconds: float) -> None:
        """Scores of every network into its history and onto the disk."""
        for name, t in self.trainees.items():
            run, folder = t.state, Path(t.config.out)
            now = {"step": self.step, "hours": self.hours()}
            means, scores = t.means(), scores_of[name]
            run.history["train"].append({**now, "learning_rate": float(t.rates[-1]), **means})
            run.history["valid"].append({**now, **scores})
            run.history["seconds"] = seconds
            if scores["si_snr_db"] > run.best:
                run.best = scores["si_snr_db"]
                save_model(t.average, folder / "best", {**run_card(t.config, self.step), "valid": scores})
            write_json(folder / "history.json", run.history)
            terms = " ".join(f"{k} {means[k]:.4g}" for k in ("clean", "teacher", "features") if k in means)
            self.say(
                f"[{self.stage.name} {seconds:.0f} s, step {self.step}, {self.hours():.1f} h] {name}: valid "
                f"{scores['si_snr_db']:.3f} dB (noisy {scores['noisy_si_snr_db']:.2f}), spectral {scores['spectral']:.4f}, "
                f"gain {scores['gain']:.3f}; train {terms}; skipped {len(run.history['skipped'])}"
            )

    def save(self, seconds: float) -> None:
        """One checkpoint of all networks, so that none of them runs ahead of the others after a stop."""
        self.wait()
        for t in self.trainees.values():
            t.settle()
        systems = {name: {**t.state.state(), "means": t.sums_so_far()} for name, t in self.trainees.items()}
        for state in systems.values():  # rates are set by the schedule
            for group in state["optimiser"]["param_groups"]:
                group["lr"] = 0.0
        kept = {"step": self.step, "seconds": seconds, "systems": systems, "environments": self.environments}
        save_checkpoint(kept, self.file)
        self.kept = self.step

    @contextmanager
    def kept_on_failure(self, seconds: Callable[[], float]) -> Iterator[None]:
        """Save what an exception in the block would lose, if all networks have made the same steps."""
        try:
            yield
        except Exception as error:
            whole = not self.stepping and all(t.state.step == self.step for t in self.trainees.values())
            failed = ""
            if whole and self.step > self.kept:
                try:
                    self.save(seconds())
                except (DccrnError, OSError, RuntimeError) as second:  # a GPU that failed fails again when it is read
                    failed = f"the checkpoint of step {self.step} could not be written ({second}); "
            kept = f"step {self.kept} is kept: the same command resumes" if self.kept else "no step is kept"
            error.add_note(f"{failed}{kept}")
            raise

    def snapshot(self, hours: float) -> None:
        """Keep every network's averaged weights as ``after_<hours>h``."""
        self.wait()
        for t in self.trainees.values():
            save_model(t.average, Path(t.config.out) / f"after_{hours:g}h", run_card(t.config, self.step))

    def record(self, seconds: float, minutes: float | None) -> dict:
        """What the stage did and cost so far."""
        config = next(iter(self.trainees.values())).config
        cuda = self.device.type == "cuda"
        waited = sum(feed.waited for feed in self.feeds.values())
        return {
            "stage": self.stage.name,
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "torch": torch.__version__,
            "precision": "bfloat16" if config.amp else "float32", "tf32": torch.backends.cuda.matmul.allow_tf32,
            "batch_size": config.batch_size, "segment_seconds": config.mix.segment_seconds,
            "rendering": "device" if self.on_device else "workers",
            "minutes": minutes, "seconds": seconds, "steps": self.step, "hours_each": self.hours(),
            "audio_seconds_per_second_each": 3600 * self.hours() / max(seconds, 1e-9),
            "share_of_time_waiting_for_data": waited / max(seconds - self.spent, 1e-9),
            "peak_memory_gib": torch.cuda.max_memory_allocated(self.device) / 2**30 if cuda else None,
            "cuda_graphs": bool(cuda and all(t.graph is not None for t in self.trainees.values())),
            "systems": {n: t.state.history["valid"][-1:] for n, t in self.trainees.items()},
            "inputs": {n: t.state.inputs for n, t in self.trainees.items()},
            "environment": self.environments[-1],
            **({"earlier_environments": self.environments[:-1]} if len(self.environments) > 1 else {}),
        }  # fmt: skip


def workers_each(workers: int, seeds: int) -> int:
    """Processes that mix for each seed; one at least where any are asked for.

    >>> workers_each(7, 3), workers_each(2, 3), workers_each(0, 3)
    (2, 1, 0)
    """
    return max(1, workers // seeds) if workers else 0


def run_stage(
    stage: Stage,
    out: str | Path,
    minutes: float | None = None,
    steps: int | None = None,
    graphs: bool = True,
    stop_after: int | None = None,
    progress: bool = True,
) -> dict:
    """Train a stage to its end, or resume it where an earlier call stopped.

    Args:
        stage: its systems have the same values in the fields of :data:`SHARED`.
        out: folder of the campaign.
        minutes: length of the stage, over all calls; validation counts, loading does not.
        steps: length in steps instead.
        graphs: capture steps as CUDA graphs.
        progress: print how far it is.
        stop_after: stop with a checkpoint after this many steps of this call, as a signal would (for tests).

    Returns:
        What it did and cost, as ``stage_<name>.json`` says it; {"stopped": True, ...} if a signal ended it early.

    Raises:
        ConfigError: neither minutes nor steps, or both; another process trains in this folder; as of
            :func:`require_resumable`, a finished stage included; the stage is finished with other systems or another
            length, or has made more steps than are asked for; the checkpoint lacks a system. Nothing was written then.
        DamagedFileError: the checkpoint or the report of an earlier call is cut off or empty.

    An exception between two steps loses none where the disk takes a checkpoint; a note on it says where to resume.
    """  # fmt: skip
    if (minutes is None) == (steps is None):
        raise ConfigError("give the length of a campaign in minutes or in steps")
    if not 0 < (minutes or steps or 0) < math.inf:
        raise ConfigError(f"the length of a campaign must be above 0 and finite, got {minutes or steps}")
    require_resumable(stage)
    report = Path(out) / f"stage_{stage.name}.json"
    if report.is_file():
        finished = read_json(report, "remove it to resume the stage")
        if not finished.get("stopped", True):
            _require_same_stage(report, finished, stage, minutes, steps)
            for name, config in stage.systems.items():
                require_same_inputs({"inputs": finished.get("inputs", {}).get(name)}, input_hashes(config), report)
            return finished
    with only_writer(out):
        return _run_stage(stage, Path(out), report, minutes, steps, graphs, stop_after, progress)


def _require_weights(config: TrainConfig) -> None:
    """ConfigError if the best weights of a network are gone: a later validation need not be better than theirs."""
    weights = Path(config.out) / WEIGHTS
    if not weights.is_file():
        raise ConfigError(
            f"{weights} is gone, the best weights of this network so far: put it back, or train anew in another folder"
        )


def _require_same_stage(report: Path, finished: dict, stage: Stage, minutes: float | None, steps: int | None) -> None:
    """ConfigError if a finished stage had other systems or another length: what is asked for would not be trained."""
    for what, had, asked in (
        ("systems", sorted(finished["systems"]), sorted(stage.systems)),
        ("minutes", finished["minutes"], minutes),
        ("steps", finished["steps"] if steps else None, steps),
    ):
        if had != asked:
            had, asked = (", ".join(x) if isinstance(x, list) else str(x) for x in (had, asked))
            raise ConfigError(
                f"{report}: this stage is finished with {what} = {had}, asked for {asked}; choose another --out, or give "
                "the command it was trained with"
            )


def _run_stage(
    stage: Stage,
    out: Path,
    report: Path,
    minutes: float | None,
    steps: int | None,
    graphs: bool,
    stop_after: int | None,
    progress: bool,
) -> dict:
    lock = Lockstep(stage, out, graphs, progress, steps)
    clock = _Clock(lock, minutes, steps)
    interval = 60 * next(iter(stage.systems.values())).checkpoint_minutes
    # that of the step that is kept, too: the call that made the step may have failed at it
    snapshots = deque(h for h in sorted(stage.snapshot_hours) if h > lock.hours(lock.step - 1))
    due = math.floor(clock.done() * VALIDATIONS) + 1
    with lock.kept_on_failure(clock.seconds), StopSignal() as stop:
        if snapshots and lock.hours() >= snapshots[0]:
            lock.snapshot(snapshots.popleft())
        if lock.missed_validation(clock.done()):
            lock.validate(clock.seconds())
        while clock.done() < 1 and not stop.asked and (stop_after is None or lock.step - clock.first < stop_after):
            lock.one_step(clock.done())
            if snapshots and lock.hours() >= snapshots[0]:
                lock.snapshot(snapshots.popleft())
            if clock.done() * VALIDATIONS >= due:
                due = math.floor(clock.done() * VALIDATIONS) + 1
                lock.validate(clock.seconds())
            if lock.step % LOG_EVERY == 0:
                lock.say(clock.speed())
            if time.monotonic() - clock.checkpointed > interval:
                clock.checkpoint(report, stopped=True)
        stopped = clock.done() < 1
        if not stopped and lock.validated != lock.step:
            lock.validate(clock.seconds())
        if not stopped:
            lock.write_configs(lock.step)
        return clock.checkpoint(report, stopped)


class _Clock:
    """How far a stage has come, in minutes or in steps, over all calls."""

    def __init__(self, lock: Lockstep, minutes: float | None, steps: int | None) -> None:
        self.lock, self.minutes, self.steps = lock, minutes, steps
        self.begun = self.checkpointed = time.monotonic()
        self.first, self.logged = lock.step, (self.begun, lock.step)

    def seconds(self) -> float:
        """Seconds spent on the stage."""
        return self.lock.spent + time.monotonic() - self.begun

    def done(self) -> float:
        """Fraction of the stage that has passed."""
        # without steps there are minutes
        return self.lock.step / self.steps if self.steps else self.seconds() / (60 * self.minutes)  # pyright: ignore[reportOperatorIssue]

    def speed(self) -> str:
        """Milliseconds per step and audio per second since the last call, in words."""
        lock, now = self.lock, time.monotonic()
        ms = (now - self.logged[0]) / max(lock.step - self.logged[1], 1) * 1e3
        rate = lock.hours(1) * 3600 / ms * 1e3
        self.logged = (now, lock.step)
        return f"[{lock.stage.name} {self.seconds():.0f} s] step {lock.step}: {ms:.1f} ms, {rate:.0f} s of audio/s each"

    def checkpoint(self, report: Path, stopped: bool) -> dict:
        """Write the checkpoint and what the stage did and cost so far."""
        self.lock.save(self.seconds())
        record = {**self.lock.record(self.seconds(), self.minutes), "stopped": stopped}
        write_json(report, record)
        self.checkpointed = time.monotonic()
        return record
