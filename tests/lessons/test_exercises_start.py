"""Graders of the first lesson: solutions pass, typical mistakes get their own message."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from dccrn_lib.lessons.start import exercises


def power(x):
    return x.square().sum()


SNR_WRONG = [
    (lambda s, v: None, "returns None"),
    (lambda s, v: 10 * torch.log10(power(v) / power(s)), "noise over speech"),
    (lambda s, v: 20 * torch.log10(power(s) / power(v)), "twice too much"),
    (lambda s, v: 10 * torch.log10(s.norm() / v.norm()), "half of it"),
    (lambda s, v: 10 * math.log(power(s) / power(v)), "natural logarithm"),
    (lambda s, v: 10 * torch.log10(power(s) / power(s + v)), "with the mixture"),
    (lambda s, v: power(s) / power(v), "ratio itself"),
    (lambda s, v: (10 * torch.log10(s**2 / v**2)).mean(), "sample by sample"),
    (lambda s, v: 10 * torch.log10(s.var() / v.var()), "removed the mean"),
    (lambda s, v: 20 * torch.log10(s.std() / v.std()), "removed the mean"),
    (lambda s, v: 10 * torch.log10(s.square().mean() / v.var()), "mean of the noise"),
    (lambda s, v: 10 * torch.log10(s.var() / v.square().mean()), "mean of the speech"),
    (lambda s, v: float(power(s.copy_(v)) * 0), "0.00 dB where it must be 19.81"),
    (lambda s, v: 3.0, "3.00 dB where it must be"),
]
FLOOR_WRONG = [
    (lambda m, d: None, "returns None"),
    (lambda m, d: m[0], "the shape is"),
    (lambda m, d: m.clamp(min=10 ** (d / 10)), "multiplies amplitudes"),
    (lambda m, d: m.clamp(max=10 ** (d / 20)), "ceiling"),
    (lambda m, d: m + 10 ** (d / 20), "adds the floor"),
    (lambda m, d: m * (1 - 10 ** (d / 20)) + 10 ** (d / 20), "rescales"),
    (lambda m, d: m.clamp(min=d), "no bin rises"),
    (lambda m, d: m.clamp(min=10 ** (-12 / 20)), "floor is an argument"),
    (lambda m, d: m.clamp(min=10 ** (-d / 20)), "the sign"),
    (lambda m, d: m * (m >= 10 ** (d / 20)), "they must rise"),
    (lambda m, d: m * 0.5, "must be 0.251"),
    (lambda m, d: m.fill_(1.0), "you give 1.000, it must be 0.251"),
    (lambda m, d: m.clamp_(min=0.5), "you give 0.500, it must be 0.251"),
]


@pytest.mark.parametrize(
    ("check", "solution"),
    [(exercises.check_snr, exercises.solution_snr), (exercises.check_gain_floor, exercises.solution_gain_floor)],
)
def test_solutions_are_right(check, solution):
    verdict = check(solution)
    assert verdict, verdict.message


@pytest.mark.parametrize(
    ("check", "answer", "message"),
    [(exercises.check_snr, *case) for case in SNR_WRONG]
    + [(exercises.check_gain_floor, *case) for case in FLOOR_WRONG],
)
def test_mistakes_are_recognised(check, answer, message):
    verdict = check(answer)
    assert not verdict
    assert re.search(message, verdict.message), verdict.message


def test_a_floor_by_numpy_is_a_floor():
    floor = lambda m, d: torch.from_numpy(np.maximum(m.numpy(), np.power(10.0, d / 20)))  # noqa: E731
    assert exercises.check_gain_floor(floor)


def test_a_floor_in_place_is_a_floor():
    assert exercises.check_gain_floor(lambda m, d: m.clamp_(min=10 ** (d / 20)))
