"""Exercises of notebook 05: the total loss, the frozen teacher, the learning rate, and the cost of a run."""

from __future__ import annotations

import torch
from torch import nn

from dccrn_lib.lessons.grading import Verdict, grader, number, right, wrong


@grader
def check_total(answer) -> Verdict:
    """``answer(clean_loss, teacher_loss, kl, a, b)`` is the total loss of the student.

    Mistakes told apart: a on the clean term, b on everything, the AT-KL term subtracted or left out.
    """
    if not callable(answer):
        return wrong("give a function total(clean_loss, teacher_loss, kl, a, b).")
    values = (3.0, 5.0, 0.5, 0.2, 0.4)
    clean, teacher, kl, a, b = values
    got = number(answer(*values))
    if got is None:
        return wrong("the function must return one number.")
    mistakes = {
        a * clean + (1 - a) * teacher + b * kl: "a and 1 - a are swapped: a = 0 must leave the clean target alone.",
        b * ((1 - a) * clean + a * teacher + kl): "b weighs the AT-KL term only, not the waveform terms.",
        (1 - a) * clean + a * teacher - b * kl: "the AT-KL term is a distance to be made small: add it.",
        (1 - a) * clean + a * teacher: "the AT-KL term is missing.",
        clean + a * teacher + b * kl: "the clean term needs its weight 1 - a, so that the two share one unit.",
    }
    if abs(got - ((1 - a) * clean + a * teacher + b * kl)) < 1e-6:
        if number(answer(1.0, 9.0, 9.0, 0.0, 0.0)) != 1.0:
            return wrong("with a = b = 0 nothing but the clean loss may be left.")
        return right("with a = b = 0 it is ordinary training, and b has the unit dB per nat.")
    for value, message in mistakes.items():
        if abs(got - value) < 1e-6:
            return wrong(message)
    return wrong(f"for losses 3 and 5, KL 0.5, a = 0.2, b = 0.4 the total is 3.6, yours gives {got:.4g}.")


def solution_total(clean_loss, teacher_loss, kl, a, b):
    """L = (1 - a) L_clean + a L_teacher + b L_ATKL."""
    return (1 - a) * clean_loss + a * teacher_loss + b * kl


@grader
def check_freeze(answer) -> Verdict:
    """``answer(teacher)`` makes a network a teacher that training cannot change.

    Mistakes told apart: eval mode forgotten (BatchNorm statistics drift), gradients left on, a network in training mode
    returned as it was.
    """
    if not callable(answer):
        return wrong("give a function freeze(teacher).")
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2))
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    returned = answer(teacher)
    frozen = returned if isinstance(returned, nn.Module) else teacher
    if any(not torch.equal(v, frozen.state_dict()[k]) for k, v in before.items()):
        return wrong("freezing must not change a single weight.")
    gradients = any(p.requires_grad for p in frozen.parameters())
    training = any(m.training for m in frozen.modules())
    if gradients and training:
        return wrong("this network still learns: gradients are on and it is in training mode.")
    if training:
        return wrong("gradients are off, but BatchNorm in training mode follows every batch: call eval().")
    if gradients:
        return wrong("eval mode keeps the statistics, but the weights still ask for gradients: requires_grad_(False).")
    return right("no gradient reaches the weights and no batch reaches the statistics.")


def solution_freeze(teacher: nn.Module) -> nn.Module:
    """Eval mode and no gradients."""
    return teacher.eval().requires_grad_(False)


@grader
def check_rate(answer) -> Verdict:
    """``answer(step, steps, peak, warmup, decay)`` is the learning rate: linear rise, constant, linear fall to 2 %.

    Mistakes told apart: rise that starts at zero, no rise, a fall over the whole run, a fall to zero.
    """
    if not callable(answer):
        return wrong("give a function rate(step, steps, peak, warmup, decay).")
    steps, peak, warmup, decay = 1000, 2.0, 10, 0.3
    given = [number(answer(s, steps, peak, warmup, decay)) for s in range(steps)]
    got = [v for v in given if v is not None]
    if len(got) < steps:
        return wrong("every step must give one number.")
    want = [solution_rate(s, steps, peak, warmup, decay) for s in range(steps)]
    if max(abs(g - w) for g, w in zip(got, want, strict=True)) < 1e-6:
        return right("a run of any length uses the same shape.")
    if got[0] == 0:
        return wrong("step 0 must already learn: the rise is (step + 1) / warmup.")
    if abs(got[0] - peak) < 1e-6:
        return wrong(f"the first steps lack the rise: step 0 should use peak / {warmup}.")
    if abs(got[500] - peak) > 1e-6:
        return wrong("in the middle the rate must be the peak: the fall begins at steps * (1 - decay).")
    if got[-1] > 1.5 * want[-1]:
        return wrong("the last 30 % of the steps must fall linearly, towards (steps - step) / (decay * steps).")
    if got[-1] < want[-1]:
        return wrong("the fall must stop at 2 % of the peak, so that the last steps still learn.")
    return wrong("the corners are right, something between them is not: compare with training.learning_rate.")


def solution_rate(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """peak * min(1, (step + 1) / warmup) * clip((steps - step) / (decay * steps), 0.02, 1)."""
    return peak * min(1.0, (step + 1) / warmup) * max(0.02, min(1.0, (steps - step) / (decay * steps)))


@grader
def check_hours(answer) -> Verdict:
    """Hours of audio that pass through the student in 12,000 steps of 8 mixtures of 3 s.

    Mistakes told apart: the batch forgotten, seconds or minutes given, the segment forgotten.
    """
    got = number(answer)
    if got is None:
        return wrong("give one number, in hours.")
    want = 12_000 * 8 * 3 / 3600
    if abs(got - want) < 0.5:
        return right(f"{want:.0f} h: at 8 s of audio per second of computing, 10 h of waiting.")
    for value, message in (
        (want * 3600, "these are seconds: divide by 3600."),
        (want * 60, "these are minutes: divide by 60."),
        (want / 8, "one step takes a whole batch: multiply by 8."),
        (want / 3, "a mixture lasts 3 s: multiply by it."),
    ):
        if abs(got - value) < max(0.5, 1e-3 * value):
            return wrong(message)
    return wrong("hours = steps * mixtures per step * seconds per mixture / 3600.")


def solution_hours() -> float:
    """steps * batch * segment / 3600."""
    return 12_000 * 8 * 3 / 3600
