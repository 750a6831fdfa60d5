"""Exercises of notebook 07: latency, waiting skips, the size of a state, and the end of a stream."""

from __future__ import annotations

import copy
import numbers
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.enhancement.stream import latency_samples
from dccrn_lib.lessons.built import streaming as built
from dccrn_lib.lessons.built.dccrn import MyStudent, my_mask
from dccrn_lib.lessons.built.streaming import L, h
from dccrn_lib.lessons.grading import Verdict, called, grader, is_unanswered, right, whole_number, wrong
from dccrn_lib.networks.dccrn import DCCRNConfig

#: The network of the first exercise: 20 ms window, 10 ms hop, three frames of look-ahead.
LATENCY_CASE = {"window_length": 320, "hop_length": 160, "lookahead_frames": 3}
ENCODER_LAYERS = 6
#: Hops and level of the signals of the last exercise; three are fewer than the frames of look-ahead, the last is so loud
#: that the student clips it.
END_CASES = ((20, 0.1), (3, 0.1), (20, 2.0))
STATE_CASES = ((16, 32, 64, 128, 128, 128), 512), ((8, 16, 32), 256)


@grader
def check_latency(answer: float | None) -> Verdict:
    """Grade the latency in samples of :data:`LATENCY_CASE`."""
    window, hop, frames = LATENCY_CASE.values()
    truth = solution_latency()
    if is_unanswered(answer):
        return wrong("no answer yet: put the number of samples in place of None.")
    if isinstance(answer, Tensor) and answer.ndim == 0:
        answer = answer.item()
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
    if isinstance(answer, Tensor | np.ndarray):
        answer = answer.tolist()
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


class _TheWholeSignalError(Exception):
    """The student was called on a signal, which a live stream does not have."""


def _not_live(*_: object, **__: object) -> NoReturn:
    raise _TheWholeSignalError


def _random_student() -> MyStudent:
    """A small student whose biases and statistics are random, so that a frame that should not exist leaves a trace."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        student = MyStudent(channels=(4, 8, 16, 16, 16, 16), rnn_units=64).eval()
        for name, values in [*student.named_buffers(), *student.named_parameters()]:
            if "running_mean" in name:
                values.normal_(0.0, 0.3)
            elif "running_var" in name:
                values.uniform_(0.5, 2.0)
            elif "bias" in name and name.startswith(("encoder", "decoder")) and "decoder.5" not in name:
                values.normal_(0.0, 0.1)
    return student


@grader
def check_to_the_end(function: Callable[[MyStudent, Sequence[Tensor]], Tensor]) -> Verdict:
    """Grade ``function(student, hops)``: all samples of a stream that ends, (sample,), as the student gives offline.

    Mistakes told apart: the stream left as it is, the start kept, the last frames of the STFT or of the mask forgotten,
    samples of the wrong place, zeros pushed in, zeros put out, the whole signal used.
    """
    student = _random_student()
    for count, level in END_CASES:
        y = level * torch.randn(count * h, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            truth = student(y[None])[0]
            live = copy.copy(student)  # the same layers, but nothing that takes a whole signal
            live.forward, live.estimate_mask = _not_live, _not_live
            try:
                answer = called(partial(function, live, list(y.split(h))) if callable(function) else function)
            except _TheWholeSignalError:
                return wrong("the student was called on the whole signal: a live stream has only one hop at a time.")
        if isinstance(answer, Verdict):
            return answer
        if answer.ndim != 1:
            return wrong(f"return one tensor (sample,), got one of shape {tuple(answer.shape)}.")
        error = _end_error(answer.to(truth.dtype), truth)
        if error:
            return wrong(error)
    return right("three frames finish the STFT, six times None finishes the mask, and no frame was made up.")


def _end_error(answer: Tensor, truth: Tensor) -> str:
    """What is wrong with the samples of a stream; empty when they are the offline ones."""
    size, start = len(truth), L - h
    if len(answer) > start and _same(answer[start:][:size], truth[: len(answer) - start]):
        return f"the first {start} samples lie before the signal: cut them off."
    owed = size - len(answer)
    if owed in (9 * h, size):
        return f"{owed} samples are still owed: nothing says yet that the signal is over."
    if owed == 6 * h:
        return f"{owed} samples are still owed: the mask is six frames late, and step(None) asks for one of them."
    if owed == 3 * h:
        return f"{owed} samples are still owed: offline three more frames of the STFT hold the last samples."
    if owed:
        return f"{size} samples went in, {len(answer)} came out."
    if _same(answer, truth):
        return ""
    if _same(answer.clamp(-1, 1), truth):
        return "right but for the level: the student ends with clamp(-1, 1), so the stream has to, too."
    tail = min(9 * h, size)
    if not answer[-tail:].any():
        return f"the last {tail} samples are zeros that you added: the stream still has to give them."
    if _same(answer[:-tail], truth[:-tail]) and (answer - truth).abs().max() < 0.1 * truth.abs().max():
        return (
            "nearly: only the end differs. Pushed zeros make frames that do not exist offline, and the layers answer "
            "them with their biases; after the last frame of the STFT there is None."
        )
    return f"the samples differ from the offline ones by up to {float((answer - truth).abs().max()):.1e}."


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=0.0, atol=1e-5))


def stream_with_end(
    student: MyStudent, hops: Sequence[Tensor], frames: int, steps: int, last: Tensor | None = None
) -> Tensor:
    """Samples of a stream from the first of ``hops`` on: (sample,).

    Args:
        student: causal but for its look-ahead.
        hops: of the signal, (h,) each.
        frames: hops of zeros that end the STFT.
        steps: how often ``last`` follows them for the mask.
        last: a spectrum, or None for "nothing more".
    """
    hand, waiting = built.StreamByHand(student), deque()

    def masked() -> Iterator[Tensor]:
        for spectrum in [*built.stream_stft([*hops, *[torch.zeros(h)] * frames]), *[last] * steps]:
            frame = None
            if spectrum is not None:
                waiting.append(spectrum)
                frame = torch.stack([spectrum.real, spectrum.imag])[None, :, 1:, None]
            mask = hand.step(frame)
            if mask is not None:
                complex_mask = F.pad(torch.complex(mask[0, 0], mask[0, 1])[:, 0], (1, 0))
                yield my_mask(complex_mask, waiting.popleft())

    return torch.cat([torch.zeros(0), *built.stream_overlap_add(masked())])[L - h :]


def solution_to_the_end(student: MyStudent, hops: Sequence[Tensor]) -> Tensor:
    """Three hops of zeros for the STFT, then six times None for the mask."""
    return stream_with_end(student, hops, 3, 6).clamp(-1, 1)


def latency_of_case() -> int:
    """The first exercise by the library, for a network with as many decoder layers as frames of look-ahead."""
    stft = STFTConfig(LATENCY_CASE["window_length"], LATENCY_CASE["hop_length"], 512)
    return latency_samples(DCCRNConfig(channels=(4,) * LATENCY_CASE["lookahead_frames"], stft=stft))
