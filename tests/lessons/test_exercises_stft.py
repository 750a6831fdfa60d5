"""Graders of the lesson on the complex STFT: solutions pass, typical mistakes get their own message."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from dccrn_lib.lessons.stft import exercises

WINDOW = torch.hann_window(400)


def _inverse(spectrum, length, synthesis=True, power=2, start=300, divide=True):
    frames = torch.fft.irfft(spectrum.T, n=512)[:, :400]
    total = (len(frames) - 1) * 100 + 400
    signal, weight = torch.zeros(total), torch.zeros(total)
    for k, frame in enumerate(frames):
        signal[k * 100 : k * 100 + 400] += frame * WINDOW if synthesis else frame
        weight[k * 100 : k * 100 + 400] += WINDOW**power
    return (signal / weight.clamp_min(1e-6) if divide else signal)[start : start + length]


def _raw_turn(first, second):
    return float(second.angle() - first.angle()) / (2 * math.pi)


def _spoiled(S, Y):
    Y.copy_(S)
    return torch.ones(S.shape)


def _one_frame_each(spectrum, length):
    """Every sample from the frame in which its window is largest: no sum at all."""
    frames = torch.fft.irfft(spectrum.T, n=512)[:, :400]
    place = torch.arange(length) + 300
    k = torch.div(place - 150, 100, rounding_mode="floor")  # the frame whose middle hop holds the sample
    return frames[k, place - 100 * k] / WINDOW[place - 100 * k]


class _Table:
    """A tone for each bin, learnt from what the check asked in an earlier call."""

    def __init__(self):
        self.known = {}

    def __call__(self, first, second, bin):
        return self.known.setdefault(bin, exercises.solution_tone_frequency(first, second, bin))


class _Once:
    """An inverse that answers only once."""

    asked = False

    def __call__(self, spectrum, length):
        first, self.asked = not self.asked, True
        return exercises.solution_inverse(spectrum, length) if first else None


def _doubled(function):
    """The same answer in float64."""
    return lambda *inputs: function(*inputs).double()


SOLUTIONS = [
    (exercises.check_frame_count, exercises.solution_frame_count),
    (exercises.check_frame_count, lambda n, w, h: np.int64(exercises.solution_frame_count(n, w, h))),
    (exercises.check_inverse, exercises.solution_inverse),
    (exercises.check_phase_sensitive_mask, exercises.solution_phase_sensitive_mask),
    (exercises.check_tone_frequency, exercises.solution_tone_frequency),
]
WRONG = [
    (exercises.check_frame_count, lambda n, w, h: None, "returns None"),
    (exercises.check_frame_count, lambda n, w, h: (n - 1 + w - h) / h + 1, "use //"),
    (exercises.check_frame_count, lambda n, w, h: (n - w) // h + 1, "wholly inside"),
    (exercises.check_frame_count, lambda n, w, h: (n - 1) // h + 1, "padding on the left"),
    (exercises.check_frame_count, lambda n, w, h: (n + w - h) // h + 1, "one frame too many"),
    (exercises.check_frame_count, lambda n, w, h: (n - 1 + w - h) // h, "one frame too few"),
    (exercises.check_frame_count, lambda n, w, h: 7, "for 1 samples, window 400 and hop 100 you give 7 frames"),
    (exercises.check_inverse, lambda X, n: None, "returns None"),
    (exercises.check_inverse, lambda X, n: _inverse(X, n)[:-1], "cut to `length`"),
    (exercises.check_inverse, lambda X, n: _inverse(X, n, divide=False), "1.50 times too large"),
    (exercises.check_inverse, lambda X, n: 0.75 * _inverse(X, n), "0.75 times as large"),
    (exercises.check_inverse, lambda X, n: _inverse(X, n, power=1), "divide by its square"),
    (exercises.check_inverse, lambda X, n: _inverse(X, n, synthesis=False), "window them again"),
    (exercises.check_inverse, lambda X, n: _inverse(X, n, synthesis=False, divide=False), "2.00 times too large"),
    (exercises.check_inverse, lambda X, n: _inverse(X, n, start=0), "300 samples late"),
    (
        exercises.check_inverse,
        lambda X, n: _inverse(X, n, synthesis=False, power=1),
        "after a mask it is 1[0-9] % off the least-squares fit",
    ),
    (exercises.check_inverse, _one_frame_each, "after a mask it is .* off the least-squares fit"),
    (exercises.check_inverse, _Once(), "something of another shape"),
    (exercises.check_inverse, lambda X, n: torch.zeros(n), "no scaled copy|gain of 0.000"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: None, "returns None"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: S / Y, "mask is real"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (S / Y).real[1:], "shape"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (S / Y).real.clamp(0, 1), "guard the division"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (S.abs() / Y.abs().clamp_min(1e-9)).clamp(0, 1), "cosine"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (S / (Y + 1e-12)).real, "leave \\[0, 1\\]"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (S / (Y + 1e-12)).real.clamp(max=1), "below 0"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (S / (Y + 1e-12)).real.abs().clamp(0, 1), "absolute value"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (S / (Y + 1e-12)).imag.clamp(0, 1), "sine"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: (Y / (S + 1e-12)).real.clamp(0, 1), "swapped"),
    (exercises.check_phase_sensitive_mask, lambda S, Y: torch.full(S.shape, 0.5), "% of the bins"),
    (exercises.check_phase_sensitive_mask, _spoiled, "% of the bins"),
    (exercises.check_tone_frequency, lambda a, b, f: None, "returns None"),
    (exercises.check_tone_frequency, _Table(), "comes out as"),
    (exercises.check_tone_frequency, lambda a, b, f: f * 31.25, "centre of the bin"),
    (
        exercises.check_tone_frequency,
        lambda a, b, f: exercises.solution_tone_frequency(a, b, f) - f * 31.25,
        "add the centre",
    ),
    (exercises.check_tone_frequency, lambda a, b, f: _raw_turn(a, b) * 160, "whole turns only"),
    (
        exercises.check_tone_frequency,
        lambda a, b, f: exercises.solution_tone_frequency(a, b, f) + 160,
        "off by whole turns",
    ),
    (exercises.check_tone_frequency, lambda a, b, f: 1000.0, "comes out as 1000.0 Hz"),
    (
        exercises.check_phase_sensitive_mask,
        lambda S, Y: torch.nan_to_num((S / Y).real.clamp(0, 1), nan=-7.0),
        "on silence the mask is -7",
    ),
]


@pytest.mark.parametrize(("check", "solution"), SOLUTIONS)
def test_solutions_are_right(check, solution):
    verdict = check(solution)
    assert verdict, verdict.message
    assert repr(verdict).startswith("Right: ")


@pytest.mark.parametrize(("check", "answer", "message"), WRONG)
def test_mistakes_are_recognised(check, answer, message):
    verdict = check(answer)
    assert not verdict
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.parametrize(
    ("check", "solution"),
    [
        (exercises.check_inverse, exercises.solution_inverse),
        (exercises.check_phase_sensitive_mask, exercises.solution_phase_sensitive_mask),
    ],
)
def test_doubles_are_no_slip(check, solution):
    assert check(_doubled(solution)), check(_doubled(solution))
