"""Single-head self-attention along frames or along frequencies, for a magnitude and for a complex stream.

Representation: channels last. A magnitude stream is (batch, freq, frame, chan); a complex stream is
(batch, freq, frame, 2 * chan), real parts first. ``parts`` is 1 for the former and 2 for the latter.

Source: Fu et al. 2022, section 2.3; the order of the normalisations as in the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.networks.complex_layers import ComplexLinear
from dccrn_lib.networks.dropout import Dropout
from dccrn_lib.networks.prelu import PReLU
from dccrn_lib.runtime.errors import ConfigError

# A complex product of three factors, (q, k, v) -> real: rrr - rii - iri - iir, imag: rri + rir + irr - iii.
# Each letter triple is one real attention: from which part its query, key and value are taken.
TRIPLES = ("rrr", "rii", "iri", "iir", "rri", "rir", "irr", "iii")
# The 24 projections in the order (query, key, value) x TRIPLES: which read the real or imaginary part.
SOURCES = "".join(triple[role] for role in range(3) for triple in TRIPLES)
REAL_ROWS = [row for row, part in enumerate(SOURCES) if part == "r"]
IMAG_ROWS = [row for row, part in enumerate(SOURCES) if part == "i"]
SIGNS = ((1.0, -1.0, -1.0, -1.0), (1.0, 1.0, 1.0, -1.0))  # (real or imaginary result, attention)


class StackedComplexLinear(ComplexLinear):
    """:class:`ComplexLinear` on stacked parts: (..., 2 * in_features) -> (..., 2 * out_features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map the channels: (..., 2 * in_features) -> (..., 2 * out_features)."""
        # [[Wr, -Wi], [Wi, Wr]] [xr, xi]
        return F.linear(x, self.block_weight(), self.block_bias())


def stacked_linear(parts: int, in_features: int, out_features: int) -> nn.Module:
    """Linear map of a stream: real for ``parts`` = 1, complex for 2. Features are those of one part."""
    kind = StackedComplexLinear if parts == 2 else nn.Linear
    return kind(in_features, out_features)


class PartLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each part, with one gain and bias for both parts.

    Args:
        channels: channels of one part.
        parts: 1 (magnitude) or 2 (complex).

    Shapes: (..., parts * channels) -> same.
    """

    def __init__(self, channels: int, parts: int) -> None:
        super().__init__(channels)
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the channels of each part: (..., parts * channels) -> same."""
        return super().forward(x.unflatten(-1, (self.parts, -1))).flatten(-2)


class RealHead(nn.Module):
    """softmax(q k' / sqrt(d)) v with q, k, v of size d from one real stream.

    Shapes: (batch, sequence, chan) -> (batch, sequence, d).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, hidden)
        self.key = nn.Linear(channels, hidden)
        self.value = nn.Linear(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Attend along the sequence: (batch, sequence, chan) -> (batch, sequence, d)."""
        return attend(self.query(x), self.key(x), self.value(x))


class ComplexHead(nn.Module):
    """Eight real attentions with their own q, k, v, combined like a complex product of three factors.

    With att(q, k, v) = softmax(q k' / sqrt(d)) v and r, i the parts that q, k, v come from:
        real = att(rrr) - att(rii) - att(iri) - att(iir)
        imag = att(rri) + att(rir) + att(irr) - att(iii)

    The 24 projections are two matrix products (one per part) and the eight attentions one batched call.

    Shapes: (batch, sequence, 2 * chan) -> (batch, sequence, 2 * d).
    """

    order: Tensor
    signs: Tensor

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        # Twelve projections read the real part and twelve the imaginary part.
        self.from_real = nn.Linear(channels, len(REAL_ROWS) * hidden)
        self.from_imag = nn.Linear(channels, len(IMAG_ROWS) * hidden)
        order = torch.tensor(REAL_ROWS + IMAG_ROWS).argsort()  # (24,)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("signs", torch.tensor(SIGNS), persistent=False)  # (part, attention) = (2, 4)

    def project(self, x: Tensor) -> Tensor:
        """All queries, keys and values: (batch, sequence, 2 * chan) -> (3, batch, 8, sequence, d)."""
        real, imag = x.chunk(2, dim=-1)
        rows = torch.cat([self.from_real(real), self.from_imag(imag)], dim=-1)  # (batch, sequence, 24 * d)
        rows = rows.unflatten(-1, (24, self.hidden)).index_select(-2, self.order)  # (batch, sequence, 24, d)
        return rows.unflatten(-2, (3, 8)).permute(2, 0, 3, 1, 4)  # (3, batch, 8, sequence, d)

    def forward(self, x: Tensor) -> Tensor:
        """Attend along the sequence: (batch, sequence, 2 * chan) -> (batch, sequence, 2 * d)."""
        query, key, value = self.project(x)
        results = attend(query, key, value).unflatten(1, (2, 4))  # (batch, part, attention, sequence, d)
        signs = self.signs[:, :, None, None].to(results.dtype)  # (part, attention, 1, 1)
        combined = (results * signs).sum(dim=2)  # (batch, part, sequence, d)
        return combined.transpose(1, 2).flatten(-2)  # (batch, sequence, 2 * d)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v: (..., sequence, d) each -> (..., sequence, d)."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:  # half as fast as float32 there
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value)


class AttentionBlock(nn.Module):
    """Residual attention along one axis: LayerNorm, head, LayerNorm, linear, LayerNorm, PReLU, dropout, + x.

    Args:
        channels: channels of one part.
        hidden: size d of the head.
        axis: "frame" (each frequency attends over all frames: not causal) or "freq" (each frame over its
            frequencies).
        parts: 1 (magnitude) or 2 (complex).
        dropout: probability.

    Shapes: (batch, freq, frame, parts * chan) -> same.
    """

    def __init__(self, channels: int, hidden: int, axis: str, parts: int, dropout: float = 0.1) -> None:
        super().__init__()
        if axis not in ("frame", "freq"):
            raise ConfigError(f"unknown attention axis {axis!r}; known: frame, freq")
        self.axis = axis
        self.norm_in = PartLayerNorm(channels, parts)
        self.head = (ComplexHead if parts == 2 else RealHead)(channels, hidden)
        self.norm_head = PartLayerNorm(hidden, parts)
        self.linear = stacked_linear(parts, hidden, channels)
        self.norm_out = PartLayerNorm(channels, parts)
        self.activation = PReLU()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Attend along the axis: (batch, freq, frame, parts * chan) -> same."""
        y = self.norm_in(x)
        if self.axis == "freq":
            y = y.transpose(1, 2)  # (batch, frame, freq, parts * chan)
        outer = y.shape[:2]
        y = self.head(y.flatten(0, 1)).unflatten(0, outer)  # attention along axis 2
        if self.axis == "freq":
            y = y.transpose(1, 2)  # (batch, freq, frame, parts * d)
        y = self.norm_out(self.linear(self.norm_head(y)))
        return x + self.dropout(self.activation(y))
