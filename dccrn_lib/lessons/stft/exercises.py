"""Graders of the lesson on the complex STFT, and their solutions."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import torch
from torch import Tensor

from dccrn_lib.audio.stft import ComplexSTFT
from dccrn_lib.lessons.grading import Verdict, grader, right, wrong

_CASES = [(n, w, h) for w, h in ((400, 100), (400, 160), (512, 128)) for n in (1, 99, 100, 101, 400, 16000, 16001)]


@grader
def check_frame_count(answer: Callable[[int, int, int], int | None]) -> Verdict:
    """Grade ``answer(samples, window_length, hop_length)``: the number of frames of our padding rule."""
    given = [answer(*case) for case in _CASES]
    if any(value is None for value in given):
        return wrong("the function returns None; write the formula behind `return`.")
    if any(not isinstance(value, numbers.Integral) for value in given):
        return wrong(f"a number of frames is an int, yours is a {type(given[0]).__name__}: use //, not /.")
    mistakes = {
        "that counts only the frames that lie wholly inside the signal, as without padding: the edges are lost.": (
            lambda n, w, h: (n - w) // h + 1
        ),
        "that lets frames start at every hop up to the end, but the last samples must lie in all frames that can hold "
        "them: the padding on the left moves the last frame's index up.": lambda n, w, h: (n - 1) // h + 1,
        "one frame too many when the length is a multiple of the hop: the last sample has the index samples - 1.": (
            lambda n, w, h: (n + w - h) // h + 1
        ),
        "one frame too few: frames are counted from k = 0.": lambda n, w, h: (n - 1 + w - h) // h,
    }
    truth = [solution_frame_count(*case) for case in _CASES]
    if given == truth:
        return right(f"{len(_CASES)} cases agree, from 1 sample to 16,001, for three pairs of window and hop.")
    for message, formula in mistakes.items():
        if given == [formula(*case) for case in _CASES]:
            return wrong(message)
    i = next(i for i, (a, b) in enumerate(zip(given, truth, strict=True)) if a != b)
    n, w, h = _CASES[i]
    return wrong(f"for {n} samples, window {w} and hop {h} you give {given[i]} frames, it must be {truth[i]}.")


def solution_frame_count(samples: int, window_length: int, hop_length: int) -> int:
    """The last sample, samples - 1, lies last in frame (samples - 1 + window - hop) // hop."""
    return (samples - 1 + window_length - hop_length) // hop_length + 1


@grader
def check_inverse(answer: Callable[[Tensor, int], Tensor | None]) -> Verdict:
    """Grade ``answer(spectrum, length)``: complex (freq, frame) of window 400, hop 100, FFT 512 -> (sample,)."""
    stft = ComplexSTFT()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2345, generator=generator)
    y = answer(stft(x[None])[0], len(x))
    if y is None:
        return wrong("the function returns None; it must return the signal, shape (sample,).")
    if tuple(y.shape) != tuple(x.shape):
        return wrong(f"the shape is {tuple(y.shape)}, it must be (sample,) = ({len(x)},): cut to `length` samples.")
    y = y.to(x.dtype)
    if torch.allclose(y, x, atol=1e-4):
        return _inverse_of_no_spectrum(answer, stft(x[None])[0], f"largest error {(y - x).abs().max():.0e}")
    left = stft.config.window_length - stft.config.hop_length
    if torch.dot(y[left:], x[:-left]) / x[:-left].square().sum() > 0.5:
        return wrong(f"the signal comes {left} samples late: cut the {left} samples of padding on the left.")
    gain = float(torch.dot(y, x) / torch.dot(x, x))
    if not torch.allclose(y, gain * x, atol=1e-3):
        return wrong("that is no scaled copy of the signal; compare the first frame's place and the cut after irfft.")
    reasons = {
        1.5: "you add the windowed frames but do not divide by the overlap-added squared window.",
        0.75: "you divide by the overlap-added window; it was applied twice, so divide by its square.",
        4 / 3: "you divide by the squared window, but the frames were windowed once only: window them again.",
        2.0: "you add the frames as they are: window them again and divide by the overlap-added squared window.",
    }
    for value, reason in reasons.items():
        if math.isclose(gain, value, rel_tol=0.01):
            return wrong(f"the signal is right but {gain:.2f} times {'too' if gain > 1 else 'as'} large: {reason}")
    return wrong(
        f"the signal is right up to a gain of {gain:.3f}; which windows do you multiply, by what do you divide?"
    )


