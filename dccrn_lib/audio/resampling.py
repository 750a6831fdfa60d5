"""Change of sampling rate, at once or block by block with the same result.

One filter for all that is enhanced, scored or played: a sinc of 64 zero crossings under a Kaiser window (the
"kaiser_best" design of resampy and torchaudio's documentation: flat to about 0.9 of the lower Nyquist frequency, then a
steep fall: from 48 to 16 kHz, -3 dB at 7.5 kHz and less than -100 dB at 9 kHz). Delay is zero.
Recordings to train on go through the filter of ``scipy.signal.resample_poly`` instead (``corpus.decoding``), which falls
less steeply (-2 dB and -31 dB): the shipped weights were trained on what it makes of a manifest, and with another filter
the same manifest and seed would give other mixtures.

``StreamingResampler`` cuts an endless signal at multiples of the rate ratio and adds the context the filter
needs, so that blocks join without a seam.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import overload

import numpy as np
import torch
from torch import Tensor

from dccrn_lib.runtime.errors import AudioError

ZERO_CROSSINGS = 64
ROLLOFF = 0.9475937167399596
BETA = 14.769656459379492
_LARGEST_KERNEL = 4_000_000  # elements; beyond it (44,056 to 16,000 Hz, say) taps are computed as needed
_AT_ONCE = 1 << 19  # taps that are computed at once, for bounded memory
_TABLE_STEPS = 4096  # table entries per zero crossing


def checked_rate(rate: float) -> int:
    """The rate in Hz as an int; AudioError unless it is a positive whole number."""
    if not float(rate).is_integer() or rate < 1:
        raise AudioError(f"a sampling rate must be a positive whole number of Hz, got {rate}")
    return int(rate)


def _reduced(from_rate: int, to_rate: int) -> tuple[int, int]:
    """The two rates divided by their greatest common divisor; AudioError unless positive integers."""
    old, new = checked_rate(from_rate), checked_rate(to_rate)
    divisor = math.gcd(old, new)
    return old // divisor, new // divisor


def _half_width(old: int, new: int) -> int:
    """Input samples on either side of an output sample that its filter touches."""
    return math.ceil(ZERO_CROSSINGS * old / (min(old, new) * ROLLOFF))


@lru_cache(maxsize=16)
def _polyphase(old: int, new: int) -> torch.nn.Module:
    """torchaudio's resampler for one reduced ratio; its kernel is computed in double precision, once."""
    from torchaudio.transforms import Resample

    with torch.inference_mode(False):  # kept for all callers, also those that want gradients
        return Resample(old, new, "sinc_interp_kaiser", ZERO_CROSSINGS, ROLLOFF, BETA)


@lru_cache(maxsize=1)
def _kernel_table() -> np.ndarray:
    """Windowed sinc at t = 0, 1 / steps, ... zero crossings (and two zeros behind the end), float64."""
    t = np.arange(ZERO_CROSSINGS * _TABLE_STEPS + 1) / _TABLE_STEPS
    # k(t) = sinc(t) I0(beta sqrt(1 - (t / Z)^2)) / I0(beta)
    values = np.sinc(t) * np.i0(BETA * np.sqrt(1 - (t / ZERO_CROSSINGS) ** 2)) / np.i0(BETA)
    return np.concatenate([values, [0.0, 0.0]])


