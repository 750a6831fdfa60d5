"""The textbook's complex layers, four real calls each: the baseline that the benchmarks compare with.

    (Wr + i Wi)(xr + i xi) = (Wr xr - Wi xi) + i (Wi xr + Wr xi)

The first public DCCRN code computes a layer so; ours makes one call with the weights written out as a block
matrix, or two with the parts stacked. Both give the same numbers: here a network's layers change their form, not
their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.networks.complex_layers import ComplexConv2d, ComplexConvTranspose2d, ComplexLSTM


def _four_calls(
    layer: ComplexConv2d | ComplexConvTranspose2d, x: Tensor, convolve: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """(batch, chan, freq, frame) in and out, real channels first; ``convolve(part, weight, bias)`` is the real layer."""
    real, imag = x.chunk(2, dim=1)
    real_by_real = convolve(real, layer.weight_real, layer.bias_real)
    imag_by_imag = convolve(imag, layer.weight_imag, layer.bias_imag)
    imag_by_real = convolve(imag, layer.weight_real, layer.bias_real)
    real_by_imag = convolve(real, layer.weight_imag, layer.bias_imag)
    return torch.cat([real_by_real - imag_by_imag, imag_by_real + real_by_imag], dim=1)


def four_call_convolution(layer: ComplexConv2d, x: Tensor) -> Tensor:
    """The textbook's complex convolution: four real ones; equal to ``layer(x)``.

    >>> layer, x = ComplexConv2d(4, 6, (5, 2), (2, 1), (2, 0), causal_frames=1), torch.randn(1, 4, 8, 5)
    >>> torch.allclose(four_call_convolution(layer, x), layer(x), atol=1e-5)
    True
    """

    def convolve(part: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(part, weight, bias, layer.stride, layer.padding, layer.dilation)

    return _four_calls(layer, F.pad(x, (layer.causal_frames, 0)), convolve)


def four_call_transposed(layer: ComplexConvTranspose2d, x: Tensor) -> Tensor:
    """The textbook's complex transposed convolution: four real ones; equal to ``layer(x)``."""

    def convolve(part: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv_transpose2d(part, weight, bias, layer.stride, layer.padding, layer.output_padding)

    return _four_calls(layer, x, convolve)


def four_pass_lstm(layer: ComplexLSTM, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
    """The textbook's complex LSTM: four real passes; equal to ``layer(real, imag)``."""
    rr, ri = layer.lstm_real(real)[0], layer.lstm_real(imag)[0]
    ir, ii = layer.lstm_imag(real)[0], layer.lstm_imag(imag)[0]
    return rr - ii, ri + ir


_FORMS = {
    ComplexConv2d: four_call_convolution,
    ComplexConvTranspose2d: four_call_transposed,
    ComplexLSTM: four_pass_lstm,
}


@contextmanager
def textbook_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The network with every complex layer computed as in the textbook; its own forms return afterwards."""
    layers = [module for module in model.modules() if type(module) in _FORMS]
    try:
        for layer in layers:
            layer.forward = partial(_FORMS[type(layer)], layer)
        yield model
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
