"""Exercises of lesson 04: pool a complex feature, KL the right way round, the scale of a loss, centres of frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dccrn_lib.lessons.grading import Verdict, close, grader, is_unanswered, right, wrong

REDUCTION_CASE = {"weight": 10.0, "batch": 8, "freq": 64}  # of the third exercise


def solution_channel_attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """Q(f, t) = mean over chan of |A|^p; complex (batch, chan, freq, frame) -> real (batch, freq, frame)."""
    return feature.abs().pow(power).mean(dim=1)


@grader
def check_channel_attention(answer: Callable[[Tensor, float], Tensor] | None) -> Verdict:
    """Grade a function (complex feature (batch, chan, freq, frame), power) -> Q (batch, freq, frame)."""
    if is_unanswered(answer):
        return wrong("write a function of (feature, power) and pass it here")
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(2, 3, 5, 7, dtype=torch.complex64, generator=generator)
    got, got_1 = answer(a, 2.0), answer(a, 1.0)
    if not isinstance(got, Tensor):
        return wrong(f"the function returns {type(got).__name__}; return the tensor Q")
    if got.is_complex():
        return wrong("the result is complex: A^p keeps the phase; take the magnitude |A| first")
    if got.shape != (2, 5, 7):
        # a shape of another number of axes is simply not among the keys
        pooled = {(2, 3, 5): "frame", (2, 3, 7): "freq", (3, 5, 7): "batch"}.get(tuple(got.shape))  # pyright: ignore[reportArgumentType]
        if pooled:
            return wrong(f"the axis {pooled} is gone; chan must go: feature is (batch, chan, freq, frame), so dim=1")
        return wrong(f"Q must be (batch, freq, frame) = (2, 5, 7), got {tuple(got.shape)}")
    if close(got, solution_channel_attention(a, 1.0)) and close(got, got_1):
        return wrong("power is not used: |A|^p needs p in the exponent")
    if close(got, a.real.square().mean(1)):
        return wrong("the imaginary part is missing: |A|^2 = re^2 + im^2")
    if close(got, a.abs().square().sum(1)):
        return wrong("this is the sum over chan: Q then grows with the number of channels; take the mean")
    if not close(got, solution_channel_attention(a, 2.0)):
        return wrong("the values differ from mean over chan of |A|^p for p = 2")
    if close(got_1, solution_channel_attention(a, 2.0)):
        return wrong("right for p = 2, but power is not used: p = 1 gives the same map")
    if close(got_1, (a.real.abs() + a.imag.abs()).mean(1)):
        return wrong("for p = 1 this is |re| + |im|, which changes when the phase turns; |A| = sqrt(re^2 + im^2)")
    if not close(got_1, solution_channel_attention(a, 1.0)):
        return wrong("right for p = 2, but not for p = 1: raise |A| itself to the power p")
    return right("Q(f, t) is the mean of |A|^p over chan, blind to the order of the channels and to their phases.")


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
    got = torch.as_tensor(answer(t, s)).detach()
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


def solution_reduction() -> float:
    """The weight that keeps b L the same when torch's "mean" becomes "batchmean"."""
    return REDUCTION_CASE["weight"] / REDUCTION_CASE["freq"]


@grader
def check_reduction(answer: float | None) -> Verdict:
    """Grade the weight b' for "batchmean" that equals b = 10 with "mean" on (batch, freq) = (8, 64)."""
    if is_unanswered(answer):
        return wrong("give one number")
    b, batch, freq = (REDUCTION_CASE[name] for name in ("weight", "batch", "freq"))
    value = float(answer)
    named = {
        b: "unchanged, the term would weigh 64 times as much: mean also divides by freq, batchmean does not",
        b * freq: "the wrong way: batchmean is the LARGER value, so its weight must be smaller",
        b / (batch * freq): "512 is the factor between sum and mean; batchmean divides by the batch already",
        b / batch: "both reductions divide by the batch; what differs is the division by freq",
        b * batch: "both reductions divide by the batch; what differs is the division by freq",
        b * batch * freq: "the wrong way, and 512 is the factor between sum and mean",
    }
    if abs(value - solution_reduction()) < 1e-6:
        return right("batchmean is 64 times mean here, so b' = 10 / 64 = 0.15625.")
    for mistake, message in named.items():
        if abs(value - mistake) < 1e-6 * max(1.0, mistake):
            return wrong(message)
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
    got = torch.as_tensor(answer(k, 100, 160, 400)).double()
    want = solution_frame_position(k, 100, 160, 400)
    if got.shape != k.shape:
        return wrong(f"one position for each of the {len(k)} frames is wanted, got shape {tuple(got.shape)}")
    if close(got, want):
        again = torch.as_tensor(answer(k, 80, 160, 320)).double()
        if not close(again, solution_frame_position(k, 80, 160, 320)):
            return wrong("right for hops 100 and 160 only: use the arguments")
        return right("equal centres: (k + 1) h_S = (x + 1) h_T; the window cancels because both nets share it.")
    named = {
        "k h_S / h_T aligns the STARTS of frame 0; frame 0 of hop 160 is centred 60 samples later than that of hop 100": k
        * 100
        / 160,
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
