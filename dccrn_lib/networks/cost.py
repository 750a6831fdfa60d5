"""What a network costs: numbers to store, multiply-accumulates per second of audio."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.networks.complex_layers import ComplexConv2d, ComplexConvTranspose2d, ComplexLinear
from dccrn_lib.networks.modes import evaluating


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


_CONVOLUTIONS = (ComplexConv2d, nn.Conv1d, nn.Conv2d)
_TRANSPOSED = (ComplexConvTranspose2d, nn.ConvTranspose2d)
_COUNTED = (*_CONVOLUTIONS, *_TRANSPOSED, ComplexLinear, nn.LSTM, nn.Linear)


def _layer_macs(layer: Any, x: Tensor, y: Tensor) -> int:
    """Real multiply-accumulates of one call of a layer, from its input and output."""
    rows = x.numel() // x.shape[-1]
    if isinstance(layer, nn.LSTM):
        return rows * sum(p.numel() for name, p in layer.named_parameters() if name.startswith("weight"))
    weight = layer.block_weight() if hasattr(layer, "block_weight") else layer.weight
    if isinstance(layer, _CONVOLUTIONS):
        return weight[0].numel() * y.numel()
    if isinstance(layer, _TRANSPOSED):
        return weight[0].numel() * x.numel()
    return weight.numel() * rows


def count_macs(model: nn.Module, seconds: float = 1.0, by_layer: bool = False) -> int | dict[str, int]:
    """Real multiply-accumulates of convolutions, linear layers and LSTMs for ``seconds`` of audio at 16 kHz.

    "Transposed convolutions at their input positions": each input position of a transposed convolution counts once.
    Counters that take its output positions count every product stride times (the much quoted 14.4 G of DCCRN-CL).
    Products between activations (attention, masks), norms and activations are not counted. The rate is taken from
    the hop: 16000 / hop frames per second.

    Args:
        model: DCCRN or Uformer, or any module made of their layers.
        seconds: of audio.
        by_layer: return {module name: MACs} instead of the sum.
    """
    counts: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple) -> None:
            y = output[0] if isinstance(output, tuple) else output
            counts[name] = counts.get(name, 0) + _layer_macs(module, inputs[0], y)

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in model.named_modules() if isinstance(module, _COUNTED)]
    network = cast(Any, model)  # DCCRN or Uformer, or one that looks like them
    stft = network.config.stft
    frames = 160
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), evaluating(model):
            spectrum = torch.randn(1, stft.fft_size // 2 + 1, frames, dtype=torch.complex64, device=device)
            network.enhance_spectrum(spectrum)
    finally:
        for handle in handles:
            handle.remove()
    scale = seconds * SAMPLE_RATE / stft.hop_length / frames
    scaled = {name: round(n * scale) for name, n in counts.items()}
    return scaled if by_layer else sum(scaled.values())
