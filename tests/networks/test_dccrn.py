"""DCCRN and its presets: size, cost, lengths, silence, masks, gain and polarity."""

import itertools
import math

import pytest
import torch

from dccrn_lib.losses import si_snr_db
from dccrn_lib.networks.cost import count_macs, count_parameters
from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig, apply_mask
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import ConfigError

SMALL = DCCRNConfig(channels=(4, 4, 4, 8, 8, 8), rnn_units=8)


def small(**changes) -> DCCRN:
    torch.manual_seed(0)
    fields = {"channels": SMALL.channels, "rnn_units": SMALL.rnn_units, **changes}
    return DCCRN(DCCRNConfig(**fields))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dccrn_e", 3_742_349),
        ("dccrn_cl", 3_671_053),
        ("distil_dccrn", 1_126_413),
        ("distil_dccrn_wide", 1_116_045),
        ("uformer", 3_336_049),
    ],
)
def test_parameter_count(name, count):
    assert count_parameters(build_model(name)) == count


@pytest.mark.parametrize(
    ("name", "giga"), [("dccrn_e", 3.97), ("dccrn_cl", 8.53), ("distil_dccrn", 2.21), ("distil_dccrn_wide", 4.19)]
)
def test_macs_per_second_of_audio(name, giga):
    assert count_macs(build_model(name)) / 1e9 == pytest.approx(giga, abs=0.005)


def test_macs_of_the_first_layers_by_hand():
    """DCCRN-E: 160 frames a second; encoder 0 has 128 x 160 outputs of 16 channels with 2 x 5 x 2 products each."""
    counts = count_macs(build_model("dccrn_e"), by_layer=True)
    assert counts["encoder.0.conv"] == 160 * 128 * 16 * (2 * 5 * 2)
    # Transposed, at input positions: 128 freq x 160 frames of 32 channels, each spread over 2 x 5 x 2 products.
    assert counts["decoder.5.conv"] == 160 * 128 * 32 * (2 * 5 * 2)


@pytest.mark.parametrize("name", ["distil_dccrn", "distil_dccrn_lookahead0"])
def test_any_length_from_one_sample(name):
    model = build_model(name).eval()
    for length in (1, 2, 99, 100, 101, 400, 3001):
        x = torch.randn(1, length) * 0.1
        with torch.no_grad():
            y = model(x)
        assert y.shape == x.shape and y.dtype == torch.float32 and y.isfinite().all()


@pytest.mark.parametrize(
    ("mask", "lstm", "norm"), list(itertools.product("ECR", ("real", "complex"), ("batch", "complex_batch")))
)
def test_gradient_is_finite_on_silence(mask, lstm, norm):
    model = small(mask=mask, lstm=lstm, norm=norm)
    for item in (torch.zeros(2, 1600), torch.cat([torch.zeros(1, 1600), torch.randn(1, 1600)])):
        model.zero_grad()
        x = item.clone().requires_grad_()
        y = model(x)
        target = torch.randn(2, 1600)
        (-si_snr_db(y, target).mean() + (y - target).square().mean()).backward()
        assert y.isfinite().all() and x.grad.isfinite().all()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name


def test_silence_gives_silence():
    assert small().eval()(torch.zeros(1, 1000)).abs().max() == 0


@pytest.mark.parametrize("mask", ["E", "C", "R"])
def test_mask_leaves_dc_out(mask):
    model = small(mask=mask).eval()
    spectrum = torch.randn(1, 257, 9, dtype=torch.complex64)
    with torch.no_grad():
        assert model.estimate_mask(spectrum)[:, 0].abs().max() == 0
        enhanced = model.enhance_spectrum(spectrum)
    assert enhanced[:, 0].abs().max() == 0 and enhanced[:, 1:].abs().min() > 0


