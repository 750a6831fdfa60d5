"""Layers of a streamed DCCRN over many frames, in forms that cost less than one convolution with the block weight.

Complex layers with many channels need three real products instead of four (Gauss). With K1 = Wr (x_r + x_i),
K2 = (Wi - Wr) x_r and K3 = (Wr + Wi) x_i:

    real = Wr x_r - Wi x_i = K1 - K3,        imag = Wi x_r + Wr x_i = K1 + K2

at the price of two more passes over the features, which a layer with few channels does not earn back. A transposed
convolution to two channels, the mask, is one matrix product and a sum of shifted rows.

A part is a list of pieces (batch, chan, freq, frame) that follow one another along frame: what waited in a queue, and
what came now. Features have the channels last in memory, which convolutions prefer.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Part = list[Tensor]
#: Weights of a kernel's position (complex inputs times complex outputs) from which three products pay, by precision.
MANY_WEIGHTS = {torch.float32: 64 * 64, torch.bfloat16: 128 * 128}
FEW_CHANNELS = 4  # real ones, behind a transposed convolution


def whole(part: Part) -> Tensor:
    """The pieces of a part as one tensor."""
    return part[0] if len(part) == 1 else torch.cat(part, dim=3)


def joined(previous: Tensor, parts: list[Part], valid: Tensor | None = None) -> Tensor:
    """The previous frame, then frames whose parts are joined along chan, (batch, chan, freq, 1 + frame).

    Frames become zeros where ``valid`` (1, 1, 1, frame) is 0.
    One pass over memory: at the speed of the products, a pass more over all features costs a twentieth of the time.
    """
    frames = sum(piece.shape[3] for piece in parts[0])
    shape, like = (*previous.shape[:3], 1 + frames), parts[0][-1]
    line = torch.empty(shape, dtype=like.dtype, device=previous.device, memory_format=torch.channels_last)
    line[..., :1] = previous
    places = line[..., 1:].split([part[0].shape[1] for part in parts], dim=1)
    for part, place in zip(parts, places, strict=True):
        for piece, target in zip(part, place.split([piece.shape[3] for piece in part], dim=3), strict=True):
            target.copy_(piece)
    return line if valid is None else line.index_fill_(3, 1 + (valid.flatten() == 0).nonzero().flatten(), 0.0)


class Geometry(NamedTuple):
    """How a layer walks over freq."""

    transposed: bool
    stride: tuple[int, int]
    padding: int
    output_padding: tuple[int, int]

    def convolve(self, line: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Frame pairs of (batch, chan, freq, 1 + frame) -> (batch, chan', freq', frame)."""
        if self.transposed:  # of its frame + 2, the first and the last go
            return F.conv_transpose2d(line, weight, bias, self.stride, (self.padding, 1), self.output_padding)
        return F.conv2d(line, weight, bias, self.stride, (self.padding, 0))


