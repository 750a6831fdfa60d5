"""Uformer: size, layers against naive versions, fusion, silence, autocast, ablations, gain and polarity."""

import math

import pytest
import torch

from dccrn_lib.losses import si_snr_db
from dccrn_lib.networks.cost import count_macs, count_parameters
from dccrn_lib.networks.presets import build_model
from dccrn_lib.networks.uformer import Uformer, UformerConfig
from dccrn_lib.networks.uformer.attention import AttentionBlock, ComplexHead, PartLayerNorm, RealHead
from dccrn_lib.networks.uformer.conformer import DilatedBlock, FeedForward
from dccrn_lib.networks.uformer.streams import EPS, Fusion, SharedBatchNorm2d, magnitude, unit_phasor
from dccrn_lib.runtime.errors import AudioError, ConfigError

SIZES = {"channels": (1, 2, 4, 4, 8, 8, 8), "conformer_hidden": 4, "attention_hidden": 4, "dilated_channels": 4}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(**changes) -> Uformer:
    return Uformer(UformerConfig(**{**SIZES, **changes}))


def test_parameters_by_part():
    model = build_model("uformer")

    def count(*words: str) -> int:
        return sum(p.numel() for name, p in model.named_parameters() if all(w in name for w in words))

    assert count("encoder", ".complex_") == 546_950
    assert count("decoder", ".complex_") == 1_091_879
    assert count("encoder", ".magnitude_") == 273_854
    assert count("decoder", ".magnitude_") == 546_190
    assert count("conformer") == 877_176
    assert count() == 3_336_049


def test_ablations_keep_every_parameter_in_use():
    full = count_parameters(build_model("uformer"))
    assert count_parameters(build_model("uformer", fusion=False)) == full
    assert count_parameters(build_model("uformer", attention=False)) == full - 126_692
    for changes in ({"fusion": False}, {"attention": False}, {"fusion": False, "attention": False}):
        model = small(**changes)
        model(torch.randn(2, 4000)).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_macs_per_second_of_audio():
    """Every convolution and linear map at 100 frames a second, attention products not counted.

    The published 3.29 G is 3 % lower; a second of audio framed without padding has 98 frames.
    """
    macs = count_macs(build_model("uformer"))
    assert macs / 1e9 == pytest.approx(3.386, abs=0.001)
    assert macs / 1e9 == pytest.approx(3.29, rel=0.03)


def test_layer_outputs_are_two_streams():
    model = build_model("uformer").eval()
    shapes = []
    handles = [
        layer.register_forward_hook(lambda _m, _i, y: shapes.append(tuple(tuple(s.shape[1:3]) for s in y)))
        for layer in [*model.encoder, *model.decoder]
    ]
    with torch.no_grad():
        model(torch.randn(1, 800))
    for handle in handles:
        handle.remove()
    channels, freqs = (
        (8, 16, 32, 64, 128, 128, 128, 64, 32, 16, 8, 1),
        (128, 64, 32, 16, 8, 4, 8, 16, 32, 64, 128, 256),
    )
    assert shapes == [((2 * c, f), (c, f)) for c, f in zip(channels, freqs, strict=True)]


@pytest.mark.parametrize("length", [1, 2, 159, 160, 161, 400, 5001])
def test_any_length_from_one_sample(length):
    x = torch.randn(2, length) * 0.1
    with torch.no_grad():
        y = small().eval()(x)
    assert y.shape == x.shape and y.dtype == torch.float32 and y.isfinite().all()


def test_gradient_is_finite_on_silence():
    model = small()
    for item in (torch.zeros(2, 3200), torch.cat([torch.zeros(1, 3200), torch.randn(1, 3200)])):
        model.zero_grad()
        x = item.clone().requires_grad_()
        y = model(x)
        target = torch.randn(2, 3200)
        (-si_snr_db(y, target).mean() + (y - target).square().mean()).backward()
        assert y.isfinite().all() and x.grad.isfinite().all()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name


def test_silence_gives_silence():
    assert small().eval()(torch.zeros(1, 3000)).abs().max() == 0


def test_gradient_is_finite_at_a_mask_of_zero():
    """The last layer at exactly 0 and no fusion: |C| = 0 has no angle."""
    model = small(fusion=False)
    with torch.no_grad():
        for p in model.decoder[-1].parameters():
            p.zero_()
    y = model(torch.randn(1, 2000))
    y.square().sum().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_bfloat16_autocast_trains():
    model = small()
    x, target = torch.randn(2, 4000) * 0.1, torch.randn(2, 4000) * 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.float32
    si_snr_db(y, target).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        full = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x)
    assert 10 * torch.log10(full.square().sum() / (full - half).square().sum()) > 25


