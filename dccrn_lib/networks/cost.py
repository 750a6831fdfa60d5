"""What a network costs: numbers to store, multiply-accumulates per second of audio."""

from __future__ import annotations

import torch
from torch import nn

from dccrn_lib.networks.complex_layers import ComplexConv2d, ComplexConvTranspose2d, ComplexLinear


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(model: nn.Module, seconds: float = 1.0, by_layer: bool = False) -> int | dict[str, int]:
    """Real multiply-accumulates of convolutions, linear layers and LSTMs for ``seconds`` of audio at 16 kHz.

    "Transposed convolutions at their input positions": each input position of a transposed convolution counts once.
    Counters that take its output positions count every product stride times (the much quoted 14.4 G of DCCRN-CL).
    Products between activations (attention, masks), norms and activations are not counted. The rate is taken from
    the hop: 16000 / hop frames a second.

    Args:
        model: DCCRN or Uformer, or any module made of their layers.
        seconds: of audio.
        by_layer: return {module name: MACs} instead of the sum.
    """
    counts: dict[str, int] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_module, inputs, output):
            x = inputs[0]
            y = output[0] if isinstance(output, tuple) else output
            if isinstance(module, (ComplexConv2d, nn.Conv1d, nn.Conv2d)):
                weight = module.block_weight() if isinstance(module, ComplexConv2d) else module.weight
                macs = weight[0].numel() * y.numel()
            elif isinstance(module, (ComplexConvTranspose2d, nn.ConvTranspose2d)):
                complex_ = isinstance(module, ComplexConvTranspose2d)
                weight = module.block_weight() if complex_ else module.weight
                macs = weight[0].numel() * x.numel()
            elif isinstance(module, nn.LSTM):
                rows = x.numel() // x.shape[-1]
                macs = rows * sum(p.numel() for n, p in module.named_parameters() if n.startswith("weight"))
            elif hasattr(module, "weight_real"):  # complex linear: (wr, wi) applied to (re, im)
                macs = 4 * module.weight_real.numel() * (x.numel() // x.shape[-1])
            else:
                macs = module.weight.numel() * (x.numel() // x.shape[-1])
            counts[name] = counts.get(name, 0) + macs

        handles.append(module.register_forward_hook(hook))

    kinds = (
        ComplexConv2d,
        ComplexConvTranspose2d,
        ComplexLinear,
        nn.Conv1d,
        nn.Conv2d,
        nn.ConvTranspose2d,
        nn.LSTM,
        nn.Linear,
    )
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            watch(name, module)
    stft = model.config.stft
    frames = 160
    training = model.training
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            spectrum = torch.randn(1, stft.fft_size // 2 + 1, frames, dtype=torch.complex64, device=device)
            model.eval().enhance_spectrum(spectrum)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    scale = seconds * 16000 / stft.hop_length / frames
    scaled = {name: round(n * scale) for name, n in counts.items()}
    return scaled if by_layer else sum(scaled.values())
