"""``corpus public`` and ``corpus pairs``: every collection by name, on a small tree of its layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from dccrn_lib.cli import corpus as command
from dccrn_lib.cli.main import main
from dccrn_lib.corpus import preparation
from dccrn_lib.corpus.manifest import read_manifest
from dccrn_lib.runtime.errors import ConfigError

#: Name -> files of a small tree, and the manifests that it gives.
TREES = {
    "librispeech": (["LibriSpeech/dev-clean/84/1/84-1-0000.flac"], {"speech"}),
    "voicebank": (["clean_trainset_28spk_wav/p227_001.wav", "clean_testset_wav/p232_001.wav"], {"speech"}),
    "demand": (["TCAR/ch01.wav", "TCAR/ch02.wav"], {"noise"}),
    "musan": (["musan/noise/free-sound/n.wav", "musan/music/fma/m.wav", "musan/speech/us-gov/s.wav"], {"noise"}),
    "esc50": (["audio/1-100-A-0.wav"], {"noise"}),
    "dns": (["clean/book_reader_00001_1.wav", "noise/door.wav", "impulse_responses/r.wav"], {"speech", "noise", "rir"}),
}


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(1600), 16000)
    return root


def test_help_names_what_can_be_prepared():
    assert command.COLLECTIONS == preparation.COLLECTIONS == tuple(TREES)
    assert command.PAIRED == preparation.PAIRED


@pytest.mark.parametrize("name", TREES)
def test_every_collection_becomes_manifests(name: str, tmp_path: Path, capsys):
    names, kinds = TREES[name]
    root = make(tmp_path / "unpacked", *names)
    if name == "esc50":
        (root / "meta").mkdir()
        (root / "meta" / "esc50.csv").write_text("filename,fold,category,src_file\n1-100-A-0.wav,4,dog,100\n")
    assert main(["corpus", "public", name, str(root), "--out", str(tmp_path / "lists"), "--quiet"]) == 0
    written = {path.stem for path in (tmp_path / "lists").glob("*.jsonl")}
    assert written == kinds
    for kind in kinds:
        entries = read_manifest(tmp_path / "lists" / f"{kind}.jsonl", kind=kind)
        assert entries and all(Path(entry.path).is_file() for entry in entries)
    assert capsys.readouterr().out.count(" files, ") >= len(kinds)


def test_the_music_of_musan_can_be_left_out(tmp_path: Path, capsys):
    root, out = make(tmp_path / "unpacked", *TREES["musan"][0]), str(tmp_path / "lists")
    labels = []
    for more in ([], ["--no-music"]):
        assert main(["corpus", "public", "musan", str(root), "--out", out, "--quiet", *more]) == 0
        labels.append(sorted(entry.label or "" for entry in read_manifest(tmp_path / "lists" / "noise.jsonl")))
    assert labels == [["music", "noise"], ["noise"]]
    assert main(["corpus", "public", "demand", str(root), "--out", out, "--no-music"]) == 2
    assert "--no-music is for musan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "noisy", "clean", "both"),
    [
        ("voicebank", "noisy_testset_wav/p232_001.wav", "clean_testset_wav/p232_001.wav", "p232_001.wav"),
        ("dns", "noisy/a_fileid_7.wav", "clean/clean_fileid_7.wav", "fileid_7.wav"),
    ],
)
def test_test_pairs_are_laid_out_for_evaluate(name: str, noisy: str, clean: str, both: str, tmp_path: Path, capsys):
    root = make(tmp_path / "unpacked", noisy, clean)
    assert main(["corpus", "pairs", name, str(root), "--out", str(tmp_path / "test")]) == 0
    assert "1 pairs" in capsys.readouterr().out
    assert sorted(str(p.relative_to(tmp_path / "test")) for p in (tmp_path / "test").rglob("*.wav")) == [
        f"clean/{both}",
        f"noisy/{both}",
    ]


@pytest.mark.parametrize("verb", ["public", "pairs"])
def test_a_folder_of_another_layout_is_one_line(verb: str, tmp_path: Path, capsys):
    assert main(["corpus", verb, "voicebank", str(tmp_path), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_unknown_collection_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean musan"):
        preparation.prepare("musann", tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="did you mean voicebank"):
        preparation.copy_test_pairs("voicebnk", tmp_path, tmp_path / "out")
