"""Uformer: a two-stream U-Net with a dilated dual-path conformer, the teacher of the distillation.

Representation: spectra are complex64 (batch, freq, frame) at the edge; inside, the complex stream is one real
tensor (batch, 2 * chan, freq, frame) and the magnitude stream (batch, chan, freq, frame).

Source: Fu et al., ICASSP 2022 (arXiv 2111.06015), in the form of the authors' 16 kHz code of June 2022, which
attends over all frames and has no encoder-decoder attention. Our STFT replaces theirs, whose imaginary part
is always 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.audio.stft import ComplexSTFT, require_waveform
from dccrn_lib.networks.configs import DILATED_LOOKAHEAD, UFORMER_LAYERS, UformerConfig
from dccrn_lib.networks.uformer.conformer import Conformer
from dccrn_lib.networks.uformer.streams import DecoderLayer, EncoderLayer, magnitude, unit_phasor
from dccrn_lib.runtime.errors import AudioError


class Uformer(nn.Module):
    """Speech enhancer; not causal, because its time attention sees every frame.

    ``streams`` says that it needs the whole signal at once, ``offline_reason`` why, and ``lookahead_frames`` how many
    frames of future an output frame depends on.

    ``encoder`` and ``decoder`` are ModuleLists of six layers; each returns (complex stream, magnitude stream)
    after fusion, with 128, 64, .. 4 and 8, 16, .. 256 frequencies.

    Args:
        config: sizes; the default is the full model.

    >>> model = Uformer(UformerConfig(channels=(1, 2, 2, 4, 4, 4, 4), conformer_hidden=4, dilated_channels=4))
    >>> model(torch.randn(2, 1234)).shape
    torch.Size([2, 1234])
    """

    streams = False

    def __init__(self, config: UformerConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or UformerConfig()
        self.stft = ComplexSTFT(c.stft)
        pairs = list(zip(c.channels[:-1], c.channels[1:], strict=True))
        self.encoder = nn.ModuleList(EncoderLayer(low, high, c.fusion) for low, high in pairs)
        self.conformer = Conformer(
            c.channels[-1], c.conformer_hidden, c.attention_hidden, c.dilated_channels, c.dropout, c.fusion, c.attention
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(high, low, c.fusion, last=i == UFORMER_LAYERS - 1)
            for i, (low, high) in enumerate(reversed(pairs))
        )
        if c.initial_mask:
            # complex bias (br - bi) + j (br + bi); the last fusion adds sigmoid(0) = 0.5 to both parts of C
            fused = 0.5 if c.fusion else 0.0
            last = self.decoder[-1]
            assert isinstance(last, DecoderLayer)
            nn.init.constant_(last.complex_conv.bias_real, c.initial_mask / 2 - fused)
            nn.init.constant_(last.complex_conv.bias_imag, -c.initial_mask / 2)

    @property
    def lookahead_frames(self) -> int | float:
        """Frames of future that an output frame depends on; math.inf for all of them."""
        return self.config.lookahead_frames

    @property
    def offline_reason(self) -> str:
        """Why it does not stream."""
        if self.config.attention:
            return "global time attention needs the whole signal"
        return f"dilated convolutions look {DILATED_LOOKAHEAD} frames ahead"

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
            return self.stft.inverse(enhanced, x.shape[-1])

    def enhance_spectrum(self, spectrum: Tensor) -> Tensor:
        """Enhance spectra: complex64 (batch, freq, frame) -> same; the DC bin of the result is 0.

        Raises:
            AudioError: not complex, or of a wrong number of frequencies.
        """
        if spectrum.dim() != 3 or not spectrum.is_complex() or spectrum.shape[1] != self.stft.frequencies:
            raise AudioError(
                f"expected a complex spectrum (batch, {self.stft.frequencies}, frame), got {spectrum.dtype} "
                f"{tuple(spectrum.shape)}"
            )
        with torch.autocast(spectrum.device.type, enabled=False):
            real, imag = spectrum.real[:, None, 1:], spectrum.imag[:, None, 1:]  # (batch, 1, freq - 1, frame)
            cos, sin = unit_phasor(real, imag, at_zero=0.0, tiny=1e-24)  # noisy phase; silence stays silent
            compressed = magnitude(real, imag).sqrt()  # |X|^0.5
            complex_stream = torch.cat([compressed * cos, compressed * sin], dim=1)  # |X|^0.5 exp(j arg X)
        mask_complex, mask_magnitude = self.mask_logits(complex_stream, compressed)
        with torch.autocast(spectrum.device.type, enabled=False):
            mask_real, mask_imag = mask_complex.float().chunk(2, dim=1)
            # |Y|^0.5 = (tanh|C| + sigmoid(M)) / 2 * |X|^0.5
            gain = 0.5 * (torch.tanh(magnitude(mask_real, mask_imag)) + torch.sigmoid(mask_magnitude.float()))
            size = (gain * compressed) ** 2
            # arg Y = arg X + arg C
            mask_cos, mask_sin = unit_phasor(mask_real, mask_imag, at_zero=1.0)
            enhanced = torch.complex(size * (cos * mask_cos - sin * mask_sin), size * (cos * mask_sin + sin * mask_cos))
            return F.pad(enhanced[:, 0], (0, 0, 1, 0))  # (batch, freq, frame), 0 at DC

    def mask_logits(self, complex_stream: Tensor, magnitude_stream: Tensor) -> tuple[Tensor, Tensor]:
        """Compressed streams -> C and M, the two masks before their activations.

        Shapes: (batch, 2, freq - 1, frame), (batch, 1, freq - 1, frame) -> the same two.
        """
        skips = []
        streams = (complex_stream, magnitude_stream)
        for layer in self.encoder:
            streams = layer(*streams)
            skips.append(streams)
        streams = self.conformer(*streams)
        for layer in self.decoder:
            streams = layer(*streams, *skips.pop())
        return streams
