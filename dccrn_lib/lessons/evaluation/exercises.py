"""Exercises of notebook 06: gain and sign, a paired interval, the number of items, and the odds of guessing."""

from __future__ import annotations

import math

import numpy as np

from dccrn_lib.lessons.grading import Verdict, grader, number, right, wrong


@grader
def check_gain(answer) -> Verdict:
    """``answer(clean, estimate)`` is the least-squares gain of the clean signal in the estimate.

    Mistakes told apart: the sign lost, estimate's power below the fraction, an RMS ratio, gain of the wrong direction.
    """
    if not callable(answer):
        return wrong("give a function gain(clean, estimate).")
    rng = np.random.default_rng(0)
    s, n = rng.standard_normal((2, 4000))
    e = -0.5 * s + 0.5 * n
    got = number(answer(s, e))
    if got is None:
        return wrong("the function must return one number.")
    want = float(s @ e / (s @ s))
    if abs(got - want) < 1e-4:
        return right("the sign is the polarity, and noise in the estimate does not disturb it much.")
    for value, message in (
        (-want, "the sign is lost or turned: an inverted estimate must give a negative gain."),
        (
            float(s @ e / (e @ e)),
            "divide by the clean signal's power, not the estimate's: noise would shrink the gain.",
        ),
        (float(np.sqrt((e @ e) / (s @ s))), "a ratio of RMS values counts the noise as gain and knows no sign."),
        (float(s @ e / np.sqrt((s @ s) * (e @ e))), "this is the correlation: it does not hear a louder estimate."),
    ):
        if abs(got - value) < 1e-4:
            return wrong(message)
    return wrong(f"for estimate = -0.5 clean + 0.5 noise the gain is {want:.3f}, yours is {got:.3f}.")


def solution_gain(clean, estimate) -> float:
    """g = <e, s> / <s, s>."""
    clean, estimate = np.asarray(clean, float), np.asarray(estimate, float)
    return float(clean @ estimate / (clean @ clean))


@grader
def check_paired_interval(answer) -> Verdict:
    """``answer(a, b)`` is (mean, low, high) of a - b by pairs, with 1.96 standard errors to either side.

    Mistakes told apart: unpaired, no square root of n, b - a, one standard error.
    """
    if not callable(answer):
        return wrong("give a function interval(a, b) that returns (mean, low, high).")
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 2, 50)
    a, b = hard + rng.normal(0.3, 0.2, 50), hard + rng.normal(0, 0.2, 50)
    got = answer(a, b)
    if not isinstance(got, tuple | list | np.ndarray) or len(got) != 3 or any(number(v) is None for v in got):
        return wrong("return three numbers: mean, low, high.")
    mean, low, high = (float(v) for v in got)
    d = a - b
    half, n = (high - low) / 2, len(d)
    se = float(d.std(ddof=1) / math.sqrt(n))
    if abs(mean + d.mean()) < 1e-6:
        return wrong("this is b - a: positive must mean that a is better.")
    if abs(mean - d.mean()) > 1e-6:
        return wrong(f"the mean difference is {d.mean():.3f}, yours is {mean:.3f}.")
    if abs((low + high) / 2 - mean) > 1e-6:
        return wrong("the interval must be centred on the mean difference.")
    if abs(half / (1.96 * se) - 1) < 0.03:
        return right("the difficulty that both systems share has dropped out.")
    unpaired = math.sqrt(a.var(ddof=1) / n + b.var(ddof=1) / n)
    for value, message in (
        (1.96 * unpaired, "this is the unpaired interval: take the spread of the differences, not of the two lists."),
        (
            1.96 * se * math.sqrt(n),
            "divide the standard deviation by sqrt(n): the interval is the mean's, not one item's.",
        ),
        (se, "one standard error covers 68 %: take 1.96 of them."),
        (1.96 * se / math.sqrt(n), "divide by sqrt(n) once: by n, the interval shrinks too fast."),
    ):
        if abs(half / value - 1) < 0.03:
            return wrong(message)
    return wrong(f"the half-width should be 1.96 * sd(a - b) / sqrt(n) = {1.96 * se:.3f}, yours is {half:.3f}.")


def solution_paired_interval(a, b) -> tuple[float, float, float]:
    """mean -+ 1.96 sd(d) / sqrt(n), d = a - b."""
    d = np.asarray(a, float) - np.asarray(b, float)
    half = 1.96 * d.std(ddof=1) / math.sqrt(len(d))
    return float(d.mean()), float(d.mean() - half), float(d.mean() + half)


@grader
def check_items(answer) -> Verdict:
    """Mixtures needed for an interval of +-0.05 PESQ when the paired differences have a standard deviation of 0.25.

    Mistakes told apart: no square, the full width taken for the half, 1.96 forgotten, rounded down.
    """
    got = number(answer)
    if got is None:
        return wrong("give one number of mixtures.")
    exact = (1.96 * 0.25 / 0.05) ** 2
    if got == math.ceil(exact):
        return right("97 mixtures; half the width would need four times as many.")
    for value, message in (
        (1.96 * 0.25 / 0.05, "square it: the half-width falls with the square root of n."),
        ((1.96 * 0.25 / 0.025) ** 2, "0.05 is the half-width, not the full width."),
        ((1.96 * 0.25 / 0.1) ** 2, "0.05 is the half-width: the interval is 0.1 wide in all."),
        ((0.25 / 0.05) ** 2, "the 1.96 is missing: this n gives a 68 % interval."),
    ):
        if abs(got - value) <= 1:
            return wrong(message)
    if abs(got - exact) < 1.5:
        return wrong("round up: fewer mixtures give a wider interval than asked for.")
    return wrong("solve 1.96 * 0.25 / sqrt(n) = 0.05 for n.")


def solution_items() -> int:
    """n = (1.96 sd / h)^2, rounded up."""
    return math.ceil((1.96 * 0.25 / 0.05) ** 2)


@grader
def check_guessing(answer) -> Verdict:
    """``answer(correct, trials)`` is the probability of at least that many right answers by guessing.

    Mistakes told apart: exactly that many, more than that many, two-sided, a product of halves.
    """
    if not callable(answer):
        return wrong("give a function p(correct, trials).")
    got, want = number(answer(8, 10)), 56 / 1024
    if got is None:
        return wrong("the function must return one number.")
    for value, message in (
        (45 / 1024, "this is exactly 8 of 10: add the chances of 9 and 10, which would impress as well."),
        (11 / 1024, "this is more than 8: 8 itself belongs to it."),
        (2 * want, "only being right counts as hearing: one side, not two."),
        (0.5**8, "this is 8 right in a row: the 8 may fall anywhere among the 10."),
        (1 - want, "this is the chance to do worse: take the other tail."),
    ):
        if abs(got - value) < 1e-6:
            return wrong(message)
    if abs(got - want) < 1e-6 and abs((number(answer(5, 5)) or 0) - 1 / 32) < 1e-6:
        return right("8 of 10 is not yet evidence at 5 %; 9 of 10 is.")
    return wrong(f"for 8 of 10 the probability is {want:.4f}, yours is {got:.4f}.")


def solution_guessing(correct: int, trials: int) -> float:
    """sum over k >= correct of C(n, k) / 2^n."""
    return sum(math.comb(trials, k) for k in range(correct, trials + 1)) / 2**trials
