"""Exercises of notebook 05: the total loss, the distillation step, the learning rate, and the cost of a run."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dccrn_lib.distillation import FeatureTap
from dccrn_lib.lessons.built import distillation as built
from dccrn_lib.lessons.built.attention_transfer import MyATKL
from dccrn_lib.lessons.grading import Verdict, grader, is_unanswered, number, right, wrong
from dccrn_lib.networks import build_model

STEPS, RATE = 3, 0.02  # of the exercise on the step; plain gradient descent, which lets no rounding grow as Adam does
Step = Callable[[nn.Module, nn.Module, tuple, built.Recipe, torch.optim.Optimizer], Tensor]


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
def check_distil_step(answer: Step | None) -> Verdict:
    """``answer(student, teacher, batch, recipe, optimiser)`` does one step and returns its loss.

    Three steps on a miniature pair, against ``distil_step`` of the lesson: same losses, same weights. The teacher comes
    in training mode and asks for gradients. Mistakes told apart: a teacher that is not frozen; a term of the loss that is
    left out or weighted wrongly; gradients that are not cleared, cleared too late, not clipped or cut off.
    """
    if is_unanswered(answer):
        return wrong("there is no answer yet.")
    if not callable(answer):
        return wrong("give a function step(student, teacher, batch, recipe, optimiser).")
    student, teacher, batches = _miniature_pair()
    mine, taught_by = copy.deepcopy(student), copy.deepcopy(teacher)
    optimiser, losses = torch.optim.SGD(mine.parameters(), RATE), []
    for batch in batches:
        given = tuple(part.clone() for part in batch)
        loss = answer(mine, taught_by, given, _recipe(), optimiser)
        if any(not torch.equal(a, b) for a, b in zip(given, batch, strict=True)):
            return wrong("the step has changed its batch: make new tensors, another step may use the old ones.")
        if is_unanswered(loss):
            return wrong("the function returns nothing yet; it returns the loss of the step.")
        value = number(loss.detach() if isinstance(loss, Tensor) else loss)
        if value is None:
            return wrong("the function must return one finite number, the loss of the step.")
        losses.append(value)
    if (verdict := _teacher_has_changed(taught_by, teacher)) is not None:
        return verdict
    if any(not module.training for module in mine.modules()):
        return wrong("the student was put into eval mode: it learns, so it stays in training mode.")
    if (verdict := _wrong_first_loss(losses[0], student, built.my_freeze(teacher), batches[0])) is not None:
        return verdict
    wanted, theirs = _run(_lesson_step, student, teacher, batches)
    if _same_weights(mine, theirs):
        if max(abs(a - b) for a, b in zip(losses, wanted, strict=True)) > 1e-3:
            return wrong("the weights are right and the losses are not: return the loss that was made before the step.")
        return right(f"{STEPS} steps, the losses and all weights of the lesson's step, and the teacher has not moved.")
    return wrong(_wrong_weights(mine, student, teacher, batches))


def _miniature_pair() -> tuple[nn.Module, nn.Module, list[tuple[Tensor, Tensor]]]:
    """(student, teacher, batches), always the same; the teacher in training mode with gradients on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student, teacher = build_model("distil_dccrn_mini").train(), build_model("uformer_mini").train()
        clean = 0.1 * torch.randn(STEPS, 2, 1600)
        noisy = clean + 0.05 * torch.randn(STEPS, 2, 1600)
    return student, teacher, list(zip(noisy, clean, strict=True))


def _recipe() -> built.Recipe:
    return built.Recipe(MyATKL(), a=0.3, b=20.0, clip=5.0)


def _run(step: Step, student: nn.Module, teacher: nn.Module, batches: list) -> tuple[list[float], nn.Module]:
    """Losses and student of a few steps under a frozen teacher, on copies."""
    student, teacher = copy.deepcopy(student), built.my_freeze(copy.deepcopy(teacher))
    optimiser = torch.optim.SGD(student.parameters(), RATE)
    losses = [step(student, teacher, batch, _recipe(), optimiser) for batch in batches]
    return [float(loss.detach()) for loss in losses], student


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def _lesson_step(
    student: nn.Module, teacher: nn.Module, batch: tuple, recipe: built.Recipe, optimiser: torch.optim.Optimizer
) -> Tensor:
    """The lesson's own step, which also moves an average; here a copy takes its place."""
    terms = built.distil_step(student, teacher, batch, recipe, optimiser, copy.deepcopy(student), 0)
    return terms["waveform"] + recipe.b * terms["features"]


def _teacher_has_changed(teacher: nn.Module, before: nn.Module) -> Verdict | None:
    if any(not torch.equal(a, b) for a, b in zip(teacher.parameters(), before.parameters(), strict=True)):
        return wrong("the teacher's weights have moved: only the student's belong to the optimiser.")
    moved = any(not torch.equal(a, b) for a, b in zip(teacher.buffers(), before.buffers(), strict=True))
    reached = any(p.grad is not None for p in teacher.parameters())
    if moved and reached:
        return wrong("the teacher is not frozen: it ran in training mode, and a gradient reached its weights.")
    if moved:
        return wrong(
            "the teacher ran in training mode, and its BatchNorm statistics have followed the batches: eval()."
        )
    if reached:
        return wrong(
            "a gradient reached the teacher's weights: run it below torch.no_grad(), or requires_grad_(False)."
        )
    return None