def saturate(model: Uformer) -> Uformer:
    """Both masks at 1, phase 0: C = 20 + 0j, M = 20."""
    layer = model.decoder[-1]
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.complex_conv.bias_real.fill_(10.0)  # (br - bi) + j (br + bi) = 20
        layer.complex_conv.bias_imag.fill_(-10.0)
        layer.magnitude_conv.bias.fill_(20.0)
    return model.eval()


def test_open_masks_return_the_input_with_gain_one():
    x = 0.5 * torch.sin(2 * math.pi * 1000 / 16000 * torch.arange(8000.0))[None]
    with torch.no_grad():
        y = saturate(small(fusion=False))(x)
    assert ((x * y).sum() / (x * x).sum()).item() == pytest.approx(1.0, abs=1e-3)
    assert 10 * torch.log10((x * x).sum() / (x - y).square().sum()) > 40


def test_output_never_exceeds_the_input_and_has_no_dc():
    spectrum = torch.randn(2, 257, 11, dtype=torch.complex64)
    with torch.no_grad():
        enhanced = small().eval().enhance_spectrum(spectrum)
    assert enhanced[:, 0].abs().max() == 0
    assert torch.all(enhanced[:, 1:].abs() < spectrum[:, 1:].abs())


def test_one_frame_changes_every_frame():
    """Time attention: not causal, and no frame is independent of another."""
    model = small().eval()
    spectrum = torch.randn(1, 257, 40, dtype=torch.complex64)
    other = spectrum.clone()
    other[..., 39] += 5
    with torch.no_grad():
        change = (model.enhance_spectrum(spectrum) - model.enhance_spectrum(other)).abs().amax(dim=(0, 1))
    assert torch.all(change > 0)


def test_items_of_a_batch_do_not_meet():
    model = small().eval()
    x = torch.randn(3, 3000) * 0.1
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-6)


def test_fusion_equations():
    z, m = torch.randn(2, 3, 4, 5, dtype=torch.complex64), torch.randn(2, 3, 4, 5)
    stacked = torch.cat([z.real, z.imag], dim=1)
    fused_complex, fused_magnitude = Fusion()(stacked, m)
    real, imag = fused_complex.chunk(2, dim=1)
    torch.testing.assert_close(real, z.real + torch.sigmoid(m))
    torch.testing.assert_close(imag, z.imag + torch.sigmoid(m))
    torch.testing.assert_close(fused_magnitude, m + torch.sigmoid(z.abs()))
    last = [t.movedim(1, -1) for t in (stacked, m)]
    for first, moved in zip((fused_complex, fused_magnitude), Fusion(chan_axis=-1)(*last), strict=True):
        torch.testing.assert_close(moved.movedim(-1, 1), first)
    untouched = Fusion(enabled=False)(stacked, m)
    assert untouched[0] is stacked and untouched[1] is m


def test_magnitude_and_phasor():
    z = torch.randn(100, dtype=torch.complex64)
    torch.testing.assert_close(magnitude(z.real, z.imag), z.abs())
    cos, sin = unit_phasor(z.real, z.imag, at_zero=1.0)
    torch.testing.assert_close(torch.complex(cos, sin), torch.polar(torch.ones(100), z.angle()))
    zero = torch.zeros(3, requires_grad=True)
    size, (cos, sin) = magnitude(zero, zero), unit_phasor(zero, zero, at_zero=1.0)
    assert torch.all(size == EPS**0.5) and torch.all(cos == 1) and torch.all(sin == 0)
    (size + cos + sin).sum().backward()
    assert zero.grad.isfinite().all()


def test_shared_batch_norm_is_a_3d_batch_norm():
    layer, reference = SharedBatchNorm2d(3), torch.nn.BatchNorm3d(3)
    x = torch.randn(2, 6, 4, 5) * 3 + 1
    parts = torch.stack(x.chunk(2, dim=1), dim=-1)  # (batch, chan, freq, frame, part)
    expected = torch.cat(reference(parts).unbind(-1), dim=1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.running_mean, reference.running_mean)
    torch.testing.assert_close(layer.running_var, reference.running_var)


