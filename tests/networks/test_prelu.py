"""PReLU: PyTorch's function and gradients, by another order of sums."""

import pytest
import torch
from torch import nn

from dccrn_lib.networks.prelu import PReLU


@pytest.mark.parametrize("slope", [0.25, 0.0, -0.3, 1.5])
def test_value_and_gradients_are_pytorchs(slope):
    x = torch.randn(3, 4, 17, 9, generator=torch.Generator().manual_seed(0))
    results = []
    for layer in (PReLU(slope), nn.PReLU(1, slope)):
        layer.train()
        y = x.clone().requires_grad_()
        out = layer(y)
        (out * x.cos()).sum().backward()
        results.append((out.detach(), y.grad, layer.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_zero_belongs_to_the_sloped_side_as_in_pytorch():
    for layer in (PReLU(), nn.PReLU()):
        x = torch.zeros(2, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.tolist() == [0.25, 0.25]


def test_state_dict_is_pytorchs():
    assert {k: v.shape for k, v in PReLU().state_dict().items()} == {"weight": (1,)}
    nn.PReLU().load_state_dict(PReLU(0.1).state_dict())


def test_slope_gradient_keeps_its_digits_in_bfloat16():
    x = -torch.ones(400_000, dtype=torch.bfloat16)  # a bfloat16 running sum would stick at 256
    layer = PReLU().train()
    layer(x.requires_grad_()).float().sum().backward()
    assert layer.weight.grad.item() == -400_000


def test_evaluation_uses_pytorchs_own():
    x = torch.randn(5, requires_grad=True)
    assert "Rectifier" in type(PReLU().train()(x).grad_fn).__name__
    assert "Prelu" in type(PReLU().eval()(x).grad_fn).__name__
