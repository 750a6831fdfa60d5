"""Exercises of lesson 03: signs of a conjugate product, causal attention, look-ahead of dilations, cost of length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dccrn_lib.lessons.grading import Verdict, grader, is_unanswered, right, wrong
from dccrn_lib.networks.uformer.attention import SIGNS, TRIPLES


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
    if not got.isfinite().all():
        return wrong("there are NaN: a row without any frame left. The present frame itself must stay visible.")

    def same(other: Tensor) -> bool:
        return torch.allclose(got, other, rtol=1e-4, atol=1e-5)

    if same(solution_causal_attention(q, k, v)):
        return right("frame t mixes the values of frames 0 .. t; the first one returns its own value.")
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


# ------------------------------------------------------------------------------------- 3: look-ahead of the dilations
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


# ---------------------------------------------------------------------------------------------- 4: cost of the length
_BINS, _HEADS, _SIZE, _RATE = 4, 9, 16, 100


def solution_crossing(rest_per_second: float) -> float:
    """4 bins x 9 heads x 2 products x 16 x (100 s)^2 = rest * s, so s = rest / (1152 x 100^2)."""
    return rest_per_second / (_BINS * _HEADS * 2 * _SIZE * _RATE**2)


@grader
def check_crossing(answer: float | None, rest_per_second: float) -> Verdict:
    """Grade the length in s at which the time-attention products cost as much as all the rest.

    Args:
        answer: in s.
        rest_per_second: MAC/s of convolutions and linear maps.
    """
    if is_unanswered(answer):
        return wrong("assign a number of seconds.")
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        return wrong(f"the answer is a number of seconds, got {type(answer).__name__}.")
    truth = solution_crossing(rest_per_second)
    hints = {
        1: None,
        1 / 60: "this is in minutes; seconds are asked for.",
        _RATE: "this is in frames; there are 100 a second.",
        2: "each attention has two products, q k' and weights times v.",
        _HEADS: "there are nine heads: one real and eight of the complex stream.",
        _BINS: "each of the 4 bins of the bottleneck has its own attention.",
        _HEADS / 8: "eight heads of the complex stream plus one of the magnitude stream make nine.",
        _SIZE: "each of the products sums over d = 16 numbers.",
        _RATE**2: "the products grow with frames squared, and a second has 100 frames: 100 squared.",
    }
    for factor, message in hints.items():
        if math.isclose(answer, truth * factor, rel_tol=0.02):
            return wrong(message) if message else right(f"{truth:.0f} s, or {truth / 60:.1f} minutes in one piece.")
    return wrong("set 4 bins x 9 heads x 2 products x 16 x frames^2 equal to the rest per second x seconds.")
