"""A full disk under a C library is the system's error, with the name of the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dccrn_lib.runtime.sinks import sink

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux that is always full")


@full
@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")])
def test_what_the_system_says_of_a_full_disk_is_raised(form, subtype):
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        with sink("/dev/full") as file:
            soundfile.write(file, np.zeros(20_000), 16000, subtype, format=form)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with sink(tmp_path / "a") as file:
            file.write(b"x")
            raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
)
def test_the_file_is_the_one_that_is_written_by_name(tmp_path, form, subtype):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000, 2))
    soundfile.write(tmp_path / "a", x, 48000, subtype, format=form)
    with sink(tmp_path / "b") as file:
        soundfile.write(file, x, 48000, subtype, format=form)
    (a, _), (b, _) = soundfile.read(tmp_path / "a"), soundfile.read(tmp_path / "b")
    assert np.array_equal(a, b) and os.path.getsize(tmp_path / "a") == os.path.getsize(tmp_path / "b")
