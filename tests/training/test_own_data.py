"""Own recordings as they come: split over manifests, moved, cut shorter or damaged after the scan."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from dccrn_lib.audio.files import write_audio
from dccrn_lib.cli.main import main
from dccrn_lib.corpus.decoding import AudioCache, decode
from dccrn_lib.corpus.manifest import read_manifest, read_manifests, require_disjoint_splits, scan_folder
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.packing import pack_corpus
from dccrn_lib.corpus.shards import require_there
from dccrn_lib.experiments.paper import corpus_of
from dccrn_lib.runtime.errors import AudioError, ManifestError
from dccrn_lib.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def manifests(tmp_path) -> dict[str, str]:
    """speech and noise, each scanned from the folders train, valid and test: three manifests, joined by commas."""
    rng, joined = np.random.default_rng(0), {}
    for kind in ("speech", "noise"):
        for split in ("train", "valid", "test"):
            for number in range(2):
                path = tmp_path / kind / split / f"{split}{number}" / "a.wav"
                write_audio(path, rng.uniform(-0.3, 0.3, 32000), 16000)
            folder, out = tmp_path / kind / split, tmp_path / f"{kind}_{split}.jsonl"
            scan_folder(folder, kind, out, split=split, progress=False)
        joined[kind] = ",".join(str(tmp_path / f"{kind}_{split}.jsonl") for split in ("train", "valid", "test"))
    return joined


@pytest.fixture
def one(manifests, tmp_path) -> dict[str, str]:
    """The same in one manifest of each kind."""
    for kind, joined in manifests.items():
        (tmp_path / f"{kind}.jsonl").write_text("".join(Path(path).read_text() for path in joined.split(",")))
    return {kind: str(tmp_path / f"{kind}.jsonl") for kind in manifests}


def command(manifests: dict[str, str], out: Path, *more: str) -> list[str]:
    """A training of two steps on them."""
    data = ["--speech", manifests["speech"], "--noise", manifests["noise"]]
    return ["train", "--profile", "smoke", *data, "--out", str(out), "--steps", "2", "--quiet", *more]


def test_a_split_may_be_in_one_of_several_manifests(manifests, tmp_path, capsys):
    assert main(command(manifests, tmp_path / "run")) == 0, capsys.readouterr().err
    paths = manifests["speech"].split(",")
    assert [e.split for e in read_manifests(paths, "valid", "speech")] == ["valid", "valid"]
    assert len(read_manifests(paths, kind="speech")) == 6 and read_manifests([], "train") == []
    assert corpus_of("smoke", manifests["speech"], manifests["noise"])["speech"] == manifests["speech"]


def test_a_speaker_in_two_splits_is_noticed_where_both_scans_name_the_collection(tmp_path):
    for split in ("train", "valid"):
        write_audio(
            tmp_path / split / "anna" / "a.wav", np.random.default_rng(len(split)).uniform(-0.3, 0.3, 32000), 16000
        )
    for corpus in (None, "mine"):
        paths = [tmp_path / f"{split}_{corpus}.jsonl" for split in ("train", "valid")]
        reports = [
            scan_folder(
                tmp_path / path.name.split("_")[0],
                "speech",
                path,
                path.name.split("_")[0],
                corpus=corpus,
                progress=False,
            )
            for path in paths
        ]
        assert all(("the same --corpus" in " ".join(report.notes)) == (corpus is None) for report in reports)
    with pytest.raises(ManifestError, match="anna is in the splits train and valid"):
        require_disjoint_splits(paths)


def test_a_split_in_none_of_them_is_named_with_a_cure(manifests):
    paths = manifests["speech"].split(",")[:1] * 2
    with pytest.raises(ManifestError, match="no entry left for valid speech.*hold: train speech.*--split valid"):
        read_manifests(paths, "valid", "speech")
    with pytest.raises(ManifestError, match="no entry left for noise; the manifest holds: train speech"):
        read_manifests(paths, "train", "noise")


def test_a_recording_that_is_gone_is_named_before_the_first_step(one, tmp_path, capsys):
    (tmp_path / "speech" / "train" / "train1" / "a.wav").unlink()
    assert main(command(one, tmp_path / "run")) == 1
    told = capsys.readouterr().err
    assert "train1" in told and "1 of 8 files of the manifests are missing" in told and "scan the corpus again" in told
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_shard_that_is_cut_off_is_named_before_the_first_step(manifests, tmp_path):
    report = pack_corpus([manifests["speech"].split(",")[0]], tmp_path / "packed", workers=1, progress=False)
    entries = read_manifest(report.manifests[0])
    require_there(entries)
    (shard,) = (tmp_path / "packed").glob("*.tar")
    shard.write_bytes(shard.read_bytes()[: entries[-1].offset + 10])
    with pytest.raises(AudioError, match=r"speech_train-000.tar: the shard is cut off; copy it"):
        require_there(entries)
    with pytest.raises(AudioError, match=r"; copy .*speech_train-000.tar and its manifest here again"):
        decode(entries[-1], 0.0, 1.0)


@pytest.mark.parametrize("seconds", [30, 100])  # held whole, sought in
def test_a_recording_that_was_cut_shorter_since_its_scan_is_refused(manifests, tmp_path, seconds):
    path = tmp_path / "noise_train.jsonl"
    rows = [json.loads(line) | {"seconds": seconds} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (entry, _) = read_manifest(path)
    with pytest.raises(AudioError, match=rf"lasts 2 s, its manifest says {seconds} s.*scan the corpus again"):
        AudioCache(8).view(entry, 20.0, 1.0)
    with pytest.raises(AudioError, match="its manifest says"):
        MixtureDataset(tmp_path / "speech_train.jsonl", path, split="train")[0]


def test_what_a_scan_cannot_find_is_not_to_be_left_out_by_a_scan(tmp_path):
    for name in ("a", "b", "c"):
        path = tmp_path / "speech" / name / "a.flac"
        write_audio(path, np.random.default_rng(0).uniform(-0.3, 0.3, 16000 * 12), 16000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    report = scan_folder(tmp_path / "speech", "speech", tmp_path / "speech.jsonl", progress=False)
    assert report.bad == []  # its beginning and its end are fine
    (damaged,) = [e for e in read_manifest(tmp_path / "speech.jsonl") if e.path == str(path)]
    with pytest.raises(AudioError, match="take the file out of the folder and scan"):
        decode(damaged, 0.0, 12.0)


@pytest.mark.parametrize(
    "name, value, cure",
    [
        ("muon_learning_rate", "0.5", "--optimiser muon"),
        ("muon_lstm", "false", "--optimiser muon"),
        ("reading", "time_frequency", "--method and --teacher"),
        ("feature-share", "0.4", "--method and --teacher"),
        ("mix.wide_level_dbfs", "-60,-5", "a --mix.wide_level_probability above 0"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(name, value, cure, one, tmp_path, capsys):
    assert main(command(one, tmp_path / "run", f"--{name}={value}")) == 2
    assert f"--{name.replace('-', '_')} would change nothing: give {cure} with it" in capsys.readouterr().err
    assert main(command(one, tmp_path / "run", "--set", f"{name.replace('-', '_')}={value}")) == 2
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_is_resumed_by_the_command_that_it_names(one, tmp_path, capsys, monkeypatch):
    train = loop.train
    monkeypatch.setattr(loop, "train", lambda *a, **k: train(*a, **k, stop_after=1))
    assert main(command(one, tmp_path / "my run", "--learning_rate", "0.001")) == 130
    (words,) = re.findall(r"stopped; resume with: (.*)", capsys.readouterr().out)
    monkeypatch.undo()
    assert main([*shlex.split(words), "--quiet"]) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "my run" / "history.json").read_text())["valid"][-1]["step"] == 2
