"""Several processes compute what one would: losses, weights, BatchNorm statistics, adapters; started by torchrun."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from dccrn_lib.corpus.mixing import MixConfig
from dccrn_lib.networks.complex_layers import ComplexBatchNorm2d
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.sync_batch_norm import SyncBatchNorm2d, SyncComplexBatchNorm2d, synchronise_batch_norm
from dccrn_lib.networks.uformer.streams import SharedBatchNorm2d
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.distributed import Processes, mean_over_processes
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.interrupts import StopSignal
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
#: Largest difference between runs of one and of two processes, relative; of weights to the largest of each tensor.
TOLERANCE = 1e-5
#: Adam divides gradients by their own size: the bias of a convolution before BatchNorm has the gradient 0, which rounding
#: makes 1e-9, and Adam a full step. With this in the divisor (1e-8 is usual) rounding stays what it is.
CALM = 1e-2

_LAYERS = """
import sys, torch
from dccrn_lib.runtime.distributed import Processes, mean_over_processes
from dccrn_lib.networks.sync_batch_norm import synchronise_batch_norm
torch.set_num_threads(1)
processes, _ = Processes.start("cpu")
case = torch.load(sys.argv[1], weights_only=False)
w = case["w"].chunk(processes.world)[processes.rank]
found = {"means": processes.means({"a": float(processes.rank), "b": 2.0}, torch.device("cpu"))}
for name, layer in case["layers"].items():
    x = case["x"].chunk(processes.world)[processes.rank].requires_grad_()
    assert synchronise_batch_norm(layer.train()) == 1
    y = layer(x)
    (w * y).sum().backward()
    processes.average_gradients(layer.parameters())
    found[name] = {"y": y.detach(), "x.grad": x.grad, "buffers": dict(layer.named_buffers()),
                   "grads": {n: p.grad * processes.world for n, p in layer.named_parameters()}}
torch.save(found, f"{sys.argv[1]}.{processes.rank}")
"""

_TRAIN = """
import functools, json, sys, torch
torch.set_num_threads(1)
from dccrn_lib.corpus.mixing import MixConfig
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.loop import train
adam = torch.optim.Adam
for record in json.load(open(sys.argv[1])):
    torch.optim.Adam = functools.partial(adam, eps=record.pop("eps"))
    resume, stop_after = record.pop("resume", False), record.pop("stop_after", None)
    mix = MixConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.pop("mix").items()})
    train(TrainConfig(**record, mix=mix), resume=resume, progress=False, stop_after=stop_after)
"""


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess:
    """Start ``arguments`` in several processes of this machine, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, cwd=ROOT)


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def norms() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    layers = {"plain": nn.BatchNorm2d(6), "shared": SharedBatchNorm2d(3), "complex": ComplexBatchNorm2d(6)}
    for layer in layers.values():
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return layers


def test_batch_norm_of_two_processes_is_that_of_one(tmp_path):
    layers = norms()
    x, w = 3 + 2 * torch.randn(4, 6, 5, 7), torch.randn(4, 6, 5, 7)
    torch.save({"layers": layers, "x": x, "w": w}, tmp_path / "case")
    done = torchrun(script(tmp_path, _LAYERS), str(tmp_path / "case"))
    assert done.returncode == 0, done.stderr
    parts = [torch.load(tmp_path / f"case.{rank}") for rank in range(2)]
    assert all(part["means"] == {"a": 0.5, "b": 2.0} for part in parts)
    for name, layer in layers.items():
        x = x.detach().requires_grad_()
        y = layer.train()(x)
        (w * y).sum().backward()
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(torch.cat([p[name]["y"] for p in parts]), y.detach(), **close)
        torch.testing.assert_close(torch.cat([p[name]["x.grad"] for p in parts]), x.grad, **close)
        for part in parts:
            for key, value in layer.named_buffers():
                torch.testing.assert_close(part[name]["buffers"][key], value, **close)
            for key, value in layer.named_parameters():
                torch.testing.assert_close(part[name]["grads"][key], value.grad, rtol=1e-5, atol=1e-4)


def test_one_process_keeps_the_plain_layers_bits():
    for layer in norms().values():
        x = torch.randn(2, 6, 3, 4)
        expected = layer.train()(x)
        assert synchronise_batch_norm(layer) == 1
        assert synchronise_batch_norm(layer) == 0
        assert torch.equal(layer(x), expected)
        assert mean_over_processes(x) is x


def test_all_norms_of_both_networks_are_found():
    for name in ("distil_dccrn_mini", "uformer_mini"):
        model = build_model(name)
        keys = list(model.state_dict())
        count = sum(isinstance(m, nn.BatchNorm2d | ComplexBatchNorm2d) for m in model.modules())
        assert synchronise_batch_norm(model) == count > 0
        kinds = (SyncBatchNorm2d, SyncComplexBatchNorm2d)
        assert sum(isinstance(m, kinds) for m in model.modules()) == count
        assert list(model.state_dict()) == keys


