"""Enhancement of signals, files and folders: no seams, no lost format, no overwritten input, no half-written output."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from dccrn_lib.audio.files import audio_info, read_audio, write_audio
from dccrn_lib.audio.resampling import resample
from dccrn_lib.enhancement import waveform
from dccrn_lib.enhancement.batch import enhance_files
from dccrn_lib.enhancement.files import enhance_file
from dccrn_lib.enhancement.stream import StreamingEnhancer
from dccrn_lib.enhancement.waveform import LevelMeter, enhance_waveform
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.weights import save_model
from dccrn_lib.runtime.errors import AudioError, ConfigError, WeightsError
from dccrn_lib.runtime.sinks import Sink


def noise(channels: int, samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal((channels, samples))).astype(np.float32)


@pytest.fixture(scope="module")
def student() -> nn.Module:
    """A mini student with random weights whose output is as loud as its input, roughly."""
    torch.manual_seed(0)
    model = build_model("distil_dccrn_mini").eval()
    with torch.no_grad():
        model.decoder[-1].conv.weight_real.mul_(30)
    return model


@pytest.fixture
def whole(monkeypatch):
    """Run the network on whole signals only, whatever their length."""

    def run(*args):
        with monkeypatch.context() as patch:
            patch.setattr(waveform, "WHOLE_SECONDS", 1e9)
            return enhance_waveform(*args)

    return run


class Gain(nn.Module):
    """A network whose answer is known."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


# --- signals


