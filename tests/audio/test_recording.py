"""One rule for every reader: what a recording is, whole or cut, of known length or not, at a rate that can be used."""

from __future__ import annotations

import errno
import io
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dccrn_lib.audio.files import audio_info, list_audio_files, read_audio, read_blocks, write_audio
from dccrn_lib.audio.mp3_frames import _frame, mp3_frames
from dccrn_lib.corpus.decoding import decode
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.scanning import find_audio, probe_audio
from dccrn_lib.runtime.errors import AudioError

RATE = 16000
KINDS = [  # suffix, format and subtype of libsndfile, sampling rate in Hz
    (".wav", "WAV", "PCM_16", RATE),
    (".wav", "WAV", "FLOAT", RATE),
    (".wav", "WAVEX", "PCM_24", RATE),
    (".wav", "WAV", "GSM610", 8000),
    (".wav", "WAV", "G721_32", 8000),
    (".wav", "WAV", "MS_ADPCM", RATE),
    (".wav", "WAV", "NMS_ADPCM_16", 8000),
    (".rf64", "RF64", "PCM_16", RATE),
    (".w64", "W64", "PCM_16", RATE),
    (".aiff", "AIFF", "PCM_16", RATE),
    (".aiff", "AIFF", "GSM610", 8000),
    (".aiff", "AIFF", "DWVW_16", RATE),
    (".au", "AU", "PCM_16", RATE),
    (".au", "AU", "G723_24", 8000),
    (".caf", "CAF", "PCM_16", RATE),
    (".caf", "CAF", "ALAC_16", RATE),
    (".flac", "FLAC", "PCM_16", RATE),
    (".mp3", "MP3", "MPEG_LAYER_III", RATE),
    (".ogg", "OGG", "VORBIS", RATE),
    (".opus", "OGG", "OPUS", RATE),
]
NAMES = [f"{kind[0][1:]}-{kind[2]}" for kind in KINDS]


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))


def written(folder: Path, suffix: str, form: str, subtype: str, rate: int, seconds: float = 4.0) -> Path:
    path = folder / f"x{suffix}"
    soundfile.write(path, noise(seconds, rate), rate, subtype=subtype, format=form)
    return path


def entry(path: Path, seconds: float = 4.0) -> Entry:
    return Entry(str(path), "speech", "made", seconds, RATE, "train", speaker="s")


READ_WHOLE = ("header", "whole", "scan")


def readers(path: Path) -> dict:
    """What each reader of the project says of a file: a length in seconds, or why it cannot be used."""

    def asked(read) -> float | str:
        try:
            return read()
        except AudioError as error:
            return str(error)

    probe = probe_audio(str(path))
    scanned = 1.0 if isinstance(probe, str) else probe[0] / probe[1]  # what a manifest would say
    return {
        "header": asked(lambda: audio_info(path).seconds),
        "whole": asked(lambda: read_audio(path, RATE)[0].shape[1] / RATE),
        "scan": probe if isinstance(probe, str) else probe[0] / probe[1],
        "training": asked(lambda: len(decode(entry(path, scanned), 0.0, 9.0)) / RATE),
    }


