"""A recording is enhanced alike at any level: whole, streamed, and by the exported graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
loudest_clips = pytest.mark.parametrize("name", ["babble_5db_en", "clatter_0db_de"])  # with the loudest single frames


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


@pytest.fixture(scope="module")
def live(student: torch.nn.Module) -> Callable[[float, str], float]:
    """(level, clip) -> SI-SNR in dB of the clip streamed at this level; computed once."""
    return functools.cache(lambda level, name: quality(streamed(student, at(level, name)), name))


def quality(estimate: np.ndarray, name: str = "fan_5db_en") -> float:
    return float(si_snr_db(torch.from_numpy(estimate), torch.from_numpy(clip("clean", name))))


def spread(qualities: list[float], name: str) -> float:
    """How far qualities lie from the first, in dB; each must lie above that of the noisy clip."""
    print([round(q, 2) for q in qualities])
    assert min(qualities) > quality(clip("noisy", name), name) + 2
    return max(abs(q - qualities[0]) for q in qualities)


@fixed_clips
def test_whole(student: torch.nn.Module, name: str):
    levels = (*LEVELS, -70.0, 0.0)
    assert spread([quality(enhance_waveform(student, at(level, name)), name) for level in levels], name) < 0.05


def test_what_comes_out_is_as_loud_as_what_went_in(student: torch.nn.Module):
    loudness = [20 * np.log10(np.sqrt(np.mean(enhance_waveform(student, at(level)) ** 2))) - level for level in LEVELS]
    assert max(loudness) - min(loudness) < 0.1 and abs(loudness[0] - 20 * np.log10(np.sqrt(np.mean(at(0.0) ** 2)))) < 3


@fixed_clips
def test_streamed(live: Callable[[float, str], float], name: str):
    assert spread([live(level, name) for level in (*LEVELS, -30.0, -70.0)], name) < 0.5


@loudest_clips
def test_live_and_far_beyond_full_scale_costs_more(live: Callable[[float, str], float], name: str):
    """Only what passes the upper edge is lowered, so such a signal is heard louder than one at -23 dBFS."""
    assert spread([live(level, name) for level in (-23.0, 0.0)], name) < 1.5


@fixed_clips
@pytest.mark.parametrize("level", [-23.0, -50.0])
def test_live_enhancement_costs_little_beside_the_whole_signal(
    student: torch.nn.Module, live: Callable[[float, str], float], name: str, level: float
):
    assert abs(quality(enhance_waveform(student, at(level, name)), name) - live(level, name)) < 0.5


@loudest_clips
def test_exported(exported: Path, name: str):
    from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer

    enhancer = OnnxEnhancer(exported, level_control=True)
    assert spread([quality(enhancer.enhance(at(level, name)), name) for level in LEVELS], name) < 0.5


@loudest_clips
def test_files_through_the_exported_graph(exported: Path, tmp_path: Path, name: str):
    from dccrn_lib.enhancement.onnx_runtime import enhance_wav

    qualities = []
    for level in LEVELS:
        soundfile.write(tmp_path / "in.wav", at(level, name), 16000, subtype="FLOAT")
        enhance_wav(exported, tmp_path / "in.wav", tmp_path / "out.wav", overwrite=True)
        qualities.append(quality(soundfile.read(tmp_path / "out.wav", dtype="float32")[0], name))
    assert spread(qualities, name) < 0.05


# ---- a quiet talker beside a loud one


def dialogue(lower: float) -> tuple[np.ndarray, slice]:
    """(a talker, one lower by this many dB, the first again, a second of pause between them; where the second is)."""
    near, far = clip("clean", "fan_5db_en"), clip("clean", "engine_0db_fr") * np.float32(10 ** (-lower / 20))
    pause = np.zeros(16000, np.float32)
    noise = 1e-3 * 10 ** (-lower / 20) * np.random.default_rng(0).standard_normal(2 * near.size + far.size + 32000)
    talk = np.concatenate([near, pause, far, pause, near]) + noise.astype(np.float32)
    return talk, slice(near.size + 16000, near.size + 16000 + far.size)


def speech_gain(enhanced: np.ndarray, talk: np.ndarray, where: slice) -> float:
    """dB by which the second talker comes out louder than it went in."""
    return float(20 * np.log10(abs(enhanced[where] @ talk[where]) / (talk[where] @ talk[where])))


@pytest.mark.parametrize("lower", [30.0, 40.0, 50.0])
def test_a_quiet_talker_beside_a_loud_one_is_kept(student: torch.nn.Module, lower: float):
    """With one scale for all of it, the second talker loses 2 dB at 30 dB below the first, and 12 at 40."""
    talk, second = dialogue(lower)
    assert speech_gain(enhance_waveform(student, talk), talk, second) > -1


def test_a_quiet_talker_after_a_loud_one_is_found_live(student: torch.nn.Module):
    """The gain follows by LevelControl.RELEASE: of 40 dB, 30 are waited for."""
    talk, second = dialogue(30.0)
    assert speech_gain(streamed(student, talk), talk, second) > -1
    talk, second = dialogue(40.0)
    assert speech_gain(streamed(student, talk), talk, second) > -4  # -7.5 at 1 dB per second


def test_a_quiet_talker_in_files(student: torch.nn.Module, exported: Path, tmp_path: Path):
    from dccrn_lib.enhancement.files import enhance_file
    from dccrn_lib.enhancement.onnx_runtime import enhance_wav

    talk, second = dialogue(40.0)
    both = np.stack([talk, talk[::-1]], axis=1)
    soundfile.write(tmp_path / "in.wav", both, 16000, subtype="FLOAT")
    enhance_file(tmp_path / "in.wav", tmp_path / "torch.wav", student)
    enhance_wav(exported, tmp_path / "in.wav", tmp_path / "onnx.wav")
    for name in ("torch.wav", "onnx.wav"):
        enhanced = soundfile.read(tmp_path / name, dtype="float32")[0]
        assert speech_gain(enhanced[:, 0], talk, second) > -1, name
    np.testing.assert_allclose(enhanced[:, 1], enhance_waveform(student, talk[::-1].copy()), atol=2e-4)


@fixed_clips
@pytest.mark.parametrize("kind", ["clean", "noisy"])
def test_a_usual_recording_has_one_scale(kind: str, name: str):
    x = clip(kind, name)
    meter = LevelMeter(1, 16000)
    meter.add(x[None])
    np.testing.assert_array_equal(meter.scales(0, x.size), meter.scale())


def test_a_loud_sound_at_the_very_end_is_not_raised():
    """Of less than a frame: with the scale of the quiet passage before it, it would be cut off at LOUDEST_HEARD."""
    noise = np.random.default_rng(0).standard_normal(64799).astype(np.float32)
    x = noise * np.repeat([0.1, 1e-5, 0.3], [16000, 48000, 799]).astype(np.float32)
    np.testing.assert_allclose(enhance_waveform(torch.nn.Identity(), x)[-799:], x[-799:], atol=1e-3)


def test_scales_do_not_depend_on_blocks_nor_on_other_channels():
    talk, _ = dialogue(40.0)
    both = LevelMeter(2, 16000)
    for piece in np.array_split(np.stack([talk, np.roll(clip("noisy"), 7)[np.arange(talk.size) % 64000]]), 9, axis=1):
        both.add(piece)
    alone = LevelMeter(1, 16000)
    alone.add(talk[None])
    whole = alone.scales(0, talk.size)
    edges = np.linspace(0, talk.size, 7).astype(int).tolist()
    pieces = [both.scales(*edge) for edge in zip(edges, edges[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1)[0], whole[0])
    assert np.ptp(np.concatenate(pieces, axis=1)[1]) == 0
    assert 20 * np.log10(whole.max() / whole.min()) > 22  # in the pause, where there is noise alone


# ---- a click


def scale_of(x: np.ndarray, block: int = 5000) -> float:
    meter = LevelMeter(1, 16000)
    for start in range(0, x.size, block):
        meter.add(x[None, start : start + block])
    return meter.scale().item()


SOUNDS = {  # where it begins, in samples: the sound
    "a click": {100: [0.9, -0.9, 0.9]},
    "clicks": {start: [0.9, -0.9, 0.9] for start in range(100, 64000, 12000)},
    "a click between frames": {19999: [0.9, -0.9, 0.9]},
    "a click that rings": {20300: 0.9 * np.sin(np.arange(80)) * np.exp(-np.arange(80) / 20)},
    "a click at full scale in a short file's last frame": {63990: [1.0]},
}


@fixed_clips
@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("gain", [0.1, 0.03])
def test_a_click_does_not_decide_on_the_level(name: str, sound: str, gain: float):
    quiet = clip("noisy", name) * np.float32(gain)
    x = quiet.copy()
    for start, samples in SOUNDS[sound].items():
        x[start : start + len(samples)] = samples[: x.size - start]
    assert abs(20 * np.log10(scale_of(x) / scale_of(quiet))) < 1.0


HEARD = pytest.mark.parametrize(("gain", "sound"), [(0.03, "a click"), (0.01, "a click"), (0.1, "clicks")])


def disturbed(gain: float, sound: str) -> np.ndarray:
    x = clip("noisy") * np.float32(gain)
    for start, samples in SOUNDS[sound].items():
        x[start : start + len(samples)] = samples
    return x


def expect_as_ever(student: torch.nn.Module, enhanced: np.ndarray, sound: str) -> None:
    """SI-SNR as without the click, the first half second included where there is one click."""
    part = slice(0 if sound == "a click" else 8000, None)
    expected, actual = (
        float(si_snr_db(torch.from_numpy(y[part]), torch.from_numpy(clip("clean")[part])))
        for y in (enhance_waveform(student, clip("noisy")), enhanced)
    )
    assert abs(actual - expected) < (0.3 if len(SOUNDS[sound]) == 1 else 0.5)


@HEARD
def test_a_recording_with_a_click_is_enhanced_as_ever(student: torch.nn.Module, gain: float, sound: str):
    expect_as_ever(student, enhance_waveform(student, disturbed(gain, sound)) / np.float32(gain), sound)


@HEARD
def test_so_it_is_by_the_exported_graph(
    student: torch.nn.Module, exported: Path, tmp_path: Path, gain: float, sound: str
):
    from dccrn_lib.enhancement.onnx_runtime import enhance_wav

    soundfile.write(tmp_path / "in.wav", disturbed(gain, sound), 16000, subtype="FLOAT")
    enhance_wav(exported, tmp_path / "in.wav", tmp_path / "out.wav")
    enhanced, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    expect_as_ever(student, enhanced / np.float32(gain), sound)


@fixed_clips
@pytest.mark.parametrize("gain_db", [0, -23, -50])
def test_usual_recordings_keep_their_scale(name: str, gain_db: float):
    for kind in ("clean", "noisy"):
        x = clip(kind, name) * np.float32(10 ** (gain_db / 20))
        frames = np.square(x[: x.size // 800 * 800].reshape(-1, 800) - x.mean(), dtype=np.float64).mean(axis=1)
        level = np.sqrt(frames[frames > frames.max() / 10**2.5].mean())
        expected = max(level * 10 ** (23 / 20), np.abs(x - x.mean()).max())
        # of a frame in which a sound sets in after silence, as in clean speech, less than the whole may count
        assert scale_of(x) == pytest.approx(expected, rel=0.005 if kind == "noisy" else 0.02)


@pytest.mark.parametrize("seconds", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("snr_db", [5.0, 15.0, 25.0, 35.0])
def test_a_word_amid_steady_noise_decides_as_the_loudest_frames_do(seconds: float, snr_db: float):
    """However far above the noise: an answer of one syllable is no click."""
    word = clip("clean")[20000 : 20000 + round(16000 * seconds)]
    noise = np.random.default_rng(0).standard_normal(80000).astype(np.float32)
    x = noise * np.sqrt(np.square(word).mean()) / 10 ** (snr_db / 20)
    for start in range(30000, 30800, 160):  # wherever it begins within a frame
        y = x.copy()
        y[start : start + len(word)] += word
        frames = np.square(y.reshape(-1, 800) - y.mean(), dtype=np.float64).mean(axis=1)
        level = np.sqrt(frames[frames > frames.max() / 10**2.5].mean())
        expected = max(level * 10 ** (23 / 20), np.abs(y - y.mean()).max())
        assert abs(20 * np.log10(scale_of(y) / expected)) < 1.0


def test_a_lone_short_sound_is_the_recording():
    """A word in silence, or between the noise of a good converter, is no click: there is nothing else to hear."""
    word = np.zeros(32000, dtype=np.float32)
    word[9600:12800] = 0.1 * np.random.default_rng(0).standard_normal(3200)  # -20 dBFS
    noise = 1e-5 * np.random.default_rng(1).standard_normal(32000).astype(np.float32)
    for x in (word, word + noise, word[9600:10000], word[:100], word[9600:9601]):
        expected = -20 if x.size > 100 else None
        assert np.isfinite(scale_of(x)) and scale_of(x) > 0
        if expected is not None:
            assert abs(20 * np.log10(scale_of(x)) - (expected + 23)) < 1.5


# ---- a constant offset


@fixed_clips
@pytest.mark.parametrize(("level", "offset"), [(-23.0, 0.1), (-50.0, -0.3)])
def test_an_offset_costs_nothing(student: torch.nn.Module, name: str, level: float, offset: float):
    x = at(level, name)
    enhanced = [enhance_waveform(student, y) for y in (x, x + np.float32(offset))]
    assert spread([quality(y, name) for y in enhanced], name) < 0.05
    assert abs(enhanced[1].mean()) < 1e-3 * abs(offset)


@loudest_clips
def test_an_offset_costs_little_live(
    student: torch.nn.Module, live: Callable[[float, str], float], exported: Path, name: str
):
    from dccrn_lib.enhancement.onnx_runtime import OnnxEnhancer

    x, onnx = at(-23.0, name), OnnxEnhancer(exported, level_control=True)
    shifted = [x + np.float32(offset) for offset in (0.03, 0.1)]
    assert spread([live(-23.0, name), *(quality(streamed(student, y), name) for y in shifted)], name) < 0.5
    assert spread([quality(onnx.enhance(y), name) for y in (x, *shifted)], name) < 0.5


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


@fixed_clips
def test_at_usual_levels_little_changes(student: torch.nn.Module, live: Callable[[float, str], float], name: str):
    without = quality(streamed(student, at(-23.0, name), level_control=False), name)
    assert abs(live(-23.0, name) - without) < 0.3


def test_a_word_after_a_quiet_start_is_not_overloaded():
    control = LevelControl(1, 0.00625)
    quiet = control.gains(np.full((1, 800), 1e-8))  # five seconds at -80 dBFS
    loud = control.gains(np.full((1, 1), 0.05))
    assert quiet.max() > 100 and loud.item() == 1.0


def test_a_click_is_lowered_and_forgotten():
    powers = np.full((1, 100), 1e-6)
    powers[0, 50:55] = 0.05  # a click lies in five frames
    gains = LevelControl(1, 0.00625).gains(powers)
    assert (gains[0, 50:55] == 1).all() and gains[0, 55:].min() > 100


@pytest.mark.parametrize("gain", [0.1, 0.03, 0.01])
def test_what_follows_a_click_is_enhanced_live_as_ever(student: torch.nn.Module, gain: float):
    quiet, click = at(-23.0, "fan_5db_en") * np.float32(gain), np.zeros(64000, dtype=np.float32)
    click[8000:8003] = 0.9, -0.9, 0.9
    with_it, without = (
        si_snr_db(torch.from_numpy(streamed(student, x)[9600:]), torch.from_numpy(clip("clean")[9600:]))
        for x in (quiet + click, quiet)
    )
    assert abs(float(with_it - without)) < 0.5


def test_silence_and_streams_of_their_own():
    gains = LevelControl(2, 0.01).gains(np.array([[0.0, 0.0], [0.05, 0.05]]))
    assert np.isfinite(gains).all() and gains[0].max() <= 10 ** (LevelControl.MOST / 20) * 1.001
    assert gains[1].tolist() == [1.0, 1.0]


def test_what_is_too_loud_is_lowered():
    assert LevelControl(1, 0.01).gains(np.array([[100.0]])).item() == pytest.approx(np.sqrt(10**-1.0 / 100), rel=1e-6)