class ThreeProducts(nn.Module):
    """A complex (transposed) convolution of frame pairs by three real ones, its outputs scaled by BatchNorm.

    Args:
        conv: ComplexConv2d or ComplexConvTranspose2d.
        geometry: of the layer.
        scale, bias: of the outputs, (chan',): y = scale * (convolution without bias) + bias.

    Shapes: previous (batch, sum of chan, freq, 1) and parts (batch, chan, freq, frame), the first half of each one's
    channels real -> (batch, chan', freq', frame).
    """

    weight_both: Tensor
    weight_real: Tensor
    weight_imag: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, conv: Any, geometry: Geometry, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.geometry = geometry
        real, imag = conv.weight_real.detach().double().cpu(), conv.weight_imag.detach().double().cpu()
        to_real, to_imag = scale.double().reshape(2, -1, 1, 1, 1).unbind(0)  # (chan' / 2, 1, 1, 1) each
        if geometry.transposed:
            to_real, to_imag = to_real.transpose(0, 1), to_imag.transpose(0, 1)
        # of x_r + x_i, which both outputs scale later, of x_r and of x_i
        for name, weight in (("both", real), ("real", to_imag * (imag - real)), ("imag", -to_real * (real + imag))):
            self.register_buffer(f"weight_{name}", weight.float().contiguous(memory_format=torch.channels_last))
        self.register_buffer("scale", scale.float().reshape(2, -1, 1, 1))
        self.register_buffer("bias", bias.float().reshape(2, -1))

    def pays(self, x: Tensor) -> bool:
        """Whether it is faster than one product with four quarters, for input as ``x``. Measured on a CPU only."""
        fewest = MANY_WEIGHTS.get(arithmetic(x), math.inf)
        return x.device.type == "cpu" and self.weight_both[..., 0, 0].numel() >= fewest

    def forward(self, previous: Tensor, parts: list[Part], valid: Tensor | None = None) -> Tensor:
        """``previous`` frame and parts, zeros where ``valid`` is 0 -> (batch, chan', freq', frame)."""
        before = previous.chunk(2 * len(parts), dim=1)  # real and imaginary half of each part
        halves = [[[piece.chunk(2, dim=1)[k] for piece in part] for part in parts] for k in range(2)]
        real, imag = (joined(torch.cat(before[k::2], dim=1), halves[k], valid) for k in range(2))
        both = self.geometry.convolve(real + imag, self.weight_both, None)
        to_imag = self.geometry.convolve(real, self.weight_real, self.bias[1])
        to_real = self.geometry.convolve(imag, self.weight_imag, self.bias[0])
        half, scale = both.shape[1], self.scale.to(both.dtype)
        shape = (both.shape[0], 2 * half, *both.shape[2:])
        y = torch.empty(shape, dtype=both.dtype, device=both.device, memory_format=torch.channels_last)
        torch.addcmul(to_real, both, scale[0], out=y[:, :half])
        torch.addcmul(to_imag, both, scale[1], out=y[:, half:])
        return y


def three_products(conv: Any, geometry: Geometry, matrix: Tensor, bias: Tensor) -> ThreeProducts | None:
    """The layer by three products, where it has weights enough and its norm's ``matrix`` only scales; else None."""
    few = conv.weight_real[..., 0, 0].numel() < min(MANY_WEIGHTS.values())
    scale = matrix.diag()
    return None if few or not torch.equal(matrix, scale.diag()) else ThreeProducts(conv, geometry, scale, bias)


def arithmetic(x: Tensor) -> torch.dtype:
    """The type in which a product with ``x`` is computed: autocast's, where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def narrow_transposed(line: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    """A transposed convolution of frame pairs to few channels: every tap by one product, then shifted rows are added.

    Args:
        line: (batch, chan, freq, 1 + frame), channels last.
        weight, bias: (chan, chan', taps, 2), present frame first; (chan',).
        geometry: of the layer, of a stride that divides freq'.

    Returns:
        (batch, chan', stride * freq, frame) float32.
    """
    batch, chan, freq, _ = line.shape
    _, out, taps, _ = weight.shape
    rows = line.permute(0, 2, 3, 1).reshape(-1, chan)  # (batch * freq * (1 + frame), chan)
    products = (weight.flatten(1).t() @ rows.t()).reshape(out, taps, 2, batch, freq, -1)
    taken = products[:, :, 0, ..., 1:] + products[:, :, 1, ..., :-1]  # (chan', taps, batch, freq, frame)
    stride = geometry.stride[0]
    y = bias.reshape(-1, 1, 1, 1, 1).repeat(1, batch, freq, stride, taken.shape[-1])
    for tap in range(taps):
        shift, place = divmod(tap - geometry.padding, stride)  # x[j] reaches y[stride * (j + shift) + place]
        y[:, :, max(0, shift) : freq + min(0, shift), place] += taken[:, tap, :, max(0, -shift) : freq - max(0, shift)]
    return y.flatten(2, 3).transpose(0, 1)
