"""Exercises of notebook 06: gain and sign, an interval over voices, the number of items, and the odds of guessing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dccrn_lib.lessons.grading import Verdict, grader, number, right, wrong

#: Mistakes of a gain: what each gives for (clean, estimate), and what to say of it.
_GAINS: tuple[tuple[Callable[[np.ndarray, np.ndarray], float], str], ...] = (
    (lambda s, e: abs(solution_gain(s, e)), "the sign is lost: an inverted estimate must give a negative gain."),
    (lambda s, e: -solution_gain(s, e), "the sign is turned: an inverted estimate must give a negative gain."),
    (
        lambda s, e: solution_gain(s - s.mean(), e - e.mean()),
        "you removed the means; the gain leaves them in (section 1).",
    ),
    (
        lambda s, e: float(s @ e / (e @ e)),
        "divide by the clean signal's power, not the estimate's: noise would shrink the gain.",
    ),
    (
        lambda s, e: float(np.sqrt((e @ e) / (s @ s))),
        "a ratio of RMS values counts the noise as gain and knows no sign.",
    ),
    (
        lambda s, e: float(s @ e / np.sqrt((s @ s) * (e @ e))),
        "this is the correlation: it does not hear a louder estimate.",
    ),
)


@grader
def check_gain(answer) -> Verdict:
    """``answer(clean, estimate)`` is the least-squares gain of the clean signal in the estimate.

    Mistakes told apart: the sign lost or turned, means removed, estimate's power below the fraction, an RMS ratio, the
    correlation.
    """
    if not callable(answer):
        return wrong("give a function gain(clean, estimate).")
    s, n = np.random.default_rng(0).standard_normal((2, 4000))
    level = s + 0.5  # DC of half the RMS value, so that a removed mean shows
    cases = (
        ("-0.5 clean + 0.5 noise", s, -0.5 * s + 0.5 * n),
        ("2.5 clean + noise - 1, the clean signal with a mean of 0.5", level, 2.5 * level + n - 1.0),
    )
    values = [number(_of_arrays_or_tensors(answer, clean, estimate)) for _, clean, estimate in cases]
    if None in values:
        return wrong("the function must return one number.")
    got = [float(value) for value in values if value is not None]
    if _agree(got, [solution_gain(clean, estimate) for _, clean, estimate in cases]):
        return right("the sign is the polarity, and noise in the estimate does not disturb it much.")
    for mistake, message in _GAINS:
        if _agree(got, [mistake(clean, estimate) for _, clean, estimate in cases]):
            return wrong(message)
    for value, (title, clean, estimate) in zip(got, cases, strict=True):
        want = solution_gain(clean, estimate)
        if abs(value - want) >= 1e-4:
            return wrong(f"for estimate = {title}, the gain is {want:.3f}, yours is {value:.3f}.")
    raise AssertionError("one of the two differs")


def _of_arrays_or_tensors(answer: Callable, *signals: np.ndarray) -> object:
    """The answer for arrays, or for tensors where it is written for those, as the lesson's signals are."""
    try:
        return answer(*signals)
    except (TypeError, AttributeError):
        return answer(*map(torch.from_numpy, signals))


def _agree(got: Sequence[float], wanted: Sequence[float]) -> bool:
    return all(abs(a - b) < 1e-4 for a, b in zip(got, wanted, strict=True))


def solution_gain(clean, estimate) -> float:
    """g = <e, s> / <s, s>."""
    clean, estimate = np.asarray(clean, float), np.asarray(estimate, float)
    return float(clean @ estimate / (clean @ clean))


#: Mixtures of each voice in the two cases of the second exercise.
VOICE_CASES = ((20,) * 6, (5, 40, 20, 10, 30))
_END = 0.05  # tolerance of an end, as a part of the interval's width: 4000 draws move it by about 0.01


