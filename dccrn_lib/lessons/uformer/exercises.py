"""Exercises of lesson 03: signs of a conjugate product, causal attention, a dilated block, look-ahead of dilations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dccrn_lib.lessons.grading import Verdict, close, grader, is_unanswered, right, wrong
from dccrn_lib.networks.uformer.attention import SIGNS, TRIPLES
from dccrn_lib.networks.uformer.conformer import DilatedBlock


# ------------------------------------------------------------------------------- 1: q conj(k) v instead of q k v
def solution_conjugate_signs() -> dict[str, int]:
    """A factor j a letter i, but -j for the key: its count of i's enters with a minus, 1j ** (n_q + n_v - n_k)."""
    signs = {}
    for triple in TRIPLES:
        q, k, v = (letter == "i" for letter in triple)
        factor = 1j ** (q + v) * (-1j) ** k
        signs[triple] = round(factor.real if abs(factor.real) > 0.5 else factor.imag)
    return signs


@grader
def check_conjugate_signs(answer: Mapping[str, int] | None) -> Verdict:
    """Grade {"rrr": +1 or -1, ...}: the signs of the eight terms of q conj(k) v."""
    if is_unanswered(answer):
        return wrong("fill in a sign, +1 or -1, for each of the eight triples.")
    if not isinstance(answer, Mapping) or set(answer) != set(TRIPLES):
        return wrong(f"the answer is a dict with the eight keys {', '.join(TRIPLES)}.")
    if any(value not in (1, -1) for value in answer.values()):
        return wrong("a sign is +1 or -1, without the j: j only tells which result the term belongs to.")
    given = {t: int(answer[t]) for t in TRIPLES}
    truth = solution_conjugate_signs()
    if given == truth:
        return right("conj(k) turns the sign of the four terms whose key is imaginary, and of no other.")
    plain = dict(zip(TRIPLES, (int(s) for row in SIGNS for s in row), strict=True))
    if given == plain:
        return wrong("these are the signs of q k v: the conjugate turns those whose key (second letter) is i.")
    if given == {t: -plain[t] if t[0] == "i" else plain[t] for t in TRIPLES}:
        return wrong("you conjugated the query (first letter); the key is the second letter.")
    if given == {t: -plain[t] if t[2] == "i" else plain[t] for t in TRIPLES}:
        return wrong("you conjugated the value (third letter); the key is the second letter.")
    if given == {t: -s for t, s in truth.items()}:
        return wrong("every sign is the wrong way round: rrr has no j at all, so its sign is +1.")
    first = next(t for t in TRIPLES if given[t] != truth[t])
    return wrong(f"look at {first}: count its factors j (query, value) and -j (key), and multiply them.")


