"""The training loop: learns, resumes bit for bit (also after kill -9), skips bad batches, keeps the teacher frozen."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dccrn_lib.losses as losses
from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.manifest import read_manifest, write_manifest
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.uformer import Uformer
from dccrn_lib.networks.weights import load_model, read_card, save_model
from dccrn_lib.runtime.devices import has_bfloat16, pick_device
from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.runtime.errors import ConfigError, ManifestError
from dccrn_lib.training import mixtures, session, step_outcomes
from dccrn_lib.training.batches import Batch, RankSampler
from dccrn_lib.training.config import MAY_CHANGE, TrainConfig
from dccrn_lib.training.lockstep import Stage, run_stage
from dccrn_lib.training.loop import train
from dccrn_lib.training.objective import Objective, build_loss, build_teacher
from dccrn_lib.training.run_folder import CHECKPOINT, load_checkpoint
from dccrn_lib.training.schedule import hours_of_audio, learning_rate
from dccrn_lib.training.session import TrainingError, open_session

pytestmark = pytest.mark.usefixtures("one_thread")


def config(corpus, out, **changes) -> TrainConfig:
    settings = {
        "out": str(out), **corpus, "model": "distil_dccrn_mini", "steps": 6, "batch_size": 2, "warmup_steps": 2,
        "learning_rate": 3e-3, "valid_every": 3, "valid_mixtures": 2, "epoch_mixtures": 7, "seed": 1,
        "mix": MixConfig(segment_seconds=0.5),
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


def state(path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoint.pt", weights_only=True)


def assert_equal_runs(a, b):
    first, second = state(a), state(b)
    assert first["step"] == second["step"]
    for part in ("model", "average"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
    histories = [json.loads((x / "history.json").read_text()) for x in (a, b)]
    for part in ("train", "valid"):
        assert histories[0][part] == histories[1][part]


def test_learns_with_the_right_gain_and_polarity(corpus, tmp_path):
    c = config(
        corpus, tmp_path / "run", steps=40, epoch_mixtures=1, batch_size=1, valid_every=20, learning_rate=1e-2,
        decay_fraction=0.1, mix=MixConfig(segment_seconds=0.5, snr_db=(0, 0), rir_probability=0),
    )  # fmt: skip
    history = train(c, progress=False).history
    # every step sees another mixture: "clean" improves without one being seen twice
    assert history["train"][1]["clean"] < history["train"][0]["clean"] - 1
    assert 0.3 < history["valid"][-1]["gain"] < 1.7  # polarity and gain


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_resume_is_exact(corpus, tmp_path, ema):
    whole = config(corpus, tmp_path / "whole", ema_decay=ema)
    train(whole, progress=False)
    parts = replace(whole, out=str(tmp_path / "parts"))
    assert train(parts, progress=False, stop_after=2).stopped
    assert train(parts, resume=True, progress=False, stop_after=2).stopped
    assert not train(parts, resume=True, progress=False).stopped
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


_SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.loop import train
from dccrn_lib.corpus.mixing import MixConfig
record = json.load(open(sys.argv[1]))
mix = MixConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.pop("mix").items()})
train(TrainConfig(**record, mix=mix), resume=True, progress=False)
"""


def _start(c, tmp_path):
    path = tmp_path / "config_in.json"
    path.write_text(json.dumps(asdict(c)))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", _SCRIPT, str(path)], env=env)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_resume_after_a_kill_is_exact(corpus, tmp_path, how):
    out = tmp_path / "killed"
    c = config(corpus, out, steps=24, valid_every=6, checkpoint_minutes=1e-6)
    process = _start(c, tmp_path)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.pt").is_file() and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(60)
    reached = state(out)["step"]
    assert 0 < reached < 24, "the run was not stopped in the middle"
    if how == signal.SIGTERM:  # kill -9 may leave a temporary file, under a hidden name of its own
        assert not list(out.glob(".*")), "a half-written file was left"
    train(c, resume=True, progress=False)
    whole = replace(c, out=str(tmp_path / "whole"))
    train(whole, progress=False)
    assert_equal_runs(out, tmp_path / "whole")


