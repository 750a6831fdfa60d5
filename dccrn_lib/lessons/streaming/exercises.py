"""Exercises of notebook 07: latency, waiting skips, the size of a state, and why a stream must be flushed."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.enhancement.stream import latency_samples
from dccrn_lib.lessons.grading import Verdict, grader, is_unanswered, right, whole_number, wrong
from dccrn_lib.networks.dccrn import DCCRNConfig

#: The network of the first exercise: 20 ms window, 10 ms hop, three frames of look-ahead.
LATENCY_CASE = {"window_length": 320, "hop_length": 160, "lookahead_frames": 3}
ENCODER_LAYERS = 6
STATE_CASES = ((16, 32, 64, 128, 128, 128), 512), ((8, 16, 32), 256)


@grader
def check_latency(answer: float | None) -> Verdict:
    """Grade the latency in samples of :data:`LATENCY_CASE`."""
    window, hop, frames = LATENCY_CASE.values()
    truth = solution_latency()
    if is_unanswered(answer):
        return wrong("no answer yet: put the number of samples in place of None.")
    if not isinstance(answer, numbers.Real):
        return wrong(f"expected a number of samples, got {type(answer).__name__}.")
    if answer == truth:
        return right(f"({window} - 1) + {frames} x {hop} = {truth} samples, {truth / 16:.1f} ms at 16 kHz.")
    if answer == truth + 1:
        return wrong("one too many: the sample that waits is inside its frame, so only win - 1 others come after it.")
    if answer == frames * hop:
        return wrong("that is the look-ahead of the frames alone; the frame itself must be complete too.")
    if answer == window - 1:
        return wrong("that is the latency without any look-ahead; each of the frames of look-ahead adds a hop.")
    if answer == window - hop + frames * hop:
        return wrong("the overlap is counted, but not the hop - 1 samples until the newest frame is complete.")
    if abs(answer - truth / 16) < 0.5:
        return wrong("that looks like milliseconds; the question asks for samples.")
    return wrong("count how many samples come after sample n in the last frame that covers it, then add the frames.")


def solution_latency() -> int:
    """(win - 1) + L hop."""
    return (LATENCY_CASE["window_length"] - 1) + LATENCY_CASE["lookahead_frames"] * LATENCY_CASE["hop_length"]


@grader
def check_waits(answer: Sequence[int] | None) -> Verdict:
    """Grade the frames that the output of encoder layer 0 .. 5 waits for its decoder layer."""
    if is_unanswered(answer):
        return wrong("no answer yet: put a list of six whole numbers in place of None.")
    waits = [whole_number(v) for v in answer] if isinstance(answer, Sequence) else None
    if waits is None or len(waits) != ENCODER_LAYERS or None in waits:
        return wrong("expected a list of six whole numbers, encoder layer 0 first.")
    if waits == solution_waits():
        return right("the outermost skip waits longest: 5 frames, 31.2 ms; the innermost is used at once.")
    if waits == solution_waits()[::-1]:
        return wrong("that is the order of the decoder layers; encoder layer i feeds decoder layer 5 - i.")
    if waits == [0] * ENCODER_LAYERS:
        return wrong("without waiting, a decoder layer joins frames of different times; follow the frame numbers.")
    if waits == [w + 1 for w in solution_waits()]:
        return wrong("one frame too many: the frame a decoder layer GIVES is one older than the frame it TAKES.")
    if len(set(waits)) == 1:
        return wrong("the delay accumulates from layer to layer, so the six waits differ.")
    return wrong("ask of each decoder layer how many of them came before it: each of those is one frame late.")


def solution_waits() -> list[int]:
    """Encoder layer i feeds decoder layer 5 - i, which runs 5 - i frames behind."""
    return [ENCODER_LAYERS - 1 - i for i in range(ENCODER_LAYERS)]


@grader
def check_state_size(function: Callable[[Sequence[int], int], int]) -> Verdict:
    """Grade ``function(channels, fft_size)``: float32 numbers that the encoder must remember between two frames."""
    for channels, fft_size in STATE_CASES:
        answer = function(channels, fft_size)
        if is_unanswered(answer):
            return wrong("no answer yet: let the function return a number.")
        size, truth = whole_number(answer), solution_state_size(channels, fft_size)
        if size is None:
            return wrong(f"expected a whole number, got {answer!r}.")
        if size == truth:
            continue
        bins = [fft_size // 2 >> i for i in range(len(channels) + 1)]
        if size == sum(c * f for c, f in zip(channels, bins[1:], strict=True)):
            return wrong("that is what the layers GIVE; each layer must remember a frame of what it TAKES.")
        if size == 2 * truth:
            return wrong("two frames a layer; a kernel of two frames needs the new one and ONE old one.")
        if size == truth + 2:
            return wrong("the first layer has one bin too many: DC is dropped before the encoder.")
        if size == truth - bins[0]:
            return wrong("the first layer takes two channels, the real and the imaginary part.")
        if size == sum([2, *channels[:-1]]):
            return wrong("that counts channels; a remembered frame has all the bins of that layer.")
        return wrong(f"for channels {tuple(channels)} and FFT {fft_size} expected another number than {size}.")
    return right("one frame of each layer's input: channels in x bins in, summed over the layers.")


def solution_state_size(channels: Sequence[int], fft_size: int) -> int:
    """sum_i C_i F_i with C = 2, channels... and F = fft / 2 halved by every layer."""
    inputs = [2, *channels[:-1]]
    return sum(c * (fft_size // 2 >> i) for i, c in enumerate(inputs))


@grader
def check_changed_frames(answer: float | None) -> Verdict:
    """Grade the number of output frames that differ if a stream is ended with zeros instead of ``flush``."""
    if is_unanswered(answer):
        return wrong("no answer yet: put a number of frames in place of None.")
    truth = solution_changed_frames()
    if answer == truth:
        return right(
            "the last six frames look at frames after the end: offline there are none, pushed zeros make some."
        )
    if answer == 0:
        return wrong("a layer answers a frame of zeros with its bias and with what it remembers, not with nothing.")
    if answer == 1:
        return wrong("one frame for ONE decoder layer; the look-ahead of all of them adds up.")
    if answer in (5, 7):
        return wrong("nearly: frame T - j needs the frames up to T - j + L; for which j >= 1 does that pass T - 1?")
    if isinstance(answer, numbers.Real) and answer >= 100:
        return wrong("that looks like samples; the question asks for frames.")
    return wrong("find the last output frame that needs no frame after the end.")


def solution_changed_frames() -> int:
    """L of the student."""
    return DCCRNConfig(stft=STFTConfig()).lookahead_frames


def latency_of_case() -> int:
    """The first exercise by the library, for a network with as many decoder layers as frames of look-ahead."""
    stft = STFTConfig(LATENCY_CASE["window_length"], LATENCY_CASE["hop_length"], 512)
    return latency_samples(DCCRNConfig(channels=(4,) * LATENCY_CASE["lookahead_frames"], stft=stft))
