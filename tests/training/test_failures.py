"""Whatever ends a training, no step is lost where the disk takes a checkpoint, and the message says how to resume."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dccrn_lib.audio.files import write_audio
from dccrn_lib.cli.main import main
from dccrn_lib.corpus.entry import SPLITS, Entry
from dccrn_lib.corpus.loading import Batches
from dccrn_lib.corpus.manifest import write_manifest
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.networks import weights
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import load_model, save_model
from dccrn_lib.runtime.errors import AudioError, ConfigError, DamagedFileError, WorkerError
from dccrn_lib.runtime.locks import only_writer
from dccrn_lib.training import run_folder, session, step
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.lockstep import Stage, run_stage
from dccrn_lib.training.loop import train
from dccrn_lib.training.session import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    """A training of six steps on noise that is called speech."""
    rng, paths = np.random.default_rng(0), {}
    for kind in ("speech", "noise"):
        entries = []
        for split in SPLITS:
            for number in range(2):
                path = tmp_path / kind / f"{split}{number}.wav"
                write_audio(path, rng.uniform(-0.3, 0.3, 16000), 16000)
                names = {"speaker": path.stem} if kind == "speech" else {"recording": path.stem}
                entries.append(Entry(str(path), kind, "test", 1.0, 16000, split, "CC0", **names))
        paths[kind] = str(write_manifest(tmp_path / f"{kind}.jsonl", entries))
    return TrainConfig(
        str(tmp_path / "run"), **paths, model="distil_dccrn_mini", steps=6, batch_size=2, warmup_steps=2, valid_every=3,
        valid_mixtures=2, epoch_mixtures=7, seed=1, mix=MixConfig(segment_seconds=0.5),
    )  # fmt: skip


def state(folder: str | Path) -> dict:
    return torch.load(Path(folder) / "checkpoint.pt", weights_only=True)


def assert_resumes_as_if_nothing_had_happened(config: TrainConfig) -> None:
    train(config, resume=True, progress=False)
    whole = replace(config, out=config.out + "_whole", workers=0)
    train(whole, progress=False)
    a, b = state(config.out), state(whole.out)
    assert a["step"] == b["step"] == config.steps
    for part in ("model", "average"):
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items())
    assert torch.equal(a["rng"], b["rng"])
    for part in ("train", "valid"):
        assert a["history"][part] == b["history"][part]


def failing(function, at: int, error: BaseException):
    """The function, whose call number ``at`` raises in its place."""
    calls = []

    def called(*args, **options):
        calls.append(1)
        if len(calls) == at:
            raise error
        return function(*args, **options)

    return called


@pytest.mark.parametrize("place", ["forward", "validation"])
def test_an_exception_keeps_the_steps_before_it(config, monkeypatch, place):
    if place == "forward":  # in the fifth step, after the network has changed its statistics
        monkeypatch.setattr(session.Objective, "terms", drawing(session.Objective.terms, 5, ValueError("a fault")))
    else:
        monkeypatch.setattr(session, "validate", failing(session.validate, 1, ValueError("a fault")))
    with pytest.raises(ValueError, match="a fault") as caught:
        train(config, progress=False)
    kept = 4 if place == "forward" else 3
    assert caught.value.__notes__ == [f"step {kept} is kept: resume with --resume"]
    assert state(config.out)["step"] == kept and not (Path(config.out) / ".lock").exists()
    assert_resumes_as_if_nothing_had_happened(config)


def drawing(method, at: int, error: BaseException):
    """The method, which draws a number as dropout does, and raises after its call number ``at``."""
    calls = []

    def called(self, network, batch):
        found = method(self, network, batch)
        found["total"] = found["total"] * (1 + 0.01 * torch.rand(()))
        calls.append(1)
        if len(calls) == at:
            raise error
        return found

    return called


def test_a_step_that_was_half_made_is_not_kept(config, monkeypatch):
    monkeypatch.setattr(step, "update_average", failing(step.update_average, 5, ValueError("a fault")))
    with pytest.raises(ValueError, match="a fault") as caught:
        train(replace(config, checkpoint_minutes=1e-9), progress=False)
    assert caught.value.__notes__ == ["step 4 is kept: resume with --resume"]
    monkeypatch.undo()
    assert_resumes_as_if_nothing_had_happened(config)


def no_room(*_: object) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("file", ["best.safetensors", "history.json", "checkpoint.pt"])
def test_a_full_disk_is_one_line_and_loses_nothing(config, monkeypatch, capsys, file):
    """The disk is full at the first write of a file; there is room again for what follows."""
    real = run_folder.atomic_path
    writes = []

    def full(path):
        if Path(path).name == file:
            writes.append(1)
            if len(writes) == 1:
                return _full(path, real)
        return real(path)

    for module in (run_folder, weights):
        monkeypatch.setattr(module, "atomic_path", full)
    monkeypatch.setattr("dccrn_lib.runtime.files.atomic_path", full)
    options = ["--out", config.out, "--speech", config.speech, "--noise", config.noise, "--model", config.model]
    options += ["--steps", "6", "--batch-size", "2", "--valid-every", "3", "--valid-mixtures", "2", "--quiet"]
    assert main(["train", *options, "--mix.segment-seconds", "0.5"]) == 1
    error = capsys.readouterr().err
    step_kept = 6 if file == "checkpoint.pt" else 3
    assert error.startswith(f"error: {config.out}/{file}: No space left on device; step {step_kept} is kept")
    assert error.count("\n") == 1
    assert main(["train", *options, "--mix.segment-seconds", "0.5", "--resume"]) == 0
    history = json.loads((Path(config.out) / "history.json").read_text())
    assert [entry["step"] for entry in history["valid"]] == [3, 6]
    assert load_model(Path(config.out) / "best.safetensors")


@contextmanager
def _full(path, real):
    with real(path) as temporary:
        temporary.write_bytes(b"half")
        raise no_room()
    yield


def test_where_no_checkpoint_can_be_written_the_last_one_is_named(config, monkeypatch):
    train(config, progress=False, stop_after=2)
    monkeypatch.setattr(run_folder, "save_checkpoint", failing(run_folder.save_checkpoint, 1, no_room()))
    monkeypatch.setattr(session, "validate", failing(session.validate, 1, ValueError("a fault")))
    with pytest.raises(ValueError, match="a fault") as caught:
        train(config, resume=True, progress=False)
    (note,) = caught.value.__notes__
    assert note.startswith("the checkpoint of step 3 could not be written (") and "No space left" in note
    assert note.endswith("; step 2 is kept: resume with --resume")
    monkeypatch.undo()
    assert_resumes_as_if_nothing_had_happened(config)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_named_with_its_reason_whoever_reads_it(config, tmp_path, capsys, workers):
    for number in range(2):
        (tmp_path / "speech" / f"train{number}.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError) as caught:
        train(replace(config, workers=workers), progress=False)
    text = str(caught.value)
    assert "train" in text and ".wav" in text and "Traceback" not in text and "DataLoader" not in text
    assert text.count("\n") == 0


class _Unreadable(torch.utils.data.Dataset):
    def __getitem__(self, index: int) -> torch.Tensor:
        raise AudioError("a.wav is cut off")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("workers", [0, 1])
def test_the_error_of_an_item_leaves_a_worker_as_it_was_raised(workers):
    with pytest.raises(AudioError, match="^a.wav is cut off$"):
        next(Batches(_Unreadable(), 1, range(1), workers))


class _Items(torch.utils.data.Dataset):
    def __init__(self, ends: int) -> None:
        self.ends = ends

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.ends:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(index)

    def __len__(self) -> int:
        return 10


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_data_worker_is_an_error_that_comes_in_its_turn():
    before = signal.getsignal(signal.SIGCHLD)
    batches = Batches(_Items(2), 1, range(10), 1)
    assert signal.getsignal(signal.SIGCHLD) == before
    with pytest.raises(WorkerError, match="ended early.*try fewer workers"):
        for _ in range(10):
            next(batches)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_data_workers_do_not_hear_what_asks_their_parent_to_stop():
    batches = Batches(_Handlers(), 1, range(1), 1)
    ignored = next(batches)[0].tolist()
    assert ignored == [1, 1]


class _Handlers(torch.utils.data.Dataset):
    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGHUP)]).int()

    def __len__(self) -> int:
        return 1


def test_a_killed_data_worker_after_a_signal_is_a_stop(config, monkeypatch):
    def killed(self):
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)  # for the whole group, and so for the workers
            raise WorkerError("a process that mixes ended early")
        return real(self)

    real = step._gradients
    monkeypatch.setattr(step, "_gradients", killed)
    result = train(config, progress=False)
    assert result.stopped and state(config.out)["step"] == 4
    monkeypatch.undo()
    assert_resumes_as_if_nothing_had_happened(config)


def test_a_stop_whose_checkpoint_cannot_be_written_is_an_error(config, monkeypatch):
    monkeypatch.setattr(run_folder, "save_checkpoint", failing(run_folder.save_checkpoint, 1, no_room()))
    real = step._gradients

    def killed(self):
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            raise WorkerError("a process that mixes ended early")
        return real(self)

    monkeypatch.setattr(step, "_gradients", killed)
    with pytest.raises(WorkerError) as caught:
        train(config, progress=False)
    assert caught.value.__notes__[0].startswith("the checkpoint of step 4 could not be written (")


@pytest.mark.parametrize(("asked_at", "kept"), [(5, None), (21, 1)])
def test_a_batch_that_is_being_made_is_left_when_a_stop_is_asked(config, monkeypatch, asked_at, kept):
    """At mixture 5 the step waits for the first batch of 16, at 21 the second one is made ahead."""
    config = replace(config, batch_size=16, steps=3)
    made, real = [], MixtureDataset.__getitem__

    def one(self, index):
        item = real(self, index)
        if self.seed != config.seed:
            return item  # of the valid set
        made.append(index)  # the first is drawn before the run begins
        if len(made) == asked_at:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # the main thread hears it
        return item

    monkeypatch.setattr(MixtureDataset, "__getitem__", one)
    assert train(config, progress=False).stopped
    assert len(made) == asked_at
    assert (state(config.out)["step"] if kept else Path(config.out, "checkpoint.pt").exists() or None) == kept
    monkeypatch.undo()
    assert_resumes_as_if_nothing_had_happened(config)


def test_a_terminal_that_closes_is_a_stop_with_a_checkpoint(config, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    real = step._gradients
    monkeypatch.setattr(step, "_gradients", lambda s: (s.step == 3 and signal.raise_signal(signal.SIGHUP), real(s))[1])
    try:
        assert train(config, progress=False).stopped
    finally:
        signal.signal(signal.SIGHUP, before)
    assert state(config.out)["step"] == 4


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no CUDA memory"), RuntimeError("[enforce] can't allocate memory")]
)
def test_a_lack_of_memory_says_what_to_do(config, monkeypatch, error):
    monkeypatch.setattr(step, "_gradients", failing(step._gradients, 3, error))
    with pytest.raises(TrainingError, match="out of memory on cpu in step 3; lower batch_size"):
        train(config, progress=False)
    assert state(config.out)["step"] == 2


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut short": lambda data: data[:-10],
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"no checkpoint",
    "flipped": lambda data: data[:200] + bytes(b ^ 255 for b in data[200:400]) + data[400:],
}


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("file", ["checkpoint.pt", "config.json"])
def test_a_damaged_file_of_a_run_is_named_with_a_cure(config, capsys, file, damage):
    train(config, progress=False, stop_after=1)
    path = Path(config.out) / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if (file, damage) == ("config.json", "cut short"):
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DamagedFileError, match=f"{file}: is .*; .*remove it") as caught:
        train(config, resume=True, progress=False)
    assert "weights_only" not in str(caught.value)
    path.unlink()
    assert not train(config, resume=True, progress=False).stopped


@pytest.mark.parametrize("content", [[1], {"step": 1}, "text"])
def test_a_checkpoint_of_something_else_is_refused(config, content):
    train(config, progress=False, stop_after=1)
    torch.save(content, Path(config.out) / "checkpoint.pt")
    with pytest.raises(DamagedFileError, match="is no checkpoint of this training"):
        train(config, resume=True, progress=False)


def test_a_checkpoint_of_another_network_is_refused(config):
    train(config, progress=False, stop_after=1)
    saved = state(config.out)
    saved["model"] = build_model("uformer_mini").state_dict()
    torch.save(saved, Path(config.out) / "checkpoint.pt")
    with pytest.raises(DamagedFileError, match="checkpoint.pt: does not fit the network of this run"):
        train(config, resume=True, progress=False)


def test_a_folder_is_trained_in_by_one_process_at_a_time(config):
    with only_writer(config.out):
        with pytest.raises(ConfigError, match="writes into this folder; wait until it ends"):
            train(config, progress=False)
        assert not (Path(config.out) / "config.json").exists()
    train(config, progress=False)
    with only_writer(config.out):  # a finished run is only read
        assert not train(config, resume=True, progress=False).stopped


def test_weights_and_their_card_are_replaced_together_or_not_at_all(tmp_path, monkeypatch):
    torch.manual_seed(0)
    path = save_model(build_model("distil_dccrn_mini"), tmp_path / "best")
    before = {name: value.clone() for name, value in load_model(path).state_dict().items()}
    monkeypatch.setattr(weights, "to_json", failing(weights.to_json, 1, no_room()))
    with pytest.raises(OSError, match="No space"):
        save_model(build_model("distil_dccrn_mini"), tmp_path / "best")
    assert all(torch.equal(value, before[name]) for name, value in load_model(path).state_dict().items())


@pytest.fixture
def stage(config) -> Stage:
    student = replace(config, out=config.out + "/student", workers=0, valid_every=TrainConfig.valid_every)
    return Stage("one", {"student": student}, 1.0)


def test_a_lockstep_keeps_its_steps_too(config, stage, monkeypatch):
    from dccrn_lib.training import lockstep

    monkeypatch.setattr(lockstep.Lockstep, "one_step", failing(lockstep.Lockstep.one_step, 4, no_room()))
    with pytest.raises(OSError, match="No space") as caught:
        run_stage(stage, config.out, steps=6, progress=False)
    assert caught.value.__notes__ == ["step 3 is kept: the same command resumes"]
    monkeypatch.undo()
    file = Path(config.out) / "stage_one.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(DamagedFileError, match="stage_one.pt: is cut off or damaged"):
        run_stage(stage, config.out, steps=6, progress=False)
    file.write_bytes(whole)
    with only_writer(config.out), pytest.raises(ConfigError, match="writes into this folder"):
        run_stage(stage, config.out, steps=6, progress=False)
    assert run_stage(stage, config.out, steps=6, progress=False)["steps"] == 6
