"""The benchmarks compare equals, run through, and write a record that the tables can read."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dccrn_lib.cli.main import main
from dccrn_lib.experiments import speed
from dccrn_lib.results import tables
from dccrn_lib.runtime.errors import ConfigError


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> tuple[dict, dict]:
    """A quick run: what it returned and what it wrote."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    threads = torch.get_num_threads()
    returned = speed.run_benchmarks(json_path=path, quick=True)
    assert torch.get_num_threads() == threads
    return returned, json.loads(path.read_text(encoding="utf-8"))


def test_times_in_turns():
    first, second, ratio = speed.time_in_turns(lambda: time.sleep(0.002), lambda: time.sleep(0.02), 3)
    assert 0.002 <= first < second and ratio > 2


def test_the_floor_is_measured_in_every_round(monkeypatch):
    """A clock that slows down slows the product of the same round, and the ratio stays."""
    monkeypatch.setattr(speed, "usable_cores", lambda: 2)
    monkeypatch.setattr(speed, "arithmetic_kinds", lambda: {"fp32": torch.float32})
    calls: list[str] = []

    def rounds(named: dict, repeats: int) -> dict[str, list[float]]:
        calls.extend(named)
        return {name: [0.5, 5.0] if name == "fp32" else [1.0, 10.0] for name in named}

    monkeypatch.setattr(speed, "seconds_in_turns", rounds)
    one, two = speed.bench_offline("distil_dccrn_mini", quick=True)
    assert calls == ["fp32", one["measurement"], two["measurement"]]  # the product first, in the same rounds
    macs = speed.arithmetic_floor(speed.build_model("distil_dccrn_mini"), 1, 1.0)
    assert one["ratio"] == pytest.approx(2 * speed.PRODUCTS * 128**3 / macs)
    assert two["ratio"] == pytest.approx(2 * one["ratio"])  # half the floor on two threads
    assert one["reference"] == pytest.approx(2.75 / (speed.PRODUCTS * 128**3) * macs)


def test_quick_run_measures_everything(record):
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    pytest.importorskip("resource", reason="no resource module on this system")
    returned, _ = record
    assert returned["skipped"] == []
    text = "\n".join(row["measurement"] for row in returned["rows"])
    for words in (
        "complex convolution",
        "complex LSTM",
        "PyTorch, 1 thread, p50",
        "PyTorch, 1 thread, p99",
        "ONNX, 1 thread, p50",
        "ONNX, 1 thread, p99",
        "limit: fp32 matrix product",
        "limit: copy in memory",
        "enhance distil_dccrn_mini, fp32, 1 thread",
        "four calls a layer / ours in fp32",
        "peak memory",
        "training distil_dccrn, AT-KL (miniature), float32",
        "data: mixtures planned and rendered one by one",
    ):
        assert words in text
    for row in returned["rows"]:
        assert row["value"] > 0
        if not row["measurement"].startswith("limit"):
            assert row["reference"] > 0 and row["ratio"] > 0
        if "streaming" in row["measurement"]:
            assert row["reference"] == 6.25 and row["unit"] == "ms"


def test_memory_does_not_grow_with_the_file(record):
    pytest.importorskip("resource", reason="no resource module on this system")
    rows = [row for row in record[0]["rows"] if "peak memory" in row["measurement"] and row["reference"]]
    assert rows
    for row in rows:
        assert abs(row["value"] - row["reference"]) < 100  # MiB


def test_memory_is_measured_whatever_lies_in_the_folder_one_is_in(tmp_path, monkeypatch):
    pytest.importorskip("resource", reason="no resource module on this system")
    (tmp_path / "torch.py").write_text("raise SystemExit('a module of the folder one is in')")
    monkeypatch.chdir(tmp_path)
    assert len(speed.bench_memory("distil_dccrn_mini", quick=True)) == 3


def test_peak_memory_is_the_process_own():
    pytest.importorskip("resource", reason="no resource module on this system")
    before = speed.peak_memory()
    ballast = b"x" * (800 << 20)  # makes this process larger than its child can be
    assert speed.peak_memory() > max(before, len(ballast) / 2**20)
    code = "from dccrn_lib.experiments.speed import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 < float(done.stdout) < 800


def test_record_makes_a_table(record):
    returned, written = record
    assert written["rows"] == returned["rows"]
    assert written["config"]["quick"] is True and "environment" in written and "load_average" in written
    assert "| measurement | value | unit | spread | reference | ratio | real_time_factor |" in tables.table(written)


def test_what_cannot_be_measured_is_named_with_its_reason(monkeypatch):
    def refuse(*_args):
        raise ConfigError("no such thing here")

    for name in ("machine", "layers", "streaming", "offline", "textbook", "training", "data"):
        monkeypatch.setattr(speed, f"bench_{name}", lambda *_args: [])
    monkeypatch.setattr(speed, "bench_memory", refuse)
    record = speed.run_benchmarks(quick=True)
    assert record["skipped"] == [{"measurement": "memory distil_dccrn_mini", "reason": "no such thing here"}]


def test_result_file_must_be_json(tmp_path):
    with pytest.raises(ConfigError, match="must end in .json"):
        speed.run_benchmarks(json_path=tmp_path / "speed.txt", quick=True)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is under test is measured."""
    for name in ("machine", "layers", "streaming", "offline", "textbook", "training", "data", "memory"):
        monkeypatch.setattr(speed, f"bench_{name}", lambda *_args: [speed._timed("minutes of work", [1.0], 1.0, 1.0)])


def test_a_child_that_is_killed_for_memory_costs_its_own_rows(monkeypatch):
    pytest.importorskip("resource", reason="no resource module on this system")
    monkeypatch.setattr(speed, "_CHILD", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ConfigError, match="enhancing 1 s failed: exit code -9; a lack of memory"):
        speed.bench_memory("distil_dccrn_mini", quick=True)


def test_a_graph_that_does_not_run_costs_no_other_row(alone, tmp_path: Path):
    onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [make.make_node("Reshape", ["x", "shape"], ["y"])],
        "windows",
        [make.make_tensor_value_info("x", floats, [1, "samples"])],
        [make.make_tensor_value_info("y", floats, None)],
        [make.make_tensor("shape", onnx.TensorProto.INT64, [2], [-1, 256])],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "windows.onnx")
    record = speed.run_benchmarks(quick=True, onnx=[f"theirs={tmp_path}/windows.onnx@16"])
    assert any(row["measurement"] == "minutes of work" for row in record["rows"])
    (reason,) = [item["reason"] for item in record["skipped"] if item["measurement"] == "theirs"]
    assert "does not run with the shapes it declares" in reason and "\n" not in reason


def test_a_file_that_is_missing_is_named_before_the_minutes(alone, tmp_path: Path):
    with pytest.raises(ConfigError, match="none.onnx: no such file"):
        speed.run_benchmarks(quick=True, onnx=[f"a={tmp_path}/none.onnx@16"])


def test_the_table_is_printed_though_the_disk_is_full(alone, monkeypatch, tmp_path: Path, capsys):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device", "x.json")

    monkeypatch.setattr("dccrn_lib.results.records.save_result", full)
    monkeypatch.setattr(speed, "save_result", full)
    assert main(["bench", "--smoke", "--quiet", "--json", str(tmp_path / "x.json")]) == 1
    shown = capsys.readouterr()
    assert "| minutes of work | 1 | s |" in shown.out and "No space left" in shown.err
