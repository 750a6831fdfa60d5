"""The two streams of Uformer, how they are coupled, and the encoder and decoder layers made of them.

Representation: the complex stream is ONE REAL tensor (batch, 2 * chan, freq, frame), real parts in the first
half of the channels, imaginary parts in the second; the magnitude stream is (batch, chan, freq, frame).

Source: Fu et al. 2022, section 2; kernel, padding, normalisation and the kept frames as in the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.networks.complex_layers import ComplexConv2d, ComplexConvTranspose2d
from dccrn_lib.networks.prelu import PReLU

EPS = torch.finfo(torch.float32).eps  # 2^-23, the authors' floor under re^2 + im^2
KERNEL, STRIDE, PADDING, OUTPUT_PADDING = (5, 2), (2, 1), (2, 0), (1, 0)  # (freq, frame)


def magnitude(real: Tensor, imag: Tensor) -> Tensor:
    """|z| = sqrt(max(re^2 + im^2, EPS)); never below 3.5e-4, so that the gradient is finite (0) at z = 0.

    Shapes: all alike.

    >>> magnitude(torch.tensor([3.0, 0.0]), torch.tensor([4.0, 0.0]))
    tensor([5.0000e+00, 3.4527e-04])
    """
    return (real * real + imag * imag).clamp_min(EPS).sqrt()


def unit_phasor(real: Tensor, imag: Tensor, at_zero: float, tiny: float = 1e-12) -> tuple[Tensor, Tensor]:
    """cos and sin of the angle of z without atan2, whose gradient is NaN at z = 0.

    Args:
        real, imag: the two parts of z, any shape, float32.
        at_zero: the cosine returned where |z|^2 <= ``tiny`` (the sine is 0 there, and so is the gradient).
        tiny: squared magnitude below which z has no angle.

    Shapes: all alike.

    >>> unit_phasor(torch.tensor([0.0, 0.0]), torch.tensor([-2.0, 0.0]), at_zero=1.0)
    (tensor([0., 1.]), tensor([-1.,  0.]))
    """
    squared = real * real + imag * imag
    has_angle = squared > tiny
    inverse = torch.where(has_angle, squared, 1.0).rsqrt()  # without this where: NaN gradient at 0
    # exp(j arg z) = z / |z|
    cos = torch.where(has_angle, real * inverse, at_zero)
    sin = torch.where(has_angle, imag * inverse, 0.0)
    return cos, sin


class Fusion(nn.Module):
    """Exchange between the streams after every layer; it has no parameters.

    Args:
        enabled: False leaves both streams as they are (ablation). The streams then meet only in the output
            mask; every parameter is still used.
        chan_axis: where the channels are: 1 as everywhere, -1 inside the conformer.

    Shapes: (batch, 2 * chan, freq, frame) and (batch, chan, freq, frame) -> the same two.
    """

    def __init__(self, enabled: bool = True, chan_axis: int = 1) -> None:
        super().__init__()
        self.enabled, self.chan_axis = enabled, chan_axis

    def forward(self, complex_stream: Tensor, magnitude_stream: Tensor) -> tuple[Tensor, Tensor]:
        """Couple (batch, 2 * chan, freq, frame) and (batch, chan, freq, frame) -> the same two."""
        if not self.enabled:
            return complex_stream, magnitude_stream
        # Both right-hand sides use the streams as they were before:
        # M' = M + sigmoid(|C|)
        # C_re' = C_re + sigmoid(M),  C_im' = C_im + sigmoid(M)
        with torch.autocast(complex_stream.device.type, enabled=False):
            real, imag = complex_stream.float().chunk(2, dim=self.chan_axis)
            from_complex = torch.sigmoid(magnitude(real, imag)).to(magnitude_stream.dtype)
        from_magnitude = torch.sigmoid(magnitude_stream)
        from_magnitude = torch.cat([from_magnitude, from_magnitude], dim=self.chan_axis)
        return complex_stream + from_magnitude, magnitude_stream + from_complex


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm of a complex stream: one mean and variance for the real AND imaginary part of a channel.

    The two halves of the channels are seen as twice the batch, which makes it a plain BatchNorm2d on a view.

    Args:
        num_features: COMPLEX channels.

    Shapes: (batch, 2 * chan, freq, frame) -> same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, 2 * chan, freq, frame) -> same."""
        batch, chan, freq, frame = x.shape
        halves = x.reshape(2 * batch, chan // 2, freq, frame)  # (2 * batch, chan, freq, frame)
        return super().forward(halves).view(batch, chan, freq, frame)


def _activation(channels: int, complex_stream: bool) -> nn.Module:
    norm = SharedBatchNorm2d(channels) if complex_stream else nn.BatchNorm2d(channels)
    return nn.Sequential(norm, PReLU())


class EncoderLayer(nn.Module):
    """Halve the frequencies of both streams by a causal strided convolution, BatchNorm and PReLU; then fuse.

    Args:
        in_channels, out_channels: channels of the magnitude stream = COMPLEX channels of the complex stream.
        fusion: couple the streams.

    Shapes: (batch, 2 * in, freq, frame), (batch, in, freq, frame) -> (batch, 2 * out, freq / 2, frame),
    (batch, out, freq / 2, frame); the outputs are taken after fusion.
    """

    def __init__(self, in_channels: int, out_channels: int, fusion: bool = True) -> None:
        super().__init__()
        self.complex_conv = ComplexConv2d(2 * in_channels, 2 * out_channels, KERNEL, STRIDE, PADDING, causal_frames=1)
        self.complex_activation = _activation(out_channels, complex_stream=True)
        self.magnitude_conv = nn.Conv2d(in_channels, out_channels, KERNEL, STRIDE, PADDING)
        self.magnitude_activation = _activation(out_channels, complex_stream=False)
        self.fusion = Fusion(fusion)

    def forward(self, complex_stream: Tensor, magnitude_stream: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (batch, 2 * in, freq, frame), (batch, in, freq, frame) -> the two with ``out`` for ``in`` and freq / 2."""
        complex_stream = self.complex_activation(self.complex_conv(complex_stream))
        # One zero frame on the left (as one on both sides and the first T frames kept): t sees t - 1 and t.
        magnitude_stream = self.magnitude_activation(self.magnitude_conv(F.pad(magnitude_stream, (1, 0))))
        return self.fusion(complex_stream, magnitude_stream)


class DecoderLayer(nn.Module):
    """Join both streams with their skips, double the frequencies by a transposed convolution; then fuse.

    Args:
        in_channels: channels of the stream below and of its skip, each (not their sum).
        out_channels: channels of the result.
        fusion: couple the streams.
        last: no BatchNorm and PReLU (they would bound the mask).

    Shapes: streams and skips (batch, 2 * in or in, freq, frame) -> (batch, 2 * out, 2 * freq, frame),
    (batch, out, 2 * freq, frame); the outputs are taken after fusion.
    """

    def __init__(self, in_channels: int, out_channels: int, fusion: bool = True, last: bool = False) -> None:
        super().__init__()
        sizes = (KERNEL, STRIDE, PADDING, OUTPUT_PADDING)
        self.complex_conv = ComplexConvTranspose2d(4 * in_channels, 2 * out_channels, *sizes)
        self.complex_activation = nn.Identity() if last else _activation(out_channels, complex_stream=True)
        self.magnitude_conv = nn.ConvTranspose2d(2 * in_channels, out_channels, *sizes)
        self.magnitude_activation = nn.Identity() if last else _activation(out_channels, complex_stream=False)
        self.fusion = Fusion(fusion)

    def forward(
        self, complex_stream: Tensor, magnitude_stream: Tensor, complex_skip: Tensor, magnitude_skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode streams and skips, (batch, 2 * in or in, freq, frame) -> the two with ``out`` for ``in`` and 2 * freq."""
        real, imag = complex_stream.chunk(2, dim=1)
        skip_real, skip_imag = complex_skip.chunk(2, dim=1)
        complex_stream = torch.cat([skip_real, real, skip_imag, imag], dim=1)  # (batch, 4 * in, freq, frame)
        magnitude_stream = torch.cat([magnitude_skip, magnitude_stream], dim=1)  # (batch, 2 * in, ...)
        # A kernel of 2 frames gives frame + 1 frames; without the last one, frame t sees t - 1 and t.
        complex_stream = self.complex_activation(self.complex_conv(complex_stream)[..., :-1])
        magnitude_stream = self.magnitude_activation(self.magnitude_conv(magnitude_stream)[..., :-1])
        return self.fusion(complex_stream, magnitude_stream)
