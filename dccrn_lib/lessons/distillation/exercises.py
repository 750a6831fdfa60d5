"""Exercises of notebook 05: equal waveform gradients, the distillation step, a cosine rate, and the cost of a run."""

from __future__ import annotations

import copy
import dataclasses
import math
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
def check_choose_a(answer) -> Verdict:
    """``answer(norm_clean, norm_teacher)`` is the a for which both weighted waveform gradients have one norm.

    Mistakes told apart: clean and teacher swapped, a ratio, always one half, squares, right for one pair only.
    """
    if is_unanswered(answer):
        return wrong("there is no answer yet.")
    if not callable(answer):
        return wrong("give a function choose_a(norm_clean, norm_teacher).")
    clean, teacher = 60.0, 20.0
    got = number(answer(clean, teacher))
    if got is None:
        return wrong("the function must return one number.")
    mistakes = {
        teacher
        / (clean + teacher): "clean and teacher are swapped: a weighs the teacher's gradient and 1 - a the clean one, "
        "so the stronger the clean gradient, the larger a.",
        clean
        / teacher: "this is a ratio; a and 1 - a together make 1: solve (1 - a) norm_clean = a norm_teacher for a.",
        teacher
        / clean: "this is a ratio; a and 1 - a together make 1: solve (1 - a) norm_clean = a norm_teacher for a.",
        0.5: "a = 0.5 gives both terms the same weight, and so the stronger gradient still pulls harder.",
        clean**2 / (clean**2 + teacher**2): "norms are asked for, not their squares.",
    }
    if abs(got - solution_choose_a(clean, teacher)) < 1e-6:
        for pair in ((1.0, 4.0), (7.0, 7.0), (0.5, 0.1)):
            other = number(answer(*pair))
            if other is None or abs(other - solution_choose_a(*pair)) > 1e-6:
                return wrong(f"right for norms 60 and 20, but not for {pair[0]:g} and {pair[1]:g}: use both arguments.")
        return right("0.25 * 60 = 0.75 * 20: the smaller gradient gets the larger weight.")
    for value, message in mistakes.items():
        if abs(got - value) < 1e-6:
            return wrong(message)
    return wrong(
        f"for norms 60 and 20 yours gives a = {got:.4g}: the weighted clean gradient then has the norm "
        f"{abs((1 - got) * clean):.4g}, the teacher's {abs(got * teacher):.4g}."
    )


def solution_choose_a(norm_clean: float, norm_teacher: float) -> float:
    """(1 - a) norm_clean = a norm_teacher, solved for a."""
    return norm_clean / (norm_clean + norm_teacher)