def test_mask_equations():
    torch.manual_seed(0)
    m, x = torch.randn(2, 5, 4, dtype=torch.complex64), torch.randn(2, 5, 4, dtype=torch.complex64)
    torch.testing.assert_close(apply_mask(m, x, "C"), m * x)
    part_wise = torch.complex(m.real * x.real, m.imag * x.imag)
    torch.testing.assert_close(apply_mask(m, x, "R"), part_wise)
    polar = torch.polar(torch.tanh(m.abs()) * x.abs(), m.angle() + x.angle())
    torch.testing.assert_close(apply_mask(m, x, "E"), polar, rtol=1e-4, atol=1e-5)


def all_pass(model: DCCRN, value: float) -> DCCRN:
    """Set the last decoder layer so that the mask is the positive real number ``value`` everywhere."""
    layer = model.decoder[-1].conv
    with torch.no_grad():
        layer.weight_real.zero_()
        layer.weight_imag.zero_()
        layer.bias_real.fill_(value / 2)  # (br - bi) + j (br + bi) = value
        layer.bias_imag.fill_(-value / 2)
    return model.eval()


@pytest.mark.parametrize(("mask", "value"), [("C", 1.0), ("E", 20.0)])
def test_all_pass_mask_returns_the_input_with_gain_one(mask, value):
    """The whole chain keeps gain and polarity: a mask of 1 gives back the input (which has nothing at DC)."""
    x = 0.5 * torch.sin(2 * math.pi * 1000 / 16000 * torch.arange(8000.0))[None]
    with torch.no_grad():
        y = all_pass(small(mask=mask), value)(x)
    gain = (x * y).sum() / (x * x).sum()
    assert gain.item() == pytest.approx(1.0, abs=1e-3)
    assert 10 * torch.log10((x * x).sum() / (x - y).square().sum()) > 40


def test_output_is_bounded():
    y = all_pass(small(mask="C"), 1.0)(10 * torch.sin(torch.arange(4000.0))[None])
    assert y.abs().max() == 1


@pytest.mark.parametrize(("lookahead", "frames"), [(1, 6), (0, 0)])
def test_lookahead_in_frames(lookahead, frames):
    """Output frame t depends on input frames up to t + L, not on later ones."""
    model = small(decoder_lookahead=lookahead).eval()
    with torch.no_grad():
        for layer in [*model.encoder, *model.decoder]:  # the small weights of the start let changes fade away
            layer.conv.weight_real.mul_(10)
            layer.conv.weight_imag.mul_(10)
    spectrum = torch.randn(1, 257, 30, dtype=torch.complex64)
    later = spectrum.clone()
    later[..., 20:] += 1
    with torch.no_grad():
        change = (model.estimate_mask(spectrum) - model.estimate_mask(later)).abs().amax(dim=(0, 1))
    assert model.config.lookahead_frames == frames
    assert torch.all(change[: 20 - frames] < 1e-6) and change[20 - frames] > 1e-6


def test_items_of_a_batch_do_not_meet():
    model = small(lstm="complex").eval()
    x = torch.randn(3, 1500) * 0.1
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-6)


def test_layers_halve_and_double_the_frequencies():
    model = small()
    sizes = []
    handles = [
        layer.register_forward_hook(lambda _m, _i, y: sizes.append((y.shape[1], y.shape[2])))
        for layer in [*model.encoder, *model.decoder]
    ]
    model(torch.zeros(1, 500))
    for handle in handles:
        handle.remove()
    assert sizes[:6] == [(4, 128), (4, 64), (4, 32), (8, 16), (8, 8), (8, 4)]
    assert sizes[6:] == [(8, 8), (8, 16), (4, 32), (4, 64), (4, 128), (2, 256)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": "X"}, "unknown mask 'X'"),
        ({"lstm": "gru"}, "unknown lstm 'gru'"),
        ({"norm": "layer"}, "unknown norm 'layer'"),
        ({"channels": (4, 4, 4, 8, 8, 7)}, "even"),
        ({"decoder_lookahead": 2}, "0 or 1"),
    ],
)
def test_wrong_configuration(changes, words):
    with pytest.raises(ConfigError, match=words):
        small(**changes)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean distil_dccrn"):
        build_model("distil_dcrn")
