"""DCCRN: a U-Net of complex convolutions with an LSTM at its bottom that estimates a complex mask.

One class serves the baselines (DCCRN-E, DCCRN-CL) and the student of Distil-DCCRN: they differ in numbers only.

    X -> drop DC -> 6 encoder layers -> LSTM -> 6 decoder layers (with skips) -> mask -> times X -> Y

Representation inside: real tensors (batch, chan, freq, frame), first half of the channels real (see complex_nn).

Source: Hu et al. 2020 and the authors' code; the student's sizes are our reading (docs/ledger.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.audio.stft import ComplexSTFT, require_waveform
from dccrn_lib.networks.complex_layers import (
    ComplexBatchNorm2d,
    ComplexConv2d,
    ComplexConvTranspose2d,
    ComplexLSTM,
    from_complex,
    run_lstm,
)
from dccrn_lib.networks.configs import DCCRNConfig
from dccrn_lib.networks.prelu import PReLU

KERNEL, STRIDE = (5, 2), (2, 1)  # (freq, frame)


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else ComplexBatchNorm2d(channels)


class EncoderLayer(nn.Module):
    """Complex convolution that halves freq, norm, PReLU: (batch, in, freq, frame) -> (batch, out, freq / 2, frame)."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv = ComplexConv2d(in_channels, out_channels, KERNEL, STRIDE, (2, 0), causal_frames=1)
        self.norm = _norm(norm, out_channels)
        self.act = PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Encode (batch, in, freq, frame) -> (batch, out, freq / 2, frame)."""
        return self.act(self.norm(self.conv(x)))


class DecoderLayer(nn.Module):
    """Complex transposed convolution that doubles freq; norm and PReLU except in the last layer.

    The transposed kernel of 2 frames gives frame + 1 frames. Keeping frames 1.. lets output frame t use input frames
    t and t + 1 (one frame of look-ahead, the paper's choice); keeping frames ..frame uses t - 1 and t instead.

    Shapes: (batch, in, freq, frame) -> (batch, out, 2 freq, frame).
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str, lookahead: int, last: bool) -> None:
        super().__init__()
        self.conv = ComplexConvTranspose2d(in_channels, out_channels, KERNEL, STRIDE, (2, 0), (1, 0))
        self.norm = nn.Identity() if last else _norm(norm, out_channels)
        self.act = nn.Identity() if last else PReLU()
        self.lookahead = lookahead

    def forward(self, x: Tensor) -> Tensor:
        """Decode (batch, in, freq, frame), joined with its skip -> (batch, out, 2 freq, frame)."""
        y = self.conv(x)  # (batch, out, 2 freq, frame + 1)
        y = y[..., 1:] if self.lookahead else y[..., :-1]  # (batch, out, 2 freq, frame)
        return self.act(self.norm(y))


class RealBottleneck(nn.Module):
    """LSTM over the stacked features and a linear layer back: (batch, chan, freq, frame) -> same."""

    def __init__(self, channels: int, freqs: int, units: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels * freqs, units, num_layers=layers)
        self.project = nn.Linear(units, channels * freqs)

    def forward(self, x: Tensor) -> Tensor:
        """Run over the frames: (batch, chan, freq, frame) -> same."""
        batch, chan, freq, frame = x.shape
        seq = x.permute(3, 0, 1, 2).reshape(frame, batch, chan * freq)  # (frame, batch, chan * freq)
        seq = self.project(run_lstm(self.lstm, seq))
        return seq.reshape(frame, batch, chan, freq).permute(1, 2, 3, 0)  # (batch, chan, freq, frame)