def test_bad_batches_are_skipped_and_named(corpus, tmp_path, monkeypatch):
    real, calls = losses.si_snr_loss, []

    def sometimes_nan(estimate, target):
        calls.append(1)
        loss = real(estimate, target)
        return loss * float("nan") if len(calls) == 2 else loss

    monkeypatch.setattr(losses, "si_snr_loss", sometimes_nan)
    result = train(config(corpus, tmp_path / "run", steps=4), progress=False)
    assert result.history["skipped"] == [{"step": 1, "mixtures": [2, 3]}]
    assert all(v.isfinite().all() for v in result.model.state_dict().values())


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_decided_on_the_device_a_run_is_what_it_is_decided_on_the_host(
    corpus, tmp_path, monkeypatch, repeatable, optimiser
):
    real, calls = losses.si_snr_loss, []

    def sometimes_nan(estimate, target):
        calls.append(1)
        loss = real(estimate, target)
        return loss * float("nan") if len(calls) == 3 else loss

    monkeypatch.setattr(losses, "si_snr_loss", sometimes_nan)
    c = config(corpus, tmp_path / "host", steps=6, ema_decay=0.9, optimiser=optimiser, muon_learning_rate=3e-3)
    host = train(c, progress=False).history
    calls.clear()
    monkeypatch.setattr(step_outcomes, "READ_EVERY", {})  # as on a GPU: nothing is read for 20 steps
    reads = []
    read = step_outcomes.Outcomes.read
    monkeypatch.setattr(step_outcomes.Outcomes, "read", lambda self: reads.append(len(self.waiting)) or read(self))
    device = train(replace(c, out=str(tmp_path / "device")), progress=False).history
    assert [n for n in reads if n] == [3, 3]  # for the two validations
    assert device["skipped"] == host["skipped"] == [{"step": 2, "mixtures": [4, 5]}]
    for part in ("train", "valid"):
        for ours, theirs in zip(device[part], host[part], strict=True):
            # where a step cannot be repeated bit by bit, Muon, which makes each matrix orthogonal, enlarges the rounding
            assert ours == pytest.approx(theirs, rel=1e-4 if repeatable == 0 else 1e-3)


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_steps_skipped_on_the_device_change_nothing(corpus, tmp_path, monkeypatch, optimiser):
    c = config(corpus, tmp_path / "run", steps=2, valid_every=9, ema_decay=0.9, optimiser=optimiser, max_bad_batches=3)
    monkeypatch.setattr(step_outcomes, "READ_EVERY", {})
    train(c, progress=False)
    before = state(tmp_path / "run")
    monkeypatch.setattr(losses, "si_snr_loss", lambda e, t: e.sum() * float("nan"))
    resumed = train(replace(c, steps=5), resume=True, progress=False)
    after = state(tmp_path / "run")
    assert [s["step"] for s in resumed.history["skipped"]] == [2, 3, 4]
    for part in ("model", "average"):
        assert all(torch.equal(after[part][name], value) for name, value in before[part].items())
    for number, kept in before["optimiser"]["state"].items():
        now = after["optimiser"]["state"][number]
        assert all(torch.equal(torch.as_tensor(now[k]), torch.as_tensor(v)) for k, v in kept.items())
    with pytest.raises(TrainingError, match="4 batches in a row"):
        train(replace(c, steps=9), resume=True, progress=False)


def test_a_skipped_batch_leaves_no_trace_in_batchnorm(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "si_snr_loss", lambda e, t: e.sum() * float("nan"))
    c = config(corpus, tmp_path / "run", steps=3, valid_every=3)
    train(c, progress=False)
    torch.manual_seed(c.seed)
    fresh = build_model(c.model).state_dict()
    after = state(tmp_path / "run")["model"]
    assert all(torch.equal(after[name], value) for name, value in fresh.items())


def test_stops_when_losses_stay_bad(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "si_snr_loss", lambda e, t: e.sum() * float("inf"))
    with pytest.raises(TrainingError, match="lower learning_rate"):
        train(config(corpus, tmp_path / "run", steps=9, max_bad_batches=3), progress=False)


def test_the_centred_form_takes_reading_and_normalisation(corpus, tmp_path):
    student, teacher = build_model("distil_dccrn_mini"), build_model("uformer_mini")
    c = config(corpus, tmp_path / "run", method="at_kl_centred", teacher="uformer")
    c = replace(c, reading="time_frequency", normalisation="softmax")
    loss = build_loss(c, student, teacher).feature_loss
    assert (loss.reading, loss.normalisation) == ("time_frequency", "softmax")


