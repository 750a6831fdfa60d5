"""Exercises of the DCCRN lesson: a conjugate block weight, Uformer's skip, a layer's parameters, a look-ahead."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.lessons.grading import Verdict, called, given_number, grader, right, wrong
from dccrn_lib.networks.complex_layers import ComplexConv2d

LAYER = (64, 128, (5, 2))  # channels in, channels out (real + imaginary together), kernel
LAYERS = 5  # decoder layers of the look-ahead exercise


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
def check_layer_parameters(answer: int | None) -> Verdict:
    """Grade the number of parameters of a complex convolution 64 -> 128 channels (both parts counted), kernel (5, 2)."""
    number = given_number(answer)
    if isinstance(number, Verdict):
        return number
    n_in, n_out, taps = LAYER[0] // 2, LAYER[1] // 2, LAYER[2][0] * LAYER[2][1]
    weight = n_in * n_out * taps  # of one of the two real kernels
    if number == solution_layer_parameters():
        return right(f"2 x {n_in} x {n_out} x {taps} weights and 2 x {n_out} biases.")
    mistakes = {
        2 * weight: "the weights are right; the two biases are missing, one for each real kernel.",
        2 * weight + n_out: "each of the two real kernels has its own bias: that is 2 x 64, not 64.",
        weight + n_out: "that is one real kernel; a complex layer has two, Wr and Wi.",
        weight: "that is one real kernel without bias; a complex layer has two, Wr and Wi, each with a bias.",
        4 * weight: "that is the block weight, where Wr and Wi stand twice each: half as many are parameters.",
        4 * weight
        + 2 * n_out: "that is the block weight, where Wr and Wi stand twice each: half as many are parameters.",
        8 * weight + 4 * n_out: "the channel counts hold both parts already: 64 channels are 32 complex ones.",
    }
    return wrong(
        mistakes.get(int(number), "count Wr: complex inputs x complex outputs x taps. Then Wi, then the biases.")
    )


def solution_layer_parameters() -> int:
    """Counted on the layer itself."""
    return sum(p.numel() for p in ComplexConv2d(*LAYER).parameters())


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
