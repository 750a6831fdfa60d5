"""What a training step costs: the arithmetic counted, parts and whole of the same step, the batch that fills a device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.experiments import training_speed
from dccrn_lib.experiments.recipe import recipe
from dccrn_lib.experiments.step_operations import REST, kind_of
from dccrn_lib.networks.cost import count_macs
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return recipe({"speech": "", "noise": "", "rir": ""}, tmp_path_factory.mktemp("speed"), "smoke", device="cpu")


def test_a_taught_step_is_compared_with_its_parts(shared):
    teacher = str(save_model(build_model("uformer_mini"), Path(shared.out) / "teacher"))
    student = replace(shared, model="distil_dccrn_mini")
    alone = training_speed.time_training(student, 1, CPU, False)
    taught = training_speed.time_training(replace(student, method="at_kl", teacher=teacher), 1, CPU, False)
    assert alone["over_parts"] is None and 0.2 < taught["over_parts"] < 5
    assert taught["peak_memory_gib"] > alone["peak_memory_gib"] > 0
    macs = [count_macs(build_model(m)) for m in ("distil_dccrn_mini", "uformer_mini")]
    rate = training_speed.product_rate(CPU, False)
    seconds = shared.mix.segment_seconds
    assert alone["floor_ms"] == pytest.approx(6e3 * macs[0] * seconds / rate)
    assert taught["floor_ms"] == pytest.approx((6e3 * macs[0] + 2e3 * macs[1]) * seconds / rate)
    assert alone["over_floor"] == pytest.approx(alone["ms"] / alone["floor_ms"])


def test_operations_of_a_step_are_sorted_by_kind(tmp_path, capsys):
    assert kind_of("aten::convolution_backward") == "convolutions"
    assert kind_of("aten::native_layer_norm_backward") == "BatchNorm and LayerNorm"
    assert kind_of("aten::mm") == "linear layers" and kind_of("aten::mul") == REST
    file = tmp_path / "operations.json"
    size = ["--model", "uformer_mini", "--batch-size", "1", "--seconds", "0.3"]
    assert cli.main(["bench", "operations", *size, "--json", str(file)]) == 0
    rows = {row["operation"]: row for row in json.loads(file.read_text())["rows"]}
    assert {"convolutions", "attention", REST, "sum"} <= rows.keys()
    total = rows.pop("sum")
    for key in ("fp32 ms", "bf16 ms", "share of bf16"):
        assert sum(row[key] for row in rows.values()) == pytest.approx(total[key])


@pytest.mark.slow
def test_alternatives_are_timed_in_pairs(tmp_path):
    pytest.importorskip("espeakng_loader", reason="the extra speech is not installed")
    file = tmp_path / "pairs.json"
    assert cli.main(["bench", "alternatives", "--smoke", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert len({row["measurement"] for row in rows}) == len(rows) == 14
    assert all(
        row["first ms"] > 0 and row["ratio"] == pytest.approx(row["first ms"] / row["second ms"]) for row in rows
    )


def test_the_smallest_batch_near_the_best_rate_fills_the_device():
    alike = {"system": "a", "precision": "float32", "cuda_graph": False}
    rows = [{**alike, "batch": b, "audio_seconds_per_second": r} for b, r in ((1, 5.0), (2, 9.6), (4, 10.0), (8, 9.0))]
    other = {**alike, "precision": "bfloat16", "batch": 1, "audio_seconds_per_second": 20.0}
    assert training_speed._filling(rows[0], [*rows, other]) is rows[1]
    assert training_speed._filling(other, [*rows, other]) is other


def test_the_command_prints_and_keeps_every_figure(tmp_path, capsys):
    file = tmp_path / "speed.json"
    arguments = ["bench", "train", "--smoke", "--device", "cpu", "--batches", "1", "--precisions", "fp32"]
    assert cli.main([*arguments, "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert [row["system"] for row in record["rows"]] == [
        "distil_dccrn alone", "distil_dccrn, output", "distil_dccrn, AT-KL", "dccrn_e", "uformer"
    ]  # fmt: skip
    assert all(row["fills"] == "yes" and row["audio_seconds_per_second"] > 0 for row in record["rows"])
    table = capsys.readouterr().out
    assert all(f"| {row['system']} | float32 | 1 |" in table for row in record["rows"])
    assert cli.main([*arguments[:-1], "fp8"]) == 2
    assert "fp32" in capsys.readouterr().err