@pytest.mark.parametrize("method", ["output", "at_kl", "at_kl_centred", "at", "kl", "fitnets", "self_similarity"])
def test_distillation_runs_and_leaves_the_teacher_alone(corpus, tmp_path, method):
    torch.manual_seed(5)
    weights = save_model(build_model("uformer_mini"), tmp_path / "teacher")
    before = weights.read_bytes()
    c = config(corpus, tmp_path / "run", steps=2, valid_every=2, method=method, teacher=str(weights))
    history = train(c, progress=False).history
    assert weights.read_bytes() == before
    terms = history["train"][0]
    assert "teacher" in terms and ("features" in terms) == (method != "output")
    if method != "output":
        b = history["balance"]
        assert b["feature_weight"] == pytest.approx(0.1 * b["waveform_norm"] / b["feature_norm"])


def test_resume_with_adapters(corpus, tmp_path):
    torch.manual_seed(5)
    weights = save_model(build_model("uformer_mini"), tmp_path / "teacher")
    whole = config(corpus, tmp_path / "whole", steps=4, valid_every=2, method="fitnets", teacher=str(weights))
    train(whole, progress=False)
    parts = replace(whole, out=str(tmp_path / "parts"))
    train(parts, progress=False, stop_after=2)
    train(parts, resume=True, progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_accumulation_counts_whole_batches_and_must_divide_them(corpus, tmp_path, monkeypatch):
    seen, real = [], Objective.terms
    monkeypatch.setattr(Objective, "terms", lambda self, net, batch: seen.append(batch.noisy) or real(self, net, batch))
    c = config(corpus, tmp_path / "a", steps=2, batch_size=4, accumulation=2, valid_every=2)
    assert len(train(c, progress=False).history["valid"]) == 1
    own = MixtureDataset(c.speech, c.noise, c.rir, c.mix, c.seed, c.epoch_mixtures, "train")
    assert [len(part) for part in seen] == [2, 2, 2, 2]  # two parts of a batch in each of two steps
    assert torch.equal(torch.cat(seen), torch.stack([own[i]["noisy"] for i in range(8)]))
    with pytest.raises(ConfigError, match="multiple of accumulation"):
        replace(c, accumulation=3)


def test_a_run_is_resumed_where_its_manifests_lie_elsewhere_now(corpus, tmp_path):
    shutil.copytree(Path(corpus["noise"]).parent, tmp_path / "moved")
    moved = {name: str(tmp_path / "moved" / Path(path).name) for name, path in corpus.items()}
    whole = config(corpus, tmp_path / "whole", steps=4)
    train(whole, progress=False)
    parts = replace(whole, out=str(tmp_path / "parts"))
    train(parts, progress=False, stop_after=2)
    elsewhere = replace(parts, **moved)
    train(elsewhere, resume=True, progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    assert json.loads((tmp_path / "parts" / "config.json").read_text())["speech"] == moved["speech"]
    other = replace(elsewhere, noise=moved["speech"])
    with pytest.raises(ConfigError, match="the contents of noise are no longer those that the run began with"):
        train(other, resume=True, progress=False)
    checkpoint = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    torch.save({k: v for k, v in checkpoint.items() if k != "inputs"}, tmp_path / "parts" / "checkpoint.pt")
    with pytest.raises(ConfigError, match="the run there has speech"):  # an older version: nothing to compare
        train(parts, resume=True, progress=False)


def test_the_card_counts_the_hours_of_the_weights_a_run_began_with(corpus, tmp_path):
    first = config(corpus, tmp_path / "first", steps=2, valid_every=2)
    weights = train(first, progress=False).weights
    card = read_card(weights)["card"]
    assert card["hours_of_audio"] == pytest.approx(hours_of_audio(first, 2)) and card["step"] == 2
    assert (card["model"], card["method"], card["seed"]) == (first.model, "none", first.seed)
    again = train(replace(first, out=str(tmp_path / "again"), init=str(weights)), progress=False).weights
    assert read_card(again)["card"]["hours_of_audio"] == pytest.approx(hours_of_audio(first, 4))
    silent = save_model(load_model(weights), tmp_path / "silent")
    last = train(replace(first, out=str(tmp_path / "last"), init=str(silent)), progress=False).weights
    assert read_card(last)["card"]["hours_of_audio"] is None


def test_refuses_to_mix_runs(corpus, tmp_path):
    c = config(corpus, tmp_path / "run", steps=2)
    train(c, progress=False)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(c, progress=False)
    with pytest.raises(ConfigError, match="learning_rate"):
        train(replace(c, learning_rate=1e-4), resume=True, progress=False)
    longer = train(replace(c, steps=3), resume=True, progress=False)
    assert longer.history["valid"][-1]["step"] == 3
    weights = (tmp_path / "run" / "best.safetensors").read_bytes()
    (tmp_path / "run" / "checkpoint.pt").unlink()
    for resume in (True, False):
        with pytest.raises(
            ConfigError, match="holds weights, but no checkpoint.pt" if resume else "already holds a run"
        ):
            train(replace(c, steps=3), resume=resume, progress=False)
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == weights


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("changed", ["noise", "teacher"])
def test_other_recordings_or_another_teacher_under_the_old_name_are_noticed(corpus, tmp_path, changed, side_by_side):
    shutil.copytree(Path(corpus["noise"]).parent, tmp_path / "corpus")
    own = {name: str(tmp_path / "corpus" / Path(path).name) for name, path in corpus.items()}
    torch.manual_seed(0)
    own["teacher"] = str(save_model(build_model("uformer_mini"), tmp_path / "teacher"))
    alone = {"valid_every": 200} if side_by_side else {}
    c = config(own, tmp_path / "run", steps=2, method="output", **alone)

    def go_on(**options):
        if side_by_side:
            run_stage(Stage("s", {"run": c}, 1.0), tmp_path, steps=2, progress=False, **options)
        else:
            train(c, resume=True, progress=False, **options)

    go_on(stop_after=1)
    old = Path(own[changed]).read_bytes()
    kept = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    if changed == "teacher":
        save_model(build_model("uformer_mini"), tmp_path / "teacher")  # its card follows, as of weights trained on
    else:
        Path(own[changed]).write_bytes(old + old.splitlines()[-1] + b"\n")
    with pytest.raises(ConfigError, match=f"the contents of {changed} are no longer those that the run began with"):
        go_on()
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == kept
    if changed == "noise":
        Path(own[changed]).write_bytes(old)
        go_on()
        assert json.loads((tmp_path / "run" / "history.json").read_text())["valid"][-1]["step"] == 2


@pytest.mark.parametrize("done", [2, 4])
def test_fewer_steps_than_were_made_are_refused_and_the_run_stays(corpus, tmp_path, capsys, done):
    c = config(corpus, tmp_path / "run", steps=4, device="cpu")
    train(c, progress=False, stop_after=done)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=f"has made {done} steps, asked for 1: .* above {done}"):
        train(replace(c, steps=1), resume=True, progress=False)
    command = ["train", "--config", str(tmp_path / "run" / "config.json"), "--resume", "--quiet"]
    assert cli.main([*command, "--steps", "1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before
    assert cli.main([*command, "--steps", "4"]) == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"model": "distil_dcrn"}, "did you mean distil_dccrn"),
        ({"method": "atkl", "teacher": "x"}, "did you mean at_kl"),
        ({"method": "at_kl"}, "needs a teacher"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 2.5}, "steps wants a whole number, got 2.5"),
        ({"workers": "2"}, "workers wants a whole number, got '2'"),
    ],
)
def test_config_errors(corpus, tmp_path, bad, message):
    with pytest.raises(ConfigError, match=message):
        config(corpus, tmp_path, **bad)


