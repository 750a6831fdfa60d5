"""``enhance noisy.wav enhanced.wav``: one file and the name of the file to write."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import soundfile

from dccrn_lib.audio.recording import tags_of, write_tags
from dccrn_lib.cli.main import main
from dccrn_lib.runtime import files
from dccrn_lib.runtime.paths import data_dir, weights_dir

CLIP = str(data_dir() / "demo" / "noisy" / "fan_5db_en.ogg")
MODEL = str(weights_dir() / "quick" / "student.safetensors")


def test_one_file_to_one_file(tmp_path: Path, capsys):
    out = tmp_path / "new" / "enhanced.wav"
    assert main(["enhance", CLIP, str(out), "--model", MODEL]) == 0
    assert str(out) in capsys.readouterr().out
    assert soundfile.info(out).frames == soundfile.info(CLIP).frames


def test_files_may_stand_before_and_behind_the_options(tmp_path: Path, capsys):
    other = str(Path(CLIP).with_name("babble_5db_en.ogg"))
    assert main(["enhance", CLIP, "--out", str(tmp_path), other, "--model", MODEL, "--quiet"]) == 0
    assert "2 enhanced" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run-onnx", "m.onnx", "--overwrite", "a.wav", "b.wav", "c.wav"])
    assert "unrecognized arguments: c.wav" in capsys.readouterr().err


def test_a_folder_that_is_named_as_a_file_is_refused_unless_it_is_there(tmp_path: Path, capsys):
    out = tmp_path / "enhanced.wav"
    assert main(["enhance", CLIP, "--out", str(out), "--model", MODEL]) == 2
    assert f"for one file: enhance noisy.wav {out}" in capsys.readouterr().err and not out.exists()
    out.mkdir()
    assert main(["enhance", CLIP, "--out", str(out), "--model", MODEL, "--quiet"]) == 0


def test_an_existing_second_file_is_kept_unless_told(tmp_path: Path, capsys):
    out = tmp_path / "two.wav"
    out.write_bytes(b"mine")
    assert main(["enhance", CLIP, str(out), "--model", MODEL]) == 1
    assert "--overwrite" in capsys.readouterr().err and out.read_bytes() == b"mine"
    assert main(["enhance", CLIP, str(out), "--model", MODEL, "--overwrite"]) == 0
    assert soundfile.info(out).frames > 0


def test_a_folder_that_is_done_is_left_as_it_is(tmp_path: Path, capsys):
    command = ["enhance", CLIP, "--out", str(tmp_path), "--model", MODEL, "--quiet"]
    assert main(command) == 0 and main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--skip-existing"]) == 0
    assert "0 enhanced (0.0 s of audio), 0 failed, 1 there already" in capsys.readouterr().out


def test_an_output_that_exists_comes_with_both_cures_and_one_file_takes_no_skipping(tmp_path: Path, capsys):
    assert main(["enhance", CLIP, str(tmp_path / "x.wav"), "--model", MODEL, "--skip-existing"]) == 2
    assert "--skip-existing goes with a folder to write to" in capsys.readouterr().err
    (tmp_path / Path(CLIP).name).write_bytes(b"mine")
    assert main(["enhance", CLIP, "--out", str(tmp_path), "--model", MODEL, "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "--overwrite" in error and "--skip-existing" in error


@pytest.mark.parametrize("inputs", [[CLIP], [CLIP, CLIP, "x.wav"], [CLIP, "x.txt"], [str(Path(CLIP).parent), "x.wav"]])
def test_without_a_place_to_write_the_error_says_how(inputs: list[str], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["enhance", *inputs]) == 2
    assert "--out DIR" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="where devices are files")
def test_a_file_among_the_devices_is_refused_before_the_work(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(files, "_DEVICES", os.path.realpath(tmp_path / "dev"))
    monkeypatch.setattr("dccrn_lib.enhancement.files.resolve_model", None)
    for place in ([str(tmp_path / "dev" / "null.wav")], ["--out", str(tmp_path / "dev" / "null")]):
        with pytest.raises(SystemExit) if len(place) == 2 else nullcontext():
            assert main(["enhance", CLIP, *place]) == 2
        out, err = capsys.readouterr()
        assert out == "" and "there is no such device" in err and err.count("\n") == 1
    assert list((tmp_path / "dev").iterdir()) == []


@pytest.mark.parametrize("more", [["--out", "x"], ["x.wav"]])
def test_a_missing_file_is_one_line(more: list[str], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["enhance", "missing.wav", *more, "--model", MODEL]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: no such") and err.count("\n") == 1 and "missing.wav" in err


def test_files_that_were_lowered_are_named(tmp_path: Path, capsys):
    samples = 20 * soundfile.read(CLIP, dtype="float32")[0]
    soundfile.write(tmp_path / "loud.wav", samples, 16000, subtype="FLOAT")
    out = tmp_path / "loud.flac"
    assert main(["enhance", str(tmp_path / "loud.wav"), str(out), "--model", MODEL]) == 0
    assert f"{out}: 4.0 s, lowered by " in capsys.readouterr().out


def test_tags_are_kept(tmp_path: Path):
    samples = soundfile.read(CLIP, dtype="float32")[0][:8000]
    tags = {"title": "Réunion", "artist": "A and B", "date": "2024", "comment": "third take"}
    for name in ("in.wav", "in.flac", "in.ogg"):
        with soundfile.SoundFile(tmp_path / name, "w", 16000, 1) as file:
            write_tags(file, tags)
            file.write(samples)
        assert main(["enhance", str(tmp_path / name), str(tmp_path / f"out-{name}"), "--model", MODEL]) == 0
        with soundfile.SoundFile(tmp_path / f"out-{name}") as file:
            assert tags_of(file) == tags, name
    for name in ("out.au", "out.aiff"):  # no tags in this format, which is no reason to fail
        assert main(["enhance", str(tmp_path / "in.flac"), str(tmp_path / name), "--model", MODEL]) == 0
    with soundfile.SoundFile(tmp_path / "out.au") as file:
        assert tags_of(file) == {} and file.frames == 8000


@pytest.mark.parametrize(("size", "kept"), [(900, True), (8192, False), (300_000, False)])
def test_tags_that_a_header_may_not_hold_are_left_out(tmp_path: Path, size: int, kept: bool):
    with soundfile.SoundFile(tmp_path / "in.flac", "w", 16000, 1) as file:
        write_tags(file, {"title": "Talk"})
        file.comment = "a" * size
        file.write(soundfile.read(CLIP, dtype="float32")[0][:8000])
    for suffix in (".aiff", ".wav", ".opus", ".caf", ".flac"):
        out = tmp_path / f"out{suffix}"
        assert main(["enhance", str(tmp_path / "in.flac"), str(out), "--model", MODEL]) == 0
        with soundfile.SoundFile(out) as file:
            found = tags_of(file)
        assert len(soundfile.read(out)[0]) and len(found.get("comment", "")) == (size if kept and found else 0), suffix
        assert not found or found["title"] == "Talk"
        assert found or not (kept and suffix in (".wav", ".flac")), suffix


def test_words_beyond_ascii_stay_out_of_mp3(tmp_path: Path):
    with soundfile.SoundFile(tmp_path / "in.flac", "w", 16000, 1) as file:
        write_tags(file, {"title": "Müller – ein langer Titel mit mehr als dreißig Zeichen", "artist": "Mueller"})
        file.write(soundfile.read(CLIP, dtype="float32")[0][:8000])
    assert main(["enhance", str(tmp_path / "in.flac"), str(tmp_path / "out.mp3"), "--model", MODEL]) == 0
    with soundfile.SoundFile(tmp_path / "out.mp3") as file:
        assert tags_of(file) == {"artist": "Mueller"}


def test_the_input_as_output_is_not_said_to_be_replaced_by_overwrite(tmp_path: Path, capsys):
    source = tmp_path / "a.ogg"
    source.write_bytes(Path(CLIP).read_bytes())
    for more in ([], ["--overwrite"]):
        assert main(["enhance", str(source), str(source), "--model", MODEL, *more]) == 1
        error = capsys.readouterr().err
        assert "is the input itself" in error and "--overwrite" not in error
    assert source.read_bytes() == Path(CLIP).read_bytes()


def test_a_linked_folder_that_is_not_there_yet_is_made(tmp_path: Path, capsys):
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk" / "enhanced")
    assert main(["enhance", CLIP, "--out", str(link), "--model", MODEL, "--quiet"]) == 0
    assert [path.name for path in (tmp_path / "disk" / "enhanced").iterdir()] == [Path(CLIP).name]
