"""Graders of the first lesson, and their solutions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dccrn_lib.lessons.grading import Verdict, close, grader, right, wrong


@grader
def check_snr(answer: Callable[[Tensor, Tensor], float | Tensor | None]) -> Verdict:
    """Grade ``answer(clean, noise)``: signals (sample,) -> SNR in dB over the whole clip."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for gain, rate, offsets in ((0.1, 1, (0.0, 0.0)), (0.5, 2, (0.5, 0.0)), (2.0, 3, (0.0, 0.5))):
        clean, noise = torch.randn(2, 4000 * rate, generator=generator)
        pairs.append((clean + offsets[0], gain * noise + offsets[1]))  # a mean other than 0 is energy, too
    given = [float(value) for s, v in pairs if (value := answer(s.clone(), v.clone())) is not None]
    if len(given) < len(pairs):
        return wrong("the function returns None; it must return a number in dB.")
    truth = [solution_snr(*pair) for pair in pairs]
    mistakes = {
        "that is noise over speech: turn the fraction over.": lambda s, v: -solution_snr(s, v),
        "twice too much: with powers (squares) it is 10 log10; 20 log10 is for amplitudes.": (
            lambda s, v: 2 * solution_snr(s, v)
        ),
        "half of it: 10 log10 wants powers; you gave it amplitudes, so square them.": (
            lambda s, v: solution_snr(s, v) / 2
        ),
        "you removed the mean, as a variance does; the energy is the plain sum of the squares.": (
            lambda s, v: solution_snr(s - s.mean(), v - v.mean())
        ),
        "you removed the mean of the noise, as its variance does; the energy is the plain sum of the squares.": (
            lambda s, v: solution_snr(s, v - v.mean())
        ),
        "you removed the mean of the speech, as its variance does; the energy is the plain sum of the squares.": (
            lambda s, v: solution_snr(s - s.mean(), v)
        ),
        "that is the natural logarithm; decibels use log10.": lambda s, v: solution_snr(s, v) * math.log(10),
        "that compares the speech with the mixture; compare it with the noise alone.": (
            lambda s, v: solution_snr(s, s + v)
        ),
        "that is the ratio itself; decibels are 10 log10 of it.": lambda s, v: 10 ** (solution_snr(s, v) / 10),
        "a gain is missing or the signals are compared sample by sample: sum the squares first, then divide.": (
            lambda s, v: 10 * torch.log10(s.square() / v.square()).mean().item()
        ),
    }
    if close(given, truth, 1e-3, 1e-2):
        return right(f"{len(pairs)} mixtures from {min(truth):.1f} to {max(truth):.1f} dB agree.")
    for message, formula in mistakes.items():
        if close(given, [formula(*pair) for pair in pairs], 1e-3, 1e-2):
            return wrong(message)
    k = next(k for k in range(len(pairs)) if not close(given[k], truth[k], 1e-3, 1e-2))
    return wrong(f"{given[k]:.2f} dB where it must be {truth[k]:.2f} dB: 10 log10 (sum of s^2 / sum of v^2).")


def solution_snr(clean: Tensor, noise: Tensor) -> float:
    """10 log10 (sum s^2 / sum v^2)."""
    return 10 * math.log10(clean.square().sum().item() / noise.square().sum().item())


@grader
def check_gain_floor(answer: Callable[[Tensor, float], Tensor | None]) -> Verdict:
    """Grade ``answer(mask, floor_db)``: a mask in [0, 1] -> one that never lowers a bin by more than the floor."""
    mask = torch.linspace(0, 1, 60).reshape(6, 10)
    given = [value for floor in (-12.0, -30.0) if (value := answer(mask.clone(), floor)) is not None]
    if len(given) < 2:
        return wrong("the function returns None; it must return the mask with its floor.")
    given = [torch.as_tensor(value).to(mask.dtype) for value in given]
    if any(value.shape != mask.shape for value in given):
        return wrong(f"the shape is {tuple(given[0].shape)}, it must stay {tuple(mask.shape)}.")
    truth = [solution_gain_floor(mask, floor) for floor in (-12.0, -30.0)]
    mistakes = {
        "a mask multiplies amplitudes: -12 dB are 10^(-12/20) = 0.25; yours is 10^(-12/10) = 0.06.": (
            lambda m, d: m.clamp(min=10 ** (d / 10))
        ),
        "that is a ceiling: clamp from below, not from above.": lambda m, d: m.clamp(max=10 ** (d / 20)),
        "that adds the floor to every bin; only those below it may rise.": lambda m, d: m + 10 ** (d / 20),
        "that rescales the whole mask; only bins below the floor may change.": (
            lambda m, d: 10 ** (d / 20) + (1 - 10 ** (d / 20)) * m
        ),
        "no bin rises: turn the number of dB into a factor first, 10^(dB / 20), and let no bin lie below it.": (
            lambda m, d: m.clamp(min=d)
        ),
        "the sign: a floor of -12 dB is a factor below one, 10^(-12 / 20).": lambda m, d: m.clamp(min=10 ** (-d / 20)),
        "that closes the bins below the floor; they must rise to it.": (
            lambda m, d: torch.where(m < 10 ** (d / 20), 0.0, m)
        ),
        "the floor is an argument: yours is -12 dB, whatever is asked for.": lambda m, d: solution_gain_floor(m, -12.0),
    }
    if all(torch.allclose(a, b, atol=1e-5) for a, b in zip(given, truth, strict=True)):
        return right("bins above the floor are untouched, the others are lowered by exactly the floor.")
    for message, formula in mistakes.items():
        tries = [formula(mask, floor) for floor in (-12.0, -30.0)]
        if all(torch.allclose(a, b, atol=1e-5) for a, b in zip(given, tries, strict=True)):
            return wrong(message)
    k = next(k for k, (a, b) in enumerate(zip(given, truth, strict=True)) if not torch.allclose(a, b, atol=1e-5))
    floor = (-12, -30)[k]
    return wrong(f"for a mask of 0 and {floor} dB you give {given[k].min():.3f}, it must be {truth[k].min():.3f}.")


def solution_gain_floor(mask: Tensor, floor_db: float) -> Tensor:
    """max(M, 10^(floor / 20))."""
    return mask.clamp(min=10 ** (floor_db / 20))
