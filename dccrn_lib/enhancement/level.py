"""The level at which a network hears a recording. NumPy alone: the ONNX runner uses it without torch.

Networks learn at usual levels and are deaf to quiet recordings. Where the whole signal is at hand, :class:`LevelMeter`
brings it to one level before the network and back after it. A live signal has no future to measure, so
:class:`LevelControl` follows its loudest frames, causally, and leaves usual levels alone.
"""

from __future__ import annotations

import numpy as np

NETWORK_DBFS = -23.0  # level of active frames at which a network hears a recording, in dB relative to full scale
ACTIVE_DB = 25.0


class LevelMeter:
    """What to divide each channel by so that the network hears it at the level it was trained for, NETWORK_DBFS.

    The level is the RMS of the active frames of 50 ms, those within ACTIVE_DB of the loudest: a long pause does not make
    a recording quiet.

    Args:
        channels: of the signal.
        sample_rate: Hz.

    >>> meter = LevelMeter(1, 16000)
    >>> meter.add(np.full((1, 16000), 1e-3, np.float32))
    >>> round(float(20 * np.log10(1e-3 / meter.scale().item())), 3)
    -23.0
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        self._peak = np.zeros(channels)
        self._frame = max(1, round(0.05 * sample_rate))
        self._rest = np.zeros((channels, 0))
        self._energies = [np.zeros((channels, 0))]

    def add(self, samples: np.ndarray) -> None:
        """Take the next (channel, sample)."""
        self._peak = np.maximum(self._peak, np.abs(samples).max(axis=1, initial=0.0))
        power = np.concatenate([self._rest, np.square(samples, dtype=np.float64)], axis=1)  # (channel, sample)
        frames = power.shape[1] // self._frame
        whole = power[:, : frames * self._frame].reshape(len(power), frames, self._frame)  # (channel, frame, sample)
        self._energies.append(whole.mean(axis=2))
        self._rest = power[:, frames * self._frame :]

    def scale(self) -> np.ndarray:
        """The divisors, float32 (channel, 1); 1 for silence, never so small that a sample would pass full scale."""
        energies = np.concatenate(self._energies, axis=1)  # (channel, frame)
        if energies.shape[1] == 0 and self._rest.shape[1]:
            energies = self._rest.mean(axis=1, keepdims=True)
        scales = [_scale(e, peak) for e, peak in zip(energies, self._peak, strict=True)]
        return np.array(scales, dtype=np.float32)[:, None]


def _scale(energies: np.ndarray, peak: float) -> float:
    top = energies.max(initial=0.0)
    if top <= 0:
        return max(1.0, peak)
    level = float(np.sqrt(energies[energies > top / 10 ** (ACTIVE_DB / 10)].mean()))
    return max(level / 10 ** (NETWORK_DBFS / 20), peak, 1e-6)  # below -140 dBFS there is nothing to hear


class LevelControl:
    """A gain for each frame of a live signal, from this frame and those before it.

    The loudest frame so far, which fades by RELEASE dB per second, stands for the level. While it lies in USUAL the gain
    is exactly 1; outside, the gain brings it to the nearer edge. A frame that is louder than all before it counts at once,
    so the first word after a quiet start does not overload. A frame's spectrum is multiplied by its gain before the
    network and divided by the same gain after it: what comes out has the level that came in, without latency.

    Args:
        batch: number of parallel streams.
        frame_seconds: hop in seconds.

    >>> control = LevelControl(1, 0.01)
    >>> quiet, usual = np.full((1, 3), 1e-6), np.full((1, 2), 1e-2)  # -60 and -20 dBFS
    >>> 20 * np.log10(control.gains(quiet)).round(3), control.gains(usual)
    (array([[33., 33., 33.]]), array([[1., 1.]]))
    """

    #: dBFS, mean square of the loudest frames: active speech at -35 to -13 dBFS.
    USUAL = (-27.0, -5.0)
    RELEASE = 1.0  # dB per second
    MOST = 50.0  # dB of gain; what is quieter still is no recording

    def __init__(self, batch: int, frame_seconds: float) -> None:
        self._fade = 10 ** (-self.RELEASE * frame_seconds / 10)
        self._loudest = np.zeros(batch)

    def gains(self, power: np.ndarray) -> np.ndarray:
        """Mean square of the next frames (batch, frame) -> their gains (batch, frame)."""
        low, high = (10 ** (edge / 10) for edge in self.USUAL)
        gains = np.ones(power.shape)
        for k in range(power.shape[1]):
            self._loudest = np.maximum(self._loudest * self._fade, power[:, k])
            wanted = np.clip(self._loudest, low, high)
            heard = np.maximum(self._loudest, low / 10 ** (self.MOST / 10))
            gains[:, k] = np.where(wanted == self._loudest, 1.0, np.sqrt(wanted / heard))
        return gains
