"""Training losses on waveforms: SI-SNR, the level term, a compressed spectral distance, and their weighted sum."""

from __future__ import annotations

import torch
from torch import Tensor

from dccrn_lib.runtime.errors import MetricError


def _check(estimate: Tensor, target: Tensor) -> None:
    if estimate.shape != target.shape or estimate.dim() < 1:
        raise MetricError(
            f"estimate and target must have one shape, got {tuple(estimate.shape)}, {tuple(target.shape)}"
        )


def si_snr_db(estimate: Tensor, target: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale-invariant signal-to-noise ratio with the means removed.

    Blind to gain and sign of ``estimate``: see :func:`level_loss`.

    Args:
        estimate, target: (..., sample), same shape.
        eps: keeps silence finite (and its gradient too).

    Returns:
        dB, (...): for (batch, sample) one value an item.

    Raises:
        MetricError: the shapes differ, or there is no axis.

    Source: Luo and Mesgarani 2019, eq. 15. The authors' DCCRN code leaves the means in; we remove them.

    >>> s = torch.sin(torch.arange(800.0))[None]
    >>> n = torch.cos(torch.arange(800.0))[None]
    >>> round(si_snr_db(-3 * (s + 0.1 * n), s).item(), 1)
    20.0
    """
    _check(estimate, target)
    estimate, target = estimate.float(), target.float()
    e = estimate - estimate.mean(-1, keepdim=True)
    s = target - target.mean(-1, keepdim=True)
    # s_target = <e, s> s / <s, s>;   e_noise = e - s_target
    s_target = (e * s).sum(-1, keepdim=True) * s / ((s * s).sum(-1, keepdim=True) + eps)
    e_noise = e - s_target
    # SI-SNR = 10 log10 (|s_target|^2 / |e_noise|^2)
    return 10 * torch.log10((s_target.square().sum(-1) + eps) / (e_noise.square().sum(-1) + eps))


def si_snr_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Negative mean SI-SNR in dB.

    Shapes: (..., sample) twice -> scalar.

    Raises:
        MetricError: the shapes differ.
    """
    return -si_snr_db(estimate, target).mean()


def level_loss(estimate: Tensor, target: Tensor, eps: float = 1e-8) -> Tensor:
    """(g - 1)^2 with g = <estimate, target> / <target, target>: gain one and the right polarity.

    SI-SNR cannot tell s from -0.3 s, and all eight clips released with DCCRN are polarity-inverted. This term is
    zero for the right gain and grows to 4 for an inverted copy; SI-SNR is free to satisfy it at no cost.

    Shapes: (batch, sample) twice -> scalar.

    Raises:
        MetricError: the shapes differ.

    Source: ours.
    """
    _check(estimate, target)
    estimate, target = estimate.float(), target.float()
    gain = (estimate * target).sum(-1) / ((target * target).sum(-1) + eps)
    return (gain - 1).square().mean()


def compressed_spectral_loss(
    estimate: Tensor, target: Tensor, power: float = 0.3, complex_weight: float = 0.3, sizes: tuple[int, ...] = (512,)
) -> Tensor:
    """Distance of power-compressed spectra, magnitude and complex part together.

    (1 - a) mean(|E|^p - |S|^p)^2 + a mean| |E|^p e^{j arg E} - |S|^p e^{j arg S} |^2, both signals divided by ten times
    the target's RMS (taken as -60 dBFS where it is lower). Quiet parts count more than in SI-SNR, which is what PESQ
    listens to; it also sees gain and sign.

    Args:
        estimate, target: (batch, sample).
        power: p in (0, 1].
        complex_weight: a in [0, 1].
        sizes: FFT sizes; the hop is a quarter of each.

    Returns:
        Scalar. Gradients are finite for silence, those of the target included.

    Raises:
        MetricError: the shapes differ.

    Source: Ephrat et al. 2018; Braun and Tashev 2021 (weights).
    """
    _check(estimate, target)
    # clamped before the root, whose slope at 0 is infinite
    scale = target.float().square().mean(-1, keepdim=True).clamp_min(1e-6).sqrt() * 10
    total = estimate.new_zeros((), dtype=torch.float32)
    for size in sizes:
        window = torch.hann_window(size, device=estimate.device)
        spectra = [
            torch.stft(x.float() / scale, size, size // 4, window=window, return_complex=True, pad_mode="constant")
            for x in (estimate, target)
        ]
        mags = [(z.real**2 + z.imag**2 + 1e-8).sqrt() for z in spectra]  # (batch, freq, frame)
        small = [m**power for m in mags]
        parts = [z * (s / m) for z, s, m in zip(spectra, small, mags, strict=True)]
        difference = parts[0] - parts[1]
        magnitude_term = (small[0] - small[1]).square().mean()
        complex_term = (difference.real**2 + difference.imag**2).mean()
        total = total + (1 - complex_weight) * magnitude_term + complex_weight * complex_term
    return total / len(sizes)


class WaveformLoss:
    """-SI-SNR + level_weight * level + spectral_weight * compressed spectral distance: (estimate, target) -> scalar.

    Args:
        level_weight: of :func:`level_loss`; 0 leaves it out.
        spectral_weight: of :func:`compressed_spectral_loss`; 0 leaves it out.

    Shapes: (batch, sample) twice -> scalar.

    >>> loss = WaveformLoss(level_weight=2.0)
    >>> s, e = torch.sin(torch.arange(800.0))[None], torch.cos(torch.arange(800.0))[None]
    >>> bool(loss(e, s) == si_snr_loss(e, s) + 2 * level_loss(e, s))
    True
    """

    def __init__(self, level_weight: float = 1.0, spectral_weight: float = 0.0) -> None:
        self.level_weight, self.spectral_weight = level_weight, spectral_weight

    def __call__(self, estimate: Tensor, target: Tensor) -> Tensor:
        """(batch, sample) twice -> scalar; MetricError where the shapes differ."""
        loss = si_snr_loss(estimate, target)
        if self.level_weight:
            loss = loss + self.level_weight * level_loss(estimate, target)
        if self.spectral_weight:
            loss = loss + self.spectral_weight * compressed_spectral_loss(estimate, target)
        return loss