def test_a_stop_signal_and_its_echo_stop_softly_and_a_later_one_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("dccrn_lib.runtime.interrupts.time.monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.asked
        for later in (0.0, 1.0):
            now[0] += later
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked
        now[0] += 5.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


# ---- runs


CASES = {
    "none": {"eps": CALM, "accumulation": 2, "ema_decay": 0.9, "spectral_weight": 10.0},
    "at_kl": {"eps": CALM, "method": "at_kl", "reading": "time_frequency"},
    "fitnets": {"eps": CALM, "method": "fitnets"},
    "usual": {"eps": 1e-8},
    "apart": {"eps": CALM, "sync_batch_norm": False},
}


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    """Folders of the same runs by one process and by two: {case: (one, two)}."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(5)
    teacher = str(save_model(build_model("uformer_mini"), folder / "teacher"))
    before, records, pairs, adam = torch.get_num_threads(), [], {}, torch.optim.Adam
    torch.set_num_threads(1)
    for name, case in CASES.items():
        eps, changes = case["eps"], {k: v for k, v in case.items() if k != "eps"}
        settings = {
            **corpus,
            "model": "distil_dccrn_mini",
            "steps": 4,
            "batch_size": 4,
            "warmup_steps": 2,
            "learning_rate": 1e-3,
            "valid_every": 2,
            "valid_mixtures": 3,
            "epoch_mixtures": 7,
            "seed": 1,
            "mix": MixConfig(segment_seconds=0.5),
            **changes,
        }
        settings["teacher"] = teacher if "method" in changes else ""
        pairs[name] = (folder / f"{name}_1", folder / f"{name}_2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim, "Adam", functools.partial(adam, eps=eps))
            train(TrainConfig(out=str(pairs[name][0]), **settings), progress=False)
        records.append({"eps": eps, **asdict(TrainConfig(out=str(pairs[name][1]), **settings))})
    torch.set_num_threads(before)
    resumed = {**records[1], "out": str(folder / "at_kl_resumed")}
    records += [{**resumed, "stop_after": 1}, {**resumed, "resume": True}]
    pairs["resumed"] = (pairs["at_kl"][1], folder / "at_kl_resumed")
    (folder / "runs.json").write_text(json.dumps(records))
    done = torchrun(script(folder, _TRAIN), str(folder / "runs.json"))
    assert done.returncode == 0, done.stderr
    return pairs


def worst_difference(one: Path, two: Path) -> float:
    """Largest difference of weights and statistics, relative to the largest value of each tensor, or to 0.1 where a
    tensor began at 0 and is still small."""
    states = [torch.load(x / "checkpoint.pt", weights_only=True) for x in (one, two)]
    worst = 0.0
    for part in ("model", "average", "loss"):
        assert list(states[0][part]) == list(states[1][part])
        for name, value in states[0][part].items():
            difference = (states[1][part][name].double() - value.double()).abs().max()
            worst = max(worst, float(difference / value.double().abs().max().clamp_min(0.1)))
    return worst


def histories(one: Path, two: Path) -> list[dict]:
    return [json.loads((x / "history.json").read_text()) for x in (one, two)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["none", "at_kl", "fitnets"])
def test_two_processes_compute_what_one_does(runs, case):
    first, second = histories(*runs[case])
    for part in ("train", "valid"):
        for a, b in zip(first[part], second[part], strict=True):
            assert b == pytest.approx(a, rel=TOLERANCE, abs=TOLERANCE)
    assert second["balance"] == pytest.approx(first["balance"], rel=1e-9)
    assert worst_difference(*runs[case]) < TOLERANCE


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_adam_as_it_is(runs):
    first, second = histories(*runs["usual"])
    for a, b in zip(first["train"], second["train"], strict=True):
        assert b == pytest.approx(a, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.slow
def test_statistics_of_each_process_alone_give_another_run(runs):
    first, second = histories(*runs["apart"])
    assert abs(first["train"][-1]["clean"] - second["train"][-1]["clean"]) > 1e-3
    assert worst_difference(*runs["apart"]) > 100 * TOLERANCE


@pytest.mark.slow
def test_two_processes_resume_exactly(runs):
    first, second = histories(*runs["resumed"])
    assert first["train"] == second["train"] and first["valid"] == second["valid"]
    assert worst_difference(*runs["resumed"]) == 0.0


@pytest.mark.slow
def test_the_command_line_trains_under_torchrun(corpus, tmp_path):
    arguments = [
        "-m",
        "dccrn_lib",
        "train",
        "--profile",
        "smoke",
        "--speech",
        corpus["speech"],
        "--noise",
        corpus["noise"],
    ]
    arguments += ["--out", str(tmp_path / "run"), "--steps", "2", "--set", "mix.segment_seconds=0.5"]
    done = torchrun(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best.safetensors, SI-SNR") == 1, "one process speaks"
    assert (tmp_path / "run" / "best.safetensors").is_file()
    assert json.loads((tmp_path / "run" / "history.json").read_text())["valid"][-1]["step"] == 2


def test_a_batch_must_divide_among_ranks(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "start", classmethod(lambda cls, _: (cls(0, 3, 0), torch.device("cpu"))))
    with pytest.raises(ConfigError, match="batch_size 4 must be a multiple of 3 ranks"):
        train(TrainConfig(out=str(tmp_path / "run"), **corpus, batch_size=4), progress=False)