def _inverse_of_no_spectrum(answer: Callable[[Tensor, int], Tensor | None], spectrum: Tensor, exact: str) -> Verdict:
    """The second question: behind a mask the frames contradict each other, and only one inverse is the best fit."""
    masked, length = spectrum * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(1)), 2345
    wanted, y = solution_inverse(masked, length), answer(masked.clone(), length)
    if y is None or y.shape != wanted.shape:
        return wrong("right for the spectrum of a signal, but for a masked one it returns something of another shape.")
    y = y.to(wanted.dtype)
    if torch.allclose(y, wanted, atol=1e-4):
        return right(f"{exact} over {length} samples, and the least-squares fit of a spectrum that a mask has changed.")
    off = float((y - wanted).norm() / wanted.norm())
    return wrong(
        f"exact on an unchanged spectrum, but after a mask it is {100 * off:.0f} % off the least-squares fit: window the "
        "frames again, and divide by the overlap-added squared window."
    )


def solution_inverse(spectrum: Tensor, length: int) -> Tensor:
    """Frames back, windowed again, overlap-added, divided by the overlap-added squared window, cut."""
    window = torch.hann_window(400)
    frames = torch.fft.irfft(spectrum.T, n=512)[:, :400] * window  # (frame, window)
    total = (len(frames) - 1) * 100 + 400
    signal, weight = torch.zeros(total), torch.zeros(total)
    for k, frame in enumerate(frames):
        signal[k * 100 : k * 100 + 400] += frame
        weight[k * 100 : k * 100 + 400] += window**2
    return signal[300 : 300 + length] / weight[300 : 300 + length]


