"""Reading, writing and resampling: what goes in comes out, and what cannot be used is named."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dccrn_lib.audio import resampling
from dccrn_lib.audio.files import (
    AUDIO_SUFFIXES,
    AudioWriter,
    audio_info,
    list_audio_files,
    read_audio,
    read_blocks,
    write_audio,
)
from dccrn_lib.audio.resampling import StreamingResampler, resample
from dccrn_lib.runtime.errors import AudioError


def noise(channels: int, samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal((channels, samples))).astype(np.float32)


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "suffix, subtype, step",
    [
        (".wav", None, 2**-15),
        (".wav", "PCM_24", 2**-23),
        (".wav", "FLOAT", 0.0),
        (".flac", None, 2**-15),
        (".flac", "PCM_24", 2**-23),
        (".aiff", "PCM_16", 2**-15),
        (".w64", "FLOAT", 0.0),
    ],
)
def test_round_trip(tmp_path, suffix, subtype, step):
    x = noise(2, 3001)
    path = tmp_path / f"x{suffix}"
    assert write_audio(path, x, 44100, subtype=subtype) == 0
    y, rate = read_audio(path)
    assert rate == 44100 and y.dtype == np.float32 and y.shape == x.shape
    assert np.abs(x - y).max() <= step
    info = audio_info(path)
    assert (info.channels, info.samples, info.sample_rate) == (2, 3001, 44100)
    assert info.subtype == (subtype or "PCM_16")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize("suffix", [".ogg", ".opus", ".mp3"])
def test_lossy_formats(tmp_path, suffix):
    t = np.arange(48000) / 48000
    x = 0.3 * np.sin(2 * np.pi * 440 * t).astype(np.float32)
    write_audio(tmp_path / f"x{suffix}", x, 48000)
    y, rate = read_audio(tmp_path / f"x{suffix}")
    assert rate == 48000 and abs(y.shape[1] - 48000) <= 48  # within a millisecond
    assert np.sqrt((y**2).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_parts_and_blocks_equal_the_whole(tmp_path):
    write_audio(tmp_path / "x.flac", noise(2, 10007), 8000)
    whole, _ = read_audio(tmp_path / "x.flac")
    blocks = list(read_blocks(tmp_path / "x.flac", 999))
    assert [b.shape[1] for b in blocks] == [999] * 10 + [17]
    assert np.array_equal(np.concatenate(blocks, axis=1), whole)
    part, _ = read_audio(tmp_path / "x.flac", start=5000, count=321)
    assert np.array_equal(part, whole[:, 5000:5321])
    with pytest.raises(AudioError, match="cannot start at 10007"):
        read_audio(tmp_path / "x.flac", start=10007)


def test_unusable_files_are_named(tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is a shopping list\n" * 40)
    (tmp_path / "dir.wav").mkdir()
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, 0.5, np.nan]), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "inf.wav", np.array([0, np.inf, 0.1]), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "whole.flac", noise(1, 20000)[0], 16000)
    data = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(data[: len(data) // 2])
    (tmp_path / "raw.raw").write_bytes(data)
    expected = {
        "absent.wav": "no such audio file",
        "empty.wav": "0 bytes",
        "text.wav": "not audio",
        "dir.wav": "is a folder",
        "none.wav": "no samples",
        "nan.wav": "NaN or infinite sample at index 2",
        "inf.wav": "index 1",
        "half.flac": "corrupt",
        "raw.raw": "cannot read",
    }
    for name, words in expected.items():
        with pytest.raises(AudioError) as error:
            read_audio(tmp_path / name)
        one_line(error, name, words)
    for name in ("absent.wav", "empty.wav", "text.wav", "dir.wav", "none.wav"):
        with pytest.raises(AudioError) as error:
            audio_info(tmp_path / name)
        one_line(error, name)


def test_a_cut_mp3_is_refused(tmp_path):
    write_audio(tmp_path / "x.mp3", noise(1, 96000)[0], 48000)
    data = (tmp_path / "x.mp3").read_bytes()
    (tmp_path / "half.mp3").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError) as error:
        read_audio(tmp_path / "half.mp3")
    one_line(error, "half.mp3", "cut off")


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".ogg"])
def test_a_file_without_its_end_is_refused(tmp_path, suffix):
    write_audio(tmp_path / f"x{suffix}", noise(1, 48000)[0], 16000)
    data = (tmp_path / f"x{suffix}").read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(data[: int(0.6 * len(data))])
    for read in (audio_info, read_audio):
        with pytest.raises(AudioError) as error:
            read(cut)
        one_line(error, f"cut{suffix}", "cut off")


def test_a_header_that_does_not_know_the_length_is_no_damage(tmp_path):
    write_audio(tmp_path / "x.wav", noise(1, 4000), 16000)
    data = bytearray((tmp_path / "x.wav").read_bytes())
    for size in (b"\xff\xff\xff\xff", (len(data)).to_bytes(4, "little")):  # a pipe; the header counted too
        data[40:44] = size
        (tmp_path / "y.wav").write_bytes(data)
        assert read_audio(tmp_path / "y.wav")[0].shape == (1, 4000)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not text exist on Linux only")
def test_a_name_that_is_not_text(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/x\xff.wav"))
    write_audio(path, noise(1, 100), 16000)
    assert audio_info(path).samples == read_audio(path)[0].shape[1] == 100


def test_peaks_never_wrap(tmp_path):
    x = np.array([0.5, 1.5, -1.5, 1.0, -1.0, 3.0], dtype=np.float32)
    assert write_audio(tmp_path / "clip.wav", x, 16000) == 3
    y = read_audio(tmp_path / "clip.wav")[0][0]
    assert np.abs(y - x.clip(-1, 1)).max() <= 2**-15
    assert write_audio(tmp_path / "scale.wav", x, 16000, peaks="scale") == 0
    assert np.abs(read_audio(tmp_path / "scale.wav")[0][0] - x / 3).max() <= 2**-15
    assert write_audio(tmp_path / "float.wav", x, 16000, subtype="FLOAT") == 0
    assert np.array_equal(read_audio(tmp_path / "float.wav")[0][0], x)
    with pytest.raises(AudioError) as error:
        write_audio(tmp_path / "error.wav", x, 16000, peaks="error")
    one_line(error, "error.wav", "peak 3")
    assert not (tmp_path / "error.wav").exists()


@pytest.mark.parametrize(
    "bad, words",
    [
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([np.inf, 0.0]), "NaN or infinite"),
        (np.zeros((1, 0)), ">= 1 sample"),
        (np.zeros((2, 2, 2)), "expected"),
        (np.zeros((48000, 2)), "channels"),
        (np.array([1000, -1000], np.int16), "divide integers by their full scale"),
        (torch.tensor([1, -1]), "divide integers by their full scale"),
        (np.array([0.1 + 0.2j]), "real numbers"),
        (torch.tensor([0.1 + 0.2j]), "real numbers"),
        (np.array([True, False]), "real numbers"),
    ],
)
def test_unwritable_signals_leave_the_old_file(tmp_path, bad, words):
    write_audio(tmp_path / "x.wav", noise(1, 100), 16000)
    before = (tmp_path / "x.wav").read_bytes()
    with pytest.raises(AudioError) as error:
        write_audio(tmp_path / "x.wav", bad, 16000)
    one_line(error, "x.wav", words)
    assert (tmp_path / "x.wav").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "name, kwargs, words",
    [
        ("x.doc", {}, "unknown suffix"),
        ("x", {}, "unknown suffix"),
        ("x.flac", {"subtype": "FLOAT"}, "possible: "),
        ("x.wav", {"peaks": "wrap"}, "known: clip"),
        ("x.opus", {}, "44100 Hz"),
    ],
)
def test_impossible_formats_are_named(tmp_path, name, kwargs, words):
    with pytest.raises(AudioError) as error:
        write_audio(tmp_path / name, noise(1, 100), 44100, **kwargs)
    one_line(error, words)
    assert not list(tmp_path.iterdir())


def test_floats_of_every_width_are_written_alike(tmp_path):
    x = torch.tensor([0.5, -0.25, 0.125])
    for k, samples in enumerate(
        [x.bfloat16(), x.half(), x.double().requires_grad_(), x.tolist(), x.numpy()[::-1][::-1]]
    ):
        write_audio(tmp_path / f"{k}.wav", samples, 16000)
        assert np.array_equal(read_audio(tmp_path / f"{k}.wav")[0], x.numpy()[None])
    with AudioWriter(tmp_path / "x.wav", 16000, 1) as writer:
        with pytest.raises(AudioError, match="divide integers"):
            writer.write(np.ones((1, 3), np.int16))


@pytest.mark.parametrize(
    "name, subtype, bytes_each",
    [("x.wav", "PCM_16", 2), ("x.aiff", "PCM_24", 3), ("x.au", "FLOAT", 4), ("x.wavex", "DOUBLE", 8)],
)
def test_no_file_is_larger_than_its_header_can_say(tmp_path, name, subtype, bytes_each):
    with AudioWriter(tmp_path / name, 16000, 2, subtype) as writer:
        writer.write(noise(2, 10))
        writer.samples = 2**32 // (2 * bytes_each)  # as after hours
        with pytest.raises(AudioError) as error:
            writer.write(noise(2, 10))
        one_line(error, name, "4 GiB", "4.0 GiB", "use .w64, .rf64, .caf or .flac")
        writer.samples -= 1_000_000
        writer.write(noise(2, 10))


def test_a_sample_dump_is_not_longer_than_its_header_can_say(tmp_path):
    with AudioWriter(tmp_path / "x.sds", 16000, 1, "PCM_16") as writer:
        writer.write(noise(1, 10))
        writer.samples = 2**21 - 10
        with pytest.raises(AudioError, match="SDS holds up to 2097151 samples, 2097152 are to be written"):
            writer.write(noise(1, 10))
        writer.samples -= 1
        writer.write(noise(1, 10))


@pytest.mark.parametrize("suffix", [".w64", ".rf64", ".caf", ".flac", ".ogg"])
def test_formats_that_hold_more_are_known(tmp_path, suffix):
    assert suffix in AUDIO_SUFFIXES
    with AudioWriter(tmp_path / f"x{suffix}", 16000, 1) as writer:
        writer.write(noise(1, 100))
        writer.samples = 2**33
        writer.write(noise(1, 100))
    assert audio_info(tmp_path / f"x{suffix}").samples == 200


@pytest.mark.parametrize("count", [0, -1])
def test_a_part_has_a_sample_at_least(tmp_path, count):
    write_audio(tmp_path / "x.wav", noise(1, 100), 16000)
    with pytest.raises(AudioError, match="count must be at least 1"):
        read_audio(tmp_path / "x.wav", count=count)
    with pytest.raises(AudioError, match="count must be at least 1"):
        list(read_blocks(tmp_path / "x.wav", count=count))


def test_writer_leaves_nothing_behind_when_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with AudioWriter(tmp_path / "x.wav", 16000, 1) as writer:
            writer.write(noise(1, 100))
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_listing(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.WAV", "a.flac", "sub/c.opus", "sub/.hidden.wav", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.relative_to(tmp_path).as_posix() for p in list_audio_files(tmp_path)] == ["a.flac", "b.WAV", "sub/c.opus"]
    assert [p.name for p in list_audio_files(tmp_path, recursive=False)] == ["a.flac", "b.WAV"]
    with pytest.raises(AudioError, match="no such folder"):
        list_audio_files(tmp_path / "absent")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    for name in ("open/a.wav", "shut/b.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(AudioError) as error:
        list_audio_files(tmp_path)
    one_line(error, "cannot list", "shut", "Permission denied")
    refused: list[AudioError] = []
    assert [path.name for path in list_audio_files(tmp_path, refused=refused)] == ["a.wav"]
    assert len(refused) == 1 and "shut" in str(refused[0])
    with pytest.raises(AudioError, match="cannot list x*"):
        list_audio_files("x" * 300)


def test_a_format_that_is_not_read_is_found_and_named(tmp_path):
    (tmp_path / "phone.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0 ftypmp42")
    assert [p.name for p in list_audio_files(tmp_path)] == ["phone.m4a"]  # a film lies in a folder for other reasons
    for name in ("phone.m4a", "film.mp4"):
        with pytest.raises(AudioError) as caught:
            read_audio(tmp_path / name)
        one_line(caught, name, f"ffmpeg -i {name} {Path(name).stem}.wav")


@pytest.mark.parametrize("old, new", [(44100, 16000), (16000, 48000), (48000, 16000), (8000, 16000), (44056, 16000)])
def test_resampled_sine(old, new):
    t = np.arange(old) / old
    x = np.stack([np.sin(2 * np.pi * 1000 * t), np.cos(2 * np.pi * 300 * t)])
    y = resample(x, old, new)
    t = np.arange(new) / new
    expected = np.stack([np.sin(2 * np.pi * 1000 * t), np.cos(2 * np.pi * 300 * t)])
    middle = slice(new // 10, -new // 10)
    assert y.shape == (2, new) and y.dtype == np.float32
    assert np.abs(y - expected)[:, middle].max() < 1e-5  # -100 dB


def test_resampling_removes_what_would_alias():
    t = np.arange(48000) / 48000
    y = resample(np.sin(2 * np.pi * 9000 * t), 48000, 16000)
    assert np.abs(y[1000:-1000]).max() < 1e-5


def test_equal_rates_are_the_identity():
    x = noise(1, 10)
    assert resample(x, 16000, 16000) is x
    for rate in (0, -1, 16000.5, float("nan"), float("inf")):
        with pytest.raises(AudioError, match="positive whole number"):
            resample(x, rate, 16000)


def test_direct_and_polyphase_kernels_agree():
    x = noise(2, 4410)
    direct = resampling._direct(x, 441, 160)
    assert np.abs(direct - resample(x, 44100, 16000)).max() < 2e-5


@pytest.mark.parametrize("rate", [767_999, 192_001, 44_056, 22_254])
@pytest.mark.parametrize("there", [True, False])
def test_a_short_signal_costs_no_more_streamed_than_whole(monkeypatch: pytest.MonkeyPatch, rate: int, there: bool):
    """Rates that share no large factor with 16 kHz have blocks of a second; only what is asked for is computed."""
    old, new = (rate, 16000) if there else (16000, rate)
    computed, real = [], resampling._direct

    def counted(*arguments) -> np.ndarray:
        result = real(*arguments)
        computed.append(result.shape[1])
        return result

    monkeypatch.setattr(resampling, "_direct", counted)
    x = noise(1, old // 20)
    stream = StreamingResampler(old, new)
    streamed = np.concatenate([stream.push(x[:, :500]), stream.push(x[:, 500:]), stream.flush()], axis=1)
    assert sum(computed) == streamed.shape[1] == -(-x.shape[1] * new // old)
    np.testing.assert_allclose(streamed, resample(x, old, new), atol=1e-6)


def test_tap_by_tap_memory_is_bounded():
    import tracemalloc

    x = noise(1, 767_999 // 10)
    resampling._kernel_table()
    tracemalloc.start()
    try:
        resample(x, 767_999, 16000)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("old, new", [(44100, 16000), (16000, 44100), (48000, 16000), (8000, 16000), (16000, 22051)])
def test_streamed_resampling_has_no_seam(old, new):
    x = noise(2, 2 * old + 17)
    rng = np.random.default_rng(1)
    stream, pieces, start = StreamingResampler(old, new), [], 0
    while start < x.shape[1]:
        count = int(rng.choice([1, 10, 1000, 30000]))
        pieces.append(stream.push(x[:, start : start + count]))
        start += count
    pieces.append(stream.flush())
    whole = resample(x, old, new)
    streamed = np.concatenate(pieces, axis=1)
    assert streamed.shape == whole.shape
    assert np.abs(streamed - whole).max() < 1e-6


def test_read_at_another_rate(tmp_path):
    x = noise(1, 8000)
    write_audio(tmp_path / "x.wav", x, 8000, subtype="FLOAT")
    y, rate = read_audio(tmp_path / "x.wav", 16000)
    assert rate == 16000 and np.array_equal(y, resample(x, 8000, 16000))


def test_linked_folders_are_listed_and_loops_end(tmp_path):
    for name in ("top/a.wav", "elsewhere/b.wav"):
        write_audio((tmp_path / name), np.full(100, 0.1, np.float32), 16000)
    for name, target in (("one", "elsewhere"), ("two", "elsewhere"), ("loop", "top")):
        os.symlink(tmp_path / target, tmp_path / "top" / name, target_is_directory=True)

    def listed(**options):
        found = list_audio_files(tmp_path / "top", **options)
        return [p.relative_to(tmp_path / "top").as_posix() for p in found]

    assert listed() == ["a.wav", "one/b.wav", "two/b.wav"]
    assert listed(repeats=False) == ["a.wav", "one/b.wav"]  # as a scan: the same recording must not be in two splits
    assert listed(recursive=False) == ["a.wav"]


@pytest.mark.parametrize("length", [230, 246, 255])
def test_the_longest_names_can_be_written(length, tmp_path):
    for letter in "xé":
        stem = letter * ((length - 4) // len(letter.encode()))
        write_audio(tmp_path / f"{stem}.wav", np.full(100, 0.1, np.float32), 16000)
        assert [p.stem for p in tmp_path.iterdir()] == [stem]
        (tmp_path / f"{stem}.wav").unlink()