def refused(path: Path, *words: str, by: Sequence[str] = ()) -> None:
    for reader, answer in readers(path).items():
        if by and reader not in by:
            continue
        assert isinstance(answer, str), f"{reader} takes {path.name}: {answer} s"
        assert "\n" not in answer
        for word in words:
            assert word in answer, f"{reader}: {answer}"


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_all_readers_take_every_format_alike(tmp_path, kind):
    answers = readers(written(tmp_path, *kind))
    assert not [f"{reader}: {answer}" for reader, answer in answers.items() if isinstance(answer, str)]
    assert max(answers.values()) - min(answers.values()) < 1e-3 and abs(answers["header"] - 4.0) < 0.05
    assert [path.name for path in list_audio_files(tmp_path)] == [Path(path).name for path in find_audio(tmp_path)]
    assert len(find_audio(tmp_path)) == 1


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_part_is_a_part_of_the_whole(tmp_path, kind):
    path = written(tmp_path, *kind)
    whole, rate = read_audio(path)
    part, _ = read_audio(path, start=rate, count=1234)
    assert part.shape == (1, 1234)
    if kind[2] in ("OPUS", "MPEG_LAYER_III", "VORBIS"):  # a decoder that starts in the middle rounds otherwise
        assert np.abs(part - whole[:, rate : rate + 1234]).max() < 0.05
    else:
        assert np.array_equal(part, whole[:, rate : rate + 1234])


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_no_reader_takes_a_recording_without_its_end(tmp_path, kind, fraction):
    path = written(tmp_path, *kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    refused(path)


# ---- length not in the header


def mp3(path: Path, x: np.ndarray, rate: int = RATE, **how) -> tuple[Path, bytes]:
    """An MP3 file, and its bytes without the first frame, which tells its length."""
    with soundfile.SoundFile(path, "w", rate, 1, **how) as file:
        file.write(x)
    data = path.read_bytes()
    size, _ = _frame(data[:4])
    return path, data[size:]


RISING = np.concatenate([1e-4 * noise(5.0), noise(20.0)])  # few bits, then many
VARIABLE = {"bitrate_mode": "VARIABLE", "compression_level": 0.3}


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
def test_the_frames_of_an_mp3_hold_its_length(tmp_path, rate):
    for mode in ("CONSTANT", "AVERAGE", "VARIABLE"):
        path, _ = mp3(tmp_path / "x.mp3", RISING, rate, bitrate_mode=mode, compression_level=0.4)
        found = mp3_frames(path)
        assert found.to_the_end and 0 <= found.samples - len(RISING) < 4 * 1152
        tag = b"ID3\x03\0\0\0\0\x02\x01" + bytes(257)
        path.write_bytes(tag + path.read_bytes() + b"TAG" + bytes(125))
        assert mp3_frames(path) == found and abs(audio_info(path).samples - len(RISING)) <= 1
        path.write_bytes(path.read_bytes()[:-5000])
        assert not mp3_frames(path).to_the_end


def test_an_mp3_of_which_only_a_part_would_be_read_is_refused(tmp_path):
    path, headless = mp3(tmp_path / "talk one.mp3", RISING[::-1], **VARIABLE)
    whole = path.read_bytes()
    path.write_bytes(headless)
    refused(path, "holds some 25.", "would be read", "ffmpeg -i 'talk one.mp3' 'talk one.wav'", by=READ_WHOLE)
    path.write_bytes(whole + whole)
    refused(path, "holds some 50.", "of which only 25.0 s", by=READ_WHOLE)


def test_an_mp3_that_promises_more_than_its_frames_hold_is_not_called_cut_off(tmp_path):
    path, headless = mp3(tmp_path / "x.mp3", RISING, bitrate_mode="VARIABLE", compression_level=0.6)
    whole = path.read_bytes()
    path.write_bytes(headless)
    refused(path, "its length stands in no header", "ffmpeg -i x.mp3 x.wav", by=("header", "scan"))
    refused(path, by=READ_WHOLE)
    at = 0
    while at < len(whole) // 2:
        at += _frame(whole[at : at + 4])[0]
    path.write_bytes(whole[:at])  # between two frames
    refused(path, "is cut off", by=READ_WHOLE)


def of_unknown_length(path: Path) -> Path:
    """A FLAC file as an encoder writes it into a pipe: total samples 0."""
    soundfile.write(path, noise(4.0), RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the last 36 bits of STREAMINFO before its checksum
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path


def test_flac_of_unknown_length_is_read_by_decoding(tmp_path):
    soundfile.write(tmp_path / "known.flac", noise(4.0), RATE)
    path = of_unknown_length(tmp_path / "pipe.flac")
    whole, _ = read_audio(tmp_path / "known.flac")
    assert audio_info(path).samples == 64000
    assert readers(path) == {"header": 4.0, "whole": 4.0, "scan": 4.0, "training": 4.0}
    assert np.array_equal(read_audio(path)[0], whole)
    assert np.array_equal(read_audio(path, start=5000, count=321)[0], whole[:, 5000:5321])
    assert np.array_equal(np.concatenate(list(read_blocks(path, 999)), axis=1), whole)
    assert np.array_equal(decode(entry(path), 1.5, 1.0), whole[0, 24000:40000])
    with pytest.raises(AudioError, match="has 64000 samples, cannot start at 64000"):
        read_audio(path, start=64000)


def test_a_cut_flac_of_unknown_length_ends_where_its_frames_end(tmp_path):
    path = of_unknown_length(tmp_path / "pipe.flac")
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    refused(path)


@pytest.mark.parametrize("data_bytes", [0, 20000])
def test_wav_with_more_audio_than_its_header_says_is_refused(tmp_path, data_bytes):
    path = written(tmp_path, ".wav", "WAV", "PCM_16", RATE)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", data_bytes)
    path.write_bytes(data)
    refused(path, f"{data_bytes} bytes of audio", "ffmpeg -ignore_length 1")
    data[44 + data_bytes : 44 + data_bytes + 8000] = bytes(8000)  # what follows is silent
    path.write_bytes(data)
    refused(path, f"{data_bytes} bytes of audio", "ffmpeg -ignore_length 1")


def an_earlier_moment(data: bytearray, kind: str) -> None:
    """Let a header say that a second of four is there, as a recorder wrote it on the way."""
    places = {
        "aiff": ((data.find(b"COMM") + 10, ">I", RATE), (data.find(b"SSND") + 4, ">I", 8 + 2 * RATE)),
        "caf": ((data.find(b"data") + 4, ">q", 4 + 2 * RATE),),
        "au": ((8, ">I", 2 * RATE),),
        "rf64": ((data.find(b"ds64") + 16, "<Q", 2 * RATE), (data.find(b"ds64") + 24, "<Q", RATE)),
    }
    for place, form, value in places[kind]:
        struct.pack_into(form, data, place, value)


@pytest.mark.parametrize(("kind", "form"), [("aiff", "AIFF"), ("caf", "CAF"), ("au", "AU"), ("rf64", "RF64")])
def test_other_headers_of_an_earlier_moment_are_refused_too(tmp_path, kind, form):
    path = written(tmp_path, f".{kind}", form, "PCM_16", RATE)
    data = bytearray(path.read_bytes())
    assert set(readers(path).values()) == {4.0}
    an_earlier_moment(data, kind)
    path.write_bytes(data)
    refused(path, "bytes of audio", f"{'ffmpeg -ignore_length' if kind == 'rf64' else 'raw data'}")


def test_chunks_behind_the_audio_are_no_audio(tmp_path):
    path = written(tmp_path, ".wav", "WAV", "PCM_16", RATE)
    whole = path.read_bytes()
    tags = b"LIST" + struct.pack("<I", 4000) + b"INFO" + bytes(3996)
    for behind in (tags, b"ID3\x04" + os.urandom(5000), b"TAG" + bytes(125), bytes(500)):
        path.write_bytes(whole + behind)
        assert set(readers(path).values()) == {4.0}
    odd = bytearray(whole[:44] + whole[44:-1] + tags)  # no byte that would make the length even
    odd[40:44] = struct.pack("<I", 127_999)
    path.write_bytes(odd)
    assert not [answer for answer in readers(path).values() if isinstance(answer, str)]


def test_a_sector_filled_up_and_a_tag_cut_off_are_no_audio(tmp_path):
    path = written(tmp_path, ".wav", "WAV", "PCM_16", RATE)
    whole = path.read_bytes()
    for behind in (bytes(4096), b"LIST" + struct.pack("<I", 9000) + b"INFO" + b"text" * 1000):
        path.write_bytes(whole + behind)
        assert set(readers(path).values()) == {4.0}


def test_flac_files_joined_are_refused_since_only_the_first_would_be_read(tmp_path):
    path = written(tmp_path, ".flac", "FLAC", "PCM_16", RATE)
    path.write_bytes(path.read_bytes() * 3)
    refused(path, "is 3 files joined", by=READ_WHOLE)


@pytest.mark.parametrize("seconds", [0.5, 3.0, 9.0])
def test_a_part_near_the_end_of_vorbis_is_where_it_belongs(tmp_path, seconds):
    path = written(tmp_path, ".ogg", "OGG", "VORBIS", RATE, seconds)
    whole, _ = read_audio(path)
    for start in range(int(seconds * RATE) - 6000, int(seconds * RATE) - 300, 700):
        part, _ = read_audio(path, start=start, count=300)
        assert np.abs(part - whole[:, start : start + 300]).max() < 0.05


# ---- Ogg streams


def ogg(seconds: float, subtype: str) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, noise(seconds), RATE, format="OGG", subtype=subtype)
    return data.getvalue()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chain_of_ogg_streams_is_refused_since_only_its_first_would_be_read(tmp_path, subtype):
    path = tmp_path / "radio.ogg"
    path.write_bytes(ogg(3.0, subtype) + ogg(1.0, subtype))
    refused(path, "2 streams", "ffmpeg -i radio.ogg radio.wav")
    path.write_bytes(ogg(3.0, subtype) * 3)  # the same serial number thrice
    refused(path, "3 streams")


def test_ogg_with_a_hole_is_refused(tmp_path):
    path, data = tmp_path / "x.ogg", ogg(6.0, "VORBIS")
    pages = [at for at in range(len(data) - 4) if data[at : at + 4] == b"OggS"]
    path.write_bytes(data[: pages[3] + 100] + data[pages[3] + 700 :])
    refused(path, "damaged")


# ---- rates, values, things that are no files


@pytest.mark.parametrize("rate", [1, 7, 999, 768_001, 1_000_003, 100_000_007])
def test_odd_rates_are_refused_by_every_reader(tmp_path, rate):
    soundfile.write(tmp_path / "odd.wav", noise(1.0), rate)
    refused(tmp_path / "odd.wav", f"{rate} Hz", "1000 to 768000 Hz")


@pytest.mark.parametrize("rate", [1000, 768_000])
def test_the_outermost_rates_are_read(tmp_path, rate):
    soundfile.write(tmp_path / "x.wav", noise(0.05, rate), rate)
    assert {round(answer, 3) for answer in readers(tmp_path / "x.wav").values()} == {0.05}


@pytest.mark.parametrize(
    ("value", "words"), [(1e25, "1e+25 at index 5"), (-1e12, "-1e+12 at index 5"), (np.nan, "index 5"), (np.inf, "5")]
)
def test_values_that_are_no_sound_are_refused_by_every_reader(tmp_path, value, words):
    x = noise(4.0)
    x[5] = value
    soundfile.write(tmp_path / "x.wav", x, RATE, subtype="DOUBLE")
    answers = readers(tmp_path / "x.wav")
    assert answers.pop("header") == 4.0  # the header says nothing about it
    for answer in answers.values():
        assert isinstance(answer, str) and words in answer


def test_floats_in_units_of_integers_are_sound(tmp_path):
    for full_scale in (2.0**15, 2.0**31):
        soundfile.write(tmp_path / "x.wav", full_scale * noise(4.0), RATE, subtype="FLOAT")
        assert set(readers(tmp_path / "x.wav").values()) == {4.0}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a thing of Unix")
def test_a_pipe_is_named_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "live.wav")
    answers: list[dict] = []
    asking = threading.Thread(target=lambda: answers.append(readers(tmp_path / "live.wav")), daemon=True)
    asking.start()
    asking.join(10)
    assert answers, "a reader waits for the other end of the pipe"
    for answer in answers[0].values():
        assert isinstance(answer, str) and "is a pipe" in answer and "a file first" in answer


