"""Exercises of the DCCRN lesson: a complex convolution, a decoder layer, a look-ahead, Uformer's skip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.lessons.built.dccrn import MyConv
from dccrn_lib.lessons.grading import Verdict, called, given_number, grader, is_unanswered, right, wrong
from dccrn_lib.networks.complex_layers import ComplexConv2d
from dccrn_lib.networks.dccrn import DecoderLayer, concat_skip
from dccrn_lib.runtime.errors import ConfigError

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
    return _conv_gradients(layer, out, theirs, x)


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


def _conv_gradients(layer: nn.Module, out: Tensor, theirs: ComplexConv2d, x: Tensor) -> Verdict:
    """The last question: does every parameter learn, and what it should?"""
    if out.requires_grad:
        out.square().sum().backward()
    still = [name for name, parameter in layer.named_parameters() if parameter.grad is None]
    if still or not out.requires_grad:
        return wrong(
            f"the values are right, but no gradient reaches {still[0]}: use the parameter itself, not its data."
        )
    given, named = dict(layer.named_parameters()), dict(theirs.named_parameters())
    wanted = torch.autograd.grad(theirs(x).square().sum(), list(named.values()))
    for name, gradient in zip(named, wanted, strict=True):
        got = given[name].grad
        if got is None or not torch.allclose(got.to(x.dtype), gradient, rtol=1e-3, atol=1e-3):
            return wrong(
                f"the values are right, but a part of the gradient of {name} is lost: it is used twice, and "
                "neither use may be detached."
            )
    return right("the library's values to 1e-5 with the same weights, and every parameter gets a gradient.")


def solution_complex_conv() -> type[nn.Module]:
    """The class of the lesson."""
    return MyConv


def _blocks(top_left: Tensor, top_right: Tensor, bottom_left: Tensor, bottom_right: Tensor) -> Tensor:
    rows = (torch.cat([top_left, top_right], dim=1), torch.cat([bottom_left, bottom_right], dim=1))
    return torch.cat(rows, dim=0)


@grader
def check_decoder_layer(answer: Callable[..., Tensor] | None) -> Verdict:
    """Grade a decoder layer in evaluation mode that was written from its formulas, against the library's.

    Args:
        answer: a function (x, skip, conv, mean, var, gamma, beta, slope) -> (batch, chan_out, 2 freq, frame), of two
            features (batch, chan, freq, frame), the transposed convolution, which makes one frame too many, the four
            vectors (chan_out,) of the BatchNorm, epsilon 1e-5, and the slope of the PReLU, (1,).
    """
    layer, x, skip = _decoder_and_inputs(6, 4)
    inputs = _pieces(layer, x, skip)
    out = called(answer, *inputs)
    if isinstance(out, Verdict):
        return out
    wanted = _by_library(layer, x, skip)
    if (verdict := _wrong_decoder_shape(out, wanted)) is not None:
        return verdict
    out = out.detach().to(wanted.dtype)
    if not torch.allclose(out, wanted, atol=1e-4):
        for message, slip in DECODER_SLIPS.items():
            if torch.allclose(out, decoded(*_pieces(layer, x, skip), slip=slip), atol=1e-4):
                return wrong(message)
        return wrong("the shape is right and the values are not: try the steps one by one on a feature of one channel.")
    layer, x, skip = _decoder_and_inputs(2, 6)
    out, wanted = called(answer, *_pieces(layer, x, skip)), _by_library(layer, x, skip)
    if (
        isinstance(out, Verdict)
        or out.shape != wanted.shape
        or not torch.allclose(out.to(wanted.dtype), wanted, atol=1e-4)
    ):
        return wrong("right for features of 6 channels, wrong for features of 2: halve them by chunk(2, dim=1).")
    return right("the library's values to 1e-4 with the same weights, for two sizes.")


def _decoder_and_inputs(chan: int, chan_out: int) -> tuple[DecoderLayer, Tensor, Tensor]:
    """The library's layer with everything away from its start, and two features (2, chan, 4, 7)."""
    generator = torch.Generator().manual_seed(7)
    layer = DecoderLayer(2 * chan, chan_out, "batch", lookahead=1, last=False).eval()
    with torch.no_grad():
        for values in (*layer.parameters(), *layer.buffers()):
            if values.is_floating_point():
                values.copy_(torch.randn(values.shape, generator=generator))
        for name, values in layer.named_buffers():
            if name.endswith("running_var"):
                values.copy_(values.square() + 0.3)
                values[0] = 2e-5  # so quiet a channel that epsilon counts
        for name, values in layer.named_parameters():
            if name.startswith("act"):
                values.fill_(0.3)
    x, skip = torch.randn(2, 2, chan, 4, 7, generator=generator)
    return layer, x, skip


