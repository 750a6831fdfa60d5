"""The level at which a network hears a recording, and the offset it does not hear. NumPy alone: the ONNX runner uses it
without torch.

Networks learn at usual levels and are deaf to quiet recordings; a constant offset, as cheap converters add it, counts as
loud to a meter and is no sound. Where the whole signal is at hand, :class:`LevelMeter` gives its mean, to be left out, and
the scales that bring it to one level before the network and back after it: one for all of it, and smaller ones where a
second of it is far quieter than the rest, as a second talker is who sits far from the microphone. A live signal has no
future to measure, so :class:`OffsetControl` and :class:`LevelControl` follow it, causally: the mean as far as it is beyond
doubt, and the loudest frames.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

NETWORK_DBFS = -23.0  # level of active frames at which a network hears a recording, in dB relative to full scale
ACTIVE_DB = 25.0
PARTS = 10  # of a frame, 5 ms each; a click lies in one of them, or in two
CLICK_DB = 30.0  # the peak of a frame with a click lies so far above the RMS of all but its CLICK_PARTS loudest parts
CLICK_PARTS = 2
LOUDEST = 1e6  # of a live signal: 120 dB above full scale; far beyond it float32 overflows to NaN inside the network
LOUDEST_HEARD = 4.0  # full scale is 1: nothing but a click goes beyond
FOLLOW_DB = 18.0  # what lies so far below the loudest frame is still heard well; the rest is raised to here
FOLLOW_SECONDS = 0.5  # a frame's level is that of the loudest frame so near to it, on either side
FOLLOW_MOST = 50.0  # dB; what is quieter still is no recording


class LevelMeter:
    """What to subtract from each channel, and then divide it by, so that the network hears it at the level it was trained
    for, NETWORK_DBFS.

    The level is the RMS of the active frames of 50 ms, those within ACTIVE_DB of the loudest, without the mean of the whole
    signal: a long pause does not make a recording quiet, nor a constant offset loud. It is raised until a peak would pass
    full scale. Of a frame with a click the rest counts, so that a click decides on neither; a word of one syllable, however
    far above the noise, does.

    Where no frame within FOLLOW_SECONDS comes within FOLLOW_DB of the loudest one, the scale is smaller by what is missing,
    FOLLOW_MOST at most, and passes smoothly from one to the other (:meth:`scales`). Most recordings have no such place and
    one scale.

    Args:
        channels: of the signal.
        sample_rate: Hz.

    >>> meter = LevelMeter(1, 16000)
    >>> meter.add(0.1 + 1e-3 * (-1.0) ** np.arange(16000)[None])
    >>> round(float(20 * np.log10(1e-3 / meter.scale().item())), 3), round(meter.offset().item(), 3)
    (-23.0, 0.1)
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        self._frame, self._least = PARTS * max(1, sample_rate // (20 * PARTS)), sample_rate // 10
        self._rest = np.zeros((channels, 0))
        self._samples, self._sum = 0, np.zeros(channels)
        self._frames = [np.zeros((4, channels, 0))]  # mean, mean square, lowest and highest sample of frames
        self._known: tuple[np.ndarray, np.ndarray | None] | None = None  # scale and raise in dB

    def add(self, samples: np.ndarray) -> None:
        """Take the next (channel, sample)."""
        self._known = None
        self._samples += samples.shape[1]
        self._sum += samples.sum(axis=1, dtype=np.float64)
        line = np.concatenate([self._rest, samples], axis=1)  # (channel, sample), float64
        frames = line.shape[1] // self._frame
        if frames:
            whole = line[:, : frames * self._frame]
            self._frames.append(_measured(whole.reshape(len(line), frames, PARTS, -1)))
        self._rest = line[:, frames * self._frame :]

    def offset(self) -> np.ndarray:
        """Mean of each channel, float32 (channel, 1); 0 below 0.1 s, where a mean may be the sound itself."""
        known = self._samples >= max(1, self._least)
        return (self._sum / self._samples if known else 0 * self._sum).astype(np.float32)[:, None]

    def scale(self) -> np.ndarray:
        """The divisors where the signal is not far quieter than elsewhere, float32 (channel, 1); 1 for silence."""
        return self._levels()[0]

    def scales(self, start: int, stop: int) -> np.ndarray:
        """The divisors of samples start to stop, float32: (channel, 1) if they are those of :meth:`scale` for the whole
        signal, else (channel, sample).

        >>> meter = LevelMeter(1, 16000)
        >>> meter.add(np.repeat([0.1, 0.001], 48000)[None] * (-1.0) ** np.arange(96000))  # the second half 40 dB lower
        >>> near, far = (20 * np.log10(meter.scales(n, n + 1)) for n in (40000, 80000))
        >>> (near - far).round(3).item()  # raised to FOLLOW_DB below the first half
        22.0
        """
        scale, raised = self._levels()
        if raised is None:
            return scale
        centres = (np.arange(raised.shape[1]) + 0.5) * self._frame
        here = np.arange(start, stop)
        decibels = np.stack([np.interp(here, centres, channel) for channel in raised])
        return (scale * 10 ** (-decibels / 20)).astype(np.float32)

    def _levels(self) -> tuple[np.ndarray, np.ndarray | None]:
        if self._known is None:
            frames, rest = np.concatenate(self._frames, axis=2), self._rest
            if rest.shape[1]:
                frames = np.concatenate([frames, _measured(rest[:, None, None])], axis=2)
            mean, square, lowest, highest = frames  # (channel, frame) each, the last one perhaps shorter
            offset = self.offset().astype(np.float64)
            # mean((x - c)^2) = mean(x^2) - 2 c mean(x) + c^2
            energies = np.maximum(square - 2 * offset * mean + offset**2, 0.0)
            peaks = np.maximum(highest - offset, offset - lowest)
            whole = max(1, energies.shape[1] - bool(rest.shape[1]))  # what is too short for a frame decides on no level
            rows = zip(energies[:, :whole], peaks[:, :whole], strict=True)
            scale = np.array([_scale(*row) for row in rows], dtype=np.float32)[:, None]
            raised = np.stack([_raised(row) for row in energies]) if energies.shape[1] else np.zeros((len(scale), 0))
            self._known = scale, raised if raised.any() else None
        return self._known


def _measured(frames: np.ndarray) -> np.ndarray:
    """(channel, frame, part, sample) -> mean, mean square, lowest and highest sample without clicks (4, channel, frame)."""
    parts = np.stack([frames.mean(axis=3), np.square(frames).mean(axis=3), frames.min(axis=3), frames.max(axis=3)])
    mean, square = parts[:2]
    centre = mean.mean(axis=2, keepdims=True)
    energies = square - 2 * centre * mean + centre**2  # (channel, frame, part), about the frame's mean
    kept = np.argsort(energies, axis=2)[:, :, :-CLICK_PARTS]
    if not kept.shape[2]:
        return _together(parts)
    rest = np.take_along_axis(energies, kept, axis=2).mean(axis=2)
    peaks = np.maximum(parts[3] - centre, centre - parts[2]).max(axis=2)
    click = np.square(peaks) > rest * 10 ** (CLICK_DB / 10)  # (channel, frame)
    return np.where(click, _together(np.take_along_axis(parts, kept[None], axis=3)), _together(parts))


def _together(parts: np.ndarray) -> np.ndarray:
    mean, square, lowest, highest = parts  # (channel, frame, part) each
    return np.stack([mean.mean(axis=2), square.mean(axis=2), lowest.min(axis=2), highest.max(axis=2)])


def _scale(energies: np.ndarray, peaks: np.ndarray) -> float:
    loudest = float(energies.max(initial=0.0))
    if loudest <= 0:
        return 1.0
    level = float(np.sqrt(energies[energies > loudest / 10 ** (ACTIVE_DB / 10)].mean()))
    return max(level / 10 ** (NETWORK_DBFS / 20), float(peaks.max()), 1e-6)  # below -140 dBFS there is nothing to hear


def _raised(energies: np.ndarray) -> np.ndarray:
    """Energies (frame,) of one channel -> what each frame is raised by, in dB."""
    reach = round(FOLLOW_SECONDS * 20)
    decibels = 10 * np.log10(np.maximum(energies, 1e-20))
    around = np.pad(decibels, reach, constant_values=-200.0)
    loudest = sliding_window_view(around, 2 * reach + 1).max(axis=1)
    missing = np.clip(decibels.max() - FOLLOW_DB - loudest, 0.0, FOLLOW_MOST)
    # the mean reaches half as far as the maximum, so that it raises no frame beyond FOLLOW_DB below the loudest
    smooth = np.pad(missing, reach // 2, mode="edge")
    return sliding_window_view(smooth, 2 * (reach // 2) + 1).mean(axis=1)


def limited(samples: np.ndarray) -> np.ndarray:
    """What the network hears of samples at its level: a click far beyond it would ring through whole frames."""
    return np.clip(samples, -LOUDEST_HEARD, LOUDEST_HEARD)


class OffsetControl:
    """The constant offset of a live signal, from this hop of samples and those before it.

    The mean of the last SECONDS, as far as it stands out of the fluctuation of the hops' means: with v their variance and n
    their number, mean - SURE v / (n mean), and 0 where that changes sign. So it is exactly 0 for a signal without offset,
    and nothing is removed from it.

    Args:
        batch: number of parallel streams.
        hop_seconds: length of a hop.

    >>> sound = 0.01 * np.random.default_rng(0).standard_normal((1, 800))
    >>> without, with_offset = (OffsetControl(1, 0.00625).follow(x)[0] for x in (sound, sound + 0.1))
    >>> bool(np.mean(without == 0) > 0.95), round(float(with_offset[-1]), 2)
    (True, 0.1)
    """

    SECONDS = 5.0
    SURE = 9.0  # square of three standard deviations
    LEAST = 8  # hops before anything is known

    def __init__(self, batch: int, hop_seconds: float) -> None:
        self._slowest, self._hops = hop_seconds / self.SECONDS, 0
        self._moments = [(0.0, 0.0)] * batch  # mean and variance, in plain numbers: a live hop is too short for arrays
        self.latest = np.zeros(batch)  # of the last hop

    def follow(self, means: np.ndarray) -> np.ndarray:
        """Means of the next hops (batch, hop) -> their offsets (batch, hop)."""
        offsets = np.zeros(means.shape)
        weights = [max(1 / (self._hops + k + 1), self._slowest) for k in range(means.shape[1])]
        for stream, hops in enumerate(means.tolist()):
            mean, variance = self._moments[stream]
            for k, (value, weight) in enumerate(zip(hops, weights, strict=True)):
                difference = value - mean
                mean += weight * difference
                variance = (1 - weight) * (variance + weight * difference**2)
                doubt = self.SURE * variance * weight
                if mean**2 > doubt and self._hops + k + 1 >= self.LEAST:
                    offsets[stream, k] = mean - doubt / mean
            self._moments[stream] = mean, variance
        self._hops += means.shape[1]
        if means.shape[1]:
            self.latest = offsets[:, -1].copy()
        return offsets


class LevelControl:
    """A gain for each frame of a live signal, from this frame and those before it.

    The loudest frame so far, which fades by RELEASE dB per second, stands for the level. While it lies in USUAL the gain
    is exactly 1; outside, the gain brings it to the nearer edge. A frame that is louder than all before it counts at once,
    so the first word after a quiet start does not overload; but one that is louder by SUDDEN_DB stands for itself alone
    until SUDDEN_SECONDS of such frames have followed, so that a click is not remembered. A frame's spectrum is multiplied
    by its gain before the network and divided by the same gain after it: what comes out has the level that came in,
    without latency.

    Args:
        batch: number of parallel streams.
        frame_seconds: hop in seconds.

    >>> control = LevelControl(1, 0.01)
    >>> quiet, usual = np.full((1, 3), 1e-6), np.full((1, 2), 0.05)  # -60 and -13 dBFS
    >>> 20 * np.log10(control.gains(quiet)).round(3), control.gains(usual)
    (array([[43., 43., 43.]]), array([[1., 1.]]))
    """

    #: dBFS, mean square of the loudest frames: active speech at about -23 to -16 dBFS.
    USUAL = (-17.0, -10.0)
    #: dB per second: a talker far from the microphone is heard after seconds, and a pause of two changes no gain.
    RELEASE = 3.0
    MOST = 50.0  # dB of gain; what is quieter still is no recording
    SUDDEN_DB = 20.0
    SUDDEN_SECONDS = 0.05  # more than all frames that hold one click

    def __init__(self, batch: int, frame_seconds: float) -> None:
        self._fade = 10 ** (-self.RELEASE * frame_seconds / 10)
        self._low, self._high = (10 ** (edge / 10) for edge in self.USUAL)
        self._least = self._low / 10 ** (self.MOST / 10)
        self._sudden, self._soon = 10 ** (self.SUDDEN_DB / 10), math.ceil(self.SUDDEN_SECONDS / frame_seconds)
        self._loudest = [0.0] * batch  # in plain numbers: a live hop is too short for arrays
        self._waited = [0] * batch  # sudden frames in a row

    def gains(self, power: np.ndarray) -> np.ndarray:
        """Mean square of the next frames (batch, frame) -> their gains (batch, frame)."""
        gains = np.ones(power.shape)
        for stream, frames in enumerate(power.tolist()):
            loudest, waited = self._loudest[stream], self._waited[stream]
            for k, value in enumerate(frames):
                waited = waited + 1 if value > self._sudden * loudest else 0
                loudest = loudest * self._fade if 0 < waited < self._soon else max(loudest * self._fade, value)
                level = max(loudest, value)
                wanted = min(max(level, self._low), self._high)
                if wanted != level:
                    gains[stream, k] = math.sqrt(wanted / max(level, self._least))
            self._loudest[stream], self._waited[stream] = loudest, waited
        return gains
