"""Exercises of lesson 04: KL the right way round, AT-KL as a whole, the scale of a loss, centres of frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from dccrn_lib.distillation.at_kl import AttentionTransferKL
from dccrn_lib.lessons.grading import Verdict, close, grader, is_unanswered, number, right, wrong

REDUCTION_CASE = {"weight": 10.0, "batch": 8, "freq": 64}  # of the third exercise


def solution_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student), sum over freq, mean over batch; both (batch, freq), each row summing to 1."""
    return F.kl_div(student.log(), teacher, reduction="batchmean")


@grader
def check_kl(answer: Callable[[Tensor, Tensor], Tensor] | None) -> Verdict:
    """Grade a function (teacher P, student P), both (batch, freq) -> KL(teacher || student), mean over the batch."""
    if is_unanswered(answer):
        return wrong("write a function of (teacher, student) and pass it here")
    generator = torch.Generator().manual_seed(2)
    t, s = (torch.randn(4, 6, generator=generator).softmax(-1) for _ in range(2))
    got = answer(t, s)
    if is_unanswered(got):
        return wrong("the function returns None; return the divergence")
    got = torch.as_tensor(got).detach()
    if got.shape != ():
        return wrong(f"the loss must be one number, got shape {tuple(got.shape)}: sum over freq, then mean over batch")
    rows = (t * (t / s).log()).sum(-1)  # (batch,)
    reverse = (s * (s / t).log()).sum(-1)
    named = {
        "KL(student || teacher): F.kl_div takes log Q first and P second and returns KL(P || Q)": reverse.mean(),
        "KL(student || teacher), and summed over the batch": reverse.sum(),
        "the sum over the batch as well: it doubles when the batch doubles; use batchmean": rows.sum(),
        "the mean over freq too: the value shrinks with the number of bins; sum over freq": rows.mean() / 6,
        "in bits: use the natural logarithm": rows.mean() / torch.log(torch.tensor(2.0)),
        "symmetric, the mean of both directions; only KL(teacher || student) is wanted": (rows + reverse).mean() / 2,
        "of the probabilities themselves: F.kl_div wants log-probabilities as its first argument": F.kl_div(
            s, t, reduction="batchmean"
        ),
    }
    if close(got, rows.mean()):
        return right("every row sums P_T (log P_T - log P_S) over freq; the batch is averaged.")
    for message, value in named.items():
        if close(got, value):
            return wrong(f"this is {message}")
    return wrong("the value is neither this divergence nor a usual variant of it: sum P_T (log P_T - log P_S)")


_LAYERS = {"encoder.0": 8, "encoder.1": 4, "decoder.4": 8}  # name -> freq


def solution_at_kl(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean over layers of KL(teacher || student) over freq; dicts layer -> (batch, chan, freq, frame), a number in nat."""
    terms = []
    for layer, feature in student.items():
        q_t, q_s = (x.square().mean(dim=(1, 3)) for x in (teacher[layer].detach(), feature))  # (batch, freq)
        p_t, p_s = (q / q.sum(dim=-1, keepdim=True) for q in (q_t, q_s))
        terms.append((p_t * (p_t / p_s).log()).sum(dim=-1).mean())
    return torch.stack(terms).mean()


def _two_networks() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random features, batch 2: the student's 6 channels and 9 frames, the teacher's 10 and 5, in another order."""
    generator = torch.Generator().manual_seed(3)

    def feature(chan: int, freq: int, frame: int) -> Tensor:
        gain = torch.randn(2, 1, freq, 1, generator=generator) + torch.randn(2, 1, 1, frame, generator=generator)
        return ((0.5 * gain).exp() * (0.5 + torch.randn(2, chan, freq, frame, generator=generator))).requires_grad_()

    student = {name: feature(6, freq, 9) for name, freq in _LAYERS.items()}
    teacher = {name: feature(10, freq, 5) for name, freq in reversed(_LAYERS.items())}
    return student, teacher


@grader
def check_at_kl(answer: Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor | None] | None) -> Verdict:
    """Grade a function (student, teacher), both layer -> stacked feature (batch, chan, freq, frame) -> AT-KL in nat."""
    if is_unanswered(answer):
        return wrong("write a function of (student, teacher) and pass it here")
    student, teacher = _two_networks()
    try:
        got = answer(dict(student), dict(teacher))
    except RuntimeError as error:
        return wrong(
            f"it stopped with {error}. Follow the shapes: student and teacher share only the axis freq, so the means over "
            "chan and frame come first and leave (batch, freq); the sum that divides keeps its axis (keepdim=True); and "
            "each layer ends in one number before the mean over layers"
        )
    if is_unanswered(got):
        return wrong("the function returns None; return the mean over the layers")
    if isinstance(got, tuple):
        return wrong("the function returns several things; return the mean over the layers alone")
    if not isinstance(got, Tensor):
        return wrong(f"the function returns {type(got).__name__}; return a tensor, as a number carries no gradient")
    if got.shape != ():
        return wrong(f"the loss must be one number, got shape {tuple(got.shape)}: mean over batch, mean over layers")
    truth, _ = AttentionTransferKL()(student, teacher)
    if not close(got, truth, relative=1e-3):
        return wrong(_at_kl_slip(got, student, teacher))
    if not got.requires_grad:
        return wrong("the value is right, but no gradient reaches the student: only the teacher is detached")
    got.backward()
    if any(x.grad is not None for x in teacher.values()):
        return wrong("the value is right, but the teacher is not detached: its features get a gradient, too")
    if any(x.grad is None for x in student.values()):
        return wrong("the value is right, but some layers of the student get no gradient")
    wanted = torch.autograd.grad(truth, list(student.values()))
    if not all(close(x.grad, g, relative=1e-2) for x, g in zip(student.values(), wanted, strict=True)):
        return wrong("the value is right, but the student's gradient is not: some step of the student is cut off, too")
    return right(f"{len(student)} layers agree with the library, and the gradient reaches the student alone.")