def test_what_decides_the_outcome_is_said_on_the_field(corpus, tmp_path):
    c = config(corpus, tmp_path)
    elsewhere = replace(c, out="b", device="cuda", workers=4, compile=True, tensorboard=True, checkpoint_minutes=1.0)
    assert elsewhere.deciding() == c.deciding()
    assert replace(c, speech="moved.jsonl").deciding() == c.deciding(), "what the files hold decides"
    for change in ({"seed": 5}, {"steps": 9}, {"amp": True}, {"mix": MixConfig(segment_seconds=0.7)}):
        assert replace(c, **change).deciding() != c.deciding(), change
    # a run may be resumed longer or cut otherwise, and anywhere; not with other data or another teacher
    assert {"steps", "accumulation", "amp", "valid_every", "out", "workers"} <= MAY_CHANGE
    assert not {"speech", "noise", "rir", "teacher", "seed", "mix", "learning_rate", "batch_size"} & MAY_CHANGE


def test_a_missing_manifest_begins_no_run(corpus, tmp_path):
    with pytest.raises(ManifestError, match="nowhere"):
        train(config({**corpus, "speech": "nowhere.jsonl"}, tmp_path / "run"), progress=False)
    assert not (tmp_path / "run" / "config.json").exists()


def test_schedule():
    c = TrainConfig("o", "s", "n", steps=100, warmup_steps=10, decay_fraction=0.5, learning_rate=1.0)
    rates = [learning_rate(step, c) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[49] == 1.0
    assert rates[75] == pytest.approx(0.5) and rates[99] == pytest.approx(0.02)


def test_device():
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="no CUDA GPU"):
            pick_device("cuda")


