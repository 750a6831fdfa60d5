"""The complex short-time Fourier transform and its exact inverse.

Frames start every ``hop_length`` samples. The signal is padded with ``window_length - hop_length`` zeros on the
left and with what the last frame needs on the right; each frame is windowed, zero-padded on the right to
``fft_size`` and transformed. Frame k covers the samples [k * hop - (window - hop), (k + 1) * hop): it needs
nothing after (k + 1) * hop, so the transform streams.

The inverse is exact for every length, and for hops up to three quarters of the window. Beyond that some samples lie under
the edges of windows only: their digits fade, and where frames do not overlap the first sample of each is lost (it comes
back as 0), since both windows are 0 there.

Source: arithmetic of DCCRN's analysis and synthesis (Hu et al. 2020); the padding rule for any length is ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.audio.stft_config import STFTConfig
from dccrn_lib.runtime.errors import AudioError


def require_waveform(x: Tensor) -> None:
    """AudioError unless ``x`` is a tensor of floats (batch, sample) with at least one of each."""
    wanted = "expected a waveform, a tensor of floats (batch, sample)"
    if not isinstance(x, Tensor):
        raise AudioError(f"{wanted}, got {type(x).__name__}; torch.from_numpy makes a tensor of an array")
    if not x.is_floating_point():
        raise AudioError(f"{wanted}, got {x.dtype}; divide integers by their full scale (32768 for 16 bit)")
    if x.layout is not torch.strided:
        raise AudioError(f"{wanted}, got one of layout {x.layout}; to_dense() makes a plain tensor of it")
    if x.dim() != 2 or x.numel() < 1:
        raise AudioError(f"{wanted} with at least one of each, got {tuple(x.shape)}")


class ComplexSTFT(nn.Module):
    """Waveform to complex spectrum and back.

    >>> stft = ComplexSTFT(STFTConfig())
    >>> x = torch.randn(2, 1234)
    >>> stft(x).shape                                                  # (batch, freq, frame)
    torch.Size([2, 257, 16])
    >>> torch.allclose(stft.inverse(stft(x), 1234), x, atol=1e-5)
    True
    """

    window: Tensor

    def __init__(self, config: STFTConfig | None = None) -> None:
        super().__init__()
        self.config = config or STFTConfig()
        window = torch.hann_window(self.config.window_length, periodic=True, dtype=torch.float32)
        if self.config.window == "sqrt_hann":
            window = window.sqrt()
        self.register_buffer("window", window, persistent=False)  # (window_length,)

    @property
    def frequencies(self) -> int:
        """Number of frequency bins, DC and Nyquist included."""
        return self.config.fft_size // 2 + 1

    def frame_count(self, samples: int) -> int:
        """Number of frames for a signal of ``samples`` samples: every sample lies in all frames that can hold it."""
        overlap = self.config.window_length - self.config.hop_length
        return (samples - 1 + overlap) // self.config.hop_length + 1

    def forward(self, x: Tensor) -> Tensor:
        """Analyse.

        Args:
            x: waveform, float, (batch, sample), any length >= 1.

        Returns:
            Complex64 spectrum, (batch, freq, frame).

        Raises:
            AudioError: not a tensor of floats, not (batch, sample), or empty.
        """
        require_waveform(x)
        c = self.config
        frames = self.frame_count(x.shape[-1])
        left = c.window_length - c.hop_length
        right = (frames - 1) * c.hop_length + c.window_length - left - x.shape[-1]
        padded = F.pad(x.float(), (left, right))
        pieces = padded.unfold(-1, c.window_length, c.hop_length)  # (batch, frame, window)
        # X[k, f] = sum_n w[n] x[k * hop + n] exp(-2 pi j f n / N)
        spectrum = torch.fft.rfft(pieces * self.window, n=c.fft_size)  # (batch, frame, freq)
        return spectrum.transpose(1, 2)  # (batch, freq, frame)

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Synthesise.

        Args:
            spectrum: complex, (batch, freq, frame).
            length: number of samples to return, at most what the frames cover.

        Returns:
            Waveform float32, (batch, sample = length).

        Raises:
            AudioError: fewer frames than ``length`` needs, or a wrong number of frequencies.
        """
        c = self.config
        if spectrum.shape[1] != self.frequencies:
            raise AudioError(
                f"expected {self.frequencies} frequency bins for FFT {c.fft_size}, got {spectrum.shape[1]}"
            )
        frames = spectrum.shape[-1]
        left = c.window_length - c.hop_length
        total = (frames - 1) * c.hop_length + c.window_length
        if length < 1 or left + length > total:
            raise AudioError(f"{frames} frames give at most {total - left} samples, asked for {length}")
        pieces = torch.fft.irfft(spectrum.transpose(1, 2), n=c.fft_size)  # (batch, frame, fft)
        pieces = pieces[..., : c.window_length] * self.window  # (batch, frame, window)
        # y[n] = sum_k w[n - k hop] y_k[n - k hop] / sum_k w[n - k hop]^2
        signal = self._overlap_add(pieces, total)
        weight = self._overlap_add((self.window**2).expand(1, frames, -1), total)
        piece = slice(left, left + length)
        return signal[:, piece] / weight[:, piece].clamp_min(1e-8)

    def _overlap_add(self, pieces: Tensor, total: int) -> Tensor:
        """Sum (batch, frame, window) at its frame positions -> (batch, sample = total)."""
        c = self.config
        folded = F.fold(
            pieces.transpose(1, 2), output_size=(1, total), kernel_size=(1, c.window_length), stride=(1, c.hop_length)
        )
        return folded[:, 0, 0]  # (batch, sample)