@grader
def check_distil_step(answer: Step | None) -> Verdict:
    """``answer(student, teacher, batch, recipe, optimiser)`` does one step and returns its loss.

    Three steps on a miniature pair, against ``distil_step`` of the lesson: same losses, same weights. The teacher comes
    in training mode and asks for gradients. Mistakes told apart: a teacher that is not frozen; a term of the loss that is
    left out or weighted wrongly; the spectral weight left out; gradients that are not cleared, cleared too late, not
    clipped, clipped to another norm than the recipe's, or cut off.
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
        if not _same_statistics(mine, theirs):
            return wrong(
                "the weights are right, but the student's BatchNorm has seen each batch more than once: one forward "
                "pass inside FeatureTap gives its waveform and its features."
            )
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
    return built.Recipe(MyATKL(), a=0.3, b=20.0, spectral_weight=20.0, clip=2.0)


def _run(step: Step, student: nn.Module, teacher: nn.Module, batches: list) -> tuple[list[float], nn.Module]:
    """Losses and student of a few steps under a frozen teacher, on copies."""
    student, teacher = copy.deepcopy(student), built.my_freeze(copy.deepcopy(teacher))
    optimiser = torch.optim.SGD(student.parameters(), RATE)
    losses = [step(student, teacher, batch, _recipe(), optimiser) for batch in batches]
    return [float(loss.detach()) for loss in losses], student


def _same_statistics(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one.buffers(), other.buffers(), strict=True))


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
        bare = built.distil_terms(student, teacher, batch, dataclasses.replace(recipe, spectral_weight=0.0))
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
        float(bare["waveform"]) + b * kl: "the spectral part is left out: my_loss takes recipe.spectral_weight, twice.",
        (1 - a) * to_clean
        + a * float(bare["teacher"])
        + b * kl: "the spectral part is left out against the teacher: my_loss takes recipe.spectral_weight there, too.",
        (1 - a) * float(bare["clean"])
        + a * to_teacher
        + b
        * kl: "the spectral part is left out against clean speech: my_loss takes recipe.spectral_weight there, too.",
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
        f"the gradient is clipped to {_usual_clip():g}, whatever the recipe says: clip it to recipe.clip.": {
            "limit": _usual_clip()
        },
    }
    for message, options in slips.items():
        if _same_weights(mine, _run(_step_with(**options), student, teacher, batches)[1]):
            return message
    return f"the first loss is right, but the weights after {STEPS} steps are not: clear, backward, clip, step."


def _usual_clip() -> float:
    """The norm that the lesson clips to where a recipe names none."""
    return built.Recipe(MyATKL()).clip


def _step_with(clear: bool = True, clip: bool = True, cut: bool = False, limit: float | None = None) -> Step:
    """A step with slips: gradients not cleared, not clipped, clipped to ``limit``, AT-KL cut off from the student."""

    def step(
        student: nn.Module, teacher: nn.Module, batch: tuple, recipe: built.Recipe, optimiser: torch.optim.Optimizer
    ) -> Tensor:
        terms = built.distil_terms(student, teacher, batch, recipe)
        loss = terms["waveform"] + recipe.b * (terms["features"].detach() if cut else terms["features"])
        if clear:
            optimiser.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(student.parameters(), recipe.clip if limit is None else limit)
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
    """``answer(step, steps, peak, warmup, decay)`` is a rate with a linear rise and a fall of half a cosine to 2 %.

    Two settings, in the second of which rise and fall overlap. Mistakes told apart: rise missing or from zero; a fall that
    is linear, a quarter or a whole cosine, over the whole run, to zero, cut off at 2 % or to 2 % one step early; the
    smaller one of rise and fall instead of their product; numbers of one setting written into the function.
    """
    if is_unanswered(answer):
        return wrong("there is no answer yet.")
    if not callable(answer):
        return wrong("give a function rate(step, steps, peak, warmup, decay).")
    plain, overlap = (1000, 2.0, 10, 0.3), (60, 1.0, 40, 0.75)
    for setting in (plain, overlap):
        given = [number(answer(step, *setting)) for step in range(setting[0])]
        got = [value for value in given if value is not None]
        if len(got) < setting[0]:
            return wrong("every step must give one number.")
        if _same(got, [solution_rate(step, *setting) for step in range(setting[0])]):
            continue
        for message, slip in _wrong_rates().items():
            if _same(got, [slip(step, *setting) for step in range(setting[0])]):
                return wrong(message)
        if setting == plain:
            return wrong(_where_the_rate_is_off(got, *setting))
        steps, peak, warmup, decay = overlap
        return wrong(
            f"right for steps = 1000, warmup = 10, decay = 0.3, but not for steps = {steps}, peak = {peak:g}, "
            f"warmup = {warmup}, decay = {decay:g}: take all lengths from the arguments."
        )
    return right("rise and fall come from the arguments, and where they overlap they are multiplied.")


def _same(one: list[float], other: list[float]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-6


def _wrong_rates() -> dict[str, Callable[[int, int, float, int, float], float]]:
    """Message -> a rate with this mistake; the linear fall of the lesson is one of them here."""

    def rise(step: int, warmup: int) -> float:
        return min(1.0, (step + 1) / warmup)

    def done(step: int, steps: int, decay: float) -> float:
        return min(1.0, max(0.0, (step - (1 - decay) * steps) / (decay * steps)))

    def half(q: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * q))

    def to_two_percent(q: float) -> float:
        return 0.02 + 0.98 * half(q)

    return {
        "step 0 must already learn: the rise is (step + 1) / warmup.": lambda k, n, p, w, d: (
            p * min(1.0, k / w) * to_two_percent(done(k, n, d))
        ),
        "the rise is missing: step 0 uses peak / warmup.": lambda k, n, p, w, d: p * to_two_percent(done(k, n, d)),
        "this is the linear fall of section 4: here it is half a cosine.": lambda k, n, p, w, d: (
            p * rise(k, w) * max(0.02, min(1.0, (n - k) / (d * n)))
        ),
        "this is a quarter of a cosine, which ends steeply: the fall is half a cosine, and level at both ends.": (
            lambda k, n, p, w, d: p * rise(k, w) * (0.02 + 0.98 * math.cos(0.5 * math.pi * done(k, n, d)))
        ),
        "this is a whole cosine, which comes back to the peak: half of one falls only.": lambda k, n, p, w, d: (
            p * rise(k, w) * (0.02 + 0.98 * half(2 * done(k, n, d)))
        ),
        "the fall must begin where the last fraction decay of the steps begins, not at step 0.": lambda k, n, p, w, d: (
            p * rise(k, w) * to_two_percent(k / n)
        ),
        "the fall must end at 2 % of the peak, not at 0.": lambda k, n, p, w, d: p * rise(k, w) * half(done(k, n, d)),
        "the half cosine is not cut off at 2 % of the peak, it ends there: shrink it to the way from 1 to 0.02.": (
            lambda k, n, p, w, d: p * rise(k, w) * max(0.02, half(done(k, n, d)))
        ),
        "the fall is missing.": lambda k, n, p, w, d: p * rise(k, w),
        "2 % is reached in step K, one behind the last one: divide by decay * steps.": lambda k, n, p, w, d: (
            p * rise(k, w) * to_two_percent(max(0.0, k - (1 - d) * n) / (d * n - 1))
        ),
        "where rise and fall overlap, they are multiplied: you take the smaller one of the two.": lambda k, n, p, w, d: (
            p * min(rise(k, w), to_two_percent(done(k, n, d)))
        ),
        "during the rise the fall is left out: where they overlap, they are multiplied.": lambda k, n, p, w, d: (
            p * (rise(k, w) if k < w else to_two_percent(done(k, n, d)))
        ),
    }


def _where_the_rate_is_off(got: list[float], steps: int, peak: float, warmup: int, decay: float) -> str:
    """The step with the rate that is farthest off, for answers that no known mistake explains."""
    want = [solution_rate(step, steps, peak, warmup, decay) for step in range(steps)]
    step = max(range(steps), key=lambda k: abs(got[k] - want[k]))
    return (
        f"with steps = {steps}, peak = {peak:g}, warmup = {warmup}, decay = {decay:g} the rate of step {step} "
        f"is {got[step]:.4g}, it should be {want[step]:.4g}."
    )


def solution_rate(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """Linear rise over ``warmup`` steps, times half a cosine from 1 to 0.02 over the last share ``decay``."""
    rise = min(1.0, (step + 1) / warmup)
    done = min(1.0, max(0.0, (step - (1 - decay) * steps) / (decay * steps)))  # of the fall: from 0 to 1
    fall = 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2
    return peak * rise * fall


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
