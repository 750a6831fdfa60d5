"""The generated corpus: disjoint splits, the same samples every time, sane levels, all or nothing on disk."""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dccrn_lib.corpus.entry import SPLITS
from dccrn_lib.corpus.manifest import read_manifest, total_hours
from dccrn_lib.corpus.synthesis import corpus as synthesis
from dccrn_lib.corpus.synthesis.corpus import CorpusPaths, synthesise_corpus
from dccrn_lib.corpus.synthesis.noise import LABELS, make_babble, make_noise
from dccrn_lib.corpus.synthesis.noise_kinds import NOISE_KINDS
from dccrn_lib.corpus.synthesis.rooms import make_room
from dccrn_lib.corpus.synthesis.signals import convolve, set_level, shaped_noise, slow_curve, write_wav
from dccrn_lib.corpus.synthesis.speech import ACCENTS, VARIANTS, espeak, expand, load_sentences, make_voices
from dccrn_lib.runtime.errors import ConfigError

needs_speech = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("espeakng_loader", "pyroomacoustics")),
    reason="the extra `speech` (espeakng-loader, pyroomacoustics) is not installed",
)
HOURS = 0.02


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A small corpus made in this process."""
    return synthesise_corpus(tmp_path_factory.mktemp("generated") / "one", HOURS, workers=1, progress=False)


def entries(corpus):
    return [e for path in (corpus.speech, corpus.noise, corpus.rir) for e in read_manifest(path)]


def digests(corpus):
    return {
        str(path.relative_to(corpus.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(corpus.root.rglob("*"))
        if path.is_file()
    }


@needs_speech
def test_every_split_has_voices_all_noises_and_rooms(corpus):
    for split in SPLITS:
        speech = read_manifest(corpus.speech, split, "speech")
        assert len({e.speaker for e in speech}) >= 6
        assert len({e.language for e in speech}) >= 3
        assert {e.label for e in read_manifest(corpus.noise, split, "noise")} == set(LABELS)
        assert len(read_manifest(corpus.rir, split, "rir")) >= 4
    assert len(LABELS) >= 10
    assert 0.9 * HOURS < total_hours(read_manifest(corpus.speech)) < 2 * HOURS


@needs_speech
def test_speakers_and_recordings_are_disjoint_between_splits(corpus):
    seen = {split: {e.group for e in entries(corpus) if e.split == split} for split in SPLITS}
    assert not seen["train"] & seen["valid"] and not seen["train"] & seen["test"] and not seen["valid"] & seen["test"]
    assert all(f"/{e.split}/" in e.path for e in entries(corpus))
    hashes = list(digests(corpus).values())
    assert len(set(hashes)) == len(hashes)  # no file twice, so no seed is used twice


@needs_speech
def test_files_are_16_khz_mono_finite_and_neither_silent_nor_clipped(corpus):
    for entry in entries(corpus):
        x, rate = soundfile.read(entry.path)
        assert (rate, x.ndim) == (16000, 1) and entry.sample_rate == 16000
        assert len(x) / rate == pytest.approx(entry.seconds, abs=1e-3)
        assert np.isfinite(x).all()
        level = 20 * np.log10(np.sqrt(np.mean(x**2)))
        if entry.kind == "rir":
            assert np.abs(x).max() == pytest.approx(0.99, abs=1e-3)
            assert int(np.abs(x).argmax()) in range(30, 35)  # 2 ms before the direct sound
            assert 0.15 < entry.seconds < 1.0
        else:
            assert np.abs(x).max() <= 0.9 + 1e-3, entry.path
            assert -45 < level < -15, (entry.path, level)


@needs_speech
def test_babble_is_made_of_its_own_split(tmp_path):
    speech = {
        split: [
            synthesis.Entry(f"/{split}/{n}.wav", "speech", "c", 1.0, 16000, split, speaker=f"{split}{n}")
            for n in range(12)
        ]
        for split in SPLITS
    }
    tasks = synthesis.plan_noises(tmp_path, 1.0, 0, speech)
    assert {task.label for task in tasks} == {"babble"}
    for task in tasks:
        split = Path(task.path).parent.name
        assert len(set(task.speech)) == len(task.speech) >= 4
        assert all(path.startswith(f"/{split}/") for path in task.speech)


@needs_speech
def test_the_same_audio_for_one_and_for_two_workers(corpus, tmp_path):
    again = synthesise_corpus(tmp_path / "two", HOURS, workers=2, progress=False)
    assert digests(again) == digests(corpus)


@needs_speech
def test_another_seed_gives_other_audio(corpus):
    one, other = (synthesis.plan_voices(Path("/x"), HOURS, seed)[0] for seed in (0, 1))
    assert one.voice != other.voice and one.seed != other.seed
    a, b = (make_room(np.random.default_rng(seed))[0] for seed in (0, 1))
    assert len(a) != len(b)


@needs_speech
def test_a_second_call_returns_at_once_and_another_configuration_is_refused(corpus, monkeypatch):
    monkeypatch.setattr(synthesis, "_generate", lambda *_: pytest.fail("generated again"))
    assert synthesise_corpus(corpus.root, HOURS, progress=False) == corpus
    with pytest.raises(ConfigError, match="hours 0.02 instead of 0.5.*another folder or delete"):
        synthesise_corpus(corpus.root, 0.5)
    with pytest.raises(ConfigError, match="seed 0 instead of 7"):
        synthesise_corpus(corpus.root, HOURS, seed=7)


@needs_speech
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch, error):
    def interrupted(task):
        Path(task.path).parent.mkdir(parents=True, exist_ok=True)
        Path(task.path).write_bytes(b"half")
        raise error("stopped")

    monkeypatch.setattr(synthesis, "speak_voice", lambda task: [(f"{task.folder}/0.wav", 1.0)])
    monkeypatch.setattr(synthesis, "write_noise", interrupted)
    with pytest.raises(error):
        synthesise_corpus(tmp_path / "c", HOURS, workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


@needs_speech
def test_folders_that_hold_something_else_are_left_alone(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "corpus.json").write_text("{")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "corpus.json").write_text((corpus.root / "corpus.json").read_text())
    for name, said in (
        ("mine", "not a generated corpus"),
        ("file", "is a file"),
        ("broken", "cannot be read"),
        ("bare", "manifests are missing"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            synthesise_corpus(tmp_path / name, HOURS, progress=False)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear diary"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare", "broken", "file", "mine"]


@needs_speech
def test_the_faster_of_two_processes_wins(corpus, tmp_path, monkeypatch):
    def overtaken(root, *_):
        (root / "marker").write_text("slower")
        (tmp_path / "c").symlink_to(corpus.root, target_is_directory=True)

    monkeypatch.setattr(synthesis, "_generate", overtaken)
    made = synthesise_corpus(tmp_path / "c", HOURS, progress=False)
    assert made.complete and not (made.root / "marker").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_wrong_values_and_missing_packages_are_told_in_one_line(tmp_path, monkeypatch):
    for hours in (0, -1, float("nan"), 1e9, "1"):
        with pytest.raises(ConfigError, match="hours must lie"):
            synthesise_corpus(tmp_path / "c", hours)
    for seed in (-1, 0.5, True):
        with pytest.raises(ConfigError, match="seed must be"):
            synthesise_corpus(tmp_path / "c", 0.1, seed=seed)
    with pytest.raises(ConfigError, match="workers must be"):
        synthesise_corpus(tmp_path / "c", 0.1, workers=0)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[speech\]'"):
        synthesise_corpus(tmp_path / "c", 0.1, progress=False)
    assert list(tmp_path.iterdir()) == []


@needs_speech
@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_speech_is_the_same_from_a_folder_with_a_long_name(tmp_path, monkeypatch):
    import espeakng_loader

    usual = espeak("one two", "en-us")
    long = tmp_path / ("n" * 120) / "espeak-ng-data"
    shutil.copytree(espeakng_loader.get_data_path(), long)
    assert len(str(long)) > 160
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(long))
    assert np.array_equal(espeak("one two", "en-us"), usual)


@needs_speech
def test_missing_room_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(ConfigError, match="pyroomacoustics"):
        synthesise_corpus(tmp_path / "c", 0.1, progress=False)


@needs_speech
def test_generated_corpus_lies_under_its_size_and_seed(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        synthesis, "synthesise_corpus", lambda out, **how: asked.append((out, how)) or CorpusPaths.of(out)
    )
    monkeypatch.setenv("DCCRN_GENERATED", str(tmp_path / "generated"))
    assert synthesis.generated_corpus(0.5, seed=3, progress=False).root == tmp_path / "generated" / "h0.5_s3"
    assert synthesis.generated_corpus(1, root=tmp_path, progress=False).root == tmp_path / "h1_s0"
    assert asked[0][1] == {"hours": 0.5, "seed": 3, "progress": False}


@needs_speech
def test_the_record_says_what_made_the_corpus(corpus):
    record = json.loads((corpus.root / "corpus.json").read_text())
    assert record["config"] == {"generator_version": synthesis.GENERATOR_VERSION, "hours": HOURS, "seed": 0}
    assert set(record["made_with"]) == {"espeakng-loader", "pyroomacoustics", "numpy", "scipy"}


def test_sentences_are_many_and_their_splits_disjoint():
    sentences = load_sentences()
    assert len(sentences) >= 12 and set(sentences) == set(ACCENTS)
    for language, splits in sentences.items():
        sets = [set(splits[split]) for split in SPLITS]
        assert len(set.union(*sets)) == sum(map(len, sets)) >= (200 if language == "en" else 30)
        assert min(map(len, sets)) >= 3
        for line in set.union(*sets):
            text = expand(line, np.random.default_rng(0))
            assert not set("[]|") & set(text) and len(text.split()) >= 4, line
            assert text[-1] in ".?", line


def test_a_missing_or_short_sentence_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="en.txt: sentence file is missing"):
        load_sentences(tmp_path)
    (tmp_path / "en.txt").write_text("# comment\nOne.\nTwo.\n")
    with pytest.raises(ConfigError, match="en.txt: needs at least 10 sentences, has 2"):
        load_sentences(tmp_path)


def test_voices_differ_and_variants_belong_to_one_split():
    pools = [set(VARIANTS[split]) for split in SPLITS]
    assert len(set.union(*pools)) == sum(map(len, pools)) and min(map(len, pools)) >= 6
    for split in SPLITS:
        voices = make_voices(split, 60, seed=0)
        assert len({voice.name for voice in voices}) == len(set(voices)) == 60
        assert {voice.variant for voice in voices} <= set(VARIANTS[split])
        assert {voice.language for voice in voices} == set(ACCENTS)
        assert 0.35 <= np.mean([voice.language == "en" for voice in voices]) <= 0.45
    assert make_voices("train", 20, 0) == make_voices("train", 20, 0) != make_voices("train", 20, 1)


@needs_speech
def test_every_accent_and_variant_speaks_the_same_twice():
    from dccrn_lib.corpus.synthesis.speech import espeak

    for voice in [a for accents in ACCENTS.values() for a in accents]:
        assert len(espeak("Radio", voice)) > 5000
    for variant in (v for pool in VARIANTS.values() for v in pool):
        first, second = (espeak("Radio", f"en-us+{variant}") for _ in range(2))
        assert np.array_equal(first, second) and 0.01 < np.abs(first).max() < 1
    with pytest.raises(ConfigError, match="knows no voice 'xx-none'"):
        espeak("Radio", "xx-none")


def fingerprint(x):
    """Long-term spectrum in 12 bands (dB, mean removed) and how much the level moves, from 20 ms frames."""
    power = np.abs(np.fft.rfft(x)) ** 2
    edges = (np.geomspace(60, 7900, 13) / 16000 * len(x)).astype(int)
    bands = 10 * np.log10([power[a:b].mean() + 1e-12 for a, b in zip(edges[:-1], edges[1:], strict=True)])
    frames = 10 * np.log10(np.mean(x[: len(x) // 320 * 320].reshape(-1, 320) ** 2, 1) + 1e-9)
    crest = 20 * np.log10(np.abs(x).max() / x.std())
    return np.r_[bands - bands.mean(), 2 * frames.std(), 2 * crest]


def test_kinds_of_noise_sound_different_from_each_other():
    mean, spread = {}, []
    for label in NOISE_KINDS:
        prints = np.array([fingerprint(make_noise(label, 3.0, np.random.default_rng([9, n]))) for n in range(6)])
        assert np.isfinite(prints).all()
        assert prints[:, :12].std(0).mean() > 1.5, f"{label}: all its files have one spectrum"
        mean[label] = prints.mean(0)
        spread.append(np.linalg.norm(prints - prints.mean(0), axis=1).mean())
    labels = list(mean)
    distance = {
        (a, b): np.linalg.norm(mean[a] - mean[b])
        for i, a in enumerate(labels)
        for b in labels[:i]
        if "mixture" not in (a, b)
    }
    closest = min(distance, key=distance.get)
    assert distance[closest] > 8, (closest, distance[closest])
    assert np.median(list(distance.values())) > np.mean(spread)


@pytest.mark.parametrize("label", list(NOISE_KINDS))
def test_noise_has_the_length_asked_for_and_depends_on_its_seed_alone(label):
    a, b, c = (make_noise(label, 1.7, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert a.dtype == np.float32 and len(a) == 27200
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_babble_takes_short_and_long_speech():
    rng = np.random.default_rng(0)
    voices = [rng.standard_normal(n) for n in (4000, 30000, 90000)]
    x = make_babble(voices, 2.0, np.random.default_rng(1))
    assert len(x) == 32000 and 10 ** (-32.1 / 20) < x.std() < 10 ** (-19.9 / 20)


def test_parts_do_what_they_say():
    rng = np.random.default_rng(0)
    x = set_level(rng.standard_normal(16000), -26.0)
    assert 20 * np.log10(x.std()) == pytest.approx(-26, abs=0.01)
    assert np.abs(set_level(np.eye(1, 8000, 5)[0], -3.0)).max() == pytest.approx(0.9)
    curve = slow_curve(48000, rng, 1.0, -2.0, 3.0)
    assert curve.min() >= -2 and curve.max() <= 3 and np.abs(np.diff(curve)).max() < 0.01
    a, b = rng.standard_normal(500), rng.standard_normal(70)
    assert np.allclose(convolve(a, b), np.convolve(a, b)[:500])
    noise = shaped_noise(160000, rng, [100, 1000, 8000], [0, 0, -60])
    power = np.abs(np.fft.rfft(noise)) ** 2
    drop = 10 * np.log10(power[5000:15000].mean() / power[45000:50000].mean())  # 0.5-1.5 kHz over 4.5-5 kHz
    assert 40 < drop < 52


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux that is always full")
def test_a_full_disk_is_the_systems_own_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis, "require_espeak", lambda: None)
    monkeypatch.setattr(synthesis, "require_acoustics", lambda: None)
    monkeypatch.setattr(synthesis, "speak_voice", _on_a_full_disk)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        synthesise_corpus(tmp_path / "c", HOURS, workers=2, progress=False)
    assert list(tmp_path.iterdir()) == []


def _on_a_full_disk(_task):
    write_wav("/dev/full", np.zeros(8000))