# --------------------------------------------------------------------------------------------- 2: causal attention
def solution_causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax over the present and past only: logits of later frames are -inf. (..., frame, d) -> same."""
    frames = query.shape[-2]
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    future = torch.ones(frames, frames, dtype=torch.bool).triu(1)
    return torch.softmax(logits.masked_fill(future, -math.inf), dim=-1) @ value


@grader
def check_causal_attention(answer: Callable[[Tensor, Tensor, Tensor], Tensor | None] | None) -> Verdict:
    """Grade a function (query, key, value), each (batch, frame, d) -> (batch, frame, d), that sees no later frame."""
    if is_unanswered(answer):
        return wrong("write a function of (query, key, value) and pass it here.")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 7, 4, generator=generator) for _ in range(3))
    got = answer(q, k, v)
    if got is None:
        return wrong("the function returns None; it must return (batch, frame, d).")
    if not isinstance(got, Tensor) or got.shape != q.shape:
        shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        return wrong(f"expected a tensor (batch, frame, d) = {tuple(q.shape)}, got {shape}.")
    got = got.to(v.dtype)
    if got.isnan().all():
        return wrong(
            "every value is NaN: 0 * -inf is NaN, so a mask cannot be multiplied by infinity. Use masked_fill, "
            "torch.where, or triu of a matrix that holds -inf."
        )
    if not got.isfinite().all():
        return wrong("there are NaN: a row without any frame left. The present frame itself must stay visible.")

    def same(other: Tensor) -> bool:
        return torch.allclose(got, other, rtol=1e-4, atol=1e-5)

    if same(solution_causal_attention(q, k, v)):
        amiss = _elsewhere(answer)
        praise = right("frame t mixes the values of frames 0 .. t; the first one returns its own value.")
        return praise if amiss is None else amiss
    logits = q @ k.transpose(-1, -2) / 2
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    weights = torch.softmax(logits, dim=-1)
    if same(weights @ v):
        return wrong("nothing is hidden: this is the attention of the library, which sees every frame.")
    if same(torch.softmax(logits.masked_fill(future.T, -math.inf), dim=-1) @ v):
        return wrong("the wrong side is hidden: columns after the row's own index are the future.")
    if same(weights.masked_fill(future, 0) @ v):
        return wrong("masked after the softmax: the rows no longer sum to 1. Hide the logits, with -inf.")
    if same(torch.softmax(logits.masked_fill(future, 0), dim=-1) @ v):
        return wrong("a logit of 0 is no mask: exp(0) = 1 still gets weight. Use -inf.")
    if same(solution_causal_attention(2 * q, k, v)):
        return wrong("the scale 1 / sqrt(d) is missing.")
    if same(torch.softmax(logits.masked_fill(future, -math.inf), dim=-2) @ v):
        return wrong("softmax over the asking frames: each row must sum to 1, so dim=-1.")
    # it answered with a tensor above
    later = (answer(q, k, torch.cat([v[:, :6], v[:, 6:] + 1], dim=1)) - got).abs().amax(dim=(0, 2))[:6].max()  # pyright: ignore[reportOptionalOperand]
    if later > 1e-6:
        return wrong("an earlier frame changes when the value of the last one does: the future is still seen.")
    return wrong(
        "no future is seen, but the weights differ from softmax(q k' / sqrt(d)) over the frames that are left."
    )


def _elsewhere(answer: Callable[[Tensor, Tensor, Tensor], Tensor | None]) -> Verdict | None:
    """What is wrong with other sizes, or with a loud future, in an answer that is right for 7 frames and d = 4."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, 5, 9, generator=generator) for _ in range(3))
    try:
        got = answer(q, k, v)
    except (RuntimeError, IndexError, ValueError) as error:
        return wrong(f"right for 7 frames, but 5 frames stop it ({error}): take their number from query.shape[-2].")
    if got is None or not close(got, solution_causal_attention(q, k, v), absolute=1e-5):
        return wrong("right for d = 4, but not for d = 9: the scale is sqrt(d), with d from query.shape[-1].")
    for t in range(4):
        loud = v.clone()
        loud[:, t + 1 :] = 1e6
        again = answer(q, k, loud)
        if again is None or not close(again[:, : t + 1], got[:, : t + 1], absolute=1e-5):
            return wrong(
                "the mask leaks: values of 1e6 in later frames change an earlier answer. A logit of -20 still "
                "leaves the weight exp(-20); hide with -inf."
            )
    return None