def level(x: np.ndarray, rate: int = 16000) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted from each channel before the network, and what it is divided by: (channel, 1) each."""
    meter = LevelMeter(len(x), rate)
    meter.add(x)
    return meter.offset(), meter.scale()


def test_short_signal_is_the_model_itself_at_its_level(student):
    x = torch.from_numpy(noise(2, 5000))
    offset, scale = map(torch.from_numpy, level(x.numpy()))
    with torch.no_grad():
        expected = student((x - offset) / scale) * scale
    assert expected.std() > 0.01  # a silent network would prove nothing
    y = enhance_waveform(student, x)
    assert isinstance(y, torch.Tensor) and torch.allclose(y, expected, atol=1e-6)
    y = enhance_waveform(student, x[0].numpy())
    assert isinstance(y, np.ndarray) and y.shape == (5000,) and np.abs(y - expected[0].numpy()).max() < 1e-6


@pytest.mark.parametrize("rate", [16000, 44100, 8000, 48000])
def test_long_signal_has_no_seam(student, whole, rate):
    x = noise(2, int(6.3 * rate) + 1)  # crosses BLOCK_SECONDS
    streamed, at_once = enhance_waveform(student, x, rate), whole(student, x, rate)
    assert streamed.shape == at_once.shape == x.shape and at_once.std() > 0.01
    assert np.abs(streamed - at_once).max() < 1e-4


def test_whole_signal_at_another_rate_is_resampled_there_and_back(student):
    x = noise(1, 20000)
    offset, scale = level(x, 44100)
    with torch.no_grad():
        y = student(torch.from_numpy(resample((x - offset) / scale, 44100, 16000))).numpy()
    expected = resample(y, 16000, 44100)[:, :20000] * scale
    assert np.abs(enhance_waveform(student, x, 44100) - expected).max() < 1e-5


@pytest.mark.parametrize("dbfs", [-70, -60, -50, -40, -10, 0])
def test_a_recording_is_enhanced_alike_at_every_level(root, tmp_path, dbfs):
    noisy, rate = read_audio(root / "data/demo/noisy/fan_5db_en.ogg")
    noisy = noisy / np.sqrt(np.mean(noisy**2)) * np.float32(10 ** (-23 / 20))
    gain = np.float32(10 ** ((dbfs + 23) / 20))
    expected = enhance_waveform("distil_dccrn", noisy, rate)
    assert expected.std() > 0.3 * noisy.std()  # speech is kept
    y = enhance_waveform("distil_dccrn", noisy * gain, rate) / gain
    assert np.abs(y - expected).max() < 1e-3 * np.abs(expected).max()
    write_audio(tmp_path / "in.wav", noisy * gain, rate, subtype="FLOAT")
    enhance_file(tmp_path / "in.wav", tmp_path / "out.wav")
    assert np.abs(read_audio(tmp_path / "out.wav")[0] / gain - expected).max() < 1e-3 * np.abs(expected).max()


def test_pauses_do_not_count_as_quiet():
    x = noise(1, 32000)
    paused = np.concatenate([x, np.zeros((1, 160000), np.float32)], axis=1)
    assert np.allclose(level(x)[1], level(paused)[1], rtol=1e-3)
    assert level(np.zeros((1, 800), np.float32))[1].item() == 1.0
    assert level(np.full((1, 3), 4.0, np.float32))[1].item() >= 4.0  # nothing passes full scale


@pytest.mark.parametrize("samples", [1, 2, 99, 441])
def test_any_length(student, samples):
    for rate in (8000, 16000, 44100):
        assert enhance_waveform(student, noise(1, samples), rate).shape == (1, samples)


def test_each_channel_on_its_own(student):
    x = noise(3, 9000)
    together = enhance_waveform(student, x)
    for channel in range(3):
        assert np.abs(together[channel] - enhance_waveform(student, x[channel])).max() < 1e-5


def test_loud_input_is_not_clipped(student):
    x = noise(1, 8000, level=1.0)  # peak near 4, the network's output ends at 1
    peak = np.abs(x).max()
    expected = peak * enhance_waveform(student, x / peak)
    assert peak > 3 and np.abs(enhance_waveform(student, x) - expected).max() < 1e-4


def test_mode_is_restored(student):
    student.train()
    first = enhance_waveform(student, noise(1, 4000))
    assert student.training
    student.eval()
    assert np.array_equal(first, enhance_waveform(student, noise(1, 4000)))


def test_each_layer_keeps_its_mode(student):
    student.train()
    student.encoder[0].eval()
    before = [module.training for module in student.modules()]
    enhance_waveform(student, noise(1, 4000))
    assert [module.training for module in student.modules()] == before
    student.eval()


def test_many_channels_stream_in_groups(student, monkeypatch):
    sizes = []

    class Watched(StreamingEnhancer):
        def __init__(self, model, batch, *args, **kwargs):
            sizes.append(batch)
            super().__init__(model, batch, *args, **kwargs)

    monkeypatch.setattr(waveform, "StreamingEnhancer", Watched)
    monkeypatch.setattr(waveform, "WHOLE_SECONDS", 0.1)
    x = noise(19, 4000)
    together = enhance_waveform(student, x)
    assert sizes == [8, 8, 3] and together.shape == x.shape
    for channel in (0, 8, 18):
        assert np.abs(together[channel] - enhance_waveform(student, x[channel])).max() < 1e-5


def test_unusable_signals(student):
    for bad, words in (
        (np.zeros(0), ">= 1 sample"),
        (np.array([0, np.nan]), "NaN"),
        (np.zeros((48000, 2)), "channels"),
    ):
        with pytest.raises(AudioError, match=words):
            enhance_waveform(student, bad)
    for rate in (0, -1, 16000.5, float("nan")):
        with pytest.raises(AudioError, match="positive whole number"):
            enhance_waveform(student, np.zeros(10), rate)


def test_any_dense_real_signal_is_enhanced(student):
    x = noise(2, 4000)
    expected = enhance_waveform(student, np.ascontiguousarray(x[:, ::-1]))
    np.testing.assert_array_equal(enhance_waveform(student, x[:, ::-1]), expected)
    np.testing.assert_array_equal(enhance_waveform(student, x[:, ::-1].astype(">f8")), expected)
    half = torch.from_numpy(x).bfloat16()
    enhanced = enhance_waveform(student, half)
    assert enhanced.dtype == torch.float32 and torch.equal(enhanced, enhance_waveform(student, half.float()))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (lambda x: x.astype(np.complex64), "real numbers"),
        (lambda x: torch.from_numpy(x).to(torch.complex64), "real numbers"),
        (lambda x: torch.from_numpy(x).to_sparse(), "dense"),
        (lambda x: (x * 3000).astype(np.int16), "divide integers by their full scale"),
        (lambda x: (torch.from_numpy(x) * 3000).short(), "divide integers by their full scale"),
    ],
)
def test_what_is_no_dense_float_signal_is_refused(student, kind, words):
    x = noise(1, 4000)
    with pytest.raises(AudioError, match=f"^[^\n]*{words}[^\n]*$"):
        enhance_waveform(student, kind(x))
    if words != "real numbers":
        with pytest.raises(AudioError, match=words):
            StreamingEnhancer(student).push(kind(x))


def test_uformer_takes_short_signals_only(monkeypatch, tmp_path):
    uformer = build_model("uformer_mini").eval()
    assert enhance_waveform(uformer, noise(1, 8000)).shape == (1, 8000)
    monkeypatch.setattr(waveform, "LIMIT_SECONDS", 0.4)
    write_audio(tmp_path / "x.wav", noise(1, 8000), 16000)
    with pytest.raises(AudioError) as error:
        enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", uformer)
    assert "x.wav" in str(error.value) and "Uformer" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "y.wav").exists()


# --- files


@pytest.mark.parametrize(
    "name, rate, channels, subtype",
    [
        ("x.wav", 8000, 1, "PCM_16"),
        ("x.wav", 44100, 2, "FLOAT"),
        ("x.wav", 48000, 2, "PCM_24"),
        ("x.wav", 16000, 1, "PCM_U8"),
        ("x.flac", 48000, 1, "PCM_24"),
        ("x.ogg", 44100, 2, "VORBIS"),
        ("x.aiff", 22050, 1, "PCM_16"),
        ("x.mp3", 44100, 2, "MPEG_LAYER_III"),
    ],
)
def test_rate_length_channels_and_format_are_kept(tmp_path, name, rate, channels, subtype):
    low = resample(noise(channels, 2001), 4000, rate)[:, : rate // 2 + 1]  # nothing above 2 kHz
    write_audio(tmp_path / name, low, rate, subtype=subtype)
    done = enhance_file(tmp_path / name, tmp_path / "out" / name, Gain(0.5))
    a, b = audio_info(tmp_path / name), audio_info(tmp_path / "out" / name)
    assert (b.sample_rate, b.channels, b.format, b.subtype) == (rate, channels, a.format, subtype)
    if subtype not in ("VORBIS", "MPEG_LAYER_III"):
        assert b.samples == a.samples
    x, y = read_audio(tmp_path / name)[0], read_audio(tmp_path / "out" / name)[0]
    power = np.sqrt((y**2).mean() / (x**2).mean())
    assert power == pytest.approx(0.5, rel=0.05)
    assert done.seconds == pytest.approx(0.5, abs=0.05) and done.gain_db == 0


def test_long_file_equals_the_whole(tmp_path, student, whole):
    x = noise(2, 12 * 22050)
    write_audio(tmp_path / "x.wav", x, 22050, subtype="FLOAT")
    seconds = []
    enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", student, on_progress=seconds.append)
    y, _ = read_audio(tmp_path / "y.wav")
    assert y.shape == x.shape and np.abs(y - whole(student, x, 22050)).max() < 1e-4
    assert sum(seconds) == pytest.approx(12) and len(seconds) > 2


def test_peaks_are_lowered_not_clipped(tmp_path):
    t = np.arange(16000) / 16000
    x = (0.8 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    write_audio(tmp_path / "x.wav", x, 16000)
    done = enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", Gain(2.0))
    y, _ = read_audio(tmp_path / "y.wav")
    assert done.gain_db == pytest.approx(20 * np.log10(0.9999 / 1.6), abs=0.01)
    assert np.abs(y[0] - x / 0.8 * 0.9999).max() < 1e-4  # the shape of the wave is whole
    write_audio(tmp_path / "f.wav", x, 16000, subtype="FLOAT")
    done = enhance_file(tmp_path / "f.wav", tmp_path / "g.wav", Gain(2.0))
    assert done.gain_db == 0 and np.abs(read_audio(tmp_path / "g.wav")[0][0] - 2 * x).max() < 1e-6


@pytest.mark.parametrize(
    ("source", "subtype"),
    [
        ("x.mp3", None),
        ("x.ogg", None),
        ("x.opus", None),
        ("x.aiff", "IMA_ADPCM"),
        ("x.au", "G721_32"),
        ("x.wav", "GSM610"),
    ],
)
@pytest.mark.parametrize("target", ["y.wav", "y.flac", "y.ogg", "y.mp3", "y.aiff", "y.w64"])
def test_coded_samples_become_plain_ones_in_another_format(tmp_path, source, subtype, target):
    rate = 8000 if subtype == "GSM610" else 16000
    write_audio(tmp_path / source, noise(1, 8000), rate, subtype=subtype)
    done = enhance_file(tmp_path / source, tmp_path / target, Gain(0.5))
    written = audio_info(done.destination)
    assert written.sample_rate == rate
    read, _ = soundfile.read(done.destination)
    assert (
        written.seconds == pytest.approx(audio_info(tmp_path / source).seconds, abs=0.1) and 1e-3 < np.std(read) < 0.5
    )
    coded = target.endswith((".ogg", ".mp3")) or source.split(".")[1] == target.split(".")[1]
    assert coded or written.subtype == "PCM_16" and written.samples == audio_info(tmp_path / source).samples


@pytest.mark.parametrize("name", ["y.sd2", "y.raw"])
def test_a_format_without_a_header_of_its_own_is_not_written(tmp_path, name):
    write_audio(tmp_path / "x.wav", noise(1, 800), 16000)
    with pytest.raises(AudioError, match="unknown suffix"):
        enhance_file(tmp_path / "x.wav", tmp_path / name, Gain(1.0))
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]


def test_another_suffix_chooses_the_nearest_format(tmp_path):
    write_audio(tmp_path / "x.wav", noise(1, 800), 16000, subtype="FLOAT")
    enhance_file(tmp_path / "x.wav", tmp_path / "y.flac", Gain(1.0))
    assert audio_info(tmp_path / "y.flac").subtype == "PCM_24"
    enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", Gain(1.0), subtype="PCM_16")
    assert audio_info(tmp_path / "y.wav").subtype == "PCM_16"


def test_input_and_existing_output_are_safe(tmp_path):
    write_audio(tmp_path / "x.wav", noise(1, 800), 16000)
    (tmp_path / "link.wav").symlink_to(tmp_path / "x.wav")
    before = (tmp_path / "x.wav").read_bytes()
    for target in ("x.wav", "link.wav", "../" + tmp_path.name + "/x.wav"):
        with pytest.raises(AudioError, match="is the input itself"):
            enhance_file(tmp_path / "x.wav", tmp_path / target, Gain(1.0), overwrite=True)
    (tmp_path / "y.wav").write_bytes(b"precious")
    with pytest.raises(AudioError, match="y.wav exists"):
        enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", Gain(1.0))
    assert (tmp_path / "y.wav").read_bytes() == b"precious" and (tmp_path / "x.wav").read_bytes() == before
    enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", Gain(1.0), overwrite=True)
    assert audio_info(tmp_path / "y.wav").samples == 800


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float("nan")


def test_no_output_from_a_broken_network(tmp_path):
    write_audio(tmp_path / "x.wav", noise(1, 800), 16000)
    with pytest.raises(AudioError, match="NaN"):
        enhance_file(tmp_path / "x.wav", tmp_path / "out" / "x.wav", Broken())
    assert not list((tmp_path / "out").iterdir())


class Travelling(Gain):
    """A network that notes where it is sent."""

    def to(self, *args, **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]
        self.sent = [*getattr(self, "sent", []), args]
        return super().to(*args, **kwargs)


def test_a_network_stays_on_its_device_unless_another_is_named(tmp_path):
    write_audio(tmp_path / "x.wav", noise(1, 800), 16000)
    network = Travelling(1.0)
    enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", network)
    assert not hasattr(network, "sent")
    enhance_file(tmp_path / "x.wav", tmp_path / "z.wav", network, device="cpu")
    assert network.sent == [("cpu",)]


def test_unknown_model_and_device(tmp_path):
    write_audio(tmp_path / "x.wav", noise(1, 800), 16000)
    with pytest.raises(WeightsError, match="no_such_weights"):
        enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", "no_such_weights")
    with pytest.raises(ConfigError, match="unknown device"):
        enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", Gain(1.0), device="gpu7")
    for absent in ("meta", "cuda:99"):  # names that torch knows; the first computes nothing
        with pytest.raises(ConfigError, match="not available here"):
            enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", Gain(1.0), device=absent)


# --- folders


@pytest.fixture
def folder(tmp_path):
    """Mixed formats, rates and channels; one corrupt file, one text named .wav, one text file."""
    place = tmp_path / "in"
    write_audio(place / "a.wav", noise(1, 4000), 8000)
    write_audio(place / "a.flac", noise(2, 8000), 16000)
    write_audio(place / "deep" / "er" / "c.ogg", noise(2, 22050), 44100)
    write_audio(place / "d.wav", noise(1, 24000), 48000, subtype="FLOAT")
    soundfile.write(place / "nan.wav", np.array([0, np.nan]), 16000, subtype="FLOAT")
    (place / "text.wav").write_text("not a sound")
    (place / "notes.txt").write_text("to be passed over")
    return place


GOOD = ["a.flac", "a.wav", "d.wav", "deep/er/c.ogg"]


def test_a_folder_with_bad_files(folder, tmp_path):
    out = tmp_path / "out"
    report = enhance_files([folder], out, Gain(0.5), progress=False)
    assert [p.relative_to(out).as_posix() for p in report.done] == GOOD
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == GOOD
    assert [path.name for path, _ in report.failed] == ["nan.wav", "text.wav"]
    assert all("\n" not in reason and path.name in reason for path, reason in report.failed)
    assert report.seconds == pytest.approx(2.0, abs=0.01) and str(report).startswith("4 enhanced")
    again = enhance_files(folder, out, Gain(0.5), progress=False)
    assert not again.done and len(again.failed) == 6
    assert sum("exists" in reason for _, reason in again.failed) == 4
    assert len(enhance_files(folder, out, Gain(0.5), progress=False, overwrite=True).done) == 4


def test_a_run_that_was_stopped_is_continued(folder, tmp_path):
    out = tmp_path / "out"
    enhance_files([folder], out, Gain(0.5), progress=False)
    (out / "a.wav").unlink()
    before = {name: (out / name).read_bytes() for name in GOOD if name != "a.wav"}
    report = enhance_files([folder], out, Gain(1.0), progress=False, skip_existing=True)
    assert [path.name for path in report.done] == ["a.wav"] and len(report.failed) == 2
    assert [path.relative_to(out).as_posix() for path in report.skipped] == sorted(before)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert str(report).startswith("1 enhanced") and str(report).endswith("2 failed, 3 there already")
    with pytest.raises(ConfigError, match="choose one of the two"):
        enhance_files([folder], out, Gain(1.0), progress=False, skip_existing=True, overwrite=True)


def test_processes_give_the_same(folder, tmp_path, student):
    save_model(student, tmp_path / "weights" / "student")
    for workers in (1, 2):
        report = enhance_files(
            [folder],
            tmp_path / f"out{workers}",
            tmp_path / "weights" / "student.safetensors",
            workers=workers,
            progress=False,
        )
        assert len(report.done) == 4 and len(report.failed) == 2
    for name in ("a.wav", "a.flac", "d.wav"):
        one, two = (read_audio(tmp_path / f"out{workers}" / name)[0] for workers in (1, 2))
        assert np.abs(one - two).max() <= 2**-15  # threads may change the last bit


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of process groups")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_stops_at_once_and_leaves_nothing_half_written(tmp_path, student, root, workers):
    save_model(student, tmp_path / "student")
    for name in "abcd":
        write_audio(tmp_path / "in" / f"{name}.wav", np.zeros(900 * 8000, np.float32), 8000)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dccrn_lib", "enhance", str(tmp_path / "in"), "--out", str(out), "--quiet"]
    command += ["--model", str(tmp_path / "student.safetensors"), "--workers", str(workers)]
    process = subprocess.Popen(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # where the tests themselves run in the background, SIGINT is ignored, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 60
    while not (out.is_dir() and any(out.iterdir())) and time.monotonic() < end:
        time.sleep(0.05)  # until the first output is begun
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "error: interrupted\n")
    assert not list(out.iterdir())


def test_output_inside_or_on_the_input_folder(folder):
    inside = folder / "enhanced"
    assert len(enhance_files(folder, inside, Gain(0.5), progress=False).done) == 4
    assert len(enhance_files(folder, inside, Gain(0.5), progress=False, overwrite=True).done) == 4
    assert not (inside / "enhanced").exists()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report = enhance_files(folder, folder, Gain(0.5), progress=False, overwrite=True)
    assert not report.done and all("is an input" in reason for _, reason in report.failed)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_output_folder_linked_into_the_input_folder_is_no_input(folder, tmp_path):
    (tmp_path / "big").mkdir()
    (folder / "enhanced").symlink_to(tmp_path / "big")
    assert len(enhance_files(folder, folder / "enhanced", Gain(0.5), progress=False).done) == 4
    again = enhance_files(folder, folder / "enhanced", Gain(0.5), progress=False, skip_existing=True)
    assert (len(again.done), len(again.skipped)) == (0, 4) and not (tmp_path / "big" / "enhanced").exists()


def test_output_above_the_input_folder(tmp_path):
    write_audio(tmp_path / "in" / "x.wav", noise(1, 400), 16000)
    report = enhance_files(tmp_path / "in", tmp_path, Gain(0.5), progress=False)
    assert report.done == [tmp_path / "x.wav"] and not report.failed
    report = enhance_files(tmp_path / "in", tmp_path / "in" / "in", Gain(0.5), progress=False)
    assert len(report.done) == 1
    (tmp_path / "in" / "x.wav").unlink()
    report = enhance_files(tmp_path / "in", tmp_path / "in" / "in", Gain(0.5), progress=False)
    assert "outside the output folder" in report.failed[0][1]


@pytest.mark.skipif(sys.platform != "linux", reason="links and names as Linux allows them")
def test_strange_names_and_links_do_not_stop_the_rest(tmp_path):
    place = tmp_path / "in"
    for name in ("with space.wav", "ünï/日本.wav", "not-text-\udcff.wav"):
        write_audio(place / name, noise(1, 400), 16000)
    (place / "circle.wav").symlink_to("circle.wav")
    (place / "dangling.wav").symlink_to("nowhere.wav")
    (place / "link.wav").symlink_to("with space.wav")
    report = enhance_files([place, place / "circle.wav"], tmp_path / "out", Gain(0.5), progress=False)
    assert len(report.done) == 4 and (tmp_path / "out" / "not-text-\udcff.wav").is_file()
    assert [path.name for path, _ in report.failed] == ["circle.wav", "circle.wav", "dangling.wav"]
    assert all("no such" in reason or "symbolic links" in reason for _, reason in report.failed)


def test_collisions_and_absent_inputs(tmp_path):
    for name in ("one/x.wav", "two/x.wav"):
        write_audio(tmp_path / name, noise(1, 400), 16000)
    (tmp_path / "empty").mkdir()
    inputs = [tmp_path / name for name in ("one/x.wav", "two/x.wav", "one/x.wav", "absent.wav", "empty")]
    report = enhance_files(inputs, tmp_path / "out", Gain(0.5), progress=False)
    assert [p.name for p in report.done] == ["x.wav"]
    reasons = {path.relative_to(tmp_path).as_posix(): reason for path, reason in report.failed}
    assert set(reasons) == {"two/x.wav", "absent.wav", "empty"}
    assert "one/x.wav" in reasons["two/x.wav"].replace("\\", "/")
    # an output that is another input's file is refused, even with overwrite
    report = enhance_files(inputs[:2], tmp_path / "two", Gain(0.5), progress=False, overwrite=True)
    assert not report.done and len(report.failed) == 2
    with pytest.raises(AudioError, match="is a file"):
        enhance_files(inputs, tmp_path / "one" / "x.wav", Gain(1.0))
    with pytest.raises(ConfigError, match="workers"):
        enhance_files(inputs, tmp_path / "out", Gain(1.0), workers=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_odd_sampling_rate_does_not_stop_the_others(tmp_path, workers):
    for rate in (1, 7, 16000, 1_000_003, 100_000_007):
        write_audio(tmp_path / "in" / f"{rate}.wav", noise(1, 1600), rate)
    report = enhance_files(tmp_path / "in", tmp_path / "out", model=nn.Identity(), workers=workers, progress=False)
    assert [path.name for path in report.done] == ["16000.wav"]
    assert sorted(path.name for path, _ in report.failed) == ["1.wav", "100000007.wav", "1000003.wav", "7.wav"]
    assert all("1000 to 768000 Hz" in reason for _, reason in report.failed)
    with pytest.raises(AudioError, match="7 Hz"):
        enhance_waveform(nn.Identity(), noise(1, 100), 7)


def test_flac_of_unknown_length_is_enhanced(tmp_path):
    write_audio(tmp_path / "pipe.flac", noise(1, 16000), 16000)
    expected = enhance_waveform(nn.Identity(), read_audio(tmp_path / "pipe.flac")[0])
    data = bytearray((tmp_path / "pipe.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "pipe.flac").write_bytes(data)
    done = enhance_file(tmp_path / "pipe.flac", tmp_path / "out.flac", nn.Identity())
    assert done.seconds == 1.0
    assert np.abs(read_audio(tmp_path / "out.flac")[0] - expected).max() < 2**-15


def test_a_full_disk_is_told_as_such_and_keeps_the_file_of_an_earlier_run(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", np.full(16000, 0.1), 16000)
    write_audio(tmp_path / "out" / "a.wav", np.zeros(10), 16000)
    before = (tmp_path / "out" / "a.wav").read_bytes()

    def full(self, data):
        if self.file.tell() > 10_000:
            self.error = OSError(errno.ENOSPC, "No space left on device")
            return 0
        return real(self, data)

    real = Sink.write
    monkeypatch.setattr(Sink, "write", full)
    report = enhance_files(tmp_path / "a.wav", tmp_path / "out", Gain(0.5), progress=False, overwrite=True)
    assert report.failed == [(tmp_path / "a.wav", f"{tmp_path}/out/a.wav: No space left on device")]
    assert (tmp_path / "out" / "a.wav").read_bytes() == before
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_a_lack_of_memory_is_the_failure_of_one_file(tmp_path, error):
    class Greedy(nn.Module):
        def forward(self, x):
            if x.shape[-1] > 2000:
                raise error
            return x

    write_audio(tmp_path / "in" / "a.wav", noise(1, 4000), 16000)
    write_audio(tmp_path / "in" / "b.wav", noise(1, 1000), 16000)
    report = enhance_files(tmp_path / "in", tmp_path / "out", Greedy(), progress=False)
    assert [path.name for path in report.done] == ["b.wav"]
    [(source, reason)] = report.failed
    assert source.name == "a.wav" and "not enough memory" in reason and "\n" not in reason


def test_an_error_of_a_network_is_not_hidden(tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    write_audio(tmp_path / "a.wav", noise(1, 400), 16000)
    with pytest.raises(RuntimeError, match="mat1"):
        enhance_files(tmp_path / "a.wav", tmp_path / "out", Broken(), progress=False)


def test_what_cannot_be_reached_does_not_stop_the_rest(tmp_path, monkeypatch):
    for name in ("in/a.wav", "in/shut/b.wav", "c.wav"):
        write_audio(tmp_path / name, noise(1, 400), 16000)
    real, stat = os.scandir, os.stat

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    def closed(path, *args, **kwargs):
        if not isinstance(path, int) and os.path.basename(os.fsdecode(path)) == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "stat", closed)
    inputs = [tmp_path / ("x" * 300), tmp_path / "closed", tmp_path / "in", tmp_path / "c.wav"]
    report = enhance_files(inputs, tmp_path / "out", nn.Identity(), progress=False)
    assert [path.name for path in report.done] == ["a.wav", "c.wav"]
    reasons = {path.name: reason for path, reason in report.failed}
    assert reasons.keys() == {"x" * 300, "closed", "in"}
    assert "File name too long" in reasons["x" * 300] and "Permission denied" in reasons["closed"]
    assert "cannot list" in reasons["in"] and "shut" in reasons["in"]
    again = enhance_files(inputs, tmp_path / "out", nn.Identity(), progress=False, skip_existing=True)
    assert len(again.skipped) == 2 and len(again.failed) == 3


def test_an_output_that_its_format_cannot_hold_is_refused_before_the_work(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.flac", noise(1, 400), 16000)
    info = replace(audio_info(tmp_path / "a.flac"), samples=2**31)
    monkeypatch.setattr("dccrn_lib.enhancement.files.audio_info", lambda path: info)
    with pytest.raises(AudioError, match="WAV holds up to 4 GiB"):
        enhance_file(tmp_path / "a.flac", tmp_path / "a.wav", nn.Identity())
    assert not (tmp_path / "a.wav").exists()


def test_a_read_only_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", noise(1, 400), 16000)
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        enhance_file(tmp_path / "a.wav", tmp_path / "b.wav", None)  # the network would fail


LAYER_2 = bytes.fromhex("fffda4c0") + bytes(572)  # a silent frame of MPEG-1 layer II: 48 kHz, 192 kbit/s, one channel


def mp3_in_wav(data: bytes, samples: int) -> bytes:
    """A WAV file whose audio is an MP3 stream of 16 kHz, as dictating machines write it."""
    head = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16000, 4000, 1, 0, 12, 1, 2, 144, 1, 1105)
    chunks = [(b"fmt ", head), (b"fact", struct.pack("<I", samples)), (b"data", data + bytes(len(data) % 2))]
    body = b"WAVE" + b"".join(name + struct.pack("<I", len(part)) + part for name, part in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("name", ["x.mp2", "x.mp3", "x.wav"])
def test_what_is_read_but_not_written_takes_the_default_of_its_format(tmp_path, name):
    source = tmp_path / name
    if name == "x.wav":
        write_audio(tmp_path / "stream.mp3", noise(1, 32000), 16000)
        source.write_bytes(mp3_in_wav((tmp_path / "stream.mp3").read_bytes(), 32000))
    else:
        source.write_bytes(100 * LAYER_2)
    before = audio_info(source)
    report = enhance_files([source], tmp_path / "out", Gain(0.5), progress=False)
    assert not report.failed
    after = audio_info(tmp_path / "out" / name)
    assert (after.format, after.samples, after.sample_rate) == (before.format, before.samples, before.sample_rate)


def test_paf_of_24_bit_is_not_written_wrong(tmp_path):
    x = noise(6, 8007)
    write_audio(tmp_path / "x.wav", x, 16000, subtype="PCM_24")
    enhance_file(tmp_path / "x.wav", tmp_path / "y.paf", Gain(0.5))
    y, _ = read_audio(tmp_path / "y.paf")
    assert y.shape == x.shape and np.abs(y - 0.5 * (x - x.mean(axis=1, keepdims=True))).max() < 1e-4


def test_coded_voc_does_not_grow(tmp_path):
    write_audio(tmp_path / "x.voc", noise(1, 8001), 16000, subtype="ULAW")
    enhance_file(tmp_path / "x.voc", tmp_path / "y.voc", Gain(0.5))
    assert audio_info(tmp_path / "y.voc").samples == audio_info(tmp_path / "x.voc").samples


def test_other_rates_are_enhanced_in_float32_inside_an_autocast(student, tmp_path):
    x = noise(1, 8000)
    expected = enhance_waveform(student, x, 44100)
    write_audio(tmp_path / "x.wav", x, 44100, subtype="FLOAT")
    with torch.autocast("cpu", torch.bfloat16):
        inside = enhance_waveform(student, x, 44100)
        enhance_file(tmp_path / "x.wav", tmp_path / "y.wav", student)
        assert resample(torch.from_numpy(x), 44100, 16000).dtype == torch.float32
    assert np.array_equal(inside, expected)


def test_the_default_type_of_torch_changes_nothing(student):
    x, long = noise(1, 8000), noise(1, 90_000)
    expected = [enhance_waveform(student, x), enhance_waveform(student, long, 16000)]
    live = StreamingEnhancer(student, level_control=True)
    pieces = np.concatenate([live.push(x[0, :700]), live.push(x[0, 700:]), live.flush()])
    torch.set_default_dtype(torch.float64)
    try:
        assert np.array_equal(enhance_waveform(student, x), expected[0])
        assert np.array_equal(enhance_waveform(student, long), expected[1])
        live = StreamingEnhancer(student, level_control=True)
        again = np.concatenate([live.push(x[0, :700]), live.push(x[0, 700:]), live.flush()])
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.abs(again - pieces).max() < 1e-6


def test_a_long_signal_is_measured_in_blocks(monkeypatch):
    most, add = [], LevelMeter.add

    def noted(self, samples):
        most.append(samples.shape[1])
        add(self, samples)

    monkeypatch.setattr(LevelMeter, "add", noted)
    enhance_waveform(Gain(1.0), noise(1, 20 * 16000))
    assert max(most) <= waveform.BLOCK_SECONDS * 16000 and sum(most) == 20 * 16000
