"""The complex layers against native complex64 arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dccrn_lib.networks import complex_layers
from dccrn_lib.networks.complex_layers import (
    ComplexBatchNorm2d,
    ComplexConv2d,
    ComplexConvTranspose2d,
    ComplexLinear,
    ComplexLSTM,
    from_complex,
    to_complex,
)
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import ConfigError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomise(layer: nn.Module) -> nn.Module:
    """Weights and biases all different from their start."""
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn_like(p))
    return layer


def complex_bias(layer) -> torch.Tensor:
    """Two real maps with biases br and bi make the complex bias (br - bi) + j(br + bi)."""
    return torch.complex(layer.bias_real - layer.bias_imag, layer.bias_real + layer.bias_imag)


def test_converters_are_inverse_and_stack_real_before_imaginary():
    z = torch.randn(2, 3, 4, 5, dtype=torch.complex64)
    x = from_complex(z)
    assert x.shape == (2, 6, 4, 5)
    assert torch.equal(x[:, :3], z.real) and torch.equal(x[:, 3:], z.imag)
    assert torch.equal(to_complex(x), z)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "causal"),
    [((5, 2), (2, 1), (2, 0), (1, 1), 1), ((3, 3), (1, 1), (1, 4), (1, 4), 0), ((1, 1), (1, 1), (0, 0), (1, 1), 0)],
)
def test_convolution_equals_complex64(kernel, stride, padding, dilation, causal):
    layer = randomise(ComplexConv2d(4, 6, kernel, stride, padding, dilation, causal))
    z = torch.randn(2, 2, 16, 9, dtype=torch.complex64)
    weight = torch.complex(layer.weight_real, layer.weight_imag)
    padded = F.pad(z, (causal, 0))
    expected = F.conv2d(padded, weight, complex_bias(layer), stride, padding, dilation)
    torch.testing.assert_close(to_complex(layer(from_complex(z))), expected, rtol=1e-5, atol=1e-5)


def test_convolution_by_hand():
    """(1 + 2j)(3 + 4j) = -5 + 10j."""
    layer = ComplexConv2d(2, 2, (1, 1))
    with torch.no_grad():
        layer.weight_real.fill_(1.0)
        layer.weight_imag.fill_(2.0)
    y = layer(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1))
    assert y.flatten().tolist() == [-5.0, 10.0]


def test_convolution_is_causal():
    layer = randomise(ComplexConv2d(4, 4, (5, 2), (2, 1), (2, 0), causal_frames=1))
    x = torch.randn(1, 4, 16, 8)
    later = x.clone()
    later[..., 5:] += 1
    change = (layer(x) - layer(later)).abs().amax(dim=(0, 1, 2))
    assert torch.all(change[:5] == 0) and torch.all(change[5:] > 0)


def test_transposed_convolution_equals_complex64():
    layer = randomise(ComplexConvTranspose2d(4, 6, (5, 2), (2, 1), (2, 0), (1, 0)))
    z = torch.randn(2, 2, 8, 9, dtype=torch.complex64)
    weight = torch.complex(layer.weight_real, layer.weight_imag)
    expected = F.conv_transpose2d(z, weight, complex_bias(layer), (2, 1), (2, 0), (1, 0))
    assert expected.shape == (2, 3, 16, 10)
    torch.testing.assert_close(to_complex(layer(from_complex(z))), expected, rtol=1e-5, atol=1e-5)


def test_linear_equals_complex64():
    layer = randomise(ComplexLinear(7, 5))
    z = torch.randn(3, 4, 7, dtype=torch.complex64)
    expected = torch.einsum("oi,bsi->bso", torch.complex(layer.weight_real, layer.weight_imag), z)
    real, imag = layer(z.real, z.imag)
    torch.testing.assert_close(torch.complex(real, imag), expected + complex_bias(layer), rtol=1e-5, atol=1e-5)


def test_lstm_equation_from_its_four_passes():
    layer = ComplexLSTM(6, 4)
    real, imag = torch.randn(9, 2, 6), torch.randn(9, 2, 6)
    out_real, out_imag = layer(real, imag)
    expected_real = layer.lstm_real(real)[0] - layer.lstm_imag(imag)[0]
    expected_imag = layer.lstm_real(imag)[0] + layer.lstm_imag(real)[0]
    torch.testing.assert_close(out_real, expected_real, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out_imag, expected_imag, rtol=1e-5, atol=1e-6)


def correlated(batch: int = 4, chan: int = 3) -> torch.Tensor:
    """Complex features whose parts are shifted, scaled and correlated: (batch, 2 * chan, 16, 32)."""
    a, b = torch.randn(batch, chan, 16, 32), torch.randn(batch, chan, 16, 32)
    return torch.cat([2.0 * a + 1.0, 0.7 * a + 0.3 * b - 2.0], dim=1)


def covariance(x: torch.Tensor) -> torch.Tensor:
    """2 x 2 covariance of each complex channel: (chan, 2, 2)."""
    real, imag = x.chunk(2, dim=1)
    parts = torch.stack([real, imag]).permute(2, 0, 1, 3, 4).flatten(2)  # (chan, 2, values)
    parts = parts - parts.mean(-1, keepdim=True)
    return parts @ parts.transpose(1, 2) / parts.shape[-1]


@pytest.mark.parametrize("name", ["dccrn_e", "distil_dccrn_mini"])  # a real LSTM, complex ones
def test_lstms_stay_in_float32_where_autocast_would_take_float16(name, monkeypatch):
    monkeypatch.setattr(complex_layers, "_LSTM_IN_FLOAT16", ("cpu",))
    seen = []

    def note(layer, inputs, output):
        seen.append((inputs[0].dtype, output[0].dtype, torch.is_autocast_enabled("cpu")))

    model = build_model(name)
    for layer in model.modules():
        if isinstance(layer, torch.nn.LSTM):
            layer.register_forward_hook(note)
    x = 0.1 * torch.randn(1, 4000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
    assert set(seen) == {(torch.float32, torch.float32, False)}
    seen.clear()
    model(x)
    assert {dtype for dtype, *_ in seen} == {torch.float32}


def test_complex_batch_norm_whitens():
    layer = ComplexBatchNorm2d(6)
    with torch.no_grad():
        layer.weight_ri.zero_()
    x = correlated()
    assert covariance(x)[:, 0, 1].min() > 1  # there is something to remove
    y = layer(x)
    torch.testing.assert_close(covariance(y), torch.eye(2).expand(3, 2, 2), rtol=0, atol=1e-3)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(6), rtol=0, atol=1e-5)


def test_complex_batch_norm_equals_an_eigenvalue_whitening():
    layer = randomise(ComplexBatchNorm2d(6))
    x = correlated()
    values, vectors = torch.linalg.eigh(covariance(x) + layer.eps * torch.eye(2))
    whiten = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.transpose(1, 2)  # V^(-1/2)
    gain = torch.stack([layer.weight_rr, layer.weight_ri, layer.weight_ri, layer.weight_ii], -1).view(3, 2, 2)
    parts = (x - x.mean(dim=(0, 2, 3), keepdim=True)).unflatten(1, (2, 3))  # (batch, part, chan, freq, frame)
    mapped = torch.einsum("cpq,cqr,brcft->bpcft", gain, whiten, parts).flatten(1, 2)
    expected = mapped + torch.cat([layer.bias_real, layer.bias_imag])[None, :, None, None]
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_complex_batch_norm_running_statistics():
    layer = ComplexBatchNorm2d(6, momentum=0.25)
    x = correlated()
    layer(x)
    mean, cov = x.mean(dim=(0, 2, 3)).view(2, 3), covariance(x)
    torch.testing.assert_close(layer.running_mean, 0.25 * mean)
    start = torch.tensor([1.0, 0.0, 1.0])[:, None]
    expected = 0.75 * start + 0.25 * torch.stack([cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]])
    torch.testing.assert_close(layer.running_cov, expected)
    assert layer.num_batches_tracked == 1
    before = layer.running_cov.clone()
    one = layer.eval()(x[:1])
    assert torch.equal(before, layer.running_cov)
    torch.testing.assert_close(one, layer(x)[:1])  # eval mode: no item depends on another


def test_complex_batch_norm_gradient_is_finite_on_silence():
    layer = ComplexBatchNorm2d(4)
    x = torch.zeros(2, 4, 8, 5, requires_grad=True)
    (layer(x) * torch.randn(2, 4, 8, 5)).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_start_of_the_weights():
    layer = ComplexConv2d(64, 64, (5, 2))
    assert abs(layer.weight_real.std().item() - 0.05) < 0.002
    assert abs(layer.weight_imag.std().item() - 0.05) < 0.002
    assert layer.bias_real.abs().max() == 0 and layer.bias_imag.abs().max() == 0


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_odd_channel_count_is_an_error(channels):
    with pytest.raises(ConfigError, match=rf"even and >= 2, got {channels}"):
        ComplexConv2d(channels, 4, (1, 1))