@grader
def check_phase_sensitive_mask(answer: Callable[[Tensor, Tensor], Tensor | None]) -> Verdict:
    """Grade ``answer(clean, noisy)``: complex spectra (freq, frame) -> the best real mask in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(9, 40, dtype=torch.complex64, generator=generator) for _ in range(2))
    clean[0], noise[0] = 0, 0  # silence: the mixture is exactly zero there
    noisy = clean + noise
    mask = answer(clean.clone(), noisy.clone())
    if mask is None:
        return wrong("the function returns None; it must return a mask of the spectra's shape.")
    if mask.is_complex():
        return wrong("a phase-sensitive mask is real: take the real part, |S|/|Y| times the cosine of the angle.")
    if mask.shape != clean.shape:
        return wrong(f"the shape is {tuple(mask.shape)}, it must be that of the spectra, {tuple(clean.shape)}.")
    if not torch.isfinite(mask).all():
        return wrong("NaN or infinity where the mixture is exactly zero: guard the division.")
    if not ((mask[0] >= 0) & (mask[0] <= 1)).all():
        return wrong(f"on silence the mask is {float(mask[0, 0]):g}, outside [0, 1]: clip after the guard, not before.")
    truth = solution_phase_sensitive_mask(clean, noisy)[1:]
    mask = mask[1:].to(truth.dtype)
    free = (clean / noisy)[1:]
    candidates = {
        "that is |S|/|Y|, the magnitude ratio: the cosine of the angle between speech and mixture is missing.": (
            free.abs(),
            free.abs().clamp(0, 1),
        ),
        "the values leave [0, 1]: clip them, as a sigmoid would.": (free.real,),
        "values below 0 are left: where speech and mixture point apart, the best allowed mask is 0.": (
            free.real.clamp(max=1),
        ),
        "negative values became positive: clip at 0, do not take the absolute value.": (free.real.abs().clamp(0, 1),),
        "that is the sine of the angle, the part of the speech that no real mask can reach.": (
            free.imag,
            free.imag.clamp(0, 1),
            free.imag.abs().clamp(0, 1),
        ),
        "speech and mixture are swapped in the ratio: it is S / Y.": (
            (1 / free).real.clamp(0, 1),
            (free.real / free.abs() ** 2).clamp(0, 1),
            (1 / free).abs().clamp(0, 1),
        ),
    }
    if torch.allclose(mask, truth, atol=1e-4):
        return right(f"all {truth.numel()} bins agree, and silence gives no NaN.")
    for message, values in candidates.items():
        if any(torch.allclose(mask, value, atol=1e-4) for value in values):
            return wrong(message)
    fraction = float((mask - truth).abs().lt(1e-3).float().mean())
    return wrong(f"{100 * fraction:.0f} % of the bins are right; project S on Y, divide by |Y|, clip to [0, 1].")


def solution_phase_sensitive_mask(clean: Tensor, noisy: Tensor) -> Tensor:
    """Re(S / Y) = Re(S conj(Y)) / |Y|^2, clipped to [0, 1]."""
    return ((clean * noisy.conj()).real / noisy.abs().square().clamp_min(1e-12)).clamp(0, 1)


@grader
def check_tone_frequency(answer: Callable[[Tensor, Tensor, int], float | None]) -> Verdict:
    """Grade ``answer(first, second, bin)``: one bin in two neighbouring frames -> the tone's frequency in Hz.

    Window 400, hop 100, FFT 512, 16 kHz; ``first`` and ``second`` are complex scalars, ``bin`` the loudest bin.
    """
    stft = ComplexSTFT()
    generator = torch.Generator().manual_seed(0)
    bins = torch.randint(8, 240, (10, 1), generator=generator)
    offsets = 30 * torch.rand(10, 2, generator=generator) - 15  # Hz; two tones in each bin
    tones = (bins * 16000 / 512 + offsets).flatten().tolist()
    given, coarse, raw = [], [], []
    for hertz in tones:
        spectrum = stft(torch.cos(2 * math.pi * hertz * torch.arange(4000) / 16000)[None])[0]
        bin_ = int(spectrum[:, 20].abs().argmax())
        value = answer(spectrum[bin_, 20].clone(), spectrum[bin_, 21].clone(), bin_)
        if value is None:
            return wrong("the function returns None; it must return a frequency in Hz.")
        given.append(float(value))
        coarse.append(bin_ * 16000 / 512)
        raw.append(float((spectrum[bin_, 21].angle() - spectrum[bin_, 20].angle()) * 160 / (2 * math.pi)))
    errors = [a - b for a, b in zip(given, tones, strict=True)]
    if max(map(abs, errors)) < 0.5:
        return right(f"{len(tones)} tones, largest error {max(map(abs, errors)):.2f} Hz, with bins 31.25 Hz apart.")
    if all(math.isclose(a, b, abs_tol=0.01) for a, b in zip(given, coarse, strict=True)):
        return wrong("that is the centre of the bin; the turn between the two frames tells how far off it is.")
    if all(math.isclose(a + b, c, abs_tol=0.5) for a, b, c in zip(given, coarse, tones, strict=True)):
        return wrong("that is only the deviation from the bin's centre: add the centre.")
    if all(
        math.isclose(a, b, abs_tol=0.5) or math.isclose(a, b % 160, abs_tol=0.5)
        for a, b in zip(given, raw, strict=True)
    ):
        return wrong(
            "the turn between two frames is known up to whole turns only (160 Hz each): subtract the turn of "
            "the bin's centre, wrap to one half turn either way, add the centre."
        )
    if all(abs(e / 160 - round(e / 160)) < 0.01 for e in errors):
        return wrong(
            "off by whole turns (multiples of 160 Hz): is the difference wrapped to -pi .. pi before you use it, and "
            "the bin's centre bin * 16000 / 512 Hz?"
        )
    worst = max(range(len(tones)), key=lambda i: abs(errors[i]))
    return wrong(f"a tone of {tones[worst]:.1f} Hz comes out as {given[worst]:.1f} Hz; mind radians, turns and Hz.")


def solution_tone_frequency(first: Tensor, second: Tensor, bin: int) -> float:
    """Centre of the bin plus the wrapped rest of the turn, in Hz."""
    centre = bin * 16000 / 512
    turn = float(torch.angle(second * first.conj())) / (2 * math.pi)  # in turns, one hop of 100 samples
    expected = centre * 100 / 16000
    rest = (turn - expected + 0.5) % 1.0 - 0.5
    return centre + rest * 16000 / 100