def voices_case(counts: Sequence[int], seed: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Differences whose voices matter as much as their mixtures: (mixture,), and the voice of each, shuffled."""
    rng = np.random.default_rng(seed)
    names = [f"voice {k}" for k in range(len(counts))]
    values = np.concatenate([rng.normal(rng.normal(0.3, 1.0), 0.7, count) for count in counts])
    order = rng.permutation(len(values))
    return values[order], np.repeat(names, counts)[order]


@grader
def check_cluster_interval(answer) -> Verdict:
    """``answer(values, voices)`` is the middle 95 % of the mean when voices are drawn, each with all its mixtures.

    All draws of as many voices as there are, are known: the interval that many random draws approach is computed exactly.

    Mistakes told apart: mixtures drawn instead of voices, drawn without replacement, a repeated voice taken once, one
    mixture of each voice, a mean of the voices' means, the middle 90 %.
    """
    if not callable(answer):
        return wrong("give a function cluster_interval(values, voices) that returns (low, high).")
    for counts in VOICE_CASES:
        values, voices = voices_case(counts)
        got = answer(values.copy(), voices.copy())
        got = got.tolist() if isinstance(got, torch.Tensor) else got
        if not isinstance(got, tuple | list | np.ndarray) or len(got) != 2 or any(number(v) is None for v in got):
            return wrong("return two numbers: low, high.")
        low, high = (float(v) for v in got)
        if low > high:
            return wrong("low comes first, then high.")
        if high - low < 1e-9:
            return wrong("the interval has no width: draw WITH replacement, or each draw holds every voice once.")
        known = _voice_intervals(values, voices)
        truth = known.pop("")
        width = truth[1] - truth[0]
        nearest = min({"": truth, **known}.items(), key=lambda item: _distance((low, high), item[1]))
        if _distance((low, high), nearest[1]) < _END * width:
            if nearest[0]:
                return wrong(nearest[0])
            continue
        return wrong(
            f"{len(counts)} voices with {', '.join(map(str, counts))} mixtures: the interval is "
            f"[{truth[0]:.2f}, {truth[1]:.2f}], yours [{low:.2f}, {high:.2f}]. (With fewer than 2000 draws its ends are "
            "left to chance.)"
        )
    return right("the voices count, not their mixtures: a few voices know little, however much each of them speaks.")


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]))


def _voice_intervals(values: np.ndarray, voices: np.ndarray) -> dict[str, tuple[float, float]]:
    """The exact interval (key "") and those of the known mistakes: message -> (low, high)."""
    names = np.unique(voices)
    groups = [values[voices == name] for name in names]
    sums, counts = np.array([g.sum() for g in groups]), np.array([len(g) for g in groups])
    drawn = np.indices((len(names),) * len(names)).reshape(len(names), -1).T  # (draw, place): the voice of each place
    present = np.zeros(drawn.shape, bool)
    np.put_along_axis(present, drawn, True, axis=1)
    rng = np.random.default_rng(0)
    items = values[rng.integers(0, len(values), (8000, len(values)))].mean(axis=1)
    single = np.stack([rng.choice(g, drawn.shape) for g in groups])  # (voice, draw, place): one mixture of each
    mixtures = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    found = {
        "": _middle(mixtures),
        "too narrow: this draws mixtures, but 20 mixtures of one voice are not 20 voices.": _middle(items),
        "a voice that is drawn twice comes with its mixtures twice; a test of membership takes them once.": _middle(
            (present * sums).sum(axis=1) / (present * counts).sum(axis=1)
        ),
        "too wide: take all mixtures of a drawn voice, not one of them.": _middle(
            np.take_along_axis(single, drawn[None], axis=0)[0].mean(axis=1)
        ),
        "this is the middle 90 %: for 95 % the ends are the quantiles 0.025 and 0.975.": _middle(mixtures, 0.05),
    }
    if len(set(counts.tolist())) > 1:  # otherwise it is the same
        means = (sums / counts)[drawn].mean(axis=1)
        found["this is the mean of the voices' means: take the mean of all mixtures that were drawn."] = _middle(means)
    return found


def _middle(means: np.ndarray, below: float = 0.025) -> tuple[float, float]:
    low, high = np.quantile(means, [below, 1 - below])
    return float(low), float(high)


def solution_cluster_interval(values, voices, resamples: int = 4000) -> tuple[float, float]:
    """Voices drawn with replacement, each with all its mixtures; the middle 95 % of the means."""
    groups = [np.asarray(values)[np.asarray(voices) == name] for name in np.unique(voices)]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(groups), (resamples, len(groups)))  # (resample, voice)
    return _middle(np.array([np.concatenate([groups[k] for k in row]).mean() for row in drawn]))


@grader
def check_items(answer) -> Verdict:
    """Mixtures needed for an interval of +-0.05 PESQ when the paired differences have a standard deviation of 0.25.

    Mistakes told apart: no square, the full width taken for the half, 1.96 forgotten, a difference found in four of
    five test sets, rounded down.
    """
    got = number(answer)
    if got is None:
        return wrong("give one number of mixtures.")
    exact = (1.96 * 0.25 / 0.05) ** 2
    if got == math.ceil(exact):
        return right("97 mixtures; half the width would need four times as many.")
    for value, message in (
        (
            (0.25 / 0.05) ** 2,
            "the 1.96 is missing (a 68 % interval), or 0.05 was taken for the full width: solve 1.96 * 0.25 / sqrt(n) "
            "= 0.05.",
        ),
        (((1.96 + 0.84) * 0.25 / 0.05) ** 2, "that is for four of five; the question asks for the half-width."),
        (1.96 * 0.25 / 0.05, "square it: the half-width falls with the square root of n."),
        ((1.96 * 0.25 / 0.025) ** 2, "0.05 is the half-width, not the full width."),
        ((1.96 * 0.25 / 0.1) ** 2, "0.05 is the half-width: the interval is 0.1 wide in all."),
    ):
        if abs(got - value) < 0.01 or got in (math.ceil(value - 1e-9), math.floor(value + 1e-9)):
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

    Mistakes told apart: exactly that many, more than that many, two-sided, a product of halves, ten trials always.
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
    if abs(got - want) < 1e-6:
        for correct, trials in ((5, 5), (9, 12)):
            other, expected = number(answer(correct, trials)), solution_guessing(correct, trials)
            if other is None or abs(other - expected) >= 1e-6:
                return wrong(
                    f"right for 10 trials, but for {correct} of {trials} the probability is {expected:.4f}: take both "
                    "numbers from the arguments."
                )
        return right("8 of 10 is not yet evidence at 5 %; 9 of 10 is.")
    return wrong(f"for 8 of 10 the probability is {want:.4f}, yours is {got:.4f}.")


def solution_guessing(correct: int, trials: int) -> float:
    """sum over k >= correct of C(n, k) / 2^n."""
    return sum(math.comb(trials, k) for k in range(correct, trials + 1)) / 2**trials
