"""Building blocks of generated audio: shaped noise, slow random curves, level, colour and reverberation.

All signals are one-dimensional arrays (sample,) at 16 kHz; randomness comes from the generator given only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.runtime.paths import PathLike
from dccrn_lib.runtime.sinks import sink


def write_wav(path: PathLike, x: np.ndarray) -> None:
    """Write a signal (sample,) in 16 bit; its folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with sink(path) as file:
        soundfile.write(file, x, SAMPLE_RATE, subtype="PCM_16", format="WAV")


def set_level(x: np.ndarray, rms_dbfs: float, peak: float = 0.9) -> np.ndarray:
    """Scale to an RMS level in dB re full scale, or less where the peak would pass ``peak``; float32."""
    x = x - np.mean(x)
    rms = np.sqrt(np.mean(x**2)) + 1e-12
    gain = min(10 ** (rms_dbfs / 20) / rms, peak / (np.max(np.abs(x)) + 1e-12))
    return (gain * x).astype(np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    """Scale to RMS 1 (silence stays silent)."""
    return x / (np.sqrt(np.mean(np.square(x))) + 1e-12)


def shaped_noise(n: int, rng: np.random.Generator, hz: list[float], db: list[float]) -> np.ndarray:
    """Gaussian noise of RMS 1 whose spectrum passes through (hz, db), straight over log frequency."""
    return unit(np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * _gain_curve(n, hz, db), n))


def equalise(x: np.ndarray, hz: list[float], db: list[float]) -> np.ndarray:
    """Zero-phase filter with the gain curve through (hz, db), straight over log frequency; DC is removed."""
    n = len(x)
    padded = _fast_length(n + SAMPLE_RATE // 8)  # room for the filter's tails, and a fast length
    return np.fft.irfft(np.fft.rfft(x, padded) * _gain_curve(padded, hz, db).astype(x.dtype), padded)[:n]


def random_equaliser(x: np.ndarray, rng: np.random.Generator, depth_db: float) -> np.ndarray:
    """Colour of a random microphone: a smooth gain curve, ``depth_db`` of deviation, and a low cut."""
    hz = np.geomspace(80, 8000, 8)
    db = depth_db * rng.standard_normal(8)
    return equalise(x, [20, 40, *hz], [-40, -12, *db])


def slow_curve(n: int, rng: np.random.Generator, hz: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Smooth random curve between ``low`` and ``high`` that turns about ``hz`` times per second."""
    knots = max(4, int(np.ceil(n / SAMPLE_RATE * hz * 2)) + 3)
    place = np.arange(n) * ((knots - 3) / n) + 1.0
    left = place.astype(int)
    part = 0.5 - 0.5 * np.cos(np.pi * (place - left))  # raised-cosine interpolation stays in range
    values = rng.random(knots)
    return low + (high - low) * ((1 - part) * values[left] + part * values[left + 1])


def tone(frequency: np.ndarray, phase: float = 0.0) -> np.ndarray:
    """Sine of a time-varying frequency in Hz, (sample,) -> same."""
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE + phase)


def impulses(n: int, rng: np.random.Generator, per_second: float, spread: float = 1.0) -> np.ndarray:
    """Poisson train of impulses with random sign and log-normal size (``spread`` in nepers)."""
    count = max(1, rng.poisson(per_second * n / SAMPLE_RATE))
    train = np.zeros(n)
    size = np.exp(spread * rng.standard_normal(count)) * rng.choice([-1.0, 1.0], count)
    np.add.at(train, rng.integers(0, n, count), size)
    return train


def convolve(x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Linear convolution cut to the length of ``x``."""
    size = _fast_length(len(x) + len(h) - 1)
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(h, size), size)[: len(x)]


def modes(hz: np.ndarray, decay: np.ndarray, gain: np.ndarray, seconds: float) -> np.ndarray:
    """Struck object: sum of decaying sines, frequencies in Hz and decay times in s, (mode,) each -> (sample,)."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (gain[:, None] * np.exp(-t / decay[:, None]) * np.sin(2 * np.pi * hz[:, None] * t)).sum(0)


def add_at(x: np.ndarray, start: int, event: np.ndarray) -> None:
    """Add ``event`` into ``x`` from sample ``start`` on, in place, cut at the end."""
    room = x[start : start + len(event)]
    room += event[: len(room)]


def random_room(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A far source: the signal plus its convolution with a decaying noise tail of 0.1 to 0.8 s (RT60)."""
    rt60 = rng.uniform(0.1, 0.8)
    t = np.arange(int(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = unit(rng.standard_normal(len(t)) * np.exp(-6.91 * t / rt60)) / np.sqrt(len(t))
    tail = equalise(tail, [50, 1000, 8000], [0, 0, -rng.uniform(3, 15)])
    return x + rng.uniform(0.3, 1.5) * convolve(x, tail)


def _fast_length(n: int) -> int:
    """Smallest length >= n without a prime factor above 5."""
    best = 1 << (n - 1).bit_length()
    for five in (1, 5, 25, 125):
        for three in (1, 3, 9, 27, 81):
            odd = five * three
            best = min(best, odd << max(0, (-(-n // odd) - 1).bit_length()))
    return best


def _gain_curve(n: int, hz: list[float], db: list[float]) -> np.ndarray:
    """Linear gains of the rfft bins of length ``n``; 0 at DC."""
    f = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    gain = np.zeros(len(f))
    gain[1:] = 10 ** (np.interp(np.log(f[1:]), np.log(hz), db) / 20)
    return gain
