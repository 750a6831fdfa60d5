"""One clean and one estimated signal: the numbers that compare them, and the reason where there is no number.

pesq_wb, pesq_nb   ITU-T P.862.2 and P.862 by the package pesq, MOS-LQO, about 1 to 4.64 and 1 to 4.55
stoi               short-time objective intelligibility by pystoi, a fraction (0.93, not 93 %)
si_snr_db          scale-invariant signal-to-noise ratio, means removed, within +-150 dB (as dccrn_lib.losses.si_snr_db)
gain               least-squares scale of the clean signal in the estimate, means removed, <e, s> / <s, s>
polarity           its sign, +1 or -1
dnsmos_ovrl, dnsmos_sig, dnsmos_bak   DNSMOS P.835 by speechmos, no reference; only where it is installed

PESQ, STOI and SI-SNR are deaf to gain and sign: that is why the last two of the reference metrics stand
beside them. The packages answer silence and short signals with magic numbers or odd exceptions; here they
become None and a reason. PESQ is made for single sentences, and its C code has room for 50 utterances: a recording
of more than 20 s is cut into equal pieces of at most 20 s, and its score is their mean, weighted by the active speech
of the clean signal in each. Pieces without speech have no weight.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.audio.recording import LOUDEST, refuse_rate
from dccrn_lib.audio.resampling import resample
from dccrn_lib.audio.samples import real_samples
from dccrn_lib.evaluation.metrics import ALL_METRICS, DNSMOS_METRICS, REFERENCE_METRICS
from dccrn_lib.evaluation.native_pesq import native_pesq
from dccrn_lib.runtime.errors import ConfigError, MetricError, nearest_name
from dccrn_lib.runtime.paths import install_command

SILENCE_RMS = 1e-6  # -120 dB re full scale, after the mean is removed
SI_SNR_EPS = 1e-15  # of the estimate's energy: float32 samples are no more exact

PESQ_PIECE_SECONDS = 20  # speech and pause of an utterance take 0.4 s at least, and PESQ has room for 50 of them
_NO_UTTERANCE = "PESQ finds no utterance in the clean signal"

Outcome = tuple[float | None, str | None]  # (value, None) or (None, reason)


def metric_names(metrics: Sequence[str] | None = None) -> tuple[str, ...]:
    """The metrics to compute: those named, or all that are installed.

    Raises:
        ConfigError: a name is unknown.
    """
    if metrics is None:
        return ALL_METRICS if importlib.util.find_spec("speechmos") else REFERENCE_METRICS
    for name in metrics:
        if name not in ALL_METRICS:
            raise ConfigError(f"unknown metric {name!r}; {nearest_name(name, list(ALL_METRICS))}")
    return tuple(name for name in ALL_METRICS if name in metrics)


def require_installed(metrics: Sequence[str]) -> None:
    """Refuse metrics whose package is not there, before work is done that only they would judge.

    Raises:
        ConfigError: a package is missing.
    """
    packages = {"pesq": ("pesq", "metrics"), "stoi": ("pystoi", "metrics"), "dnsmos": ("speechmos", "dnsmos")}
    for name in metrics:
        package, extra = packages.get(name.partition("_")[0], ("numpy", ""))
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{name} needs {package}, which is not installed; run: {install_command(extra)}")


def _signal(x: np.ndarray | Tensor | Sequence[float], name: str) -> np.ndarray:
    """float32 (sample,), or MetricError for another shape or kind; signed integers are divided by their full scale."""
    array = real_samples(x, name, MetricError)
    if array.dtype.kind == "u" or array.dtype == np.int64:
        why = "a zero that is not known" if array.dtype.kind == "u" else "a full scale that is not known"
        raise MetricError(f"{name} holds {array.dtype}, with {why}; convert it to float samples in [-1, 1]")
    scale = 1.0 if array.dtype.kind == "f" else -float(np.iinfo(array.dtype).min)
    array = array.astype(np.float32, copy=False) / np.float32(scale)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1 or array.size == 0:
        raise MetricError(f"{name} must have the shape (sample,) with >= 1 sample, got {array.shape}")
    return array


def _unusable(clean: np.ndarray, estimate: np.ndarray) -> str | None:
    """Why no reference metric can compare the two, or None."""
    for name, x in (("clean", clean), ("estimate", estimate)):
        if not np.isfinite(x).all():
            return f"{name} holds NaN or infinite samples"
        if float(np.abs(x).max()) > LOUDEST:
            return f"{name} holds values beyond {LOUDEST:g}, which are no sound (full scale is 1)"
        if float(x.std(dtype=np.float64)) < SILENCE_RMS:
            return f"{name} is silent"
    return None


def _pesq(clean: np.ndarray, estimate: np.ndarray, mode: str) -> Outcome:
    """PESQ; a long recording in equal pieces, their mean weighted by the active speech of the clean signal in each."""
    if importlib.util.find_spec("pesq") is None:
        return None, "pesq is not installed (extra: metrics)"
    longest = PESQ_PIECE_SECONDS * SAMPLE_RATE
    if clean.size <= longest:
        return _pesq_piece(clean, estimate, mode)
    bounds = np.linspace(0, clean.size, math.ceil(clean.size / longest) + 1).round().astype(int)
    weights = _active_frames(clean, bounds)
    total = 0.0
    for k in np.flatnonzero(weights):
        piece = slice(bounds[k], bounds[k + 1])
        if float(estimate[piece].std(dtype=np.float64)) < SILENCE_RMS:
            value, reason = None, "estimate is silent"
        else:
            value, reason = _pesq_piece(clean[piece], estimate[piece], mode)
        if value is None and reason == _NO_UTTERANCE:
            weights[k] = 0
        elif value is None:
            return None, f"{reason} (from {bounds[k] / SAMPLE_RATE:.1f} s to {bounds[k + 1] / SAMPLE_RATE:.1f} s)"
        else:
            total += weights[k] * value
    return (float(total / weights.sum()), None) if weights.any() else (None, _NO_UTTERANCE)


def _active_frames(clean: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Frames of 20 ms within 40 dB of the loudest one, the mean of the signal left out, counted in each piece between
    ``bounds``."""
    offset = clean.mean(dtype=np.float64)  # no speech: with it the pauses would be as active as the words
    frames = [clean[a : a + (b - a) // 320 * 320].reshape(-1, 320) for a, b in zip(bounds, bounds[1:], strict=False)]
    power = [np.mean((f.astype(np.float64) - offset) ** 2, axis=1) for f in frames]
    loudest = max(p.max() for p in power)
    return np.array([np.count_nonzero(p > 1e-4 * loudest) for p in power])


def _pesq_piece(clean: np.ndarray, estimate: np.ndarray, mode: str) -> Outcome:
    value, problem = native_pesq(SAMPLE_RATE, clean, estimate, mode)
    if problem == "BufferTooShortError":
        return None, "shorter than 0.25 s"
    if problem == "NoUtterancesError":
        return None, _NO_UTTERANCE
    if problem:
        return None, f"PESQ's native code failed: {problem}"
    return (value, None) if value is not None and math.isfinite(value) else (None, "PESQ returned no number")


def _stoi(clean: np.ndarray, estimate: np.ndarray) -> Outcome:
    if importlib.util.find_spec("pystoi") is None:
        return None, "pystoi is not installed (extra: metrics)"
    from pystoi import stoi

    if clean.size < SAMPLE_RATE // 4:
        return None, "shorter than 0.25 s"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = float(stoi(clean.astype(np.float64), estimate.astype(np.float64), SAMPLE_RATE))
    if any("Not enough STFT frames" in str(w.message) for w in caught):
        return None, "less than 0.4 s of speech after pystoi's removal of silent frames"
    return (value, None) if math.isfinite(value) else (None, "STOI returned no number")


def _without_mean(x: np.ndarray) -> np.ndarray:
    """float64 (sample,) without its mean, which SI-SNR removes too."""
    x = x.astype(np.float64)
    return x - x.mean()


def _polarity(clean: np.ndarray, estimate: np.ndarray) -> Outcome:
    c, e = _without_mean(clean), _without_mean(estimate)
    correlation = float(e @ c / math.sqrt((e @ e) * (c @ c)))
    if abs(correlation) < 0.01:
        return None, f"estimate and clean are uncorrelated ({correlation:+.4f})"
    return math.copysign(1.0, correlation), None


def _gain(clean: np.ndarray, estimate: np.ndarray) -> Outcome:
    c, e = _without_mean(clean), _without_mean(estimate)
    # g = argmin |e - g s|^2 = <e, s> / <s, s>
    return float(e @ c / (c @ c)), None


def _si_snr(clean: np.ndarray, estimate: np.ndarray) -> Outcome:
    # as losses.si_snr_db, in double precision; eps goes with the energy, so that the level does not count
    c, e = _without_mean(clean), _without_mean(estimate)
    target = (e @ c) / (c @ c) * c
    noise, eps = e - target, SI_SNR_EPS * (e @ e)
    return 10 * math.log10((target @ target + eps) / (noise @ noise + eps)), None


def _finite(name: str, outcome: Outcome) -> Outcome:
    """The outcome, or a reason where the value is no number: one such score must not undo a mean."""
    value, _ = outcome
    return outcome if value is None or math.isfinite(value) else (None, f"{name} returned {value}, no finite number")


_REFERENCE: dict[str, Callable[[np.ndarray, np.ndarray], Outcome]] = {
    "pesq_wb": lambda clean, estimate: _pesq(clean, estimate, "wb"),
    "pesq_nb": lambda clean, estimate: _pesq(clean, estimate, "nb"),
    "stoi": _stoi,
    "si_snr_db": _si_snr,
    "gain": _gain,
    "polarity": _polarity,
}


def _dnsmos(estimate: np.ndarray) -> dict[str, Outcome]:
    """All three DNSMOS values; samples beyond full scale are clipped, as a sound card would."""
    if importlib.util.find_spec("speechmos") is None:
        return dict.fromkeys(DNSMOS_METRICS, (None, "speechmos is not installed (extra: dnsmos)"))
    if not np.isfinite(estimate).all():
        return dict.fromkeys(DNSMOS_METRICS, (None, "estimate holds NaN or infinite samples"))
    if float(estimate.std(dtype=np.float64)) < SILENCE_RMS:
        return dict.fromkeys(DNSMOS_METRICS, (None, "estimate is silent"))
    from speechmos import dnsmos

    # one file in, one dictionary out; the package is not annotated
    answer: Any = dnsmos.run(estimate.clip(-1.0, 1.0), sr=SAMPLE_RATE)
    return {name: (float(answer[f"{name.removeprefix('dnsmos_')}_mos"]), None) for name in DNSMOS_METRICS}


def score_pair(
    clean: np.ndarray | Tensor,
    estimate: np.ndarray | Tensor,
    sample_rate: int = SAMPLE_RATE,
    metrics: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compare an estimate with the clean signal.

    Args:
        clean: reference, (sample,) or (1, sample), full scale at +-1; any dense real array or tensor. Integers of 8, 16
            and 32 bits with a sign are divided by their full scale.
        estimate: of exactly the same length.
        sample_rate: of both, in Hz; other rates than 16 kHz are resampled to it.
        metrics: names to compute, None for all that are installed.

    Returns:
        {metric: value or None, ..., "reasons": {metric: why there is no value}}. NaN, silence (RMS below
        -120 dB re full scale) and signals too short to score give None and a reason.

    Raises:
        MetricError: lengths differ, a shape is not (sample,), or the samples are complex, not dense, unsigned or int64.
        ConfigError: unknown metric.
        AudioError: a sampling rate out of range.

    >>> s = np.sin(np.arange(16000) / 5)
    >>> score_pair(s, -0.5 * s, metrics=["gain", "polarity"])
    {'gain': -0.5, 'polarity': -1.0, 'reasons': {}}
    """
    names = metric_names(metrics)
    reference, signal = _signal(clean, "clean"), _signal(estimate, "estimate")
    if reference.size != signal.size:
        raise MetricError(
            f"clean has {reference.size} samples, estimate {signal.size}: metrics need one length; "
            "align and cut them first"
        )
    if sample_rate != SAMPLE_RATE:
        refuse_rate(sample_rate, "the pair")
        reference, signal = (resample(x, sample_rate, SAMPLE_RATE) for x in (reference, signal))
    unusable = _unusable(reference, signal)
    outcomes: dict[str, Outcome] = {
        name: (None, unusable) if unusable else _REFERENCE[name](reference, signal)
        for name in names
        if name in _REFERENCE
    }
    if any(name in DNSMOS_METRICS for name in names):
        outcomes |= _dnsmos(signal)
    outcomes = {name: _finite(name, outcome) for name, outcome in outcomes.items()}
    result: dict[str, Any] = {name: outcomes[name][0] for name in names}
    result["reasons"] = {name: outcomes[name][1] for name in names if outcomes[name][0] is None}
    return result
