"""The textbook's layers compute what ours compute, in a layer and in a whole network, and leave it as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dccrn_lib.experiments import textbook
from dccrn_lib.networks.complex_layers import ComplexConv2d, ComplexConvTranspose2d, ComplexLSTM
from dccrn_lib.networks.presets import build_model


def with_biases(layer: nn.Module) -> nn.Module:
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return layer


def test_layers_compute_the_same():
    torch.manual_seed(0)
    conv = with_biases(ComplexConv2d(6, 8, (5, 2), (2, 1), (2, 0), causal_frames=1))
    x = torch.randn(2, 6, 16, 9)
    torch.testing.assert_close(textbook.four_call_convolution(conv, x), conv(x), atol=1e-5, rtol=0)
    transposed = with_biases(ComplexConvTranspose2d(6, 8, (5, 2), (2, 1), (2, 0), (1, 0)))
    torch.testing.assert_close(textbook.four_call_transposed(transposed, x), transposed(x), atol=1e-5, rtol=0)
    lstm, parts = ComplexLSTM(5, 4), (torch.randn(7, 2, 5), torch.randn(7, 2, 5))
    for ours, theirs in zip(lstm(*parts), textbook.four_pass_lstm(lstm, *parts), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["distil_dccrn_mini", "dccrn_cl"])
def test_whole_network_computes_the_same(name):
    torch.manual_seed(0)
    model = with_biases(build_model(name).eval())
    x = 0.1 * torch.randn(1, 4000)
    with torch.inference_mode():
        ours = model(x)
        with textbook.textbook_layers(model) as changed:
            assert changed is model
            layers = [m for m in model.modules() if "forward" in m.__dict__]
            theirs = model(x)
        again = model(x)
    assert len(layers) >= 12 and not any("forward" in m.__dict__ for m in model.modules())
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    assert torch.equal(again, ours)


def test_layers_return_after_an_error():
    model = build_model("distil_dccrn_mini")
    with pytest.raises(RuntimeError, match="on the way"), textbook.textbook_layers(model):
        raise RuntimeError("on the way")
    assert not any("forward" in m.__dict__ for m in model.modules())
