"""A corpus decoded once: the same samples as from the files, nothing clipped, nothing half-written."""

from __future__ import annotations

import dataclasses
import os
import pickle

import numpy as np
import pytest
import soundfile

from dccrn_lib.corpus.decoded import DecodedCorpus, _in_parts, decode_corpus
from dccrn_lib.corpus.decoding import AudioCache
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.corpus.recordings import as_float
from dccrn_lib.runtime.errors import AudioError

RATE = 16000


def entry(path, x, kind="speech", group="a", subtype="PCM_16") -> Entry:
    soundfile.write(path, x, RATE, subtype=subtype)
    named = {"speaker": group} if kind == "speech" else {"recording": group}
    return Entry(str(path), kind, "made", len(x) / RATE, RATE, "train", **named)


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    speech = [entry(tmp_path / f"s{i}.wav", 0.1 * rng.standard_normal(RATE), group=f"s{i}") for i in range(3)]
    noise = [entry(tmp_path / f"n{i}.wav", 0.1 * rng.standard_normal(RATE * 3), "noise", f"n{i}") for i in range(2)]
    return speech, noise


def test_mixtures_are_those_read_from_the_files(corpus, tmp_path):
    speech, noise = corpus
    decoded = decode_corpus([*speech, *noise, speech[0]], tmp_path / "decoded", workers=1, progress=False)
    config = MixConfig(segment_seconds=0.5)
    plain = MixtureDataset(speech, noise, None, config, seed=3)
    held = MixtureDataset(speech, noise, None, config, seed=3, decoded=decoded)
    travelled = pickle.loads(pickle.dumps(held))  # as into a worker process
    for i in range(5):
        for part in ("noisy", "clean"):
            assert np.array_equal(plain[i][part], held[i][part])
            assert np.array_equal(plain[i][part], travelled[i][part])


def test_a_file_beyond_full_scale_keeps_its_shape(tmp_path):
    x = 4 * np.sin(np.arange(RATE) / 20)
    loud = entry(tmp_path / "loud.wav", x, subtype="FLOAT")
    y = decode_corpus([loud], tmp_path / "decoded", workers=1, progress=False).read(loud, 0.25, 0.5)
    assert np.abs(y - x[RATE // 4 : RATE * 3 // 4]).max() < 4 / 32000
    noise = entry(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE), "noise")
    clean = MixtureDataset([loud], [noise], None, MixConfig(segment_seconds=0.5))[0]["clean"].numpy()
    assert np.mean(np.abs(clean) > 0.99 * np.abs(clean).max()) < 0.12  # a sine: 9 %; clipped at 1 of 4 it were 84 %


@pytest.mark.parametrize("level_dbfs", [-30, -60, -85])
def test_a_quiet_file_keeps_its_resolution(tmp_path, level_dbfs):
    x = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    x *= 10 ** (level_dbfs / 20) / np.abs(x).max()
    quiet = entry(tmp_path / "quiet.wav", x, subtype="FLOAT")
    for kept in (decode_corpus([quiet], tmp_path / "decoded", progress=False), AudioCache(1)):
        got = as_float(*kept.view(quiet, 0.0, 1.0))
        assert 10 * np.log10(np.mean(x**2) / np.mean((got - x) ** 2)) > 45


def test_decoding_twice_opens_what_is_there(corpus, tmp_path):
    speech, _ = corpus
    first = decode_corpus(speech, tmp_path / "decoded", workers=1, progress=False)
    stamp = (first.folder / "samples.i16").stat().st_mtime_ns
    again = decode_corpus(speech, tmp_path / "decoded", workers=2, progress=False)
    assert again.folder == first.folder
    assert (again.folder / "samples.i16").stat().st_mtime_ns == stamp
    assert isinstance(again, DecodedCorpus) and len(again.index) == 3


def test_long_recordings_are_decoded_a_few_at_a_time(tmp_path):
    def of(seconds):
        return Entry("x.wav", "noise", "c", seconds, RATE, "train", recording="x")

    assert [len(part) for part in _in_parts([of(1000.0)] * 9 + [of(2.0)] * 600)] == [4, 4, 512, 89]
    assert list(_in_parts([])) == []


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_is_decoded(tmp_path):
    plain = entry(tmp_path / "cafe.wav", np.full(1600, 0.25, np.float32))
    odd = dataclasses.replace(plain, path=os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    try:
        os.rename(plain.path, odd.path)
    except OSError:
        pytest.skip("the file system takes only names in UTF-8")
    kept = decode_corpus([odd], tmp_path / "decoded", workers=1, progress=False)
    assert kept.read(odd, 0.0, 0.1).shape == (1600,)


def test_an_unreadable_file_is_named_and_nothing_is_left(corpus, tmp_path):
    speech, _ = corpus
    (tmp_path / "s1.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match="s1.wav"):
        decode_corpus(speech, tmp_path / "decoded", workers=1, progress=False)
    assert not list((tmp_path / "decoded").rglob("*.i16"))


def test_a_recording_that_is_replaced_is_decoded_anew(corpus, tmp_path):
    speech, _ = corpus
    first = decode_corpus(speech, tmp_path / "decoded", workers=1, progress=False)
    old = first.read(speech[0], 0.0, 0.5)
    replaced = entry(tmp_path / "s0.wav", 0.2 * np.sin(np.arange(round(speech[0].seconds * RATE)) / 9))
    assert (replaced.path, replaced.seconds) == (speech[0].path, speech[0].seconds)
    again = decode_corpus(speech, tmp_path / "decoded", workers=1, progress=False)
    assert again.folder != first.folder and not np.array_equal(again.read(speech[0], 0.0, 0.5), old)