class ComplexBottleneck(nn.Module):
    """Complex LSTM layers and separate real linear maps for the two parts: (batch, chan, freq, frame) -> same."""

    def __init__(self, channels: int, freqs: int, units: int, layers: int) -> None:
        super().__init__()
        size, hidden = channels // 2 * freqs, units // 2
        self.lstm = nn.ModuleList(ComplexLSTM(size if i == 0 else hidden, hidden) for i in range(layers))
        self.project_real = nn.Linear(hidden, size)
        self.project_imag = nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        """Run over the frames: (batch, chan, freq, frame) -> same."""
        batch, chan, freq, frame = x.shape
        seq = x.permute(3, 0, 1, 2).reshape(frame, batch, 2, chan // 2 * freq)  # (frame, batch, re/im, size)
        real, imag = seq[:, :, 0], seq[:, :, 1]
        for lstm in self.lstm:
            real, imag = lstm(real, imag)
        seq = torch.stack([self.project_real(real), self.project_imag(imag)], dim=2)  # (frame, batch, 2, size)
        return seq.reshape(frame, batch, chan, freq).permute(1, 2, 3, 0)  # (batch, chan, freq, frame)


def concat_skip(x: Tensor, skip: Tensor) -> Tensor:
    """Join along chan, real with real and imaginary with imaginary, ``x`` first in each half.

    Shapes: (batch, chan, freq, frame) twice -> (batch, 2 chan, freq, frame).
    """
    x_real, x_imag = x.chunk(2, dim=1)
    s_real, s_imag = skip.chunk(2, dim=1)
    return torch.cat([x_real, s_real, x_imag, s_imag], dim=1)


def apply_mask(mask: Tensor, spectrum: Tensor, mode: str) -> Tensor:
    """Multiply the noisy spectrum by the mask.

    Args:
        mask: complex64 (batch, freq, frame), the decoder's output M.
        spectrum: complex64 (batch, freq, frame), X.
        mode: "E": |Y| = tanh|M| |X|, phases added; "C": Y = M X; "R": Re Y = Re M Re X, Im Y = Im M Im X.

    Returns:
        Complex64 (batch, freq, frame). Gradients are finite for M = 0 and X = 0: no sqrt(0), no atan2(0, 0).

    >>> one = torch.ones(1, 1, 1, dtype=torch.complex64)
    >>> apply_mask(2j * one, 3 * one, "C").item()
    6j
    """
    if mode == "C":
        return mask * spectrum
    if mode == "R":
        return torch.complex(mask.real * spectrum.real, mask.imag * spectrum.imag)
    # tanh|M| e^{j arg M} X = M (tanh|M| / |M|) X, and tanh(a) / a -> 1 for a -> 0
    magnitude = (mask.real**2 + mask.imag**2 + 1e-12).sqrt()
    return mask * (magnitude.tanh() / magnitude) * spectrum


class DCCRN(nn.Module):
    """Deep complex convolution recurrent network.

    ``streams`` says that every layer needs a few neighbouring frames only, so that a signal may come in pieces (see
    ``enhancement.stream_step``); ``lookahead_frames`` how many frames of future an output frame depends on.

    Shapes: waveform (batch, sample) float32 at 16 kHz -> same shape, any length >= 1; the output is in [-1, 1].

    >>> model = DCCRN(DCCRNConfig(channels=(4, 4, 4, 4, 4, 4), rnn_units=4))
    >>> model(torch.randn(2, 777)).shape
    torch.Size([2, 777])
    """

    streams = True

    def __init__(self, config: DCCRNConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or DCCRNConfig()
        self.stft = ComplexSTFT(c.stft)
        sizes = [2, *c.channels]
        n = len(c.channels)
        self.encoder = nn.ModuleList(EncoderLayer(sizes[i], sizes[i + 1], c.norm) for i in range(n))
        freqs = c.stft.fft_size // 2 // 2**n
        bottleneck = RealBottleneck if c.lstm == "real" else ComplexBottleneck
        self.bottleneck = bottleneck(sizes[-1], freqs, c.rnn_units, c.rnn_layers)
        self.decoder = nn.ModuleList(
            DecoderLayer(2 * sizes[i + 1], sizes[i], c.norm, c.decoder_lookahead, last=i == 0)
            for i in reversed(range(n))
        )
        if c.initial_mask:
            # complex bias (br - bi) + j (br + bi) = initial_mask + 0j
            last = self.decoder[-1]
            assert isinstance(last, DecoderLayer)
            nn.init.constant_(last.conv.bias_real, c.initial_mask / 2)
            nn.init.constant_(last.conv.bias_imag, -c.initial_mask / 2)

    @property
    def lookahead_frames(self) -> int:
        """Frames of future that an output frame depends on."""
        return self.config.lookahead_frames

    def estimate_mask(self, spectrum: Tensor) -> Tensor:
        """The decoder's output as a complex mask, 0 at DC: complex64 (batch, freq, frame) -> same."""
        x = from_complex(spectrum[:, None, 1:])  # (batch, 2, freq - 1, frame): DC dropped
        skips = []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        x = self.bottleneck(x)
        for layer, skip in zip(self.decoder, reversed(skips), strict=True):
            x = layer(concat_skip(x, skip))
        x = F.pad(x.float(), (0, 0, 1, 0))  # (batch, 2, freq, frame): zero at DC
        return torch.complex(x[:, 0], x[:, 1])

    def enhance_spectrum(self, spectrum: Tensor) -> Tensor:
        """Mask a noisy spectrum: complex64 (batch, freq, frame) -> same."""
        mask = self.estimate_mask(spectrum)
        with torch.autocast(spectrum.device.type, enabled=False):
            return apply_mask(mask, spectrum, self.config.mask)

    def forward(self, x: Tensor) -> Tensor:
        """Enhance waveforms: float (batch, sample), any length >= 1 -> float32 (batch, sample).

        Raises:
            AudioError: not a tensor of floats, not of that shape, or empty.
        """
        require_waveform(x)
        with torch.autocast(x.device.type, enabled=False):
            spectrum = self.stft(x)
        enhanced = self.enhance_spectrum(spectrum)
        with torch.autocast(x.device.type, enabled=False):
            return self.stft.inverse(enhanced, x.shape[-1]).clamp(-1.0, 1.0)
