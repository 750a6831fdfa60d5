"""Streaming equals the offline model, sample for sample, whatever the pieces."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.enhancement.stream import SAMPLE_RATE, StreamingEnhancer, latency_samples
from dccrn_lib.enhancement.stream_step import StreamingCore
from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.networks.presets import PRESETS, build_from_config, build_model
from dccrn_lib.runtime.errors import AudioError, ConfigError

TINY = {"channels": (4, 8, 8, 8, 8, 8), "rnn_units": 8}


def lively(model: nn.Module, seed: int = 1) -> nn.Module:
    """Weights, biases and running statistics far from their start, so that no term hides: audible output."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            if hasattr(module, "running_var"):
                module.running_var.uniform_(0.5, 2.0, generator=generator)
            else:
                module.running_cov[0].uniform_(0.5, 2.0, generator=generator)
                module.running_cov[1].uniform_(-0.3, 0.3, generator=generator)
                module.running_cov[2].uniform_(0.5, 2.0, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.normal_(0.0, 0.1, generator=generator)
            elif "conv.weight" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def tiny(**fields) -> DCCRN:
    torch.manual_seed(0)
    return lively(DCCRN(DCCRNConfig(**{**TINY, **fields})))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def offline(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def stream(enhancer: StreamingEnhancer, x: Tensor, sizes: list[int], seed: int = 0) -> Tensor:
    """Push ``x`` in pieces of sizes drawn from ``sizes``, flush, and return everything."""
    draw, pieces, start = np.random.default_rng(seed), [], 0
    while start < x.shape[-1]:
        size = int(draw.choice(sizes))
        piece = enhancer.push(x[..., start : start + size])
        assert piece.shape == x[..., start : start + size].shape
        pieces.append(piece)
        start += size
    return torch.cat([*pieces, enhancer.flush()], dim=-1)


SWITCHES = list(itertools.product(("real", "complex"), ("batch", "complex_batch"), "ECR", (0, 1)))


@pytest.mark.parametrize(("lstm", "norm", "mask", "lookahead"), SWITCHES)
def test_equals_offline_for_every_switch(lstm, norm, mask, lookahead):
    model = tiny(lstm=lstm, norm=norm, mask=mask, decoder_lookahead=lookahead)
    enhancer = StreamingEnhancer(model, batch=2, block_frames=5)
    x = noise(2, 3210)
    expected = offline(model, x)
    out = stream(enhancer, x, [0, 1, 17, 100, 777])
    delay = enhancer.latency_samples
    assert out.shape == (2, 3210 + delay)
    assert not out[:, :delay].any()
    assert expected.std() > 0.01  # something to compare
    torch.testing.assert_close(out[:, delay:], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("length", [1, 2, 99, 100, 101, 398, 399, 400, 998, 999, 1000, 1001])
def test_equals_offline_for_short_signals(length, lookahead):
    model = tiny(lstm="complex", decoder_lookahead=lookahead)
    enhancer = StreamingEnhancer(model)
    x = noise(length, seed=length)
    out = stream(enhancer, x, [1, 60, 300])
    assert out.shape == (length + enhancer.latency_samples,)
    expected = offline(model, x[None])[0]
    torch.testing.assert_close(out[enhancer.latency_samples :], expected, atol=1e-5, rtol=0)


STFTS = [(400, 160, "sqrt_hann"), (512, 128, "hann"), (300, 7, "hann"), (320, 320, "sqrt_hann"), (401, 100, "hann")]


@pytest.mark.parametrize(("window", "hop", "shape"), STFTS)
@pytest.mark.parametrize("lookahead", [0, 1])
def test_equals_offline_for_other_windows(window, hop, shape, lookahead):
    model = tiny(decoder_lookahead=lookahead, stft=STFTConfig(window, hop, 512, shape))
    enhancer = StreamingEnhancer(model)
    assert enhancer.latency_samples == window - 1 + 6 * lookahead * hop
    for length in (1, 250, 3001):
        x = noise(length)
        out = stream(enhancer, x, [3, 250, 900])[enhancer.latency_samples :]
        torch.testing.assert_close(out, offline(model, x[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [[1], [100], [16000, 40000]])
def test_equals_offline_for_the_full_student(sizes):
    torch.manual_seed(0)
    model = lively(build_model("distil_dccrn"))
    x = noise(1500 if sizes == [1] else 50_000)
    expected = offline(model, x[None])[0]
    enhancer = StreamingEnhancer(model)
    out = stream(enhancer, x, sizes)[enhancer.latency_samples :]
    assert expected.std() > 0.01
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_frame_by_frame_equals_blocks():
    model = tiny(lstm="complex", norm="complex_batch")
    core, frames = StreamingCore(model), noise(2, 2, 257, 30)
    block, block_states = core.stream_step(frames, core.initial_states(2))
    states, single = core.initial_states(2), []
    for frame in frames.split(1, dim=3):
        out, states = core.stream_step(frame, states)
        single.append(out)
    torch.testing.assert_close(torch.cat(single, dim=3), block, atol=1e-6, rtol=1e-5)
    assert list(states) == list(block_states)
    for name in states:
        torch.testing.assert_close(states[name], block_states[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_core_step_is_pure_and_warms_up_with_exact_zeros(lookahead):
    model = tiny(decoder_lookahead=lookahead)
    core, frames = StreamingCore(model), noise(1, 2, 257, 12)
    states = core.initial_states()
    before = {name: state.clone() for name, state in states.items()}
    out, new = core.stream_step(frames, states)
    assert all(torch.equal(states[name], before[name]) for name in states)
    assert {name: state.shape for name, state in new.items()} == {n: s.shape for n, s in states.items()}
    delay = model.config.lookahead_frames
    assert not out[..., :delay].any()
    assert (out[:, :, 1:, delay:].abs().amax(dim=(0, 1, 2)) > 0).all()
    expected = model.enhance_spectrum(torch.complex(frames[:, 0], frames[:, 1]))[..., : 12 - delay]
    torch.testing.assert_close(out[:, 0, :, delay:], expected.real, atol=1e-5, rtol=0)
    torch.testing.assert_close(out[:, 1, :, delay:], expected.imag, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n, c in PRESETS.items() if isinstance(c, DCCRNConfig)])
def test_latency_formula_of_each_preset(name):
    config = PRESETS[name]
    expected = 399 if name.endswith("lookahead0") else 999
    assert latency_samples(config) == expected
    enhancer = StreamingEnhancer(build_from_config(config))
    assert enhancer.latency_samples == expected
    assert enhancer.algorithmic_latency_ms == pytest.approx(1000 * expected / SAMPLE_RATE)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_latency_is_needed_and_enough(lookahead):
    """The offline model really looks latency samples ahead: no smaller latency would do."""
    hop = 100
    model = tiny(decoder_lookahead=lookahead, stft=STFTConfig(400, hop, 512, "hann"))
    delay = latency_samples(model.config)
    model.stft.window.fill_(1.0)  # a Hann window is 0 at its first point; count it as used
    reach = 0
    x = noise(1, 4000)
    for start in range(2000, 2000 + hop):  # every alignment of a change to the frames
        y = x.clone()
        y[:, start:] = float("nan")
        reach = max(reach, start - int(offline(model, y)[0].isnan().nonzero()[0]))
    assert reach == delay


def test_reset_and_flush_start_anew():
    model = tiny()
    enhancer = StreamingEnhancer(model)
    x = noise(2500)
    first = stream(enhancer, x, [300])
    torch.testing.assert_close(stream(enhancer, x, [300]), first, atol=0, rtol=0)
    enhancer.push(noise(1234, seed=9))
    enhancer.reset()
    torch.testing.assert_close(stream(enhancer, x, [300]), first, atol=0, rtol=0)


def test_streams_of_a_batch_do_not_mix():
    model = tiny(lstm="complex")
    x = noise(3, 2000)
    together = stream(StreamingEnhancer(model, batch=3), x, [450])
    for row in range(3):
        alone = stream(StreamingEnhancer(model), x[row], [450])
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


def test_numpy_in_numpy_out(repeatable):
    model = tiny()
    enhancer, x = StreamingEnhancer(model), noise(1500).numpy().astype(np.float64)
    x.setflags(write=False)
    out = np.concatenate([enhancer.push(x[:700]), enhancer.push(x[700:]), enhancer.flush()])
    assert out.dtype == np.float32
    expected = offline(model, torch.from_numpy(x.astype(np.float32))[None])[0].numpy()
    np.testing.assert_allclose(out[enhancer.latency_samples :], expected, atol=1e-5)
    big_endian, rest = enhancer.push(x.astype(">f4")), enhancer.flush()
    np.testing.assert_allclose(np.concatenate([big_endian, rest])[999:], out[999:], rtol=0, atol=repeatable)


def test_nothing_pushed_gives_silence():
    enhancer = StreamingEnhancer(tiny(), batch=2)
    assert enhancer.push(torch.zeros(2, 0)).shape == (2, 0)
    out = enhancer.flush()
    assert out.shape == (2, 999) and not out.any()


def test_training_mode_model_streams_as_in_eval_and_stays_as_it_is():
    model = tiny()
    x = noise(1800)
    expected = offline(model, x[None])[0]
    model.train()
    enhancer = StreamingEnhancer(model)
    out = stream(enhancer, x, [512])[enhancer.latency_samples :]
    assert model.training and all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert not out.requires_grad


def test_uformer_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="not causal: global time attention.*enhance_file"):
        StreamingEnhancer(build_model("uformer_mini"))
    with pytest.raises(ConfigError, match="expected a DCCRN from build_model or load_model, got str"):
        StreamingEnhancer("distil_dccrn")


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (torch.zeros(3, 10), "batch = 2"),
        (torch.zeros(10), "batch = 2"),
        (torch.zeros(2, 10, 1), "shape"),
        (np.zeros((2, 10), np.int16), "full scale"),
        (torch.full((2, 10), float("nan")), "NaN or infinity"),
        (torch.full((2, 10), float("inf")), "NaN or infinity"),
        (np.full((2, 10), 1e300), "NaN or infinity"),
        (torch.full((2, 10), 3e38), "values beyond"),
        (np.array([[None], [None]]), "expected float"),
    ],
)
def test_bad_samples_are_refused_and_leave_the_stream_unharmed(samples, reason):
    model = tiny()
    enhancer, x = StreamingEnhancer(model, batch=2), noise(2, 1500)
    first = enhancer.push(x[:, :700])  # a tensor, whatever kind is refused next
    with pytest.raises(AudioError, match=reason):
        enhancer.push(samples)
    assert isinstance(enhancer._emit(0), Tensor)
    out = torch.cat([first, enhancer.push(x[:, 700:]), enhancer.flush()], dim=1)
    torch.testing.assert_close(out[:, 999:], offline(model, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("arguments", [{"batch": 0}, {"block_frames": 0}])
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ConfigError, match="at least 1"):
        StreamingEnhancer(tiny(), **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_streams_on_the_models_device():
    model = tiny(lstm="complex").cuda()
    enhancer, x = StreamingEnhancer(model), noise(5000)
    out = stream(enhancer, x.cuda(), [700, 2000])
    assert out.device.type == "cuda"
    torch.testing.assert_close(out[999:].cpu(), offline(model, x.cuda()[None])[0].cpu(), atol=1e-3, rtol=0)
