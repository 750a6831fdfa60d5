"""Mixtures: exact SNR, purity in (seed, epoch, index), disjoint splits, rooms, errors."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.manifest import write_manifest
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset, mix_at_snr, write_pairs
from dccrn_lib.runtime.errors import AudioError, ConfigError, ManifestError

RATE = 16000


def _write(path, x, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, rate)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones as speech (one frequency a speaker), noise at two rates and channel counts, one room: {kind: entries}."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    speech, noise = [], []
    for i in range(5):
        split = "train" if i < 3 else "valid" if i == 3 else "test"
        for k in range(2):
            t = np.arange(int(RATE * (0.7 + k))) / RATE
            path = _write(root / f"s{i}_{k}.wav", 0.3 * np.sin(2 * np.pi * (200 + 100 * i) * t))
            speech.append(Entry(str(path), "speech", "tones", len(t) / RATE, RATE, split, speaker=f"s{i}"))
    for i, (rate, channels) in enumerate([(16000, 1), (44100, 2), (8000, 1), (16000, 1), (16000, 1)]):
        split = "train" if i < 3 else "valid" if i == 3 else "test"
        path = _write(root / f"n{i}.wav", rng.normal(0, 0.1, (3 * rate, channels)), rate)
        noise.append(Entry(str(path), "noise", "hiss", 3.0, rate, split, recording=f"n{i}", label=f"hiss{i}"))
    rir = np.zeros(4000)
    rir[32], rir[32 + 400], rir[32 + 2000] = 1.0, 0.5, 0.4  # direct, early (25 ms), late (125 ms)
    path = _write(root / "room.wav", rir)
    rooms = [Entry(str(path), "rir", "room", 0.25, RATE, "train", recording="room")]
    return {"speech": speech, "noise": noise, "rir": rooms, "root": root}


def dataset(corpus, split="train", length=20, seed=3, rir=False, **config):
    def of(kind):
        return [e for e in corpus[kind] if e.split == split]

    settings = MixConfig(**{"segment_seconds": 1.0, "rir_probability": 1.0 if rir else 0.0, **config})
    return MixtureDataset(of("speech"), of("noise"), of("rir") if rir else None, settings, seed=seed, length=length)


def test_snr_is_what_was_drawn(corpus):
    for item in (dataset(corpus, level_dbfs=(-30, -25))[i] for i in range(8)):
        clean, noise = item["clean"], item["noisy"] - item["clean"]
        measured = 10 * torch.log10(clean.square().mean() / noise.square().mean())
        assert measured.item() == pytest.approx(item["snr_db"], abs=0.01)
        assert -5 <= item["snr_db"] <= 20


def test_mix_at_snr_refuses_silence():
    with pytest.raises(ConfigError, match="silent"):
        mix_at_snr(np.zeros(8), np.ones(8), 0.0)


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32, np.float64])
def test_mix_at_snr_takes_samples_of_every_kind(kind):
    rng = np.random.default_rng(0)
    clean, noise = ((3000 * rng.standard_normal(8000)).astype(kind) for _ in range(2))
    for snr_db in (-5.0, 5.0, 20.0):
        scaled = mix_at_snr(clean, noise, snr_db)
        assert scaled.dtype == (kind if np.dtype(kind).kind == "f" else np.float64)
        assert 10 * np.log10(clean.var(dtype=float) / scaled.var(dtype=float)) == pytest.approx(snr_db, abs=1e-3)


def test_level_and_peak(corpus):
    for item in (dataset(corpus, level_dbfs=(-20, -20))[i] for i in range(5)):
        level = 10 * torch.log10(item["noisy"].square().mean()).item()
        assert level == pytest.approx(-20, abs=0.05)
    loud = dataset(corpus, level_dbfs=(0, 0))[0]
    assert loud["noisy"].abs().max() <= 0.991 and loud["clean"].abs().max() <= 0.991


def test_pure_function_of_seed_epoch_index(corpus):
    everything = {"babble_probability": 0.3, "speed_probability": 0.5, "equaliser_probability": 0.5, "rir": True}
    first, second = dataset(corpus, **everything), dataset(corpus, **everything)
    backwards = {i: second[i]["noisy"] for i in reversed(range(10))}
    for i in range(10):
        assert torch.equal(first[i]["noisy"], backwards[i])
    assert not torch.equal(first[0]["noisy"], first[1]["noisy"])
    assert not torch.equal(first[0]["noisy"], dataset(corpus, seed=4, **everything)[0]["noisy"])
    assert not torch.equal(first[20]["noisy"], backwards[0])  # index 20 of 20 is index 0 of the next epoch


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_worker_count_changes_no_mixture(corpus, workers):
    items = dataset(corpus, length=6)
    expected = torch.stack([items[i]["noisy"] for i in range(6)])
    got = torch.cat([batch["noisy"] for batch in DataLoader(items, batch_size=2, num_workers=workers)])
    assert torch.equal(got, expected)


def test_pickling_drops_the_cache(corpus):
    items = dataset(corpus)
    expected = items[0]["noisy"]
    copy = pickle.loads(pickle.dumps(items))
    assert copy._cache is None and torch.equal(copy[0]["noisy"], expected)


def test_cache_is_bounded(corpus):
    items = dataset(corpus, length=30)
    items.cache_mb = 0.1
    for i in range(30):
        items[i]
    largest = int(3.1 * RATE) * 2  # one noise file in bytes
    assert items._cache.size <= 0.1 * 2**20 + largest
    assert items._cache.size == sum(x.nbytes for x, _ in items._cache.items.values())


def test_splits_by_manifest(corpus, tmp_path):
    speech = write_manifest(tmp_path / "speech.jsonl", corpus["speech"])
    noise = write_manifest(tmp_path / "noise.jsonl", corpus["noise"])
    seen = {}
    for split in ("train", "valid", "test"):
        items = MixtureDataset(speech, noise, None, MixConfig(segment_seconds=0.5), length=12, split=split)
        seen[split] = {(items[i]["speaker"], items[i]["label"].split("+")[0]) for i in range(12)}
    assert {s for s, _ in seen["valid"]} == {"s3"} and {n for _, n in seen["test"]} == {"hiss4"}
    assert {s for s, _ in seen["train"]} <= {"s0", "s1", "s2"}
    for joined in (f"{speech},{speech}", f" {speech}, {speech} "):  # as one writes a list
        both = MixtureDataset(joined, noise, None, MixConfig(segment_seconds=0.5), split="train")
        assert len(both.planner.speech.entries) == 3


def test_room_keeps_its_early_part_in_the_target(corpus):
    item = dataset(corpus, rir=True, snr_db=(200, 200))[0]  # no audible noise: noisy is the reverberant speech
    late = item["noisy"] - item["clean"]
    # the late echo (0.4 of the direct sound, 2000 samples later) is in the noisy signal only
    assert late[:1900].abs().max() < 1e-3 * item["clean"].abs().max()
    assert late[2100:].abs().max() > 0.1 * item["clean"].abs().max()


def test_other_rates_and_stereo_are_brought_to_16_khz(corpus):
    entries = [e for e in corpus["noise"] if e.sample_rate != RATE]
    items = MixtureDataset(corpus["speech"][:2], entries, None, MixConfig(segment_seconds=1.0), length=6)
    assert all(items[i]["noisy"].shape == (RATE,) and items[i]["noisy"].isfinite().all() for i in range(6))


def test_a_tone_keeps_its_pitch_whatever_its_rate(corpus, tmp_path):
    rate, seconds = 44100, 4
    tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(rate * seconds) / rate)
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([tone, tone], axis=1), rate)
    entry = dataclasses.replace(corpus["noise"][0], path=str(path), seconds=float(seconds), sample_rate=rate)
    item = MixtureDataset(
        corpus["speech"], [entry], None, MixConfig(segment_seconds=1.0, snr_db=(-5.0, -5.0)), length=1
    )[0]
    spectrum = torch.fft.rfft(item["noisy"] - item["clean"]).abs()
    assert spectrum.argmax().item() == pytest.approx(1000, abs=2)  # Hz, of one second


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_all_channels_of_a_recording_are_heard(corpus, tmp_path, rate):
    time = np.arange(4 * rate) / rate
    tones = np.stack([0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (1000, 3000)], axis=1)
    soundfile.write(tmp_path / "tones.wav", tones, rate)
    entry = dataclasses.replace(corpus["noise"][0], path=str(tmp_path / "tones.wav"), seconds=4.0, sample_rate=rate)
    config = MixConfig(segment_seconds=1.0, snr_db=(-5.0, -5.0), second_noise_probability=0.0)
    item = MixtureDataset(corpus["speech"], [entry], None, config, length=1)[0]
    spectrum = torch.fft.rfft(item["noisy"] - item["clean"]).abs()  # by Hz, of one second
    assert spectrum[3000].item() == pytest.approx(spectrum[1000].item(), rel=0.05)


def test_errors_name_the_file(corpus, tmp_path):
    entry = dataclasses.replace(corpus["noise"][0], path=str(tmp_path / "gone.wav"))
    items = MixtureDataset(corpus["speech"], [entry], None, MixConfig(segment_seconds=0.5))
    with pytest.raises(AudioError, match="gone.wav"):
        items[0]
    with pytest.raises(ManifestError, match="no noise"):
        MixtureDataset(corpus["speech"], [])
    silent = _write(tmp_path / "silent.wav", np.zeros(RATE))
    entry = dataclasses.replace(corpus["speech"][0], path=str(silent), seconds=1.0, speaker="mute")
    with pytest.raises(AudioError, match="silent.wav"):
        MixtureDataset([entry], corpus["noise"], None, MixConfig(segment_seconds=0.5))[0]


@pytest.mark.parametrize(
    "bad", [{"segment_seconds": 0}, {"snr_db": (5, -5)}, {"rir_probability": 1.5}, {"level_dbfs": (0, -10)}]
)
def test_config_refuses_values_out_of_range(bad):
    with pytest.raises(ConfigError):
        MixConfig(**bad)


def test_write_pairs(corpus, tmp_path):
    items = dataset(corpus, length=2)
    write_pairs(items, tmp_path / "pairs")
    for i in range(2):
        x, rate = soundfile.read(tmp_path / "pairs" / "noisy" / f"{items[i]['id']}.wav", dtype="float32")
        assert rate == RATE and np.array_equal(x, items[i]["noisy"].numpy())


def test_levels_and_offsets_are_drawn_only_when_asked_for(corpus):
    plain = MixConfig(segment_seconds=0.5, level_dbfs=(-30, -25))
    wide = dataclasses.replace(plain, wide_level_probability=1.0, wide_level_dbfs=(-60, -50))
    offset = dataclasses.replace(plain, offset_probability=1.0)
    sets = [MixtureDataset(corpus["speech"], corpus["noise"], None, c, seed=2) for c in (plain, wide, offset)]
    shifted = 0
    for i in range(6):
        a, b, c = (s[i] for s in sets)
        levels = [20 * np.log10(np.sqrt(np.mean(x["noisy"].numpy() ** 2))) for x in (a, b)]
        assert -30.5 <= levels[0] <= -24.5 and -60.5 <= levels[1] <= -49.5
        # the same mixture, only quieter; the offset is in the input, never in the target
        assert np.corrcoef(a["noisy"], b["noisy"])[0, 1] > 0.9999
        assert abs(float(a["noisy"].mean())) < 1e-3 and abs(float(c["clean"].mean())) < 1e-3
        shifted += abs(float(c["noisy"].mean())) > 1e-3
    assert shifted >= 4


def test_one_silent_recording_of_each_kind_is_left_out_and_named(corpus, tmp_path):
    lists, paths = {}, {}
    for kind in ("speech", "noise", "rir"):
        paths[kind] = str(_write(tmp_path / f"silent_{kind}.wav", np.zeros(RATE)))
        old = corpus[kind][0]
        mute = dataclasses.replace(old, path=paths[kind], seconds=1.0, speaker="mute", recording="mute")
        lists[kind] = [e for e in corpus[kind] if e.split == "train"] + [mute]
    config = MixConfig(segment_seconds=1.0, rir_probability=1.0, babble_probability=0.3)
    items = MixtureDataset(lists["speech"], lists["noise"], lists["rir"], config, seed=1, length=40)
    with pytest.warns(RuntimeWarning, match="is silent, left out") as caught:
        for i in range(40):
            assert torch.isfinite(items[i]["noisy"]).all() and items[i]["clean"].abs().max() > 0
    for path in paths.values():
        assert items.silent[path] > 0 and any(path in str(w.message) for w in caught)


def test_a_slower_voice_is_not_pushed_out_of_the_segment(tmp_path):
    rng = np.random.default_rng(0)
    gated = np.zeros(20 * RATE)  # a second of sound, four seconds of nothing
    for first in range(0, len(gated), 5 * RATE):
        gated[first : first + RATE] = 0.1 * rng.standard_normal(RATE)
    path = _write(tmp_path / "gated.wav", gated)
    speech = [Entry(str(path), "speech", "c", 20.0, RATE, "train", speaker="a")]
    hiss = _write(tmp_path / "hiss.wav", 0.1 * rng.standard_normal(10 * RATE))
    noise = [Entry(str(hiss), "noise", "c", 10.0, RATE, "train", recording="n")]
    config = MixConfig(segment_seconds=2.0, speed_probability=1.0, rir_probability=0.0)
    items = MixtureDataset(speech, noise, None, config, seed=0, length=300)
    speeds = set()
    for i in range(300):
        speeds.add(items.planner.draw(0, i, items.recordings).speed)
        assert items[i]["clean"].abs().max() > 0
    assert None in speeds and (20, 17) in speeds


def test_early_part_of_no_length_is_the_direct_sound(corpus):
    item = dataset(corpus, rir=True, early_ms=0.0, snr_db=(100, 100))[0]
    clean, echoes = item["clean"], item["noisy"] - item["clean"]
    # the early echo, 400 samples after the direct sound, is in the noisy signal only
    assert echoes[:390].abs().max() < 1e-3 * clean.abs().max()
    assert echoes[410:1900].abs().max() > 0.1 * clean.abs().max()
    dry = dataset(corpus, snr_db=(100, 100))[0]["clean"]  # the same voice without a room
    assert (clean @ dry) ** 2 > 0.999 * (clean @ clean) * (dry @ dry)
    with pytest.raises(ConfigError, match="early_ms"):
        MixConfig(early_ms=-1.0)


def test_an_offset_does_not_count_in_the_ratio():
    rng = np.random.default_rng(0)
    clean, noise = (0.05 * rng.standard_normal(16000) for _ in range(2))
    plain = mix_at_snr(clean, noise, 5.0)
    for c, n in ((clean + 0.1, noise), (clean, noise + 0.3), (clean - 0.2, noise + 0.1)):
        scaled = mix_at_snr(c, n, 5.0)
        assert scaled.std() == pytest.approx(plain.std(), rel=1e-6)
        assert 10 * np.log10(c.var() / scaled.var()) == pytest.approx(5.0, abs=1e-3)
    with pytest.raises(ConfigError, match="silent"):
        mix_at_snr(clean, np.full(16000, 0.1), 5.0)


def test_a_constant_recording_is_left_out_like_a_silent_one(tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for name, x in (("constant", np.full(32000, 0.1)), ("voice", 0.1 * rng.standard_normal(32000))):
        soundfile.write(tmp_path / f"{name}.wav", x, 16000)
        entries.append(Entry(str(tmp_path / f"{name}.wav"), "speech", "c", 2.0, 16000, "train", speaker=name))
    noise = Entry(entries[1].path, "noise", "c", 2.0, 16000, "train", recording="n")
    mixtures = MixtureDataset(entries, [noise], None, MixConfig(segment_seconds=0.5, rir_probability=0.0))
    with pytest.warns(RuntimeWarning, match="constant.wav"):
        assert {mixtures[i]["speaker"] for i in range(20)} == {"voice"}