def _at_kl_slip(got: Tensor, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> str:
    """What is wrong with a value that is not AT-KL."""

    def log_p(profile: Callable[[Tensor], Tensor], feature: Tensor) -> Tensor:
        q = profile(feature)  # (batch, freq)
        return (q / q.sum(dim=-1, keepdim=True)).log()

    def at_kl(profile: Callable[[Tensor], Tensor], reverse: bool = False) -> Tensor:
        values = []
        for name in student:
            one, other = (log_p(profile, x[name]) for x in ((student, teacher) if reverse else (teacher, student)))
            values.append((one.exp() * (one - other)).sum(dim=-1).mean())
        return torch.stack(values)  # (layer,)

    def pooled(x: Tensor) -> Tensor:
        return x.square().mean(dim=(1, 3))

    def frame_by_frame(x: Tensor) -> Tensor:
        power = x.square().mean(dim=1)  # (batch, freq, frame)
        return (power / power.sum(dim=1, keepdim=True)).mean(dim=-1)

    terms = at_kl(pooled)
    by_place = dict(zip(student, teacher.values(), strict=True))
    bins = torch.tensor([float(x.shape[2]) for x in student.values()])
    named = {
        "the sum over the layers: it grows with their number; take the mean": terms.sum(),
        "KL(student || teacher): the teacher's P weighs the sum": at_kl(pooled, reverse=True).mean(),
        "the mean over frames before squaring: what changes its sign from frame to frame cancels; square first": at_kl(
            lambda x: x.mean(dim=3).square().mean(dim=1)
        ).mean(),
        "the mean over channels before squaring: the map then depends on their signs; square first": at_kl(
            lambda x: x.mean(dim=1).square().mean(dim=-1)
        ).mean(),
        "the profiles averaged over the batch first: each item has its own divergence, and those are averaged": at_kl(
            lambda x: pooled(x).mean(dim=0, keepdim=True)
        ).mean(),
        "the sum over the batch: it doubles when the batch doubles; take the mean": 2 * terms.mean(),
        "the mean over freq: the value shrinks with the number of bins; sum over freq": (terms / bins).mean(),
        "in bits: use the natural logarithm": terms.mean() / torch.log(torch.tensor(2.0)),
        "each frame divided by its own sum: first the mean over frames, then the division": at_kl(
            frame_by_frame
        ).mean(),
        "of |A|, not of its square: p = 2": at_kl(lambda x: x.abs().mean(dim=(1, 3))).mean(),
        "of the softmax of the profiles: divide by the sum": at_kl(lambda x: pooled(x).softmax(dim=-1)).mean(),
        "of the other normalisation, the softmax: divide by the sum": AttentionTransferKL(normalisation="softmax")(
            student, teacher
        )[0],
        "of layers that were paired by their place in the dicts: pair them by name": solution_at_kl(student, by_place),
    }
    named |= {
        f"the divergence of {name} alone: take the mean over all layers": t
        for name, t in zip(student, terms, strict=True)
    }
    for message, value in named.items():
        if close(got, value, relative=1e-3):
            return f"this is {message}"
    return "the value is not AT-KL: for each layer square, mean over chan and frame, divide by the sum, divergence"


def solution_reduction() -> float:
    """The weight that keeps b L the same when torch's "mean" becomes "batchmean"."""
    return REDUCTION_CASE["weight"] / REDUCTION_CASE["freq"]


@grader
def check_reduction(answer: float | None) -> Verdict:
    """Grade the weight b' for "batchmean" that equals b = 10 with "mean" on (batch, freq) = (8, 64)."""
    if is_unanswered(answer):
        return wrong("give one number")
    b, batch, freq = (REDUCTION_CASE[name] for name in ("weight", "batch", "freq"))
    value = number(answer)
    if value is None:
        return wrong(f"give a number, as 10 / 2, without quotation marks (got {type(answer).__name__})")
    named = {
        b: "unchanged, the term would weigh 64 times as much: mean also divides by freq, batchmean does not",
        b * freq: "the wrong way: batchmean is the LARGER value, so its weight must be smaller",
        b / (batch * freq): "512 is the factor between sum and mean; batchmean divides by the batch already",
        b / batch: "both reductions divide by the batch; what differs is the division by freq",
        b * batch: "both reductions divide by the batch; what differs is the division by freq",
        b * batch * freq: "the wrong way, and 512 is the factor between sum and mean",
    }
    for mistake, message in named.items():
        if math.isclose(value, mistake, rel_tol=1e-2):
            return wrong(message)
    if math.isclose(value, solution_reduction(), rel_tol=0.03):  # 0.156 and 0.16, too
        return right("batchmean is 64 times mean here, so b' = 10 / 64 = 0.15625.")
    return wrong(f"{value:g} does not keep b times the loss; write both reductions as the same sum over a divisor")


def solution_frame_position(k: Tensor, student_hop: int, teacher_hop: int, window: int) -> Tensor:
    """The teacher's frame, a real number, that is centred where the student's frame k is."""
    centre = (k + 1) * student_hop - window / 2  # samples
    return (centre + window / 2) / teacher_hop - 1


@grader
def check_frame_position(answer: Callable[[Tensor, int, int, int], Tensor] | None) -> Verdict:
    """Grade a function (k, student_hop, teacher_hop, window) -> real-valued frame of the teacher."""
    if is_unanswered(answer):
        return wrong("write a function of (k, student_hop, teacher_hop, window) and pass it here")
    k = torch.arange(40.0)
    got = answer(k, 100, 160, 400)
    if is_unanswered(got):
        return wrong("the function returns None; return the positions")
    got = torch.as_tensor(got).double()
    want = solution_frame_position(k, 100, 160, 400)
    if got.shape != k.shape:
        return wrong(f"one position for each of the {len(k)} frames is wanted, got shape {tuple(got.shape)}")
    if close(got, want):
        again = torch.as_tensor(answer(k, 80, 160, 320)).double()
        if not close(again, solution_frame_position(k, 80, 160, 320)):
            return wrong("right for hops 100 and 160 only: use the arguments")
        return right("equal centres: (k + 1) h_S = (x + 1) h_T; the window cancels because both nets share its length.")
    named = {
        "k h_S / h_T pairs frame 0 with frame 0; but that of hop 160 is centred (and starts) 60 samples later than that of "
        "hop 100": k * 100 / 160,
        "the hops are swapped: the teacher has fewer frames, so x grows more slowly than k": (k + 1) * 160 / 100 - 1,
        "rounded to whole frames: up to half a teacher's hop (5 ms) off; return the real number": want.round(),
        "rounded down to whole frames: up to a whole teacher's hop (10 ms) off; return the real number": want.floor(),
        "the frame's number is one too large: frame k ends at (k + 1) h, so subtract 1 at the end": (k + 1) * 100 / 160,
        "the centre in samples; turn it into a frame of the teacher's hop": (k + 1) * 100 - 200,
    }
    for message, value in named.items():
        if close(got, value):
            return wrong(message)
    return wrong("the centres do not agree: solve (k + 1) h_S - w / 2 = (x + 1) h_T - w / 2 for x")
