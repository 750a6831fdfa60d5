"""The bench of a hop measures the step's own products, runs through, and its record makes a table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from dccrn_lib.audio.files import write_audio
from dccrn_lib.enhancement.frame_step import FrameStep
from dccrn_lib.enhancement.optimised import core_of
from dccrn_lib.experiments import precision_loss, streaming_speed
from dccrn_lib.networks.cost import count_macs
from dccrn_lib.networks.presets import build_model
from dccrn_lib.results import tables
from dccrn_lib.runtime.errors import ConfigError, MetricError
from dccrn_lib.runtime.paths import project_root

ort = pytest.importorskip("onnxruntime", reason="the extra export is not installed")


@pytest.mark.parametrize("name", ["distil_dccrn", "dccrn_e"])
def test_the_products_of_the_floor_are_those_of_the_network(name):
    """Multiply-adds of a frame, less the zeros: a decoder layer has ten of twelve taps."""
    model = build_model(name).eval()
    step = FrameStep(core_of(model))
    count = {weight.data_ptr(): rows * weight.numel() for rows, weight in streaming_speed.hop_matrices(step)}
    decoder = sum(count[layer.weight.data_ptr()] for layer in step.decoder)
    assert sum(count.values()) - decoder / 6 == pytest.approx(count_macs(model, 100 / 16000), rel=1e-6)


def test_a_quick_run_measures_every_way_of_streaming(tmp_path):
    path, threads = tmp_path / "speed.json", torch.get_num_threads()
    record = streaming_speed.measure_streaming(path, quick=True)
    assert torch.get_num_threads() == threads
    assert json.loads(path.read_text(encoding="utf-8"))["rows"] == record["rows"]
    text = tables.table(record)
    for kind in ("PyTorch", "PyTorch, level control", "ONNX", "ONNX, level control", "ONNX int8"):
        for percent in (50, 99):
            assert f"streaming distil_dccrn_mini, {kind}, 1 thread, p{percent} per hop" in text
    for row in record["rows"]:
        assert row["value"] > 0 and row["ratio"] == pytest.approx(row["value"] / row["reference"])
    floors = [row for row in record["rows"] if row["measurement"].startswith("floor")]
    assert len(floors) == 3 and all(row["reference"] == 6.25 for row in floors)


def test_precisions_are_scored_on_the_same_clips(tmp_path):
    demo = project_root() / "data" / "demo"
    for kind in ("clean", "noisy"):
        (tmp_path / kind).mkdir()
        samples, rate = soundfile.read(demo / kind / "fan_5db_en.ogg", dtype="float32")
        soundfile.write(tmp_path / kind / "a.ogg", samples[: 2 * rate], rate)
    record = precision_loss.measure_precision(tmp_path / "loss.json", clips=tmp_path)
    rows = {row["form"]: row for row in record["rows"]}
    assert list(rows)[0] == precision_loss.EXACT and rows[precision_loss.EXACT]["n"] == 1
    assert np.isfinite(rows[precision_loss.EXACT]["si_snr_db"])
    near = {form: row["SI-SNR to the first, dB"] for form, row in rows.items() if form != precision_loss.EXACT}
    exported = [near[f"exported, {precision} weights"] for precision in ("float32", "float16", "int8")]
    assert exported[0] > 80 and exported == sorted(exported, reverse=True) and exported[2] > 10
    assert rows["exported, int8 weights"]["stoi"][0] in "+-"  # a change, not a score


@pytest.mark.parametrize("measure", [streaming_speed.measure_streaming, precision_loss.measure_precision])
def test_result_files_must_be_json(measure, tmp_path):
    with pytest.raises(ConfigError, match="must end in .json"):
        measure(tmp_path / "result.txt")


def test_no_clips_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no clips"):
        precision_loss.measure_precision(clips=tmp_path)


def test_clips_are_paired_as_evaluate_pairs_them(tmp_path):
    sounds = {"a.ogg": 0.1, "deep/b.flac": 0.2}
    for name, level in sounds.items():
        write_audio(tmp_path / "clean" / name, np.full(1600, level), 16000)
        write_audio((tmp_path / "noisy" / name).with_suffix(".wav"), np.full(1600, level), 16000)
    clips = precision_loss._clips(tmp_path)
    assert list(clips) == ["a", "deep/b"]
    assert np.allclose(clips["deep/b"][0], 0.2, atol=1e-3) and clips["a"][1].shape == (1600,)
    write_audio(tmp_path / "noisy" / "alone.wav", np.zeros(1600), 16000)
    with pytest.raises(MetricError, match="alone.wav"):
        precision_loss._clips(tmp_path)
