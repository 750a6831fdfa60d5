"""The STFT: exact inverse, frame positions, streaming property, errors."""

import math

import numpy as np
import pytest
import torch

from dccrn_lib.audio.stft import ComplexSTFT, STFTConfig
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import AudioError, ConfigError

LENGTHS = (1, 2, 99, 100, 399, 400, 401, 16001)


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
@pytest.mark.parametrize("hop", [100, 160])
@pytest.mark.parametrize("length", LENGTHS)
def test_inverse_is_exact(window, hop, length):
    torch.manual_seed(length)
    stft = ComplexSTFT(STFTConfig(hop_length=hop, window=window))
    x = torch.randn(2, length)
    spectrum = stft(x)
    assert spectrum.dtype == torch.complex64
    assert spectrum.shape == (2, 257, stft.frame_count(length))
    y = stft.inverse(spectrum, length)
    assert y.shape == x.shape
    assert (y - x).norm() / x.norm() < 1e-6


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
@pytest.mark.parametrize("hop", [1, 37, 200, 300])
def test_inverse_is_exact_up_to_three_quarters_of_the_window(window, hop):
    stft = ComplexSTFT(STFTConfig(hop_length=hop, window=window))
    x = torch.randn(1, 3001, generator=torch.Generator().manual_seed(hop))
    assert (stft.inverse(stft(x), 3001) - x).norm() / x.norm() < 1e-6


@pytest.mark.parametrize("window", ["hann", "sqrt_hann"])
def test_frames_that_do_not_overlap_lose_what_lies_under_the_zero_of_the_window(window):
    stft = ComplexSTFT(STFTConfig(hop_length=400, window=window))
    x = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    y, place = stft.inverse(stft(x), 2000), torch.arange(2000) % 400
    assert not y[:, place == 0].any()
    inner = (place >= 40) & (place < 360)
    torch.testing.assert_close(y[:, inner], x[:, inner], rtol=0, atol=1e-4)


@pytest.mark.parametrize("hop", [100, 160])
def test_frame_equals_its_definition(hop):
    """X[k, f] = sum_n w[n] x[n + k hop - (win - hop)] exp(-2 pi j f n / 512)."""
    torch.manual_seed(0)
    stft = ComplexSTFT(STFTConfig(hop_length=hop))
    x = torch.randn(1, 2000)
    frame, freq = 7, 19
    total = 0j
    for n in range(400):
        position = n + frame * hop - (400 - hop)
        window = 0.5 - 0.5 * math.cos(2 * math.pi * n / 400)
        angle = -2 * math.pi * freq * n / 512
        total += window * x[0, position].item() * complex(math.cos(angle), math.sin(angle))
    assert abs(stft(x)[0, freq, frame].item() - total) < 1e-3


@pytest.mark.parametrize("hop", [100, 160])
def test_frame_needs_nothing_after_its_end(hop):
    """Frame k covers samples before (k + 1) hop: what comes later may be anything."""
    torch.manual_seed(0)
    stft = ComplexSTFT(STFTConfig(hop_length=hop))
    x = torch.randn(1, 3000)
    for k in (0, 1, 5):
        other = x.clone()
        other[:, (k + 1) * hop :] = torch.randn(1, 3000 - (k + 1) * hop)
        assert torch.equal(stft(x)[..., : k + 1], stft(other)[..., : k + 1])
        assert not torch.allclose(stft(x)[..., k + 1], stft(other)[..., k + 1])


def test_analysis_is_independent_of_what_follows_in_the_batch():
    torch.manual_seed(0)
    stft = ComplexSTFT()
    x = torch.randn(3, 1234)
    torch.testing.assert_close(stft(x)[1:2], stft(x[1:2]))


def test_gradient_passes_through_both_ways():
    stft = ComplexSTFT()
    x = torch.zeros(1, 777, requires_grad=True)
    stft.inverse(stft(x), 777).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(1, 777), rtol=1e-4, atol=1e-4)


def test_window_is_not_part_of_the_weights():
    assert not ComplexSTFT().state_dict()


@pytest.mark.parametrize("shape", [(100,), (1, 1, 100), (2, 0)])
def test_wrong_waveform_shape(shape):
    with pytest.raises(AudioError, match=r"\(batch, sample\)"):
        ComplexSTFT()(torch.zeros(shape))


def test_wrong_spectrum():
    stft = ComplexSTFT()
    spectrum = stft(torch.zeros(1, 1000))
    with pytest.raises(AudioError, match="257 frequency bins"):
        stft.inverse(spectrum[:, 1:], 1000)
    with pytest.raises(AudioError, match="at most"):
        stft.inverse(spectrum, 2000)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"window_length": 600}, "window 600"),
        ({"hop_length": 0}, "hop 0"),
        ({"hop_length": 401}, "hop 401"),
        ({"window": "hamming"}, "hamming"),
    ],
)
def test_wrong_sizes(sizes, words):
    with pytest.raises(ConfigError, match=words):
        STFTConfig(**sizes)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((1, 800), np.float32), "got ndarray; torch.from_numpy"),
        (torch.zeros(1, 800, dtype=torch.int16), "got torch.int16; divide integers by their full scale"),
        (torch.zeros(1, 800).to_sparse(), "to_dense"),
        (torch.zeros(800), r"at least one of each, got \(800,\)"),
        (torch.zeros(0, 800), r"got \(0, 800\)"),
        (torch.zeros(2, 0), r"got \(2, 0\)"),
    ],
)
def test_what_is_no_waveform_is_refused_by_every_network(bad, words: str):
    for network in (ComplexSTFT(), build_model("distil_dccrn_mini"), build_model("uformer_mini")):
        with pytest.raises(AudioError, match=words):
            network(bad)
