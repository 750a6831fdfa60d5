"""Losses on waveforms: values by hand, independence of batch size, gradients, errors."""

import math

import numpy as np
import pytest
import torch

from dccrn_lib.losses import WaveformLoss, compressed_spectral_loss, level_loss, si_snr_db, si_snr_loss
from dccrn_lib.runtime.errors import MetricError


@pytest.fixture
def orthogonal():
    """Two signals of mean 0 and power 1/2 that are orthogonal: ten periods of sine and cosine, (1, 800)."""
    angle = torch.arange(800.0) * (2 * math.pi / 80)
    return angle.sin()[None], angle.cos()[None]


def si_snr_reference(estimate: np.ndarray, target: np.ndarray) -> float:
    """SI-SNR through the correlation coefficient: 10 log10(rho^2 / (1 - rho^2)), in double precision."""
    rho = np.corrcoef(estimate.astype(float), target.astype(float))[0, 1]
    return 10 * math.log10(rho**2 / (1 - rho**2))


@pytest.mark.parametrize(("share", "decibel"), [(1.0, 0.0), (0.1, 20.0), (10.0, -20.0), (0.5, 6.0206)])
def test_si_snr_of_known_parts(orthogonal, share, decibel):
    s, n = orthogonal
    assert si_snr_db(s + share * n, s).item() == pytest.approx(decibel, abs=1e-3)


def test_si_snr_equals_the_formula_with_the_correlation():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(3, 1000, generator=generator) + 0.3
    estimate = 0.2 * target + 0.1 * torch.randn(3, 1000, generator=generator) - 0.5
    for i in range(3):
        expected = si_snr_reference(estimate[i].numpy(), target[i].numpy())
        assert si_snr_db(estimate, target)[i].item() == pytest.approx(expected, abs=1e-3)


def test_si_snr_is_blind_to_gain_sign_and_offset_and_only_to_those(orthogonal):
    s, n = orthogonal
    estimate = s + 0.1 * n
    for changed in (3 * estimate, -estimate, estimate + 0.7):
        assert si_snr_db(changed, s).item() == pytest.approx(20.0, abs=1e-2)
    assert si_snr_db(estimate.roll(10, -1), s).item() < 5
    # without removing the mean the offset of 0.7 would count as noise: about -0.1 dB
    assert si_snr_db(estimate + 0.7, s).item() > 19


def test_si_snr_has_one_value_an_item_and_the_loss_is_their_negative_mean(orthogonal):
    s, n = orthogonal
    estimate = torch.cat([s + 0.1 * n, s + n])
    target = torch.cat([s, s])
    assert si_snr_db(estimate, target).tolist() == pytest.approx([20.0, 0.0], abs=1e-3)
    assert si_snr_loss(estimate, target).item() == pytest.approx(-10.0, abs=1e-3)


@pytest.mark.parametrize("loss", [si_snr_loss, level_loss])
def test_reduction_does_not_depend_on_the_batch_size(loss):
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(2, 600, generator=generator)
    estimate = target + 0.5 * torch.randn(2, 600, generator=generator)
    four = loss(torch.cat([estimate, estimate]), torch.cat([target, target]))
    assert four.item() == pytest.approx(loss(estimate, target).item(), rel=1e-5)
    halves = (loss(estimate[:1], target[:1]) + loss(estimate[1:], target[1:])) / 2
    assert halves.item() == pytest.approx(loss(estimate, target).item(), rel=1e-5)


@pytest.mark.parametrize(("gain", "value"), [(1.0, 0.0), (0.0, 1.0), (-1.0, 4.0), (3.0, 4.0), (0.5, 0.25)])
def test_level_loss_is_the_squared_error_of_the_gain(orthogonal, gain, value):
    s, n = orthogonal
    assert level_loss(gain * s + 0.3 * n, s).item() == pytest.approx(value, abs=1e-4)


