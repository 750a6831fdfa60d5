"""The forms of one network agree: the readable step, gathered rows, the ring, and the optimised model."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.enhancement import ring_step
from dccrn_lib.enhancement.frame_step import FrameStep
from dccrn_lib.enhancement.optimised import OptimisedDCCRN, core_of, optimised
from dccrn_lib.enhancement.ring_step import RingStep, complex_halves
from dccrn_lib.enhancement.stream import FEW, MANY, StreamingEnhancer
from dccrn_lib.enhancement.stream_step import StreamingCore
from dccrn_lib.enhancement.waveform import enhance_waveform
from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import ConfigError

TINY = {"channels": (4, 8, 6, 8, 10, 8), "rnn_units": 8}  # no two neighbouring sizes alike
FRAMES, ACTIVE = 30, 22  # of the signal; the rest drains
SWITCHES = list(itertools.product(("real", "complex"), ("batch", "complex_batch"), "ECR", (0, 1), (1, 3)))


def lively(model: nn.Module, seed: int = 1) -> nn.Module:
    """Weights, biases, slopes and running statistics far from their start, so that no term hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.normal_(0.0, 0.1, generator=generator)
            elif "conv.weight" in name:
                parameter.normal_(0.0, 0.15, generator=generator)
            elif "act" in name:
                parameter.uniform_(-0.3, 0.9, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def tiny(**fields) -> DCCRN:
    torch.manual_seed(0)
    return lively(DCCRN(DCCRNConfig(**{**TINY, **fields})))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(core: StreamingCore, frames: Tensor) -> tuple[Tensor, Tensor]:
    """What ``stream_step`` makes of a whole signal (batch, 2, freq, frame), and the flags of its frames."""
    active = (torch.arange(frames.shape[3]) < ACTIVE).float()
    out, _ = core.stream_step(frames, core.initial_states(len(frames)), active)
    return out, active


def ring_frames(ring: RingStep, frames: Tensor, active: Tensor) -> Tensor:
    """The same through the ring: (batch, 2, freq, frame) -> same."""
    spectrum = torch.complex(frames[:, 0], frames[:, 1])
    out = [ring(x, bool(a)).clone() for x, a in zip(spectrum.unbind(2), active, strict=True)]
    return torch.view_as_real(torch.stack(out, dim=2)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("lstm", "norm", "mask", "lookahead", "batch"), SWITCHES)
def test_every_form_of_the_step_is_the_same(monkeypatch, lstm, norm, mask, lookahead, batch):
    core = StreamingCore(tiny(lstm=lstm, norm=norm, mask=mask, decoder_lookahead=lookahead))
    frames = noise(batch, 2, 257, FRAMES)
    expected, active = reference(core, frames)
    end = ACTIVE + core.delay  # after that the states are spent
    assert expected[..., core.delay : end].std() > 0.01

    step = FrameStep(core)
    states, rows = step.initial_states(batch), []
    for t in range(FRAMES):
        y, states = step(frames[..., t].transpose(1, 2), states, active[t : t + 1])
        rows.append(y.transpose(1, 2))
    torch.testing.assert_close(torch.stack(rows, dim=3)[..., :end], expected[..., :end], atol=1e-5, rtol=0)

    for large in (ring_step.LARGE_MATRIX, 0):  # none of these matrices is large, or all of them
        monkeypatch.setattr(ring_step, "LARGE_MATRIX", large)
        out = ring_frames(RingStep(step, batch), frames, active)
        torch.testing.assert_close(out[..., :end], expected[..., :end], atol=1e-5, rtol=0)
        assert not out[..., : core.delay].any()


@pytest.mark.parametrize(("norm", "complex_layers"), [("batch", 12), ("complex_batch", 1)])
def test_half_of_a_complex_matrix_is_enough_where_the_norm_scales_only(norm, complex_layers):
    step = FrameStep(StreamingCore(tiny(norm=norm)))
    halves = [complex_halves(layer) for layer in [*step.encoder, *step.decoder]]
    assert sum(h is not None for h in halves) == complex_layers  # the last layer has no norm
    weight, scale = halves[-1]
    assert 2 * weight.numel() == step.decoder[-1].weight.numel()
    torch.testing.assert_close(scale, torch.ones_like(scale))
    if norm == "batch":
        assert (halves[0][1] - 1).abs().max() > 0.05  # real and imaginary outputs have variances of their own


def test_an_output_that_nothing_reaches_takes_the_whole_matrix():
    step = FrameStep(StreamingCore(tiny()))
    layer = step.encoder[0]
    layer.weight[:, 0] = 0.0
    assert complex_halves(layer) is None


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("lstm", ["real", "complex"])
def test_states_move_between_block_and_ring_at_any_frame(lstm, lookahead):
    core = StreamingCore(tiny(lstm=lstm, decoder_lookahead=lookahead))
    frames = noise(3, 2, 257, FRAMES)
    expected, active = reference(core, frames)
    end, draw = ACTIVE + core.delay, np.random.default_rng(0)
    for _ in range(4):
        ring, states, start, parts = RingStep(FrameStep(core), 3), core.initial_states(3), 0, []
        in_ring = bool(draw.integers(2))
        while start < FRAMES:
            piece = slice(start, min(FRAMES, start + int(draw.integers(1, 9))))
            if in_ring:
                ring.load(states)
                parts.append(ring_frames(ring, frames[..., piece], active[piece]))
                states = ring.states()
            else:
                out, states = core.stream_step(frames[..., piece], states, active[piece])
                parts.append(out)
            start, in_ring = piece.stop, not in_ring
        torch.testing.assert_close(torch.cat(parts, dim=3)[..., :end], expected[..., :end], atol=1e-5, rtol=0)


def test_ring_states_are_those_of_the_block():
    core = StreamingCore(tiny(lstm="complex"))
    frames = noise(2, 2, 257, 11)
    _, expected = core.stream_step(frames, core.initial_states(2))
    ring = RingStep(FrameStep(core), 2)
    ring_frames(ring, frames, torch.ones(11))
    states = ring.states()
    assert set(states) == set(expected)
    for name, state in states.items():
        torch.testing.assert_close(state, expected[name], atol=1e-5, rtol=0, msg=name)


def test_ring_starts_anew_after_reset():
    core, frames = StreamingCore(tiny()), noise(1, 2, 257, 15)
    ring, active = RingStep(FrameStep(core)), torch.ones(15)
    first = ring_frames(ring, frames, active)
    assert first[..., core.delay :].any()
    assert not torch.equal(ring_frames(ring, frames, active), first)  # it remembers
    ring.reset()
    assert torch.equal(ring_frames(ring, frames, active), first)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_in_the_middle_goes_its_own_way(duplicate):
    x = noise(4000).numpy()
    stream = StreamingEnhancer(tiny(lstm="complex"))
    hops = np.split(x, 40)
    expected = np.concatenate([stream.push(hop) for hop in hops])
    stream.reset()
    first = [stream.push(hop) for hop in hops[:17]]
    other = duplicate(stream)
    for hop in hops[:9]:
        stream.push(hop)  # does not reach the copy
    out = np.concatenate([*first, *(other.push(hop) for hop in hops[17:])])
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_streams_of_one_optimised_model_do_not_mix_between_threads():
    model, x = optimised(tiny()), noise(2, 3000).numpy()
    alone = [
        np.concatenate([s.push(hop) for hop in np.split(row, 30)]) for row in x for s in [StreamingEnhancer(model)]
    ]
    outs: list[np.ndarray] = [np.zeros(0)] * 2

    def run(k: int) -> None:
        stream = StreamingEnhancer(model)
        outs[k] = np.concatenate([stream.push(hop) for hop in np.split(x[k], 30)])

    threads = [threading.Thread(target=run, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out, expected in zip(outs, alone, strict=True):
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("level_control", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_pieces_of_one_hop_of_few_and_of_many_give_the_same(batch, level_control):
    """Few frames go one by one, many as a block, and sizes between them as those before."""
    model, hop = tiny(lstm="complex"), 100
    x = 0.01 * noise(batch, 9000) + 0.02  # quiet, and with an offset
    whole = StreamingEnhancer(model, batch, level_control=level_control)
    expected = torch.cat([whole.push(x), whole.flush()], dim=1)
    draw = np.random.default_rng(1)
    sizes = [1, 37, hop, FEW * hop, (FEW + 1) * hop, MANY * hop, (MANY + 2) * hop]
    for _ in range(3):
        stream, start, parts = StreamingEnhancer(model, batch, level_control=level_control), 0, []
        while start < x.shape[1]:
            size = int(draw.choice(sizes))
            parts.append(stream.push(x[:, start : start + size]))
            start += size
        out = torch.cat([*parts, stream.flush()], dim=1)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_later_samples_do_not_raise_the_limit_of_earlier_ones():
    """An output may reach the input's peak, as far as that has been heard."""
    torch.manual_seed(0)
    model = DCCRN(DCCRNConfig(**{**TINY, "mask": "C", "initial_mask": 1.5})).eval()
    x = 0.9 * torch.sin(torch.arange(6000) / 5)[None]
    x[:, 5000:5200] = 2.5
    whole, pieces = (StreamingEnhancer(model, level_control=True) for _ in range(2))
    at_once = torch.cat([whole.push(x), whole.flush()], dim=1)
    one_by_one = torch.cat([*(pieces.push(piece) for piece in x.split(100, dim=1)), pieces.flush()], dim=1)
    assert one_by_one[:, :5000].abs().max() == 1.0  # it would be louder
    torch.testing.assert_close(at_once, one_by_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["double", "half", "bfloat16"])
def test_a_network_of_another_type_is_streamed_in_float32(kind):
    model, x = tiny(), 0.1 * noise(1, 3000)
    stream = StreamingEnhancer(getattr(copy.deepcopy(model), kind)())
    out = torch.cat([stream.push(x[:, :150]), stream.push(x[:, 150:]), stream.flush()], dim=1)[
        :, stream.latency_samples :
    ]
    assert out.dtype == torch.float32
    assert (out - model(x)).norm() < {"double": 1e-4, "half": 0.02, "bfloat16": 0.1}[kind] * model(x).norm()


def test_push_does_not_write_into_what_it_was_given_and_keeps_what_it_gave():
    stream, x = StreamingEnhancer(tiny()), noise(2000).numpy()
    given, kept = x.copy(), []
    for hop in np.split(x, 20):
        out = stream.push(hop)
        kept.append((out, out.copy()))
    np.testing.assert_array_equal(x, given)
    assert all(np.array_equal(out, then) for out, then in kept)


@pytest.mark.parametrize("fields", [{}, {"lstm": "complex"}, {"decoder_lookahead": 0, "mask": "C"}])
@pytest.mark.parametrize("length", [1, 399, 30_000])
def test_optimised_equals_the_network(fields, length):
    model = tiny(**fields, stft=STFTConfig(400, 100, 512, "hann"))
    x = noise(2, length)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(optimised(model)(x), expected, atol=1e-5, rtol=0)


def test_optimised_of_the_full_student_equals_it():
    torch.manual_seed(0)
    model, x = lively(build_model("distil_dccrn")), 0.3 * noise(1, 45_000)  # more than one block of frames
    with torch.no_grad():
        expected = model(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(optimised(model)(x), expected, atol=1e-5, rtol=0)


def test_optimised_is_made_once_and_shared():
    model = tiny()
    fast = optimised(model)
    assert isinstance(fast, OptimisedDCCRN) and optimised(fast) is fast
    assert core_of(fast) is fast.core is StreamingEnhancer(fast).core
    assert core_of(model) is not core_of(model)
    x = noise(1600).numpy()
    np.testing.assert_array_equal(enhance_waveform(fast, x), enhance_waveform(model, x))
    identity = nn.Identity()
    assert optimised(identity) is identity
    with pytest.raises(ConfigError, match="not causal"):
        core_of(build_model("uformer_mini"))


def test_optimised_keeps_the_weights_it_was_made_from():
    model, x = tiny().train(), noise(1, 1500)
    fast = optimised(model)
    assert not any(p.requires_grad for p in fast.parameters()) and model.training
    before = fast(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(fast(x), before) and before.any()
