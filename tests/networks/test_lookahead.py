"""Look-ahead: measured = predicted, for every preset."""

import math

import pytest
import torch

from dccrn_lib.networks.lookahead import expected_lookahead, measure_lookahead, measure_receptive_field
from dccrn_lib.networks.presets import PRESETS, build_model
from dccrn_lib.runtime.errors import ConfigError

EDGES = {"alignments": [0, 1, 50, 98, 99]}  # the largest models: not every position of the hop


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_measured_equals_expected(name):
    model = build_model(name)
    options = EDGES if PRESETS[name].stft.hop_length == 100 and name != "distil_dccrn" else {}
    assert measure_lookahead(model, **options) == expected_lookahead(model)


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("dccrn_e", 999),
        ("distil_dccrn", 999),
        ("dccrn_e_lookahead0", 399),
        ("distil_dccrn_lookahead0", 399),
        ("uformer", math.inf),
    ],
)
def test_formula(name, samples):
    assert expected_lookahead(build_model(name)) == samples


def test_worst_alignment_is_the_first_sample_of_a_hop_or_the_last():
    """Within a hop the look-ahead grows sample by sample; the last position is the worst."""
    model = build_model("distil_dccrn_mini")
    found = [measure_lookahead(model, alignments=[a]) for a in (0, 1, 98, 99)]
    assert found == [900, 901, 998, 999]


@pytest.mark.slow
def test_uformer_without_attention_looks_480_frames_ahead():
    model = build_model("uformer_mini", attention=False)
    assert expected_lookahead(model) == 399 + 480 * 160
    assert measure_lookahead(model, alignments=[0, 159]) == expected_lookahead(model)


@pytest.mark.parametrize("name", PRESETS)
def test_a_network_says_whether_it_streams_and_why_not(name):
    model = build_model(name)
    assert model.lookahead_frames == model.config.lookahead_frames
    assert model.streams is (model.config.family == "dccrn")
    assert model.streams is not bool(getattr(model, "offline_reason", ""))
    assert model.streams is math.isfinite(model.lookahead_frames)


def test_the_reason_fits_the_network():
    assert "time attention" in build_model("uformer_mini").offline_reason
    assert "480 frames" in build_model("uformer_mini", attention=False).offline_reason


def test_receptive_field_of_an_lstm_is_unbounded_in_the_past():
    assert measure_receptive_field(build_model("distil_dccrn_mini"), alignments=[0, 99]) == (math.inf, 999)


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_restored(training):
    model = build_model("distil_dccrn_mini").train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measure_lookahead(model, alignments=[99])
    assert model.training is training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_errors():
    model = build_model("distil_dccrn_mini")
    with pytest.raises(ConfigError, match=r"0 \.\. 99"):
        measure_lookahead(model, alignments=[100])
    with pytest.raises(ConfigError, match="Linear"):
        expected_lookahead(torch.nn.Linear(1, 1))