def _wrong_first_loss(loss: float, student: nn.Module, teacher: nn.Module, batch: tuple) -> Verdict | None:
    """What the loss of the first step tells; None where it is right."""
    student, recipe = copy.deepcopy(student), _recipe()
    a, b = recipe.a, recipe.b
    with torch.no_grad(), FeatureTap(student) as own, FeatureTap(teacher) as shown:
        terms = {name: float(value) for name, value in built.distil_terms(student, teacher, batch, recipe).items()}
        turned = float(recipe.at_kl(shown.features, own.features)[0])
    wave, kl, to_clean, to_teacher = (terms[name] for name in ("waveform", "features", "clean", "teacher"))
    if abs(loss - (wave + b * kl)) < 1e-3:
        return None
    mistakes = {
        wave: "the AT-KL term is left out of the loss: add recipe.b times it.",
        wave + kl: "the AT-KL term lacks its weight recipe.b.",
        wave - b * kl: "the AT-KL term is a distance to be made small: add it.",
        to_clean + b * kl: "the output term is left out: recipe.a weighs the loss against the teacher's waveform.",
        (1 - a) * to_clean
        + b * kl: "the output term is left out: recipe.a weighs the loss against the teacher's waveform.",
        to_teacher + b * kl: "the clean target is left out: its weight is 1 - recipe.a.",
        a * to_teacher + b * kl: "the clean target is left out: its weight is 1 - recipe.a.",
        a * to_clean
        + (1 - a) * to_teacher
        + b * kl: "recipe.a and 1 - recipe.a are swapped: a belongs to the teacher.",
        to_clean + a * to_teacher + b * kl: "the clean term needs its weight 1 - recipe.a.",
        wave + b * turned: "recipe.at_kl takes the features of the student first, then those of the teacher.",
        to_clean: "this is a training without a teacher: the output term and the AT-KL term are left out.",
        b * kl: "only the AT-KL term is there: both waveform terms are left out.",
    }
    for value, message in mistakes.items():
        if abs(loss - value) < 1e-3:
            return wrong(message)
    told = f"the first loss is {loss:.4g}, it should be {wave + b * kl:.4g}: "
    return wrong(told + f"{to_clean:.4g} against clean, {to_teacher:.4g} against the teacher, AT-KL {kl:.4g} nat.")


def _wrong_weights(mine: nn.Module, student: nn.Module, teacher: nn.Module, batches: list) -> str:
    """What the weights after the steps tell, where the first loss was right."""
    if _same_weights(mine, student):
        return "the student does not move: optimiser.zero_grad(), then loss.backward(), then optimiser.step()."
    slips = {
        "the gradients of earlier steps are still there: optimiser.zero_grad() before loss.backward().": {
            "clear": False
        },
        "the gradient is not clipped: clip_grad_norm_ to recipe.clip between backward and the step.": {"clip": False},
        "the AT-KL term counts in the loss, but its gradient does not reach the student: detach the teacher's features, "
        "not the student's.": {"cut": True},
        "the gradients are neither cleared before backward nor clipped after it.": {"clear": False, "clip": False},
    }
    for message, options in slips.items():
        if _same_weights(mine, _run(_step_with(**options), student, teacher, batches)[1]):
            return message
    return f"the first loss is right, but the weights after {STEPS} steps are not: clear, backward, clip, step."


def _step_with(clear: bool = True, clip: bool = True, cut: bool = False) -> Step:
    """A step with slips: gradients not cleared, not clipped, AT-KL cut off from the student."""

    def step(
        student: nn.Module, teacher: nn.Module, batch: tuple, recipe: built.Recipe, optimiser: torch.optim.Optimizer
    ) -> Tensor:
        terms = built.distil_terms(student, teacher, batch, recipe)
        loss = terms["waveform"] + recipe.b * (terms["features"].detach() if cut else terms["features"])
        if clear:
            optimiser.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(student.parameters(), recipe.clip)
        optimiser.step()
        return loss

    return step


def solution_distil_step(
    student: nn.Module, teacher: nn.Module, batch: tuple, recipe: built.Recipe, optimiser: torch.optim.Optimizer
) -> Tensor:
    """Frozen teacher, both taps, three terms; clear, backward, clip, step."""
    noisy, clean = batch
    teacher.eval().requires_grad_(False)
    with torch.no_grad(), FeatureTap(teacher) as shown:
        target = teacher(noisy)
    with FeatureTap(student) as own:
        estimate = student(noisy)
    kl, _ = recipe.at_kl(own.features, shown.features)
    loss = (1 - recipe.a) * built.my_loss(estimate, clean, recipe.spectral_weight)
    loss = loss + recipe.a * built.my_loss(estimate, target, recipe.spectral_weight) + recipe.b * kl
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), recipe.clip)
    optimiser.step()
    return loss


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
