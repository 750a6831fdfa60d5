"""Each module of a network gets its own mode back: a frozen layer in a network that trains stays frozen."""

from __future__ import annotations

import pytest
from torch import nn

from dccrn_lib.networks.cost import count_macs
from dccrn_lib.networks.lookahead import measure_lookahead
from dccrn_lib.networks.modes import evaluating
from dccrn_lib.networks.presets import build_model


def half_frozen() -> nn.Module:
    """A network that trains, its first layers in eval mode."""
    model = build_model("distil_dccrn_mini").train()
    model.encoder[0].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_modes_come_back_after_an_error_too():
    model = half_frozen()
    before = modes(model)
    with pytest.raises(RuntimeError), evaluating(model) as same:
        assert same is model and not any(modes(model))
        raise RuntimeError
    assert modes(model) == before and True in before and before.count(False) > 1


@pytest.mark.parametrize("measure", [count_macs, lambda model: measure_lookahead(model, alignments=[99])])
def test_measuring_keeps_frozen_layers_frozen(measure):
    model = half_frozen()
    before = modes(model)
    measure(model)
    assert modes(model) == before
