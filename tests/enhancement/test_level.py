"""A recording is enhanced alike at any level: whole, streamed, and by the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dccrn_lib.enhancement import StreamingEnhancer, enhance_waveform
from dccrn_lib.enhancement.level import LevelControl, LevelMeter, OffsetControl
from dccrn_lib.losses import si_snr_db
from dccrn_lib.networks.weights import load_model
from dccrn_lib.runtime.paths import data_dir

LEVELS = (-23.0, -40.0, -50.0, -60.0)  # dBFS of the active frames
CLIPS = ("babble_5db_en", "clatter_0db_de", "engine_0db_fr", "fan_5db_en")
fixed_clips = pytest.mark.parametrize("name", CLIPS)


def clip(kind: str, name: str = "fan_5db_en") -> np.ndarray:
    samples, _ = soundfile.read(data_dir() / "demo" / kind / f"{name}.ogg", dtype="float32")
    return samples


@pytest.fixture(scope="module")
def student() -> torch.nn.Module:
    return load_model("distil_dccrn")


@pytest.fixture(scope="module")
def exported(student: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from dccrn_lib.enhancement.onnx_export import export_onnx

    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_onnx(student, path)
    return path


def at(level: float, name: str = "fan_5db_en") -> np.ndarray:
    """The noisy clip with its active frames at this level."""
    noisy = clip("noisy", name)
    meter = LevelMeter(1, 16000)
    meter.add(noisy[None])
    return noisy / meter.scale().item() * np.float32(10 ** ((level + 23) / 20))


def streamed(student: torch.nn.Module, x: np.ndarray, level_control: bool = True) -> np.ndarray:
    stream = StreamingEnhancer(student, level_control=level_control)
    return np.concatenate([*(stream.push(piece) for piece in np.array_split(x, 7)), stream.flush()])[
        stream.latency_samples :
    ]


def quality(estimate: np.ndarray, name: str = "fan_5db_en") -> float:
    return float(si_snr_db(torch.from_numpy(estimate), torch.from_numpy(clip("clean", name))))


def spread(qualities: list[float]) -> float:
    print([round(q, 2) for q in qualities])
    return max(abs(q - qualities[0]) for q in qualities)


@fixed_clips
def test_whole(student: torch.nn.Module, name: str):
    levels = (*LEVELS, -70.0, 0.0)
    assert spread([quality(enhance_waveform(student, at(level, name)), name) for level in levels]) < 0.05


@fixed_clips
def test_streamed(student: torch.nn.Module, name: str):
    levels = (*LEVELS, -30.0, -70.0)
    assert spread([quality(streamed(student, at(level, name)), name) for level in levels]) < 0.5


@pytest.mark.parametrize("name", ["babble_5db_en", "clatter_0db_de"])  # the two with the loudest single frames
def test_live_and_far_beyond_full_scale_costs_more(student: torch.nn.Module, name: str):
    """Only what passes the upper edge is lowered, so such a signal is heard louder than one at -23 dBFS."""
    assert spread([quality(streamed(student, at(level, name)), name) for level in (-23.0, 0.0)]) < 1.5


@fixed_clips
@pytest.mark.parametrize("level", [-23.0, -50.0])
def test_live_enhancement_costs_little_beside_the_whole_signal(student: torch.nn.Module, name: str, level: float):
    whole, live = enhance_waveform(student, at(level, name)), streamed(student, at(level, name))
    assert abs(quality(whole, name) - quality(live, name)) < 0.5


@fixed_clips
def test_exported(exported: Path, name: str):
    from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer

    enhancer = OnnxEnhancer(exported, level_control=True)
    assert spread([quality(enhancer.enhance(at(level, name)), name) for level in LEVELS]) < 0.5


@fixed_clips
def test_files_through_the_exported_graph(exported: Path, tmp_path: Path, name: str):
    from dccrn_lib.enhancement.onnx_runtime import enhance_wav

    qualities = []
    for level in LEVELS:
        soundfile.write(tmp_path / "in.wav", at(level, name), 16000, subtype="FLOAT")
        enhance_wav(exported, tmp_path / "in.wav", tmp_path / "out.wav", overwrite=True)
        qualities.append(quality(soundfile.read(tmp_path / "out.wav", dtype="float32")[0], name))
    assert spread(qualities) < 0.05


# ---- a constant offset


@fixed_clips
@pytest.mark.parametrize(("level", "offset"), [(-23.0, 0.1), (-50.0, -0.3)])
def test_an_offset_costs_nothing(student: torch.nn.Module, name: str, level: float, offset: float):
    x = at(level, name)
    enhanced = [enhance_waveform(student, y) for y in (x, x + np.float32(offset))]
    assert spread([quality(y, name) for y in enhanced]) < 0.05
    assert abs(enhanced[1].mean()) < 1e-3 * abs(offset)


@fixed_clips
def test_an_offset_costs_little_live(student: torch.nn.Module, exported: Path, name: str):
    from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer

    onnx = OnnxEnhancer(exported, level_control=True)
    for enhance in (lambda x: streamed(student, x), onnx.enhance):
        x = at(-23.0, name)
        assert spread([quality(enhance(x + np.float32(offset)), name) for offset in (0.0, 0.03, 0.1)]) < 0.5


def test_no_offset_is_found_where_there_is_none():
    control = OffsetControl(1, 0.00625)
    speech = clip("noisy")
    means = speech[: speech.size // 100 * 100].reshape(1, -1, 100).mean(axis=2)
    assert np.abs(control.follow(means)).max() < 1e-3
    assert 0.04 < control.follow(means + 0.1)[0, -1] < 0.1  # a jump, four seconds ago: it has a memory of five
    assert np.abs(OffsetControl(1, 0.00625).follow(means + 0.1)[0, 80:] - 0.1).max() < 1e-3  # after half a second


def test_the_exported_graph_follows_the_level_as_streaming_does(student: torch.nn.Module, exported: Path):
    from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer

    x = np.concatenate([at(-60.0)[:16000], at(-23.0)[16000:32000]])
    difference = OnnxEnhancer(exported, level_control=True).enhance(x) - streamed(student, x)
    assert np.abs(difference).max() < 1e-4


@pytest.mark.parametrize("name", CLIPS)
def test_at_usual_levels_little_changes(student: torch.nn.Module, name: str):
    with_control, without = (quality(streamed(student, at(-23.0, name), control), name) for control in (True, False))
    assert abs(with_control - without) < 0.3


def test_a_word_after_a_quiet_start_is_not_overloaded():
    control = LevelControl(1, 0.00625)
    quiet = control.gains(np.full((1, 800), 1e-8))  # five seconds at -80 dBFS
    loud = control.gains(np.full((1, 1), 0.05))
    assert quiet.max() > 100 and loud.item() == 1.0


def test_silence_and_streams_of_their_own():
    gains = LevelControl(2, 0.01).gains(np.array([[0.0, 0.0], [0.05, 0.05]]))
    assert np.isfinite(gains).all() and gains[0].max() <= 10 ** (LevelControl.MOST / 20) * 1.001
    assert gains[1].tolist() == [1.0, 1.0]


def test_what_is_too_loud_is_lowered():
    assert LevelControl(1, 0.01).gains(np.array([[100.0]])).item() == pytest.approx(np.sqrt(10**-1.0 / 100), rel=1e-6)