def spectral_reference(estimate, target, power, weight, size):
    """The compressed spectral distance frame by frame in numpy."""
    scale = max(math.sqrt(np.mean(target**2)), 1e-3) * 10
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    spectra = []
    for x in (estimate, target):
        padded = np.pad(x / scale, size // 2)
        starts = range(0, len(padded) - size + 1, size // 4)
        spectra.append(np.stack([np.fft.rfft(window * padded[i : i + size]) for i in starts]))
    magnitudes = [np.sqrt(np.abs(z) ** 2 + 1e-8) for z in spectra]
    small = [m**power for m in magnitudes]
    compressed = [c * z / m for c, z, m in zip(small, spectra, magnitudes, strict=True)]
    magnitude_term = np.mean((small[0] - small[1]) ** 2)
    complex_term = np.mean(np.abs(compressed[0] - compressed[1]) ** 2)
    return (1 - weight) * magnitude_term + weight * complex_term


@pytest.mark.parametrize(("power", "weight"), [(0.3, 0.3), (1.0, 0.0), (0.5, 1.0)])
def test_compressed_spectral_loss_equals_numpy(power, weight):
    generator = np.random.default_rng(0)
    target = generator.standard_normal(2000)
    estimate = 0.8 * target + 0.2 * generator.standard_normal(2000)
    ours = compressed_spectral_loss(
        torch.tensor(estimate, dtype=torch.float32)[None],
        torch.tensor(target, dtype=torch.float32)[None],
        power,
        weight,
        (256,),
    )
    assert ours.item() == pytest.approx(spectral_reference(estimate, target, power, weight, 256), rel=1e-3)


def test_compressed_spectral_loss_sees_gain_and_sign_and_averages_its_sizes():
    x = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    assert compressed_spectral_loss(x, x).item() == 0
    assert compressed_spectral_loss(0.5 * x, x).item() > 1e-4
    sign = compressed_spectral_loss(-x, x).item()
    assert sign > 1e-3
    assert compressed_spectral_loss(-x, x, complex_weight=0.0).item() == pytest.approx(0, abs=1e-12)
    each = [compressed_spectral_loss(-x, x, sizes=(n,)).item() for n in (256, 512)]
    assert compressed_spectral_loss(-x, x, sizes=(256, 512)).item() == pytest.approx(sum(each) / 2, rel=1e-5)
    # both signals are scaled by the target's level: a quieter recording does not count less
    assert compressed_spectral_loss(-0.1 * x, 0.1 * x).item() == pytest.approx(sign, rel=1e-3)


def test_waveform_loss_is_the_weighted_sum_of_its_terms():
    e, s = torch.randn(2, 1, 2000, generator=torch.Generator().manual_seed(0))
    terms = [loss(e, s).item() for loss in (si_snr_loss, level_loss, compressed_spectral_loss)]
    for level, spectral in ((0.0, 0.0), (1.0, 0.0), (0.0, 5.0), (2.0, 5.0)):
        total = terms[0] + level * terms[1] + spectral * terms[2]
        assert WaveformLoss(level, spectral)(e, s).item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("loss", [si_snr_loss, level_loss, compressed_spectral_loss])
@pytest.mark.parametrize(("estimate", "target"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_gradients_are_finite_on_silence(loss, estimate, target):
    noise = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    e = (estimate * noise).requires_grad_()
    value = loss(e, target * noise)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(e.grad).all()


@pytest.mark.parametrize("loss", [si_snr_loss, level_loss, compressed_spectral_loss])
def test_the_gradient_of_a_silent_target_is_finite(loss):
    noise = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(1, 2000, requires_grad=True)
    loss(noise, target).backward()
    assert torch.isfinite(target.grad).all()


@pytest.mark.parametrize("loss", [si_snr_db, level_loss, compressed_spectral_loss])
def test_shapes_must_agree(loss):
    with pytest.raises(MetricError, match=r"one shape, got \(1, 10\), \(1, 11\)"):
        loss(torch.zeros(1, 10), torch.zeros(1, 11))
