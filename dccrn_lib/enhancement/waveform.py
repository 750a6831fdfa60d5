"""From samples at any rate to enhanced samples at the same rate, block by block and without a seam.

    input -> 16 kHz -> network (each channel alone) -> input rate -> cut to the input's length

Short signals go through the network whole. Longer ones stream if the network is a DCCRN, with the states
carried along, so that memory does not grow with length; the result is the whole-signal one to 1e-4 and
better. Uformer sees the whole signal or nothing, so its length is limited. What lies above 8 kHz in the
input is lost.

Networks learn at usual levels and are deaf to quiet recordings. So the whole signal is brought to one level before the
network and back after it: a recording at -60 dBFS gives what it gives at -23, only quieter. A passage far quieter than the
rest of its signal is raised for itself. The mean, a constant offset, is left out first and stays out: it is no sound.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.audio.recording import LOUDEST, refuse_rate
from dccrn_lib.audio.resampling import StreamingResampler, checked_rate
from dccrn_lib.audio.samples import real_samples
from dccrn_lib.enhancement.level import LevelMeter, limited
from dccrn_lib.enhancement.optimised import BLOCK_FRAMES, OptimisedDCCRN, optimised
from dccrn_lib.enhancement.stream import StreamingEnhancer
from dccrn_lib.networks.modes import evaluating
from dccrn_lib.networks.weights import load_model
from dccrn_lib.runtime.devices import autocast, require_device
from dccrn_lib.runtime.errors import AudioError
from dccrn_lib.runtime.paths import PathLike

WHOLE_SECONDS = 5.0  # longer signals stream where the network can
LIMIT_SECONDS = 60.0  # for networks that cannot: attention needs memory that grows with length squared
BLOCK_SECONDS = 5.0
CHANNELS_AT_ONCE = 8  # streamed as one batch: each takes some 40 MB while it is computed


class WholeSignal:
    """Collect a signal, enhance it at the end, one channel at a time (for bounded memory)."""

    def __init__(self, model: nn.Module, precision: str = "fp32") -> None:
        self.model, self._blocks = model, []
        self._device = device_of(model)
        self._precision = precision

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take (channel, sample); nothing comes back before ``flush``."""
        self._blocks.append(samples)
        return samples[:, :0]

    def flush(self) -> np.ndarray:
        """The enhanced signal, (channel, sample)."""
        x = torch.from_numpy(np.concatenate(self._blocks, axis=1))
        self._blocks = []
        with torch.inference_mode(), autocast(self._precision, self._device):
            y = [self.model(channel[None].to(self._device)).float().cpu() for channel in x]
        return torch.cat(y).numpy()  # (channel, sample)


class StreamedSignal:
    """The same result from StreamingEnhancers, their latency cut off at the start.

    Each takes CHANNELS_AT_ONCE channels at most, one after the other, which bounds the memory of many channels.
    """

    def __init__(self, model: OptimisedDCCRN, channels: int, precision: str = "fp32") -> None:
        self._device, self._precision = device_of(model), precision
        on_cpu = self._device.type == "cpu"
        frames = BLOCK_FRAMES if on_cpu else 2048
        self._groups = [
            slice(first, min(first + CHANNELS_AT_ONCE, channels)) for first in range(0, channels, CHANNELS_AT_ONCE)
        ]
        self._streams = [StreamingEnhancer(model, g.stop - g.start, frames, live=False) for g in self._groups]
        self._late = self._streams[0].latency_samples

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take (channel, sample); returns what is ready."""
        with autocast(self._precision, self._device):
            pieces = [s.push(samples[group]) for s, group in zip(self._streams, self._groups, strict=True)]
        return self._cut(np.concatenate(pieces))

    def flush(self) -> np.ndarray:
        """The rest, (channel, sample)."""
        with autocast(self._precision, self._device):
            pieces = [stream.flush() for stream in self._streams]
        return self._cut(np.concatenate(pieces))

    def _cut(self, samples: np.ndarray) -> np.ndarray:
        first = min(self._late, samples.shape[1])
        self._late -= first
        return samples[:, first:]


SignalPath = WholeSignal | StreamedSignal


def device_of(model: nn.Module) -> torch.device:
    """Where a network lies; the CPU for one without weights."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def signal_path(
    model: nn.Module, channels: int, seconds: float, name: str = "the signal", precision: str = "fp32"
) -> SignalPath:
    """Choose how a signal of this length meets the network, and in which precision ("fp32" or "bf16").

    Returns:
        WholeSignal or StreamedSignal: ``push((channel, sample) at 16 kHz)`` and ``flush()``.

    Raises:
        AudioError: the network needs the whole signal and it is longer than LIMIT_SECONDS.
        ConfigError: a precision that is not known, or not there on this device.
    """
    autocast(precision, device_of(model))
    model = optimised(model)
    if seconds > WHOLE_SECONDS and isinstance(model, OptimisedDCCRN):
        return StreamedSignal(model, channels, precision)
    if seconds > LIMIT_SECONDS:
        raise AudioError(
            f"{name} lasts {seconds:.0f} s: {type(model).__name__} needs all of it at once and takes at most "
            f"{LIMIT_SECONDS:.0f} s; cut it, or use a DCCRN such as distil_dccrn, which streams"
        )
    return WholeSignal(model, precision)