@pytest.mark.parametrize(
    "name, rate, held",
    [
        ("a.wve", 16000, "8000 Hz"),
        ("a.xi", 16000, "44100 Hz"),
        ("a.svx", 96000, "30464 Hz"),
        ("a.htk", 44100, "44247 Hz"),
    ],
)
def test_a_format_that_would_play_at_another_speed_is_refused(tmp_path, name, rate, held):
    with pytest.raises(AudioError, match=f"would hold {rate} Hz as {held}; use .wav"):
        write_audio(tmp_path / name, np.zeros((1, 100), np.float32), rate)
    assert not list(tmp_path.iterdir())


def test_channels_that_end_the_vorbis_encoder_are_refused(tmp_path):
    with pytest.raises(AudioError, match="no more than 255 channels"):
        write_audio(tmp_path / "a.ogg", np.zeros((256, 100), np.float32), 16_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [352_800, 768_000])
def test_rates_that_end_the_vorbis_encoder_are_refused(tmp_path, rate):
    with pytest.raises(AudioError, match="no more than 200000 Hz"):
        write_audio(tmp_path / "a.ogg", np.zeros((1, 100), np.float32), rate)
    assert not list(tmp_path.iterdir())
    write_audio(tmp_path / "a.ogg", np.zeros((1, 100), np.float32), 192_000)
    assert soundfile.info(tmp_path / "a.ogg").samplerate == 192_000


