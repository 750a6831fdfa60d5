"""The dilated dual-path conformer between encoder and decoder.

Representation: channels last inside, (batch, freq, frame, parts * chan), because LayerNorm, linear maps and
attention work along channels; the convolutions see the same memory as (batch, parts * chan, freq, frame).
``parts`` is 1 for the magnitude stream and 2 for the complex stream.

Source: Fu et al. 2022, section 2.3; global time attention and the stage order as in the authors' code of
June 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dccrn_lib.networks.complex_layers import ComplexConv2d
from dccrn_lib.networks.configs import DILATED_BLOCKS
from dccrn_lib.networks.dropout import Dropout
from dccrn_lib.networks.prelu import PReLU
from dccrn_lib.networks.uformer.attention import AttentionBlock, PartLayerNorm, stacked_linear
from dccrn_lib.networks.uformer.streams import Fusion


class FeedForward(nn.Module):
    """Half-step feed-forward: x + 0.5 * dropout(linear(dropout(PReLU(linear(LayerNorm(x)))))).

    Args:
        channels: channels of one part.
        hidden: channels of one part between the linear maps.
        parts: 1 (magnitude) or 2 (complex).
        dropout: probability.

    Shapes: (batch, freq, frame, parts * chan) -> same.
    """

    def __init__(self, channels: int, hidden: int, parts: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = PartLayerNorm(channels, parts)
        self.expand = stacked_linear(parts, channels, hidden)
        self.activation = PReLU()
        self.contract = stacked_linear(parts, hidden, channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map the channels: (batch, freq, frame, parts * chan) -> same."""
        y = self.dropout(self.activation(self.expand(self.norm(x))))
        return x + 0.5 * self.dropout(self.contract(y))


class DilatedBlock(nn.Module):
    """Gated pair of 3 x 3 convolutions whose time dilations run against each other: 2^k and 2^(7 - k).

    LayerNorm, 1 x 1 convolution, PReLU; y1 * sigmoid(y2) of the two dilated convolutions; LayerNorm; y *
    sigmoid(y); 1 x 1 convolution, dropout, + x. The padding is symmetric, so the block is not causal.

    Args:
        channels: channels of one part.
        hidden: channels of one part inside the block.
        index: k, 0 .. 7.
        parts: 1 (magnitude) or 2 (complex).
        dropout: probability.

    Shapes: (batch, freq, frame, parts * chan) -> same.
    """

    def __init__(self, channels: int, hidden: int, index: int, parts: int, dropout: float = 0.1) -> None:
        super().__init__()
        widening, narrowing = 2**index, 2 ** (DILATED_BLOCKS - 1 - index)
        self.norm_in = PartLayerNorm(channels, parts)
        self.reduce = stacked_linear(parts, channels, hidden)  # a 1 x 1 convolution is a linear map
        self.activation = PReLU()
        self.dilated = _dilated_conv(hidden, widening, parts)
        self.gate = _dilated_conv(hidden, narrowing, parts)
        self.norm_gated = PartLayerNorm(hidden, parts)
        self.restore = stacked_linear(parts, hidden, channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve over freq and frame: (batch, freq, frame, parts * chan) -> same."""
        y = self.activation(self.reduce(self.norm_in(x)))
        y = y.permute(0, 3, 1, 2)  # (batch, parts * hidden, freq, frame), channels-last memory
        y = self.dilated(y) * torch.sigmoid(self.gate(y))
        y = self.norm_gated(y.permute(0, 2, 3, 1))  # (batch, freq, frame, parts * hidden)
        y = y * torch.sigmoid(y)
        return x + self.dropout(self.restore(y))


def _dilated_conv(channels: int, dilation: int, parts: int) -> nn.Module:
    """3 x 3 convolution with ``dilation`` along frames that keeps freq and frame."""
    if parts == 2:
        return ComplexConv2d(2 * channels, 2 * channels, (3, 3), padding=(1, dilation), dilation=(1, dilation))
    return nn.Conv2d(channels, channels, (3, 3), padding=(1, dilation), dilation=(1, dilation))


class Conformer(nn.Module):
    """Both streams: feed-forward, attention in time and frequency, 8 dilated blocks, feed-forward, LayerNorm.

    The streams are fused after every stage (each dilated block is one), but not after the last LayerNorm.

    Args:
        channels: channels of one part.
        hidden: channels inside the feed-forwards.
        attention_hidden: size of the attention heads.
        dilated_channels: channels inside the dilated blocks.
        dropout: probability.
        fusion: couple the streams.
        attention: build the two attention stages (False: they do not exist, ablation).

    Shapes: (batch, 2 * chan, freq, frame), (batch, chan, freq, frame) -> the same two.
    """

    def __init__(
        self,
        channels: int = 128,
        hidden: int = 64,
        attention_hidden: int = 16,
        dilated_channels: int = 32,
        dropout: float = 0.1,
        fusion: bool = True,
        attention: bool = True,
    ) -> None:
        super().__init__()

        def stages(parts: int) -> nn.ModuleList:
            blocks: list[nn.Module] = [FeedForward(channels, hidden, parts, dropout)]
            if attention:
                blocks += [
                    AttentionBlock(channels, attention_hidden, axis, parts, dropout) for axis in ("frame", "freq")
                ]
            blocks += [DilatedBlock(channels, dilated_channels, k, parts, dropout) for k in range(DILATED_BLOCKS)]
            return nn.ModuleList([*blocks, FeedForward(channels, hidden, parts, dropout)])

        self.complex_stages = stages(parts=2)
        self.magnitude_stages = stages(parts=1)
        self.complex_norm = PartLayerNorm(channels, parts=2)
        self.magnitude_norm = PartLayerNorm(channels, parts=1)
        self.fusion = Fusion(fusion, chan_axis=-1)

    def forward(self, complex_stream: Tensor, magnitude_stream: Tensor) -> tuple[Tensor, Tensor]:
        """All stages: (batch, 2 * chan, freq, frame), (batch, chan, freq, frame) -> the same two."""
        complex_stream = complex_stream.permute(0, 2, 3, 1).contiguous()  # (batch, freq, frame, 2 * chan)
        magnitude_stream = magnitude_stream.permute(0, 2, 3, 1).contiguous()  # (batch, freq, frame, chan)
        for complex_stage, magnitude_stage in zip(self.complex_stages, self.magnitude_stages, strict=True):
            complex_stream, magnitude_stream = self.fusion(
                complex_stage(complex_stream), magnitude_stage(magnitude_stream)
            )
        complex_stream = self.complex_norm(complex_stream)
        magnitude_stream = self.magnitude_norm(magnitude_stream)
        return complex_stream.permute(0, 3, 1, 2), magnitude_stream.permute(0, 3, 1, 2)
