"""The cheaper forms of a layer over many frames equal one convolution with the block weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dccrn_lib.enhancement import block_layers, optimised, stream_step
from dccrn_lib.enhancement.block_layers import joined, narrow_transposed
from dccrn_lib.enhancement.stream import StreamingEnhancer
from dccrn_lib.enhancement.stream_step import FramePairLayer, StreamingCore
from dccrn_lib.networks.presets import build_model
from tests.enhancement.test_forms import lively, noise, tiny


def layers(core: StreamingCore) -> list[FramePairLayer]:
    return [*core.encoder, *core.decoder]  # pyright: ignore[reportReturnType]


def inputs(layer: FramePairLayer, frames: int = 9, batch: int = 2) -> tuple[Tensor, list[list[Tensor]]]:
    """A previous frame and parts, each in two pieces."""
    chan = layer.weight.shape[0 if layer.transposed else 1]
    parts = 2 if layer.transposed else 1
    pieces = [noise(batch, chan // parts, 8, frames, seed=k).split([2, frames - 2], dim=3) for k in range(parts)]
    return noise(batch, chan, 8, 1, seed=9), [list(part) for part in pieces]


@pytest.fixture
def anything_pays(monkeypatch) -> None:
    """Three products also for miniatures."""
    monkeypatch.setattr(block_layers, "MANY_WEIGHTS", dict.fromkeys((torch.float32, torch.bfloat16), 1))


@pytest.mark.usefixtures("anything_pays")
@pytest.mark.parametrize("index", range(12))
def test_three_products_are_the_block_weight(index):
    layer = layers(StreamingCore(tiny()))[index]
    assert layer.three is not None
    previous, parts = inputs(layer)
    expected = layer.geometry.convolve(joined(previous, parts), layer.weight, layer.bias)
    assert expected.std() > 0.1
    torch.testing.assert_close(layer.three(previous, parts), expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("anything_pays")
def test_a_norm_that_mixes_real_and_imaginary_parts_takes_one_product():
    kinds = [layer.three is None for layer in layers(StreamingCore(tiny(norm="complex_batch")))]
    assert kinds == [True] * 11 + [False]  # the last layer has no norm


@pytest.mark.usefixtures("anything_pays")
@pytest.mark.parametrize("lookahead", [0, 1])
def test_the_network_by_three_products_is_the_network(lookahead):
    model, x = tiny(decoder_lookahead=lookahead), noise(2, 30_000)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(optimised.optimised(model)(x), expected, atol=1e-5, rtol=0)


def test_large_layers_of_the_student_take_three_products_by_precision():
    core = StreamingCore(lively(build_model("distil_dccrn")))
    x, few = torch.zeros(1), []
    for kind in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            few.append(sum(layer.three is not None and layer.three.pays(x) for layer in layers(core)))
    assert few == [5, 0]  # the last two of the encoder and the first three of the decoder


@pytest.mark.parametrize("batch", [1, 3])
def test_the_mask_by_one_product_is_the_transposed_convolution(batch):
    layer = layers(StreamingCore(tiny()))[-1]
    previous, parts = inputs(layer, batch=batch)
    line = joined(previous, parts)
    expected = layer.geometry.convolve(line, layer.weight, layer.bias)
    assert expected.shape[1] == 2 <= block_layers.FEW_CHANNELS
    y = narrow_transposed(line, layer.weight, layer.bias, layer.geometry)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)


def test_pieces_join_behind_the_frame_before():
    previous, (x, skip) = inputs(layers(StreamingCore(tiny()))[-1])
    line = joined(previous, [x, skip])
    whole = torch.cat([torch.cat(x, dim=3), torch.cat(skip, dim=3)], dim=1)
    assert torch.equal(line, torch.cat([previous, whole], dim=3))
    assert line.is_contiguous(memory_format=torch.channels_last)


def test_waiting_frames_come_in_pieces_and_are_not_copied():
    x, queue = noise(1, 4, 8, 7), noise(1, 4, 8, 3, seed=1)
    part, rest = stream_step._delay(x, queue)
    line = torch.cat([queue, x], dim=3)
    assert torch.equal(torch.cat(part, dim=3), line[..., :7]) and torch.equal(rest, line[..., 7:])
    assert part[1].data_ptr() == x.data_ptr()
    part, rest = stream_step._delay(x[..., :2], queue)
    assert torch.equal(part[0], line[..., :2]) and torch.equal(rest, line[..., 2:5])


def test_a_file_ends_without_the_ring():
    x = noise(90_000).numpy()
    model = optimised.optimised(tiny())
    stream = StreamingEnhancer(model, live=False)
    out = np.concatenate([stream.push(x), stream.flush()])[stream.latency_samples :]
    assert "_ring" not in stream.__dict__ and "frame_step" not in model.__dict__
    np.testing.assert_allclose(out, model(torch.from_numpy(x)[None])[0].numpy(), atol=1e-5)