@pytest.mark.parametrize("name", ["x.wav", "x.aiff", "x.au", "x.w64", "x.rf64", "x.mp3"])
def test_a_long_recording_that_lacks_a_second_is_refused_too(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, noise(100), RATE)
    assert not [answer for answer in readers(path).values() if isinstance(answer, str)]
    data = path.read_bytes()
    path.write_bytes(data[: int(0.985 * len(data))])
    refused(path, "cut off", by=READ_WHOLE)


def test_a_long_recording_whose_header_lacks_the_last_second_is_refused(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(100), RATE)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 2 * 99 * RATE)
    path.write_bytes(data)
    refused(path, f"{2 * 99 * RATE} bytes of audio", "ffmpeg -ignore_length 1")


def test_what_the_system_does_not_let_one_read_is_not_called_corrupt(tmp_path, monkeypatch):
    path, ask = written(tmp_path, ".wav", "WAV", "PCM_16", RATE), open

    def denied(file, *rest, **more):  # root may read everything
        if file == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return ask(file, *rest, **more)

    def not_told(*_):  # all that libsndfile says of it
        raise soundfile.LibsndfileError(2, f"Error opening {path}: ")

    monkeypatch.setattr("builtins.open", denied)
    monkeypatch.setattr("dccrn_lib.audio.recording._decoder", not_told)
    with pytest.raises(AudioError, match=r"cannot read .*Permission denied") as caught:
        audio_info(path)
    assert "corrupt" not in str(caught.value)
