"""Packed corpora: alignment, length and closeness of the codecs, what manifests carry over, mixtures, failures."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
import soundfile
import torch

from dccrn_lib.cli import main as cli
from dccrn_lib.corpus.decoding import decode
from dccrn_lib.corpus.entry import Entry, parse_entry
from dccrn_lib.corpus.manifest import read_manifest, write_manifest
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.corpus.packing import encode, pack_corpus, unpack_corpus
from dccrn_lib.corpus.shards import ByteRange, member_bytes, open_audio, shard_of
from dccrn_lib.corpus.synthesis.corpus import generated_corpus
from dccrn_lib.runtime.errors import AudioError, ConfigError, ManifestError
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.loop import train

RATE = 16000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Manifests of generated speech, noise and rooms (16-bit wav at 16 kHz)."""
    made = generated_corpus(0.02, root=tmp_path_factory.mktemp("generated"), progress=False)
    return [made.speech, made.noise, made.rir]


def pack(manifests, out, **options):
    return pack_corpus(manifests, out, workers=1, progress=False, **options)


@pytest.fixture(scope="module")
def flac(corpus, tmp_path_factory):
    """The corpus as FLAC, in shards of about 1 MiB."""
    folder = tmp_path_factory.mktemp("flac") / "packed"
    pack(corpus, folder, codec="flac", shard_mb=1)
    return folder