def enhanced_blocks(
    blocks: Iterable[np.ndarray], path: SignalPath, sample_rate: int, samples: int, meter: LevelMeter
) -> Iterator[np.ndarray]:
    """Run blocks through resampler, network and resampler.

    Args:
        blocks: float32 (channel, sample) at ``sample_rate``.
        path: from ``signal_path``.
        sample_rate: Hz.
        samples: length of the signal in samples.
        meter: has heard the whole signal; its offset is left out for good, its scales for the network only.

    Yields:
        float32 (channel, sample) at ``sample_rate``, ``samples`` in all.
    """
    offset = meter.offset()  # (channel, 1)
    down, up = StreamingResampler(sample_rate, SAMPLE_RATE), StreamingResampler(SAMPLE_RATE, sample_rate)

    def pieces() -> Iterator[np.ndarray]:
        start = 0
        for block in blocks:
            stop = start + block.shape[1]
            yield up.push(path.push(limited(down.push((block - offset) / meter.scales(start, stop)))))
            start = stop
        yield up.push(path.push(limited(down.flush())))
        yield up.push(path.flush())
        yield up.flush()

    done = 0
    for piece in pieces():
        piece = piece[:, : samples - done]
        if piece.shape[1]:
            yield piece * meter.scales(done, done + piece.shape[1])
        done += piece.shape[1]


def resolve_model(model: nn.Module | PathLike, device: str | None = None) -> nn.Module:
    """A network on ``device``: itself, or loaded by shipped name or path.

    Without a device a network stays where it is, and weights are loaded on the CPU.

    Raises:
        WeightsError: no such weights.
        ConfigError: unknown or absent device.
    """
    if device is None:
        return model if isinstance(model, nn.Module) else load_model(model)
    require_device(device)
    return model.to(device) if isinstance(model, nn.Module) else load_model(model, device)


@overload
def enhance_waveform(
    model: nn.Module | PathLike, samples: np.ndarray, sample_rate: int = SAMPLE_RATE, precision: str = "fp32"
) -> np.ndarray: ...
@overload
def enhance_waveform(
    model: nn.Module | PathLike, samples: Tensor, sample_rate: int = SAMPLE_RATE, precision: str = "fp32"
) -> Tensor: ...
def enhance_waveform(
    model: nn.Module | PathLike, samples: np.ndarray | Tensor, sample_rate: int = SAMPLE_RATE, precision: str = "fp32"
) -> np.ndarray | Tensor:
    """Enhance a signal in memory.

    Args:
        model: a network, a shipped name or a path of weights.
        samples: float, (sample,) or (channel, sample), full scale at +-1; array or tensor. Each channel is enhanced
            on its own.
        sample_rate: Hz. Other rates than 16 kHz are resampled there and back.
        precision: "fp32", the exact one, or "bf16": faster, and some 55 dB away from it.

    Returns:
        The same kind, shape and rate, float32; not limited to +-1.

    Raises:
        AudioError: no sample, NaN or infinite samples, integer, complex or sparse ones, a wrong shape or rate, or too
        long for a network that cannot stream.

    >>> enhance_waveform(nn.Identity(), np.zeros((2, 441)), 44100).shape
    (2, 441)
    """
    sample_rate, is_tensor = checked_rate(sample_rate), isinstance(samples, Tensor)
    refuse_rate(sample_rate, "the signal")
    x = real_samples(samples, "the signal")
    if x.dtype.kind != "f":
        raise AudioError(f"expected float samples in [-1, 1], got {x.dtype}; divide integers by their full scale")
    if x.ndim not in (1, 2) or x.size == 0:
        raise AudioError(f"samples must be (sample,) or (channel, sample) with >= 1 sample, got {x.shape}")
    rows = x.reshape(-1, x.shape[-1])  # (channel, sample)
    if rows.shape[0] > 1024:
        raise AudioError(f"{rows.shape[0]} channels; samples must be (channel, sample)")
    meter = LevelMeter(len(rows), sample_rate)
    if not np.isfinite(rows).all():
        raise AudioError("the signal holds NaN or infinite samples; repair it first")
    if np.abs(rows).max() > LOUDEST:
        raise AudioError(f"the signal holds values beyond {LOUDEST:g}, which are no sound; repair it first")
    size = max(1, int(BLOCK_SECONDS * sample_rate))
    for start in range(0, rows.shape[1], size):  # in float64: all at once would take 4 times the signal
        meter.add(rows[:, start : start + size])
    network = resolve_model(model)
    blocks = (rows[:, start : start + size] for start in range(0, rows.shape[1], size))
    with evaluating(network):
        path = signal_path(network, rows.shape[0], rows.shape[1] / sample_rate, precision=precision)
        pieces = list(enhanced_blocks(blocks, path, sample_rate, rows.shape[1], meter))
    y = np.concatenate(pieces, axis=1).reshape(x.shape)
    return torch.from_numpy(y).to(samples.device) if is_tensor else y
