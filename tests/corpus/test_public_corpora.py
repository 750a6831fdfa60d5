"""Recipes for public collections, each on a tiny tree of the same layout."""

import csv

import numpy as np
import pytest
import soundfile

from dccrn_lib.corpus import public_corpora
from dccrn_lib.corpus.manifest import read_manifest
from dccrn_lib.corpus.scanning import probe_audio
from dccrn_lib.runtime.errors import ManifestError


def make(root, *names, rate=16000):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(1600), rate)
    return root


def groups(path, field):
    return {(getattr(e, field), e.split) for e in read_manifest(path)}


def test_librispeech_splits_by_subset_and_names_speakers(tmp_path):
    make(
        tmp_path / "LibriSpeech",
        "train-clean-100/19/198/19-198-0000.flac",
        "train-clean-100/19/227/19-227-0000.flac",
        "dev-clean/84/121123/84-121123-0000.flac",
        "test-clean/61/70968/61-70968-0000.flac",
    )
    report = public_corpora.librispeech(tmp_path, tmp_path / "m.jsonl", progress=False)
    expected = {("librispeech-19", "train"), ("librispeech-84", "valid"), ("librispeech-61", "test")}
    assert groups(tmp_path / "m.jsonl", "speaker") == expected
    assert report.counts == {"train": 2, "valid": 1, "test": 1}


def test_voicebank_of_56_speakers_has_a_valid_split_too(tmp_path):
    voices = [f"p{number}" for number in range(234, 254)]  # neither p226 nor p287 is among its speakers
    make(tmp_path, *(f"clean_trainset_56spk_wav/{voice}_00{k}.wav" for voice in voices for k in (1, 2)))
    public_corpora.voicebank(tmp_path, tmp_path / "m.jsonl", progress=False)
    splits = dict(groups(tmp_path / "m.jsonl", "speaker"))
    assert len(splits) == len(groups(tmp_path / "m.jsonl", "speaker")) == 20  # a speaker has one split
    assert 1 <= list(splits.values()).count("valid") <= 4 and set(splits.values()) == {"train", "valid"}


def test_voicebank_keeps_the_test_set_and_two_valid_speakers(tmp_path):
    make(
        tmp_path,
        "clean_trainset_28spk_wav/p226_001.wav",
        "clean_trainset_28spk_wav/p230_001.wav",
        "noisy_trainset_28spk_wav/p230_001.wav",
        "clean_testset_wav/p232_001.wav",
        "clean_testset_wav/p232_010.wav",
        "noisy_testset_wav/p232_001.wav",
        "noisy_testset_wav/p232_010.wav",
        rate=48000,
    )
    public_corpora.voicebank(tmp_path, tmp_path / "m.jsonl", progress=False)
    expected = {("voicebank-p226", "valid"), ("voicebank-p230", "train"), ("voicebank-p232", "test")}
    assert groups(tmp_path / "m.jsonl", "speaker") == expected
    assert {e.sample_rate for e in read_manifest(tmp_path / "m.jsonl")} == {48000}
    pairs = public_corpora.voicebank_test_pairs(tmp_path)
    assert [pair.id for pair in pairs] == ["p232_001", "p232_010"]
    assert pairs[0].noisy.parent.name == "noisy_testset_wav" and pairs[0].clean.parent.name == "clean_testset_wav"


def test_demand_takes_one_microphone_of_each_place(tmp_path):
    for place in ("DKITCHEN", "NPARK", "OOFFICE", "TCAR"):
        make(tmp_path, f"{place}/ch01.wav", f"{place}/ch02.wav")
    public_corpora.demand(tmp_path, tmp_path / "m.jsonl", progress=False)
    entries = read_manifest(tmp_path / "m.jsonl", kind="noise")
    assert {e.label for e in entries} == {"dkitchen", "npark", "ooffice", "tcar"} and len(entries) == 4
    assert {e.split for e in entries} == {"train", "valid", "test"}