def test_part_layer_norm_treats_the_parts_apart():
    layer = PartLayerNorm(6, parts=2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6))
        layer.bias.copy_(torch.randn(6))
    real, imag = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6) * 7 + 2
    norm = torch.nn.LayerNorm(6)
    norm.load_state_dict(layer.state_dict())
    expected = torch.cat([norm(real), norm(imag)], dim=-1)
    torch.testing.assert_close(layer(torch.cat([real, imag], dim=-1)), expected)


def test_complex_head_equals_eight_attentions_written_out():
    channels, d = 6, 4
    head = ComplexHead(channels, d)
    x = torch.randn(3, 7, 2 * channels)
    source = dict(zip("ri", x.chunk(2, dim=-1), strict=True))
    rows = {"r": iter(zip(head.from_real.weight.split(d), head.from_real.bias.split(d), strict=True))}
    rows["i"] = iter(zip(head.from_imag.weight.split(d), head.from_imag.bias.split(d), strict=True))
    triples = ("rrr", "rii", "iri", "iir", "rri", "rir", "irr", "iii")
    projected = {triple: [] for triple in triples}
    for role in range(3):  # all queries, then all keys, then all values
        for triple in triples:
            weight, bias = next(rows[triple[role]])
            projected[triple].append(source[triple[role]] @ weight.T + bias)
    result = {}
    for triple, (query, key, value) in projected.items():
        result[triple] = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(d), dim=-1) @ value
    real = result["rrr"] - result["rii"] - result["iri"] - result["iir"]
    imag = result["rri"] + result["rir"] + result["irr"] - result["iii"]
    torch.testing.assert_close(head(x), torch.cat([real, imag], dim=-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("axis", ["frame", "freq"])
def test_attention_mixes_one_axis_only(axis, parts):
    block = AttentionBlock(6, 4, axis, parts, dropout=0.0).eval()
    x = torch.randn(1, 4, 9, 6 * parts)  # (batch, freq, frame, parts * chan)
    other = x.clone()
    other[0, 2, 5] = torch.randn(6 * parts)
    change = (block(x) - block(other)).abs().amax(dim=(0, 3)) > 0  # (freq, frame)
    expected = torch.zeros(4, 9, dtype=torch.bool)
    if axis == "frame":
        expected[2, :] = True
    else:
        expected[:, 5] = True
    assert torch.equal(change, expected)


def test_real_head_equals_its_equation():
    head = RealHead(6, 4)
    x = torch.randn(2, 5, 6)
    weights = torch.softmax(head.query(x) @ head.key(x).transpose(1, 2) / 2, dim=-1)
    torch.testing.assert_close(head(x), weights @ head.value(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("index", [0, 3, 7])
def test_dilated_block_reaches_2_to_the_k_frames(index, parts):
    block = DilatedBlock(6, 4, index, parts, dropout=0.0).eval()
    x = torch.randn(1, 1, 301, 6 * parts)
    other = x.clone()
    other[0, 0, 150] = torch.randn(6 * parts)
    change = ((block(x) - block(other)).abs().amax(dim=(0, 1, 3)) > 0).nonzero().flatten() - 150
    a, b = 2**index, 2 ** (7 - index)
    assert change.tolist() == sorted({0, a, -a, b, -b})


@pytest.mark.parametrize("parts", [1, 2])
def test_feed_forward_is_a_half_step(parts):
    layer = FeedForward(6, 4, parts, dropout=0.0)
    x = torch.randn(2, 3, 4, 6 * parts)
    inner = layer.contract(layer.activation(layer.expand(layer.norm(x))))
    torch.testing.assert_close(layer(x), x + inner / 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": (1, 2, 3)}, "7 positive channel counts"),
        ({"channels": (2, 2, 4, 4, 8, 8, 8)}, "start with 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_hidden": 0}, ">= 1"),
    ],
)
def test_wrong_configuration(changes, words):
    with pytest.raises(ConfigError, match=words):
        small(**changes)


def test_wrong_inputs():
    model = small().eval()
    with pytest.raises(AudioError, match="complex spectrum"):
        model.enhance_spectrum(torch.zeros(1, 257, 5))
    with pytest.raises(AudioError, match="257"):
        model.enhance_spectrum(torch.zeros(1, 256, 5, dtype=torch.complex64))
    with pytest.raises(AudioError, match=r"\(batch, sample\)"):
        model(torch.zeros(10))
    with pytest.raises(ConfigError, match="unknown attention axis 'chan'"):
        AttentionBlock(4, 4, "chan", 1)