def _direct(x: np.ndarray, old: int, new: int, first: int = 0, last: int | None = None) -> np.ndarray:
    """Resample (row, sample) tap by tap: for ratios whose polyphase kernel would not fit into memory.

    Args:
        x: float32 (row, sample).
        old, new: the reduced rates.
        first, last: the output samples wanted, [first, last); None for all to the end.
    """
    samples = x.shape[-1]
    width, lowest = _half_width(old, new), min(old, new) * ROLLOFF
    padded = np.pad(x, ((0, 0), (width, width + 2)))
    end = -(-new * samples // old) if last is None else last
    result = np.empty((x.shape[0], end - first), dtype=np.float32)
    table, taps = _kernel_table(), np.arange(2 * width + 2)
    at_once = max(1, _AT_ONCE // taps.size)
    for start in range(first, end, at_once):
        n = np.arange(start, min(start + at_once, end))
        whole, rest = np.divmod(n * old, new)  # output n lies at input position whole + rest / new
        # t = (i - n old / new) min(old, new) rolloff / old, i = whole - width + tap
        t = np.abs(taps[None] - width - (rest / new)[:, None]) * (lowest / old)  # (output, tap)
        position = np.minimum(t, ZERO_CROSSINGS) * _TABLE_STEPS
        below = position.astype(np.int64)
        weights = table[below] + (position - below) * (table[below + 1] - table[below])
        pieces = padded[:, whole[:, None] + taps[None]]  # (row, output, tap)
        result[:, start - first : start - first + len(n)] = np.einsum("rnt,nt->rn", pieces, weights * (lowest / old))
    return result


def _is_direct(old: int, new: int) -> bool:
    return new * (old + 2 * _half_width(old, new)) > _LARGEST_KERNEL


@overload
def resample(x: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray: ...
@overload
def resample(x: Tensor, from_rate: int, to_rate: int) -> Tensor: ...
def resample(x: np.ndarray | Tensor, from_rate: int, to_rate: int) -> np.ndarray | Tensor:
    """Resample along the last axis.

    Args:
        x: signal, array or tensor of shape (..., sample); computed in float32.
        from_rate: its sampling rate in Hz.
        to_rate: rate wanted, in Hz. Equal rates return ``x`` itself.

    Returns:
        The same kind and shape, with ceil(sample * to_rate / from_rate) samples, float32.

    Raises:
        AudioError: a rate is not a positive whole number.

    >>> resample(np.zeros((2, 441)), 44100, 16000).shape
    (2, 160)
    """
    old, new = _reduced(from_rate, to_rate)
    if old == new:
        return x
    if isinstance(x, np.ndarray):
        return resample(torch.from_numpy(np.array(x, np.float32)), old, new).numpy()  # any order of its bytes
    if x.numel() == 0:
        return x.new_zeros((*x.shape[:-1], -(-x.shape[-1] * new // old)), dtype=torch.float32)
    rows = x.float().reshape(-1, x.shape[-1])  # (row, sample)
    if _is_direct(old, new):
        result = torch.from_numpy(_direct(rows.detach().cpu().numpy(), old, new)).to(x.device)
    else:
        convert = _polyphase(old, new)
        with torch.autocast("cpu", enabled=False):  # float32, also inside a caller's autocast
            result = convert(rows.cpu()).to(rows.device)
    return result.reshape(*x.shape[:-1], -1)  # (..., sample)


class StreamingResampler:
    """Resample a signal that arrives in blocks, to the result that the whole signal would give.

    The output is cut where a whole number of input samples meets a whole number of output samples; each piece
    is resampled with the filter's half width of context on both sides, which is then cut off.

    >>> from_blocks, x = StreamingResampler(48000, 16000), np.random.randn(1, 9600).astype("float32")
    >>> pieces = [from_blocks.push(x[:, :5000]), from_blocks.push(x[:, 5000:]), from_blocks.flush()]
    >>> bool(np.allclose(np.concatenate(pieces, axis=1), resample(x, 48000, 16000), atol=1e-6))
    True
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._old, self._new = _reduced(from_rate, to_rate)
        # context in whole blocks of `old` input samples
        self._context = -(-(_half_width(self._old, self._new) + 1) // self._old)
        # (channel, sample); starts `context` blocks before the next output
        self._buffer: np.ndarray | None = None
        self._received = self._returned = 0
        self._channels = 1

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take (channel, sample) float32, any number; return the output samples that are now certain."""
        self._received += samples.shape[-1]
        self._channels = samples.shape[0]
        if self._old == self._new:
            self._returned += samples.shape[-1]
            return samples
        if self._buffer is None:
            self._buffer = np.zeros((samples.shape[0], self._context * self._old), dtype=np.float32)
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        blocks = self._buffer.shape[1] // self._old - 2 * self._context
        if blocks < 1:
            return np.zeros((samples.shape[0], 0), dtype=np.float32)
        result = self._piece((blocks + 2 * self._context) * self._old, blocks * self._new)
        self._buffer = self._buffer[:, blocks * self._old :]
        self._returned += blocks * self._new
        return result

    def flush(self) -> np.ndarray:
        """Return the rest, (channel, sample), ceil(received * to_rate / from_rate) in all; start afresh."""
        if self._buffer is None:
            return np.zeros((self._channels, 0), dtype=np.float32)
        missing = -(-self._received * self._new // self._old) - self._returned
        result = self._piece(self._buffer.shape[1], missing)  # behind the end the filter sees zeros
        self._buffer, self._received, self._returned = None, 0, 0
        return result

    def _piece(self, samples: int, count: int) -> np.ndarray:
        """The next ``count`` output samples (channel, sample), from the first ``samples`` of the buffer."""
        assert self._buffer is not None
        first = self._context * self._new
        if _is_direct(self._old, self._new):
            return _direct(self._buffer[:, :samples], self._old, self._new, first, first + count)
        return resample(self._buffer[:, :samples], self._old, self._new)[:, first : first + count]