def test_bfloat16_is_left_where_it_would_be_emulated(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "has_bfloat16", lambda device: False)
    train(config(corpus, tmp_path / "asked", amp=True))
    assert "training in float32" in capsys.readouterr().out
    assert json.loads((tmp_path / "asked" / "config.json").read_text())["amp"] is False
    train(config(corpus, tmp_path / "plain"), progress=False)
    assert_equal_runs(tmp_path / "asked", tmp_path / "plain")


def test_compile_in_bfloat16_is_refused_on_a_cpu(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "has_bfloat16", lambda device: True)
    with pytest.raises(ConfigError, match="amp=false"):
        train(config(corpus, tmp_path / "run", amp=True, compile=True), progress=False)
    assert not (tmp_path / "run").exists()


def test_who_has_bfloat16(monkeypatch):
    for capability, has in (((7, 5), False), ((8, 0), True), ((9, 0), True)):  # T4, A100, H100
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, of=capability: of)
        assert has_bfloat16(torch.device("cuda")) is has
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for avx, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert has_bfloat16(torch.device("cpu")) is (avx or amx)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert has_bfloat16(torch.device("cpu"))


def test_the_saved_weights_are_the_ones_returned(corpus, tmp_path):
    result = train(config(corpus, tmp_path / "run", steps=3), progress=False)
    x = torch.randn(1, 3000)
    assert torch.equal(result.model(x), load_model(result.weights)(x))


def test_a_skipped_batch_is_named_whole_when_it_is_cut_into_parts(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "si_snr_loss", lambda e, t: e.sum() * float("nan"))
    c = config(corpus, tmp_path / "run", steps=2, batch_size=4, accumulation=2, valid_every=2)
    skipped = train(c, progress=False).history["skipped"]
    assert skipped == [{"step": 0, "mixtures": [0, 1, 2, 3]}, {"step": 1, "mixtures": [4, 5, 6, 0]}]


def test_a_run_older_than_a_setting_goes_on_with_its_default(corpus, tmp_path):
    c = config(corpus, tmp_path / "run", steps=1, valid_every=1)
    train(c, progress=False)
    path = tmp_path / "run" / "config.json"
    record = json.loads(path.read_text())
    del record["repeat_epoch"], record["mix"]["equaliser_db"]
    path.write_text(json.dumps(record))
    assert train(replace(c, steps=2), resume=True, progress=False).history["valid"][-1]["step"] == 2
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="repeat_epoch = False, asked for True"):
        train(replace(c, repeat_epoch=True), resume=True, progress=False)


def test_rendered_on_the_device_a_run_learns_the_same_and_may_be_resumed_either_way(corpus, tmp_path):
    c = config(corpus, tmp_path / "workers", mix=MixConfig(segment_seconds=0.5, rir_probability=1.0))
    workers = train(c, progress=False).history
    held = replace(c, out=str(tmp_path / "device"), rendering="device")
    assert train(held, progress=False, stop_after=2).stopped
    device = train(replace(held, rendering="workers"), resume=True, progress=False).history
    assert device["valid"][-1] == pytest.approx(workers["valid"][-1], rel=1e-3)
    assert device["train"][0]["clean"] == pytest.approx(workers["train"][0]["clean"], rel=1e-4)


def test_the_order_of_channels_in_memory_changes_only_rounding(corpus, tmp_path):
    c = config(corpus, tmp_path / "first", steps=3, ema_decay=0.9)
    first = train(c, progress=False)
    last = train(replace(c, out=str(tmp_path / "last"), channels_last=True), progress=False)
    assert last.history["valid"][-1] == pytest.approx(first.history["valid"][-1], rel=1e-3)
    assert train(replace(c, steps=4, channels_last=True), resume=True, progress=False).history["valid"][-1]["step"] == 4


