"""The two valid sets, and what validating leaves and measures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dccrn_lib.experiments.recipe import recipe
from dccrn_lib.losses import compressed_spectral_loss, si_snr_db
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.validation import MEASURES, VALID_SEED, VALID_SETS, valid_batches, valid_mixtures, validate


@pytest.fixture
def config(corpus, tmp_path):
    c = recipe(corpus, tmp_path, "smoke", valid_mixtures=3)
    return replace(c, mix=replace(c.mix, segment_seconds=1.0))


def test_the_two_sets_differ_in_length_level_and_offset_only(config):
    as_trained, plain = (valid_mixtures(config, kind) for kind in VALID_SETS)
    off = {"speed_probability": 0.0, "equaliser_probability": 0.0}
    assert as_trained.config == replace(config.mix, **off)
    off |= {"wide_level_probability": 0.0, "offset_probability": 0.0}
    assert plain.config == replace(config.mix, segment_seconds=4.0, **off)
    assert {e.split for mixtures in (as_trained, plain) for e in mixtures.planner.entries} == {"valid"}
    assert as_trained.seed == plain.seed == VALID_SEED and len(as_trained) == len(plain) == 3
    short = replace(config, mix=replace(config.mix, segment_seconds=0.5))
    assert valid_mixtures(short, "plain").config.segment_seconds == 0.5
    with pytest.raises(ConfigError, match="unknown valid set 'plan'.*plain"):
        valid_mixtures(config, "plan")


def test_batches_of_any_size_give_the_same_means(config):
    torch.manual_seed(0)
    model, mixtures = build_model("distil_dccrn_mini").train(), valid_mixtures(config)
    one, two = (validate(model, valid_batches(mixtures, torch.device("cpu"), size), amp=False) for size in (1, 2))
    assert model.training
    assert two == pytest.approx(one, rel=1e-4)
    noisy = [si_snr_db(mixtures[i]["noisy"], mixtures[i]["clean"]).item() for i in range(3)]
    assert one["noisy_si_snr_db"] == pytest.approx(sum(noisy) / 3, rel=1e-5)


class Attenuated(nn.Module):
    """A network that hears all and lets half of the last quarter through, with the wrong sign."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(-0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        quarter = x.shape[-1] // 4
        return torch.cat([x[..., :-quarter], self.gain * x[..., -quarter:]], dim=-1)


def test_what_is_measured_is_the_output_of_the_network(config):
    model, mixtures = Attenuated(), valid_mixtures(config)
    found = validate(model, valid_batches(mixtures, torch.device("cpu"), 2), amp=False)
    rows = []
    for i in range(3):
        noisy, clean = mixtures[i]["noisy"][None], mixtures[i]["clean"][None]
        estimate = model(noisy).detach()
        gain = (estimate @ clean.T / (clean @ clean.T)).item()
        snr = [si_snr_db(x, clean).item() for x in (estimate, noisy)]
        rows.append([*snr, gain, compressed_spectral_loss(estimate, clean).item()])
    means = torch.tensor(rows).mean(dim=0).tolist()
    assert found == pytest.approx(dict(zip(MEASURES, means, strict=True)), rel=1e-3)
    assert abs(found["si_snr_db"] - found["noisy_si_snr_db"]) > 0.5


def test_frozen_layers_stay_frozen(config):
    model, mixtures = build_model("distil_dccrn_mini").train(), valid_mixtures(config)
    model.encoder[0].eval()
    before = [module.training for module in model.modules()]
    validate(model, valid_batches(mixtures, torch.device("cpu")), amp=False)
    assert [module.training for module in model.modules()] == before