def test_musan_leaves_speech_out_and_music_on_request(tmp_path):
    make(tmp_path / "musan", *(f"noise/free-sound/noise-free-sound-{n:04d}.wav" for n in range(6)))
    make(tmp_path / "musan", "music/fma/music-fma-0000.wav", "speech/librivox/speech-librivox-0000.wav")
    public_corpora.musan(tmp_path, tmp_path / "m.jsonl", progress=False)
    assert {e.label for e in read_manifest(tmp_path / "m.jsonl")} == {"noise", "music"}
    report = public_corpora.musan(tmp_path, tmp_path / "m.jsonl", music=False, progress=False)
    assert sum(report.counts.values()) == 6 and set(report.counts) == {"train", "valid", "test"}


def test_esc50_reads_labels_and_folds(tmp_path):
    root = make(tmp_path / "ESC-50-master", "audio/1-1-A-0.wav", "audio/4-2-A-1.wav", "audio/5-3-A-2.wav")
    (root / "meta").mkdir()
    with open(root / "meta" / "esc50.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        writer.writerow(["1-1-A-0.wav", 1, 0, "dog", "True", 1, "A"])
        writer.writerow(["4-2-A-1.wav", 4, 1, "rain", "True", 2, "A"])
        writer.writerow(["5-3-A-2.wav", 5, 2, "train", "False", 3, "A"])
    public_corpora.esc50(tmp_path, tmp_path / "m.jsonl", progress=False)
    assert groups(tmp_path / "m.jsonl", "label") == {("dog", "train"), ("rain", "valid"), ("train", "test")}
    with pytest.raises(ManifestError, match="esc50.csv: no such file"):
        public_corpora.esc50(tmp_path / "nowhere", tmp_path / "m.jsonl", progress=False)


def test_dns_challenge_keeps_readers_apart_and_lists_bad_files(tmp_path):
    root = tmp_path / "datasets"
    make(root, *(f"clean/book_0_chp_0_reader_{r:05d}_{n}.wav" for r in range(40) for n in range(2)))
    make(root, *(f"noise/door_Freesound_{n}.wav" for n in range(40)))
    (root / "noise" / "broken.wav").write_text("text")
    made = public_corpora.dns_challenge(tmp_path, tmp_path / "lists", valid_fraction=0.1, progress=False)
    speech = read_manifest(made.speech, kind="speech")
    splits = {split: {e.speaker for e in speech if e.split == split} for split in ("train", "valid")}
    assert len(splits["train"] | splits["valid"]) == 40 and not splits["train"] & splits["valid"]
    assert splits["valid"] and len(speech) == 80
    assert len(read_manifest(made.noise, kind="noise")) == 40 and not made.rir.exists()
    assert "broken.wav" in (tmp_path / "lists" / "noise.jsonl.bad.txt").read_text()


def test_dns_keeps_the_pieces_of_a_noise_and_the_responses_of_a_room_together(tmp_path):
    root = tmp_path / "datasets"
    make(root, *(f"clean/book_0_chp_0_reader_{r:05d}_0.wav" for r in range(4)))
    make(root, *(f"noise/fan_Freesound_validated_{361372 + n}_{k}.wav" for n in range(10) for k in range(4)))
    rooms = [
        f"{size}room/Room00{n}/Room00{n}-0000{k}.wav" for size in ("small", "large") for n in range(5) for k in "12"
    ]
    make(root, *(f"impulse_responses/{room}" for room in rooms))
    made = public_corpora.dns_challenge(tmp_path, tmp_path / "lists", valid_fraction=0.3, progress=False)
    for manifest, kind, count in ((made.noise, "noise", 10), (made.rir, "rir", 10)):
        found = {(e.recording, e.split) for e in read_manifest(manifest, kind=kind)}
        assert len(found) == len({name for name, _ in found}) == count and {split for _, split in found} > {"valid"}


def test_dns_pairs_go_by_file_id_and_copy_under_one_name(tmp_path):
    test_set = tmp_path / "no_reverb"
    for n in (2, 10, 100):
        make(test_set, f"noisy/clnsp1_x_snr15_tl-21_fileid_{n}.wav", f"clean/clean_fileid_{n}.wav")
    pairs = public_corpora.dns_test_pairs(test_set)
    assert [pair.id for pair in pairs] == ["fileid_2", "fileid_10", "fileid_100"]
    out = public_corpora.copy_pairs(pairs, tmp_path / "out")
    assert sorted(p.name for p in (out / "noisy").iterdir()) == sorted(p.name for p in (out / "clean").iterdir())
    assert probe_audio(str(out / "clean" / "fileid_10.wav")) == (1600, 16000)
    public_corpora.copy_pairs(pairs, out)  # once more is fine
    with pytest.raises(ManifestError, match="fileid_2.wav, which is none of these pairs"):
        public_corpora.copy_pairs(pairs[1:], out)
    with pytest.raises(ManifestError, match="where the pairs come from"):
        public_corpora.copy_pairs(pairs, test_set)
    (test_set / "clean" / "clean_fileid_10.wav").unlink()
    with pytest.raises(ManifestError, match="1 noisy ones, the first is fileid_10"):
        public_corpora.dns_test_pairs(test_set)
    make(test_set, "noisy/other.wav")
    with pytest.raises(ManifestError, match="no fileid_<number>"):
        public_corpora.dns_test_pairs(test_set)


def test_combine_joins_manifests_of_one_kind(tmp_path):
    make(tmp_path / "LibriSpeech", "dev-clean/84/1/84-1-0000.flac")
    make(tmp_path / "vb", "clean_testset_wav/p232_001.wav")
    make(tmp_path / "demand", "TCAR/ch01.wav")
    public_corpora.librispeech(tmp_path, tmp_path / "a" / "libri.jsonl", progress=False)
    public_corpora.voicebank(tmp_path / "vb", tmp_path / "b.jsonl", progress=False)
    public_corpora.demand(tmp_path / "demand", tmp_path / "n.jsonl", progress=False)
    report = public_corpora.combine(
        [tmp_path / "a" / "libri.jsonl", tmp_path / "b.jsonl"], tmp_path / "c" / "all.jsonl"
    )
    assert report.counts == {"valid": 1, "test": 1}
    assert all(probe_audio(e.path) == (1600, 16000) for e in read_manifest(tmp_path / "c" / "all.jsonl"))
    with pytest.raises(ManifestError, match="one kind"):
        public_corpora.combine([tmp_path / "b.jsonl", tmp_path / "n.jsonl"], tmp_path / "x.jsonl")


@pytest.mark.parametrize("name", ["librispeech", "voicebank", "demand", "musan"])
def test_a_wrong_folder_is_named_in_one_line(name, tmp_path):
    recipe = getattr(public_corpora, name)
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ManifestError) as caught:
            recipe(folder, tmp_path / "m.jsonl", progress=False)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "m.jsonl").exists()


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "TCAR").mkdir()
    (tmp_path / "TCAR" / "ch01.wav").write_text("text")
    with pytest.raises(ManifestError, match="none of the 1 files can be used"):
        public_corpora.demand(tmp_path, tmp_path / "m.jsonl", progress=False)


def test_two_samples_at_48_khz_leave_a_manifest_that_can_be_read(tmp_path):
    folder = tmp_path / "clean_trainset_28spk_wav"
    folder.mkdir()
    soundfile.write(folder / "p227_001.wav", [0.3, 0.3], 48000)
    public_corpora.voicebank(tmp_path, tmp_path / "speech.jsonl", progress=False)
    [entry] = read_manifest(tmp_path / "speech.jsonl")
    assert 0 < entry.seconds < 1e-4