def test_moments_follow_their_weights_into_another_order_in_memory(corpus, tmp_path):
    c = config(corpus, tmp_path / "run", steps=2)
    train(c, progress=False)
    saved = load_checkpoint(tmp_path / "run" / CHECKPOINT, ("optimiser",))
    ranks, device = Processes.start("cpu")
    with open_session(replace(c, channels_last=True), ranks, device, saved, progress=False) as session:
        state, weights = session.state.optimiser.state, session.state.optimiser.param_groups[0]["params"]
        for weight, before in zip(weights, saved["optimiser"]["state"].values(), strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(state[weight][name], before[name])
                assert state[weight][name].stride() == weight.stride()
        assert any(w.dim() == 4 and not w.is_contiguous() for w in weights)


def test_a_run_whose_best_weights_are_gone_is_not_called_finished(corpus, tmp_path):
    c = config(corpus, tmp_path / "run", steps=2)
    (weights := train(c, progress=False).weights).unlink()
    with pytest.raises(ConfigError, match="best.safetensors is gone"):
        train(c, resume=True, progress=False)
    assert not weights.exists()


def test_a_long_recording_is_not_rendered_on_the_device(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(mixtures, "LONG", 0.1)
    with pytest.raises(ConfigError, match="at most 0.1 s, .* is longer"):
        train(config(corpus, tmp_path, rendering="device"), progress=False)
    with pytest.raises(ConfigError, match="unknown rendering 'gpu'"):
        config(corpus, tmp_path, rendering="gpu")


@pytest.mark.parametrize("repeat", [False, True])
def test_epochs_repeat_only_when_asked(corpus, tmp_path, repeat):
    c = config(corpus, tmp_path, epoch_mixtures=3, batch_size=2, steps=3, repeat_epoch=repeat)
    sampler = RankSampler(c, Processes(), 0)
    assert list(sampler) == ([0, 1, 2, 0, 1, 2] if repeat else [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("method", ["output", "at", "at_kl"])
def test_a_cached_teacher_gives_the_losses_of_a_live_one(corpus, tmp_path, method, monkeypatch):
    torch.manual_seed(5)
    weights = str(save_model(build_model("uformer_mini"), tmp_path / "teacher"))
    calls = []
    real = Uformer.forward
    monkeypatch.setattr(Uformer, "forward", lambda self, x: calls.append(len(x)) or real(self, x))
    c = config(
        corpus, tmp_path / "live", method=method, teacher=weights, reading="time_frequency", repeat_epoch=True,
        epoch_mixtures=4, steps=4, valid_every=4,
    )  # fmt: skip
    live = train(c, progress=False).history
    calls.clear()
    cached = replace(c, out=str(tmp_path / "cached"), teacher_cache=str(tmp_path / "cache"))
    history = train(cached, progress=False).history
    assert sum(calls) == 4, "each mixture passes the teacher once, though every one is used twice or more"
    for name, value in live["train"][-1].items():
        assert history["train"][-1][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    calls.clear()
    again = train(replace(cached, out=str(tmp_path / "again")), progress=False).history
    assert calls == [] and again["train"] == history["train"]
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    files[0].write_bytes(files[0].read_bytes()[:-9])
    files[1].write_bytes(b"")
    save_file({"other": torch.zeros(2)}, files[2])
    mended = train(replace(cached, out=str(tmp_path / "mended")), progress=False).history
    assert calls and mended["train"] == history["train"], "what is damaged is computed anew"
    calls.clear()
    train(replace(cached, out=str(tmp_path / "other"), seed=2, steps=1), progress=False)
    assert calls, "other mixtures must not be found under the names of these"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"repeat_epoch": False}, "needs repeat_epoch"), ({"method": "fitnets"}, "serves the methods output, at, at_kl")],
)
def test_a_teacher_is_cached_only_where_it_makes_sense(corpus, tmp_path, changes, message):
    settings = {"method": "at_kl", "teacher": "t", "repeat_epoch": True, "teacher_cache": "c", **changes}
    with pytest.raises(ConfigError, match=message):
        config(corpus, tmp_path, **settings)


def test_tensorboard_that_is_not_installed_is_one_line_and_no_run(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails
    with pytest.raises(ConfigError, match=r"pip install -e '.\[tensorboard\]'") as caught:
        train(config(corpus, tmp_path / "run", tensorboard=True), progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_scalars_go_to_tensorboard(corpus, tmp_path, monkeypatch):
    written = {}

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            written[name, step] = value

        def flush(self):
            written["flushed"] = self.folder

        def close(self):
            written["closed"] = True

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    history = train(config(corpus, tmp_path / "run", tensorboard=True), progress=False).history
    assert written.pop("flushed") == str(tmp_path / "run" / "tensorboard") and written.pop("closed")
    expected = {}
    for part in ("train", "valid"):
        for record in history[part]:
            expected |= {(f"{part}/{k}", record["step"]): v for k, v in record.items() if k != "step"}
    assert written == expected and ("valid/si_snr_db", 6) in written


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1}, {"workers": -1}, {"learning_rate": -1.0}, {"learning_rate": math.nan}, {"gradient_clip": -1.0},
        {"ema_decay": 2.0}, {"ema_decay": 1.0}, {"warmup_steps": -1}, {"decay_fraction": 1.5}, {"output_weight": 2.0},
        {"level_weight": -1.0}, {"muon_learning_rate": 0.0}, {"steps": 0},
        {"muon_lstm": "false"}, {"muon_weight_decay": -0.1}, {"muon_weight_decay": 101.0},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig("o", "s", "n", **wrong)


def test_the_cache_of_a_teacher_is_one_for_each_mixing_corpus_and_network(corpus, tmp_path):
    torch.manual_seed(0)
    weights = str(save_model(build_model("uformer_mini"), tmp_path / "t"))
    other = str(write_manifest(tmp_path / "noise.jsonl", read_manifest(corpus["noise"])[::-1]))
    c = config(corpus, tmp_path, method="at_kl", teacher=weights, repeat_epoch=True, teacher_cache=str(tmp_path / "k"))
    network = load_model(weights)

    def folder(c, network=network, tapped=True):
        return build_teacher(c, network, tapped).folder.name

    here = folder(c)
    assert folder(replace(c, out="elsewhere", steps=9, device="cuda")) == here
    changed = [{"mix": replace(c.mix, snr_db=(0.0, 5.0))}, {"noise": other}, {"seed": 2}, {"amp": True}]
    others = [folder(replace(c, **change)) for change in changed]
    others += [folder(c, build_model("uformer_mini")), folder(c, tapped=False)]
    assert len({here, *others}) == 7


def test_a_run_without_a_finite_score_is_said_to_have_kept_no_weights(corpus, tmp_path, capsys):
    c = config(corpus, tmp_path / "run", learning_rate=1e20, warmup_steps=0, steps=2, valid_every=1, device="cpu")
    assert not train(c, progress=False).weights.exists()
    assert cli.main(["train", "--config", str(tmp_path / "run" / "config.json"), "--resume", "--quiet"]) == 1
    assert "no validation gave a finite score" in capsys.readouterr().err


def test_a_run_learns_from_the_mixtures_of_its_seed(corpus, tmp_path):
    c = config(corpus, tmp_path / "run", seed=3)
    with open_session(c, *Processes.start("cpu"), progress=False) as opened:
        batch = next(opened.batches)
    own = MixtureDataset(c.speech, c.noise, c.rir, c.mix, 3, c.epoch_mixtures, "train")
    assert torch.equal(batch.noisy, torch.stack([own[i]["noisy"] for i in range(c.batch_size)]))


def test_micro_batches_add_up_to_the_mean_of_their_gradients():
    clean = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    batch, found = Batch(clean + 0.3 * clean.roll(7, 1), clean), {}
    for count in (1, 2):
        torch.manual_seed(0)
        model = build_model("distil_dccrn_mini").train()
        c = TrainConfig("o", "s", "n", model="distil_dccrn_mini", batch_size=2 * count, accumulation=count)
        _, terms = Objective(c, model, torch.device("cpu")).backward(model, [batch] * count)
        found[count] = terms, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found[2][0], found[1][0])
    torch.testing.assert_close(found[2][1], found[1][1], rtol=1e-4, atol=1e-5 * found[1][1].abs().max().item())
