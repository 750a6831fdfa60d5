"""Manifests: reading, writing, scanning folders of recordings."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.manifest import read_manifest, require_disjoint_splits, scan_folder, total_hours, write_manifest
from dccrn_lib.corpus.scanning import assign_splits, probe_audio
from dccrn_lib.runtime.errors import ManifestError

LINE = {
    "path": "a/1.wav",
    "kind": "speech",
    "corpus": "c",
    "seconds": 2.0,
    "sample_rate": 16000,
    "split": "train",
    "licence": "CC0-1.0",
    "speaker": "a",
}


def tone(path, seconds=0.3, rate=16000, channels=1, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds * rate)) / rate
    samples = 0.3 * np.sin(2 * np.pi * 440 * t)[:, None].repeat(channels, 1)
    soundfile.write(path, samples, rate, **kwargs)
    return path


def lines(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    return path


def message(call):
    with pytest.raises(ManifestError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_paths_are_relative_in_the_file_and_absolute_once_read(tmp_path):
    entry = Entry(
        path=str(tmp_path / "set" / "x y.wav"),
        kind="noise",
        corpus="c",
        seconds=1.5,
        sample_rate=8000,
        split="test",
        licence="CC0-1.0",
        recording="r",
        label="wind",
    )
    manifest = write_manifest(tmp_path / "set" / "noise.jsonl", [entry])
    assert json.loads(manifest.read_text())["path"] == "x y.wav"
    assert read_manifest(manifest) == [entry]
    assert entry.group == "r"
    (tmp_path / "set").rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved" / "noise.jsonl")[0].path == str(tmp_path / "moved" / "x y.wav")


def test_a_manifest_beside_the_audio_tree_points_upwards(tmp_path):
    entry = Entry(str(tmp_path / "audio" / "1.wav"), "speech", "c", 1.0, 16000, "train", speaker="s")
    manifest = write_manifest(tmp_path / "lists" / "m.jsonl", [entry])
    assert json.loads(manifest.read_text())["path"] == "../audio/1.wav"
    assert read_manifest(manifest) == [entry]


def test_split_and_kind_filter_and_unknown_keys_are_ignored(tmp_path):
    path = lines(tmp_path / "m.jsonl", LINE | {"notes": "x"}, "", LINE | {"split": "valid", "speaker": "b"})
    assert [e.speaker for e in read_manifest(path)] == ["a", "b"]
    assert [e.speaker for e in read_manifest(path, "valid", kind="speech")] == ["b"]
    assert total_hours(read_manifest(path)) == pytest.approx(4 / 3600)


def test_each_mistake_is_one_line_that_names_the_place(tmp_path):
    good = lines(tmp_path / "good.jsonl", LINE)
    assert "none.jsonl" in message(lambda: read_manifest(tmp_path / "none.jsonl"))
    assert "is a folder" in message(lambda: read_manifest(tmp_path))
    assert "line 2: not JSON" in message(lambda: read_manifest(lines(tmp_path / "m.jsonl", LINE, "{oops")))
    without = {k: v for k, v in LINE.items() if k != "seconds"}
    assert "line 1: missing key seconds" in message(lambda: read_manifest(lines(tmp_path / "m.jsonl", without)))
    for key, value in (
        ("split", "dev"),
        ("kind", "music"),
        ("seconds", "long"),
        ("seconds", float("nan")),
        ("sample_rate", 0),
        ("path", ""),
    ):
        text = message(lambda k=key, v=value: read_manifest(lines(tmp_path / "m.jsonl", LINE | {k: v})))
        assert "line 1" in text and key in text
    assert "expected a JSON object" in message(lambda: read_manifest(lines(tmp_path / "m.jsonl", "[1]")))
    assert "is empty" in message(lambda: read_manifest(lines(tmp_path / "m.jsonl", "")))
    assert "did you mean train" in message(lambda: read_manifest(good, "trian"))
    assert "unknown kind" in message(lambda: read_manifest(good, kind="voice"))
    text = message(lambda: read_manifest(good, "test"))
    assert "no entry left for test" in text and "train speech" in text
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00RIFF")
    assert "b.jsonl" in message(lambda: read_manifest(tmp_path / "b.jsonl"))


@pytest.fixture
def messy(tmp_path):
    """Five good files of several formats in four folders, and six bad ones."""
    root = tmp_path / "recordings"
    tone(root / "anna" / "1.wav")
    tone(root / "anna" / "deep" / "2.flac", rate=44100, channels=2)
    tone(root / "bert" / "3.ogg", rate=48000)
    tone(root / "carl" / "4.OGG", rate=48000, format="OGG", subtype="OPUS")
    tone(root / "dora" / "5.mp3", rate=22050)
    (root / "anna" / "text.wav").write_text("not audio at all")
    (root / "anna" / "empty.wav").write_bytes(b"")
    (root / "anna" / ".hidden.wav").write_bytes(b"")
    (root / "anna" / "notes.txt").write_text("ignored")
    soundfile.write(root / "bert" / "zero.wav", np.zeros(0), 16000)
    soundfile.write(root / "bert" / "nan.wav", np.r_[np.zeros(40000), np.nan], 16000, subtype="FLOAT")
    rng = np.random.default_rng(0)
    soundfile.write(root / "cut.flac", 0.1 * rng.standard_normal(48000), 16000)
    (root / "cut.flac").write_bytes((root / "cut.flac").read_bytes()[:20000])
    (root / "noise.flac").write_bytes(rng.bytes(5000))
    return root


def test_scan_takes_the_good_files_and_lists_the_bad(messy, tmp_path):
    out = tmp_path / "m.jsonl"
    report = scan_folder(messy, "speech", out, progress=False, licence="CC0-1.0", workers=2, group_level=2)
    entries = read_manifest(out)
    names = {e.path.rsplit("/", 1)[1]: e for e in entries}
    assert sorted(names) == ["1.wav", "2.flac", "3.ogg", "4.OGG", "5.mp3"]
    assert names["2.flac"].speaker == "anna/deep" and names["2.flac"].sample_rate == 44100
    assert names["1.wav"].seconds == pytest.approx(0.3, abs=1e-3)
    assert {e.licence for e in entries} == {"CC0-1.0"} and {e.corpus for e in entries} == {"recordings"}
    reasons = {path.rsplit("/", 1)[1]: reason for path, reason in report.bad}
    assert sorted(reasons) == ["cut.flac", "empty.wav", "nan.wav", "noise.flac", "text.wav", "zero.wav"]
    assert "0 bytes" in reasons["empty.wav"] and "NaN" in reasons["nan.wav"] and "zero length" in reasons["zero.wav"]
    listed = (tmp_path / "m.jsonl.bad.txt").read_text().splitlines()
    assert len(listed) == 6 and all("\t" in line for line in listed)
    assert "6 bad files" in str(report) and sum(report.counts.values()) == 5
    assert set(report.counts) == {"train", "valid", "test"}


def test_a_single_sample_has_a_length(tmp_path):
    for i in range(3):
        soundfile.write(tone(tmp_path / "in" / f"{i}.wav"), [0.3], 192000)
    scan_folder(tmp_path / "in", "noise", tmp_path / "m.jsonl", progress=False)
    assert all(0 < e.seconds < 1e-5 for e in read_manifest(tmp_path / "m.jsonl"))


def test_formats_that_are_not_read_are_listed_with_what_to_do(tmp_path):
    tone(tmp_path / "in" / "good.wav")
    (tmp_path / "in" / "phone.M4A").write_bytes(b"\0\0\0 ftypM4A ")
    report = scan_folder(tmp_path / "in", "speech", tmp_path / "m.jsonl", progress=False)
    [(path, reason)] = report.bad
    assert path.endswith("phone.M4A") and "ffmpeg -i phone.M4A phone.wav" in reason


def test_a_later_clean_scan_removes_the_list_of_bad_files(messy, tmp_path):
    out = tmp_path / "m.jsonl"
    scan_folder(messy, "noise", out, progress=False)
    for bad in ("anna/text.wav", "anna/empty.wav", "bert/zero.wav", "bert/nan.wav", "cut.flac", "noise.flac"):
        (messy / bad).unlink()
    assert not scan_folder(messy, "noise", out, progress=False).bad
    assert not (tmp_path / "m.jsonl.bad.txt").exists()
    assert {e.label for e in read_manifest(out)} == {"anna", "bert", "carl", "dora"}


@pytest.mark.parametrize(
    "files",
    [
        [
            f"{who}/{day}/{k}.wav"
            for who in ("alice", "bob", "carol")
            for day in ("monday", "tuesday")
            for k in range(2)
        ],
        [f"in/one/id{n}/video{j}/0000{j}.wav" for n in range(4) for j in range(3)],  # VoxCeleb
        ["anna/1.wav", "anna/deep/2.wav", "bert/3.wav", "carl/4.wav"],
    ],
)
def test_folders_in_folders_of_speakers_are_refused_without_a_level(tmp_path, files):
    for file in files:
        tone(tmp_path / "all" / file)
    with pytest.raises(ManifestError, match="who is a speaker") as caught:
        scan_folder(tmp_path / "all", "speech", tmp_path / "m.jsonl", progress=False)
    for level in re.findall(r"--group-level (\d)", str(caught.value)):
        scan_folder(tmp_path / "all", "speech", tmp_path / "m.jsonl", progress=False, group_level=int(level))
        splits = {(e.speaker, e.split) for e in read_manifest(tmp_path / "m.jsonl")}
        assert len({speaker for speaker, _ in splits}) == len(splits) > 2


def splits_of(folder, files, depth, tmp_path):
    """Splits in which each folder ``depth`` levels down has recordings."""
    for file in files:
        tone(folder / file)
    scan_folder(folder, "speech", tmp_path / "m.jsonl", progress=False)
    found: dict[str, set] = {}
    for e in read_manifest(tmp_path / "m.jsonl"):
        found.setdefault(Path(e.path).relative_to(folder).parts[depth], set()).add(e.split)
    return found


def test_one_voice_one_split_whatever_the_names(tmp_path):
    dated = [f"voice{n}/{5 * n + k + 1:02d}-05-2024.wav" for n in range(5) for k in range(5)]
    assert all(len(s) == 1 for s in splits_of(tmp_path / "dates", dated, 0, tmp_path).values())
    books = [f"{1000 + n}/{j}/{1000 + n}_{j}_{k:06d}.wav" for n in range(10) for j in (5, 6) for k in range(2)]
    assert all(len(s) == 1 for s in splits_of(tmp_path / "mls", books, 0, tmp_path).values())
    libri = [f"{n}/198/{n}-198-000{k}{copy}.wav" for n in range(19, 39) for k, copy in ((0, ""), (1, ""), (0, " (1)"))]
    assert all(len(s) == 1 for s in splits_of(tmp_path / "libri", libri, 0, tmp_path).values())


def test_a_linked_recording_is_listed_once_under_its_own_name(tmp_path):
    for n in range(4):
        tone(tmp_path / "in" / f"voice{n}" / "a.wav")
    (tmp_path / "in" / "best").mkdir()
    (tmp_path / "in" / "best" / "a.wav").symlink_to("../voice0/a.wav")
    scan_folder(tmp_path / "in", "speech", tmp_path / "m.jsonl", progress=False)
    assert {e.speaker for e in read_manifest(tmp_path / "m.jsonl")} == {f"voice{n}" for n in range(4)}


def test_group_level_joins_chapters_to_their_speaker(messy, tmp_path):
    scan_folder(messy, "speech", tmp_path / "m.jsonl", group_level=1, progress=False)
    assert {e.speaker for e in read_manifest(tmp_path / "m.jsonl")} == {"anna", "bert", "carl", "dora"}


def test_flat_and_single_folders_are_split_by_file(tmp_path):
    for n in range(12):
        tone(tmp_path / "flat" / f"{n}.wav")
        tone(tmp_path / "nested" / "clean" / f"{n}.wav")
    flat = scan_folder(tmp_path / "flat", "noise", tmp_path / "flat.jsonl", progress=False)
    nested = scan_folder(tmp_path / "nested", "noise", tmp_path / "nested.jsonl", progress=False)
    for report in (flat, nested):
        assert sum(report.groups.values()) == 12 and min(report.counts.values()) >= 1 and len(report.counts) == 3
    assert "split by file" not in str(flat) and "split by file" in str(nested)


def test_split_can_be_fixed(messy, tmp_path):
    report = scan_folder(messy, "rir", tmp_path / "m.jsonl", split="test", progress=False)
    assert report.counts == {"test": 5}


def test_scan_errors_are_one_line(messy, tmp_path):
    out = tmp_path / "m.jsonl"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no such folder" in message(lambda: scan_folder(tmp_path / "gone", "speech", out, progress=False))
    assert str(empty) in message(lambda: scan_folder(empty, "speech", out, progress=False))
    assert "unknown kind" in message(lambda: scan_folder(messy, "voice", out, progress=False))
    assert "unknown split" in message(lambda: scan_folder(messy, "speech", out, split="dev", progress=False))
    assert "no recording" in message(lambda: scan_folder(messy, "speech", messy / "anna" / "1.wav", progress=False))
    assert "0.7" in message(lambda: scan_folder(messy, "speech", out, valid_fraction=0.7, test_fraction=0.3))
    (empty / "x.wav").write_text("text")
    text = message(lambda: scan_folder(empty, "speech", out, progress=False))
    assert str(empty) in text and "x.wav" in text
    assert not out.exists()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 50, 400])
def test_splits_are_stable_disjoint_and_none_is_empty(count):
    names = [f"speaker {n}" for n in range(count)]
    splits = assign_splits(names * 2, 0.1, 0.1)
    assert splits == assign_splits(names[::-1], 0.1, 0.1) and len(splits) == count
    present = set(splits.values())
    assert present == {1: {"train"}, 2: {"train", "valid"}}.get(count, {"train", "valid", "test"})
    if count == 400:
        assert 20 <= sum(s == "valid" for s in splits.values()) <= 60
        grown = assign_splits([*names, *(f"new {n}" for n in range(100))], 0.1, 0.1)
        assert all(grown[name] == splits[name] for name in names)


def test_zero_fractions_leave_everything_in_train():
    assert set(assign_splits(list("abcdef"), 0.0, 0.0).values()) == {"train"}


@pytest.mark.parametrize("fractions, beside_train", [((0.0, 0.01), {"test"}), ((0.01, 0.0), {"valid"})])
def test_two_groups_are_enough_for_train_and_the_one_split_that_is_asked_for(fractions, beside_train):
    assert set(assign_splits(["speaker 1", "speaker 2"], *fractions).values()) == {"train"} | beside_train


def test_probe_reports_length_and_rate(tmp_path):
    assert probe_audio(str(tone(tmp_path / "a.wav", seconds=2.5, rate=8000))) == (20000, 8000)
    assert "no such audio file" in probe_audio(str(tmp_path / "gone.wav"))


@pytest.mark.parametrize(
    ("names", "speakers"),
    [
        ([f"{s}/{c}/{s}-{c}-{u:04d}" for s in (19, 26, 27, 32) for c in (198, 227) for u in (0, 1)], "19 26 27 32"),
        ([f"{s}/{c}/{s}_{c}_000001_00000{u}" for s in (19, 26, 27) for c in (7, 8) for u in (0, 1)], "19 26 27"),
        ([f"{s}_{u:03d}" for s in ("p226", "p227", "p228") for u in (1, 2, 3)], "p226 p227 p228"),
        ([f"clean/{s}_{u:03d}" for s in ("p226", "p227", "p228") for u in (1, 2, 3)], "p226 p227 p228"),
        (
            [f"book_00{b}_chp_1_reader_0{r}_{b}" for b in (1, 2) for r in (11, 12, 13)],
            "reader_011 reader_012 reader_013",
        ),
    ],
)
def test_speakers_of_known_collections_share_no_split(names, speakers, tmp_path):
    for name in names:
        tone(tmp_path / "in" / f"{name}.wav")
    report = scan_folder(tmp_path / "in", "speech", tmp_path / "m.jsonl", progress=False)
    entries = read_manifest(tmp_path / "m.jsonl")
    assert sorted({e.speaker for e in entries}) == speakers.split()
    assert len({(e.speaker, e.split) for e in entries}) == len(speakers.split())
    assert "speakers by " in str(report) and f"{sorted(names)[0]}.wav -> {speakers.split()[0]}" in str(report)


@pytest.mark.parametrize("name", ["{year}-05-15", "{year}-05-1530", "s{n}_00{n}"])
def test_days_and_sessions_are_no_speakers(name, tmp_path):
    for who in ("alice", "bob", "carol"):
        for n, year in enumerate((2021, 2022, 2023, 2024)):
            tone(tmp_path / "in" / who / f"{name.format(year=year, n=n)}.wav")
    out = tmp_path / "m.jsonl"
    if name == "{year}-05-15":  # no collection's name
        scan_folder(tmp_path / "in", "speech", out, progress=False)
    else:
        text = message(lambda: scan_folder(tmp_path / "in", "speech", out, progress=False))
        assert "both in alice and in bob" in text and "--group-level 1" in text and not out.exists()
        scan_folder(tmp_path / "in", "speech", out, progress=False, group_level=1)
    assert {e.speaker for e in read_manifest(out)} == {"alice", "bob", "carol"}
    assert len({(e.speaker, e.split) for e in read_manifest(out)}) == 3


def test_loose_files_beside_those_of_a_collection_are_not_split(tmp_path):
    for n in range(12):
        tone(tmp_path / "in" / f"{19 + n % 3}-198-{n:04d}.wav")
    for n in range(5):
        tone(tmp_path / "in" / f"anna take {n}.wav")
    out = tmp_path / "m.jsonl"
    text = message(lambda: scan_folder(tmp_path / "in", "speech", out, progress=False))
    assert "5 of 17 files lie beside" in text and "anna take 0.wav" in text and not out.exists()


@pytest.mark.parametrize("folder", ["", "one/", "one/deep/"])
def test_speech_without_known_speakers_is_not_split_unless_told_to(folder, tmp_path):
    for n in range(6):
        tone(tmp_path / "in" / f"{folder}take{n}.wav")
    out = tmp_path / "m.jsonl"
    text = message(lambda: scan_folder(tmp_path / "in", "speech", out, progress=False))
    assert "--speaker-per-file" in text and not out.exists()
    assert "as asked for" in str(scan_folder(tmp_path / "in", "speech", out, progress=False, speaker_per_file=True))
    assert len({e.speaker for e in read_manifest(out)}) == 6
    assert scan_folder(tmp_path / "in", "speech", out, split="train", progress=False).counts == {"train": 6}


def test_speech_beside_the_speakers_folders_is_not_split_unless_told_to(tmp_path):
    for name in ("a/1.wav", "b/1.wav", "c/1.wav", "one.wav", "same.wav"):
        tone(tmp_path / "in" / name)
    out = tmp_path / "m.jsonl"
    text = message(lambda: scan_folder(tmp_path / "in", "speech", out, progress=False))
    assert "2 of 5 files lie beside the speakers' folders (one.wav)" in text and not out.exists()
    assert scan_folder(tmp_path / "in", "speech", out, split="train", progress=False).counts == {"train": 5}
    scan_folder(tmp_path / "in", "speech", out, progress=False, speaker_per_file=True)
    scan_folder(tmp_path / "in", "noise", out, progress=False)  # a noise file is a recording of its own
    assert len(read_manifest(out)) == 5


def test_silent_recordings_are_bad_files(tmp_path):
    root, rng = tmp_path / "in", np.random.default_rng(0)
    tone(root / "good.wav")
    one = 0.1 * rng.standard_normal(32000)
    soundfile.write(root / "late.wav", np.r_[np.zeros(40000), one], 16000)  # silent at first only
    soundfile.write(root / "digital.flac", np.zeros(48000), 16000)
    soundfile.write(root / "antiphase.wav", np.stack([one, -one], axis=1), 16000)
    soundfile.write(root / "faint.wav", 1e-6 * one, 16000, subtype="FLOAT")
    soundfile.write(root / "quiet_room.wav", np.r_[1e-4, np.zeros(16000)], 16000)
    report = scan_folder(root, "rir", tmp_path / "m.jsonl", progress=False)
    assert sorted(path.rsplit("/", 1)[1] for path, _ in report.bad) == ["antiphase.wav", "digital.flac", "faint.wav"]
    assert all("silent" in reason for _, reason in report.bad)
    assert sum(report.counts.values()) == 3


@pytest.mark.parametrize("name", [b"caf\xe9.wav", "line\u2028end.wav".encode(), "nel\x85.wav".encode()])
def test_odd_file_names_survive_the_manifest(name, tmp_path):
    root = tmp_path / "in"
    tone(root / "good.wav")
    tone(root / "bert" / "good.wav")
    try:
        os.rename(root / "good.wav", os.path.join(os.fsencode(root), name))
    except OSError:
        pytest.skip("this file system takes no such name")
    (root / "broken.wav").write_bytes(b"text")
    os.rename(root / "broken.wav", os.path.join(os.fsencode(root), b"broken" + name))
    report = scan_folder(root, "noise", tmp_path / "m.jsonl", progress=False)
    assert len(report.bad) == 1 and (tmp_path / "m.jsonl.bad.txt").exists()
    assert os.fsencode(root) + b"/" + name in [os.fsencode(e.path) for e in read_manifest(tmp_path / "m.jsonl")]


SEPARATORS = "\u2028\u2029\x85\x1c\x0b"


def test_a_file_is_one_line_however_lines_are_told_apart(tmp_path):
    entries = [Entry(str(tmp_path / f"{mark}.wav"), "noise", "c", 1.0, 16000, "train") for mark in SEPARATORS]
    text = write_manifest(tmp_path / "m.jsonl", entries).read_text(encoding="utf-8")
    assert len(text.splitlines()) == len(entries)
    assert [e.path for e in read_manifest(tmp_path / "m.jsonl")] == [e.path for e in entries]


def test_a_separator_that_stands_in_a_manifest_ends_no_line(tmp_path):
    line = {"kind": "noise", "seconds": 1, "sample_rate": 16000, "split": "train", "path": f"a{SEPARATORS[:3]}.wav"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    (entry,) = read_manifest(tmp_path / "m.jsonl")
    assert entry.path == str(tmp_path / line["path"])


def test_a_manifest_that_an_editor_of_windows_saved_is_read(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n" + json.dumps(LINE).encode()
    )
    assert [entry.path for entry in read_manifest(tmp_path / "m.jsonl")] == [str(tmp_path / "a/1.wav")] * 2


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_cut_recordings_are_bad_files(suffix, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / f"cut{suffix}"
    soundfile.write(path, 0.1 * rng.standard_normal(16000 * 6), 16000)
    assert probe_audio(str(path))[1] == 16000
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert isinstance(probe_audio(str(path)), str)


def test_what_shares_a_voice_or_a_file_shares_a_split(tmp_path):
    a = Entry(str(tmp_path / "a.wav"), "speech", "c", 1.0, 16000, "train", speaker="anna")
    b = replace(a, path=str(tmp_path / "b.wav"), split="valid")
    for name, entries in (("voice", [a, b]), ("file", [a, replace(a, split="test", corpus="d")])):
        path = write_manifest(tmp_path / f"{name}.jsonl", entries)
        with pytest.raises(ManifestError, match="is in the splits train and"):
            require_disjoint_splits([path])
    parts = [write_manifest(tmp_path / f"{e.split}.jsonl", [e]) for e in (a, b)]
    with pytest.raises(ManifestError, match="anna is in the splits train and valid"):
        require_disjoint_splits(parts)
    require_disjoint_splits([write_manifest(tmp_path / "fine.jsonl", [a, replace(b, speaker="ben")])])


def test_copies_in_several_splits_are_named(tmp_path):
    """A link counts once; a copy is a file of its own, and its speakers may be in different splits."""
    rng = np.random.default_rng(0)
    for k in range(8):
        (tmp_path / f"wav/s{k}").mkdir(parents=True)
        soundfile.write(tmp_path / f"wav/s{k}/own.wav", 0.1 * rng.standard_normal(1600), 16000)
    scanned = {"kind": "speech", "out": tmp_path / "m.jsonl", "progress": False}
    assert scan_folder(tmp_path / "wav", **scanned).notes == []
    splits = {Path(e.path).parent.name: e.split for e in read_manifest(tmp_path / "m.jsonl")}
    train, test = (next(name for name, split in sorted(splits.items()) if split == s) for s in ("train", "test"))
    other = next(name for name, split in sorted(splits.items()) if split == "train" and name != train)
    shutil.copy(tmp_path / f"wav/{train}/own.wav", tmp_path / f"wav/{other}/same.wav")
    assert scan_folder(tmp_path / "wav", **scanned).notes == []  # within one split it is no leak
    shutil.copy(tmp_path / f"wav/{train}/own.wav", tmp_path / f"wav/{test}/again.wav")
    (note,) = scan_folder(tmp_path / "wav", **scanned).notes
    assert "hold the same bytes" in note and f"{test}/again.wav" in note
    assert scan_folder(tmp_path / "wav", split="train", corpus="c", **scanned).notes == []
