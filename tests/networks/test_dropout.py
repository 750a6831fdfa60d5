"""Dropout with a quick mask: rate, scale, gradient, repeatable, PyTorch's own in evaluation."""

from __future__ import annotations

import pytest
import torch

from dccrn_lib.networks.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_so_many_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(3, 67, 999, dtype=dtype, requires_grad=True)
    y = Dropout(p)(x)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=5e-3)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # of ones: the mask


def test_neighbours_and_lanes_are_independent():
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(400_000)) > 0).float()
    assert all(abs(kept[lane::4].mean().item() - 0.5) < 0.006 for lane in range(4))
    for distance in (1, 2, 3, 4):
        assert abs(torch.corrcoef(torch.stack([kept[:-distance], kept[distance:]]))[0, 1].item()) < 0.008


def test_the_seed_decides_and_evaluation_passes_on():
    x, layer = torch.randn(5, 7), Dropout(0.3)
    torch.manual_seed(3)
    first = layer(x)
    assert not torch.equal(first, layer(x))
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x) and not Dropout(1.0)(x).any()
