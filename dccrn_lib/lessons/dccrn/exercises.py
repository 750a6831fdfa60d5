"""Exercises of the DCCRN lesson: a complex convolution, a conjugate block weight, Uformer's skip, a look-ahead."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.lessons.built.dccrn import MyConv
from dccrn_lib.lessons.grading import Verdict, called, given_number, grader, is_unanswered, right, wrong
from dccrn_lib.networks.complex_layers import ComplexConv2d

CHAN_IN, CHAN_OUT = 4, 6  # of the complex convolution, real + imaginary together
LAYERS = 5  # decoder layers of the look-ahead exercise


@grader
def check_complex_conv(answer: Callable[[int, int], nn.Module] | None) -> Verdict:
    """Grade a complex convolution that was written from nothing, against the library's with the same weights.

    Args:
        answer: a class of modules, made from (chan_in, chan_out); kernel (5, 2), stride (2, 1), two bins of zeros at both
            ends and one frame of zeros on the left, parameters named as in :class:`ComplexConv2d`.
    """
    if is_unanswered(answer):
        return wrong("there is no answer yet.")
    if not isinstance(answer, type):
        return wrong(f"hand over the class itself, not what it makes (got {type(answer).__name__}).")
    layer, theirs, x = answer(CHAN_IN, CHAN_OUT), *_layer_and_input(CHAN_IN, CHAN_OUT)
    if not isinstance(layer, nn.Module):
        return wrong(f"the class must be an nn.Module, got {type(layer).__name__}.")
    wanted, given = theirs.state_dict(), dict(layer.named_parameters())
    if not given:
        return wrong(
            "the layer has no weights yet: make weight_real, weight_imag, bias_real and bias_imag in __init__."
        )
    names = [name for name in wanted if name not in given]
    if names:
        return wrong(f"there is no parameter {names[0]}; is it an nn.Parameter of this name, made in __init__?")
    for name, value in wanted.items():
        if given[name].shape != value.shape:
            shape = f"{name} has the shape {tuple(given[name].shape)}; for {CHAN_IN} channels in and {CHAN_OUT} out"
            return wrong(f"{shape}, both halves counted, it is {tuple(value.shape)}.")
    before = layer(x.clone())
    layer.load_state_dict(wanted, strict=False)
    out = layer(x.clone())
    if is_unanswered(out):
        return wrong("forward returns nothing yet.")
    if not isinstance(out, Tensor):
        return wrong(f"forward must return a tensor, got {type(out).__name__}.")
    out = out.to(x.dtype)
    if (verdict := _wrong_conv_shape(out, theirs(x))) is not None:
        return verdict
    if (verdict := _wrong_conv_values(out, before, theirs, x)) is not None:
        return verdict
    if (verdict := _wrong_at_another_size(answer)) is not None:
        return verdict
    return _conv_gradients(layer, out)


def _wrong_at_another_size(answer: Callable[[int, int], nn.Module]) -> Verdict | None:
    """The same with other numbers of channels: none of them may stand in the code."""
    theirs, x = _layer_and_input(CHAN_OUT, CHAN_IN)
    told = f"right for {CHAN_IN} channels in and {CHAN_OUT} out, wrong for {CHAN_OUT} in and {CHAN_IN} out"
    with torch.no_grad():
        try:
            layer = answer(CHAN_OUT, CHAN_IN)
            layer.load_state_dict(theirs.state_dict(), strict=False)
            out, wanted = layer(x.clone()), theirs(x)
        except RuntimeError as error:
            return wrong(f"{told}: {error}")
    same = out.shape == wanted.shape and torch.allclose(out.to(x.dtype), wanted, atol=1e-5)
    return None if same else wrong(f"{told}.")


def _layer_and_input(chan_in: int, chan_out: int) -> tuple[ComplexConv2d, Tensor]:
    """The library's layer with weights and biases away from 0, and an input (2, chan, 16, 7)."""
    generator = torch.Generator().manual_seed(5)
    layer = ComplexConv2d(chan_in, chan_out, (5, 2), (2, 1), (2, 0), causal_frames=1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer, torch.randn(2, chan_in, 16, 7, generator=generator)


def _wrong_conv_shape(out: Tensor, wanted: Tensor) -> Verdict | None:
    if out.shape == wanted.shape:
        return None
    told = f"16 bins and 7 frames went in, {tuple(out.shape)} came out and not {tuple(wanted.shape)}: "
    if out.dim() != 4 or out.shape[1] != wanted.shape[1]:
        return wrong(told + "both halves of the channels belong into one tensor, real parts first.")
    if out.shape[3] > 7:
        return wrong(told + "a frame of zeros belongs before the first one only, not on both sides.")
    if out.shape[3] < 7:
        return wrong(told + "the frame of zeros before the first one is missing; F.pad(x, (left, right, top, bottom)).")
    if out.shape[2] > 8:
        return wrong(told + "the stride is (2, 1), two bins and one frame.")
    return wrong(told + "the two bins of zeros at both ends are missing.")


def _wrong_conv_values(out: Tensor, before: Tensor, theirs: ComplexConv2d, x: Tensor) -> Verdict | None:
    """What the values tell, None where they are the library's."""
    with torch.no_grad():
        if torch.allclose(out, theirs(x), atol=1e-5):
            return None
        if torch.equal(out, before):
            return wrong("new weights change nothing: put the block weight together in forward, not in __init__.")
        for message, result in _conv_mistakes(theirs, x).items():
            if torch.allclose(out, result, atol=1e-5):
                return wrong(message)
    return wrong("the shape is right and the values are not: try it with one tap and one channel, on paper.")


def _conv_mistakes(layer: ComplexConv2d, x: Tensor) -> dict[str, Tensor]:
    """Message -> result of the usual slips."""
    wr, wi, br, bi = layer.weight_real, layer.weight_imag, layer.bias_real, layer.bias_imag
    weight, bias = layer.block_weight(), layer.block_bias()
    (xr, xi), half = x.chunk(2, dim=1), CHAN_OUT // 2

    def conv(
        w: Tensor = weight, b: Tensor | None = bias, of: Tensor = x, pad: tuple[int, ...] = (1, 0, 2, 2)
    ) -> Tensor:
        return F.conv2d(F.pad(of, pad), w, b, stride=(2, 1))

    whole = conv()
    two = "the bias of the real part is br - bi and that of the imaginary part br + bi: "
    return {
        "the minus sign is missing: j * j = -1, so the real part is Wr xr - Wi xi.": conv(_blocks(wr, wi, wi, wr)),
        "that is the conjugate of W: the real part is Wr xr - Wi xi, the imaginary one Wi xr + Wr xi.": conv(
            _blocks(wr, wi, -wi, wr)
        ),
        "the imaginary part has a wrong sign: it is Wi xr + Wr xi, without a minus.": conv(_blocks(wr, -wi, -wi, wr)),
        "the imaginary part has a wrong sign at Wr xi: it is Wi xr + Wr xi.": conv(_blocks(wr, -wi, wi, -wr)),
        "Wr and Wi have changed places.": conv(_blocks(wi, -wr, wr, wi)),
        "real and imaginary half of the output have changed places: real parts come first.": torch.cat(
            [whole[:, half:], whole[:, :half]], dim=1
        ),
        "real and imaginary half of the input have changed places: real parts come first.": conv(
            of=torch.cat([xi, xr], dim=1)
        ),
        "the real parts are the first half of the channels, not every second one.": conv(
            of=torch.cat([x[:, 0::2], x[:, 1::2]], dim=1)
        ),
        "the biases are missing.": conv(b=None),
        two + "yours are br and bi. Each real convolution adds its own bias to both parts.": conv(
            b=torch.cat([br, bi])
        ),
        two + "yours have changed signs.": conv(b=torch.cat([br + bi, br - bi])),
        two + "yours is br + bi in both.": conv(b=torch.cat([br + bi, br + bi])),
        two + "yours is br - bi in both.": conv(b=torch.cat([br - bi, br - bi])),
        "the frame of zeros stands after the last frame, so the layer looks ahead: pad on the left.": conv(
            pad=(0, 1, 2, 2)
        ),
        "all four bins of zeros stand before the first bin: two belong at both ends.": conv(pad=(1, 0, 4, 0)),
        "all four bins of zeros stand after the last bin: two belong at both ends.": conv(pad=(1, 0, 0, 4)),
    }


def _conv_gradients(layer: nn.Module, out: Tensor) -> Verdict:
    """The last question: does every parameter learn?"""
    if out.requires_grad:
        out.square().sum().backward()
    still = [name for name, parameter in layer.named_parameters() if parameter.grad is None]
    if still or not out.requires_grad:
        return wrong(
            f"the values are right, but no gradient reaches {still[0]}: use the parameter itself, not its data."
        )
    return right("the library's values to 1e-5 with the same weights, and every parameter gets a gradient.")


def solution_complex_conv() -> type[nn.Module]:
    """The class of the lesson."""
    return MyConv


@grader
def check_block_weight(answer: Callable[[Tensor, Tensor], Tensor] | None) -> Verdict:
    """Grade the block weight of the conjugate kernel Wr - jWi.

    Args:
        answer: a function (Wr, Wi), each (out, in, freq, frame) -> (2 out, 2 in, freq, frame).
    """
    generator = torch.Generator().manual_seed(3)
    wr, wi = (torch.randn(3, 2, 5, 2, generator=generator) for _ in range(2))
    out = called(answer, wr, wi)
    if isinstance(out, Verdict):
        return out
    wanted = solution_block_weight()(wr, wi)
    if out.shape != wanted.shape:
        return wrong(f"the shape is {tuple(out.shape)}; 2 x 2 blocks of shape (3, 2, 5, 2) make {tuple(wanted.shape)}.")
    if torch.allclose(out, wanted):
        return right("the four blocks stand where (Wr - jWi)(xr + jxi) puts them.")
    mistakes = {
        "that is MyConv's own block weight, which multiplies by W itself. The conjugate has -Wi in place of Wi.": _blocks(
            wr, -wi, wi, wr
        ),
        "there is no minus sign: (Wr - jWi)(xr + jxi) has the imaginary part Wr xi - Wi xr.": _blocks(wr, wi, wi, wr),
        "both off-diagonal blocks are negative: j * j = -1 and the sign of -Wi cancel in the real row.": _blocks(
            wr, -wi, -wi, wr
        ),
        "Wr and Wi have changed places: the weight you built is Wi - jWr.": _blocks(wi, wr, -wr, wi),
        "the lower right block is negative: the imaginary row is -Wi xr + Wr xi.": _blocks(wr, wi, -wi, -wr),
    }
    for message, result in mistakes.items():
        if torch.allclose(out, result):
            return wrong(message)
    return wrong("the shape is right and the values are not; write out (Wr - jWi)(xr + jxi) and read off each row.")


def _blocks(top_left: Tensor, top_right: Tensor, bottom_left: Tensor, bottom_right: Tensor) -> Tensor:
    rows = (torch.cat([top_left, top_right], dim=1), torch.cat([bottom_left, bottom_right], dim=1))
    return torch.cat(rows, dim=0)


def solution_block_weight() -> Callable[[Tensor, Tensor], Tensor]:
    """The block weight of the conjugate, [[Wr, Wi], [-Wi, Wr]]."""
    return lambda wr, wi: _blocks(wr, wi, -wi, wr)


@grader
def check_skip_order(answer: Callable[[Tensor, Tensor], Tensor] | None) -> Verdict:
    """Grade a function that joins as Uformer does: (x, skip), each (batch, chan, freq, frame) -> (batch, 2 chan, ...)."""
    x = torch.arange(1.0, 5.0)[None, :, None, None]  # channels 1 2 (real) 3 4 (imaginary)
    skip = x + 10
    out = called(answer, x, skip)
    if isinstance(out, Verdict):
        return out
    if out.shape != (1, 8, 1, 1):
        return wrong(f"the shape is {tuple(out.shape)}; two inputs of 4 channels make (1, 8, 1, 1): join along chan.")
    if torch.equal(out, solution_skip_order()(x, skip)):
        return right("real parts of both in the first half, imaginary parts in the second, the skip before x.")
    (xr, xi), (sr, si) = x.chunk(2, dim=1), skip.chunk(2, dim=1)
    mistakes = {
        "plain concatenation: the first half then holds x with both its parts, and the next layer takes Im x for the real "
        "part of the skip.": [xr, xi, sr, si],
        "plain concatenation, and the skip first: split both into halves before joining.": [sr, si, xr, xi],
        "the halves are right, but x comes first: that is my_concat, DCCRN's order. Here the skip does.": [
            xr,
            sr,
            xi,
            si,
        ],
        "real and imaginary halves have changed places.": [si, xi, sr, xr],
    }
    for message, parts in mistakes.items():
        if torch.equal(out, torch.cat(parts, dim=1)):
            return wrong(message)
    return wrong(
        f"the order of the channels is {[int(v) for v in out.flatten()]}; x is 1 2 | 3 4 and skip 11 12 | 13 14."
    )


def solution_skip_order() -> Callable[[Tensor, Tensor], Tensor]:
    """Halve both, join the real halves and the imaginary halves, the skip first in each."""

    def join(x: Tensor, skip: Tensor) -> Tensor:
        (xr, xi), (sr, si) = x.chunk(2, dim=1), skip.chunk(2, dim=1)
        return torch.cat([sr, xr, si, xi], dim=1)

    return join


@grader
def check_lookahead_samples(answer: int | None) -> Verdict:
    """Grade the look-ahead in samples of a DCCRN with 5 layers, window 400 and hop 100."""
    number = given_number(answer)
    if isinstance(number, Verdict):
        return number
    win, hop = STFTConfig().window_length, STFTConfig().hop_length
    wanted = solution_lookahead_samples()
    if number == wanted:
        return right(f"({win} - 1) + {LAYERS} x {hop} = {wanted} samples, {wanted / 16:.1f} ms.")
    mistakes = {
        LAYERS * hop: "that is the frames alone; the window overlap of the STFT comes on top.",
        win + LAYERS * hop: "off by one: a sample at the start of a window of 400 waits for 399 later ones.",
        win
        - hop
        + LAYERS * hop: "that is a sample at the end of its hop; one at the start waits hop - 1 samples longer.",
        win - 1 + 6 * hop: "that is DCCRN with its 6 decoder layers; here there are 5.",
        win - 1 + 2 * LAYERS * hop: "encoder layers look back, not ahead: only the 5 decoder layers add a frame each.",
        win - 1: "that is the STFT alone; every decoder layer adds a frame.",
    }
    if abs(number - wanted / 16) < 0.1 or abs(number - LAYERS * hop / 16) < 0.1:
        return wrong("that is in milliseconds; the question asks for samples, 16 to a millisecond.")
    return wrong(
        mistakes.get(int(number), "add what one frame needs, win - 1 samples, and a hop for each decoder layer.")
    )


def solution_lookahead_samples() -> int:
    """(win - 1) + L hop."""
    stft = STFTConfig()
    return stft.window_length - 1 + LAYERS * stft.hop_length