# --------------------------------------------------------------------------------------------------- 3: a dilated block
def _dilated_layers() -> SimpleNamespace:
    """The layers of the library's block k = 3 of the magnitude stream, with random weights, the same at each call."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        block = DilatedBlock(channels=6, hidden=5, index=3, parts=1).eval().requires_grad_(False)
        for weights in block.parameters():
            weights.copy_(0.5 * torch.randn(weights.shape))
    return SimpleNamespace(**{name: layer for name, layer in block.named_children() if name != "dropout"})


def solution_dilated_block(block: SimpleNamespace, x: Tensor) -> Tensor:
    """The formula of section 6.5, line by line: (batch, freq, frame, chan) -> the same."""
    u = block.activation(block.reduce(block.norm_in(x))).permute(0, 3, 1, 2)  # (batch, hidden, freq, frame)
    y = block.dilated(u) * torch.sigmoid(block.gate(u))
    y = block.norm_gated(y.permute(0, 2, 3, 1))  # (batch, freq, frame, hidden)
    return x + block.restore(y * torch.sigmoid(y))


def _correction(
    block: SimpleNamespace,
    u: Tensor,
    gate: Callable[[Tensor], Tensor] = torch.sigmoid,
    second: Callable[[Tensor], Tensor] = torch.sigmoid,
    axes: tuple[int, ...] = (0, 3, 1, 2),
    fault: str = "",
) -> Tensor:
    """W_2 z of a u (batch, freq, frame, hidden), by the formula or with another step in it; ``fault`` names some."""
    turned = u.permute(axes)
    y, other = block.dilated(turned), block.gate(turned)
    if fault == "exchanged":
        y, other = other, y
    if fault == "in a row":
        other = block.gate(y)
    y = (y * gate(other)).permute([axes.index(axis) for axis in range(4)])
    if fault == "gate first":
        return block.restore(block.norm_gated(y * second(y)))
    y = y if fault == "no norm" else block.norm_gated(y)
    return block.restore(y * second(y))


@grader
def check_dilated_block(answer: Callable[[SimpleNamespace, Tensor], Tensor | None] | None) -> Verdict:
    """Grade a function (block, x): the layers of a dilated block and (batch, freq, frame, chan) -> the same shape.

    ``block`` has the layers norm_in, reduce, activation, dilated, gate, norm_gated and restore, and no forward.
    """
    if is_unanswered(answer):
        return wrong("write a function of (block, x) and pass it here.")
    block = _dilated_layers()
    x = torch.randn(2, 4, 40, 6, generator=torch.Generator().manual_seed(0))
    try:
        got = answer(block, x.clone())
    except RuntimeError as error:
        return wrong(
            f"a layer stopped with {error}. The two convolutions want the channels as the second axis, (batch, "
            "chan, freq, frame), LayerNorm and the linear maps as the last: permute between them."
        )
    if is_unanswered(got):
        return wrong("the function returns None; it must return (batch, freq, frame, chan).")
    if not isinstance(got, Tensor) or got.shape != x.shape:
        shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        return wrong(f"expected a tensor (batch, freq, frame, chan) = {tuple(x.shape)}, got {shape}.")

    def same(other: Tensor) -> bool:
        return close(got, other, relative=1e-3, absolute=1e-5)

    if same(solution_dilated_block(block, x)):
        return right("block k = 3 of the library: two dilated convolutions side by side, two gates, and x added.")
    for message, values in _dilated_slips(block, x).items():
        if any(same(value) for value in values):
            return wrong(message)
    return wrong("the values differ: u = PReLU(W_1 LN(x)), then y, then z, then x + W_2 z, each from the line before.")


def _dilated_slips(block: SimpleNamespace, x: Tensor) -> dict[str, list[Tensor]]:
    """Message -> results of a reader who earns it."""
    normal = block.norm_in(x)
    u = block.activation(block.reduce(normal))
    step, one, none = partial(_correction, block, u), torch.ones_like, nn.Identity()
    wrong_gates = {
        f"{name} where a sigmoid belongs: a gate is a factor between 0 and 1.": [
            x + step(gate=first, second=second) for first, second in ((f, torch.sigmoid), (torch.sigmoid, f), (f, f))
        ]
        for name, f in (("ReLU", torch.relu), ("tanh", torch.tanh))
    }
    return wrong_gates | {
        "the two convolutions are exchanged: the sigmoid is around `gate`, dilated by 2^(7 - k).": [
            x + step(fault="exchanged")
        ],
        "`gate` reads the output of `dilated`: both read u, side by side.": [x + step(fault="in a row")],
        "the residual is forgotten: the block computes a correction, so add x at the end.": [step()],
        "half of the correction: that is the feed-forward of section 6.1; here all of it is added.": [x + 0.5 * step()],
        "the residual is LN(x): add x as it came in.": [normal + step()],
        "the second gate stands before the LayerNorm: z = LN(y) times the sigmoid of LN(y).": [
            x + step(fault="gate first")
        ],
        "the second gate is missing: z = LN(y) times the sigmoid of LN(y).": [x + step(second=one)],
        "a sigmoid is missing: y is one convolution times the sigmoid of the other.": [x + step(gate=none)],
        "the first gate is missing: y is one convolution times the sigmoid of the other.": [x + step(gate=one)],
        "the LayerNorm behind the first gate is missing.": [x + step(fault="no norm")],
        "the PReLU is missing: u = PReLU(W_1 LN(x)).": [x + _correction(block, block.reduce(normal))],
        "the first LayerNorm is missing: u = PReLU(W_1 LN(x)).": [
            x + _correction(block, block.activation(block.reduce(x)))
        ],
        "freq and frame are exchanged: the convolutions want (batch, chan, freq, frame).": [
            x + step(axes=(0, 3, 2, 1))
        ],
    }


# ------------------------------------------------------------------------------------- 4: look-ahead of the dilations
_STACKS = [(8, 400, 160), (6, 400, 160), (8, 400, 100), (1, 400, 160), (5, 512, 128)]


def solution_lookahead(blocks: int, window: int, hop: int) -> int:
    """(window - 1) + hop * sum over k of max(2^k, 2^(blocks - 1 - k)): signal and gate run side by side."""
    frames = sum(max(2**k, 2 ** (blocks - 1 - k)) for k in range(blocks))
    return window - 1 + hop * frames


@grader
def check_lookahead(answer: Callable[[int, int, int], int | None] | None) -> Verdict:
    """Grade ``answer(blocks, window, hop)``: samples of look-ahead of a Uformer without attention."""
    if is_unanswered(answer):
        return wrong("write a function of (blocks, window, hop) and pass it here.")
    given = [answer(*case) for case in _STACKS]
    if any(value is None for value in given):
        return wrong("the function returns None; write the formula behind `return`.")
    truth = [solution_lookahead(*case) for case in _STACKS]
    if given == truth:
        return right(f"{len(_STACKS)} stacks agree; eight blocks at hop 160 look {truth[0]:,} samples ahead.")
    mistakes = {
        "you added the reach of signal and gate: they run side by side, so the wider of the two counts.": (
            lambda b, w, h: w - 1 + h * sum(2**k + 2 ** (b - 1 - k) for k in range(b))
        ),
        "you followed one branch only: each block reaches as far as the wider of its two.": (
            lambda b, w, h: w - 1 + h * sum(2**k for k in range(b))
        ),
        "you took the widest block: the blocks run one after the other, so their reaches add.": (
            lambda b, w, h: w - 1 + h * 2 ** (b - 1)
        ),
        "the frames are right; a frame itself covers window - 1 samples beyond its first one.": (
            lambda b, w, h: solution_lookahead(b, w, h) - (w - 1)
        ),
        "one sample too many: the last sample of a window lies window - 1 after its first.": (
            lambda b, w, h: solution_lookahead(b, w, h) + 1
        ),
        "these are frames; the answer is in samples, hop samples a frame.": (
            lambda b, w, h: (solution_lookahead(b, w, h) - (w - 1)) // h
        ),
        "twice the dilation: three taps reach one dilation to each side, and only the later side is asked for.": (
            lambda b, w, h: w - 1 + 2 * (solution_lookahead(b, w, h) - (w - 1))
        ),
    }
    for message, formula in mistakes.items():
        if given == [formula(*case) for case in _STACKS]:
            return wrong(message)
    i = next(i for i, (a, b) in enumerate(zip(given, truth, strict=True)) if a != b)
    b, w, h = _STACKS[i]
    return wrong(f"for {b} blocks, window {w} and hop {h} you give {given[i]}, it must be {truth[i]}.")