def speech_like(seconds: float) -> np.ndarray:
    """Harmonics of a gliding pitch whose level moves like syllables, over a little noise: float32 (sample,)."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    x = sum(np.sin(k * phase + k) / k**1.2 for k in range(1, 25)) * (0.02 + np.sin(2 * np.pi * 2 * t) ** 2)
    return (0.3 * x / np.abs(x).max() + 0.001 * rng.standard_normal(len(t))).astype(np.float32)


def delay(x: np.ndarray, y: np.ndarray) -> int:
    """Samples by which y comes later than x, by cross-correlation."""
    size = 2 * max(len(x), len(y))
    correlation = np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)))
    lag = int(np.argmax(correlation))
    return lag if lag < size // 2 else lag - size


# ---- codecs


@pytest.mark.parametrize("samples", [160, 4001, 48123])
@pytest.mark.parametrize(("codec", "least_snr_db"), [("opus", 20.0), ("vorbis", 20.0), ("flac", 200.0)])
def test_a_codec_keeps_length_alignment_and_waveform(codec, least_snr_db, samples):
    x = np.round(speech_like(4.0)[8000 : 8000 + samples] * 32768) / 32768
    y, rate = soundfile.read(io.BytesIO(encode(x, codec)), dtype="float32")
    assert (rate, len(y)) == (RATE, len(x))
    if samples > 1000:  # a codec's first 10 ms are worse
        assert delay(x, y) == 0
        error = np.sum((x - y) ** 2) + 1e-30
        assert 10 * np.log10(np.sum(x**2) / error) > least_snr_db
    if codec == "flac":
        assert np.array_equal(x, y)


@pytest.mark.parametrize("bitrate", [16, 32, 96])
def test_opus_has_the_bitrate_asked_for(bitrate):
    size = len(encode(speech_like(8.0) + 0.01 * np.random.default_rng(1).standard_normal(8 * RATE), "opus", bitrate))
    assert size * 8 / 8.0 / 1000 == pytest.approx(bitrate, rel=0.2)


def test_flac_holds_beyond_full_scale_at_the_limit():
    y, _ = soundfile.read(io.BytesIO(encode(np.array([0.5, 1.5, -1.5]), "flac")))
    assert y == pytest.approx([0.5, 1.0, -1.0], abs=1 / 32768)


def test_spectra_of_generated_speech_stay_close(corpus):
    """Opus at 32 kbit/s: SNR above 15 dB each, and above 22 dB in the median (measured 17.5 to 30)."""
    ratios = []
    for entry in read_manifest(corpus[0])[::4]:
        x = decode(entry, 0.0, entry.seconds + 1)
        y, _ = soundfile.read(io.BytesIO(encode(x, "opus")), dtype="float32")
        ratios.append(10 * np.log10(np.sum(x**2) / np.sum((x - y) ** 2)))
    assert min(ratios) > 15 and np.median(ratios) > 22


# ---- a packed corpus


def test_manifests_carry_everything_over(corpus, flac):
    for path in corpus:
        before, after = read_manifest(path), read_manifest(flac / path.name)
        assert len(before) == len(after)
        for a, b in zip(before, after, strict=True):
            assert dataclasses.replace(b, path=a.path, offset=None, bytes=None, sample_rate=a.sample_rate) == a
            assert b.path.split("::")[0].endswith(".tar") and b.sample_rate == RATE


def test_shards_are_plain_tars_of_about_the_size_asked_for(corpus, flac):
    shards = sorted(flac.glob("speech-*.tar"))
    assert len(shards) > 1
    assert all(shard.stat().st_size < 1.5 * 2**20 for shard in shards)
    entries = read_manifest(flac / "speech.jsonl")
    for shard in shards:
        with tarfile.open(shard) as tar:
            mine = {e.path.split("::")[1]: e for e in entries if shard_of(e) == str(shard)}
            assert sorted(mine) == sorted(tar.getnames())
            for member in tar:
                assert (member.offset_data, member.size) == (mine[member.name].offset, mine[member.name].bytes)
                assert tar.extractfile(member).read() == member_bytes(mine[member.name])


def test_packing_twice_gives_the_same_bytes(corpus, flac, tmp_path):
    pack_corpus(corpus, tmp_path / "again", codec="flac", shard_mb=1, workers=2, progress=False)
    names = sorted(p.name for p in flac.iterdir())
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == names
    assert all((flac / n).read_bytes() == (tmp_path / "again" / n).read_bytes() for n in names)


def test_mixtures_of_a_flac_pack_are_those_of_the_files(corpus, flac):
    settings = {"config": MixConfig(segment_seconds=1.0, babble_probability=0.3), "seed": 3, "split": "train"}
    files = MixtureDataset(*corpus, **settings)
    packed = MixtureDataset(*[flac / p.name for p in corpus], **settings)
    for i in range(12):
        a, b = files[i], packed[i]
        assert torch.equal(a["noisy"], b["noisy"]) and torch.equal(a["clean"], b["clean"])
        assert all(a[k] == b[k] for k in ("snr_db", "label", "speaker", "id"))


def test_long_members_are_sought_in(tmp_path):
    x = np.round(np.tile(speech_like(10.0), 7) * 32768) / 32768  # 70 s
    soundfile.write(tmp_path / "long.wav", x, RATE)
    entry = Entry(str(tmp_path / "long.wav"), "noise", "c", len(x) / RATE, RATE, "train", recording="r")
    short = dataclasses.replace(entry, seconds=1.0, recording="s")
    write_manifest(tmp_path / "noise.jsonl", [short, entry])
    pack([tmp_path / "noise.jsonl"], tmp_path / "out", codec="flac")
    member = read_manifest(tmp_path / "out" / "noise.jsonl")[1]
    assert np.array_equal(decode(member, 61.5, 2.0), x[984000 : 984000 + 32000].astype(np.float32))
    with open_audio(member) as recording:
        assert recording.samples == len(x)


def test_other_rates_and_stereo_become_mono_at_16_khz(tmp_path):
    t = np.arange(2 * 44100) / 44100
    soundfile.write(tmp_path / "a.wav", np.stack([0.5 * np.sin(2 * np.pi * 440 * t), 0 * t], 1), 44100)
    stereo = Entry(str(tmp_path / "a.wav"), "speech", "c", 2.0, 44100, "train", speaker="s")
    write_manifest(tmp_path / "speech.jsonl", [stereo])
    pack([tmp_path / "speech.jsonl"], tmp_path / "out", codec="flac")
    (entry,) = read_manifest(tmp_path / "out" / "speech.jsonl")
    y = decode(entry, 0.0, 3.0)
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    assert len(y) == 2 * RATE
    assert np.abs(y - expected)[100:-100].max() < 1e-3


def test_rooms_stay_exact_beside_opus(corpus, tmp_path):
    speech = write_manifest(tmp_path / "speech.jsonl", read_manifest(corpus[0])[:5])
    pack([speech, corpus[2]], tmp_path / "out", bitrate=16)
    rooms = zip(read_manifest(corpus[2]), read_manifest(tmp_path / "out" / corpus[2].name), strict=True)
    assert all(np.array_equal(decode(a, 0, 9), decode(b, 0, 9)) for a, b in rooms)
    packed = read_manifest(tmp_path / "out" / "speech.jsonl")
    assert packed[0].path.endswith(".opus")
    assert sum(e.bytes for e in packed) < 0.1 * sum(os.path.getsize(e.path) for e in read_manifest(speech))


def test_training_reads_shards(corpus, flac, tmp_path):
    losses = []
    for name, manifests in (("files", corpus), ("shards", [flac / p.name for p in corpus])):
        c = TrainConfig(
            str(tmp_path / name),
            *map(str, manifests),
            model="distil_dccrn_mini",
            steps=2,
            batch_size=2,
            valid_every=2,
            valid_mixtures=1,
            mix=MixConfig(segment_seconds=0.5),
        )
        losses.append(train(c, progress=False).history["train"][-1])
    assert losses[0] == losses[1]


def test_unpacking_gives_the_members_back(corpus, flac, tmp_path):
    manifests = [flac / p.name for p in corpus]
    unpack_corpus(manifests, tmp_path / "files", progress=False)
    for path in manifests:
        for a, b in zip(read_manifest(path), read_manifest(tmp_path / "files" / path.name), strict=True):
            assert open(b.path, "rb").read() == member_bytes(a)
            assert dataclasses.replace(a, path=b.path, offset=None, bytes=None) == b


# ---- failures


def test_bad_files_are_listed_and_stop_nothing(corpus, tmp_path):
    good = read_manifest(corpus[0])[:2]
    (tmp_path / "text.wav").write_text("no audio")
    bad = [dataclasses.replace(good[0], path=str(tmp_path / name)) for name in ("text.wav", "missing.wav")]
    write_manifest(tmp_path / "speech.jsonl", [bad[0], *good, bad[1]])
    report = pack([tmp_path / "speech.jsonl"], tmp_path / "out")
    assert [os.path.basename(path) for path, _ in report.bad] == ["text.wav", "missing.wav"]
    assert "missing.wav" in (tmp_path / "out" / "speech.jsonl.bad.txt").read_text()
    assert len(read_manifest(tmp_path / "out" / "speech.jsonl")) == 2
    write_manifest(tmp_path / "bad.jsonl", bad)
    with pytest.raises(ManifestError, match="bad.jsonl: none of its files"):
        pack([tmp_path / "bad.jsonl"], tmp_path / "none")
    assert not (tmp_path / "none").exists() and not list(tmp_path.glob(".none*"))


def test_nothing_is_overwritten_and_failure_leaves_nothing(corpus, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ManifestError, match="not an empty folder"):
        pack(corpus, tmp_path / "full")
    with pytest.raises(ManifestError, match="not an empty folder"):
        unpack_corpus([], tmp_path / "full")
    assert [p.name for p in tmp_path.rglob("*.*")] == ["mine.txt"]
    monkeypatch.setattr("dccrn_lib.corpus.packing.write_manifest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(corpus[2:], tmp_path / "broken")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_wrong_values_are_named(corpus, flac, tmp_path):
    for options, message in (
        ({"codec": "opsu"}, "unknown codec 'opsu'; did you mean opus"),
        ({"bitrate": 300}, "bitrate must lie in"),
        ({"shard_mb": 0}, "shard_mb must be above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            pack(corpus, tmp_path / "out", **options)
    with pytest.raises(ConfigError, match="two manifests are named speech"):
        pack([corpus[0], flac / "speech.jsonl"], tmp_path / "out")
    with pytest.raises(ManifestError, match="speech.jsonl: is not packed"):
        unpack_corpus(corpus[:1], tmp_path / "out", progress=False)
    with pytest.raises(ManifestError, match="offset and bytes must be whole numbers"):
        line = '{"path": "s.tar::a.flac", "kind": "rir", "seconds": 1, "sample_rate": 16000, "split": "train"'
        parse_entry(line + ', "offset": 5}', "m, line 1", "/m")


def test_a_cut_or_missing_shard_is_named(corpus, tmp_path):
    pack(corpus[2:], tmp_path / "out", codec="flac")
    manifest = tmp_path / "out" / corpus[2].name
    last = read_manifest(manifest)[-1]
    os.truncate(shard_of(last), last.offset + 30)
    with pytest.raises(AudioError, match="cannot read .*tar::"):
        decode(last, 0.0, 1.0)
    with pytest.raises(ManifestError, match="is cut off; copy"):
        unpack_corpus([manifest], tmp_path / "files", progress=False)
    os.unlink(shard_of(last))
    with pytest.raises(AudioError, match=r"cannot read .*\.tar \(No such file"):
        decode(last, 0.0, 1.0)


def test_byte_range_reads_like_a_file(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(50)))
    with ByteRange(str(tmp_path / "f"), 10, 20) as part:
        assert part.read() == bytes(range(10, 30)) and part.read() == b""
        assert (part.seek(-5, io.SEEK_END), part.read(99)) == (15, bytes(range(25, 30)))
        part.seek(0)
        assert (part.read(4), part.tell(), part.seek(2, io.SEEK_CUR)) == (bytes(range(10, 14)), 4, 6)


def test_command_line(corpus, tmp_path, capsys):
    out, files = tmp_path / "packed", tmp_path / "files"
    argv = ["corpus", "pack", str(corpus[2]), "--out", str(out), "--codec", "vorbis", "--shard-mb", "1"]
    argv += ["--workers", "1", "--quiet"]
    assert cli.main(argv) == 0
    assert "files, " in capsys.readouterr().out
    assert cli.main(argv) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert cli.main(["corpus", "unpack", str(out / corpus[2].name), "--out", str(files), "--quiet"]) == 0
    assert len(read_manifest(files / corpus[2].name)) == len(read_manifest(corpus[2]))


# ---- recordings beyond full scale, or far below


@pytest.mark.parametrize(("codec", "least_snr_db"), [("opus", 15.0), ("vorbis", 15.0), ("flac", 70.0)])
@pytest.mark.parametrize("peak", [4.0, 32768.0, 1e-5])
def test_nothing_is_clipped_or_drowned_in_the_steps_of_16_bits(tmp_path, codec, least_snr_db, peak):
    x = speech_like(4.0)
    x *= np.float32(peak / np.abs(x).max())
    soundfile.write(tmp_path / "loud.wav", x, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "usual.wav", x / np.float32(2 * peak), RATE)
    soundfile.write(tmp_path / "room.wav", x[:4000] / np.abs(x[:4000]).max() * peak, RATE, subtype="FLOAT")
    for kind, names in (("speech", ("loud", "usual")), ("rir", ("room",))):
        named = {"speaker": "s"} if kind == "speech" else {"recording": "r"}
        files = [
            Entry(str(tmp_path / f"{name}.wav"), kind, "c", 0.25 if name == "room" else 4.0, RATE, "train", **named)
            for name in names
        ]
        write_manifest(tmp_path / f"{kind}.jsonl", files)
    manifests = [tmp_path / "speech.jsonl", tmp_path / "rir.jsonl"]
    pack(manifests, tmp_path / "out", codec=codec)
    unpack_corpus([tmp_path / "out" / p.name for p in manifests], tmp_path / "files", progress=False)
    for folder in ("out", "files"):
        for manifest in manifests:
            packed = read_manifest(tmp_path / folder / manifest.name)
            for before, after in zip(read_manifest(manifest), packed, strict=True):
                a, b = decode(before, 0.0, 9.0), decode(after, 0.0, 9.0)
                assert 10 * np.log10(np.sum(a**2) / np.sum((a - b) ** 2)) > least_snr_db
                assert after.scale == (None if "usual" in before.path else pytest.approx(peak))


def test_a_scale_that_is_none_is_named(tmp_path):
    for scale in (0, -1, "loud", float("nan"), True):
        line = {"path": "a.wav", "kind": "speech", "seconds": 1, "sample_rate": 16000, "split": "train", "scale": scale}
        with pytest.raises(ManifestError, match="scale must be a positive number"):
            parse_entry(json.dumps(line), "m.jsonl, line 1", "/")


def test_a_shard_of_another_packing_or_with_a_hole_is_named(flac, tmp_path):
    packed = tmp_path / "packed"
    shutil.copytree(flac, packed)
    shards = sorted(packed.glob("*-000.tar"))
    whole = {shard: shard.read_bytes() for shard in shards}
    speech = packed / "speech-000.tar"
    for data in (whole[packed / "noise-000.tar"], bytes(len(whole[speech]))):
        speech.write_bytes(data)
        with pytest.raises(ManifestError, match=r"damaged or of another packing; copy .*speech-000.tar"):
            unpack_corpus([packed / "speech.jsonl"], tmp_path / "files", progress=False)
        assert not (tmp_path / "files").exists()
