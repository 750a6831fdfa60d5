"""Averaged weights: the formula by hand, with a decay in a number and on the device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dccrn_lib.networks.presets import build_model
from dccrn_lib.training.average import average_decay, copy_for_average, update_average


def test_the_decay_rises_to_its_most():
    assert [average_decay(step, 0.5) for step in (0, 1, 7, 8, 9)] == pytest.approx([0.1, 2 / 11, 8 / 17, 0.5, 0.5])


@pytest.mark.parametrize("on_device", [False, True])
def test_the_average_is_that_of_its_formula(on_device):
    torch.manual_seed(0)
    model = build_model("distil_dccrn_mini").train()
    average = copy_for_average(model)
    wanted = {name: p.detach().double() for name, p in average.named_parameters()}
    for step in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
            model(0.1 * torch.randn(1, 1600))  # moves the statistics of BatchNorm
        decay = average_decay(step, 0.15)
        update_average(average, model, torch.tensor(decay) if on_device else decay)
        # a <- d a + (1 - d) x
        wanted = {n: decay * wanted[n] + (1 - decay) * p.detach().double() for n, p in model.named_parameters()}
    for name, p in average.named_parameters():
        torch.testing.assert_close(p.detach().double(), wanted[name], rtol=1e-4, atol=1e-6)
    for (name, ours), theirs in zip(average.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_decay_of_one_leaves_the_weights_and_an_average_of_itself_is_itself():
    layer = nn.Linear(3, 3)
    average, before = copy_for_average(layer), layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    update_average(average, layer, torch.tensor(1.0))
    assert torch.equal(average.weight, before)
    update_average(layer, layer, 0.5)
    assert torch.equal(layer.weight, before + 1.0)