def _by_library(layer: DecoderLayer, x: Tensor, skip: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(concat_skip(x, skip))


def _pieces(layer: DecoderLayer, x: Tensor, skip: Tensor) -> tuple[Any, ...]:
    """What the answer gets; copies, so that it may write into them."""
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    wanted = 2 * x.shape[1]

    def conv(joined: Tensor) -> Tensor:
        if joined.dim() != 4 or joined.shape[1] != wanted:
            raise ConfigError(
                f"conv takes {wanted} channels, x and its skip joined along chan; got {tuple(joined.shape)}"
            )
        with torch.no_grad():
            return layer.conv(joined)

    norm = (state[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return x.clone(), skip.clone(), conv, *norm, state["act.weight"]


def _wrong_decoder_shape(out: Tensor, wanted: Tensor) -> Verdict | None:
    if out.shape == wanted.shape:
        return None
    told = f"the shape is {tuple(out.shape)} and not {tuple(wanted.shape)}: "
    if out.dim() == 4 and out.shape[:3] == wanted.shape[:3] and out.shape[3] == wanted.shape[3] + 1:
        return wrong(told + "the transposed convolution makes one frame too many; one of them has to go.")
    return wrong(told + "as many frames as came in, twice the bins.")


DECODER_SLIPS = {
    "you drop the last frame, and the layer is causal; to look one frame ahead it must drop the first.": "causal",
    "the skip is joined by a plain concatenation: real parts belong to real ones, as in my_concat.": "plain",
    "the skip comes first in each half: DCCRN's order is the feature first, then its skip.": "skip first",
    "there is no BatchNorm yet.": "no norm",
    "the statistics are those of this batch, as in training; evaluation takes the running ones, mean and var.": "batch",
    "you divide by the variance; BatchNorm divides by its root.": "no root",
    "epsilon is missing below the root: one channel is so quiet that its 1e-5 counts.": "no epsilon",
    "epsilon stands beside the root: it is added to the variance, below the root.": "epsilon outside",
    "the mean is not taken away.": "no mean",
    "gamma, the learned scale, is missing.": "no gamma",
    "beta, the learned offset, is missing.": "no beta",
    "beta is scaled by gamma: it is added last.": "beta inside",
    "gamma and beta have changed places.": "letters",
    "the PReLU stands before the BatchNorm: norm first, then bend.": "order",
    "there is no PReLU yet.": "no bend",
    "negative values became 0: a PReLU multiplies them by its slope.": "relu",
    "the slope multiplies the positive values: those pass as they are, the negative ones are multiplied.": "wrong side",
    "the slope multiplies every value: the positive ones pass as they are.": "everywhere",
}


def decoded(
    x: Tensor,
    skip: Tensor,
    conv: Callable[[Tensor], Tensor],
    mean: Tensor,
    var: Tensor,
    gamma: Tensor,
    beta: Tensor,
    slope: Tensor,
    slip: str = "",
) -> Tensor:
    """A decoder layer by its formulas; each ``slip`` of ``DECODER_SLIPS`` changes one of them."""
    (xr, xi), (sr, si) = x.chunk(2, dim=1), skip.chunk(2, dim=1)
    parts = {"plain": (xr, xi, sr, si), "skip first": (sr, xr, si, xi)}.get(slip, (xr, sr, xi, si))
    y = conv(torch.cat(parts, dim=1))  # (batch, chan_out, 2 freq, frame + 1)
    y = y[..., :-1] if slip == "causal" else y[..., 1:]

    def bend(y: Tensor) -> Tensor:
        low, high = {"no bend": (1, 1), "relu": (0, 1), "wrong side": (1, slope), "everywhere": (slope, slope)}.get(
            slip, (slope, 1)
        )
        return torch.where(y < 0, low * y, high * y)

    if slip == "no norm":
        return bend(y)
    if slip == "order":
        y = bend(y)
    if slip == "batch":
        mean, var = y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), correction=0)
    if slip == "letters":
        gamma, beta = beta, gamma
    mean, gamma, beta = (
        neutral if slip == f"no {name}" else value
        for name, value, neutral in (
            ("mean", mean, 0 * mean),
            ("gamma", gamma, 0 * gamma + 1),
            ("beta", beta, 0 * beta),
        )
    )
    spread = var + (0 if slip == "no epsilon" else 1e-5)
    root = {"no root": spread, "epsilon outside": var.sqrt() + 1e-5}.get(slip, spread.sqrt())
    scale = gamma / root
    offset = gamma * beta if slip == "beta inside" else beta
    y = (y - mean[:, None, None]) * scale[:, None, None] + offset[:, None, None]
    return y if slip == "order" else bend(y)


def solution_decoder_layer() -> Callable[..., Tensor]:
    """Join, stamp, drop the first frame, norm with the running statistics, bend."""
    return decoded


@grader
def check_skip_order(answer: Callable[[Tensor, Tensor], Tensor] | None) -> Verdict:
    """Grade a function that joins as Uformer does: (x, skip), each (batch, chan, freq, frame) -> (batch, 2 chan, ...)."""
    x = torch.arange(1.0, 5.0)[None, :, None, None]  # channels 1 2 (real) 3 4 (imaginary)
    skip = x + 10
    out = called(answer, x.clone(), skip.clone())
    if isinstance(out, Verdict):
        return out
    if out.shape != (1, 8, 1, 1):
        return wrong(f"the shape is {tuple(out.shape)}; two inputs of 4 channels make (1, 8, 1, 1): join along chan.")
    if torch.equal(out, solution_skip_order()(x, skip)):
        return _skip_order_at_another_size(answer)
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


def _skip_order_at_another_size(answer: Callable[[Tensor, Tensor], Tensor] | None) -> Verdict:
    """The same with 6 channels, two sentences, bins and frames: no number of channels may stand in the code."""
    x, skip = torch.randn(2, 2, 6, 3, 5, generator=torch.Generator().manual_seed(4))
    out, wanted = called(answer, x.clone(), skip.clone()), solution_skip_order()(x, skip)
    if isinstance(out, Verdict) or out.shape != wanted.shape or not torch.equal(out, wanted):
        return wrong("right for 4 channels, wrong for 6, a batch of 2 and several bins: halve by chunk(2, dim=1).")
    return right("real parts of both in the first half, imaginary parts in the second, the skip before x.")


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
